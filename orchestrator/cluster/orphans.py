"""Calls that nobody serves, after their node was lost or its gateway forgot them: the supervisor's part of recovery.

Pure, and rebuilt from nothing: it is told which nodes live, what the gateways report and which calls the journal has open, and
remembers only since when it has seen a call without an owner. So a supervisor that restarts merely begins to count anew.

A call at the provider (SIP) is restarted elsewhere at once, since its caller is still talking. Whoever came by a socket has
lost it and may come back to any gateway (`cluster.resume`); when the grace is over, the call is closed in the journal.

Nothing is done for silence alone. A node counts as lost when the cluster says so and goes on saying so; a node whose gateway
does not report is left alone as long as the node lives; a call that is written to lives somewhere, whoever fails to report it;
the journal's silence counts only while its store answers; and after a pause of our own all that was seen before is void. Should
a call have an owner all the same, the journal lets only one of the two write.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from orchestrator.cluster.directory import GatewayView, Place
from orchestrator.errors import EndReason

__all__ = ["Close", "OpenCall", "OrphanCommand", "OrphanLimits", "Orphans", "Restart"]

_GRACE_OVER = EndReason("caller_did_not_return", "the caller did not come back to its call in time", by="caller")
_NOT_RESTARTED = EndReason("recovery_failed", "no node could take the call over", by="infrastructure")


class OpenCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that has not ended, as its journal has it. `node` is where its present owner writes from, "" for unknown.

    `outside` says that the call lives at the provider, under an id that the journal has (channel "sip").
    """

    session_id: str
    node: str
    epoch: int
    last_seq: int
    outside: bool = False


@dataclass(frozen=True, slots=True)
class OrphanLimits:
    """Seconds, except `restarts`.

    `settle` passes after the start before anything is done: every gateway has reported by then. A node is lost when it has
    been missing for `gone_after`; a call of a living node is nobody's when that node's gateway has reported without it for
    `unseen_after`. Pauses of our own longer than `stall` make what was seen before void.
    """

    settle: float = 4.0
    gone_after: float = 1.0
    unseen_after: float = 10.0
    resume_grace: float = 120.0
    restart_every: float = 5.0
    restarts: int = 6
    close_every: float = 5.0
    report_age: float = 3.0
    stall: float = 3.0


@dataclass(frozen=True, slots=True)
class Restart:
    """Have this node's gateway take the call over, by the journal; asking again for one that is on its way does no harm."""

    session_id: str
    node: str


@dataclass(frozen=True, slots=True)
class Close:
    """End the call in the journal (`journal.closing`), if it still is as it was seen: in this epoch, up to this entry."""

    session_id: str
    epoch: int
    last_seq: int
    reason: EndReason


OrphanCommand: TypeAlias = Restart | Close


@dataclass(slots=True)
class _Orphan:
    since: float
    epoch: int
    last_seq: int
    restarts: int = 0
    acted_at: float | None = None


