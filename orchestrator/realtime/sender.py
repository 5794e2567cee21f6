"""Sends to a model that must be awaited, from code that must not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from orchestrator.core.inputs import RealtimeModelSendEvent
from orchestrator.realtime.model import RealtimeModel

__all__ = ["Sender"]

LIMIT = 1024


class Sender:
    """One task that sends in order. When `LIMIT` inputs wait, a further one is refused and reported as a fault."""

    def __init__(self, model: RealtimeModel, on_fault: Callable[[Exception], None]) -> None:
        self._model = model
        self._on_fault = on_fault
        self._queue: asyncio.Queue[RealtimeModelSendEvent] = asyncio.Queue(LIMIT)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="model sender")

    def put(self, event: RealtimeModelSendEvent) -> None:
        """Queue an input."""
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self._on_fault(RuntimeError("the model takes its input too slowly; an input was refused"))

    async def _run(self) -> None:
        while True:
            event = await self._queue.get()
            try:
                await self._model.send_event(event)
            except Exception as error:  # noqa: BLE001 - the model may be the program's own code
                self._on_fault(error)

    async def aclose(self) -> None:
        """Stop sending; what is still queued is void."""
        self._task.cancel()
        await asyncio.wait({self._task})
