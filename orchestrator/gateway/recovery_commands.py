"""What a gateway's recovery is told, and what it asks for: the vocabulary of `gateway.recovery`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from orchestrator.errors import EndReason

__all__ = [
    "Claim",
    "EndCaller",
    "Forget",
    "Hold",
    "Kill",
    "Offer",
    "RecoveryCommand",
    "RecoveryLimits",
    "Release",
]


class Hold(Enum):
    """What keeps a session's caller while nobody serves it."""

    # The gateway has duplicates of its socket and of its page.
    SOCKET = "socket"
    # The call lives outside, as a SIP call does at its provider: whoever names its call id has it.
    OUTSIDE = "outside"
    # The caller is away. The session waits in the journal, on no node in particular.
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class RecoveryLimits:
    """Seconds, and how many owners a call may take with it within `crash_window`.

    `offer_within` is how long an actor may take to accept before the offer is withdrawn, `release_within` how long to let go;
    one that is slower is killed. `relink_within` is how long a process whose link broke may take to link again.
    `retry_after` passes before an actor that refused a session is offered it again, and before a process that did not die of
    it is killed again.
    """

    recover_within: float = 20.0
    offer_within: float = 5.0
    release_within: float = 5.0
    relink_within: float = 1.0
    retry_after: float = 1.0
    crashes: int = 5
    crash_window: float = 60.0


@dataclass(frozen=True, slots=True)
class Claim:
    """A session that an actor says it holds."""

    session_id: str
    epoch: int
    hold: Hold


@dataclass(frozen=True, slots=True)
class Offer:
    """Give the actor the session, with what is held of its caller; report by `recovered` or `refused`.

    `begun` says that its caller was answered. If not, the actor answers it as if it had just come, and says `up`; so it does
    for a call whose first owner wrote nothing, except that a caller is not answered twice. Otherwise it writes `taken_over` and
    serves once that is acknowledged; where the session comes from another node (`durable`), only once it is in the store: what
    is on this node's disk keeps nobody else from writing the same.
    """

    session_id: str
    actor_id: str
    cause: str
    begun: bool
    durable: bool


@dataclass(frozen=True, slots=True)
class Kill:
    """End this process at once (SIGKILL, by a handle that cannot mean another process); report by `gone` when it is dead."""

    actor_id: str
    pid: int


@dataclass(frozen=True, slots=True)
class Release:
    """Tell the actor to let go of the session without a word to its caller, and to say so; report by `released`.

    It journals up to here first. It also replies where it does not hold the session any more.
    """

    actor_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class EndCaller:
    """Nobody takes the session: end its caller's connection and drop what is held of it.

    With `final` the journal must say that the call is over, too (`journal.closing`). Otherwise the caller may come back.
    """

    session_id: str
    reason: EndReason
    final: bool = False


@dataclass(frozen=True, slots=True)
class Forget:
    """The session is nothing of this gateway's any more: free its slot, close what is held of it."""

    session_id: str


RecoveryCommand: TypeAlias = Offer | Kill | Release | EndCaller | Forget
