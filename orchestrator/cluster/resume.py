"""What a gateway does with a caller who comes back to a session, or with a call that it is asked to restart.

Pure: one `Resumption` for one attempt; events in, commands out; time is an argument. Whoever comes back was authenticated
before (`resume_token`, or the carrier's own signature). The session may be here, on another node, or nowhere:

- here, its caller away: served here;
- on a node that answers: the caller is relayed to it, so that there is nothing to decide about owners;
- on a node that is lost, or does not answer in time, or has forgotten it: taken over by the journal. Only who gets the next
  epoch serves, so it does no harm if the other node was merely slow, or if two gateways try at once.

A gateway that has just started does not know its sessions yet: it takes none over that its own node had before `settled`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from orchestrator.errors import EndReason, IllegalTransitionError

__all__ = [
    "Answer",
    "Ask",
    "JournalView",
    "Local",
    "ReadJournal",
    "Refuse",
    "Relay",
    "Resumption",
    "ResumptionCommand",
    "ResumptionLimits",
    "ServeHere",
    "TakeOver",
]


class Local(Enum):
    """What this gateway knows of the session."""

    NOT_HERE = "not_here"
    # Its owner serves it, and its caller is connected.
    ATTACHED = "attached"
    # Its owner waits for its caller.
    DETACHED = "detached"
    # Its owner was lost, and another is being found.
    RECOVERING = "recovering"


class Answer(Enum):
    """What another gateway says when it is asked for a session."""

    ATTACHED = "attached"
    DETACHED = "detached"
    RECOVERING = "recovering"
    NOT_HERE = "not_here"


@dataclass(frozen=True, slots=True)
class JournalView:
    """Where a call's journal ends: in which epoch, written from which node, and whether with the call's end."""

    epoch: int
    node: str
    ended: bool = False


@dataclass(frozen=True, slots=True)
class ResumptionLimits:
    """Seconds: for another gateway's answer, and for the whole attempt; and how often a takeover may be lost to another."""

    ask_within: float = 1.0
    within: float = 15.0
    rounds: int = 3


@dataclass(frozen=True, slots=True)
class ReadJournal:
    """Read where the call's journal ends; report by `journal` or `journal_unavailable`."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask that node's gateway whether it has the session; report by `answered`, or not at all."""

    node: str


@dataclass(frozen=True, slots=True)
class ServeHere:
    """Give the caller to the session's owner on this node, and hold it from then on (`Recovery.set_hold`)."""


@dataclass(frozen=True, slots=True)
class Relay:
    """Pass the caller's bytes on to that node's gateway, which gives them to the owner."""

    node: str


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Have an actor of this node take the session over (`Recovery.take`); report by `taken`.

    `epoch` is the one that the journal has it in. Should the session have come here meanwhile, report that it was not taken.
    """

    epoch: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Turn the caller away. `retry_after` is the seconds after which another try makes sense, or None."""

    reason: EndReason
    retry_after: int | None = None


ResumptionCommand: TypeAlias = ReadJournal | Ask | ServeHere | Relay | TakeOver | Refuse

_UNKNOWN = EndReason("session_not_found", "there is no such session")
_ENDED = EndReason("session_ended", "the session is over")
_BUSY = EndReason("session_busy", "the session has a caller")
_OWNED = EndReason("session_owned", "the session is served already")
_RECOVERING = EndReason("session_recovering", "the session is being recovered")
_UNREADABLE = EndReason("journal_unavailable", "the session's journal cannot be read now", by="infrastructure")
_TOO_LONG = EndReason("resume_timeout", "the session could not be taken over in time", by="infrastructure")


class _Step(Enum):
    NEW = "new"
    READING = "reading"
    ASKING = "asking"
    WAITING = "waiting"
    TAKING = "taking"
    OVER = "over"


