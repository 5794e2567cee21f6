"""Entries travel from actors over real links into a store, and what became of them travels back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from orchestrator.cluster.link_messages import (
    FromGateway,
    JournalAcknowledged,
    JournalEntries,
    JournalLost,
    JournalRefused,
    StateParcel,
)
from orchestrator.errors import EndReason, JournalUnavailableError
from orchestrator.gateway.journal_desk import JournalDesk
from orchestrator.journal.commit import CommitLimits
from orchestrator.journal.entries import AgentChanged, CallStarted, Entry, TakenOver
from orchestrator.journal.heads import Verdict
from orchestrator.journal.parcels import parcels, state_parcels
from orchestrator.journal.state import replay
from orchestrator.journal.stores import MemoryStore
from orchestrator.journal.writer import JournalWriter
from orchestrator.telemetry.metrics import RegistryMetrics
from tests.gateway.rig import eventually
from tests.journal.writing import CALL, entries, entry

JOURNAL = entries(*CALL[:15])


class StubLink:
    """One end of a link: keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[FromGateway] = []
        self.closed: EndReason | None = None

    def offer(self, message: FromGateway, fds: tuple[int, ...] = ()) -> bool:
        del fds
        self.sent.append(message)
        return True

    def send(self, message: FromGateway, fds: tuple[int, ...] = ()) -> None:
        self.sent.append(message)

    def close(self, reason: EndReason) -> None:
        self.closed = reason


class AwayStore(MemoryStore):
    away = False

    def append(self, entries: Sequence[Entry]) -> list[Verdict]:
        if self.away:
            raise JournalUnavailableError("away")
        return super().append(entries)


class Rig:
    def __init__(self) -> None:
        self.store = AwayStore()
        self.metrics = RegistryMetrics()
        limits = CommitLimits(first_pause=0.01, longest_pause=0.01)
        self.desk = JournalDesk(lambda listener: JournalWriter(self.store, None, listener, limits), self.metrics)
        self.link = StubLink()

    def give(self, made: Sequence[Entry], link: StubLink | None = None) -> None:
        for data, more in parcels(made):
            self.desk.take(link or self.link, JournalEntries(data, more))

    def counted(self, name: str) -> float | None:
        return self.metrics.registry.get_sample_value(name)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with _rig() as made:
        yield made


@asynccontextmanager
async def _rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    await made.desk.aclose()


async def test_entries_are_written_and_acknowledged_over_their_link(rig: Rig) -> None:
    rig.give(JOURNAL)
    await eventually(lambda: bool(rig.link.sent))
    assert rig.link.sent == [JournalAcknowledged("s1", "a", 15, durable=True)]
    assert rig.store.read("s1") == JOURNAL
    assert rig.counted("orchestrator_journal_entries_total") == 15


async def test_a_large_batch_travels_in_parcels_of_which_half_a_one_counts_for_nothing(rig: Rig) -> None:
    large = [JOURNAL[0], entry(AgentChanged("x" * 300_000), 2)]
    pieces = list(parcels(large))
    assert len(pieces) > 4
    rig.desk.take(rig.link, JournalEntries(*pieces[0]))
    rig.desk.link_lost(rig.link)
    assert rig.store.read("s1") == []
    other = StubLink()
    rig.give(large, other)
    await eventually(lambda: bool(other.sent))
    assert rig.store.read("s1") == large


async def test_a_parcel_that_makes_no_sense_closes_its_link_alone(rig: Rig) -> None:
    rig.desk.take(rig.link, JournalEntries(b"\xc1"))
    assert rig.link.closed is not None
    assert rig.link.closed.code == "journal_format"
    other = StubLink()
    rig.give(JOURNAL, other)
    await eventually(lambda: bool(other.sent))
    assert other.closed is None


async def test_an_owner_of_old_is_told_to_stop(rig: Rig) -> None:
    rig.give(JOURNAL[:3])
    successor = StubLink()
    rig.give([entry(TakenOver("actor_died"), 4, epoch=2, writer="b")], successor)
    rig.give([JOURNAL[3]])
    await eventually(lambda: len(rig.link.sent) == 2 and bool(successor.sent))
    assert rig.link.sent[-1] == JournalRefused("s1", "a", "stale")
    assert successor.sent == [JournalAcknowledged("s1", "b", 4, durable=True)]


async def test_what_nothing_can_take_is_told_and_asked_for_again(rig: Rig) -> None:
    rig.store.away = True
    rig.give(JOURNAL[:3])
    await eventually(lambda: bool(rig.link.sent))
    assert rig.link.sent[0] == JournalLost("s1", "a", room=False)
    assert rig.counted("orchestrator_journal_lost_entries_total") == 3
    rig.store.away = False
    await eventually(lambda: rig.link.sent[-1] == JournalLost("s1", "a", room=True))


async def test_nothing_is_remembered_of_a_call_that_is_over_or_whose_actor_is_gone(rig: Rig) -> None:
    whole = entries(*CALL)
    rig.give(whole)
    await eventually(lambda: len(rig.link.sent) == 2)
    rig.give([entry(CallStarted("openai", "A"), 1, "s2")])
    await eventually(lambda: len(rig.link.sent) == 3)
    rig.desk.link_lost(rig.link)
    rig.give([entry(AgentChanged("B"), 2, "s2")], StubLink())
    await eventually(lambda: len(rig.store.read("s2")) == 2)
    assert len(rig.link.sent) == 3


async def test_an_actor_that_comes_back_after_a_loss_is_not_held_to_it(rig: Rig) -> None:
    rig.store.away = True
    rig.give(JOURNAL[:3])
    await eventually(lambda: bool(rig.link.sent))
    rig.desk.link_lost(rig.link)
    other = StubLink()
    rig.give([entry(CallStarted("openai", "A"), 1, "s2")], other)
    rig.store.away = False
    await eventually(lambda: other.sent[-1:] == [JournalLost("s2", "a", room=True)])
    # It never heard of the loss, and so it sends all of it again.
    rig.give(JOURNAL[:4], other)
    await eventually(lambda: JournalAcknowledged("s1", "a", 4, durable=True) in other.sent)


async def test_a_gateway_that_is_new_learns_the_state_of_a_call_from_its_owner(rig: Rig) -> None:
    state = replay("s1", JOURNAL[:3])
    data = state.to_json() + b" " * 70_000
    pieces = list(state_parcels(data))
    rig.desk.take_state(rig.link, StateParcel("s1", *pieces[0]))
    # The same from an actor that dies before it has told all.
    lost = StubLink()
    rig.desk.take_state(lost, StateParcel("s1", *pieces[0]))
    rig.desk.link_lost(lost)
    assert rig.desk.copies.state("s1") is None
    for piece in pieces[1:]:
        rig.desk.take_state(rig.link, StateParcel("s1", *piece))
    assert rig.desk.copies.state("s1") == state
    rig.give(JOURNAL[:4])
    known = rig.desk.copies.state("s1")
    assert known is not None
    assert known.last_seq == 4
    rig.desk.take_state(rig.link, StateParcel("s2", b"no state"))
    assert rig.desk.copies.state("s2") is None
    await eventually(lambda: bool(rig.link.sent))
