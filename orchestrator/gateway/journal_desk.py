"""The gateway's desk for its actors' journals: parcels come in over the links, what became of them goes back the same way.

An acknowledgement goes to the link over which the entries came last; where that link is gone, nobody waits for it any more: the
actor either died, or sends everything open again over its next link.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from orchestrator.cluster.link_messages import (
    JournalAcknowledged,
    JournalEntries,
    JournalLost,
    JournalRefused,
    StateParcel,
)
from orchestrator.errors import EndReason, JournalFormatError
from orchestrator.gateway.links import ActorLink
from orchestrator.journal.copies import CallCopies
from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import ENDED, Verdict
from orchestrator.journal.parcels import Unpacker
from orchestrator.journal.state import CallState
from orchestrator.journal.writer import JournalListener, JournalWriter
from orchestrator.telemetry import names
from orchestrator.telemetry.logs import get_logger
from orchestrator.telemetry.metrics import Metrics

__all__ = ["JournalDesk"]

# Bytes of one call's state: more is a mistake.
MOST_STATE = 64 * 1024 * 1024

_log = get_logger()


class JournalDesk:
    """Takes entries from links and gives them to the node's writer; `open_writer` makes it, with this desk as its listener."""

    def __init__(self, open_writer: Callable[[JournalListener], JournalWriter], metrics: Metrics) -> None:
        self._metrics = metrics
        self._unpackers: dict[ActorLink, Unpacker] = {}
        # Parts of states that came so far.
        self._states: dict[tuple[ActorLink, str], bytearray] = {}
        # The link of each writer whose call goes on, by session and writer.
        self._links: dict[tuple[str, str], ActorLink] = {}
        # The last entry of calls that are over, until it is written.
        self._ends: dict[tuple[str, str], int] = {}
        # What a call's next owner is given.
        self.copies = CallCopies()
        self._writer = open_writer(self)

    def take(self, link: ActorLink, message: JournalEntries) -> None:
        """Take a parcel. A link whose parcels make no sense is closed: its actor starts anew on the next one."""
        try:
            entries = self._unpackers.setdefault(link, Unpacker()).take(message.data, more=message.more)
        except JournalFormatError as error:
            _log.error("journal_parcel_refused", detail=error.message)
            link.close(EndReason("journal_format", error.message, error.code, "peer"))
            return
        for entry in entries:
            self._links[entry.session_id, entry.writer] = link
            if entry.kind == ENDED:
                self._ends[entry.session_id, entry.writer] = entry.seq
        if entries:
            self._metrics.inc(names.JOURNAL_ENTRIES_TOTAL, len(entries))
            self.copies.take(entries)
            self._writer.submit(entries)

    def take_state(self, link: ActorLink, message: StateParcel) -> None:
        """Take a part of a state, which a call's owner sends to a gateway that is new."""
        parts = self._states.setdefault((link, message.session_id), bytearray())
        parts += message.data
        if message.more and len(parts) <= MOST_STATE:
            return
        del self._states[link, message.session_id]
        try:
            self.copies.adopt(msgspec.json.decode(parts, type=CallState))
        except msgspec.MsgspecError as error:
            _log.error("state_refused", session_id=message.session_id, error=type(error).__name__)

    def link_lost(self, link: ActorLink) -> None:
        """The link is gone. What came over it is written; its half parcel is not."""
        self._unpackers.pop(link, None)
        for key in [key for key in self._states if key[0] is link]:
            del self._states[key]
        for writer in [writer for writer, known in self._links.items() if known is link]:
            del self._links[writer]
            self._ends.pop(writer, None)
            # Whoever comes back sends everything open, or a snapshot. The call may have another owner by now.
            self._writer.forget(*writer)

    def refresh_gauges(self) -> None:
        """Bring the journal's gauges up to date."""
        self._metrics.set(names.JOURNAL_WAITING, self._writer.waiting)
        self._metrics.set(names.JOURNAL_SPOOLED, self._writer.spooled)

    async def aclose(self) -> None:
        """Write what came, then stop. Idempotent."""
        await self._writer.aclose()

    # What the writer tells: JournalListener.

    def on_acknowledged(self, session_id: str, writer: str, seq: int, *, durable: bool) -> None:
        """Tell the owner that its entries are kept."""
        link = self._links.get((session_id, writer))
        if link is not None:
            link.send(JournalAcknowledged(session_id, writer, seq, durable))
        if seq >= self._ends.get((session_id, writer), seq + 1):
            del self._ends[session_id, writer]
            self._links.pop((session_id, writer), None)
            self._writer.forget(session_id)

    def on_refused(self, session_id: str, writer: str, verdict: Verdict) -> None:
        """Stop an owner that is none any more."""
        self._metrics.inc(names.JOURNAL_REFUSED_TOTAL, reason=verdict.value)
        _log.error("journal_writer_refused", session_id=session_id, writer=writer, verdict=verdict.value)
        link = self._links.get((session_id, writer))
        if link is not None:
            link.send(JournalRefused(session_id, writer, verdict.value))

    def on_lost(self, entries: Sequence[Entry]) -> None:
        """Tell the owners that their calls go on without a net."""
        self.copies.lost(entries)
        self._metrics.inc(names.JOURNAL_LOST_TOTAL, len(entries))
        for session_id, writer in dict.fromkeys((entry.session_id, entry.writer) for entry in entries):
            self._tell_lost(session_id, writer, room=False)

    def on_resumed(self, session_id: str, writer: str) -> None:
        """Ask an owner for the snapshot that mends its journal."""
        self._tell_lost(session_id, writer, room=True)

    def _tell_lost(self, session_id: str, writer: str, *, room: bool) -> None:
        link = self._links.get((session_id, writer))
        if link is not None:
            link.send(JournalLost(session_id, writer, room))
        elif room:
            self._writer.forget(session_id, writer)
