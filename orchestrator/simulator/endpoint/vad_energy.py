"""Speech by its level: a frame is speech when it is louder than the background by a margin, and louder than an absolute level.

The background is followed, so a steady noise is not speech. Both limits rise with the `threshold` of the session. It takes
any loud sound for a voice, and costs a tenth of a millisecond for a second of audio.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from orchestrator.simulator.audio import amplitude_table, amplitudes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.simulator.audio import Encoding, Floats

__all__ = ["CoarseJudge", "EnergyJudge"]

QUIETEST, LOUDEST = -70.0, -25.0
"""Limits of the background, in dB below full scale. A digital silence must not make every breath a word."""
FIRST_GUESS = -50.0
"""The background before anything was heard: a client may start in the middle of a word, or in a noisy room."""
FALL = 0.3
RISE_QUIET, RISE_SPEAKING = 0.04, 0.02
"""dB per frame that the background may rise. While somebody speaks it rises slower, but it does: a noise that begins and
stays is absorbed at last."""
HYSTERESIS = 4.0
SILENCE = -100.0
FULL_SCALE = 32768.0


class EnergyJudge:
    """The level of one stream against that of its background."""

    frame_ms = 20
    onset_frames = 3

    def __init__(self, encoding: Encoding) -> None:
        self._table = amplitude_table(encoding)
        self._samples = self.frame_ms * encoding.rate // 1000
        self._size = self._samples * encoding.width
        self._full_scale = FULL_SCALE**2 * self._samples
        self._floor = FIRST_GUESS
        self._last = b""
        self._last_levels: Sequence[float] = ()

    def measure(self, frames: bytes) -> Sequence[float]:
        """The level of each frame, in dB below full scale."""
        # The silence of a client that sends no noise: the same bytes again and again.
        if frames == self._last:
            return self._last_levels
        samples = amplitudes(frames, self._table)
        if len(frames) != self._size:
            return [self._level(energy) for energy in _energies(samples.reshape(-1, self._samples))]
        # Most appends are one frame, and a dot product costs a quarter of a sum over an axis.
        self._last, self._last_levels = frames, (self._level(float(samples.dot(samples))),)
        return self._last_levels

    def is_speech(self, value: float, *, threshold: float, speaking: bool) -> bool:
        """Whether a frame of this level stands out from what was before it."""
        limit = max(self._floor + 4.0 + 16.0 * threshold, -55.0 + 20.0 * threshold)
        self._follow(value, speaking=speaking)
        return value > (limit - HYSTERESIS if speaking else limit)

    def _level(self, energy: float) -> float:
        return 10.0 * math.log10(energy / self._full_scale) if energy > 0 else SILENCE

    def _follow(self, level: float, *, speaking: bool) -> None:
        if level < self._floor:
            self._floor = max(QUIETEST, self._floor + (level - self._floor) * FALL)
        else:
            rise = RISE_SPEAKING if speaking else RISE_QUIET
            self._floor = min(LOUDEST, level, self._floor + rise)


class CoarseJudge(EnergyJudge):
    """The same in steps of a tenth of a second, at a fifth of the cost: a word is found, but not where exactly it begins."""

    frame_ms = 100
    onset_frames = 1


def _energies(frames: Floats) -> list[float]:
    """The sum of the squares of each row."""
    energies: list[float] = np.einsum("ij,ij->i", frames, frames).tolist()
    return energies
