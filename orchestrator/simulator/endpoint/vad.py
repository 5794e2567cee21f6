"""Where speech starts and stops in the audio that a client appends: server VAD.

Time here is the time of the appended audio, never a clock: a test may feed a minute of speech in a millisecond. A
`SpeechJudge` says of each frame how much it is like speech; `VoiceDetector` makes turns of that. There are two judges: one
that follows the level of the background and costs next to nothing (`vad_energy`), and one that knows voices from other
sounds (`vad_silero`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import msgspec

from orchestrator.simulator.endpoint.vad_energy import CoarseJudge, EnergyJudge
from orchestrator.simulator.endpoint.vad_silero import SileroJudge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.simulator.audio import Encoding

__all__ = ["Edge", "EdgeKind", "SpeechJudge", "VadKind", "VadSettings", "VoiceDetector", "make_judge"]

VadKind: TypeAlias = Literal["coarse", "energy", "silero"]


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


class SpeechJudge(Protocol):
    """Says of each frame of one stream whether somebody speaks. Depends on the audio alone, and on nothing after a frame."""

    frame_ms: int
    """The length of the frames that it takes."""
    onset_frames: int
    """So many frames of speech make a start; a click is shorter."""

    def measure(self, frames: bytes) -> Sequence[float]:
        """One value for each of the whole frames that come next."""

    def is_speech(self, value: float, *, threshold: float, speaking: bool) -> bool:
        """Whether the next frame, of this value, is speech. Called once for each frame, in order."""


def make_judge(kind: VadKind, encoding: Encoding) -> SpeechJudge:
    """A judge for one stream. Raises UserError if the package that it needs is not installed."""
    match kind:
        case "silero":
            return SileroJudge(encoding)
        case "coarse":
            return CoarseJudge(encoding)
        case "energy":
            return EnergyJudge(encoding)


class VoiceDetector:
    """Finds speech in one stream of audio. Give it every byte that is appended, in order; it begins at `start_ms`."""

    def __init__(self, settings: VadSettings, encoding: Encoding, start_ms: int = 0, kind: VadKind = "energy") -> None:
        self._settings = settings
        self._judge = make_judge(kind, encoding)
        self._frame_ms = self._judge.frame_ms
        self._frame_size = self._frame_ms * encoding.bytes_per_ms
        self._carry = b""
        self._position = self._last_end = start_ms
        self._run = 0
        self._run_start = 0
        self._sound_end = 0
        self.speaking = False

    @property
    def position_ms(self) -> int:
        """How much audio was examined so far."""
        return self._position

    def configure(self, settings: VadSettings) -> None:
        """Go on under other settings; position, background and a turn in progress are kept."""
        self._settings = settings

    def forget_turn(self) -> None:
        """The audio so far was committed or cleared by the client: a turn in progress is over without an edge."""
        self.speaking = False
        self._run = 0
        self._last_end = self._position

    def append(self, data: bytes) -> list[Edge]:
        """Examine the next audio and return the edges in it, in order. Part of a frame waits for the rest."""
        if self._carry:
            data = self._carry + data
        whole = len(data) // self._frame_size * self._frame_size
        edges: list[Edge] = []
        if whole == 0:
            self._carry = data
            return edges
        self._carry = data[whole:]
        judge, threshold = self._judge, self._settings.threshold
        for value in judge.measure(data[:whole]):
            self._position += self._frame_ms
            sound = judge.is_speech(value, threshold=threshold, speaking=self.speaking)
            if not (sound or self.speaking or self._run):
                # Nobody speaks, and nobody is about to: most of all frames.
                continue
            edge = self._while_speaking(sound=sound) if self.speaking else self._while_quiet(sound=sound)
            if edge is not None:
                edges.append(edge)
        return edges

    def _while_quiet(self, *, sound: bool) -> Edge | None:
        if not sound:
            self._run = max(0, self._run - 1)
            return None
        if self._run == 0:
            self._run_start = self._position - self._frame_ms
        self._run += 1
        if self._run < self._judge.onset_frames:
            return None
        self.speaking = True
        self._run = 0
        self._sound_end = self._position
        start = max(self._run_start - self._settings.prefix_padding_ms, self._last_end)
        return Edge(EdgeKind.STARTED, start, self._run_start)

    def _while_speaking(self, *, sound: bool) -> Edge | None:
        if sound:
            self._sound_end = self._position
            return None
        # The silence may end within a frame: then so does the turn, and the rest of the frame belongs to what follows.
        end = self._sound_end + self._settings.silence_duration_ms
        if self._position < end:
            return None
        self.speaking = False
        self._last_end = min(end, self._position)
        return Edge(EdgeKind.STOPPED, self._last_end, self._sound_end)
