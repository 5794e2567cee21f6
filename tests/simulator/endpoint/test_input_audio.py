"""The input audio buffer: what a turn consists of, and what the buffer refuses."""

from __future__ import annotations

import base64

import pytest

from orchestrator.errors import WireError
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.input_audio import IDLE_MS, InputBuffer, decode_audio
from orchestrator.simulator.endpoint.vad import EdgeKind, VadSettings
from tests.simulator.support import loud, quiet

PCM = Encoding.PCM16


def test_a_turn_has_the_padding_before_it_and_the_silence_after_it() -> None:
    buffer = InputBuffer(PCM, VadSettings(prefix_padding_ms=300))
    started, stopped = buffer.append(quiet(1000) + loud(500) + quiet(500))
    buffer.begin_turn(started.at_ms)
    turn = buffer.take_turn(stopped.at_ms)
    assert turn == quiet(300) + loud(500) + quiet(200)
    assert buffer.held_ms == 300


def test_turns_in_one_append_do_not_share_audio() -> None:
    buffer = InputBuffer(Encoding.MULAW, VadSettings())
    one = loud(500, Encoding.MULAW) + quiet(400, Encoding.MULAW)
    edges = buffer.append(one + one)
    assert [edge.kind for edge in edges] == [EdgeKind.STARTED, EdgeKind.STOPPED] * 2
    turns = []
    for started, stopped in (edges[:2], edges[2:]):
        buffer.begin_turn(started.at_ms)
        turns.append(buffer.take_turn(stopped.at_ms))
    assert b"".join(turns) == (one + one)[: len(turns[0]) + len(turns[1])]


def test_while_nobody_speaks_the_buffer_stays_small() -> None:
    buffer = InputBuffer(Encoding.MULAW, VadSettings())
    for _ in range(60):
        buffer.append(quiet(1000, Encoding.MULAW))
        assert buffer.held_ms <= IDLE_MS * 1.5 + 1000
    assert buffer.append(loud(400, Encoding.MULAW))[0].at_ms == 59_700


def test_without_a_detector_all_is_kept_until_the_client_commits() -> None:
    buffer = InputBuffer(PCM, None)
    assert buffer.append(loud(20_000)) == []
    assert buffer.commit() == loud(20_000)
    assert buffer.held_ms == 0


@pytest.mark.parametrize("milliseconds", [0, 99])
def test_a_commit_of_less_than_100_ms_is_refused_with_the_figure(milliseconds: int) -> None:
    buffer = InputBuffer(PCM, None)
    if milliseconds:
        buffer.append(loud(milliseconds))
    with pytest.raises(WireError, match=rf"at least 100ms of audio, but buffer only has {milliseconds}\.00ms") as caught:
        buffer.commit()
    assert caught.value.wire_code == "input_audio_buffer_commit_empty"
    assert buffer.held_ms == milliseconds


def test_a_commit_in_the_middle_of_a_turn_ends_it_without_an_edge() -> None:
    buffer = InputBuffer(PCM, VadSettings())
    buffer.begin_turn(buffer.append(loud(500))[0].at_ms)
    assert buffer.commit() == loud(500)
    assert buffer.append(quiet(600)) == []


def test_clear_drops_all() -> None:
    buffer = InputBuffer(PCM, VadSettings())
    buffer.append(loud(500))
    buffer.clear()
    assert buffer.held_ms == 0
    assert buffer.append(quiet(600)) == []


def test_another_format_starts_with_an_empty_buffer_and_the_same_clock() -> None:
    buffer = InputBuffer(PCM, VadSettings())
    buffer.append(quiet(1000))
    buffer.configure(Encoding.MULAW, VadSettings())
    assert buffer.held_ms == 0
    assert buffer.append(loud(400, Encoding.MULAW))[0].sound_ms == 1000


def test_the_detector_can_be_switched_off_and_on() -> None:
    buffer = InputBuffer(PCM, VadSettings())
    buffer.configure(PCM, None)
    assert buffer.append(loud(500)) == []
    buffer.configure(PCM, VadSettings())
    assert [edge.sound_ms for edge in buffer.append(quiet(500) + loud(500))] == [1000]


@pytest.mark.parametrize("payload", ["?", "AAA", "AA=A", "ÄÖ", "AAAA\n"])
def test_what_is_not_base64_is_refused(payload: str) -> None:
    with pytest.raises(WireError, match=r"mono PCM16 at 24kHz. but got an invalid value"):
        decode_audio(payload, PCM)


def test_empty_audio_is_refused() -> None:
    with pytest.raises(WireError, match="but got empty bytes"):
        decode_audio("", Encoding.MULAW)


def test_audio_is_decoded() -> None:
    assert decode_audio(base64.b64encode(b"\x01\x02").decode(), PCM) == b"\x01\x02"
