"""When a guardrail looks at what the agent says: now and then while it speaks, and once more when it is done.

Text is collected for each item. Every time it has grown by the threshold, all of it is due for a check; what has grown since is
due when the response ends, so that short answers and tails are checked too. A response that tripped is checked no more.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

__all__ = ["Check", "GuardrailWindows"]


class Check(NamedTuple):
    """A text that is due: all that an item says so far. `spoken` tells whether the caller hears it or reads it."""

    response_id: str
    item_id: str
    text: str
    spoken: bool


class _Window:
    __slots__ = ("checked", "response_id", "spoken", "text")

    def __init__(self, response_id: str, *, spoken: bool) -> None:
        self.response_id = response_id
        self.spoken = spoken
        self.text = ""
        self.checked = 0


class GuardrailWindows:
    """The texts of the responses under way. `threshold` counts letters; 0 makes every delta due."""

    __slots__ = ("_threshold", "_tripped", "_windows")

    def __init__(self, threshold: int = 100) -> None:
        self._threshold = max(1, threshold)
        self._windows: dict[str, _Window] = {}
        # Responses that tripped, the latest few: a check that was under way when its response ended may still come in.
        self._tripped: deque[str] = deque(maxlen=16)

    def add(self, response_id: str, item_id: str, delta: str, *, spoken: bool) -> Check | None:
        """Take in words; return what is due, if anything is."""
        if response_id in self._tripped:
            return None
        window = self._windows.get(item_id)
        if window is None:
            window = self._windows[item_id] = _Window(response_id, spoken=spoken)
        window.text += delta
        if len(window.text) // self._threshold <= window.checked // self._threshold:
            return None
        return self._check(item_id, window)

    def end(self, response_id: str) -> list[Check]:
        """The response is over: return what has not been checked of it, and forget it."""
        due = []
        for item_id, window in list(self._windows.items()):
            if window.response_id != response_id:
                continue
            if response_id not in self._tripped and len(window.text) > window.checked:
                due.append(self._check(item_id, window))
            del self._windows[item_id]
        return due

    def trip(self, response_id: str) -> bool:
        """A guardrail stopped this response. Returns False when one had done so before."""
        if response_id in self._tripped:
            return False
        self._tripped.append(response_id)
        return True

    def _check(self, item_id: str, window: _Window) -> Check:
        window.checked = len(window.text)
        return Check(window.response_id, item_id, window.text, window.spoken)
