"""Who reads a session's events, and what it costs when nobody does."""

from __future__ import annotations

from typing import Any

from orchestrator.realtime.event_hub import EventHub
from orchestrator.realtime.events import RealtimeError

INFO: Any = None


async def test_a_stream_that_overflowed_is_not_fed_any_more() -> None:
    hub = EventHub(None)
    hub.open()
    assert hub.has_readers
    for _ in range(4097):
        hub.emit(RealtimeError("x", INFO))
    # Raw events are decoded only for readers, so a stream that has ended must not count as one.
    assert not hub.has_readers
