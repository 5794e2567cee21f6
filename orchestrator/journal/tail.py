"""A call's journal as its owner has it: what it wrote, what is not acknowledged yet, and the state that all of it leads to.

Pure. The owner keeps every entry until it is acknowledged, so that a gateway that dies between loses none: the next one is
given all that is open. An owner that was refused writes no more, and must end its call's work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from orchestrator.journal.entries import Body, Entry, Snapshot, TakenOver, encode_body
from orchestrator.journal.state import CallState

__all__ = ["JournalTail"]

# Bytes of entries that wait for their acknowledgement. A call writes a few hundred bytes a second.
MOST_OPEN = 4 * 1024 * 1024
# Bytes of one entry: more than the way to the gateway takes at once is not sent.
LARGEST = 24 * 1024 * 1024


class JournalTail:
    """The tail of one call's journal.

    `state` is what earlier owners wrote; without one the call is new. `writer` names this owner, and no other ever.
    """

    def __init__(
        self, session_id: str, writer: str, *, epoch: int = 1, state: CallState | None = None, most_open: int = MOST_OPEN
    ) -> None:
        self.session_id = session_id
        self.writer = writer
        self.epoch = epoch
        self.state = state or CallState(session_id=session_id)
        # Whose entries this owner's follow.
        self._after = self.state.writer
        self._most_open = most_open
        self._open: deque[Entry] = deque()
        self._open_bytes = 0
        self._kept_seq = self._sent_seq = self.state.last_seq
        # Entries were given up, here or on the way: only a snapshot may follow.
        self._torn = False
        self.refused = False

    @property
    def open(self) -> Sequence[Entry]:
        """The entries that are not acknowledged, oldest first: what a new gateway must be given."""
        return tuple(self._open)

    @property
    def open_bytes(self) -> int:
        """Bytes of the bodies of all open entries."""
        return self._open_bytes

    @property
    def kept_seq(self) -> int:
        """All entries up to this one outlive this process."""
        return self._kept_seq

    @property
    def torn(self) -> bool:
        """Whether nothing can be sent before a snapshot is."""
        return self._torn

    @property
    def way_is_free(self) -> bool:
        """Whether all that was sent has arrived, so that a torn tail may `resume` without being asked."""
        return self._kept_seq >= self._sent_seq

    def take_over(self, cause: str, node: str, now: float) -> Entry | None:
        """Write that the call is this owner's from here on: first of all, and once, where there was another before."""
        return self.write(TakenOver(cause, node, self._after), now)

    def write(self, body: Body, now: float) -> Entry | None:
        """Write a fact at `now` (Unix seconds) and return the entry to send; None where nothing can be sent at present."""
        entry = self._entry(body, now)
        self.state.take(body, entry)
        if self.refused or self._torn:
            return None
        if self._open_bytes > self._most_open or len(entry.body) > LARGEST:
            self._tear()
            return None
        self._add(entry)
        return entry

    def acknowledged(self, seq: int) -> None:
        """All entries up to `seq` are kept."""
        while self._open and self._open[0].seq <= seq:
            self._open_bytes -= len(self._open.popleft().body)
        self._kept_seq = max(seq, self._kept_seq)

    def lost(self) -> None:
        """Entries of this call were given up on their way. `resume` mends it."""
        self._tear()

    def resume(self, now: float) -> Entry | None:
        """There is room again: return the snapshot that stands for all before it.

        None where none is wanted, or where it is too large to be sent.
        """
        if self.refused or not self._torn:
            return None
        # Should the claim itself be among what was lost, this stands for it.
        entry = self._entry(Snapshot(msgspec.Raw(self.state.to_json()), self._after), now)
        if len(entry.body) > LARGEST:
            return None
        self._torn = False
        self.state.last_seq = entry.seq
        self._add(entry)
        return entry

    def _entry(self, body: Body, now: float) -> Entry:
        kind, data = encode_body(body)
        return Entry(self.session_id, self.state.last_seq + 1, self.epoch, self.writer, now, kind, data)

    def _add(self, entry: Entry) -> None:
        self._open.append(entry)
        self._open_bytes += len(entry.body)
        self._sent_seq = entry.seq

    def _tear(self) -> None:
        self._torn = True
        self._open.clear()
        self._open_bytes = 0
