"""What gateway and actor tell each other about recovery, beside the messages that the node link has already."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.cluster.link_messages import Hello
from orchestrator.errors import EndReason
from orchestrator.gateway.recovery_commands import Claim, Hold
from orchestrator.journal.state import CallState
from tests.simulation.world import Sock

__all__ = ["Adopted", "Drop", "HoldChanged", "HoldsOn", "Reattach", "Recover", "Recovered", "Released", "Returned"]


@dataclass(frozen=True)
class Adopted:
    """Gateway to actor: a new caller."""

    session_id: str
    channel: str
    sock: Sock | None
    call_id: str | None


@dataclass(frozen=True)
class Recover:
    """Gateway to actor: take this session over."""

    session_id: str
    channel: str
    state: CallState
    durable: bool
    cause: str
    sock: Sock | None


@dataclass(frozen=True)
class Recovered:
    """Actor to gateway: it serves the session that it was offered."""

    session_id: str
    epoch: int


@dataclass(frozen=True)
class Drop:
    """Gateway to actor: let go of the session."""

    session_id: str


@dataclass(frozen=True)
class Released:
    """Actor to gateway: it has let go."""

    session_id: str


@dataclass(frozen=True)
class Reattach:
    """Gateway to actor: the caller is back."""

    session_id: str
    sock: Sock


@dataclass(frozen=True)
class HoldChanged:
    """Actor to gateway: the caller is away, or back; then this is its socket."""

    session_id: str
    hold: Hold
    sock: Sock | None


@dataclass(frozen=True)
class HoldsOn:
    """Actor to gateway, first on every link: `Hello`, what it claims, and the sockets of its callers."""

    hello: Hello
    claims: tuple[Claim, ...]
    socks: dict[str, Sock]


@dataclass(frozen=True)
class Returned:
    """Actor to gateway: it did not take the session."""

    session_id: str
    reason: EndReason
