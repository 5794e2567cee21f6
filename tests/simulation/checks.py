"""What must hold when the faults have stopped and time went on."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.gateway.recovery import Stage
from orchestrator.journal.audit import Finding, audit
from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import ENDED, SNAPSHOT, Head
from orchestrator.journal.state import replay
from orchestrator.journal.writers import WriterName
from tests.simulation.actor import ActorTwin, CallTwin
from tests.simulation.cluster import Cluster
from tests.simulation.faults import GENTLE, Fault
from tests.simulation.supervisor import SUPERVISOR
from tests.simulation.world import Violation

__all__ = ["check_connections", "check_end", "check_tools"]


def check_tools(cluster: Cluster) -> None:
    for (session_id, call_id), runs in cluster.runs.items():
        if runs > 1:
            raise Violation("tool_runs_once", f"{call_id} of {session_id} ran {runs} times")


def check_connections(cluster: Cluster, faults: Sequence[Fault]) -> None:
    """Where only what the design promises to survive has happened, every caller's own connection is still the first one."""
    # One that has killed five owners is ended, though it was not its fault.
    deaths = sum(fault.kind in ("kill_actor", "kill_owner", "freeze_actor", "hand_over") for fault in faults)
    if cluster.broken and deaths < 5 and all(fault.kind in GENTLE for fault in faults):
        raise Violation("connections_are_kept", f"the connection of {cluster.broken[0]} was closed")


def check_end(cluster: Cluster) -> None:
    check_tools(cluster)
    stored: dict[str, list[Entry]] = {}
    for row in cluster.store.memory.sessions(open_only=False):
        stored[row.session_id] = cluster.store.memory.read(row.session_id)
    _check_acknowledged(cluster, stored)
    for session_id, entries in stored.items():
        head = cluster.store.memory.head(session_id)
        assert head is not None
        _check_journal(session_id, head, entries)
        if not head.ended:
            _check_owned(cluster, session_id, head, entries)
    _check_callers(cluster, stored)


def _check_journal(session_id: str, head: Head, entries: list[Entry]) -> None:
    for check in audit(session_id, head, entries).checks:
        if check.finding is Finding.BROKEN:
            raise Violation(f"journal_{check.name}", f"{session_id}: {check.detail}")


def _check_acknowledged(cluster: Cluster, stored: dict[str, list[Entry]]) -> None:
    """What was acknowledged as being in the store is there; what was on a node's disk alone is there, too, and what a gateway
    that still lives was given.

    Except where the node was lost with its disk, or where somebody had taken the call over by the store before these entries
    got through: they are of an owner that was none any more.
    """
    there = {(entry.session_id, entry.writer, entry.seq) for entries in stored.values() for entry in entries}
    for (session_id, writer, seq), entry in cluster.sent.items():
        if (session_id, writer, seq) in there:
            continue
        if _is_told_again(entry, stored.get(session_id, ())):
            continue
        if seq <= cluster.durable.get((session_id, writer), 0):
            raise Violation("acknowledged_is_kept", f"{seq}:{entry.kind} of {session_id} by {writer} is not in the store")
        if _is_fenced(cluster, entry, stored.get(session_id, ())):
            continue
        gateway = cluster.arrived.get((session_id, writer, seq))
        if gateway is not None and gateway.alive and (session_id, writer, seq) not in cluster.lost:
            raise Violation("arrived_is_kept", f"{seq}:{entry.kind} of {session_id} by {writer} is not in the store")
        node, kept = cluster.kept.get((session_id, writer), (None, 0))
        if node is not None and seq <= kept and node.alive:
            raise Violation("spooled_is_kept", f"{seq}:{entry.kind} of {session_id} by {writer} is not in the store")


def _is_told_again(entry: Entry, stored: Sequence[Entry]) -> bool:
    """Whether its writer gave a snapshot afterwards, as it does when it hears that something was lost; or did so in vain, since
    nothing was lost and the end of its call is there."""
    own = [other for other in stored if other.writer == entry.writer]
    later = any(other.kind == SNAPSHOT and other.seq > entry.seq for other in own)
    return later or any(other.kind == ENDED and other.seq < entry.seq for other in own)


def _is_fenced(cluster: Cluster, entry: Entry, stored: Sequence[Entry]) -> bool:
    """Whether somebody of whom its writer knew nothing had taken the call over by then, by the store alone.

    Or its writer tried that itself, and somebody else was quicker.
    """
    stranger = (entry.session_id, entry.writer) in cluster.strangers
    if stranger and not any(other.writer == entry.writer for other in stored):
        return True
    ancestors: set[str] = set()
    writer: str | None = entry.writer
    while writer is not None:
        ancestors.add(writer)
        writer = cluster.parents.get((entry.session_id, writer))
    return any(
        other.seq <= entry.seq
        and other.writer not in ancestors
        and ((entry.session_id, other.writer) in cluster.strangers or WriterName.parse(other.writer).actor == SUPERVISOR)
        for other in stored
    )


def _owners(cluster: Cluster, session_id: str) -> list[tuple[ActorTwin, CallTwin]]:
    return [
        (actor, actor.calls[session_id])
        for node in cluster.nodes
        if node.alive
        for actor in node.actors.values()
        if actor.alive and session_id in actor.calls and actor.calls[session_id].serving
    ]


def _check_owned(cluster: Cluster, session_id: str, head: Head, entries: list[Entry]) -> None:
    owners = _owners(cluster, session_id)
    if len(owners) != 1:
        raise Violation("ended_or_owned", f"{session_id} is open and has {len(owners)} owners: {head}")
    actor, call = owners[0]
    if (call.tail.writer, call.tail.epoch) != (head.writer, head.epoch):
        raise Violation("owner_writes", f"{session_id} is served by {call.tail.writer}, and written by {head.writer}")
    gateway = actor.node.gateway
    if gateway is None or gateway.recovery.owner(session_id) != actor.actor_id:
        raise Violation("gateway_knows", f"the gateway of {actor.node.name} does not know {session_id}")
    if gateway.recovery.stage(session_id) is not Stage.OWNED:
        raise Violation("gateway_knows", f"{session_id} is {gateway.recovery.stage(session_id)}")
    place = cluster.supervisor.directory.lookup(session_id)
    if place is None or place.node != actor.node.name:
        raise Violation("directory_knows", f"the directory has {session_id} at {place}")
    if call.tail.open or call.tail.torn:
        raise Violation("journal_settles", f"{len(call.tail.open)} entries of {session_id} are open, torn: {call.tail.torn}")
    if replay(session_id, entries).to_json() != call.tail.state.to_json():
        raise Violation("replay_is_state", f"the journal of {session_id} leads elsewhere than its owner is")


def _check_callers(cluster: Cluster, stored: dict[str, list[Entry]]) -> None:
    """Nobody waits on a line behind which there is nobody."""
    for caller in cluster.callers:
        sock = caller.sock
        if caller.gone or sock is None or not sock.open:
            continue
        if not any(call.sock is sock for _, call in _owners(cluster, caller.session_id)):
            raise Violation("no_dead_line", f"the caller of {caller.session_id} is connected to nobody")
    for node in cluster.nodes:
        if node.alive and node.spool:
            raise Violation("spool_empties", f"{len(node.spool)} entries are still on the disk of {node.name}")
    del stored
