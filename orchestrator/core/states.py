"""The lifecycles of a conversation: one enum of states, one of signals, one transition table each.

All changes of state go through `Machine.signal`; a pair that no table lists raises and changes nothing. Where signals come
from outside (a server may send anything in any order) the table lists every pair, so that only a mistake of ours can raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

from orchestrator.errors import IllegalTransitionError

__all__ = [
    "RESPONSE",
    "SESSION",
    "TOOL_CALL",
    "TURN",
    "Machine",
    "ResponseSignal",
    "ResponseState",
    "SessionSignal",
    "SessionState",
    "ToolCallSignal",
    "ToolCallState",
    "TurnSignal",
    "TurnState",
]

S = TypeVar("S", bound=Enum)
G = TypeVar("G", bound=Enum)


class Machine(Generic[S, G]):
    """A state and the table that says how it may change."""

    __slots__ = ("_table", "state")

    def __init__(self, initial: S, table: Mapping[tuple[S, G], S]) -> None:
        self.state = initial
        self._table = table

    def signal(self, signal: G) -> S:
        """Move on and return the new state. Raises IllegalTransitionError, changing nothing, for an unlisted pair."""
        try:
            self.state = self._table[self.state, signal]
        except KeyError:
            name = type(self.state).__name__
            raise IllegalTransitionError(f"{name}: {signal.name} is not allowed in {self.state.name}") from None
        return self.state

    def allows(self, signal: G) -> bool:
        """Tell whether the signal is listed for the present state."""
        return (self.state, signal) in self._table


class SessionState(Enum):
    """The life of a session, from the caller's socket to its end."""

    NEW = "new"
    CONNECTING = "connecting"
    LIVE = "live"
    RENEWING = "renewing"
    DETACHED = "detached"
    DRAINING = "draining"
    ENDED = "ended"


class SessionSignal(Enum):
    """What changes a session's state."""

    CONNECT = "connect"
    CONNECTED = "connected"
    MODEL_LOST = "model_lost"
    CALLER_LOST = "caller_lost"
    CALLER_BACK = "caller_back"
    DRAIN = "drain"
    END = "end"


SESSION: Mapping[tuple[SessionState, SessionSignal], SessionState] = {
    (SessionState.NEW, SessionSignal.CONNECT): SessionState.CONNECTING,
    (SessionState.NEW, SessionSignal.END): SessionState.ENDED,
    (SessionState.CONNECTING, SessionSignal.CONNECTED): SessionState.LIVE,
    (SessionState.CONNECTING, SessionSignal.END): SessionState.ENDED,
    (SessionState.LIVE, SessionSignal.MODEL_LOST): SessionState.RENEWING,
    (SessionState.LIVE, SessionSignal.CALLER_LOST): SessionState.DETACHED,
    (SessionState.LIVE, SessionSignal.DRAIN): SessionState.DRAINING,
    (SessionState.LIVE, SessionSignal.END): SessionState.ENDED,
    (SessionState.RENEWING, SessionSignal.CONNECTED): SessionState.LIVE,
    (SessionState.RENEWING, SessionSignal.END): SessionState.ENDED,
    (SessionState.DETACHED, SessionSignal.CALLER_BACK): SessionState.LIVE,
    (SessionState.DETACHED, SessionSignal.END): SessionState.ENDED,
    (SessionState.DRAINING, SessionSignal.END): SessionState.ENDED,
}


class ResponseState(Enum):
    """What we know of the default conversation's response: at most one is ever under way."""

    IDLE = "idle"
    REQUESTED = "requested"
    ACTIVE = "active"
    CANCELLING = "cancelling"


class ResponseSignal(Enum):
    """What changes it. CREATED, DONE and REFUSED come from the model, GAVE_UP from our deadline."""

    REQUEST = "request"
    CREATED = "created"
    DONE = "done"
    CANCEL = "cancel"
    REFUSED = "refused"
    GAVE_UP = "gave_up"
    RESET = "reset"


RESPONSE: Mapping[tuple[ResponseState, ResponseSignal], ResponseState] = {
    (ResponseState.IDLE, ResponseSignal.REQUEST): ResponseState.REQUESTED,
    # The model starts responses by itself when voice activity detection ends a turn.
    (ResponseState.IDLE, ResponseSignal.CREATED): ResponseState.ACTIVE,
    (ResponseState.REQUESTED, ResponseSignal.CREATED): ResponseState.ACTIVE,
    (ResponseState.REQUESTED, ResponseSignal.REFUSED): ResponseState.IDLE,
    (ResponseState.REQUESTED, ResponseSignal.GAVE_UP): ResponseState.IDLE,
    (ResponseState.ACTIVE, ResponseSignal.DONE): ResponseState.IDLE,
    (ResponseState.ACTIVE, ResponseSignal.CANCEL): ResponseState.CANCELLING,
    # A second one means that the end of the first was lost on the way: the newer truth wins.
    (ResponseState.ACTIVE, ResponseSignal.CREATED): ResponseState.ACTIVE,
    (ResponseState.CANCELLING, ResponseSignal.CREATED): ResponseState.ACTIVE,
    (ResponseState.CANCELLING, ResponseSignal.DONE): ResponseState.IDLE,
    # "No active response": it ended by itself and its end is already on the way.
    (ResponseState.CANCELLING, ResponseSignal.REFUSED): ResponseState.ACTIVE,
    **{(state, ResponseSignal.RESET): ResponseState.IDLE for state in ResponseState},
}


