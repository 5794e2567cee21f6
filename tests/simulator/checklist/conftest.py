"""Servers for the lines of the checklist that are about the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from tests.simulator.checklist.support import HASTY, ToneSpeaker
from tests.simulator.support import SCENARIO, Recorder

Serve = Callable[..., Awaitable[SimulatorServer]]


@pytest.fixture
async def serve(recorder: Recorder) -> AsyncIterator[Serve]:
    """Starts servers that end with the test."""
    async with AsyncExitStack() as stack:

        async def start(**options: Any) -> SimulatorServer:
            chosen = {"scenario": SCENARIO, "model": HASTY, "on_frame": recorder, **options}
            return await stack.enter_async_context(SimulatorServer(SimulatorOptions(**chosen), ToneSpeaker()))

        yield start


@pytest.fixture
async def server(serve: Serve) -> SimulatorServer:
    return await serve()
