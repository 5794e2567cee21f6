"""Who may write a call's next entry: the one rule that keeps a call from having two owners.

Pure. Every store asks it inside its own transaction, so the answer holds however many nodes write at once.
"""

from __future__ import annotations

import enum

import msgspec

from orchestrator.journal.entries import Entry

__all__ = ["ENDED", "SNAPSHOT", "Head", "Verdict", "head_after", "judge"]

TAKEN_OVER = "taken_over"
STARTED = "started"
ENDED = "ended"
SNAPSHOT = "snapshot"


class Head(msgspec.Struct, frozen=True):
    """Where the journal of one call ends."""

    session_id: str
    epoch: int
    writer: str
    last_seq: int
    ended: bool = False


class _Claim(msgspec.Struct):
    """What the rule reads of a body. The member keeps its name and meaning in all formats."""

    after: str = ""


_claim_decoder = msgspec.json.Decoder(_Claim)


class Verdict(enum.Enum):
    """What becomes of an entry that is to be written."""

    WRITE = "write"
    # It is there already: written before, and only the word of it was lost.
    KNOWN = "known"
    # Its writer does not own the call any more, and must stop.
    STALE = "stale"
    # An entry before it is missing: its writer is asked for a snapshot.
    GAP = "gap"


def judge(head: Head | None, entry: Entry) -> Verdict:
    """Decide about an entry. `head` is None where the journal knows no such call."""
    if head is None:
        # An entry from the middle of a call that nobody has heard of: its beginning is still on the way.
        return Verdict.WRITE if entry.kind == SNAPSHOT or (entry.kind == STARTED and entry.seq == 1) else Verdict.GAP
    if (entry.epoch, entry.writer) == (head.epoch, head.writer):
        if entry.seq <= head.last_seq:
            return Verdict.KNOWN
        if head.ended:
            return Verdict.STALE
        # A snapshot tells everything again, so it may follow a hole.
        return Verdict.WRITE if entry.kind == SNAPSHOT or entry.seq == head.last_seq + 1 else Verdict.GAP
    if head.ended or entry.epoch <= head.epoch:
        return Verdict.STALE
    return _judge_claim(head, entry)


def _judge_claim(head: Head, entry: Entry) -> Verdict:
    """Judge an entry of an epoch that has not begun here."""
    if entry.kind not in (TAKEN_OVER, SNAPSHOT):
        # The one that begins it is missing. That is no proof of another owner: its writer is heard.
        return Verdict.GAP
    after = _predecessor(entry)
    # Whoever followed somebody else in the epoch that is the present one here speaks for another conversation.
    follows = entry.epoch == head.epoch + 1 and (after == head.writer or (not after and entry.kind == TAKEN_OVER))
    # A claim also has to know all that its predecessor wrote, or it would speak for a conversation that went on without it.
    if not follows or entry.seq <= head.last_seq:
        return Verdict.STALE
    if entry.kind == SNAPSHOT or entry.seq == head.last_seq + 1:
        return Verdict.WRITE
    # It knows more than is here. Only a snapshot can tell what is missing.
    return Verdict.GAP if after else Verdict.STALE


def _predecessor(entry: Entry) -> str:
    """Return whose entries this one says to follow. The rule must not fail for an entry's other contents or its format."""
    try:
        return _claim_decoder.decode(entry.body).after
    except msgspec.MsgspecError:
        return ""


def head_after(entry: Entry) -> Head:
    """Return the head after an entry that was judged WRITE."""
    return Head(entry.session_id, entry.epoch, entry.writer, entry.seq, ended=entry.kind == ENDED)
