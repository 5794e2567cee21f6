"""The writer over real files and a store that fails on demand: the loop never waits, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from orchestrator.errors import JournalUnavailableError
from orchestrator.journal.commit import CommitLimits, CommitState
from orchestrator.journal.entries import AgentChanged, Entry, Snapshot
from orchestrator.journal.heads import Verdict
from orchestrator.journal.spool import SpoolFile
from orchestrator.journal.state import replay
from orchestrator.journal.stores import MemoryStore
from orchestrator.journal.writer import JournalWriter
from tests.journal.writing import CALL, entries, entry
from tests.waiting import until

JOURNAL = entries(*CALL)
LIMITS = CommitLimits(first_pause=0.01, longest_pause=0.02)


class Listener:
    def __init__(self) -> None:
        self.durable = 0
        self.kept = 0
        self.refused: list[Verdict] = []
        self.lost: list[Entry] = []
        self.resumed: list[str] = []
        self._heard = asyncio.Event()

    def on_acknowledged(self, session_id: str, writer: str, seq: int, *, durable: bool) -> None:
        del session_id, writer
        if durable:
            self.durable = max(seq, self.durable)
        self.kept = max(seq, self.kept)
        self._heard.set()

    def on_refused(self, session_id: str, writer: str, verdict: Verdict) -> None:
        del session_id, writer
        self.refused.append(verdict)
        self._heard.set()

    def on_lost(self, entries: Sequence[Entry]) -> None:
        self.lost += entries
        self._heard.set()

    def on_resumed(self, session_id: str, writer: str) -> None:
        del writer
        self.resumed.append(session_id)
        self._heard.set()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something that the writer tells makes the condition true."""
        while not condition():
            self._heard.clear()
            await self._heard.wait()

    async def has(self, seq: int) -> None:
        """Wait until everything up to `seq` is kept somewhere."""
        await self.until(lambda: self.kept >= seq)


