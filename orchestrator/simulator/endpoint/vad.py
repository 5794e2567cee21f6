"""Where speech starts and stops in the audio that a client appends: server VAD by energy.

Time here is the time of the appended audio, never a clock: a test may feed a minute of speech in a millisecond. A frame counts
as speech when it is louder than the background by a margin and louder than an absolute level; the background is followed, so a
steady noise is not speech. Both limits rise with the `threshold` of the session.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from orchestrator.simulator.audio import Encoding, amplitude_table, amplitudes

if TYPE_CHECKING:
    from orchestrator.simulator.audio import Floats

__all__ = ["Edge", "EdgeKind", "VadSettings", "VoiceDetector"]

FRAME_MS = 20
ONSET_FRAMES = 3
"""So many frames of speech make a start; a click is shorter."""
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


class VadSettings(msgspec.Struct, frozen=True):
    """The part of `turn_detection` that says what speech is. Times are milliseconds."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 200


class EdgeKind(Enum):
    """Which way the voice changed."""

    STARTED = "started"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Edge:
    """Speech began or ended.

    `at_ms` is the value for the wire: a start is earlier than the first sound by the prefix padding, an end later than the
    last sound by the silence that ended the turn. `sound_ms` is where the sound itself began or ended.
    """

    kind: EdgeKind
    at_ms: int
    sound_ms: int


class VoiceDetector:
    """Finds speech in one stream of audio. Give it every byte that is appended, in order; it begins at `start_ms`."""

    def __init__(self, settings: VadSettings, encoding: Encoding, start_ms: int = 0) -> None:
        self._carry = b""
        self._position = self._last_end = start_ms
        self._floor = FIRST_GUESS
        self._run = 0
        self._run_start = 0
        self._sound_end = 0
        self._quiet = 0
        self.speaking = False
        self._apply(settings, encoding)

    @property
    def position_ms(self) -> int:
        """How much audio was examined so far."""
        return self._position

    def configure(self, settings: VadSettings) -> None:
        """Go on under other settings; position, background and a turn in progress are kept."""
        self._apply(settings, self._encoding)

    def forget_turn(self) -> None:
        """The audio so far was committed or cleared by the client: a turn in progress is over without an edge."""
        self.speaking = False
        self._run = self._quiet = 0
        self._last_end = self._position

    def append(self, data: bytes) -> list[Edge]:
        """Examine the next audio and return the edges in it, in order. Part of a frame waits for the rest."""
        if self._carry:
            data = self._carry + data
        size = self._frame_size
        count = len(data) // size
        self._carry = data[count * size :]
        edges: list[Edge] = []
        if count == 0:
            return edges
        samples = amplitudes(memoryview(data)[: count * size] if self._carry else data, self._table)
        # Most appends are one frame, and a dot product costs a quarter of a sum over an axis.
        energies = [float(samples.dot(samples))] if count == 1 else _energies(samples.reshape(count, -1))
        for energy in energies:
            edge = self._frame(energy)
            if edge is not None:
                edges.append(edge)
        return edges

    def _apply(self, settings: VadSettings, encoding: Encoding) -> None:
        self._settings = settings
        self._encoding = encoding
        self._table = amplitude_table(encoding)
        self._frame_size = FRAME_MS * encoding.bytes_per_ms
        self._full_scale = FULL_SCALE**2 * FRAME_MS * encoding.rate / 1000
        self._margin = 4.0 + 16.0 * settings.threshold
        self._absolute = -55.0 + 20.0 * settings.threshold

    def _frame(self, energy: float) -> Edge | None:
        level = 10.0 * math.log10(energy / self._full_scale) if energy > 0 else SILENCE
        self._position += FRAME_MS
        limit = max(self._floor + self._margin, self._absolute)
        sound = level > (limit - HYSTERESIS if self.speaking else limit)
        self._follow(level)
        return self._while_speaking(sound=sound) if self.speaking else self._while_quiet(sound=sound)

    def _follow(self, level: float) -> None:
        if level < self._floor:
            self._floor = max(QUIETEST, self._floor + (level - self._floor) * FALL)
        else:
            rise = RISE_SPEAKING if self.speaking else RISE_QUIET
            self._floor = min(LOUDEST, level, self._floor + rise)

    def _while_quiet(self, *, sound: bool) -> Edge | None:
        if not sound:
            self._run = max(0, self._run - 1)
            return None
        if self._run == 0:
            self._run_start = self._position - FRAME_MS
        self._run += 1
        if self._run < ONSET_FRAMES:
            return None
        self.speaking = True
        self._run = self._quiet = 0
        self._sound_end = self._position
        start = max(self._run_start - self._settings.prefix_padding_ms, self._last_end)
        return Edge(EdgeKind.STARTED, start, self._run_start)

    def _while_speaking(self, *, sound: bool) -> Edge | None:
        if sound:
            self._quiet = 0
            self._sound_end = self._position
            return None
        self._quiet += FRAME_MS
        if self._quiet < self._settings.silence_duration_ms:
            return None
        self.speaking = False
        self._last_end = self._position
        return Edge(EdgeKind.STOPPED, self._position, self._sound_end)


def _energies(frames: Floats) -> list[float]:
    """The sum of the squares of each row."""
    energies: list[float] = np.einsum("ij,ij->i", frames, frames).tolist()
    return energies
