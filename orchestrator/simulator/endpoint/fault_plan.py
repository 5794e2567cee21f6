"""Which faults there are, whom they concern, and when: pure, no socket and no clock.

Time is an argument everywhere (seconds, any origin, never falling). A `FaultPlan` is asked about every connection, and gives
every session a `SessionFaults`. Answers are effects for the shell to carry out; after each call, `due` of the plan and of the
session say when `advance` must be called.
"""

from __future__ import annotations

import math
import random
from itertools import count
from typing import TYPE_CHECKING

import msgspec

from orchestrator.errors import UserError
from orchestrator.simulator.endpoint.fault_effects import Refusing, Waiting
from orchestrator.simulator.endpoint.fault_session import FaultEntry, SessionFaults, Watch
from orchestrator.simulator.endpoint.fault_types import AnyFault, Refuse, RegionDown, Stall

if TYPE_CHECKING:
    from orchestrator.simulator.endpoint.fault_effects import Effect, Visitor

__all__ = ["MOST_FAULTS", "FaultPlan", "FaultReport"]

MOST_FAULTS = 256


class FaultReport(msgspec.Struct, frozen=True, kw_only=True):
    """One fault as `GET /simulator/faults` shows it. `fired` is how often it happened. A key is not shown."""

    id: str
    active: bool
    fired: int
    fault: AnyFault


class FaultPlan:
    """All faults of one server. `seed` makes the draws repeat."""

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed
        self._entries: dict[str, FaultEntry] = {}
        self._sessions: dict[SessionFaults, None] = {}
        self._numbers = count(1)

    def __contains__(self, fault_id: str) -> bool:
        return fault_id in self._entries

    @property
    def due(self) -> float | None:
        """When `advance` must be called, or None."""
        return min((entry.begins for entry in self._entries.values() if not entry.began), default=None)

    def add(self, fault: AnyFault, now: float) -> str:
        """Add a fault; returns its id. Call `advance` afterwards. Raises UserError when there are too many."""
        if len(self._entries) >= MOST_FAULTS:
            raise UserError(f"there are {MOST_FAULTS} faults already; remove some")
        number = next(self._numbers)
        entry = FaultEntry(f"fault_{number}", number, fault, now)
        self._entries[entry.id] = entry
        # `nth_session` counts those to come.
        if fault.nth_session is None and not _only_at_connect(fault):
            for session in self._sessions:
                if entry.concerns(session.visitor):
                    session.watch(self._watch(entry, session.visitor, now))
        return entry.id

    def remove(self, fault_id: str) -> list[tuple[SessionFaults, Effect]] | None:
        """Remove a fault; returns what follows in which session, or None if there is no such fault."""
        entry = self._entries.pop(fault_id, None)
        if entry is None:
            return None
        entry.removed = True
        return [(session, effect) for session in self._sessions for effect in session.forget(entry)]

    def reports(self, now: float) -> list[FaultReport]:
        """All faults, in the order in which they were added."""
        return [
            FaultReport(
                id=entry.id,
                active=entry.in_time(now) and not entry.spent,
                fired=entry.fired,
                fault=msgspec.structs.replace(entry.fault, key=None if entry.fault.key is None else "***"),
            )
            for entry in self._entries.values()
        ]

    def advance(self, now: float) -> list[tuple[SessionFaults, Effect]]:
        """Time has passed: what follows in which session."""
        effects: list[tuple[SessionFaults, Effect]] = []
        for entry in self._entries.values():
            if not entry.began and entry.begins <= now:
                entry.began = True
                effects += ((session, effect) for session in self._sessions for effect in session.begin(entry, now))
        return effects

    def connect(self, visitor: Visitor, now: float) -> Refusing | Waiting | None:
        """Somebody asks for a socket: what the first fault that forbids it says, or None."""
        found: Refusing | Waiting | None = None
        for entry in self._entries.values():
            fault = entry.fault
            waits = isinstance(fault, Stall) and fault.at == "connect"
            # Counted in any case: which session is the nth does not depend on the other faults.
            if not (waits or isinstance(fault, Refuse)) or not entry.picks(visitor) or found is not None:
                continue
            if not self._watch(entry, visitor, now).falls(now):
                continue
            if isinstance(fault, Refuse):
                found = Refusing(fault.status, fault.retry_after)
            elif isinstance(fault, Stall):
                seconds = math.inf if fault.seconds is None else fault.seconds
                found = Waiting(entry.id, min(now + seconds, entry.ends))
        return found

    def request(self, key: str, now: float) -> Refusing | None:
        """Somebody asks for something else than a socket: only a whole region that is down forbids that."""
        for entry in self._entries.values():
            fault = entry.fault
            if isinstance(fault, RegionDown) and fault.model is None and fault.key in (None, key) and entry.in_time(now):
                entry.fired += 1
                return Refusing(fault.status, fault.retry_after)
        return None

    def join(self, visitor: Visitor, now: float) -> SessionFaults:
        """A session begins."""
        session = SessionFaults(visitor)
        self._sessions[session] = None
        for entry in self._entries.values():
            if not _only_at_connect(entry.fault) and entry.picks(visitor):
                session.watch(self._watch(entry, visitor, now))
        return session

    def leave(self, session: SessionFaults) -> None:
        """A session has ended."""
        self._sessions.pop(session, None)

    def _watch(self, entry: FaultEntry, visitor: Visitor, now: float) -> Watch:
        seed = None if self._seed is None else f"{self._seed}/{entry.number}/{visitor.number}"
        return Watch(entry, random.Random(seed), max(now, entry.begins))


def _only_at_connect(fault: AnyFault) -> bool:
    """Whether a fault can no longer happen in a session; a region that goes down does."""
    if isinstance(fault, Stall):
        return fault.at == "connect"
    return isinstance(fault, Refuse) and not isinstance(fault, RegionDown)
