"""Where a session's events go: to the program's loops, and to the one observer that must not wait."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from orchestrator.realtime.event_stream import EventIterator, EventStream
from orchestrator.realtime.events import RealtimeSessionEvent

__all__ = ["EventHub", "SessionObserver"]


class SessionObserver(Protocol):
    """Hears a session in the very call that changes it; the way of a channel, which must not wait for a queue."""

    def on_session_event(self, event: RealtimeSessionEvent) -> None:
        """Take in an event. It must neither block nor raise."""

    def on_first_audio(self, seconds: float) -> None:
        """The agent's first audio came so long after the caller's turn ended."""

    def on_speech(self, *, speaking: bool) -> None:
        """The caller began or stopped to speak."""

    def on_renewing(self, cause: str) -> None:
        """The connection to the model is gone, and another is being made."""

    def on_renewed(self, seconds: float, cause: str) -> None:
        """The conversation goes on over a new connection, after so many seconds without one; 0 where nobody noticed."""

    def on_ended(self, exception: Exception | None) -> None:
        """The model is gone."""


class EventHub:
    """The streams of a session. Without an observer, events are kept from the start for the first loop."""

    def __init__(self, observer: SessionObserver | None) -> None:
        self.observer = observer
        # Replaced and never changed in place: the collector may take a loop away in the middle of a delivery.
        self._streams: tuple[EventStream, ...] = ()
        # What happened while nobody iterated: before the first loop, or between two. The next loop takes it over.
        self._backlog: EventStream | None = None
        self._closed = False
        self._exception: Exception | None = None

    @property
    def has_readers(self) -> bool:
        """Does anybody, or will anybody, read the events?"""
        return any(stream.is_open for stream in self._streams)

    def open(self) -> None:
        """Begin to keep events for the first loop."""
        if self.observer is None:
            self._backlog = EventStream()
            self._streams = (*self._streams, self._backlog)

    def emit(self, event: RealtimeSessionEvent) -> None:
        """Deliver an event."""
        self.emit_to_readers(event)
        if self.observer is not None:
            self.observer.on_session_event(event)

    def emit_to_readers(self, event: RealtimeSessionEvent) -> None:
        """Deliver an event that is of no use to an observer."""
        for stream in self._streams:
            stream.put(event)

    def iterate(self) -> AsyncIterator[RealtimeSessionEvent]:
        """Return an iterator: the first also sees what came before, a later one goes on where an earlier one was left."""
        stream, self._backlog = self._backlog, None
        if stream is None:
            stream = EventStream()
            if self._closed:
                stream.close(self._exception)
            else:
                self._streams = (*self._streams, stream)
        return EventIterator(stream, self._take_back)

    def close(self, exception: Exception | None = None) -> None:
        """End all streams, after what is queued; the first end counts."""
        if self._closed:
            return
        self._closed = True
        self._exception = exception
        for stream in self._streams:
            stream.close(exception)
        self._streams = ()

    def _take_back(self, stream: EventStream) -> None:
        if self._backlog is None:
            self._backlog = stream
        else:
            self._streams = tuple(other for other in self._streams if other is not stream)