class Resumption:
    """One attempt at this node. `due` says when `tick` must be called, if at all.

    With `attach` there is no caller to connect: the call lives at the provider, and all that matters is that somebody serves
    it. `settled_at` is when this gateway knows all sessions of its node.
    """

    def __init__(
        self, node: str, limits: ResumptionLimits | None = None, *, attach: bool = False, settled_at: float = 0.0
    ) -> None:
        self._node = node
        self._limits = limits or ResumptionLimits()
        self._attach = attach
        self._settled_at = settled_at
        self._step = _Step.NEW
        self._known_node: str | None = None
        self._asked = ""
        self._epoch = 0
        self._local = Local.NOT_HERE
        self._lost_to_others = 0
        self._deadline = 0.0
        self._answer_by: float | None = None

    @property
    def over(self) -> bool:
        """Whether it is decided."""
        return self._step is _Step.OVER

    @property
    def due(self) -> float | None:
        """When `tick` must be called next."""
        if self._step in (_Step.NEW, _Step.OVER):
            return None
        return self._deadline if self._answer_by is None else min(self._answer_by, self._deadline)

    def start(self, local: Local, known_node: str | None, now: float) -> list[ResumptionCommand]:
        """Begin. `known_node` is the node that has the session as far as anybody knows, if the journal should not answer."""
        if self._step is not _Step.NEW:
            raise IllegalTransitionError("a resumption begins once")
        self._deadline = now + self._limits.within
        self._known_node = known_node
        return self._read(local)

    def journal(self, view: JournalView | None, local: Local, now: float) -> list[ResumptionCommand]:
        """The journal was read, None if it has no such call; `local` is what is known here by now."""
        if self._step is not _Step.READING:
            return []
        if view is None:
            return self._refuse(_UNKNOWN)
        if view.ended:
            return self._refuse(_ENDED)
        if local is not Local.NOT_HERE:
            return self._here(local)
        self._epoch = view.epoch
        # The directory may know more than the journal, but what the journal says of an owner was true.
        self._known_node = None if self._known_node in (view.node, self._node) else self._known_node
        if view.node == self._node:
            return self._wait(now) if now < self._settled_at else self._take()
        return self._ask(view.node, now)

    def journal_unavailable(self, now: float) -> list[ResumptionCommand]:
        """The store does not answer. Whoever has the session can still be asked; without it nobody can take it over."""
        if self._step is not _Step.READING:
            return []
        node, self._known_node = self._known_node, None
        self._epoch = 0
        return self._refuse(_UNREADABLE, 2) if node is None or node == self._node else self._ask(node, now)

    def answered(self, node: str, answer: Answer, now: float) -> list[ResumptionCommand]:
        """Another gateway has answered."""
        if self._step is not _Step.ASKING or node != self._asked:
            return []
        match answer:
            case Answer.NOT_HERE:
                return self._not_there(now)
            case _ if self._attach:
                return self._refuse(_OWNED)
            case Answer.DETACHED:
                return self._decide(Relay(node))
            case Answer.ATTACHED:
                return self._refuse(_BUSY, 2)
            case Answer.RECOVERING:
                return self._refuse(_RECOVERING, 1)

    def taken(self, *, accepted: bool, now: float) -> list[ResumptionCommand]:
        """An actor of this node serves the session, or was refused by the journal: somebody else has it."""
        del now
        if self._step is not _Step.TAKING:
            return []
        if accepted:
            self._step = _Step.OVER
            return []
        self._lost_to_others += 1
        return self._refuse(_BUSY, 1) if self._lost_to_others >= self._limits.rounds else self._read(Local.NOT_HERE)

    def tick(self, now: float) -> list[ResumptionCommand]:
        """Time has passed."""
        if self.due is None:
            return []
        if now >= self._deadline:
            return self._refuse(_TOO_LONG, 2)
        if self._answer_by is None or now < self._answer_by:
            return []
        self._answer_by = None
        return self._not_there(now) if self._step is _Step.ASKING else self._read(Local.NOT_HERE)

    def _here(self, local: Local) -> list[ResumptionCommand]:
        if self._attach:
            return self._refuse(_OWNED)
        match local:
            case Local.DETACHED:
                return self._decide(ServeHere())
            case Local.ATTACHED:
                return self._refuse(_BUSY, 2)
            case _:
                return self._refuse(_RECOVERING, 1)

    def _read(self, local: Local) -> list[ResumptionCommand]:
        if local is not Local.NOT_HERE:
            return self._here(local)
        self._step, self._answer_by = _Step.READING, None
        return [ReadJournal()]

    def _ask(self, node: str, now: float) -> list[ResumptionCommand]:
        self._step, self._asked = _Step.ASKING, node
        self._answer_by = now + self._limits.ask_within
        return [Ask(node)]

    def _wait(self, now: float) -> list[ResumptionCommand]:
        self._step, self._answer_by = _Step.WAITING, max(self._settled_at, now)
        return []

    def _not_there(self, now: float) -> list[ResumptionCommand]:
        """It is not where it should be: where else it may be, or nowhere."""
        node, self._known_node = self._known_node, None
        if node is not None:
            return self._ask(node, now)
        # Without the journal nobody knows who owned it last.
        return self._take() if self._epoch else self._refuse(_UNREADABLE, 2)

    def _take(self) -> list[ResumptionCommand]:
        self._step, self._answer_by = _Step.TAKING, None
        return [TakeOver(self._epoch)]

    def _refuse(self, reason: EndReason, retry_after: int | None = None) -> list[ResumptionCommand]:
        return self._decide(Refuse(reason, retry_after))

    def _decide(self, command: ResumptionCommand) -> list[ResumptionCommand]:
        self._step, self._answer_by = _Step.OVER, None
        return [command]
