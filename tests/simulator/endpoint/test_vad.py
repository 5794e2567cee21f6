"""Voice activity: what is speech, where it starts, where it ends, and what a noise is not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.simulator.audio import Encoding, decode, encode, resample
from orchestrator.simulator.endpoint.vad import Edge, EdgeKind, VadKind, VadSettings, VoiceDetector
from orchestrator.simulator.speech import Speaker, SpeechRequest
from tests.simulator.support import loud, quiet

STARTED, STOPPED = EdgeKind.STARTED, EdgeKind.STOPPED
BOTH = [Encoding.PCM16, Encoding.MULAW]


def noise(milliseconds: int, decibels: float, encoding: Encoding, seed: int = 0) -> bytes:
    count = milliseconds * encoding.rate // 1000
    values = np.random.default_rng(seed).normal(0, 32768 * 10 ** (decibels / 20), count)
    return encode(np.clip(np.rint(values), -32768, 32767).astype(np.int16), encoding)


def edges(data: bytes, encoding: Encoding = Encoding.PCM16, vad: VadSettings | None = None) -> list[Edge]:
    return VoiceDetector(vad or VadSettings(), encoding).append(data)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_one_burst_is_one_turn_with_padding_before_and_silence_after(encoding: Encoding) -> None:
    found = edges(quiet(1000, encoding) + loud(600, encoding) + quiet(1000, encoding), encoding)
    assert found == [Edge(STARTED, 700, 1000), Edge(STOPPED, 1800, 1600)]


def test_padding_does_not_reach_before_the_audio_or_into_the_turn_before() -> None:
    found = edges(loud(500) + quiet(260) + loud(500) + quiet(500))
    assert [(edge.kind, edge.at_ms) for edge in found] == [(STARTED, 0), (STOPPED, 700), (STARTED, 700), (STOPPED, 1460)]


def test_the_settings_are_honoured() -> None:
    audio = quiet(1000) + loud(600) + quiet(1000)
    found = edges(audio, vad=VadSettings(prefix_padding_ms=100, silence_duration_ms=500))
    assert [edge.at_ms for edge in found] == [900, 2100]
    faint = quiet(500) + noise(600, -38, Encoding.PCM16) + quiet(500)
    assert edges(faint, vad=VadSettings(threshold=0.2)) != []
    assert edges(faint, vad=VadSettings(threshold=0.9)) == []


def test_a_pause_shorter_than_the_silence_does_not_end_a_turn() -> None:
    found = edges(loud(400) + quiet(180) + loud(400) + quiet(400))
    assert [edge.kind for edge in found] == [STARTED, STOPPED]


def test_a_click_is_not_speech() -> None:
    assert edges(quiet(500) + loud(40) + quiet(500)) == []


@pytest.mark.parametrize("encoding", BOTH)
@pytest.mark.parametrize("decibels", [-70, -60, -50, -42])
def test_a_constant_low_noise_is_never_speech(encoding: Encoding, decibels: float) -> None:
    assert edges(noise(20_000, decibels, encoding), encoding) == []


def test_a_noise_that_starts_and_stays_is_absorbed_in_the_end() -> None:
    found = edges(quiet(2000) + noise(60_000, -40, Encoding.PCM16))
    assert [edge.kind for edge in found] == [STARTED, STOPPED]


@pytest.mark.parametrize("encoding", BOTH)
@pytest.mark.parametrize("decibels", [None, -60, -48])
@pytest.mark.parametrize("text", ["Where is my order four seven one one?", "Thank you, goodbye.", "Yes."])
def test_spoken_phrases_are_one_turn_each_also_over_noise(
    speaker: Speaker, encoding: Encoding, decibels: float | None, text: str
) -> None:
    utterance = speaker.render(SpeechRequest(text))
    voice = decode(utterance.audio, Encoding.PCM16).astype(np.float64)
    padded = np.concatenate([np.zeros(12_000), voice, np.zeros(19_200)])
    if decibels is not None:
        padded += np.random.default_rng(1).normal(0, 32768 * 10 ** (decibels / 20), len(padded))
    samples = np.clip(np.rint(padded), -32768, 32767).astype(np.int16)
    found = edges(encode(resample(samples, 24_000, encoding.rate), encoding), encoding)
    assert [edge.kind for edge in found] == [STARTED, STOPPED]
    assert abs(found[0].sound_ms - 500) <= 140
    assert abs(found[1].sound_ms - (500 + utterance.duration_ms)) <= 260


@pytest.mark.parametrize("text", ["Where is my order four seven one one?", "Thank you, goodbye.", "Yes."])
def test_the_coarse_judge_finds_the_same_turns_less_exactly(speaker: Speaker, text: str) -> None:
    utterance = speaker.render(SpeechRequest(text, encoding=Encoding.MULAW))
    audio = quiet(730, Encoding.MULAW) + utterance.audio + quiet(900, Encoding.MULAW)
    fine, coarse = (VoiceDetector(VadSettings(), Encoding.MULAW, kind=kind).append(audio) for kind in ("energy", "coarse"))
    assert [edge.kind for edge in coarse] == [edge.kind for edge in fine] == [STARTED, STOPPED]
    assert all(abs(one.sound_ms - other.sound_ms) <= 200 for one, other in zip(coarse, fine, strict=True))


@pytest.mark.parametrize("kind", ["energy", "coarse"])
@given(st.lists(st.sampled_from(["quiet", "loud", "low", "noise"]), max_size=40), st.lists(st.integers(1, 2500), max_size=30))
def test_silence_that_repeats_byte_for_byte_is_judged_as_it_was(kind: VadKind, course: list[str], sizes: list[int]) -> None:
    mulaw = Encoding.MULAW
    sounds = {"quiet": quiet(100, mulaw), "loud": loud(100, mulaw), "low": b"\x7e" * 800, "noise": noise(100, -50, mulaw)}
    audio = b"".join(sounds[name] for name in course)
    whole = VoiceDetector(VadSettings(), mulaw, kind=kind)
    found = whole.append(audio)
    pieces = VoiceDetector(VadSettings(), mulaw, kind=kind)
    piecewise, at = [], 0
    for size in (*sizes, len(audio)):
        piecewise += pieces.append(audio[at : at + size])
        at += size
    assert piecewise == found
    assert pieces.position_ms == whole.position_ms


def test_position_starts_where_it_is_told_to() -> None:
    detector = VoiceDetector(VadSettings(), Encoding.PCM16, start_ms=5000)
    found = detector.append(loud(400) + quiet(400))
    assert [edge.at_ms for edge in found] == [5000, 5600]
    assert detector.position_ms == 5800


def test_a_forgotten_turn_ends_without_an_edge() -> None:
    detector = VoiceDetector(VadSettings(), Encoding.PCM16)
    assert [edge.kind for edge in detector.append(loud(400))] == [STARTED]
    detector.forget_turn()
    assert not detector.speaking
    assert detector.append(quiet(600)) == []


def test_settings_may_change_in_the_middle_of_a_turn() -> None:
    detector = VoiceDetector(VadSettings(silence_duration_ms=200), Encoding.PCM16)
    detector.append(loud(400))
    detector.configure(VadSettings(silence_duration_ms=600))
    assert detector.append(quiet(500)) == []
    assert [edge.at_ms for edge in detector.append(quiet(200))] == [1000]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 40)), min_size=1, max_size=8),
    st.lists(st.integers(1, 5000), max_size=30),
    st.sampled_from(BOTH),
)
def test_edges_alternate_move_forward_and_do_not_depend_on_how_the_audio_is_cut(
    pattern: list[tuple[bool, int]], sizes: list[int], encoding: Encoding
) -> None:
    audio = b"".join((loud if voiced else quiet)(20 * frames, encoding) for voiced, frames in pattern)
    whole = edges(audio, encoding)
    detector = VoiceDetector(VadSettings(), encoding)
    cuts = [0, *(min(cut, len(audio)) for cut in itertools.accumulate(sizes)), len(audio)]
    parts = [edge for start, end in itertools.pairwise(cuts) for edge in detector.append(audio[start:end])]
    assert parts == whole
    assert all(edge.kind is kind for edge, kind in zip(whole, itertools.cycle([STARTED, STOPPED]), strict=False))
    assert [edge.at_ms for edge in whole] == sorted(edge.at_ms for edge in whole)
    assert all(0 <= edge.at_ms <= detector.position_ms for edge in whole)
