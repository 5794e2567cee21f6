"""Lets appended audio through no faster than it would have been spoken.

A detector that reads ahead finds the end of a sentence the moment a client has sent it, be that in a tenth of the time. That
is what a test wants, and is the default. Behind this gate the endpoint reacts as to a person who speaks, whatever the client
is in a hurry for.
"""

from __future__ import annotations

from collections import deque

__all__ = ["RealTimeGate"]

PIECE_MS = 20
JITTER = 0.1
"""Seconds by which audio may come late and still count as spoken in time."""
LONGEST_MS = 5 * 60_000
"""More than this is not held back: the oldest goes through early."""


class RealTimeGate:
    """One stream of audio. Pure: times are seconds on one clock.

    Speech begins when its first audio is put, give or take the jitter of a network; a stream that was held up for longer
    stays late by that.
    """

    def __init__(self) -> None:
        self._spoken_until = 0.0
        self._started = False
        self._held_ms = 0.0
        # Each piece with its length in milliseconds.
        self._held: deque[tuple[bytes, float]] = deque()

    @property
    def due(self) -> float | None:
        """When the next piece may go through, or None if none is held."""
        return self._spoken_until + self._held[0][1] / 1000 if self._held else None

    def put(self, data: bytes, now: float, bytes_per_ms: int) -> None:
        """Take the next audio."""
        if not self._held:
            self._spoken_until = max(self._spoken_until, now - JITTER) if self._started else now
            self._started = True
        size = PIECE_MS * bytes_per_ms
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self._held.append((piece, len(piece) / bytes_per_ms))
            self._held_ms += self._held[-1][1]

    def take(self, now: float) -> bytes:
        """What may go through by now, in order; at most once."""
        parts: list[bytes] = []
        while self._held and ((self.due or 0.0) <= now or self._held_ms > LONGEST_MS):
            parts.append(self._next())
        return b"".join(parts)

    def take_all(self) -> bytes:
        """All that is held, early: the client says that the turn is over."""
        held = b"".join(piece for piece, _ in self._held)
        self.drop()
        return held

    def drop(self) -> None:
        """Forget what is held. What comes next is spoken from then on."""
        self._held.clear()
        self._held_ms = 0.0
        self._started = False

    def _next(self) -> bytes:
        piece, milliseconds = self._held.popleft()
        self._held_ms -= milliseconds
        self._spoken_until += milliseconds / 1000
        return piece
