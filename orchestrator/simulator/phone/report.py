"""What can be asked about a call: its state, what was heard, and what happened when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from orchestrator.errors import EndReason
from orchestrator.simulator.phone.earpiece import Heard

if TYPE_CHECKING:
    from orchestrator.simulator.phone.live_call import LiveCall
    from orchestrator.simulator.phone.order import PhoneOrder

__all__ = ["CallReport", "CallSummary", "report", "summary"]


class CallSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A call in a list. `state` is ringing, connected, rejected, referred or ended; `created_at` is in Unix seconds."""

    call_id: str
    state: str
    to: str
    from_: str = msgspec.field(name="from")
    created_at: float
    end: EndReason | None


class CallReport(CallSummary, frozen=True, kw_only=True):
    """All about one call.

    `status_code` is that of a rejected call, `target_uri` that of one referred elsewhere. `heard` is what the caller heard of
    the agent, item by item, and `heard_ms` all of it together. Times of `events` are seconds since it began to ring.
    """

    connected_seconds: float
    status_code: int | None
    target_uri: str | None
    sidebands: int
    steps_left: int
    heard_ms: int
    heard: list[Heard]
    events: list[dict[str, Any]]


def summary(call: LiveCall, order: PhoneOrder, created_at: float) -> CallSummary:
    """A call in short."""
    phone = call.phone
    return CallSummary(
        call_id=call.call_id,
        state=phone.state.value,
        to=order.to,
        from_=order.from_,
        created_at=created_at,
        end=phone.end_reason,
    )


def report(call: LiveCall, order: PhoneOrder, created_at: float, now: float) -> CallReport:
    """A call in full. `now` is the time of the loop's clock."""
    phone = call.phone
    heard = phone.heard(now)
    return CallReport(
        call_id=call.call_id,
        state=phone.state.value,
        to=order.to,
        from_=order.from_,
        created_at=created_at,
        end=phone.end_reason,
        connected_seconds=round(phone.seconds(now), 3),
        status_code=phone.status_code,
        target_uri=phone.target_uri,
        sidebands=call.sidebands,
        steps_left=phone.steps_left,
        heard_ms=sum(item.ms for item in heard),
        heard=heard,
        events=phone.events(),
    )