class FlakyStore(MemoryStore):
    """A store that can be away, and that can be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.batches = 0

    def append(self, entries: Sequence[Entry]) -> list[Verdict]:
        self.may_go_on.wait()
        if self.away:
            raise JournalUnavailableError("away")
        self.batches += 1
        return super().append(entries)


@asynccontextmanager
async def writing(store: FlakyStore, spool: SpoolFile | None) -> AsyncIterator[tuple[JournalWriter, Listener]]:
    listener = Listener()
    writer = JournalWriter(store, spool, listener, LIMITS)
    yield writer, listener
    store.may_go_on.set()
    await writer.aclose()


async def caught_up(writer: JournalWriter) -> None:
    async def done() -> bool:
        return writer.state is CommitState.STORE and not writer.spooled

    await until(done)


async def test_entries_that_come_while_the_store_works_share_its_next_transaction() -> None:
    store = FlakyStore()
    async with writing(store, None) as (writer, listener):
        store.may_go_on.clear()
        for one in JOURNAL:
            writer.submit([one])
        assert writer.waiting == len(JOURNAL)
        store.may_go_on.set()
        await listener.has(len(JOURNAL))
        assert listener.durable == len(JOURNAL)
        assert store.batches == 2
        assert store.read("s1") == JOURNAL


async def test_a_store_that_goes_away_costs_nothing_and_catches_up_in_order(tmp_path: Path) -> None:
    store = FlakyStore()
    async with writing(store, SpoolFile(tmp_path / "spool", 1 << 20)) as (writer, listener):
        writer.submit(JOURNAL[:3])
        await listener.has(3)
        store.away = True
        for one in JOURNAL[3:10]:
            writer.submit([one])
        await listener.has(10)
        assert (listener.durable, writer.spooled) == (3, 7)
        store.away = False
        for one in JOURNAL[10:]:
            writer.submit([one])
        await listener.has(len(JOURNAL))
        await caught_up(writer)
        assert store.read("s1") == JOURNAL
        assert not listener.lost
        assert not listener.refused


async def test_a_gateway_that_dies_while_the_store_is_away_leaves_all_to_its_successor(tmp_path: Path) -> None:
    store = FlakyStore()
    store.away = True
    async with writing(store, SpoolFile(tmp_path / "spool", 1 << 20)) as (writer, listener):
        writer.submit(JOURNAL)
        await listener.has(len(JOURNAL))
    store.away = False
    async with writing(store, SpoolFile(tmp_path / "spool", 1 << 20)) as (writer, listener):
        await caught_up(writer)
        assert store.read("s1") == JOURNAL


async def test_a_full_spool_is_told_and_mended_by_a_snapshot(tmp_path: Path) -> None:
    store = FlakyStore()
    store.away = True
    async with writing(store, SpoolFile(tmp_path / "spool", 600)) as (writer, listener):
        for one in JOURNAL[:12]:
            writer.submit([one])
            await listener.until(lambda: listener.kept + len(listener.lost) >= one.seq)  # noqa: B023 - asked at once
        assert listener.lost
        store.away = False
        await listener.until(lambda: listener.resumed)
        whole = replay("s1", JOURNAL[:12])
        snapshot = entry(Snapshot(msgspec.Raw(whole.to_json())), 13)
        writer.submit([snapshot])
        await listener.has(13)
        rebuilt = replay("s1", store.read("s1"))
        assert rebuilt.history == whole.history
        assert rebuilt.agent == whole.agent


async def test_a_stale_writer_is_stopped() -> None:
    store = FlakyStore()
    async with writing(store, None) as (writer, listener):
        writer.submit(JOURNAL)
        await listener.has(len(JOURNAL))
        writer.submit([entry(AgentChanged("late"), 20)])
        await listener.until(lambda: listener.refused)
        assert listener.refused == [Verdict.STALE]


async def test_a_fault_of_the_store_that_nobody_knows_is_survived() -> None:
    class BrokenStore(FlakyStore):
        def append(self, entries: Sequence[Entry]) -> list[Verdict]:
            if self.away:
                raise ZeroDivisionError
            return super().append(entries)

    store = BrokenStore()
    store.away = True
    async with writing(store, None) as (writer, listener):
        writer.submit(JOURNAL[:1])
        await listener.until(lambda: listener.lost)
        assert listener.lost == JOURNAL[:1]


async def test_settling_has_a_limit() -> None:
    store = FlakyStore()
    async with writing(store, None) as (writer, listener):
        store.may_go_on.clear()
        writer.submit(JOURNAL)
        assert not await writer.settle(0.01)
        store.may_go_on.set()
        assert await writer.settle(60.0)
        assert listener.durable == len(JOURNAL)


async def test_a_store_that_hangs_is_interrupted_and_the_spool_takes_over(tmp_path: Path) -> None:
    class HangingStore(FlakyStore):
        def append(self, entries: Sequence[Entry]) -> list[Verdict]:
            self.may_go_on.wait()
            if self.away:
                raise JournalUnavailableError("cut")
            return super().append(entries)

        def interrupt(self) -> None:
            self.away = True
            self.may_go_on.set()

    store = HangingStore()
    store.may_go_on.clear()
    listener = Listener()
    writer = JournalWriter(store, SpoolFile(tmp_path / "spool", 1 << 20), listener, LIMITS, store_timeout=0.01)
    writer.submit(JOURNAL)
    await listener.has(len(JOURNAL))
    assert listener.durable == 0
    store.away = False
    await caught_up(writer)
    assert store.read("s1") == JOURNAL
    await writer.aclose()


async def test_a_store_that_has_never_heard_of_a_call_is_told_of_it_by_a_snapshot() -> None:
    store = FlakyStore()
    async with writing(store, None) as (writer, listener):
        writer.submit(JOURNAL[4:6])
        await listener.until(lambda: listener.resumed)
        assert listener.refused == []
        assert listener.lost == JOURNAL[4:6]
        writer.submit([entry(Snapshot(msgspec.Raw(replay("s1", JOURNAL[:6]).to_json())), 7)])
        await listener.has(7)
        assert replay("s1", store.read("s1")).history == replay("s1", JOURNAL[:6]).history
