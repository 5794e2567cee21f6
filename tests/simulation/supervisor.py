"""The supervisor: the real directory and the real orphans, on what the network lets through."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.cluster.directory import Directory
from orchestrator.cluster.link_messages import GatewaySnapshot
from orchestrator.cluster.orphans import Close, OpenCall, OrphanLimits, Orphans, Restart
from orchestrator.journal.closing import closing_entries
from orchestrator.journal.heads import Head
from orchestrator.journal.stores.base import SessionRow
from orchestrator.journal.writers import WriterName
from tests.simulation.store import STORE
from tests.simulation.world import Process, Violation

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster

__all__ = ["SUPERVISOR", "SupervisorTwin"]

SUPERVISOR = "supervisor"
INTERVAL = 0.5
ORPHANS = OrphanLimits(
    settle=1.5,
    gone_after=0.5,
    unseen_after=2.5,
    resume_grace=6.0,
    restart_every=1.5,
    restarts=4,
    close_every=1.0,
    report_age=1.6,
    stall=1.8,
)


class SupervisorTwin(Process):
    """The supervisor's process. It knows nothing when it starts."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.world, SUPERVISOR, cluster.world.new_pid())
        self.cluster = cluster
        self.directory = Directory()
        self.orphans = Orphans(ORPHANS)
        self.world.at(self.world.between(0.0, INTERVAL), self, self._step)

    def on_report(self, snapshot: GatewaySnapshot) -> None:
        self.directory.receive_report(snapshot, self.world.now)

    def on_served(self, session_id: str) -> None:
        self.orphans.served(session_id, self.world.now)

    def _step(self) -> None:
        store = self.cluster.store
        store.request(self, SUPERVISOR, store.memory.sessions, self._look, partial(self._look, None))
        self.world.at(INTERVAL, self, self._step)

    def _look(self, rows: Sequence[SessionRow] | None) -> None:
        now = self.world.now
        nodes = self.cluster.nodes_in_view()
        self.directory.expire(now, 10.0)
        for view in self.directory.gateways(now):
            if nodes and view.node not in nodes:
                self.directory.forget_node(view.node)
        calls = None if rows is None else [_open_call(row) for row in rows]
        places = {place.session.session_id: place for place in self.directory.sessions()}
        heads = {row.session_id: row for row in rows or ()}
        for command in self.orphans.step(now, nodes, self.directory.gateways(now), places, calls):
            self.world.note(f"orphans: {type(command).__name__}", command=command)
            match command:
                case Restart(session_id, node):
                    self.cluster.restart(session_id, node)
                case Close():
                    self._check(command.session_id)
                    self._close(command, heads[command.session_id])

    def _check(self, session_id: str) -> None:
        """Nobody is to be disturbed who has been served in peace for some time."""
        calm = self.world.now - self.cluster.disturbed_at > ORPHANS.resume_grace and not self.cluster.store.down
        for node in self.cluster.nodes if calm else ():
            for actor in node.actors.values():
                call = actor.calls.get(session_id)
                settled = call is not None and call.serving and self.world.now - call.served_at > ORPHANS.resume_grace
                connected = all(self.world.connected(node.name, place) for place in (SUPERVISOR, STORE))
                if node.alive and actor.alive and settled and connected:
                    raise Violation("peace_is_kept", f"{session_id} is served by {actor.name} of {node.name}")

    def _close(self, command: Close, row: SessionRow) -> None:
        head = Head(command.session_id, command.epoch, row.writer, command.last_seq)
        writer = str(WriterName("", SUPERVISOR, self.pid))
        entries = closing_entries(head, writer, "", command.reason, now=0.0)
        append = partial(self.cluster.store.append, entries)
        self.cluster.store.request(self, SUPERVISOR, append, lambda _: None, lambda: None)


def _open_call(row: SessionRow) -> OpenCall:
    return OpenCall(
        session_id=row.session_id,
        node=WriterName.parse(row.writer).node,
        epoch=row.epoch,
        last_seq=row.last_seq,
        outside=row.channel == "sip",
    )
