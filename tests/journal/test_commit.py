"""Group commit: one batch at a time, the spool while the store is away, and no acknowledged entry lost whatever happens."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import IllegalTransitionError
from orchestrator.journal.commit import (
    Acknowledge,
    CommitCommand,
    CommitLimits,
    CommitState,
    Confirm,
    GroupCommit,
    Lose,
    ReadSpool,
    Refuse,
    Resume,
    Spool,
    Write,
)
from orchestrator.journal.entries import AgentChanged, CallStarted, Entry, Snapshot, TakenOver
from orchestrator.journal.heads import Verdict
from orchestrator.journal.state import replay
from orchestrator.journal.stores.memory import MemoryStore
from tests.journal.writing import entries, entry

STARTED = entry(CallStarted("openai", "A"), 1)
SECOND, THIRD, FOURTH = (entry(AgentChanged(f"agent {seq}"), seq) for seq in (2, 3, 4))
WRITTEN = [Verdict.WRITE]


def test_what_comes_during_a_write_is_the_next_batch() -> None:
    machine = GroupCommit()
    assert machine.submit([STARTED], 0.0) == [Write([STARTED])]
    assert machine.submit([SECOND], 0.0) == []
    assert machine.submit([THIRD], 0.0) == []
    assert machine.waiting == 3
    assert machine.written(WRITTEN, 0.0) == [Acknowledge("s1", "a", 1, durable=True), Write([SECOND, THIRD])]
    assert machine.written([Verdict.WRITE, Verdict.KNOWN], 0.0) == [Acknowledge("s1", "a", 3, durable=True)]
    assert machine.waiting == 0


def test_a_batch_has_limits() -> None:
    machine = GroupCommit(CommitLimits(batch_entries=2))
    assert machine.submit([STARTED, SECOND, THIRD], 0.0) == [Write([STARTED, SECOND])]
    machine = GroupCommit(CommitLimits(batch_bytes=1))
    assert machine.submit([STARTED, SECOND], 0.0) == [Write([STARTED])]


def test_a_writer_that_is_refused_hears_it_once_and_is_not_written_again() -> None:
    machine = GroupCommit()
    machine.submit([STARTED, SECOND], 0.0)
    assert machine.written([Verdict.STALE, Verdict.STALE], 0.0) == [Refuse("s1", "a", Verdict.STALE)]
    assert machine.submit([THIRD], 0.0) == [Refuse("s1", "a", Verdict.STALE)]
    machine.forget("s1")
    assert machine.submit([FOURTH], 0.0) == [Write([FOURTH])]


def test_the_store_goes_away_and_comes_back() -> None:
    machine = GroupCommit(CommitLimits(first_pause=1.0, longest_pause=3.0))
    machine.submit([STARTED], 0.0)
    assert machine.failed(0.0) == [Spool([STARTED])]
    # Nothing is due while the disk is at work: its answer goes on.
    assert (machine.state, machine.due) == (CommitState.SPOOLING, None)
    assert machine.kept(0.0) == [Acknowledge("s1", "a", 1, durable=False)]
    assert machine.due == 1.0
    assert machine.submit([SECOND], 0.5) == [Spool([SECOND])]
    assert machine.kept(0.5) == [Acknowledge("s1", "a", 2, durable=False)]
    # A probe that fails doubles the pause, up to its limit.
    assert machine.tick(0.9) == []
    for now, due in ((1.0, 3.0), (3.0, 6.0), (6.0, 9.0)):
        assert machine.tick(now) == [ReadSpool(512)]
        assert machine.read([STARTED, SECOND], now) == [Write([STARTED, SECOND])]
        assert machine.failed(now) == []
        assert machine.due == due
    # It is back: what came meanwhile goes to the end of the spool first.
    assert machine.tick(9.0) == [ReadSpool(512)]
    assert machine.submit([THIRD], 9.0) == []
    machine.read([STARTED], 0.0)
    assert machine.written(WRITTEN, 9.0) == [Confirm(1), Acknowledge("s1", "a", 1, durable=True), Spool([THIRD])]
    assert machine.kept(9.0) == [Acknowledge("s1", "a", 3, durable=False), ReadSpool(512)]
    machine.read([SECOND, THIRD], 0.0)
    # What was kept on disk is acknowledged once more: now nobody can come between.
    assert machine.written([Verdict.KNOWN, Verdict.WRITE], 9.0) == [Confirm(2), Acknowledge("s1", "a", 3, durable=True)]
    assert machine.state is CommitState.STORE
    assert machine.submit([FOURTH], 9.0) == [Write([FOURTH])]


def test_a_spool_left_by_a_predecessor_is_written_first() -> None:
    machine = GroupCommit(spooled=1)
    assert machine.start(0.0) == [ReadSpool(512)]
    assert machine.submit([SECOND], 0.0) == []
    machine.read([STARTED], 0.0)
    assert machine.written(WRITTEN, 0.0) == [Confirm(1), Acknowledge("s1", "a", 1, durable=True), Write([SECOND])]


def test_when_nothing_can_take_entries_the_call_goes_on_and_a_snapshot_mends_it() -> None:
    machine = GroupCommit(CommitLimits(first_pause=1.0))
    machine.submit([STARTED], 0.0)
    machine.failed(0.0)
    machine.submit([SECOND], 0.0)
    assert machine.spool_full(0.0) == [Lose([STARTED, SECOND])]
    assert machine.submit([THIRD], 0.0) == [Lose([THIRD])]
    other = entry(CallStarted("openai", "A"), 1, session_id="s2")
    assert machine.tick(1.0) == [Resume("s1", "a")]
    assert machine.submit([other], 1.0) == [Write([other])]
    assert machine.written(WRITTEN, 1.0) == [Acknowledge("s2", "a", 1, durable=True), Resume("s1", "a")]
    snapshot = entry(Snapshot(msgspec.Raw(b"{}")), 4)
    assert machine.submit([snapshot], 1.0) == [Write([snapshot])]


def test_what_waits_behind_a_store_that_hangs_is_bounded() -> None:
    machine = GroupCommit(CommitLimits(waiting_bytes=1))
    machine.submit([STARTED], 0.0)
    assert machine.submit([SECOND, THIRD], 0.0) == [Lose([THIRD])]
    assert machine.written(WRITTEN, 0.0)[-1] == Write([SECOND])
    assert machine.submit([FOURTH], 0.0) == [Lose([FOURTH])]


def test_a_steady_stream_of_entries_does_not_keep_the_spool_from_being_emptied() -> None:
    machine = GroupCommit(spooled=1)
    assert machine.start(0.0) == [ReadSpool(512)]
    machine.read([STARTED], 0.0)
    machine.failed(0.0)
    machine.submit([SECOND], 5.0)
    # Something waits at the end of every operation.
    machine.submit([THIRD], 5.0)
    assert machine.kept(5.0)[-1] == ReadSpool(512)
    machine.submit([FOURTH], 5.0)
    assert machine.read([STARTED, SECOND], 5.0) == [Write([STARTED, SECOND])]
    durable = Acknowledge("s1", "a", 2, durable=True)
    assert machine.written([Verdict.WRITE] * 2, 5.0) == [Confirm(2), durable, Write([THIRD, FOURTH])]


def test_a_hole_is_mended_by_the_writer_and_costs_it_nothing_else() -> None:
    machine = GroupCommit()
    machine.submit([SECOND], 0.0)
    machine.submit([THIRD], 0.0)
    assert machine.written([Verdict.GAP], 0.0) == [Lose([SECOND, THIRD]), Resume("s1", "a")]
    assert machine.submit([FOURTH], 0.0) == [Lose([FOURTH])]
    snapshot = entry(Snapshot(msgspec.Raw(b"{}")), 5)
    assert machine.submit([snapshot], 0.0) == [Write([snapshot])]
    assert machine.written(WRITTEN, 0.0) == [Acknowledge("s1", "a", 5, durable=True)]


def test_a_hole_that_a_snapshot_of_the_same_batch_mends_is_none() -> None:
    machine = GroupCommit(spooled=2)
    machine.start(0.0)
    snapshot = entry(Snapshot(msgspec.Raw(b"{}")), 5)
    machine.read([SECOND, snapshot], 0.0)
    assert MemoryStore().append([SECOND, snapshot]) == [Verdict.GAP, Verdict.WRITE]
    durable = Acknowledge("s1", "a", 5, durable=True)
    assert machine.written([Verdict.GAP, Verdict.WRITE], 0.0) == [Confirm(2), durable]


def test_whoever_follows_an_owner_that_lost_entries_has_to_tell_everything() -> None:
    claim = entry(TakenOver("actor_died", after="a"), 4, epoch=2, writer="b")
    machine = GroupCommit(CommitLimits(first_pause=1.0))
    machine.submit([STARTED], 0.0)
    machine.failed(0.0)
    # It waits behind what is given up, or comes after it: in either case its entries would follow a hole.
    machine.submit([SECOND, claim], 0.0)
    assert machine.spool_full(0.0) == [Lose([STARTED, SECOND, claim])]
    other = entry(TakenOver("actor_died", after="b"), 5, epoch=3, writer="c")
    assert machine.submit([other], 0.0) == [Lose([other])]
    assert machine.tick(1.0) == [Resume("s1", "a"), Resume("s1", "b"), Resume("s1", "c")]
    snapshot = entry(Snapshot(msgspec.Raw(b"{}"), after="a"), 6, epoch=2, writer="c")
    assert machine.submit([snapshot], 1.0) == [Write([snapshot])]
    assert machine.written(WRITTEN, 1.0) == [Acknowledge("s1", "c", 6, durable=True)]


def test_a_spool_that_cannot_be_read_any_further_is_left_behind() -> None:
    machine = GroupCommit(spooled=3)
    assert machine.start(0.0) == [ReadSpool(512)]
    assert machine.read([], 0.0) == [Confirm(3)]
    assert (machine.state, machine.spooled) == (CommitState.STORE, 0)
    assert machine.submit([STARTED], 0.0) == [Write([STARTED])]


def test_entries_wait_until_it_is_known_what_the_spool_holds() -> None:
    machine = GroupCommit(spooled=None)
    assert machine.submit([SECOND], 0.0) == []
    assert machine.opened(1, 0.0) == [Spool([SECOND])]
    machine = GroupCommit(spooled=None)
    machine.submit([STARTED], 0.0)
    assert machine.opened(0, 0.0) == [Write([STARTED])]


def test_an_answer_that_was_not_asked_for_is_a_mistake_of_ours() -> None:
    with pytest.raises(IllegalTransitionError):
        GroupCommit().written([], 0.0)


class World:
    """A store that comes and goes, a spool that may fill, and writers that send on until they are told not to."""

    def __init__(self, spool_limit: int) -> None:
        self.now = 0.0
        self.store = MemoryStore()
        self.store_up = True
        self.spool: list[Entry] = []
        self.spool_limit = spool_limit
        self.machine = GroupCommit(CommitLimits(batch_entries=3))
        self.pending: list[CommitCommand] = []
        self.durable: dict[str, int] = {}
        self.kept: dict[str, int] = {}
        self.lost: set[tuple[str, int]] = set()
        self.seqs: dict[str, int] = {}
        self.resumable: set[str] = set()

    def take(self, commands: Sequence[CommitCommand]) -> None:
        for command in commands:
            match command:
                case Acknowledge(session_id, _, seq, durable):
                    marks = self.durable if durable else self.kept
                    marks[session_id] = max(seq, marks.get(session_id, 0))
                case Lose(given_up):
                    self.lost |= {(one.session_id, one.seq) for one in given_up}
                case Resume(session_id, _):
                    self.resumable.add(session_id)
                case Refuse():
                    raise AssertionError("nobody competes here")
                case Confirm(count):
                    del self.spool[:count]
                case _:
                    assert not self.pending, "two writes at once"
                    self.pending.append(command)

    def write(self, session_id: str) -> None:
        seq = self.seqs[session_id] = self.seqs.get(session_id, 0) + 1
        body = CallStarted("openai", "A") if seq == 1 else AgentChanged(f"agent {seq}")
        made = entry(body, seq, session_id)
        if session_id in self.resumable:
            self.resumable.discard(session_id)
            made = entry(Snapshot(msgspec.Raw(b'{"session_id":""}')), seq, session_id)
        self.take(self.machine.submit([made], self.now))

    def work(self, *, fails_after: bool) -> None:
        if not self.pending:
            self.take(self.machine.tick(self.now))
        if not self.pending:
            return
        match self.pending.pop():
            case Write(batch):
                if not self.store_up and not fails_after:
                    self.take(self.machine.failed(self.now))
                    return
                verdicts = self.store.append(batch)
                # The word of a write may be lost after it was done.
                self.take(self.machine.failed(self.now) if fails_after else self.machine.written(verdicts, self.now))
            case Spool(batch) if len(self.spool) + len(batch) > self.spool_limit:
                self.take(self.machine.spool_full(self.now))
            case Spool(batch):
                self.spool += batch
                self.take(self.machine.kept(self.now))
            case ReadSpool(most):
                self.take(self.machine.read(self.spool[:most], self.now))

    def restart(self) -> None:
        """The gateway dies: what was in its memory goes, the spool stays."""
        self.pending.clear()
        self.resumable.clear()
        self.machine = GroupCommit(CommitLimits(batch_entries=3), spooled=len(self.spool))
        for session_id in self.seqs:
            done = max(self.durable.get(session_id, 0), self.kept.get(session_id, 0))
            self.seqs[session_id] = done
        self.take(self.machine.start(self.now))


def stored(world: World, session_id: str) -> list[int]:
    return [one.seq for one in world.store.read(session_id)]


STEPS = ["write1", "write2", "work", "work", "down", "up", "wait"]


@given(st.lists(st.sampled_from([*STEPS, "lose_word", "restart"]), max_size=80))
def test_nothing_acknowledged_is_lost_and_order_never_changes(steps: list[str]) -> None:
    world = World(spool_limit=10_000)
    for step in [*steps, "up"]:
        if step.startswith("write"):
            world.write(step)
        elif step == "work":
            world.work(fails_after=False)
        elif step == "lose_word":
            world.work(fails_after=True)
        elif step in ("up", "down"):
            world.store_up = step == "up"
        elif step == "wait":
            world.now += 1.0
        else:
            world.restart()
    for _ in range(500):
        world.now += 5.0
        world.work(fails_after=False)
    assert not world.lost
    assert world.machine.waiting == world.machine.spooled == 0
    for session_id, seq in world.seqs.items():
        assert stored(world, session_id) == list(range(1, seq + 1))
        assert replay(session_id, world.store.read(session_id)).last_seq == seq


@given(st.lists(st.sampled_from(STEPS), max_size=80))
def test_with_a_small_spool_only_what_was_given_up_is_missing(steps: list[str]) -> None:
    world = World(spool_limit=4)
    for step in [*steps, "up"]:
        if step.startswith("write"):
            world.write(step)
        elif step == "work":
            world.work(fails_after=False)
        elif step in ("up", "down"):
            world.store_up = step == "up"
        else:
            world.now += 1.0
    for _ in range(500):
        world.now += 5.0
        world.work(fails_after=False)
    for session_id, seq in world.seqs.items():
        expected = [one for one in range(1, seq + 1) if (session_id, one) not in world.lost]
        assert stored(world, session_id) == expected


def test_entries_of_a_whole_call_arrive_in_order() -> None:
    machine = GroupCommit()
    journal = entries(CallStarted("openai", "A"), *(AgentChanged(str(number)) for number in range(1500)))
    commands = machine.submit(journal, 0.0)
    seen: list[Entry] = []
    while commands and isinstance(commands[-1], Write):
        batch = commands[-1].entries
        seen += batch
        commands = machine.written([Verdict.WRITE] * len(batch), 0.0)
    assert seen == journal
