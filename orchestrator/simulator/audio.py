"""Audio arithmetic of the offline endpoint: the three formats of the Realtime API, G.711 by table, and sample rates.

G.711 is byte for byte what the classic codecs give, so that payloads can be compared. Rates are changed by a stateful
windowed-sinc filter, since converting each chunk on its own clicks at every edge.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.int16]
    Floats = NDArray[np.float32]

__all__ = [
    "Encoding",
    "Resampler",
    "alaw_decode",
    "alaw_encode",
    "amplitude_table",
    "amplitudes",
    "decode",
    "duration_ms",
    "encode",
    "mulaw_decode",
    "mulaw_encode",
    "resample",
    "stretch",
]

PCM_RATE = 24_000
PHONE_RATE = 8_000


class Encoding(Enum):
    """An audio format of the Realtime API. The value is its wire type."""

    PCM16 = "audio/pcm"
    MULAW = "audio/pcmu"
    ALAW = "audio/pcma"

    rate: int
    """Samples per second."""
    width: int
    """Bytes per sample."""
    bytes_per_ms: int
    silence: bytes
    """One sample of silence."""

    def __init__(self, _wire_type: str) -> None:
        telephone = _wire_type != "audio/pcm"
        self.rate = PHONE_RATE if telephone else PCM_RATE
        self.width = 1 if telephone else 2
        self.bytes_per_ms = self.rate * self.width // 1000
        self.silence = {"audio/pcm": b"\0\0", "audio/pcmu": b"\xff", "audio/pcma": b"\xd5"}[_wire_type]


def duration_ms(size: int, encoding: Encoding) -> float:
    """Milliseconds that `size` bytes of audio last."""
    return size / encoding.bytes_per_ms


def _mulaw_values() -> Samples:
    code = ~np.arange(256, dtype=np.uint8)
    magnitude = ((code & 15).astype(np.int32) << 3) + 132
    magnitude <<= ((code >> 4) & 7).astype(np.int32)
    return np.where(code & 0x80, 132 - magnitude, magnitude - 132).astype(np.int16)


def _mulaw_codes() -> NDArray[np.uint8]:
    # Floor to 14 bits, as the reference codecs do; the common variant with bias 0x84 differs on 381 negative values.
    value = np.arange(-32768, 32768, dtype=np.int32) >> 2
    mask = np.where(value < 0, 0x7F, 0xFF)
    value = np.minimum(np.abs(value), 8159) + 33
    segment = np.maximum(np.floor(np.log2(value)).astype(np.int32) + 1 - 6, 0)
    code = np.where(segment >= 8, 0x7F, (segment << 4) | ((value >> (segment + 1)) & 15)) ^ mask
    return np.roll(code.astype(np.uint8), 32768)


def _alaw_values() -> Samples:
    code = np.arange(256, dtype=np.int32) ^ 0x55
    magnitude = (code & 15) << 4
    segment = (code >> 4) & 7
    shifted = (magnitude + 0x108) << np.maximum(segment - 1, 0)
    magnitude = np.where(segment == 0, magnitude + 8, shifted)
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int16)


def _alaw_codes() -> NDArray[np.uint8]:
    value = np.arange(-32768, 32768, dtype=np.int32)
    mask = np.where(value < 0, 0x55, 0xD5)
    magnitude = np.where(value < 0, ~value, value) >> 3
    segment = np.maximum(np.floor(np.log2(np.maximum(magnitude, 1))).astype(np.int32) + 1 - 5, 0)
    code = ((segment << 4) | ((magnitude >> np.where(segment < 2, 1, segment)) & 15)) ^ mask
    return np.roll(code.astype(np.uint8), 32768)


# The encoders are indexed by the sample seen as an unsigned number, hence the half turn.
_MULAW_VALUES, _MULAW_CODES = _mulaw_values(), _mulaw_codes()
_ALAW_VALUES, _ALAW_CODES = _alaw_values(), _alaw_codes()
_AMPLITUDES = {Encoding.MULAW: _MULAW_VALUES.astype(np.float32), Encoding.ALAW: _ALAW_VALUES.astype(np.float32)}


def mulaw_decode(data: bytes) -> Samples:
    """µ-law bytes to 16-bit samples at the same rate."""
    return _MULAW_VALUES.take(np.frombuffer(data, np.uint8))


def mulaw_encode(samples: Samples) -> bytes:
    """16-bit samples to µ-law bytes at the same rate."""
    return _MULAW_CODES.take(samples.view(np.uint16)).tobytes()


def alaw_decode(data: bytes) -> Samples:
    """A-law bytes to 16-bit samples at the same rate."""
    return _ALAW_VALUES.take(np.frombuffer(data, np.uint8))


def alaw_encode(samples: Samples) -> bytes:
    """16-bit samples to A-law bytes at the same rate."""
    return _ALAW_CODES.take(samples.view(np.uint16)).tobytes()


def decode(data: bytes, encoding: Encoding) -> Samples:
    """Payload bytes to 16-bit samples at the encoding's own rate. A dangling odd byte of PCM16 is left out."""
    if encoding is Encoding.MULAW:
        return mulaw_decode(data)
    if encoding is Encoding.ALAW:
        return alaw_decode(data)
    return np.frombuffer(data, "<i2", count=len(data) // 2).astype(np.int16, copy=False)


def encode(samples: Samples, encoding: Encoding) -> bytes:
    """16-bit samples, already at the encoding's rate, to payload bytes."""
    if encoding is Encoding.MULAW:
        return mulaw_encode(samples)
    if encoding is Encoding.ALAW:
        return alaw_encode(samples)
    return samples.astype("<i2", copy=False).tobytes()


def amplitudes(data: bytes, table: Floats | None) -> Floats:
    """The samples of a payload as floats, for a level meter. `table` is that of `amplitude_table`."""
    if table is None:
        return np.frombuffer(data, "<i2").astype(np.float32)
    return table.take(np.frombuffer(data, np.uint8))


def amplitude_table(encoding: Encoding) -> Floats | None:
    """The value of each code, None for PCM. Looked up once: hashing an enum member for each frame costs more than the rest."""
    return _AMPLITUDES.get(encoding)


class Resampler:
    """Changes the sample rate of one continuous mono stream by the ratio up/down.

    A polyphase filter of `taps` taps per phase under a Kaiser window. Output comes in whole groups of `up` samples for
    `down` samples of input; what is left over waits for the next call. The delay is half the filter, 2 ms at 8 kHz; `flush`
    gives what is still inside, `reset` forgets it.
    """

    def __init__(self, source_rate: int, target_rate: int, *, taps: int = 32, rolloff: float = 0.9) -> None:
        divisor = math.gcd(source_rate, target_rate)
        self.up = target_rate // divisor
        self.down = source_rate // divisor
        # A filter that narrows the band needs to be longer by the same factor to stay as steep.
        self.length = 2 * math.ceil(taps / 2 * max(1.0, self.down / self.up))
        size = self.length * self.up
        cutoff = rolloff * 0.5 / max(self.up, self.down)
        # The centre lies on an input sample, so that the delay is a whole number of them.
        time = np.arange(size) - size // 2
        prototype = 2 * cutoff * np.sinc(2 * cutoff * time) * np.kaiser(size + 1, 8.0)[:size] * self.up
        # Row p holds phase p, newest sample last, so that a window of the input can be multiplied as it lies in memory.
        self._phases = np.ascontiguousarray(prototype.reshape(self.length, self.up).T[:, ::-1]).astype(np.float32)
        self._history: Floats = np.zeros(self.length - 1, np.float32)

    def process(self, samples: Samples) -> Samples:
        """Take the next samples, return those that can be given out."""
        stream = np.concatenate([self._history, samples.astype(np.float32)])
        groups = (len(stream) - self.length + 1) // self.down
        if groups <= 0:
            self._history = stream
            return np.empty(0, np.int16)
        windows: Any = np.lib.stride_tricks.sliding_window_view(stream, self.length)
        output = np.empty(groups * self.up, np.float32)
        for index in range(self.up):
            position, phase = divmod(index * self.down, self.up)
            last = position + (groups - 1) * self.down + 1
            output[index :: self.up] = windows[position : last : self.down] @ self._phases[phase]
        self._history = stream[groups * self.down :].copy()
        # Rounded and clipped: a plain cast would wrap a peak around to the other sign.
        return np.clip(np.rint(output), -32768, 32767).astype(np.int16)

    def flush(self) -> Samples:
        """Give out the tail of the stream, as if silence followed, and start anew."""
        tail = self.process(np.zeros(self.length + self.down, np.int16))
        self.reset()
        return tail

    def reset(self) -> None:
        """Forget the stream so far."""
        self._history = np.zeros(self.length - 1, np.float32)


def resample(samples: Samples, source_rate: int, target_rate: int) -> Samples:
    """Change the rate of a whole recording. The delay of the filter is cut off, so the result is aligned with the input."""
    if source_rate == target_rate:
        return samples
    resampler = Resampler(source_rate, target_rate)
    output = np.concatenate([resampler.process(samples), resampler.flush()])
    delay = round(resampler.length / 2 * target_rate / source_rate)
    length = round(len(samples) * target_rate / source_rate)
    return output[delay : delay + length]


def stretch(samples: Samples, factor: float, rate: int) -> Samples:
    """Make speech last `factor` times as long (more than 1) at the same pitch.

    Overlapping windows are laid out wider apart than they were taken, each shifted by a few milliseconds to where it best
    continues the one before (WSOLA).
    """
    window, reach = rate * 30 // 1000, rate * 8 // 1000
    step = window // 2
    fade = np.hanning(2 * step + 1)[:-1]
    source = np.pad(samples.astype(np.float64), (0, window + 2 * reach))
    count = max(1, math.ceil(len(samples) * factor / step))
    output = np.zeros((count + 1) * step)
    expected = 0
    for index in range(count):
        ideal = int(index * step / factor)
        start = ideal
        if index:
            low = max(0, ideal - reach)
            region = source[low : ideal + reach + step]
            start = low + int(np.argmax(np.correlate(region, source[expected : expected + step], "valid")))
        output[index * step : (index + 2) * step] += source[start : start + 2 * step] * fade
        expected = start + step
    return np.clip(np.rint(output[: round(len(samples) * factor)]), -32768, 32767).astype(np.int16)
