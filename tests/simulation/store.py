"""The one store of the cluster: the real memory store, reached over a network, with an eye on what it accepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import SNAPSHOT, Verdict
from orchestrator.journal.state import replay
from orchestrator.journal.stores.memory import MemoryStore
from tests.simulation.world import Process, Violation, World

__all__ = ["STORE", "StoreTwin"]

STORE = "store"
TIMEOUT = 0.35


class StoreTwin:
    """Requests fail, or are done and their answers lost; what is accepted is checked at once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.memory = MemoryStore()
        self.down = 0
        # The state that a claimant had when it took a call over, by session, epoch and writer.
        self.claims: dict[tuple[str, int, str], bytes] = {}
        self.written_at: dict[tuple[str, str, int], float] = {}
        self._owners: dict[tuple[str, int], str] = {}
        self._epochs: dict[str, int] = {}

    def request(
        self,
        process: Process,
        node: str,
        operation: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[], None],
    ) -> None:
        delay = 0.001 + self.world.random.random() ** 2 * 0.03
        self.world.at(delay / 2, None, self._perform, process, node, operation, done, failed, delay / 2)

    def _perform(
        self,
        process: Process,
        node: str,
        operation: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[], None],
        delay: float,
    ) -> None:
        # A process that died has sent its statement, and may have it done.
        if self.down or not self.world.connected(node, STORE):
            self.world.at(TIMEOUT * self.world.random.random(), process, failed)
            return
        result = operation()
        self.world.at(delay, process, self._answer, node, done, failed, result)

    def _answer(self, node: str, done: Callable[[Any], None], failed: Callable[[], None], result: Any) -> None:
        if self.down or not self.world.connected(node, STORE):
            self.world.note("store: answer lost")
            failed()
        else:
            done(result)

    def append(self, entries: Sequence[Entry]) -> list[Verdict]:
        verdicts = self.memory.append(entries)
        for entry, verdict in zip(entries, verdicts, strict=True):
            if verdict is not Verdict.WRITE:
                self.world.note(f"verdict: {verdict.value}", session=entry.session_id, entry=_told(entry))
                continue
            self._check(entry)
        return verdicts

    def _check(self, entry: Entry) -> None:
        self.written_at[entry.session_id, entry.writer, entry.seq] = self.world.now
        owner = self._owners.setdefault((entry.session_id, entry.epoch), entry.writer)
        if owner != entry.writer:
            raise Violation("one_writer", f"{owner} and {entry.writer} wrote in epoch {entry.epoch} of {entry.session_id}")
        epoch = self._epochs.get(entry.session_id, 0)
        if entry.epoch < epoch:
            raise Violation("epochs_grow", f"epoch {entry.epoch} was written after {epoch} in {entry.session_id}")
        self._epochs[entry.session_id] = entry.epoch
        if entry.epoch == epoch or not epoch:
            return
        claimed = self.claims.get((entry.session_id, entry.epoch, entry.writer))
        if entry.kind == SNAPSHOT:
            self.world.note("claim: by snapshot", session=entry.session_id, entry=_told(entry))
        elif claimed is not None:
            self.world.note("claim: accepted", session=entry.session_id, entry=_told(entry))
            past = [known for known in self.memory.read(entry.session_id) if known.seq <= entry.seq]
            if replay(entry.session_id, past).to_json() != claimed:
                raise Violation("claim_knows_all", f"{entry.writer} took {entry.session_id} over with another past")


def _told(entry: Entry) -> str:
    return f"{entry.seq}:{entry.kind}@{entry.epoch} by {entry.writer}"
