"""Who hears a model: direct listeners in the same call, asynchronous ones through one bounded queue."""

from __future__ import annotations

import asyncio
from typing import Any

from orchestrator.core.events import (
    RealtimeModelAudioEvent,
    RealtimeModelEvent,
    RealtimeModelExceptionEvent,
    RealtimeModelRawServerEvent,
)
from orchestrator.realtime.model import DirectListener, RealtimeModelListener

__all__ = ["Listeners"]

QUEUE_LIMIT = 4096


class Listeners:
    """The listeners of one model.

    Asynchronous ones are served one event at a time, in order, by one task that lives as long as there are any; audio is
    dropped when they fall `QUEUE_LIMIT` events behind, anything else ends them with an exception event to the direct ones.
    """

    def __init__(self) -> None:
        self._direct: list[DirectListener] = []
        self._async: list[RealtimeModelListener] = []
        self._queue: asyncio.Queue[RealtimeModelEvent] | None = None
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    @property
    def wants_raw(self) -> bool:
        """Does anybody want the server's own events? A session says so by `wants_raw`, other listeners always do."""
        return bool(self._async) or any(getattr(listener, "wants_raw", True) for listener in self._direct)

    def add(self, listener: Any) -> None:
        """Add a listener; adding one twice has no effect."""
        if isinstance(listener, DirectListener):
            if listener not in self._direct:
                self._direct.append(listener)
        elif listener not in self._async:
            self._async.append(listener)

    def remove(self, listener: Any) -> None:
        """Remove a listener."""
        if listener in self._direct:
            self._direct.remove(listener)
        if listener in self._async:
            self._async.remove(listener)

    def emit(self, event: RealtimeModelEvent) -> None:
        """Deliver an event."""
        for listener in tuple(self._direct):
            listener.receive_nowait(event)
        if self._async:
            self._enqueue(event)

    def _enqueue(self, event: RealtimeModelEvent) -> None:
        if self._queue is None or self._task is None:
            self._queue = asyncio.Queue(QUEUE_LIMIT)
            self._task = asyncio.get_running_loop().create_task(self._serve(self._queue), name="model listeners")
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.dropped += 1
            if not isinstance(event, RealtimeModelAudioEvent | RealtimeModelRawServerEvent):
                self._async.clear()
                overflow = RuntimeError("a listener of the model fell too far behind and was removed")
                for listener in tuple(self._direct):
                    listener.receive_nowait(RealtimeModelExceptionEvent(overflow))

    async def _serve(self, queue: asyncio.Queue[RealtimeModelEvent]) -> None:
        while True:
            event = await queue.get()
            for listener in tuple(self._async):
                try:
                    await listener.on_event(event)
                except Exception as error:  # noqa: BLE001 - a listener is the program's code
                    self.remove(listener)
                    for direct in tuple(self._direct):
                        direct.receive_nowait(RealtimeModelExceptionEvent(error, "a listener of the model raised"))

    async def aclose(self) -> None:
        """Stop serving; what is still queued is void."""
        task, self._task = self._task, None
        self._queue = None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait({task})
