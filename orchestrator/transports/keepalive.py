"""Pings that prove the peer is there, and the limit on the peer's own control frames. Timers only, no task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

__all__ = ["MAX_CONTROL_RATE", "ControlBudget", "Keepalive"]

# Control frames per second that a peer may send. Real peers send a few per minute; each one costs us an answer.
MAX_CONTROL_RATE: Final = 200


class Keepalive:
    """Pings every `interval` seconds; `expire` is called once if a ping stays unanswered for `timeout` seconds.

    One timer at a time. An answer is a pong with the payload of the last ping: an unasked one proves nothing about the way
    from us to the peer.
    """

    __slots__ = ("_expire", "_interval", "_loop", "_number", "_payload", "_send_ping", "_sent_at", "_timeout", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        interval: float | None,
        timeout: float | None,
        *,
        send_ping: Callable[[bytes], None],
        expire: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._interval = interval
        self._timeout = timeout
        self._send_ping = send_ping
        self._expire = expire
        self._timer: asyncio.TimerHandle | None = None
        self._payload: bytes | None = None  # of the ping that waits for its answer
        self._number = 0
        self._sent_at = 0.0

    def start(self) -> None:
        """Start pinging, `interval` from now; does nothing without an interval."""
        if self._interval is not None:
            self._timer = self._loop.call_later(self._interval, self._ping)

    def stop(self) -> None:
        """Stop for good."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._payload = None

    def pong(self, payload: bytes) -> None:
        """Take a pong of the peer."""
        if self._payload is None or payload != self._payload or self._interval is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._payload = None
        self._timer = self._loop.call_at(self._sent_at + self._interval, self._ping)

    def _ping(self) -> None:
        self._number += 1
        self._payload = self._number.to_bytes(8, "big")
        self._sent_at = self._loop.time()
        # The timer is set first: sending may end the leg, which stops us.
        if self._timeout is not None:
            self._timer = self._loop.call_later(self._timeout, self._expired)
        elif self._interval is not None:
            self._timer = self._loop.call_later(self._interval, self._ping)
        self._send_ping(self._payload)

    def _expired(self) -> None:
        self._timer = None
        self._payload = None
        self._expire()


class ControlBudget:
    """Counts control frames per second of loop time."""

    __slots__ = ("_count", "_limit", "_since")

    def __init__(self, limit: int = MAX_CONTROL_RATE) -> None:
        self._limit = limit
        self._since = 0.0
        self._count = 0

    def spend(self, now: float) -> bool:
        """Count one frame at the time `now`; return False if that is too many."""
        if now - self._since >= 1.0:
            self._since = now
            self._count = 0
        self._count += 1
        return self._count <= self._limit
