"""Whose process is of no use any more. Pure: it is told when a ping was sent and what came of it.

An actor counts as silent only if it has answered before and its next ping has been open for too long. One that is starting or
being restarted is not silent: its pings wait, but the last one that ended did not end with an answer.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

__all__ = ["Pings"]


@dataclass
class _Record:
    pid: int = 0
    sent_at: float | None = None
    ended_at: float = 0.0
    complaint: str | None = None


class Pings:
    """At most one open ping for each name, and one every `interval` seconds to those who answer.

    Times are seconds of one monotonic clock.
    """

    def __init__(self, *, interval: float, silent_after: float) -> None:
        self._interval = interval
        self._silent_after = silent_after
        self._records: dict[str, _Record] = {}

    def due(self, names: Collection[str], now: float) -> tuple[str, ...]:
        """Return which of these names to ping now, and forget every other name."""
        for name in set(self._records) - set(names):
            del self._records[name]
        return tuple(name for name in names if self._is_due(name, now))

    def on_sent(self, name: str, now: float) -> None:
        """A ping was sent."""
        self._records.setdefault(name, _Record()).sent_at = now

    def on_answer(self, name: str, pid: int, now: float) -> None:
        """The open ping was answered by this process."""
        if name in self._records:
            self._records[name] = _Record(pid, ended_at=now)

    def on_failure(self, name: str) -> None:
        """The open ping ended without an answer: the actor is not there, or not yet."""
        if name in self._records:
            self._records[name] = _Record()

    def on_complaint(self, name: str, complaint: str) -> None:
        """The actor answered the open ping by saying that it cannot work."""
        if name in self._records:
            self._records[name] = _Record(complaint=complaint)

    def unfit(self, now: float) -> dict[str, str]:
        """Return the actors that said that they cannot work or have stopped answering, and which of the two."""
        causes = {name: record.complaint for name, record in self._records.items() if record.complaint is not None}
        for name, record in self._records.items():
            if record.pid and record.sent_at is not None and now - record.sent_at > self._silent_after:
                causes[name] = f"it has not answered for {now - record.sent_at:.0f} s"
        return causes

    def pids(self) -> dict[str, int]:
        """Return the process of every actor whose last ping that ended was answered."""
        return {name: record.pid for name, record in self._records.items() if record.pid}

    def _is_due(self, name: str, now: float) -> bool:
        record = self._records.get(name)
        if record is None or not record.pid:
            return record is None or record.sent_at is None
        return record.sent_at is None and now - record.ended_at >= self._interval
