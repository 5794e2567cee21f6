"""The ear of the caller: when the agent's audio plays, and which part of it, and of its words, was heard.

Pure. Times are seconds of the loop's clock. Audio comes faster than it plays; each piece begins when the one before it has
ended, and what has not begun when the agent is cut off is never heard.
"""

from __future__ import annotations

from collections import deque

import msgspec

__all__ = ["Earpiece", "Heard"]

# A call may last an hour; what was heard long ago goes first.
MOST_ITEMS = 1000


class Heard(msgspec.Struct, frozen=True):
    """What the caller heard of one item. `transcript` is cut where the audio was: an estimate, by the share of the letters.

    `whole` says that all of it was played that had come.
    """

    item_id: str
    transcript: str
    ms: int
    whole: bool


class _Item:
    """The agent's words of one item, and the spans of time in which they play."""

    def __init__(self, item_id: str) -> None:
        self.item_id = item_id
        self.text = ""
        self.received = 0.0
        self.spans: list[tuple[float, float]] = []

    def play(self, start: float, end: float) -> None:
        self.received += end - start
        if self.spans and self.spans[-1][1] == start:
            start = self.spans.pop()[0]
        self.spans.append((start, end))

    def cut(self, now: float) -> None:
        self.spans = [(start, min(end, now)) for start, end in self.spans if start < now]

    def heard(self, now: float) -> Heard:
        played = sum(min(end, now) - start for start, end in self.spans if start < now)
        # The spans come from adding up many pieces, so they miss what was received by rounding.
        whole = played >= self.received - 1e-6
        text = self.text if whole else _beginning(self.text, played / self.received)
        return Heard(self.item_id, text, round(played * 1000), whole)


class Earpiece:
    """Takes what the agent says, and knows what of it has sounded."""

    def __init__(self) -> None:
        self._items: deque[_Item] = deque(maxlen=MOST_ITEMS)
        self._until: float | None = None

    def play(self, item_id: str, seconds: float, now: float) -> None:
        """So much more audio of an item has come."""
        start = now if self._until is None else max(now, self._until)
        self._until = start + seconds
        self._item(item_id).play(start, self._until)

    def read(self, item_id: str, text: str) -> None:
        """More of the words of an item are known."""
        self._item(item_id).text += text

    def clear(self, now: float) -> None:
        """What has not sounded yet will not."""
        if self.speaking(now):
            self._until = now
        for item in self._items:
            item.cut(now)

    def speaking(self, now: float) -> bool:
        """Whether the caller hears the agent."""
        return self._until is not None and now < self._until

    def quiet_since(self, now: float) -> float | None:
        """When the agent was last heard; None if never, or if it is being heard."""
        return None if self.speaking(now) else self._until

    def heard(self, now: float) -> list[Heard]:
        """What was heard so far, item by item."""
        return [item.heard(now) for item in self._items if item.received]

    def _item(self, item_id: str) -> _Item:
        # Nearly always the last one.
        for item in reversed(self._items):
            if item.item_id == item_id:
                return item
        item = _Item(item_id)
        self._items.append(item)
        return item


def _beginning(text: str, share: float) -> str:
    """The first part of a text, up to the last word that is in it whole."""
    cut = text[: int(len(text) * share)]
    if not cut or text[len(cut) : len(cut) + 1].isspace():
        return cut
    return cut[: cut.rfind(" ") + 1].rstrip()
