"""The states of the calls of a node, as the entries that pass its gateway tell them.

A session actor that dies leaves its calls to others of the node, at once, and also while the store does not answer: so its
gateway keeps what it would have to read. Pure, one state per call, no entries.

A copy is only kept while it is whole. Without one (the gateway is new, or entries were given up) the call has to be read from
the store, and not before all that came for it is there: `last_seq` says how far that is.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from orchestrator.errors import JournalFormatError
from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import SNAPSHOT, STARTED
from orchestrator.journal.state import CallState

__all__ = ["CallCopies"]


class CallCopies:
    """The copies of one gateway."""

    def __init__(self) -> None:
        self._states: dict[str, CallState] = {}
        self._last: dict[str, int] = {}

    def take(self, entries: Sequence[Entry]) -> None:
        """Take in entries in the order in which they came. What came before, or from an owner of old, changes nothing."""
        for entry in entries:
            self._last[entry.session_id] = max(entry.seq, self._last.get(entry.session_id, 0))
            state = self._states.get(entry.session_id)
            begins = entry.kind == SNAPSHOT or (entry.kind == STARTED and entry.seq == 1)
            if state is None and begins:
                state = self._states[entry.session_id] = CallState(session_id=entry.session_id)
            elif state is None or entry.epoch < state.epoch or entry.seq <= state.last_seq:
                continue
            elif entry.seq != state.last_seq + 1 and entry.kind != SNAPSHOT:
                del self._states[entry.session_id]
                continue
            try:
                state.apply(entry)
            except JournalFormatError:
                # From newer code than this. Whoever reads the store says so.
                del self._states[entry.session_id]

    def adopt(self, state: CallState) -> None:
        """A call comes here with what was read of it from the store: its copy begins with that."""
        if state.last_seq >= self.last_seq(state.session_id):
            self._states[state.session_id] = _copied(state)

    def lost(self, entries: Sequence[Entry]) -> None:
        """These were given up: a new owner that knew of them would speak of what the journal has not."""
        for entry in entries:
            self._states.pop(entry.session_id, None)
            self._last[entry.session_id] = min(entry.seq - 1, self._last.get(entry.session_id, 0))

    def state(self, session_id: str) -> CallState | None:
        """Return a copy of a call's state that is the caller's own; None where it has to be read from the store."""
        state = self._states.get(session_id)
        return None if state is None else _copied(state)

    def last_seq(self, session_id: str) -> int:
        """Return the number of the last entry that came for a call and was not given up, 0 where there is none."""
        return self._last.get(session_id, 0)

    def forget(self, session_id: str) -> None:
        """The call is over, not this node's any more, or what came for it was refused. Idempotent."""
        self._states.pop(session_id, None)
        self._last.pop(session_id, None)


def _copied(state: CallState) -> CallState:
    return msgspec.json.decode(state.to_json(), type=CallState)
