"""The bounded queue between a session and one of its iterators."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable

from orchestrator.errors import InfrastructureFault
from orchestrator.realtime.events import RealtimeAudio, RealtimeRawModelEvent, RealtimeSessionEvent

__all__ = ["EventIterator", "EventStream", "IteratorOverflowError"]


class IteratorOverflowError(InfrastructureFault):
    """An iterator fell so far behind that events other than audio would have been lost. Iterate faster, or in its own task."""

    code = "iterator_overflow"


class EventStream:
    """Events for one iterator, oldest first.

    When full, the oldest audio or raw event is dropped and counted; when there is none left to drop, the stream ends with
    IteratorOverflowError. Iterating is safe to cancel: no event is lost by it.
    """

    __slots__ = ("_events", "_exception", "_limit", "_open", "_waiter", "dropped")

    def __init__(self, limit: int = 4096) -> None:
        self._events: deque[RealtimeSessionEvent] = deque()
        self._limit = limit
        self._open = True
        self._exception: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.dropped = 0

    @property
    def is_open(self) -> bool:
        """Does it still take events?"""
        return self._open

    def put(self, event: RealtimeSessionEvent) -> None:
        """Add an event; one that comes after the end is void."""
        if not self._open:
            return
        if len(self._events) >= self._limit and not self._make_room():
            self._events.clear()
            self.close(IteratorOverflowError(f"an iterator fell {self._limit} events behind; iterate in a task of its own"))
            return
        self._events.append(event)
        self._wake()

    def close(self, exception: Exception | None = None) -> None:
        """End the stream: what is queued is still delivered, then the exception, if any."""
        if self._open:
            self._open = False
            self._exception = exception
            self._wake()

    def _make_room(self) -> bool:
        for index, event in enumerate(self._events):
            if isinstance(event, RealtimeAudio | RealtimeRawModelEvent):
                del self._events[index]
                self.dropped += 1
                return True
        return False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def get(self) -> RealtimeSessionEvent:
        """Return the next event. Raises StopAsyncIteration at the end, or the exception that ended the stream."""
        while not self._events:
            if not self._open:
                if self._exception is not None:
                    raise self._exception
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._events.popleft()


class EventIterator:
    """One `async for` over a session. When the loop is left, its stream goes back: the next loop carries on there.

    Made on the event loop that the session belongs to, if one runs. The collector may find it on any thread; the stream goes
    back on that loop all the same.
    """

    __slots__ = ("_give_back", "_loop", "_stream", "_thread")

    def __init__(self, stream: EventStream, give_back: Callable[[EventStream], None]) -> None:
        self._stream = stream
        self._give_back = give_back
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._thread = threading.get_ident()

    def __aiter__(self) -> EventIterator:
        return self

    async def __anext__(self) -> RealtimeSessionEvent:
        return await self._stream.get()

    def __del__(self) -> None:
        # `break` tells an iterator nothing; only that nobody holds it any more.
        if threading.get_ident() == self._thread:
            self._give_back(self._stream)
        elif self._loop is not None:
            with contextlib.suppress(RuntimeError):  # The loop is closed, and with it the session.
                self._loop.call_soon_threadsafe(self._give_back, self._stream)
