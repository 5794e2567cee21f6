"""What a store of journals does. Methods block; one thread at a time calls them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import Head, Verdict, head_after, judge

__all__ = ["PRUNED_AT_ONCE", "JournalStore", "SessionRow", "judge_batch"]

# Calls that one transaction deletes. It holds up whoever writes to SQLite, for about a millisecond a call.
PRUNED_AT_ONCE = 50


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """One call in a list: what its journal says at a glance. Times are Unix seconds."""

    session_id: str
    channel: str
    epoch: int
    writer: str
    last_seq: int
    started_at: float
    written_at: float
    ended: bool
    end_code: str | None = None


class JournalStore(Protocol):
    """Journals of many calls. Every method raises JournalUnavailableError where the store does not answer.

    `append` raises JournalContentError where the store answers and will never take the batch, for something that is in it.
    """

    def append(self, entries: Sequence[Entry]) -> list[Verdict]:
        """Write a batch in one transaction and say what became of each entry, in order.

        When it returns, what was written outlives a crash of the machine. When it raises, none or all of it was written: the
        same batch may be given again.
        """

    def read(self, session_id: str, after_seq: int = 0) -> list[Entry]:
        """Return a call's entries after `after_seq`, in order; none for a call that is not known."""

    def head(self, session_id: str) -> Head | None:
        """Return where a call's journal ends."""

    def sessions(self, *, open_only: bool = True, limit: int = 1000) -> list[SessionRow]:
        """List calls, the latest first."""

    def prune(self, before: float, *, limit: int = PRUNED_AT_ONCE) -> int:
        """Delete journals of calls that ended before this Unix time, so many at most; returns how many."""

    def interrupt(self) -> None:
        """Make an `append` that hangs raise. The one method that any thread may call, and that does not block."""

    def close(self) -> None:
        """Let go of the store. Idempotent."""


def judge_batch(heads: dict[str, Head], entries: Sequence[Entry]) -> list[Verdict]:
    """Judge entries in order and move the heads on; a writer that is stale stays so, one that left a gap may mend it."""
    verdicts: list[Verdict] = []
    stale: set[tuple[str, str]] = set()
    for entry in entries:
        writer = (entry.session_id, entry.writer)
        verdict = Verdict.STALE if writer in stale else judge(heads.get(entry.session_id), entry)
        if verdict is Verdict.WRITE:
            heads[entry.session_id] = head_after(entry)
        elif verdict is Verdict.STALE:
            stale.add(writer)
        verdicts.append(verdict)
    return verdicts
