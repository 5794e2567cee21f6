"""Where the faults of a server are looked after: asks the plan, wakes it up in time, and lets the legs do what it says."""

from __future__ import annotations

import asyncio
import contextlib
import math
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from orchestrator.simulator.endpoint.fault_effects import Refusing, Visitor, Waiting
from orchestrator.simulator.endpoint.fault_leg import FaultTarget, FaultyLeg
from orchestrator.simulator.endpoint.fault_plan import FaultPlan
from orchestrator.transports import OpenListener, RunListener
from orchestrator.transports.websocket import WebSocketLeg

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.simulator.endpoint.fault_effects import Effect
    from orchestrator.simulator.endpoint.fault_plan import FaultReport
    from orchestrator.simulator.endpoint.fault_session import SessionFaults
    from orchestrator.simulator.endpoint.fault_types import AnyFault
    from orchestrator.transports import Leg, LegListener

__all__ = ["FaultDesk", "FaultySession"]


@runtime_checkable
class FaultySession(OpenListener, FaultTarget, Protocol):
    """A session that faults can happen to."""


class _Between:
    """Gives a session its leg with the faults in between. What arrives on the leg goes past it."""

    def __init__(self, desk: FaultDesk, visitor: Visitor, session: FaultySession) -> None:
        self._desk = desk
        self._visitor = visitor
        self._session = session
        # Bound here, so that no frame costs a call more than without faults.
        self.on_text = session.on_text
        self.on_binary = session.on_binary
        self.on_closed = session.on_closed

    def on_open(self, leg: Leg) -> None:
        self._session.on_open(self._desk.attach(self._visitor, leg, self._session))


class _BetweenRuns(_Between):
    """The same for a session that takes many messages at once."""

    def __init__(self, desk: FaultDesk, visitor: Visitor, session: FaultySession, taker: RunListener) -> None:
        super().__init__(desk, visitor, session)
        self.on_texts = taker.on_texts


class FaultDesk:
    """All faults of one server, on the running loop. Holds a timer while a fault is to begin; `clear` ends that.

    `faults` are there from the start; `seed` makes their draws repeat.
    """

    def __init__(self, faults: Iterable[AnyFault] = (), seed: int | None = None) -> None:
        self._plan = FaultPlan(seed)
        self._loop = asyncio.get_running_loop()
        self._legs: dict[SessionFaults, FaultyLeg] = {}
        self._removed: dict[str, asyncio.Event] = {}
        self._numbers = count(1)
        self._timer: asyncio.TimerHandle | None = None
        for fault in faults:
            self.add(fault)

    # --- Connections --------------------------------------------------------------------------------------------------

    def visitor(self, model: str, key: str) -> Visitor:
        """Number a client that asks for a socket."""
        return Visitor(next(self._numbers), model, key)

    def connect(self, visitor: Visitor) -> Refusing | Waiting | None:
        """What a client that asks for a socket runs into, if anything."""
        return self._plan.connect(visitor, self._loop.time())

    def request(self, key: str) -> Refusing | None:
        """What a client that asks for something else runs into, if anything."""
        return self._plan.request(key, self._loop.time())

    async def patience(self, waiting: Waiting) -> None:
        """Wait until a client that was left without an answer may have it. Cancelling it harms nothing."""
        if waiting.fault_id not in self._plan:
            return
        removed = self._removed.setdefault(waiting.fault_id, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(None if waiting.until == math.inf else waiting.until):
                await removed.wait()

    def between(self, visitor: Visitor, session: FaultySession) -> LegListener:
        """The listener for a leg, so that the session gets one that misbehaves instead."""
        if isinstance(session, RunListener):
            return _BetweenRuns(self, visitor, session, session)
        return _Between(self, visitor, session)

    def attach(self, visitor: Visitor, leg: Leg, target: FaultTarget) -> FaultyLeg:
        """Put the faults between a session and the leg of its client, until that has closed."""
        if not isinstance(leg, WebSocketLeg):
            raise AssertionError("only the leg itself can stall")  # noqa: TRY004 - not a matter of types to the caller
        faults = self._plan.join(visitor, self._loop.time())
        faulty = self._legs[faults] = FaultyLeg(leg, faults, target)
        leg.when_closed(partial(self._detach, faults))
        faulty.wake()
        return faulty

    # --- The faults ---------------------------------------------------------------------------------------------------

    def add(self, fault: AnyFault) -> str:
        """Add a fault, which begins when it says; returns its id. Raises UserError when there are too many."""
        fault_id = self._plan.add(fault, self._loop.time())
        self._advance()
        for leg in self._legs.values():
            leg.wake()
        return fault_id

    def remove(self, fault_id: str) -> bool:
        """Remove a fault, and end what it does; returns whether it was there."""
        effects = self._plan.remove(fault_id)
        if effects is None:
            return False
        if removed := self._removed.pop(fault_id, None):
            removed.set()
        self._carry_out(effects)
        self._set_timer()
        return True

    def reports(self) -> list[FaultReport]:
        """All faults, and how often each has happened."""
        return self._plan.reports(self._loop.time())

    def clear(self) -> None:
        """Remove all faults: what stalls goes on, so that it can be ended in good order."""
        for report in self.reports():
            self.remove(report.id)

    def _advance(self) -> None:
        self._carry_out(self._plan.advance(self._loop.time()))
        self._set_timer()

    def _carry_out(self, effects: Iterable[tuple[SessionFaults, Effect]]) -> None:
        for session, effect in effects:
            # A session that joined without a leg has none to do it.
            if leg := self._legs.get(session):
                leg.carry_out(effect)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self._plan.due
        self._timer = None if due is None else self._loop.call_at(due, self._on_time, due)

    def _on_time(self, due: float) -> None:
        self._timer = None
        # A loop may run a timer early by the resolution of its clock.
        self._carry_out(self._plan.advance(max(due, self._loop.time())))
        self._set_timer()

    def _detach(self, faults: SessionFaults) -> None:
        self._plan.leave(faults)
        self._legs.pop(faults).forget()
