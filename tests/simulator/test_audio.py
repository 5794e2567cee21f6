"""G.711 byte for byte, and a resampler that neither clicks nor folds."""

from __future__ import annotations

import hashlib
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.simulator.audio import (
    Encoding,
    Resampler,
    alaw_decode,
    alaw_encode,
    amplitude_table,
    amplitudes,
    decode,
    duration_ms,
    encode,
    mulaw_decode,
    mulaw_encode,
    resample,
    stretch,
)

EVERY_SAMPLE = np.arange(-32768, 32768, dtype=np.int32).astype(np.int16)
EVERY_CODE = bytes(range(256))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def test_g711_is_what_the_classic_codecs_give_on_every_value() -> None:
    # Digests of what Python's former audioop module gave for the same input.
    assert digest(mulaw_encode(EVERY_SAMPLE)) == "81d633c9e6972a18c74a58720b96cb8c"
    assert digest(alaw_encode(EVERY_SAMPLE)) == "38488f6fd710f4686360edc4d38639f9"
    assert digest(mulaw_decode(EVERY_CODE).astype("<i2").tobytes()) == "3dab54339e520bb2c924826e3b72a917"
    assert digest(alaw_decode(EVERY_CODE).astype("<i2").tobytes()) == "e04788d110e58ff8c70c93b8480190d9"


@pytest.mark.parametrize(
    ("encoding", "sample", "code"),
    [
        (Encoding.MULAW, 0, 0xFF),
        (Encoding.MULAW, 32767, 0x80),
        (Encoding.MULAW, -32768, 0x00),
        (Encoding.ALAW, 0, 0xD5),
        (Encoding.ALAW, 32767, 0xAA),
        (Encoding.ALAW, -32768, 0x2A),
    ],
)
def test_g711_known_codes(encoding: Encoding, sample: int, code: int) -> None:
    assert encode(np.array([sample], np.int16), encoding) == bytes([code])


def test_decoding_and_encoding_again_changes_nothing_but_the_second_zero_of_mulaw() -> None:
    assert alaw_encode(alaw_decode(EVERY_CODE)) == EVERY_CODE
    assert mulaw_encode(mulaw_decode(EVERY_CODE)) == EVERY_CODE.replace(b"\x7f", b"\xff")


@pytest.mark.parametrize("encoding", list(Encoding))
def test_sizes_and_silence(encoding: Encoding) -> None:
    second = encoding.silence * encoding.rate
    assert duration_ms(len(second), encoding) == 1000
    assert encoding.bytes_per_ms == len(second) / 1000
    assert np.abs(decode(second, encoding)).max() <= 8
    assert np.abs(amplitudes(second, amplitude_table(encoding))).max() <= 8


@given(st.binary(max_size=400))
def test_amplitudes_are_the_decoded_samples(data: bytes) -> None:
    for encoding in Encoding:
        whole = data[: len(data) // encoding.width * encoding.width]
        assert np.array_equal(amplitudes(whole, amplitude_table(encoding)), decode(whole, encoding).astype(np.float32))


def test_a_dangling_byte_of_pcm_is_left_out() -> None:
    assert decode(b"\x01\x00\xff", Encoding.PCM16).tolist() == [1]


def sine(frequency: float, rate: int, seconds: float = 1.0) -> NDArray[np.int16]:
    time = np.arange(int(rate * seconds)) / rate
    samples: NDArray[np.int16] = np.rint(10_000 * np.sin(2 * np.pi * frequency * time)).astype(np.int16)
    return samples


def level(samples: NDArray[np.int16]) -> float:
    inner = samples[len(samples) // 8 : -len(samples) // 8].astype(np.float64)
    return float(np.sqrt(np.mean(inner**2)))


@pytest.mark.parametrize(("source", "target"), [(8000, 24000), (24000, 8000), (22050, 24000), (22050, 8000), (24000, 16000)])
@pytest.mark.parametrize("frequency", [300, 1000, 3000])
def test_a_tone_in_the_voice_band_keeps_level_and_length(source: int, target: int, frequency: int) -> None:
    result = resample(sine(frequency, source), source, target)
    assert len(result) == target
    assert level(result) == pytest.approx(level(sine(frequency, source)), rel=0.01)
    spectrum = np.abs(np.fft.rfft(result * np.hanning(len(result))))
    assert abs(int(spectrum.argmax()) - frequency) <= 1


def test_the_result_is_aligned_with_the_input() -> None:
    result = resample(sine(440, 8000), 8000, 24000).astype(np.float64)
    error = (result - sine(440, 24000))[500:-500]
    assert np.abs(error).max() < 20


def test_what_the_target_cannot_hold_is_removed_instead_of_folded() -> None:
    assert level(resample(sine(5000, 24000), 24000, 8000)) < 5


def test_a_rate_that_is_kept_changes_nothing() -> None:
    samples = sine(440, 8000)
    assert resample(samples, 8000, 8000) is samples


@given(st.lists(st.integers(0, 700), min_size=1, max_size=20), st.sampled_from([(8000, 24000), (24000, 8000), (22050, 24000)]))
def test_a_stream_is_the_same_however_it_is_cut(sizes: list[int], rates: tuple[int, int]) -> None:
    samples = sine(700, rates[0], 0.5)
    ends = [min(end, len(samples)) for end in itertools.accumulate(sizes)]
    stream = Resampler(*rates)
    parts = [stream.process(samples[start:end]) for start, end in itertools.pairwise([0, *ends])]
    whole = Resampler(*rates).process(samples[: ends[-1]])
    # Sums of floats in another order may differ by the last bit.
    assert np.abs(np.concatenate(parts).astype(int) - whole.astype(int)).max(initial=0) <= 1


def test_peaks_are_clipped_and_do_not_wrap_around() -> None:
    square = np.repeat(np.array([32767, -32768] * 50, np.int16), 20)
    result = resample(square, 8000, 24000)
    assert result[:50].min() > 0


def test_flush_gives_the_tail_and_starts_anew() -> None:
    stream = Resampler(8000, 24000)
    first = np.concatenate([stream.process(sine(440, 8000, 0.1)), stream.flush()])
    second = np.concatenate([stream.process(sine(440, 8000, 0.1)), stream.flush()])
    assert np.array_equal(first, second)
    assert len(first) >= 2400


@pytest.mark.parametrize("factor", [1.0, 1.3, 2.0, 3.1])
@pytest.mark.parametrize("frequency", [110, 440])
def test_stretched_sound_is_longer_and_neither_higher_nor_torn(factor: float, frequency: int) -> None:
    result = stretch(sine(frequency, 22_050), factor, 22_050)
    assert len(result) == round(22_050 * factor)
    assert level(result) == pytest.approx(level(sine(frequency, 22_050)), rel=0.05)
    spectrum = np.abs(np.fft.rfft(result * np.hanning(len(result))))
    assert spectrum.argmax() * 22_050 / len(result) == pytest.approx(frequency, rel=0.02)


@pytest.mark.parametrize("samples", [0, 1, 100])
def test_very_short_sounds_are_stretched_too(samples: int) -> None:
    assert len(stretch(np.zeros(samples, np.int16), 2.0, 8000)) == 2 * samples
