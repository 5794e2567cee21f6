"""Labels in audio, and the ears that read them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.vad_energy import EnergyJudge
from orchestrator.simulator.speech import SpeechRequest
from tests.chaos.endpoint import LabelSpeaker
from tests.chaos.labels import (
    LABEL_BYTES,
    SENTENCE_FRAMES,
    Hearing,
    Label,
    Sentence,
    frames_of,
    make_label,
    read_label,
    turn_of,
)


@given(source=st.integers(0, 0xFFFF), number=st.integers(0, 0xFFFFFF), rest=st.binary(max_size=200))
def test_a_label_is_read_as_it_was_written(source: int, number: int, rest: bytes) -> None:
    label = Label(source, number)
    assert len(make_label(label)) == LABEL_BYTES
    assert read_label(make_label(label) + rest) == label


@given(st.binary(max_size=40))
def test_other_audio_has_no_label(audio: bytes) -> None:
    label = read_label(audio)
    assert label is None or make_label(label) == audio[:LABEL_BYTES]


@given(place=st.integers(0, LABEL_BYTES - 1), code=st.integers(0, 255))
def test_a_damaged_label_is_none(place: int, code: int) -> None:
    whole = bytearray(make_label(Label(0x1234, 0xABCDEF)))
    intact = whole[place] == code
    whole[place] = code
    assert (read_label(bytes(whole)) is not None) == intact


def test_no_detector_takes_a_label_for_a_voice() -> None:
    judge = EnergyJudge(Encoding.MULAW)
    frame = make_label(Label(0xFFFF, 0xF0F0F0)) + b"\xff" * (160 - LABEL_BYTES)
    for _ in range(50):
        (energy,) = judge.measure(frame)
        assert not judge.is_speech(energy, threshold=0.5, speaking=False)


def test_a_sentence_says_in_every_frame_which_turn_it_answers() -> None:
    for encoding in (Encoding.PCM16, Encoding.MULAW):
        audio = LabelSpeaker().render(SpeechRequest("This answers turn 17.", encoding=encoding)).audio
        labels = [read_label(frame) for frame in frames_of(audio, encoding)]
        assert labels == [Label(17, number) for number in range(SENTENCE_FRAMES)]
    assert turn_of("I have heard you speak.") == 0


def frames(turn: int, *, first: int = 0, last: int = SENTENCE_FRAMES - 1) -> list[Label]:
    return [Label(turn, number) for number in range(first, last + 1)]


def listen(*pieces: list[Label]) -> Sentence:
    sentence = Sentence()
    for piece in pieces:
        for label in piece:
            sentence.take(label)
    return sentence


def test_whole_sentences_are_heard_as_such() -> None:
    heard = listen(frames(1), frames(2))
    assert (heard.complete, heard.broken_off, heard.faults) == ([1, 2], 0, [])


def test_a_sentence_may_begin_anew() -> None:
    heard = listen(frames(1, last=11), frames(1))
    assert (heard.complete, heard.broken_off, heard.faults) == ([1], 1, [])


def test_a_frame_that_is_missing_or_doubled_or_of_another_turn_shows() -> None:
    assert listen(frames(1, last=11), frames(1, first=13)).faults == ["frame 13 of turn 1 instead of frame 12 of turn 1"]
    assert listen(frames(1, last=11), frames(1, first=11)).faults == ["frame 11 of turn 1 instead of frame 12 of turn 1"]
    assert listen(frames(1, last=11), frames(2, first=12)).faults == ["frame 12 of turn 2 instead of frame 12 of turn 1"]
    assert listen(frames(1, first=1)).faults == ["frame 1 of turn 1 instead of frame 0 of turn None"]
    unlabelled = Sentence()
    unlabelled.take(None)
    assert unlabelled.faults == ["a frame without a label"]


def test_a_sentence_is_not_gone_on_with_after_it_was_broken_off() -> None:
    sentence = listen(frames(1, last=11))
    sentence.break_off()
    sentence.take(Label(1, 12))
    assert len(sentence.faults) == 1
    assert sentence.broken_off == 1


def test_ears_count_what_is_missing_and_what_comes_twice() -> None:
    hearing = Hearing(1, 5, 4)
    for number in (5, 6, 9, 9, 7, 10):
        hearing.hear(number)
    assert (hearing.first, hearing.last, hearing.lost, hearing.doubled) == (5, 10, 2, 2)
