"""What a fault comes to, as data: the answers of `fault_plan` and `fault_session`, which a shell carries out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, assert_never

from orchestrator.wire.realtime import ErrorDetails, ResponseError

if TYPE_CHECKING:
    from orchestrator.simulator.endpoint.outputs import Output
    from orchestrator.simulator.endpoint.session_machine import SessionMachine

__all__ = [
    "Cut",
    "Effect",
    "End",
    "FailResponse",
    "Hold",
    "Inside",
    "Refusing",
    "Release",
    "Report",
    "Shut",
    "Visitor",
    "Waiting",
    "inject",
]


@dataclass(frozen=True)
class Visitor:
    """Who connects: the number of the session on this server, and the model and key that were given, or ""."""

    number: int
    model: str = ""
    key: str = field(default="", repr=False)


# --- To a connection that asks to be let in ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Refusing:
    """Do not let it in: answer with this status, or without one close it. `retry_after` is in seconds."""

    status: int | None
    retry_after: int | None


@dataclass(frozen=True)
class Waiting:
    """Leave it without an answer until this time (infinity: for ever), or until the fault is removed."""

    fault_id: str
    until: float


# --- To a session -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """Cut the TCP connection."""


@dataclass(frozen=True)
class Shut:
    """Send a close frame."""

    code: int
    reason: str


@dataclass(frozen=True)
class Hold:
    """Send nothing, read nothing, or both, until the `Release` of this fault."""

    fault_id: str
    sending: bool
    receiving: bool


@dataclass(frozen=True)
class Release:
    """The `Hold` of this fault is over."""

    fault_id: str


@dataclass(frozen=True)
class FailResponse:
    """The active response fails, if there is one."""

    type: str
    code: str
    message: str


@dataclass(frozen=True)
class Report:
    """An `error` event is sent."""

    type: str
    code: str | None
    message: str


@dataclass(frozen=True)
class End:
    """The session has reached its greatest age."""


Inside: TypeAlias = FailResponse | Report | End
"""What the session itself has to bring about; the rest happens to its connection."""

Effect: TypeAlias = Cut | Shut | Hold | Release | Inside


def inject(machine: SessionMachine, effect: Inside, now: float) -> list[Output]:
    """Have a fault happen inside a session; returns what the session has to say to that."""
    match effect:
        case FailResponse():
            return machine.fail_response(ResponseError(type=effect.type, code=effect.code, message=effect.message), now)
        case Report():
            return machine.report_error(ErrorDetails(type=effect.type, code=effect.code, message=effect.message), now)
        case End():
            return machine.expire(now)
        case _:
            assert_never(effect)
