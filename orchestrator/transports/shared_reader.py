"""One timer that has many legs read, for whoever holds hundreds of them and may hear a little late.

A leg that its transport reads costs a wake-up for every message. A leg that is read ten times a second has all that came
meanwhile in its buffer at once, and nothing in the kernel watches its socket.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Final, Protocol

from orchestrator.errors import SettingsError

__all__ = ["LEGS_PER_TURN", "SLOTS", "Readable", "SharedReader", "read_from"]

# The legs are spread over the interval, so that never all of them are read in one go.
SLOTS: Final = 5
# Legs read before the loop gets a turn: a millisecond or so, and timers, such as those of outgoing audio, are not late by more.
LEGS_PER_TURN: Final = 32


class Readable(Protocol):
    """What a `SharedReader` reads."""

    def read(self) -> bool:
        """Read once, without waiting; return whether there may be more to read at once."""


class SharedReader:
    """Has each of its legs read once in `interval` seconds; one that has more to read is read again in the next turn.

    Belongs to the loop on which legs are added. Holds a timer as long as it has legs. When it is late, the interval becomes
    longer: it never tries to catch up.
    """

    def __init__(self, interval: float) -> None:
        if interval <= 0:
            raise SettingsError("the interval must be more than 0 seconds")
        self._step = interval / SLOTS
        self._slots: list[dict[Readable, None]] = [{} for _ in range(SLOTS)]
        self._places: dict[Readable, dict[Readable, None]] = {}
        self._next = 0
        self._due: deque[Readable] = deque()
        self._timer: asyncio.TimerHandle | asyncio.Handle | None = None
        self._at = 0.0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, leg: Readable) -> None:
        """Have a leg read from now on. Does nothing if it already is."""
        if leg in self._places:
            return
        slot = min(self._slots, key=len)
        slot[leg] = None
        self._places[leg] = slot
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._at = loop.time() + self._step
            self._timer = loop.call_at(self._at, self._turn, loop)

    def remove(self, leg: Readable) -> None:
        """Have a leg read no more. Does nothing if it is not."""
        slot = self._places.pop(leg, None)
        if slot is None:
            return
        del slot[leg]
        if not self._places:
            self._due.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if not self._due:
            self._due.extend(self._slots[self._next])
            self._next = (self._next + 1) % SLOTS
        try:
            self._read_some()
        finally:
            # Also where a leg has failed: the others still want to be read.
            if self._places and self._timer is None:
                self._set_timer(loop)

    def _read_some(self) -> None:
        due = self._due
        for _ in range(min(LEGS_PER_TURN, len(due))):
            leg = due.popleft()
            # It may have gone since it became due.
            if leg in self._places and leg.read() and leg in self._places:
                due.append(leg)

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._due:
            self._timer = loop.call_soon(self._turn, loop)
        else:
            empty = next(count for count in range(SLOTS) if self._slots[(self._next + count) % SLOTS])
            self._next = (self._next + empty) % SLOTS
            self._at = max(self._at + self._step * (1 + empty), loop.time())
            self._timer = loop.call_at(self._at, self._turn, loop)


def read_from(sock: socket.socket, room: memoryview) -> int | None:
    """Read what has come on a non-blocking socket; None if that is nothing, 0 if nothing will come any more."""
    try:
        return sock.recv_into(room)
    except (BlockingIOError, InterruptedError):
        return None
    except OSError:
        return 0
