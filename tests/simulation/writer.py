"""The node's journal writer: the real group commit, with a store that is far away and a spool that is a list."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.journal.commit import (
    Acknowledge,
    CommitCommand,
    CommitLimits,
    Confirm,
    GroupCommit,
    Lose,
    ReadSpool,
    Refuse,
    Resume,
    Spool,
    Write,
)
from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import Verdict

if TYPE_CHECKING:
    from orchestrator.journal.writer import JournalListener
    from tests.simulation.gateway import GatewayTwin

__all__ = ["WriterTwin"]

LIMITS = CommitLimits(waiting_bytes=6000, batch_entries=8, first_pause=0.1, longest_pause=0.5)


class WriterTwin:
    """See `JournalWriter`; of its interface, what the desk uses."""

    def __init__(self, gateway: GatewayTwin, listener: JournalListener) -> None:
        self._gateway = gateway
        self._world = gateway.world
        self._listener = listener
        self._machine = GroupCommit(LIMITS, spooled=None)
        self._armed = float("inf")
        self._world.at(self._world.between(0.001, 0.02), gateway, self._opened)

    @property
    def waiting(self) -> int:
        return self._machine.waiting

    @property
    def spooled(self) -> int:
        return self._machine.spooled

    def submit(self, entries: Sequence[Entry]) -> None:
        self._gateway.copies.take(entries)
        for entry in entries:
            self._gateway.cluster.arrived[entry.session_id, entry.writer, entry.seq] = self._gateway
        self._perform(self._machine.submit(entries, self._world.now))

    def forget(self, session_id: str, writer: str | None = None) -> None:
        self._machine.forget(session_id, writer)

    def _opened(self) -> None:
        left = len(self._gateway.node.spool)
        if left:
            self._world.note("spool: left by a predecessor", entries=left)
        self._perform(self._machine.opened(left, self._world.now))

    def _perform(self, commands: Sequence[CommitCommand]) -> None:
        world, gateway, listener = self._world, self._gateway, self._listener
        for command in commands:
            match command:
                case Acknowledge(session_id, writer, seq, durable):
                    listener.on_acknowledged(session_id, writer, seq, durable=durable)
                case Write(entries):
                    append = partial(gateway.cluster.store.append, entries)
                    gateway.cluster.store.request(gateway, gateway.node.name, append, self._written, self._failed)
                case Spool(entries):
                    world.at(world.between(0.0005, 0.008), None, self._spool, entries)
                case ReadSpool(most):
                    world.at(world.between(0.0005, 0.004), gateway, self._read, most)
                case Confirm(count):
                    world.note("spool: emptied")
                    del gateway.node.spool[:count]
                case Refuse(session_id, writer, verdict):
                    listener.on_refused(session_id, writer, verdict)
                case Lose(entries):
                    listener.on_lost(entries)
                case Resume(session_id, writer):
                    world.note("journal: asks for a snapshot", session=session_id, writer=writer)
                    listener.on_resumed(session_id, writer)
        due = self._machine.due
        if due is not None and due < self._armed:
            self._armed = due
            world.at_time(due, gateway, self._tick)

    def _tick(self) -> None:
        self._armed = float("inf")
        self._perform(self._machine.tick(self._world.now))

    def _written(self, verdicts: Sequence[Verdict]) -> None:
        self._perform(self._machine.written(verdicts, self._world.now))

    def _failed(self) -> None:
        self._world.note("store: failed", node=self._gateway.node.name)
        self._perform(self._machine.failed(self._world.now))

    def _spool(self, entries: Sequence[Entry]) -> None:
        """The disk is at work; a process that dies meanwhile has half a record there, which is none."""
        node = self._gateway.node
        if not self._gateway.alive and self._world.random.random() < 0.5:
            return
        if len(node.spool) + len(entries) > node.spool_limit:
            self._world.note("spool: full")
            self._world.at(0.0, self._gateway, self._full)
            return
        node.spool += entries
        self._world.note("spool: kept", entries=len(entries))
        self._world.at(0.0, self._gateway, self._kept)

    def _kept(self) -> None:
        self._perform(self._machine.kept(self._world.now))

    def _full(self) -> None:
        self._perform(self._machine.spool_full(self._world.now))

    def _read(self, most: int) -> None:
        self._perform(self._machine.read(list(self._gateway.node.spool[:most]), self._world.now))
