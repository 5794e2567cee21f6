"""A store in memory, for tests and for a node that needs no past."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.journal.entries import CallEnded, CallStarted, Entry, Snapshot, decode_body
from orchestrator.journal.heads import Head, Verdict
from orchestrator.journal.stores.base import PRUNED_AT_ONCE, SessionRow, judge_batch

__all__ = ["MemoryStore", "row_after"]


class MemoryStore:
    """Journals in dictionaries."""

    def __init__(self) -> None:
        self._entries: dict[str, list[Entry]] = {}
        self._heads: dict[str, Head] = {}
        self._rows: dict[str, SessionRow] = {}

    def append(self, entries: Sequence[Entry]) -> list[Verdict]:
        """See `JournalStore.append`."""
        verdicts = judge_batch(self._heads, entries)
        for entry, verdict in zip(entries, verdicts, strict=True):
            if verdict is Verdict.WRITE:
                self._entries.setdefault(entry.session_id, []).append(entry)
                self._rows[entry.session_id] = row_after(self._rows.get(entry.session_id), entry)
        return verdicts

    def read(self, session_id: str, after_seq: int = 0) -> list[Entry]:
        """See `JournalStore.read`."""
        return [entry for entry in self._entries.get(session_id, ()) if entry.seq > after_seq]

    def head(self, session_id: str) -> Head | None:
        """See `JournalStore.head`."""
        return self._heads.get(session_id)

    def sessions(self, *, open_only: bool = True, limit: int = 1000) -> list[SessionRow]:
        """See `JournalStore.sessions`."""
        rows = [row for row in self._rows.values() if not (open_only and row.ended)]
        rows.sort(key=lambda row: (row.started_at, row.session_id), reverse=True)
        return rows[:limit]

    def prune(self, before: float, *, limit: int = PRUNED_AT_ONCE) -> int:
        """See `JournalStore.prune`."""
        old = [row.session_id for row in self._rows.values() if row.ended and row.written_at < before][:limit]
        for session_id in old:
            del self._entries[session_id], self._heads[session_id], self._rows[session_id]
        return len(old)

    def interrupt(self) -> None:
        """See `JournalStore.interrupt`."""

    def close(self) -> None:
        """See `JournalStore.close`."""


class _Beginning(msgspec.Struct):
    """What a list shows of a snapshot's state."""

    channel: str = ""
    started_at: float = 0.0


def row_after(row: SessionRow | None, entry: Entry) -> SessionRow:
    """Return a call's row after an entry was written."""
    body = decode_body(entry) if entry.kind in ("started", "ended", "snapshot") else None
    if row is None:
        channel, started_at = "", entry.time
        if isinstance(body, CallStarted):
            channel = body.channel
        elif isinstance(body, Snapshot):
            # The beginning was lost; the snapshot knows of it.
            told = msgspec.json.decode(body.state, type=_Beginning)
            channel, started_at = told.channel, told.started_at or entry.time
        row = SessionRow(
            session_id=entry.session_id,
            channel=channel,
            epoch=entry.epoch,
            writer=entry.writer,
            last_seq=entry.seq,
            started_at=started_at,
            written_at=entry.time,
            ended=False,
        )
    end_code = body.reason.code if isinstance(body, CallEnded) else None
    return msgspec.structs.replace(
        row,
        epoch=entry.epoch,
        writer=entry.writer,
        last_seq=entry.seq,
        written_at=entry.time,
        ended=end_code is not None,
        end_code=end_code,
    )
