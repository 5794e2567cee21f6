"""The deadline for the first answer of a session actor that was given a caller.

An actor whose process stopped keeps its link, so nothing else would ever end such a caller, or free its slot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["ANSWER_WITHIN", "HandOvers"]

# Seconds. A working actor answers within milliseconds; a loop that was blocked for longer is of no use to this caller.
ANSWER_WITHIN: Final = 10.0
# When this process itself has stood still, its timers run before it reads what came in the meantime.
_CATCH_UP: Final = 0.1


class HandOvers:
    """The timers, by session id. `on_silence` hears of a session whose actor missed the deadline."""

    def __init__(self, on_silence: Callable[[str], None], answer_within: float = ANSWER_WITHIN) -> None:
        self._on_silence = on_silence
        self._answer_within = answer_within
        self._open: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, session_id: str) -> None:
        """Watch over a caller that was given to an actor."""
        self.settle(session_id)
        self._watch(session_id, self._answer_within, self._look_again)

    def settle(self, session_id: str) -> None:
        """The actor has answered, or the caller is nobody's any more. Idempotent."""
        timer = self._open.pop(session_id, None)
        if timer is not None:
            timer.cancel()

    def _look_again(self, session_id: str) -> None:
        self._watch(session_id, _CATCH_UP, self._expire)

    def _expire(self, session_id: str) -> None:
        self.settle(session_id)
        self._on_silence(session_id)

    def _watch(self, session_id: str, seconds: float, then: Callable[[str], None]) -> None:
        self._open[session_id] = asyncio.get_running_loop().call_later(seconds, then, session_id)

    def close(self) -> None:
        """Watch no more."""
        for session_id in tuple(self._open):
            self.settle(session_id)
