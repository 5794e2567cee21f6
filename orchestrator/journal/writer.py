"""The journal of one node at work: the group commit on a loop, and one thread that waits for store and disk.

The loop never waits. One operation is with the thread at a time, so entries reach the store in the order in which they came.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, assert_never

from orchestrator.errors import JournalContentError, JournalUnavailableError
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
from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import Verdict
from orchestrator.journal.spool import SpoolFile
from orchestrator.journal.stores.base import JournalStore
from orchestrator.telemetry.logs import get_logger

__all__ = ["JournalListener", "JournalWriter"]

# Longer than a statement may take by the store's own clock: this is for a store that does not even say no.
STORE_TIMEOUT = 15.0
# Calls that a log entry names.
MOST_NAMED = 10

_log = get_logger()


class JournalListener(Protocol):
    """Hears what became of entries. Called on the loop; must return at once."""

    def on_acknowledged(self, session_id: str, writer: str, seq: int, *, durable: bool) -> None:
        """All entries of this writer up to `seq` are kept: in the store if `durable`, else on this node's disk."""

    def on_refused(self, session_id: str, writer: str, verdict: Verdict) -> None:
        """The writer does not own the call any more: it must stop."""

    def on_lost(self, entries: Sequence[Entry]) -> None:
        """Nothing could take these entries, or the store lacks what comes before them.

        Their calls go on without a net until `on_resumed`.
        """

    def on_resumed(self, session_id: str, writer: str) -> None:
        """There is room again for a call that lost entries: its writer goes on with a snapshot."""


class JournalWriter:
    """Writes entries until it is closed. Belongs to one loop; owns the spool and its thread, but not the store.

    Without a spool, entries that the store does not take are given up. A store that has not answered after `store_timeout`
    seconds is interrupted.
    """

    def __init__(
        self,
        store: JournalStore,
        spool: SpoolFile | None,
        listener: JournalListener,
        limits: CommitLimits | None = None,
        *,
        store_timeout: float = STORE_TIMEOUT,
    ) -> None:
        self._store = store
        self._spool = spool
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._machine = GroupCommit(limits, spooled=0 if spool is None else None)
        self._thread = ThreadPoolExecutor(1, "journal")
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._settled = asyncio.Event()
        self._store_timeout = store_timeout
        if spool is None:
            self._advance(self._machine.start)
        else:
            # It may hold a day's entries: callers are not kept waiting while they are counted.
            self._work(lambda: spool.entries, self._machine.opened, partial(self._machine.opened, 0))

    @property
    def state(self) -> CommitState:
        """Where entries go at present."""
        return self._machine.state

    @property
    def waiting(self) -> int:
        """Entries that are in neither store nor spool: the journal's lag."""
        return self._machine.waiting

    @property
    def spooled(self) -> int:
        """Entries that are on this node's disk only."""
        return self._machine.spooled

    def submit(self, entries: Sequence[Entry]) -> None:
        """Take entries, in order. What became of them is told to the listener."""
        self._perform(self._machine.submit(entries, self._loop.time()))

    def forget(self, session_id: str, writer: str | None = None) -> None:
        """The call is over, or this one of its writers is gone: nothing needs to be remembered of it."""
        self._machine.forget(session_id, writer)

    async def settle(self, timeout: float) -> bool:
        """Wait until every entry is in the store or on disk, `timeout` seconds at most; tells whether all are.

        Cancelling it changes nothing.
        """
        try:
            async with asyncio.timeout(timeout):
                while self._machine.waiting:
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            return False
        return True

    async def aclose(self, timeout: float = 5.0) -> None:
        """Settle, then stop; the operation under way is waited for, since it cannot be called off. Idempotent."""
        if self._closed:
            return
        if not await self.settle(timeout):
            _log.error("journal_unwritten", entries=self._machine.waiting)
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(self._thread.shutdown)
        if self._spool is not None:
            self._spool.close()

    def _advance(self, signal: Callable[[float], list[CommitCommand]]) -> None:
        if self._closed:
            return
        state = self._machine.state
        self._perform(signal(self._loop.time()))
        if self._machine.state is not state:
            _log.warning("journal_state", state=self._machine.state.value, spooled=self._machine.spooled)
        self._set_timer()
        self._settled.set()

    def _perform(self, commands: Sequence[CommitCommand]) -> None:
        for command in commands:
            match command:
                case Write(entries):
                    append = self._work(
                        partial(self._store.append, entries),
                        self._machine.written,
                        self._machine.failed,
                        self._machine.refused,
                    )
                    # A server that is frozen, or behind a network that drops everything, would hold the thread for ever.
                    limit = self._loop.call_later(self._store_timeout, self._store.interrupt)
                    append.add_done_callback(partial(_cancel, limit))
                case Spool(entries):
                    self._work(partial(self._keep, entries), lambda _, now: self._machine.kept(now), self._machine.spool_full)
                case ReadSpool(most):
                    self._work(partial(self._read_spool, most), self._machine.read, self._machine.failed)
                case Confirm(count):
                    if self._spool is not None:
                        self._thread.submit(self._spool.confirm, count)
                case Acknowledge(session_id, writer, seq, durable):
                    self._listener.on_acknowledged(session_id, writer, seq, durable=durable)
                case Refuse(session_id, writer, verdict):
                    self._listener.on_refused(session_id, writer, verdict)
                case Lose(entries):
                    calls = sorted({entry.session_id for entry in entries})
                    _log.error("journal_entries_lost", entries=len(entries), calls=len(calls), first=calls[:MOST_NAMED])
                    self._listener.on_lost(entries)
                case Resume(session_id, writer):
                    self._listener.on_resumed(session_id, writer)
                case _:
                    assert_never(command)

    def _work(
        self,
        operation: Callable[[], Any],
        done: Callable[[Any, float], list[CommitCommand]],
        failed: Callable[[float], list[CommitCommand]],
        refused: Callable[[float], list[CommitCommand]] | None = None,
    ) -> asyncio.Future[Any]:
        """Have the thread do something, and tell the machine what came of it."""

        def tell(future: asyncio.Future[Any]) -> None:
            error = future.exception()
            if error is None:
                self._advance(partial(done, future.result()))
                return
            text = error.message if isinstance(error, JournalUnavailableError | JournalContentError) else None
            _log.error("journal_failed", error=type(error).__name__, text=text)
            self._advance(refused if refused is not None and isinstance(error, JournalContentError) else failed)

        future = self._loop.run_in_executor(self._thread, operation)
        future.add_done_callback(tell)
        return future

    def _keep(self, entries: Sequence[Entry]) -> None:
        if self._spool is None:
            raise JournalUnavailableError("the journal's store does not answer, and there is no spool")
        self._spool.append(entries)

    def _read_spool(self, most: int) -> list[Entry]:
        found = [] if self._spool is None else self._spool.read(most)
        if not found:
            _log.error("journal_spool_damaged")
        return found

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._machine.due is not None:
            self._timer = self._loop.call_at(self._machine.due, lambda: self._advance(self._machine.tick))


def _cancel(timer: asyncio.TimerHandle, _: object) -> None:
    timer.cancel()
