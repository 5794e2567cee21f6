"""An entry that the store will never take costs its own call a snapshot, and nobody else anything."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import JournalContentError
from orchestrator.journal.commit import (
    Acknowledge,
    CommitCommand,
    CommitLimits,
    CommitState,
    Confirm,
    GroupCommit,
    Lose,
    ReadSpool,
    Resume,
    Spool,
    Write,
)
from orchestrator.journal.entries import AgentChanged, CallStarted, Entry, Snapshot
from orchestrator.journal.heads import Verdict
from orchestrator.journal.spool import SpoolFile
from orchestrator.journal.stores import MemoryStore
from orchestrator.journal.writer import JournalWriter
from tests.journal.test_writer import LIMITS, Listener
from tests.journal.writing import entry

SNAPSHOT = Snapshot(msgspec.Raw(b'{"session_id":""}'))


def call(name: str, number: int) -> list[Entry]:
    return [entry(CallStarted("openai", "A"), 1, name), *(entry(AgentChanged("x"), seq, name) for seq in range(2, number + 1))]


class PickyStore(MemoryStore):
    """Refuses every batch with one of these entries in it, by call and number."""

    def __init__(self, poison: set[tuple[str, int]]) -> None:
        super().__init__()
        self.poison = poison
        self.tries = 0

    def append(self, entries: Sequence[Entry]) -> list[Verdict]:
        self.tries += 1
        if any((one.session_id, one.seq) in self.poison for one in entries):
            raise JournalContentError("poison")
        return super().append(entries)


class Desk:
    """Does what the machine asks for, at once."""

    def __init__(self, poison: set[tuple[str, int]], spooled: Sequence[Entry] = ()) -> None:
        self.store = PickyStore(poison)
        self.spool = list(spooled)
        self.machine = GroupCommit(CommitLimits(batch_entries=16), spooled=len(spooled))
        self.kept: dict[str, int] = {}
        self.lost: list[tuple[str, int]] = []
        self.resumed: list[str] = []

    def perform(self, commands: list[CommitCommand]) -> None:
        queue = list(commands)
        while queue:
            match queue.pop(0):
                case Write(batch):
                    try:
                        verdicts = self.store.append(batch)
                    except JournalContentError:
                        queue += self.machine.refused(0.0)
                    else:
                        queue += self.machine.written(verdicts, 0.0)
                case ReadSpool(most):
                    queue += self.machine.read(self.spool[:most], 0.0)
                case Confirm(number):
                    del self.spool[:number]
                case Spool(batch):
                    self.spool += batch
                    queue += self.machine.kept(0.0)
                case Acknowledge(session_id, _, seq, durable):
                    assert durable or self.spool
                    self.kept[session_id] = seq
                case Lose(given_up):
                    self.lost += [(one.session_id, one.seq) for one in given_up]
                case Resume(session_id, _):
                    self.resumed.append(session_id)
                case other:
                    raise AssertionError(other)


def stored(desk: Desk, name: str) -> list[int]:
    return [one.seq for one in desk.store.read(name)]


def test_only_the_call_with_the_poison_loses_entries_and_is_asked_for_a_snapshot() -> None:
    desk = Desk({("bad", 3)})
    batch = [one for trio in zip(call("good", 5), call("bad", 5), call("fine", 5), strict=True) for one in trio]
    desk.perform(desk.machine.submit(batch, 0.0))
    assert (desk.kept["good"], desk.kept["fine"]) == (5, 5)
    assert stored(desk, "bad") == [1, 2]
    assert desk.lost == [("bad", 3), ("bad", 4), ("bad", 5)]
    assert set(desk.resumed) == {"bad"}
    desk.perform(desk.machine.submit([entry(SNAPSHOT, 6, "bad")], 0.0))
    assert stored(desk, "bad") == [1, 2, 6]
    assert desk.machine.waiting == 0


def test_a_call_whose_snapshot_is_poison_too_is_given_up_and_not_tried_for_ever() -> None:
    desk = Desk({("bad", 1), ("bad", 2)})
    desk.perform(desk.machine.submit([entry(CallStarted("openai", "A"), 1, "bad")], 0.0))
    desk.perform(desk.machine.submit([entry(SNAPSHOT, 2, "bad")], 0.0))
    desk.resumed.clear()
    tries = desk.store.tries
    desk.perform(desk.machine.submit([entry(SNAPSHOT, 3, "bad")], 0.0))
    assert desk.store.tries == tries
    desk.perform(desk.machine.submit(call("good", 3), 0.0))
    assert desk.resumed == []
    assert desk.lost == [("bad", 1), ("bad", 2), ("bad", 3)]
    desk.machine.forget("bad")
    assert desk.machine.submit([entry(SNAPSHOT, 4, "bad")], 0.0) != []


def test_poison_in_the_spool_does_not_block_what_is_behind_it() -> None:
    desk = Desk({("bad", 1)}, [*call("good", 20), *call("bad", 3), *call("fine", 20)])
    desk.perform(desk.machine.start(0.0))
    assert desk.spool == []
    assert (desk.machine.state, desk.machine.spooled) == (CommitState.STORE, 0)
    assert stored(desk, "good") == stored(desk, "fine") == list(range(1, 21))
    assert {name for name, _ in desk.lost} == {"bad"}


def test_a_store_that_goes_away_in_the_middle_of_the_search_loses_nothing() -> None:
    machine = GroupCommit()
    journal = call("s1", 4)
    (write,) = machine.submit(journal, 0.0)
    assert isinstance(write, Write)
    assert machine.refused(0.0) == [Write(journal[:2])]
    assert machine.waiting == 4
    assert machine.failed(0.0) == [Spool(journal)]


@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    poison=st.sets(st.tuples(st.sampled_from(["s0", "s1", "s2"]), st.integers(1, 9)), max_size=4),
    order=st.randoms(use_true_random=False),
    spooled=st.booleans(),
)
def test_whatever_is_poison_all_that_stands_before_it_is_kept(
    sizes: list[int], poison: set[tuple[str, int]], order: object, spooled: bool
) -> None:
    calls = {f"s{number}": call(f"s{number}", size) for number, size in enumerate(sizes)}
    queues = {name: list(journal) for name, journal in calls.items()}
    mixed: list[Entry] = []
    while queues:
        name = order.choice(sorted(queues))  # type: ignore[attr-defined]
        mixed.append(queues[name].pop(0))
        if not queues[name]:
            del queues[name]
    desk = Desk(poison, mixed if spooled else ())
    desk.perform(desk.machine.start(0.0) if spooled else desk.machine.submit(mixed, 0.0))
    for name, journal in calls.items():
        first = min((seq for bad, seq in poison if bad == name), default=len(journal) + 1)
        whole = list(range(1, len(journal) + 1))
        assert stored(desk, name) == whole[: first - 1]
        assert sorted(seq for lost, seq in desk.lost if lost == name) == whole[first - 1 :]
    assert (desk.machine.waiting, desk.machine.spooled, desk.spool) == (0, 0, [])


async def test_the_writer_goes_on_with_everybody_else(tmp_path: Path) -> None:
    store = PickyStore({("bad", 2)})
    listener = Listener()
    writer = JournalWriter(store, SpoolFile(tmp_path / "spool", 1 << 20), listener, LIMITS)
    writer.submit([*call("bad", 3), *call("good", 30)])
    await listener.has(30)
    await listener.until(lambda: listener.resumed)
    assert [one.seq for one in store.read("good")] == list(range(1, 31))
    assert {one.session_id for one in listener.lost} == {"bad"}
    assert (writer.state, writer.spooled) == (CommitState.STORE, 0)
    await writer.aclose()
