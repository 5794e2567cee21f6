"""What a phone call is made of, as it is asked for: whom it rings, what the caller says, and when."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from orchestrator.simulator.dtmf import are_keys

__all__ = ["PhoneOrder", "SipHeader", "Step"]

MOST_STEPS, MOST_HEADERS, MOST_DELIVERIES = 200, 64, 10
_PROJECT = "sip:proj_simulator@sip.api.openai.com;transport=tls"
_CALLER = "sip:+15550100@carrier.invalid"

_Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=3600)]
_Text: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
_Line: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=1000, pattern=r"^[^\r\n]*\Z")]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing that the caller does: say a `text`, press `dtmf` keys, or hang up.

    `after_seconds` counts from the end of the step before (the first from the connection), whatever the agent does meanwhile.
    Without it the caller waits for `silence`: until the agent has spoken since the caller's last step and has then been
    quiet for a while, or, where the agent says nothing at all, until the caller's patience is at its end.
    """

    text: _Text | None = None
    dtmf: Annotated[str, msgspec.Meta(min_length=1, max_length=32)] | None = None
    hang_up: bool = False
    after_seconds: _Seconds | None = None
    wait_for: Literal["silence"] | None = None

    def __post_init__(self) -> None:
        if (self.text is not None) + (self.dtmf is not None) + self.hang_up != 1:
            raise ValueError("a step has one of `text`, `dtmf` and `hang_up`")
        if self.after_seconds is not None and self.wait_for is not None:
            raise ValueError("a step has either `after_seconds` or `wait_for`")
        if self.dtmf is not None and not are_keys(self.dtmf):
            raise ValueError("the keys of a phone are 0-9, *, # and A-D")


class SipHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A header of the INVITE."""

    name: _Line
    value: _Line


class PhoneOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The body of a request that makes a phone ring.

    `headers` are sent in the webhook after From, To and Call-ID. The webhook is delivered `duplicates` times, and each delivery
    tried up to `retries` times more where it is not answered with 2xx. `pause_seconds` is the quiet that ends the agent's turn
    for the caller, `patience_seconds` how long the caller waits for an agent that says nothing.
    """

    webhook_url: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]
    secret: str | None = None
    to: _Line = _PROJECT
    from_: _Line = msgspec.field(default=_CALLER, name="from")
    headers: Annotated[tuple[SipHeader, ...], msgspec.Meta(max_length=MOST_HEADERS)] = ()
    says: Annotated[tuple[Step, ...], msgspec.Meta(max_length=MOST_STEPS)] = ()
    voice: Annotated[str, msgspec.Meta(max_length=32)] = "echo"
    language: Annotated[str, msgspec.Meta(max_length=32)] | None = None
    duplicates: Annotated[int, msgspec.Meta(ge=1, le=MOST_DELIVERIES)] = 1
    retries: Annotated[int, msgspec.Meta(ge=0, le=MOST_DELIVERIES)] = 5
    pause_seconds: _Seconds = 0.5
    patience_seconds: _Seconds = 5.0

    def __repr__(self) -> str:
        # The secret, and what is said in a call, belong in no log.
        return f"PhoneOrder(to={self.to!r}, from={self.from_!r}, steps={len(self.says)})"
