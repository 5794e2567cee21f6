"""Calls read back from the journal, as `orchestrator replay` reads them."""

from __future__ import annotations

import re

import msgspec

from orchestrator.core.items import AssistantAudio, AssistantMessageItem, RealtimeItem, UserMessageItem
from orchestrator.errors import JournalFormatError
from orchestrator.journal.audit import Finding, audit, rebuild
from orchestrator.journal.entries import CallEnded, Entry, LegChanged, TakenOver, decode_body
from orchestrator.journal.stores import JournalStore
from tests.chaos.story import Said, Tale

__all__ = ["read_tales", "tale_of"]

_TURN = re.compile(r"turn (\d+)")
MOST_CALLS = 100_000


def read_tales(store: JournalStore) -> list[Tale]:
    """Read every call of a store."""
    tales = []
    for row in store.sessions(open_only=False, limit=MOST_CALLS):
        head = store.head(row.session_id)
        entries = store.read(row.session_id)
        if head is None:
            raise AssertionError(f"the store lists call {row.session_id} and does not know it")
        found = audit(row.session_id, head, entries)
        broken = [f"{check.name}: {check.detail}" for check in found.checks if check.finding is not Finding.HOLDS]
        tales.append(tale_of(row.session_id, entries, broken))
    return tales


def tale_of(session_id: str, entries: list[Entry], broken: list[str]) -> Tale:
    """Tell one call from its entries; `broken` is what is known to be wrong with them."""
    tale = Tale(session_id=session_id, reference=session_id, broken=broken)
    last = 0
    for entry in entries:
        tale.missing += entry.seq - last - 1
        last = entry.seq
        match decode_body(entry):
            case TakenOver():
                tale.taken_over.append(entry.time)
            case LegChanged(leg="model", state=state):
                (tale.model_live if state == "live" else tale.model_lost).append(entry.time)
            case CallEnded(reason=reason):
                tale.ended = reason.code
            case _:
                pass
    try:
        known, history = rebuild(session_id, entries)
    except JournalFormatError:
        return tale
    if known.channel == "twilio":
        tale.reference = str((msgspec.json.decode(known.context) or {}).get("call_sid", ""))
    tale.history = [said for item in history if (said := _said(item)) is not None]
    return tale


def _said(item: RealtimeItem) -> Said | None:
    match item:
        case UserMessageItem():
            words = " ".join(getattr(part, "text", None) or getattr(part, "transcript", None) or "" for part in item.content)
            return Said("user", _number(words))
        case AssistantMessageItem():
            words = " ".join(part.text or "" if part.type == "text" else part.transcript or "" for part in item.content)
            # What was cut at the caller's ear is not complete, whatever the model says of it.
            cut = any(isinstance(part, AssistantAudio) and part.heard_ms is not None for part in item.content)
            return Said("assistant", _number(words), complete=item.status == "completed" and not cut and bool(words))
        case _:
            return None


def _number(words: str) -> int:
    found = _TURN.search(words)
    return int(found[1]) if found else 0
