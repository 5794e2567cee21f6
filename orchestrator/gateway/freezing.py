"""Which session actor stands still. Pure: it is told when each actor's loop last ran, and what time it is.

The end of a link shows a process that died; one that is stopped, or whose loop is blocked, keeps its link. Its heartbeat does
show it: the loop writes the time into the page that it shares with the gateway. An actor that is late is given no new callers,
then asked to write down what its threads are doing, then killed; its calls go to others.

A machine that stood still as a whole finds every heartbeat old when it goes on. So the silence of the others only counts while
this process itself was watching.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

__all__ = ["AskDump", "FreezeCommand", "FreezeDetector", "FreezeLimits", "KillFrozen", "Suspect", "Trust"]


@dataclass(frozen=True, slots=True)
class FreezeLimits:
    """Seconds without a heartbeat until each step. `stall` is how far apart two looks may be before the first one is void."""

    suspect_after: float = 1.0
    dump_after: float = 2.0
    kill_after: float = 3.0
    stall: float = 0.75


@dataclass(frozen=True, slots=True)
class Suspect:
    """Give this actor no new calls for now."""

    actor_id: str


@dataclass(frozen=True, slots=True)
class Trust:
    """It moves again: it may be given calls."""

    actor_id: str


@dataclass(frozen=True, slots=True)
class AskDump:
    """Have the process write down where its threads are, for whoever looks for the cause."""

    actor_id: str


@dataclass(frozen=True, slots=True)
class KillFrozen:
    """It has stood still for too long: `Recovery.frozen`."""

    actor_id: str


FreezeCommand: TypeAlias = Suspect | Trust | AskDump | KillFrozen


class _Step(Enum):
    MOVING = 0
    SUSPECT = 1
    DUMPED = 2
    KILLED = 3


@dataclass(slots=True)
class _Watch:
    # Since when its silence counts: its last heartbeat, or when we began to watch.
    since: float
    step: _Step = _Step.MOVING


class FreezeDetector:
    """One for a gateway. Times are seconds of the machine's monotonic clock, which all its processes share."""

    def __init__(self, limits: FreezeLimits | None = None) -> None:
        self._limits = limits or FreezeLimits()
        self._watched: dict[str, _Watch] = {}
        self._looked_at: float | None = None

    def watch(self, actor_id: str, now: float) -> None:
        """A process has linked: watch it from now on, anew if it was watched before."""
        self._watched[actor_id] = _Watch(now)

    def forget(self, actor_id: str) -> None:
        """Its link is gone, and with it the question. Idempotent."""
        self._watched.pop(actor_id, None)

    def beat(self, actor_id: str, at: float) -> None:
        """The actor's loop ran at this time. What is told of an actor that is not watched is ignored."""
        watch = self._watched.get(actor_id)
        if watch is not None and at > watch.since:
            watch.since = at

    def look(self, now: float) -> list[FreezeCommand]:
        """Judge all actors by what they told; call it several times a second, after the heartbeats were read."""
        stood_still = self._looked_at is not None and now - self._looked_at > self._limits.stall
        self._looked_at = now
        commands: list[FreezeCommand] = []
        for actor_id, watch in self._watched.items():
            if stood_still:
                watch.since = max(watch.since, now)
            commands += self._judge(actor_id, watch, now - watch.since)
        return commands

    def _judge(self, actor_id: str, watch: _Watch, silence: float) -> list[FreezeCommand]:
        if watch.step is _Step.KILLED:
            return []
        if silence < self._limits.suspect_after:
            moved, watch.step = watch.step is not _Step.MOVING, _Step.MOVING
            return [Trust(actor_id)] if moved else []
        commands: list[FreezeCommand] = []
        if watch.step is _Step.MOVING:
            watch.step = _Step.SUSPECT
            commands.append(Suspect(actor_id))
        if watch.step is _Step.SUSPECT and silence >= self._limits.dump_after:
            watch.step = _Step.DUMPED
            commands.append(AskDump(actor_id))
        # Never in one look with the dump, which takes a moment.
        elif watch.step is _Step.DUMPED and silence >= self._limits.kill_after:
            watch.step = _Step.KILLED
            commands.append(KillFrozen(actor_id))
        return commands
