"""Which session lives where, put together from what the gateways report.

Pure: no clock, no I/O. The directory is a view that can be thrown away: every gateway reports all its sessions each time, so
an empty directory is whole again after one report from each. It is on no call's path.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from orchestrator.cluster.link_messages import ActorSnapshot, GatewaySnapshot, SessionSnapshot

__all__ = ["Directory", "GatewayView", "Place"]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session is. `pid` is its session actor's process, 0 when the gateway did not say."""

    node: str
    pid: int
    session: SessionSnapshot


class GatewayView(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway as the directory knows it; `age` is the seconds since its last report."""

    node: str
    host: str
    port: int
    pid: int
    ready: bool
    draining: bool
    max_sessions: int
    sessions: int
    actors: tuple[ActorSnapshot, ...]
    age: float


@dataclass(frozen=True)
class _Known:
    snapshot: GatewaySnapshot
    sessions: dict[str, SessionSnapshot]
    pids: dict[str, int]
    received_at: float


class Directory:
    """Sessions by id and gateways by node. Times are seconds of one monotonic clock of the caller's."""

    def __init__(self) -> None:
        self._gateways: dict[str, _Known] = {}

    def receive_report(self, report: GatewaySnapshot, now: float) -> bool:
        """Take a report. Return False, changing nothing, when a newer one of that node is known already."""
        known = self._gateways.get(report.node)
        if known is not None and _order(report) < _order(known.snapshot):
            return False
        self._gateways[report.node] = _Known(
            snapshot=report,
            sessions={session.session_id: session for session in report.sessions},
            pids={actor.actor_id: actor.pid for actor in report.actors},
            received_at=now,
        )
        return True

    def forget_node(self, node: str) -> tuple[SessionSnapshot, ...]:
        """Drop a node that is gone. Return the sessions that the directory now knows nowhere else."""
        known = self._gateways.pop(node, None)
        if known is None:
            return ()
        return tuple(session for session in known.sessions.values() if self._owner(session.session_id) is None)

    def expire(self, now: float, max_age: float) -> dict[str, tuple[SessionSnapshot, ...]]:
        """Drop every gateway that has not reported for more than `max_age` seconds.

        Return by node the sessions that were lost sight of. They may well live on: only the view of them is gone.
        """
        silent = [node for node, known in self._gateways.items() if now - known.received_at > max_age]
        return {node: self.forget_node(node) for node in silent}

    def lookup(self, session_id: str) -> Place | None:
        """Return where a session is, or None.

        During a move two gateways may report it: the higher epoch is right, and of equal epochs the later report.
        """
        node = self._owner(session_id)
        return None if node is None else _place(node, self._gateways[node], session_id)

    def sessions(self) -> Iterator[Place]:
        """Yield every session once."""
        for node, known in self._gateways.items():
            for session_id in known.sessions:
                if self._owner(session_id) == node:
                    yield _place(node, known, session_id)

    def gateways(self, now: float) -> tuple[GatewayView, ...]:
        """Return all gateways that are known, in the order of their nodes."""
        return tuple(_view(known, now) for _, known in sorted(self._gateways.items(), key=lambda item: item[0]))

    def __len__(self) -> int:
        return sum(1 for _ in self.sessions())

    def _owner(self, session_id: str) -> str | None:
        found = [
            (known.sessions[session_id].epoch, known.received_at, node)
            for node, known in self._gateways.items()
            if session_id in known.sessions
        ]
        return max(found)[2] if found else None


def _order(report: GatewaySnapshot) -> tuple[int, int]:
    return report.incarnation, report.sequence


def _place(node: str, known: _Known, session_id: str) -> Place:
    session = known.sessions[session_id]
    return Place(node=node, pid=known.pids.get(session.actor_id, 0), session=session)


def _view(known: _Known, now: float) -> GatewayView:
    report = known.snapshot
    return GatewayView(
        node=report.node,
        host=report.host,
        port=report.port,
        pid=report.pid,
        ready=report.ready,
        draining=report.draining,
        max_sessions=report.max_sessions,
        sessions=len(known.sessions),
        actors=report.actors,
        age=max(0.0, now - known.received_at),
    )
