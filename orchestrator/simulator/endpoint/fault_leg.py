"""A leg that misbehaves: what a session sends passes through it, late, twice, or not at all, as the faults of the session say.

It stands between a session and its real leg, on the way out only. While no fault concerns the session, it passes everything
on at once.
"""

from __future__ import annotations

import asyncio
import heapq
import re
import string
from itertools import count
from typing import TYPE_CHECKING, Protocol, assert_never

from orchestrator.errors import EndReason
from orchestrator.simulator.endpoint.fault_effects import Cut, End, FailResponse, Hold, Release, Report, Shut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.simulator.endpoint.fault_effects import Effect, Inside
    from orchestrator.simulator.endpoint.fault_session import SessionFaults
    from orchestrator.transports import LegState, LegStatistics
    from orchestrator.transports.websocket import WebSocketLeg

__all__ = ["FaultTarget", "FaultyLeg"]

# As much as a leg itself may hold.
MOST_LATE_BYTES = 64 * 1024 * 1024


_EVENT_ID = re.compile(rb'"event_id":"event_[0-9A-Za-z]*([0-9A-Za-z])"')
_LETTERS = (string.digits + string.ascii_letters).encode()


class FaultTarget(Protocol):
    """The session behind the leg."""

    def inject(self, effect: Inside) -> None:
        """Bring about a fault. May be called while the session sends; one that has ended does nothing."""


class FaultyLeg:
    """Implements `Leg`. Ended by `forget`, when the real leg has closed."""

    def __init__(self, leg: WebSocketLeg, faults: SessionFaults, target: FaultTarget) -> None:
        self._leg = leg
        self._faults = faults
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._late: list[tuple[float, int, bytes | None, tuple[int, str]]] = []
        self._late_bytes = 0
        self._numbers = count()
        self._last = self._last_transcript = 0.0
        self._holds: dict[str, Hold] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at: float | None = None

    # --- Leg ----------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> LegState:
        """See `Leg.state`."""
        return self._leg.state

    @property
    def close_code(self) -> int | None:
        """See `Leg.close_code`."""
        return self._leg.close_code

    @property
    def close_reason(self) -> str:
        """See `Leg.close_reason`."""
        return self._leg.close_reason

    def send_text(self, data: bytes) -> None:
        """Send an event, when and as often as the faults say."""
        if self._faults.idle and not self._late:
            self._leg.send_text(data)
            return
        self._send(data)

    def send_texts(self, messages: Sequence[bytes]) -> None:
        """Send events that are there at once; in one go only while no fault concerns the session."""
        if self._faults.idle and not self._late:
            self._leg.send_texts(messages)
            return
        for data in messages:
            self.send_text(data)

    def send_audio(self, data: bytes) -> None:
        """As `send_text`: the endpoint drops nothing."""
        self.send_text(data)

    def clear_audio(self) -> int:
        """Nothing here may be taken back."""
        return 0

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close after what was sent, however late that is."""
        if self._late:
            self._put_off(max(self._last, self._loop.time()), None, (code, reason))
        else:
            self._leg.close(code, reason)

    def abort(self, reason: EndReason) -> None:
        """See `Leg.abort`."""
        self._leg.abort(reason)

    async def wait_closed(self) -> EndReason:
        """See `Leg.wait_closed`."""
        return await self._leg.wait_closed()

    def statistics(self) -> LegStatistics:
        """See `Leg.statistics`."""
        return self._leg.statistics()

    # --- What the owner of the faults calls ---------------------------------------------------------------------------

    def carry_out(self, effect: Effect) -> None:
        """Let happen what the faults say."""
        match effect:
            case Cut():
                # In the next turn of the loop: what was sent in this one is still on its way to the kernel.
                self._loop.call_soon(self._leg.abort, EndReason("fault", "cut on demand"))
            case Shut():
                self._leg.close(effect.code, effect.reason)
            case Hold():
                self._holds[effect.fault_id] = effect
                self._stall()
            case Release():
                self._holds.pop(effect.fault_id, None)
                self._stall()
            case FailResponse() | Report() | End():
                self._target.inject(effect)
            case _:
                assert_never(effect)
        self.wake()

    def wake(self) -> None:
        """Set the timer anew, since something about the faults has changed."""
        times = [time for time in (self._late[0][0] if self._late else None, self._faults.due) if time is not None]
        due = min(times, default=None)
        if due == self._wakes_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._on_time, due)
        self._wakes_at = due

    def forget(self) -> None:
        """The real leg has ended: what was to be sent is lost."""
        self._late.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- Sending ------------------------------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        now = self._loop.time()
        due = now + self._faults.delay(now)
        lag = self._faults.lag(data, now)
        if lag:
            due = self._last_transcript = max(self._last_transcript, due + lag)
        else:
            due = self._last = max(self._last, due)
        for copy in range(self._faults.copies(data, now)):
            if copy:
                data = another_event(data)
            if due <= now and not self._late:
                self._pass_on(data)
            else:
                self._put_off(due, data, (0, ""))

    def _pass_on(self, data: bytes) -> None:
        self._leg.send_text(data)
        for effect in self._faults.sent(data, self._loop.time()):
            self.carry_out(effect)

    def _put_off(self, due: float, data: bytes | None, close: tuple[int, str]) -> None:
        """Send later; without data, close with this code and reason."""
        self._late_bytes += len(data or b"")
        if self._late_bytes > MOST_LATE_BYTES:
            self._leg.abort(EndReason("leg_overflow", "more is late than may wait"))
            return
        heapq.heappush(self._late, (due, next(self._numbers), data, close))
        self.wake()

    def _on_time(self, due: float) -> None:
        self._timer = self._wakes_at = None
        # A loop may run a timer early by the resolution of its clock.
        now = max(due, self._loop.time())
        while self._late and self._late[0][0] <= now:
            _, _, data, (code, reason) = heapq.heappop(self._late)
            if data is None:
                self._leg.close(code, reason)
            else:
                self._late_bytes -= len(data)
                self._pass_on(data)
        for effect in self._faults.advance(now):
            self.carry_out(effect)
        self.wake()

    def _stall(self) -> None:
        sending = any(hold.sending for hold in self._holds.values())
        receiving = any(hold.receiving for hold in self._holds.values())
        self._leg.stall(sending=sending, receiving=receiving)


def another_event(data: bytes) -> bytes:
    """The same event once more, under an id of its own: another with each call, as far as sixty go."""
    found = _EVENT_ID.search(data)
    if found is None:
        return data
    at = found.start(1)
    letter = _LETTERS[(_LETTERS.index(data[at]) + 1) % len(_LETTERS)]
    return data[:at] + bytes([letter]) + data[at + 1 :]
