"""Who reads a session's events, and what it costs when nobody does."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from orchestrator.realtime.event_hub import EventHub
from orchestrator.realtime.event_stream import EventStream
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


async def test_a_loop_that_is_collected_on_another_thread_gives_its_stream_back_on_ours() -> None:
    hub = EventHub(None)
    hub.open()
    iterator: Any = hub.iterate()
    hub.emit(RealtimeError("first", INFO))
    assert (await anext(iterator)).error == "first"
    hub.emit(RealtimeError("second", INFO))
    threads: list[int] = []
    give_back = hub._take_back

    def noted(stream: Any) -> None:
        threads.append(threading.get_ident())
        give_back(stream)

    iterator._give_back = noted
    holder = [iterator]
    del iterator
    await asyncio.to_thread(holder.clear)
    await asyncio.sleep(0)
    assert threads == [threading.get_ident()]
    # The next loop goes on where that one was left.
    following: Any = hub.iterate()
    assert (await anext(following)).error == "second"


def test_a_loop_that_outlives_its_event_loop_is_collected_quietly() -> None:
    async def leave_behind() -> list[Any]:
        hub = EventHub(None)
        hub.open()
        return [hub.iterate()]

    holder = asyncio.run(leave_behind())
    collector = threading.Thread(target=holder.clear)
    collector.start()
    collector.join()
    assert holder == []


async def test_an_event_reaches_every_loop_also_when_one_is_given_up_in_the_middle() -> None:
    hub = EventHub(None)
    hub.open()
    first: list[Any] = [hub.iterate()]
    second: Any = hub.iterate()
    last: Any = hub.iterate()

    class Collected(EventStream):
        """Stands in the middle; while it takes an event, the collector finds the loop before it."""

        __slots__ = ()

        def put(self, event: Any) -> None:
            first.clear()
            super().put(event)

    hub._backlog = EventStream()  # Another loop was left before, so the stream of this one goes.
    second._stream.__class__ = Collected
    hub.emit(RealtimeError("x", INFO))
    assert (await anext(second)).error == "x"
    assert (await anext(last)).error == "x"
