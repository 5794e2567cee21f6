"""The clock of a session: things happen at their time and in order, and after the end nothing does."""

from __future__ import annotations

from orchestrator.simulator.endpoint.outputs import Close
from orchestrator.simulator.endpoint.timeline import Timeline
from orchestrator.simulator.ids import IdSource
from orchestrator.wire.realtime import InputAudioBufferCleared
from tests.simulator.support import UNIX_TIME


def timeline() -> Timeline:
    return Timeline(IdSource(lambda: UNIX_TIME, 1))


def test_what_is_late_happens_at_its_own_time_and_in_order() -> None:
    clock = timeline()
    seen: list[tuple[str, float]] = []
    clock.at(2.0, lambda: seen.append(("second", clock.now)))
    clock.at(1.0, lambda: seen.append(("first", clock.now)))
    clock.at(2.0, lambda: seen.append(("third", clock.now)))
    assert clock.due == 1.0
    clock.run_until(5.0)
    assert seen == [("first", 1.0), ("second", 2.0), ("third", 2.0)]
    assert clock.now == 5.0
    assert clock.due is None


def test_what_is_asked_for_the_past_happens_now_and_the_clock_never_falls() -> None:
    clock = timeline()
    seen: list[float] = []
    clock.run_until(3.0)
    clock.at(1.0, lambda: seen.append(clock.now))
    clock.run_until(2.0)
    assert seen == [3.0]
    assert clock.now == 3.0


def test_every_event_has_an_id_of_its_own() -> None:
    clock = timeline()
    clock.send(InputAudioBufferCleared())
    clock.send(InputAudioBufferCleared())
    first, second = clock.taken()
    assert isinstance(first, InputAudioBufferCleared)
    assert isinstance(second, InputAudioBufferCleared)
    assert first.event_id != second.event_id
    assert clock.taken() == []


def test_after_the_close_nothing_happens() -> None:
    clock = timeline()
    seen: list[str] = []
    clock.at(1.0, lambda: clock.close(1000, "over"))
    clock.at(2.0, lambda: seen.append("never"))
    clock.run_until(9.0)
    assert clock.taken() == [Close(1000, "over")]
    assert (seen, clock.due, clock.closed) == ([], None, True)
