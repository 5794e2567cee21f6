"""A call as its journal tells it: what a new owner needs to go on with it.

Pure. Applying the entries in order gives the state; a state written out and read back is equal to itself. Unknown facts change
nothing, and facts that do not fit (a tool that answers a call nobody asked for) are ignored, since a recovery must not fail for
the sake of a detail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

import msgspec

from orchestrator.core.call_items import short_id
from orchestrator.core.items import RealtimeItem
from orchestrator.errors import EndReason
from orchestrator.journal.entries import (
    AgentChanged,
    ApprovalAsked,
    ApprovalGiven,
    Body,
    CallEnded,
    CallStarted,
    ContextChanged,
    Entry,
    ItemDeleted,
    ItemWritten,
    LegChanged,
    ResponseEnded,
    ResponseStarted,
    Snapshot,
    TakenOver,
    ToolAnswered,
    ToolRequested,
    ToolStarted,
    UnknownBody,
    UsageCounted,
    decode_body,
    encode_legibly,
)
from orchestrator.journal.items import item_of

__all__ = ["CallState", "OpenToolCall", "StandingDecision", "ToolStage", "UnknownOutcome", "replay"]

# Why a call was answered although it may have taken effect.
_UNKNOWN = ("outcome_unknown", "tool_lost")
_MOST_UNKNOWN = 100


class ToolStage(Enum):
    """How far a tool call had come."""

    REQUESTED = "requested"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    REJECTED = "rejected"
    RUNNING = "running"


class OpenToolCall(msgspec.Struct, kw_only=True):
    """A tool call that the model has no answer to yet.

    In stage RUNNING its outcome is unknown to a new owner, who may run it again only if it is `idempotent`.
    """

    call_id: str
    item_id: str
    name: str
    arguments: str
    response_id: str | None = None
    stage: ToolStage = ToolStage.REQUESTED
    idempotent: bool = False
    message: str | None = None
    # The agent that offered the tool; empty where older code did not say.
    agent: str = ""


class UnknownOutcome(msgspec.Struct, frozen=True):
    """A tool call that may have taken effect, or not: nobody heard of its end. `time` (Unix seconds) is when that was known."""

    call_id: str
    name: str
    arguments: str
    code: str
    time: float


class StandingDecision(msgspec.Struct, frozen=True):
    """A decision that holds for all further calls of one tool by one agent."""

    agent: str
    tool: str
    approved: bool
    message: str | None = None


class CallState(msgspec.Struct, kw_only=True):
    """Everything that a call's owner must know, as of `last_seq`."""

    session_id: str
    channel: str = ""
    agent: str = ""
    peer: str = ""
    context: msgspec.Raw = msgspec.Raw(b"null")
    started_at: float = 0.0
    epoch: int = 0
    writer: str = ""
    node: str = ""
    last_seq: int = 0
    takeovers: int = 0
    order: list[str] = []
    items: dict[str, dict[str, Any]] = {}
    tool_calls: dict[str, OpenToolCall] = {}
    decisions: list[StandingDecision] = []
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    requests: int = 0
    response_id: str | None = None
    # The response that ended with a former owner, until another one begins.
    cut_response: str | None = None
    # Does the model owe a response: to a user turn, or to answers of tools?
    unanswered: bool = False
    # The latest, for whoever has to look after them.
    unknown_outcomes: list[UnknownOutcome] = []
    # What names a leg outside: the carrier's call, the SIP call.
    references: dict[str, str] = {}
    lost_legs: list[str] = []
    end: EndReason | None = None

    @property
    def history(self) -> list[RealtimeItem]:
        """The items of the conversation, in order."""
        return [item_of(self.items[item_id]) for item_id in self.order]

    def apply(self, entry: Entry) -> None:
        """Take in the next entry. Raises JournalFormatError for one that cannot be read."""
        self.take(decode_body(entry), entry)

    def take(self, body: Body | UnknownBody, entry: Entry) -> None:
        """Take in an entry whose body is at hand already."""
        self.last_seq = entry.seq
        self.epoch, self.writer = entry.epoch, entry.writer
        handler = _HANDLERS.get(type(body))
        if handler is not None:
            handler(self, body, entry)

    def to_json(self) -> bytes:
        """Encode it, for people and for comparing."""
        return encode_legibly(self)

    def _on_started(self, body: CallStarted, entry: Entry) -> None:
        self.channel, self.agent, self.peer = body.channel, body.agent, body.peer
        self.context = body.context
        self.started_at = entry.time

    def _on_taken_over(self, body: TakenOver, entry: Entry) -> None:
        del entry
        self.node = body.node
        self.takeovers += 1
        if self.response_id is not None:
            # It ended with the model session of the owner before. If it made calls, the last answer asks for the next one.
            self.unanswered |= not self._is_waited_for(self.response_id)
            self.cut_response, self.response_id = self.response_id, None

    def _on_item(self, body: ItemWritten, entry: Entry) -> None:
        del entry
        item_id = str(body.item["item_id"])
        if item_id not in self.items:
            self.unanswered |= body.item.get("role") == "user"
            index = self.order.index(body.after) + 1 if body.after in self.items else (0 if body.after is None else None)
            # Its neighbour was deleted while this one was on its way: the end is the best that is known.
            self.order.insert(len(self.order) if index is None else index, item_id)
        self.items[item_id] = body.item

    def _on_item_deleted(self, body: ItemDeleted, entry: Entry) -> None:
        del entry
        if self.items.pop(body.item_id, None) is not None:
            self.order.remove(body.item_id)

    def _on_tool_requested(self, body: ToolRequested, entry: Entry) -> None:
        del entry
        if body.response_id is not None and body.response_id == self.response_id:
            # A response goes on calling: what answers to its earlier calls asked for is now up to this one's.
            self.unanswered = False
        self.tool_calls[body.call_id] = OpenToolCall(
            call_id=body.call_id,
            item_id=body.item_id,
            name=body.name,
            arguments=body.arguments,
            response_id=body.response_id,
            agent=body.agent,
        )

    def _on_approval_asked(self, body: ApprovalAsked, entry: Entry) -> None:
        del entry
        call = self.tool_calls.get(body.call_id)
        if call is not None:
            call.stage = ToolStage.AWAITING_APPROVAL

    def _on_approval_given(self, body: ApprovalGiven, entry: Entry) -> None:
        del entry
        call = self.tool_calls.get(body.call_id)
        if call is None:
            return
        call.stage = ToolStage.APPROVED if body.approved else ToolStage.REJECTED
        call.message = body.message
        if body.always:
            agent = call.agent or self.agent
            self.decisions = [known for known in self.decisions if (known.agent, known.tool) != (agent, call.name)]
            self.decisions.append(StandingDecision(agent, call.name, body.approved, body.message))

    def _on_tool_started(self, body: ToolStarted, entry: Entry) -> None:
        del entry
        call = self.tool_calls.get(body.call_id)
        if call is not None:
            call.stage = ToolStage.RUNNING
            call.idempotent = body.idempotent

    def _on_tool_answered(self, body: ToolAnswered, entry: Entry) -> None:
        call = self._answer(body.call_id, body.output)
        if call is not None and body.error_code in _UNKNOWN and not call.idempotent:
            known = UnknownOutcome(call.call_id, call.name, call.arguments, str(body.error_code), entry.time)
            self.unknown_outcomes = [*self.unknown_outcomes, known][-_MOST_UNKNOWN:]

    def _on_agent(self, body: AgentChanged, entry: Entry) -> None:
        del entry
        self.agent = body.agent
        if body.call_id is not None:
            self._answer(body.call_id, body.output)

    def _on_context(self, body: ContextChanged, entry: Entry) -> None:
        del entry
        self.context = body.context

    def _on_response_started(self, body: ResponseStarted, entry: Entry) -> None:
        del entry
        self.response_id, self.cut_response = body.response_id, None
        self.unanswered = False

    def _on_response_ended(self, body: ResponseEnded, entry: Entry) -> None:
        del entry
        if self.response_id == body.response_id:
            self.response_id = None
        if self.cut_response == body.response_id:
            self.cut_response = None

    def _on_usage(self, body: UsageCounted, entry: Entry) -> None:
        del entry
        self.requests += body.requests
        self.input_tokens += body.input_tokens
        self.output_tokens += body.output_tokens
        self.total_tokens += body.total_tokens

    def _on_leg(self, body: LegChanged, entry: Entry) -> None:
        del entry
        if body.reference is not None:
            self.references[body.leg] = body.reference
        self.lost_legs = [leg for leg in self.lost_legs if leg != body.leg]
        if body.state == "lost":
            self.lost_legs.append(body.leg)

    def _on_snapshot(self, body: Snapshot, entry: Entry) -> None:
        told = msgspec.json.decode(body.state, type=CallState)
        for name in self.__struct_fields__:
            if name not in ("session_id", "last_seq", "epoch", "writer"):
                setattr(self, name, getattr(told, name))

    def _on_ended(self, body: CallEnded, entry: Entry) -> None:
        del entry
        self.end = body.reason
        self.unanswered = False

    def _answer(self, call_id: str, output: str) -> OpenToolCall | None:
        """A call has its output, which its item shows from now on. Returns the call, None where it is not open."""
        call = self.tool_calls.pop(call_id, None)
        if call is None:
            return None
        self.unanswered |= not self._is_waited_for(call.response_id)
        item_id = call.item_id if call.item_id in self.items else self._item_of(call_id)
        item = self.items.get(item_id)
        if item is not None and item.get("output") is None:
            self.items[item_id] = {**item, "output": output, "status": "completed"}
        return call

    def _item_of(self, call_id: str) -> str:
        """Return the item of a call, which may have another id since an owner had to make it short."""
        found = (item_id for item_id, item in self.items.items() if short_id(str(item.get("call_id"))) == call_id)
        return next(found, "")

    def _is_waited_for(self, response_id: str | None) -> bool:
        """Does a call of this response have no answer yet? Then the model is asked for the next response when it has one."""
        return any(call.response_id == response_id for call in self.tool_calls.values())


_HANDLERS: dict[type, Callable[[CallState, Any, Entry], None]] = {
    CallStarted: CallState._on_started,
    TakenOver: CallState._on_taken_over,
    ItemWritten: CallState._on_item,
    ItemDeleted: CallState._on_item_deleted,
    ToolRequested: CallState._on_tool_requested,
    ApprovalAsked: CallState._on_approval_asked,
    ApprovalGiven: CallState._on_approval_given,
    ToolStarted: CallState._on_tool_started,
    ToolAnswered: CallState._on_tool_answered,
    AgentChanged: CallState._on_agent,
    ContextChanged: CallState._on_context,
    ResponseStarted: CallState._on_response_started,
    ResponseEnded: CallState._on_response_ended,
    UsageCounted: CallState._on_usage,
    LegChanged: CallState._on_leg,
    Snapshot: CallState._on_snapshot,
    CallEnded: CallState._on_ended,
}


def replay(session_id: str, entries: Iterable[Entry]) -> CallState:
    """Return the state that these entries lead to. Raises JournalFormatError for one that cannot be read."""
    state = CallState(session_id=session_id)
    for entry in entries:
        state.apply(entry)
    return state