class TurnState(Enum):
    """Who has the floor."""

    OPEN = "open"
    CALLER = "caller"
    AGENT_PREPARING = "agent_preparing"
    AGENT = "agent"


class TurnSignal(Enum):
    """What moves the floor; all of it is reported from outside."""

    SPEECH_STARTED = "speech_started"
    SPEECH_STOPPED = "speech_stopped"
    RESPONSE_STARTED = "response_started"
    AUDIO = "audio"
    RESPONSE_ENDED = "response_ended"


TURN: Mapping[tuple[TurnState, TurnSignal], TurnState] = {
    **{(state, TurnSignal.SPEECH_STARTED): TurnState.CALLER for state in TurnState},
    (TurnState.OPEN, TurnSignal.SPEECH_STOPPED): TurnState.OPEN,
    (TurnState.CALLER, TurnSignal.SPEECH_STOPPED): TurnState.OPEN,
    (TurnState.AGENT_PREPARING, TurnSignal.SPEECH_STOPPED): TurnState.AGENT_PREPARING,
    (TurnState.AGENT, TurnSignal.SPEECH_STOPPED): TurnState.AGENT,
    (TurnState.OPEN, TurnSignal.RESPONSE_STARTED): TurnState.AGENT_PREPARING,
    (TurnState.CALLER, TurnSignal.RESPONSE_STARTED): TurnState.CALLER,
    (TurnState.AGENT_PREPARING, TurnSignal.RESPONSE_STARTED): TurnState.AGENT_PREPARING,
    (TurnState.AGENT, TurnSignal.RESPONSE_STARTED): TurnState.AGENT,
    (TurnState.OPEN, TurnSignal.AUDIO): TurnState.AGENT,
    # Audio that was on its way when the caller began to speak does not take the floor back.
    (TurnState.CALLER, TurnSignal.AUDIO): TurnState.CALLER,
    (TurnState.AGENT_PREPARING, TurnSignal.AUDIO): TurnState.AGENT,
    (TurnState.AGENT, TurnSignal.AUDIO): TurnState.AGENT,
    (TurnState.OPEN, TurnSignal.RESPONSE_ENDED): TurnState.OPEN,
    (TurnState.CALLER, TurnSignal.RESPONSE_ENDED): TurnState.CALLER,
    (TurnState.AGENT_PREPARING, TurnSignal.RESPONSE_ENDED): TurnState.OPEN,
    (TurnState.AGENT, TurnSignal.RESPONSE_ENDED): TurnState.OPEN,
}


class ToolCallState(Enum):
    """The life of one tool call; it is answered exactly once or dropped when the session ends."""

    REQUESTED = "requested"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    ANSWERED = "answered"
    DROPPED = "dropped"


class ToolCallSignal(Enum):
    """What changes it."""

    ASK = "ask"
    START = "start"
    ANSWER = "answer"
    DROP = "drop"


TOOL_CALL: Mapping[tuple[ToolCallState, ToolCallSignal], ToolCallState] = {
    (ToolCallState.REQUESTED, ToolCallSignal.START): ToolCallState.RUNNING,
    (ToolCallState.REQUESTED, ToolCallSignal.ASK): ToolCallState.AWAITING_APPROVAL,
    (ToolCallState.AWAITING_APPROVAL, ToolCallSignal.START): ToolCallState.RUNNING,
    # Rejected: it never runs.
    (ToolCallState.AWAITING_APPROVAL, ToolCallSignal.ANSWER): ToolCallState.ANSWERED,
    (ToolCallState.AWAITING_APPROVAL, ToolCallSignal.DROP): ToolCallState.DROPPED,
    # A tool that does not exist, or that a guardrail stopped, is answered without having run.
    (ToolCallState.REQUESTED, ToolCallSignal.ANSWER): ToolCallState.ANSWERED,
    (ToolCallState.REQUESTED, ToolCallSignal.DROP): ToolCallState.DROPPED,
    (ToolCallState.RUNNING, ToolCallSignal.ANSWER): ToolCallState.ANSWERED,
    (ToolCallState.RUNNING, ToolCallSignal.DROP): ToolCallState.DROPPED,
}
