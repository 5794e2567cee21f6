"""The callers of a chaos run: real clients over real sockets, who notice whatever is missing, doubled, or over.

A conversation is a client of the Realtime API that counts its turns and waits for the answer to each; a phone is a carrier's
media stream that speaks and listens in labelled frames.
"""

from __future__ import annotations

import abc
import time
from collections import Counter

from tests.chaos.story import Story, Turn

__all__ = ["Call", "LostCallError"]


class LostCallError(Exception):
    """The call ended, or was left without an answer: the message says how."""


class Call(abc.ABC):
    """One call. `story` is what it has noticed by now; times are Unix seconds, as in the journal.

    `run` speaks until `stop`, then hangs up as its protocol wants it; it never raises.
    """

    def __init__(self, story: Story, *, patience: float) -> None:
        self.story = story
        self._patience = patience
        self._stopping = False
        self._heard_at = time.time()
        # Since when a fault is waited out, if it is.
        self._faults: list[float] = []
        self._completed: Counter[int] = Counter()

    @property
    def up(self) -> bool:
        """Whether the call goes on."""
        return self.story.began and self.story.lost is None and not self.story.over

    def stop(self) -> None:
        """Say no more after this turn."""
        self._stopping = True

    def fault_at(self, at: float) -> None:
        """Note how long nothing is heard from now on."""
        self._faults.append(at)

    @abc.abstractmethod
    async def run(self) -> None:
        """Be on the line."""

    def _sign_of_life(self) -> None:
        """Something came from the service."""
        now = time.time()
        self.story.longest_silence = max(self.story.longest_silence, now - self._heard_at)
        self._heard_at = now
        # What was on its way when the fault came is not an answer to it.
        due = [at for at in self._faults if now - at > 0.005]
        if due:
            self.story.silences += [(at, now - at) for at in due]
            self._faults = [at for at in self._faults if at not in due]

    def _asked(self, number: int, what: str) -> Turn:
        turn = Turn(number, what, time.time())
        self.story.turns.append(turn)
        return turn

    def _note(self, text: str) -> None:
        if len(self.story.faults) < 50:
            self.story.faults.append(text)
