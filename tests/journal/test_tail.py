"""An owner's tail: everything is sent again until it is acknowledged, and its state is what a replay gives."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.journal.entries import AgentChanged, CallStarted, Entry, TakenOver
from orchestrator.journal.heads import Verdict
from orchestrator.journal.state import replay
from orchestrator.journal.stores import MemoryStore
from orchestrator.journal.tail import JournalTail
from tests.journal.writing import CALL, UNIX_TIME

STARTED = CallStarted("openai", "A")


def test_what_is_not_acknowledged_is_open() -> None:
    tail = JournalTail("s1", "a")
    made = [tail.write(body, UNIX_TIME) for body in (STARTED, AgentChanged("B"), AgentChanged("C"))]
    assert list(tail.open) == made
    tail.acknowledged(2)
    assert list(tail.open) == made[2:]
    assert tail.kept_seq == 2
    tail.acknowledged(1)
    assert tail.kept_seq == 2


def test_a_new_owner_goes_on_where_the_last_one_stopped() -> None:
    store = MemoryStore()
    first = JournalTail("s1", "a")
    store.append([entry for body in CALL[:10] if (entry := first.write(body, UNIX_TIME))])
    second = JournalTail("s1", "b", epoch=2, state=replay("s1", store.read("s1")))
    claim = second.write(TakenOver("actor_died"), UNIX_TIME)
    assert claim is not None
    assert store.append([claim]) == [Verdict.WRITE]
    late = first.write(AgentChanged("late"), UNIX_TIME)
    assert late is not None
    assert store.append([late]) == [Verdict.STALE]


def test_a_refused_owner_writes_no_more() -> None:
    tail = JournalTail("s1", "a")
    tail.write(STARTED, UNIX_TIME)
    tail.refused = True
    assert tail.write(AgentChanged("B"), UNIX_TIME) is None
    tail.lost()
    assert tail.resume(UNIX_TIME) is None


def test_what_is_open_has_a_limit_and_a_snapshot_mends_it() -> None:
    tail = JournalTail("s1", "a", most_open=2000)
    sent: list[Entry | None] = [
        tail.write(STARTED, UNIX_TIME),
        *(tail.write(AgentChanged("x" * 500), UNIX_TIME) for _ in range(5)),
    ]
    assert sent[-1] is None
    assert not tail.open
    snapshot = tail.resume(UNIX_TIME)
    assert snapshot is not None
    assert snapshot.kind == "snapshot"
    assert tail.resume(UNIX_TIME) is None
    after = tail.write(AgentChanged("B"), UNIX_TIME)
    assert after is not None
    assert [entry.seq for entry in tail.open] == [snapshot.seq, snapshot.seq + 1]


@given(st.lists(st.sampled_from([*range(1, len(CALL) - 1), "send", "lose", "resume", "relink"]), max_size=60))
def test_the_store_ends_up_with_what_the_owner_knows(steps: list[int | str]) -> None:
    """Entries travel in order, are lost with a gateway, and are given up when nobody can take them."""
    store = MemoryStore()
    tail = JournalTail("s1", "a")
    wire: list[Entry] = []

    def send(entry: Entry | None) -> None:
        if entry is not None:
            wire.append(entry)

    send(tail.write(STARTED, UNIX_TIME))
    for step in steps:
        if isinstance(step, int):
            send(tail.write(CALL[step], UNIX_TIME))
        elif step == "send" and wire:
            entry = wire.pop(0)
            assert store.append([entry])[0] in (Verdict.WRITE, Verdict.KNOWN)
            tail.acknowledged(entry.seq)
        elif step == "lose":
            wire.clear()
            tail.lost()
        elif step == "resume":
            send(tail.resume(UNIX_TIME))
        else:
            wire = list(tail.open)
    send(tail.resume(UNIX_TIME))
    store.append(list(tail.open))
    rebuilt = replay("s1", store.read("s1"))
    assert msgspec.structs.asdict(rebuilt) == msgspec.structs.asdict(tail.state)


def test_a_claim_that_was_lost_on_its_way_is_made_by_the_snapshot() -> None:
    store = MemoryStore()
    first = JournalTail("s1", "a")
    store.append([entry for body in CALL[:5] if (entry := first.write(body, UNIX_TIME))])
    second = JournalTail("s1", "b", epoch=2, state=replay("s1", store.read("s1")))
    assert second.take_over("actor_died", "node-1", UNIX_TIME) is not None
    second.lost()
    assert second.write(AgentChanged("C"), UNIX_TIME) is None
    snapshot = second.resume(UNIX_TIME)
    assert snapshot is not None
    assert store.append([snapshot]) == [Verdict.WRITE]
    state = replay("s1", store.read("s1"))
    assert (state.epoch, state.writer, state.takeovers, state.agent) == (2, "b", 1, "C")
    # And it can be followed like any other.
    third = JournalTail("s1", "c", epoch=3, state=state)
    claim = third.take_over("actor_died", "node-1", UNIX_TIME)
    assert claim is not None
    assert store.append([claim]) == [Verdict.WRITE]
