"""Speech that is really speech: as long as its text takes, loud where it should be, in the bytes that were asked for."""

from __future__ import annotations

import base64
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from orchestrator.errors import UserError
from orchestrator.simulator import speech
from orchestrator.simulator.audio import Encoding, decode, encode, resample
from orchestrator.simulator.speech import Speaker, SpeechRequest, Utterance, synthesize

TEXT = "It left our warehouse this morning, and it should reach you tomorrow."


@pytest.mark.parametrize("encoding", list(Encoding))
def test_speech_lasts_as_long_as_its_text_takes_to_say(speaker: Speaker, encoding: Encoding) -> None:
    utterance = speaker.render(SpeechRequest(TEXT, encoding=encoding))
    # People say ten to twenty characters a second.
    assert len(TEXT) / 22 < utterance.duration_ms / 1000 < len(TEXT) / 9
    assert len(utterance.audio) == utterance.duration_ms * encoding.bytes_per_ms
    assert utterance.duration_ms % 20 == 0


@pytest.mark.parametrize("encoding", list(Encoding))
def test_speech_is_neither_silent_nor_clipped(speaker: Speaker, encoding: Encoding) -> None:
    samples = decode(speaker.render(SpeechRequest(TEXT, encoding=encoding)).audio, encoding).astype(np.float64)
    frames = samples[: len(samples) // 100 * 100].reshape(-1, len(samples) // 100)
    loudness = np.sqrt((frames**2).mean(axis=1))
    assert (loudness > 500).mean() > 0.6
    assert np.abs(samples).max() < 32767


def test_speech_has_its_energy_where_voices_have_theirs(speaker: Speaker) -> None:
    samples = decode(speaker.render(SpeechRequest(TEXT)).audio, Encoding.PCM16).astype(np.float64)
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / 24_000)
    assert power[(frequency > 80) & (frequency < 4000)].sum() / power.sum() > 0.9


def test_the_formats_carry_the_same_speech(speaker: Speaker) -> None:
    pcm, mulaw, alaw = (speaker.render(SpeechRequest(TEXT, encoding=encoding)) for encoding in Encoding)
    assert pcm.duration_ms == pytest.approx(mulaw.duration_ms, abs=40)
    assert mulaw.duration_ms == pytest.approx(alaw.duration_ms, abs=40)


def test_voices_differ_and_unknown_ones_sound_like_the_first(speaker: Speaker) -> None:
    names = list(speech.TIMBRES)
    sounds = {name: speaker.render(SpeechRequest("Good morning to you.", name)).audio for name in names}
    assert len(set(sounds.values())) == len(names)
    assert speaker.render(SpeechRequest("Good morning to you.", "voice_123")).duration_ms == pytest.approx(
        speaker.render(SpeechRequest("Good morning to you.")).duration_ms, abs=20
    )


@pytest.mark.parametrize("speed", [0.25, 0.4, 0.5, 0.75, 1.25, 1.5])
def test_speed_is_that_of_the_session(speaker: Speaker, speed: float) -> None:
    plain = speaker.render(SpeechRequest(TEXT)).duration_ms
    assert speaker.render(SpeechRequest(TEXT, speed=speed)).duration_ms == pytest.approx(plain / speed, rel=0.08)


def pitch(utterance: Utterance) -> float:
    """The median of the fundamental frequency, in Hz."""
    samples = decode(utterance.audio, Encoding.PCM16).astype(np.float64)
    found: list[float] = []
    for start in range(0, len(samples) - 1200, 480):
        frame = samples[start : start + 1200]
        likeness = np.correlate(frame, frame, "full")[1199:]
        shifts = likeness[60:400]
        if likeness[0] > 1200 * 1500**2 and shifts.max() > 0.5 * likeness[0]:
            found.append(24_000 / (60 + int(shifts.argmax())))
    return float(np.median(found))


def test_each_voice_has_a_pitch_of_its_own(speaker: Speaker) -> None:
    pitches = sorted(pitch(speaker.render(SpeechRequest(TEXT, voice))) for voice in speech.TIMBRES)
    assert 70 < pitches[0] < pitches[-1] < 320
    # Half a semitone, which is heard when one follows the other.
    assert all(higher / lower > 1.025 for lower, higher in itertools.pairwise(pitches))


def test_slow_speech_keeps_its_pitch(speaker: Speaker) -> None:
    assert pitch(speaker.render(SpeechRequest(TEXT, speed=0.3))) == pytest.approx(
        pitch(speaker.render(SpeechRequest(TEXT))), rel=0.1
    )


@pytest.mark.parametrize("encoding", [Encoding.MULAW, Encoding.ALAW])
def test_telephone_speech_is_the_same_speech_to_the_accuracy_of_g711(speaker: Speaker, encoding: Encoding) -> None:
    plain = resample(decode(speaker.render(SpeechRequest(TEXT)).audio, Encoding.PCM16), 24_000, encoding.rate)
    there_and_back = decode(encode(plain, encoding), encoding).astype(np.float64)
    noise = there_and_back - plain
    assert 10 * np.log10((there_and_back**2).mean() / (noise**2).mean()) > 33
    spoken = decode(speaker.render(SpeechRequest(TEXT, encoding=encoding)).audio, encoding)
    # Two renderings differ in phase, not in loudness.
    assert np.std(spoken) == pytest.approx(np.std(plain), rel=0.05)


def test_deltas_are_slices_of_the_audio_and_encoded_once(speaker: Speaker) -> None:
    utterance = speaker.render(SpeechRequest(TEXT, encoding=Encoding.MULAW))
    deltas = utterance.deltas(200)
    sizes = [len(base64.b64decode(delta)) for delta in deltas]
    assert set(sizes[:-1]) == {1600}
    assert b"".join(base64.b64decode(delta) for delta in deltas) == utterance.audio
    assert utterance.deltas(200) is deltas


def test_empty_and_odd_texts_are_spoken_too() -> None:
    for text in ("", "?!", "Grüße aus Köln", "a\0b", "<speak>[[x]]</speak>"):
        assert synthesize(SpeechRequest(text)).duration_ms >= 20


def test_an_unknown_language_is_the_users_fault() -> None:
    with pytest.raises(UserError, match="no voice 'xx-nowhere'"):
        synthesize(SpeechRequest("hello", language="xx-nowhere"))


def test_a_speaker_renders_once_and_forgets_the_least_recently_used() -> None:
    speaker = Speaker(cache_bytes=200_000)
    requests = [SpeechRequest(f"This is number {number}.") for number in range(4)]
    first = speaker.render(requests[0])
    assert speaker.render(requests[0]) is first
    for request in requests[1:]:
        speaker.render(request)
        speaker.cached(requests[0])
    assert speaker.cached(requests[0]) is first
    assert speaker.cached(requests[1]) is None
    assert speaker.cached(requests[3]) is not None


def test_something_larger_than_the_cache_is_still_given_out() -> None:
    speaker = Speaker(cache_bytes=10)
    assert speaker.render(SpeechRequest("too long")).duration_ms > 100


def test_threads_may_render_at_once() -> None:
    speaker = Speaker()
    requests = [SpeechRequest(f"Thread {number % 3} speaks.") for number in range(12)]
    with ThreadPoolExecutor(4) as pool:
        utterances = list(pool.map(speaker.render, requests))
    assert len({id(utterance) for utterance in utterances}) == 3


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(speech, "_engine", speech._Engine)
    with pytest.raises(UserError, match=r"pip install 'realtime-orchestrator\[offline\]'"):
        synthesize(SpeechRequest("hello"))
