"""The clock of one session as its parts see it: what time it is, what is to happen when, and what is given out.

Pure: time is told, never asked for, and never falls.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from orchestrator.simulator.endpoint.outputs import Close

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.endpoint.outputs import Output
    from orchestrator.simulator.ids import IdSource
    from orchestrator.wire.realtime_server import ServerEvent

__all__ = ["Timeline"]


class Timeline:
    """Timers and outputs of one session. `ids` gives every event its id."""

    def __init__(self, ids: IdSource) -> None:
        self._ids = ids
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._outputs: list[Output] = []
        self.now = 0.0
        self.closed = False

    @property
    def due(self) -> float | None:
        """When `run_until` must be called, or None if nothing is going on."""
        return self._timers[0][0] if self._timers and not self.closed else None

    def at(self, due: float, action: Callable[[], None]) -> None:
        """Have something done at a time. There is no taking back: an action looks whether it still means something."""
        heapq.heappush(self._timers, (due, next(self._numbers), action))

    def run_until(self, now: float) -> None:
        """Do what was due until now, each thing at its own time, so that lateness does not add up."""
        while self._timers and self._timers[0][0] <= now and not self.closed:
            due, _, action = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            action()
        if now > self.now:
            self.now = now

    def send(self, event: ServerEvent) -> None:
        """Give out an event, under an id of its own."""
        self._outputs.append(msgspec.structs.replace(event, event_id=self._ids.event()))

    def put(self, output: Output) -> None:
        """Give out something that is no event."""
        self._outputs.append(output)

    def close(self, code: int, reason: str) -> None:
        """End the session; nothing happens any more."""
        self._outputs.append(Close(code, reason))
        self.closed = True
        self._timers.clear()

    def taken(self) -> list[Output]:
        """What was given out since the last call, in order."""
        outputs, self._outputs = self._outputs, []
        return outputs
