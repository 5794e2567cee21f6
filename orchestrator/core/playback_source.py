"""Where the knowledge of what was heard comes from: our own cursor, the program's tracker, or the caller itself."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Protocol

from orchestrator.core.playback import Cut

__all__ = ["PlaybackSource", "TrackedPlayback", "Tracker", "UntrackedPlayback"]

MAX_PARTS = 64


class PlaybackSource(Protocol):
    """Knows how much of what was sent was heard. Times are seconds of one monotonic clock, amounts milliseconds."""

    def sent(self, item_id: str, content_index: int, duration_ms: float, now: float) -> float:
        """Note that audio was sent."""

    def current(self, now: float) -> Cut | None:
        """Return what is heard now, or else was heard last, and how much of it; None when that is not known."""

    def interrupt(self, now: float) -> list[Cut]:
        """Stop playback and say what was cut where; empty when nothing was playing."""

    def is_playing(self, now: float) -> bool:
        """Tell whether audio is known to be still playing."""


class Tracker(Protocol):
    """The part of the guide's playback tracker that matters here."""

    def get_state(self) -> Any:
        """Return current item, content index and elapsed milliseconds."""

    def on_interrupted(self) -> None:
        """Forget what was playing."""


class TrackedPlayback:
    """The program says what was played; we only know what was sent, so that no cut goes beyond it."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._sent: OrderedDict[tuple[str, int], float] = OrderedDict()
        self._total = 0.0

    def sent(self, item_id: str, content_index: int, duration_ms: float, now: float) -> float:
        """Note that audio was sent; see `PlaybackSource.sent`."""
        del now
        key = (item_id, content_index)
        self._sent[key] = self._sent.get(key, 0.0) + duration_ms
        while len(self._sent) > MAX_PARTS:
            self._sent.popitem(last=False)
        self._total += duration_ms
        return self._total

    def current(self, now: float) -> Cut | None:
        """Return what the tracker says is playing or was played last; None for what was not sent. See `PlaybackSource`."""
        del now
        state = self._tracker.get_state()
        key = (state["current_item_id"], state["current_item_content_index"])
        sent_ms = self._sent.get(key)
        return None if sent_ms is None else Cut(*key, self._heard(state, sent_ms), sent_ms)

    def interrupt(self, now: float) -> list[Cut]:
        """Cut what the tracker says is playing, and at 0 what was sent after it."""
        del now
        state = self._tracker.get_state()
        key = (state["current_item_id"], state["current_item_content_index"])
        parts = list(self._sent.items())
        self._sent.clear()
        self._tracker.on_interrupted()
        start = next((index for index, (part, _) in enumerate(parts) if part == key), None)
        cuts = []
        for index, (part, sent_ms) in enumerate(parts):
            if start is not None and index < start:
                continue
            heard = self._heard(state, sent_ms) if index == start else 0.0
            if heard < sent_ms:
                cuts.append(Cut(*part, heard, sent_ms))
        return cuts

    def is_playing(self, now: float) -> bool:
        """Tell whether the tracker speaks of something that it has not played to the end of what was sent."""
        current = self.current(now)
        return current is not None and current.heard_ms < current.sent_ms

    def _heard(self, state: Any, sent_ms: float) -> float:
        """Never more than was sent, whatever the program reports."""
        return min(max(float(state["elapsed_ms"] or 0.0), 0.0), sent_ms)


class UntrackedPlayback:
    """The caller keeps track by itself and says where to truncate, as clients of the Realtime API do."""

    def sent(self, item_id: str, content_index: int, duration_ms: float, now: float) -> float:
        """Nothing to note."""
        del item_id, content_index, duration_ms, now
        return 0.0

    def current(self, now: float) -> Cut | None:
        """Nobody but the caller knows."""
        del now
        return None

    def interrupt(self, now: float) -> list[Cut]:
        """Nothing to cut: the caller will say."""
        del now
        return []

    def is_playing(self, now: float) -> bool:
        """Nobody but the caller knows."""
        del now
        return False
