"""Marks in outgoing audio: what to call them, and what one says when the carrier sends it back.

A carrier echoes a mark when everything before it was played, and also when it throws that away on `clear`; the two look the
same. So the name of a mark carries the position that it stands for and the generation of the stream, and a `clear` begins a new
generation: whatever still comes back of the old one says nothing.
"""

from __future__ import annotations

__all__ = ["MARK_EVERY_MS", "PlaybackMarks"]

# Closer marks delay a carrier's player, wider ones make a lost one felt.
MARK_EVERY_MS = 200.0
# Far more than a call of a day has, and few enough to be a number of ordinary size.
_MAX_DIGITS = 12


class PlaybackMarks:
    """The marks of one outgoing stream. Positions are milliseconds of audio since its beginning."""

    __slots__ = ("_every_ms", "_generation", "_marked_ms")

    def __init__(self, every_ms: float = MARK_EVERY_MS) -> None:
        self._every_ms = every_ms
        self._generation = 0
        self._marked_ms = 0.0

    def state(self) -> tuple[int, float]:
        """Return what another process needs to go on with the stream."""
        return self._generation, self._marked_ms

    def restore(self, state: tuple[int, float]) -> None:
        """Go on where another process was."""
        self._generation, self._marked_ms = state

    def due(self, sent_ms: float) -> str | None:
        """Return the name of the mark to send after the audio up to here, or None while the last one is near enough."""
        return self.at(sent_ms) if sent_ms - self._marked_ms >= self._every_ms else None

    def at(self, sent_ms: float) -> str | None:
        """Return the name of the mark to send here, for an end that shall be known; None if there is one here already."""
        if sent_ms <= self._marked_ms:
            return None
        self._marked_ms = sent_ms
        # Rounded down: a mark must never claim more than was sent.
        return f"{self._generation}:{int(sent_ms)}"

    def position(self, name: str) -> float | None:
        """Return the position that a mark which came back stands for; None for one that is void, or not ours."""
        generation, _, position = name.partition(":")
        if generation != str(self._generation) or not (position.isascii() and position.isdigit()):
            return None
        return float(position[:_MAX_DIGITS])

    def void(self, sent_ms: float) -> None:
        """Make all marks that are out say nothing; to be called before `clear` is sent. The stream goes on from here."""
        self._generation += 1
        self._marked_ms = sent_ms
