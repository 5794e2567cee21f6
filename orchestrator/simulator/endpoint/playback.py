"""When the assistant's audio is heard, if it is played as it comes and in real time.

Pure. The endpoint needs this twice: to know from when on nobody says anything (`idle_timeout_ms`), and in a call, where it
plays the audio itself and truncates what was not heard.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["Playback", "Unheard"]


@dataclass
class _Track:
    """The audio of one item, from when to when it plays. `heard` is what was played before the audio ran dry; in seconds."""

    response_id: str
    item_id: str
    started: float
    ends_at: float
    heard: float = 0.0

    def position(self, now: float) -> float:
        return self.heard + max(0.0, min(now, self.ends_at) - self.started)


@dataclass(frozen=True)
class Unheard:
    """An item whose audio was cut off after `heard_ms` of it."""

    response_id: str
    item_id: str
    heard_ms: int


class Playback:
    """What is played to one listener, item after item."""

    def __init__(self) -> None:
        self._tracks: deque[_Track] = deque()
        self.ends_at = 0.0

    def add(self, response_id: str, item_id: str, seconds: float, now: float) -> float:
        """More audio of an item; returns when it begins to play."""
        start = max(now, self.ends_at)
        self.ends_at = start + seconds
        last = self._tracks[-1] if self._tracks else None
        if last is not None and last.item_id == item_id:
            if start > last.ends_at:
                last.heard, last.started = last.position(start), start
            last.ends_at = self.ends_at
            return start
        while self._tracks and self._tracks[0].ends_at <= now:
            self._tracks.popleft()
        self._tracks.append(_Track(response_id, item_id, start, self.ends_at))
        return start

    def cut(self, now: float) -> list[Unheard]:
        """Stop at once. Returns the items that were not heard to the end of what there was of them, in order."""
        unheard = [
            # Whole milliseconds that were heard; the allowance is for sums of floats, not for audio.
            Unheard(track.response_id, track.item_id, int(track.position(now) * 1000 + 1e-6))
            for track in self._tracks
            if track.ends_at > now
        ]
        self._tracks.clear()
        self.ends_at = min(self.ends_at, now)
        return unheard
