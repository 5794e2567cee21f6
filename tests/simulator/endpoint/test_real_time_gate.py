"""Audio that is sent faster than it plays is heard as it plays, if that is asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.real_time_gate import LONGEST_MS, RealTimeGate
from tests.simulator.support import Driver, loud, of_type, quiet, types

RATE = 8
STARTED, STOPPED = "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"


def test_a_burst_comes_through_as_it_plays() -> None:
    gate = RealTimeGate()
    gate.put(bytes(range(200)) * 8, 10.0, RATE)  # 200 ms
    assert gate.take(10.0) == b""
    assert gate.due == pytest.approx(10.02)
    assert len(gate.take(10.05)) == 40 * RATE
    assert len(gate.take(10.2001)) == 160 * RATE
    assert gate.due is None


def test_a_stream_in_real_time_is_late_by_one_piece_at_most() -> None:
    gate = RealTimeGate()
    through = 0
    for number in range(50):
        now = number * 0.02
        gate.put(bytes(20 * RATE), now, RATE)
        through += len(gate.take(now + 1e-9)) // RATE
        assert through >= number * 20


def test_a_burst_after_a_pause_is_spoken_from_then_on_but_for_what_a_network_delays() -> None:
    gate = RealTimeGate()
    gate.put(bytes(20 * RATE), 0.0, RATE)
    gate.take(1.0)
    gate.put(bytes(500 * RATE), 1.0, RATE)
    assert len(gate.take(1.0001)) == 100 * RATE
    assert len(gate.take(1.2001)) == 200 * RATE


def test_what_is_dropped_never_comes() -> None:
    gate = RealTimeGate()
    gate.put(bytes(100 * RATE), 0.0, RATE)
    gate.drop()
    assert gate.due is None
    assert gate.take(60.0) == gate.take_all() == b""


def test_it_holds_no_more_than_it_may() -> None:
    gate = RealTimeGate()
    gate.put(bytes((LONGEST_MS + 1000) * RATE), 0.0, RATE)
    assert len(gate.take(0.0)) == 1000 * RATE


@given(st.lists(st.tuples(st.integers(1, 700), st.floats(0, 0.3)), max_size=20))
def test_nothing_is_lost_changed_or_early(chunks: list[tuple[int, float]]) -> None:
    gate, now = RealTimeGate(), 0.0
    sent, got = bytearray(), bytearray()
    for size, pause in chunks:
        data = bytes((len(sent) + index) % 251 for index in range(size))
        gate.put(data, now, RATE)
        sent += data
        got += gate.take(now)
        assert len(got) / RATE <= now * 1000 + 1e-6
        assert gate.due is None or gate.due > now
        now += pause
    got += gate.take_all()
    assert got == sent


@pytest.fixture
def gated(drive: Callable[..., Driver]) -> Driver:
    return drive(options=ModelOptions(real_time=True))


def test_a_turn_sent_at_once_is_taken_when_it_was_spoken(gated: Driver) -> None:
    gated.append(quiet(1000) + loud(600) + quiet(1000))
    assert of_type(gated.events, STARTED) == []
    assert STARTED in types(gated.wait(1.1))
    assert STOPPED not in types(gated.wait(0.65))
    stopped = of_type(gated.wait(0.06), STOPPED)
    # The value on the wire is that of the audio, and no other than without the gate.
    assert [event["audio_end_ms"] for event in stopped] == [1800]


def test_a_commit_takes_what_was_sent_and_not_what_was_heard(gated: Driver) -> None:
    gated.update(audio={"input": {"turn_detection": None}})
    gated.append(loud(500))
    assert "input_audio_buffer.committed" in types(gated.send("input_audio_buffer.commit"))
    assert gated.send("input_audio_buffer.commit")[0]["error"]["code"] == "input_audio_buffer_commit_empty"


def test_a_clear_and_another_format_drop_what_was_not_heard(gated: Driver) -> None:
    gated.append(loud(1000) + quiet(500))
    gated.send("input_audio_buffer.clear")
    assert STARTED not in types(gated.wait(5.0))
    gated.append(loud(6000) + quiet(500))
    gated.update(audio={"input": {"format": {"type": "audio/pcmu"}}})
    assert STOPPED not in types(gated.wait(20.0))
    gated.append(loud(500, Encoding.MULAW) + quiet(500, Encoding.MULAW))
    assert STOPPED in types(gated.wait(2.0))
    assert len(of_type(gated.events, STOPPED)) == 1
