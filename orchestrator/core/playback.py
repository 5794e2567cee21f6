"""How much of what was sent to the caller has been heard.

All audio sent to a caller forms one line of time, counted in milliseconds since the first byte. The cursor knows how much of
it was sent and where playback was at its last anchor; between anchors playback runs at the speed of the clock and never past
what was sent. Anchors come from the clock alone (playback starts when audio is sent) or, better, from the marks that a carrier
echoes when it has played up to them.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec

__all__ = ["Cut", "PlaybackCursor", "PlaybackState"]

MAX_SPANS = 512


class _Span(NamedTuple):
    item_id: str
    content_index: int
    start: float
    end: float
    # Where in the item's own audio this span begins.
    offset: float


class Cut(NamedTuple):
    """One item that an interruption cut: how many of its milliseconds were heard and how many were sent."""

    item_id: str
    content_index: int
    heard_ms: float
    sent_ms: float


class PlaybackState(msgspec.Struct, frozen=True, array_like=True):
    """A cursor as another process can go on with it, on the same machine's monotonic clock."""

    sent_ms: float
    anchor_position: float
    anchor_at: float
    spans: tuple[_Span, ...]


class PlaybackCursor:
    """The playback state of one caller leg. Times are seconds of any monotonic clock, positions milliseconds."""

    __slots__ = ("_anchor_at", "_anchor_position", "_item_sent", "_spans", "sent_ms")

    def __init__(self) -> None:
        self.sent_ms = 0.0
        self._anchor_position = 0.0
        self._anchor_at = 0.0
        self._spans: deque[_Span] = deque(maxlen=MAX_SPANS)
        # How much of each item was sent, so that an item that comes back goes on where it was.
        self._item_sent: dict[tuple[str, int], float] = {}

    def state(self) -> PlaybackState:
        """Return what another process needs to go on."""
        return PlaybackState(self.sent_ms, self._anchor_position, self._anchor_at, tuple(self._spans))

    def restore(self, state: PlaybackState) -> None:
        """Go on where the cursor of another process was. What it has sent since its state was taken is not known here."""
        self.sent_ms = state.sent_ms
        self._anchor_position, self._anchor_at = state.anchor_position, state.anchor_at
        self._spans = deque(state.spans, maxlen=MAX_SPANS)
        self._item_sent = {(span.item_id, span.content_index): span.offset + span.end - span.start for span in state.spans}

    def heard_ms(self, now: float) -> float:
        """Return the position that the caller has heard by now, on the line of all audio sent."""
        return min(self.sent_ms, self._anchor_position + (now - self._anchor_at) * 1000.0)

    def is_playing(self, now: float) -> bool:
        """Tell whether audio that was sent is still being played."""
        return self.heard_ms(now) < self.sent_ms

    def current(self, now: float) -> Cut | None:
        """Return the item that is heard now, or else was heard last, and how much of it; None when nothing was sent.

        Playback goes on: this only looks. Of an item heard to its end exactly what was sent counts as heard.
        """
        heard = self.heard_ms(now)
        span = next((span for span in self._spans if heard < span.end), self._spans[-1] if self._spans else None)
        if span is None:
            return None
        key = (span.item_id, span.content_index)
        sent = self._item_sent.get(key, span.offset + span.end - span.start)
        return Cut(*key, sent if heard >= span.end else span.offset + max(0.0, heard - span.start), sent)

    def sent(self, item_id: str, content_index: int, duration_ms: float, now: float) -> float:
        """Note that audio of an item was sent, and return the new end of the line."""
        if self.heard_ms(now) >= self.sent_ms:
            # The caller had run dry: playback starts again with this audio.
            self._anchor_position, self._anchor_at = self.sent_ms, now
        start, end = self.sent_ms, self.sent_ms + duration_ms
        last = self._spans[-1] if self._spans else None
        item_sent = self._item_sent.get((item_id, content_index), 0.0)
        if last is not None and (last.item_id, last.content_index) == (item_id, content_index):
            self._spans[-1] = last._replace(end=end)
        else:
            self._spans.append(_Span(item_id, content_index, start, end, item_sent))
        self._item_sent[item_id, content_index] = item_sent + duration_ms
        if len(self._item_sent) > MAX_SPANS:
            del self._item_sent[next(iter(self._item_sent))]
        self.sent_ms = end
        if len(self._spans) > 1 and self._spans[1].start <= self.heard_ms(now):
            self._forget(self.heard_ms(now))
        return end

    def reached(self, position_ms: float, now: float) -> None:
        """Anchor the cursor: the caller's side says that it has played up to this position (a mark came back).

        A position beyond what was sent, or behind what an interruption already cut off, is brought into range.
        """
        self._anchor_position = max(0.0, min(position_ms, self.sent_ms))
        self._anchor_at = now

    def interrupt(self, now: float) -> list[Cut]:
        """Stop playback: forget what was not heard, and say which items were cut and where, in the order they were sent.

        Items that had not begun to play are cut at 0. The list is empty when nothing was playing.
        """
        heard = self.heard_ms(now)
        if heard >= self.sent_ms:
            return []
        cuts = self._cuts(heard)
        self.sent_ms = heard
        self._anchor_position, self._anchor_at = heard, now
        self._spans.clear()
        self._item_sent.clear()
        return cuts

    def _cuts(self, heard: float) -> list[Cut]:
        cuts: dict[tuple[str, int], Cut] = {}
        for span in self._spans:
            if span.end <= heard:
                continue
            key = (span.item_id, span.content_index)
            in_item = span.offset + max(0.0, heard - span.start)
            sent = span.offset + span.end - span.start
            earlier = cuts.get(key)
            cuts[key] = Cut(*key, earlier.heard_ms if earlier else in_item, sent)
        return list(cuts.values())

    def _forget(self, heard: float) -> None:
        """Drop spans that were heard to their end, except the newest."""
        while len(self._spans) > 1 and self._spans[0].end <= heard:
            self._spans.popleft()
