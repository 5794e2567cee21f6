"""A call rebuilt from its journal, and the proof that the journal tells it rightly.

Pure. A store refuses what is not legal when it is written; here the same rules are asked again of what is there, which also
finds what was lost or changed afterwards. Nothing that was said in a call gets into a check's words.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

import msgspec

from orchestrator.core.items import RealtimeItem
from orchestrator.errors import JournalFormatError
from orchestrator.journal.entries import CallEnded, Entry, UnknownBody, decode_body
from orchestrator.journal.heads import SNAPSHOT, Head, Verdict, head_after, judge
from orchestrator.journal.items import history_digest
from orchestrator.journal.state import CallState

__all__ = ["Audit", "Check", "Finding", "audit", "rebuild"]


class Finding(enum.Enum):
    """What a check found."""

    HOLDS = "holds"
    BROKEN = "broken"
    # The call is over, and whoever ended it left nothing to compare with.
    NOT_RECORDED = "not_recorded"
    # The call goes on: what is to be compared is only written at its end.
    NOT_DUE = "not_due"


class Check(msgspec.Struct, frozen=True):
    """One check of a journal. `name` is stable, `detail` is for people."""

    name: str
    finding: Finding
    detail: str


class Audit(msgspec.Struct, frozen=True):
    """All checks of one call's journal."""

    session_id: str
    entries: int
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether everything holds that can be asked of the call so far."""
        return all(check.finding in (Finding.HOLDS, Finding.NOT_DUE) for check in self.checks)


def audit(session_id: str, head: Head, entries: Sequence[Entry]) -> Audit:
    """Check a call's journal: the head that its store has for it, and all its entries, read after the head.

    Checks: "contiguous" (no entry is missing, except before a snapshot), "owners" (each was written by who owned the call),
    "head" (they end where the store says), "readable" (they can be replayed), "history" (they lead to the history that the
    last owner had when it ended the call).
    """
    # A call that goes on may have been written to since its head was read.
    entries = [entry for entry in entries if entry.seq <= head.last_seq]
    checks = (_contiguous(entries), _owners(entries), _head(head, entries), *_replayed(session_id, entries))
    return Audit(session_id, len(entries), checks)


def rebuild(session_id: str, entries: Iterable[Entry]) -> tuple[CallState, list[RealtimeItem]]:
    """Return a call's state and history. Raises JournalFormatError, naming the entry, where they make no sense."""
    state = CallState(session_id=session_id)
    where = ""
    try:
        for entry in entries:
            where = f"entry {entry.seq} ({entry.kind})"
            state.apply(entry)
        where = "an item of the history"
        return state, state.history
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
        # A body of the right form with a record in it that is none.
        text = f"{where} of session {session_id} cannot be read: it makes no sense ({type(error).__name__})"
        raise JournalFormatError(text) from None


def _contiguous(entries: Sequence[Entry]) -> Check:
    last, mended = 0, 0
    for entry in entries:
        if entry.seq != last + 1:
            if entry.kind != SNAPSHOT:
                first_missing, last_missing = last + 1, entry.seq - 1
                missing = f"entries {first_missing} to {last_missing} are missing"
                if first_missing == last_missing:
                    missing = f"entry {first_missing} is missing"
                return Check("contiguous", Finding.BROKEN, missing)
            mended += 1
        last = entry.seq
    detail = _counted(len(entries), "entry", "entries")
    if mended:
        detail += f", {_counted(mended, 'gap', 'gaps')} before a snapshot that tells everything again"
    return Check("contiguous", Finding.HOLDS, detail)


def _owners(entries: Sequence[Entry]) -> Check:
    head: Head | None = None
    epochs = set[int]()
    for entry in entries:
        verdict = judge(head, entry)
        if verdict is not Verdict.WRITE:
            place = f"entry {entry.seq} ({entry.kind}, epoch {entry.epoch}, by {entry.writer})"
            after = "" if head is None else f" after epoch {head.epoch} by {head.writer}"
            return Check("owners", Finding.BROKEN, f"{place} is not to be written{after}: {verdict.value}")
        head = head_after(entry)
        epochs.add(entry.epoch)
    detail = f"{len(epochs)} owners, one after the other" if len(epochs) > 1 else "one owner"
    return Check("owners", Finding.HOLDS, detail)


def _head(head: Head, entries: Sequence[Entry]) -> Check:
    found = head_after(entries[-1]) if entries else None
    if found == head:
        return Check("head", Finding.HOLDS, f"the store and entry {head.last_seq} agree")
    there = "there are no entries" if found is None else f"the entries end with {_described(found)}"
    return Check("head", Finding.BROKEN, f"{there}, the store says {_described(head)}")


def _described(head: Head) -> str:
    return f"{head.last_seq} in epoch {head.epoch} by {head.writer}, {'ended' if head.ended else 'open'}"


def _replayed(session_id: str, entries: Sequence[Entry]) -> tuple[Check, Check]:
    try:
        _, history = rebuild(session_id, entries)
        bodies = [decode_body(entry) for entry in entries]
    except JournalFormatError as error:
        return (
            Check("readable", Finding.BROKEN, error.message),
            Check("history", Finding.BROKEN, "there is no history to compare"),
        )
    unknown = sum(isinstance(body, UnknownBody) for body in bodies)
    detail = "every entry was understood"
    if unknown:
        detail = f"{_counted(unknown, 'entry', 'entries')} of kinds that this version does not know, passed over"
    return Check("readable", Finding.HOLDS, detail), _history(bodies[-1] if bodies else None, history)


def _history(last: object, history: Sequence[RealtimeItem]) -> Check:
    if not isinstance(last, CallEnded):
        return Check("history", Finding.NOT_DUE, "the call goes on; its owner tells its history's digest at the end")
    if not last.digest:
        return Check("history", Finding.NOT_RECORDED, "whoever ended the call told no digest of its history")
    found = history_digest(history)
    if found == last.digest:
        return Check("history", Finding.HOLDS, f"{_counted(len(history), 'item', 'items')}, as the last owner had them")
    detail = f"{_counted(len(history), 'item', 'items')} with digest {found[:12]}, the last owner had {last.digest[:12]}"
    return Check("history", Finding.BROKEN, detail)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
