"""The far end of a phone call's downlink: a queue that plays 160 bytes every 20 ms, and an ear that notes what was heard.

Pure: time is an argument (seconds of one monotonic clock), echoes are return values. It knows no WebSocket and no JSON, so
the rules of Twilio's buffer (first in first out, marks echoed once everything before them was played, `clear` echoing all
of them at once) can be tested byte by byte. Source of the rules: Twilio Media Streams, WebSocket messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

__all__ = ["FRAME_BYTES", "FRAME_SECONDS", "SILENCE", "Clearing", "Ear", "MarkEcho", "Playout", "is_loud"]

FRAME_BYTES = 160
FRAME_SECONDS = 0.02
BYTES_PER_MS = 8
SILENCE = b"\xff"

# The carrier discards what would wait longer than ten minutes (warning 31931).
BUFFER_LIMIT = 10 * 60 * 1000 * BYTES_PER_MS

# The sign bit aside, a lower µ-law code is a louder sample; 0x5f decodes to 396 of 32768, that is -38 dBFS.
_LOUD = bytes(int((code & 0x7F) <= 0x5F) for code in range(256))
# Speech has more loud samples than a click; quiet consonants still pass.
_LOUD_SHARE = 10


def is_loud(frame: bytes) -> bool:
    """Tell whether a piece of µ-law audio sounds like more than line noise: a tenth of it is above -38 dBFS."""
    return bool(frame) and frame.translate(_LOUD).count(1) * _LOUD_SHARE >= len(frame)


class MarkEcho(msgspec.Struct, frozen=True):
    """A mark to send back: at which time, and whether its audio was played or thrown away by a `clear`."""

    name: str
    at: float
    cleared: bool


class Clearing(msgspec.Struct, frozen=True):
    """One `clear`: when it came, what had been heard by then, and how much audio it threw away."""

    at: float
    heard_ms: float
    dropped_ms: float
    marks: int


class Ear:
    """Notes when the person at the phone heard a voice. Times are those of the playout's clock."""

    def __init__(self) -> None:
        self.voice_began_at: float | None = None
        self.voice_last_at: float | None = None
        self._awaited_since: float | None = None
        self._first_since: float | None = None

    def await_voice(self, since: float) -> None:
        """Forget the first voice noted so far and watch for one that starts at `since` or later."""
        self._awaited_since = since
        self._first_since = None

    @property
    def first_voice_at(self) -> float | None:
        """The start of the first voice since `await_voice`, or None while there was none."""
        return self._first_since

    def hear(self, frame: bytes, at: float) -> None:
        """Take a frame that starts to sound at `at`."""
        if not is_loud(frame):
            return
        if self.voice_began_at is None:
            self.voice_began_at = at
        self.voice_last_at = at
        if self._first_since is None and self._awaited_since is not None and at >= self._awaited_since:
            self._first_since = at


class Playout:
    """The carrier's play buffer for one stream.

    Every method first lets the clock pass to `now`, and returns the marks that are due, in order; the caller sends them
    back. A frame counts as heard from the moment when it leaves for the phone, since nothing can call it back then; a mark
    is due when the frame that holds its last byte has sounded. A short last frame is padded with silence. When the buffer
    runs dry the clock stops, and starts anew with the next audio, so late audio never plays in a hurry.
    """

    def __init__(self, on_frame: Callable[[bytes, float], None] | None = None) -> None:
        self._on_frame = on_frame
        self._buffer = bytearray()
        self._marks: deque[tuple[int, str]] = deque()
        self._epoch = 0.0
        self._frames = 0
        self.received_bytes = 0
        self.heard_bytes = 0
        self.cleared_bytes = 0
        self.discarded_bytes = 0
        self.clearings: list[Clearing] = []

    @property
    def heard_ms(self) -> float:
        """Milliseconds of audio that left for the phone so far."""
        return self.heard_bytes / BYTES_PER_MS

    @property
    def waiting_ms(self) -> float:
        """Milliseconds of audio that wait to be played."""
        return len(self._buffer) / BYTES_PER_MS

    @property
    def pending_marks(self) -> int:
        """Marks that were not echoed yet."""
        return len(self._marks)

    def is_silent(self, now: float) -> bool:
        """Tell whether everything received has sounded by `now`."""
        return not self._buffer and now >= self._frame_due()

    def next_echo_at(self) -> float | None:
        """The time at which the next mark falls due if nothing else arrives, or None without marks."""
        if not self._marks:
            return None
        missing = self._marks[0][0] - self._passed()
        return self._frame_due(ahead=-(-max(0, missing) // FRAME_BYTES))

    def advance(self, now: float) -> list[MarkEcho]:
        """Play what is due by `now`."""
        echoes: list[MarkEcho] = []
        while self._buffer and (due := self._frame_due()) <= now:
            self._echo_played(due, echoes)
            frame = bytes(self._buffer[:FRAME_BYTES])
            del self._buffer[:FRAME_BYTES]
            self.heard_bytes += len(frame)
            self._frames += 1
            if self._on_frame is not None:
                self._on_frame(frame.ljust(FRAME_BYTES, SILENCE), due)
        if (due := self._frame_due()) <= now:
            self._echo_played(due, echoes)
        return echoes

    def receive_audio(self, audio: bytes, now: float) -> list[MarkEcho]:
        """Append µ-law audio of any length; what exceeds ten minutes of waiting audio is discarded and counted."""
        echoes = self.advance(now)
        kept = audio[: BUFFER_LIMIT - len(self._buffer)]
        self.discarded_bytes += len(audio) - len(kept)
        if not kept:
            return echoes
        if not self._buffer and self._frame_due() <= now:
            self._epoch, self._frames = now, 0
        self._buffer += kept
        self.received_bytes += len(kept)
        return echoes + self.advance(now)

    def receive_mark(self, name: str, now: float) -> list[MarkEcho]:
        """Append a mark; it comes back at once when nothing is left to play before it."""
        echoes = self.advance(now)
        if self.is_silent(now):
            return [*echoes, MarkEcho(name, now, cleared=False)]
        self._marks.append((self.received_bytes, name))
        return echoes

    def clear(self, now: float) -> list[MarkEcho]:
        """Throw away what waits, and echo every pending mark; the frame that already left is heard to its end."""
        echoes = self.advance(now)
        dropped = len(self._buffer)
        self.clearings.append(Clearing(now, self.heard_ms, dropped / BYTES_PER_MS, len(self._marks)))
        self._buffer.clear()
        self.cleared_bytes += dropped
        echoes += [MarkEcho(name, now, cleared=True) for _, name in self._marks]
        self._marks.clear()
        return echoes

    def _passed(self) -> int:
        return self.heard_bytes + self.cleared_bytes

    def _frame_due(self, ahead: int = 0) -> float:
        # One multiplication instead of a running sum: a sum of 0.02s drifts.
        return self._epoch + (self._frames + ahead) * FRAME_SECONDS

    def _echo_played(self, at: float, echoes: list[MarkEcho]) -> None:
        while self._marks and self._marks[0][0] <= self._passed():
            echoes.append(MarkEcho(self._marks.popleft()[1], at, cleared=False))
