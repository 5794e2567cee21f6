"""The end of a call that nobody serves: written by whoever finds that out, and never for a call that somebody else has.

Pure. The two entries are one batch: it takes the call over, which fences off whoever may still believe to own it, and ends it.
A store that refuses them says that the call has an owner after all.
"""

from __future__ import annotations

from orchestrator.errors import EndReason
from orchestrator.journal.entries import Body, CallEnded, Entry, TakenOver, encode_body
from orchestrator.journal.heads import Head

__all__ = ["closing_entries"]


def closing_entries(head: Head, writer: str, node: str, reason: EndReason, now: float) -> list[Entry]:
    """Return the entries that end a call whose journal ends with `head`, at `now` (Unix seconds).

    `writer` names this attempt, and nobody else ever: a writer that was refused once stays so. Give the same entries again
    where it is not known what became of them.
    """
    bodies: tuple[Body, ...] = (TakenOver(reason.code, node, head.writer), CallEnded(reason))
    made: list[Entry] = []
    for seq, body in enumerate(bodies, head.last_seq + 1):
        kind, data = encode_body(body)
        made.append(Entry(head.session_id, seq, head.epoch + 1, writer, now, kind, data))
    return made
