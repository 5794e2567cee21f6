"""The hard cap on sessions, decided at the door and nowhere else.

A slot is reserved when a connection is admitted, bound when its caller was answered with 101, and released when the session
ends. Pure bookkeeping: no clock, no socket.
"""

from __future__ import annotations

from enum import Enum

from orchestrator.errors import IllegalTransitionError

__all__ = ["Admission", "Slot"]


class Slot(Enum):
    """What a slot is held for."""

    RESERVED = "reserved"
    BOUND = "bound"


class Admission:
    """Slots by session id, never more than `limit` but for sessions that exist already when they become known."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.draining = False
        self._slots: dict[str, Slot] = {}
        self._reserved = 0

    @property
    def in_use(self) -> int:
        """Slots that are not free."""
        return len(self._slots)

    @property
    def handshakes(self) -> int:
        """Slots reserved for callers that were not answered yet."""
        return self._reserved

    @property
    def is_full(self) -> bool:
        """Whether the cap is reached."""
        return len(self._slots) >= self.limit

    @property
    def admits(self) -> bool:
        """Whether `reserve` would succeed."""
        return not (self.draining or self.is_full)

    def reserve(self, session_id: str) -> bool:
        """Take a slot for a new session; False at the cap or while draining. Raises IllegalTransitionError for a held id."""
        if session_id in self._slots:
            raise IllegalTransitionError(f"session {session_id} holds a slot already")
        if not self.admits:
            return False
        self._slots[session_id] = Slot.RESERVED
        self._reserved += 1
        return True

    def bind(self, session_id: str) -> None:
        """Say that the caller was answered. Raises IllegalTransitionError unless the slot is reserved."""
        if self._slots.get(session_id) is not Slot.RESERVED:
            raise IllegalTransitionError(f"session {session_id} has no reserved slot")
        self._slots[session_id] = Slot.BOUND
        self._reserved -= 1

    def restore(self, session_id: str) -> None:
        """Take a bound slot for a session that an actor holds already; a live call is kept even above the cap."""
        if self._slots.get(session_id) is Slot.RESERVED:
            self._reserved -= 1
        self._slots[session_id] = Slot.BOUND

    def release(self, session_id: str) -> Slot | None:
        """Free the slot and return what it was held for, or None if there was none."""
        slot = self._slots.pop(session_id, None)
        if slot is Slot.RESERVED:
            self._reserved -= 1
        return slot