class Orphans:
    """The machine. Times are seconds of one monotonic clock of the caller's."""

    def __init__(self, limits: OrphanLimits | None = None) -> None:
        self._limits = limits or OrphanLimits()
        self._orphans: dict[str, _Orphan] = {}
        self._missing: dict[str, float] = {}
        self._started_at: float | None = None
        self._stepped_at = 0.0

    def __len__(self) -> int:
        return len(self._orphans)

    def step(
        self,
        now: float,
        nodes: Collection[str],
        gateways: Sequence[GatewayView],
        places: Mapping[str, Place],
        calls: Sequence[OpenCall] | None,
    ) -> list[OrphanCommand]:
        """Return what to do now; call it at least every `stall` seconds.

        `nodes` are the ids of the live nodes, `gateways` and `places` what the directory has, `calls` what the journal has
        open; None where its store does not answer. Without nodes, or without a journal, nothing can be seen and nothing is
        done.
        """
        if self._started_at is None or now - self._stepped_at > self._limits.stall:
            self._started_at = now
            self._orphans.clear()
            self._missing.clear()
        self._stepped_at = now
        if calls is None:
            # While nobody can write, that nothing is written says nothing of anybody.
            self._orphans.clear()
        if not nodes or calls is None:
            return []
        self._look_for_missing(now, nodes, calls)
        seen = {call.session_id for call in calls}
        for session_id in [known for known in self._orphans if known not in seen]:
            del self._orphans[session_id]
        reporting = {view.node: view for view in gateways if view.node in nodes and view.age <= self._limits.report_age}
        commands: list[OrphanCommand] = []
        load: dict[str, int] = {}
        for call in calls:
            orphan = self._orphan(call, now, nodes, reporting, places)
            if orphan is not None and now - self._started_at >= self._limits.settle:
                commands += self._act(call, orphan, now, reporting, load)
        return commands

    def served(self, session_id: str, now: float) -> None:
        """A gateway that was asked to restart the call found that somebody serves it, whom nobody reports here."""
        orphan = self._orphans.get(session_id)
        if orphan is not None:
            orphan.since, orphan.restarts = now, 0

    def _look_for_missing(self, now: float, nodes: Collection[str], calls: Sequence[OpenCall]) -> None:
        missing = {call.node for call in calls} - set(nodes)
        for node in [known for known in self._missing if known not in missing]:
            del self._missing[node]
        for node in missing:
            self._missing.setdefault(node, now)

    def _orphan(
        self,
        call: OpenCall,
        now: float,
        nodes: Collection[str],
        reporting: Mapping[str, GatewayView],
        places: Mapping[str, Place],
    ) -> _Orphan | None:
        """Return what is known of a call that nobody seems to serve, or None for one that is served or may be."""
        waits_for_its_gateway = call.node in nodes and call.node not in reporting
        if waits_for_its_gateway or _is_held(call, nodes, places.get(call.session_id)):
            self._orphans.pop(call.session_id, None)
            return None
        orphan = self._orphans.get(call.session_id)
        if orphan is None or orphan.epoch != call.epoch:
            # A new owner has all the time again that the last one had, but a call is not restarted for ever.
            restarts = 0 if orphan is None else orphan.restarts
            acted_at = None if orphan is None else orphan.acted_at
            orphan = self._orphans[call.session_id] = _Orphan(now, call.epoch, call.last_seq, restarts, acted_at)
        elif orphan.last_seq != call.last_seq:
            orphan.since, orphan.last_seq = now, call.last_seq
        return orphan

    def _act(
        self, call: OpenCall, orphan: _Orphan, now: float, reporting: Mapping[str, GatewayView], load: dict[str, int]
    ) -> list[OrphanCommand]:
        limits = self._limits
        lost = now - self._missing.get(call.node, now) >= limits.gone_after
        if not (lost or now - orphan.since >= limits.unseen_after):
            return []
        if call.outside and orphan.restarts < limits.restarts:
            if orphan.acted_at is not None and now - orphan.acted_at < limits.restart_every:
                return []
            node = _least_loaded(reporting, load)
            if node is not None:
                load[node] = load.get(node, 0) + 1
                orphan.restarts, orphan.acted_at = orphan.restarts + 1, now
                return [Restart(call.session_id, node)]
        if now - orphan.since < limits.resume_grace:
            return []
        if orphan.acted_at is not None and now - orphan.acted_at < limits.close_every:
            return []
        orphan.acted_at = now
        reason = _NOT_RESTARTED if call.outside else _GRACE_OVER
        return [Close(call.session_id, call.epoch, call.last_seq, reason)]


def _is_held(call: OpenCall, nodes: Collection[str], place: Place | None) -> bool:
    """Whether a gateway that can be believed reports the call, and not one whose owner was replaced meanwhile."""
    if place is None or place.node not in nodes:
        return False
    epoch = place.session.epoch
    return epoch > call.epoch or (epoch == call.epoch and place.node == call.node)


def _least_loaded(reporting: Mapping[str, GatewayView], load: Mapping[str, int]) -> str | None:
    """Return the node with the most free seats, counting what it was given in this step."""

    def free(view: GatewayView) -> int:
        seats = sum(max(0, actor.seats - actor.used) for actor in view.actors)
        return min(seats, view.max_sessions - view.sessions) - load.get(view.node, 0)

    ready = [view for view in reporting.values() if view.ready and not view.draining and free(view) > 0]
    return min(ready, key=lambda view: (-free(view), view.node)).node if ready else None
