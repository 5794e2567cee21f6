"""Collects a session's events in a task of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from orchestrator.realtime import RealtimeSession, RealtimeSessionEvent


async def until(condition: Callable[[], bool]) -> None:
    """Wait, on the virtual clock, until the condition holds; threads of the program get their time meanwhile."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.01)


class Reader:
    """Reads until the session ends. `types` leaves the raw events out, and what else the test names."""

    def __init__(self, session: RealtimeSession) -> None:
        self.events: list[RealtimeSessionEvent] = []
        self.error: Exception | None = None
        self._task = asyncio.get_running_loop().create_task(self._read(session))

    async def _read(self, session: RealtimeSession) -> None:
        try:
            async for event in session:
                self.events.append(event)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test wants to see it
            self.error = error

    async def ended(self) -> None:
        await asyncio.wait_for(self._task, 5)

    def types(self, *left_out: str) -> list[str]:
        return [event.type for event in self.events if event.type not in {"raw_model_event", *left_out}]

    def of(self, event_type: str) -> list[Any]:
        return [event for event in self.events if event.type == event_type]
