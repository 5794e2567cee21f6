"""Waiting for a state that can be observed, where another process brings it about. The test's own timeout is the limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

LOOK_EVERY = 0.02


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the condition holds."""
    while not await condition():  # noqa: ASYNC110 - no event crosses a process boundary
        await asyncio.sleep(LOOK_EVERY)


def until_sync(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds, outside of any loop."""
    while not condition():
        time.sleep(LOOK_EVERY)
