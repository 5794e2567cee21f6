"""A session that begins in the middle of an earlier one, of which nothing but its record is left.

Pure: from what is known of the conversation follows what the new model is told at once, which tool calls are still to be dealt
with, and whether the model owes a response.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from orchestrator.core.call_items import short_id
from orchestrator.core.items import AssistantMessageItem, RealtimeItem, RealtimeToolCallItem
from orchestrator.errors import UserError
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.seeding import UNKNOWN_OUTCOME, Seed, plan_seed
from orchestrator.tool_runner import reachable_agents
from orchestrator.usage import Usage

__all__ = [
    "OUTCOME_UNKNOWN",
    "REJECTION_MESSAGE",
    "AnsweredCall",
    "CallStage",
    "PendingCall",
    "Resumption",
    "ResumptionPlan",
    "StandingApproval",
    "find_agent",
    "plan_resumption",
]

REJECTION_MESSAGE = "Tool execution was not approved."
OUTCOME_UNKNOWN = "outcome_unknown"


class CallStage(Enum):
    """How far a tool call had come."""

    REQUESTED = "requested"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    REJECTED = "rejected"
    RUNNING = "running"


class PendingCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that had no answer. `agent` is the name of the agent that offered the tool, empty where that is not known.

    One that was RUNNING is run again only if it is `idempotent`. `message` is what the model is to be told of a rejection.
    """

    call_id: str
    item_id: str
    name: str
    arguments: str
    response_id: str | None = None
    stage: CallStage = CallStage.REQUESTED
    idempotent: bool = False
    message: str | None = None
    agent: str = ""


class StandingApproval(msgspec.Struct, frozen=True):
    """What a person decided for all further calls of one tool of one agent."""

    agent: str
    tool: str
    approved: bool
    message: str | None = None


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the earlier session.

    `items` is its history, oldest first; answers are in their calls' items. `cut_response` is the response that was under way,
    `unanswered` says whether the model owes one for another reason: a user turn, or answers to all calls of a response.
    Agents of calls and decisions are looked for from `starting_agent` on, or else from the session's own agent.
    """

    items: tuple[RealtimeItem, ...] = ()
    calls: tuple[PendingCall, ...] = ()
    decisions: tuple[StandingApproval, ...] = ()
    usage: Usage = msgspec.field(default_factory=Usage)
    cut_response: str | None = None
    unanswered: bool = False
    starting_agent: RealtimeAgent[Any] | None = None


@dataclass(frozen=True, slots=True)
class AnsweredCall:
    """A call that is not run (again): the model is told this output in the seed."""

    call: PendingCall
    output: str
    error_code: str


@dataclass(frozen=True, slots=True)
class ResumptionPlan:
    """What to do, in this order: keep the answers, give the seed, deal with the open calls, ask for a response."""

    seed: Seed
    answered: tuple[AnsweredCall, ...]
    open: tuple[PendingCall, ...]
    respond: bool


def plan_resumption(resumption: Resumption) -> ResumptionPlan:
    """Plan how a session goes on. The same resumption always leads to the same plan, so a crash in between does no harm.

    The response that was cut, or is owed, is asked for at once, unless it made calls that are still open: then the last of
    their answers asks for it, as it would have before. Raises UserError for two items with one id.
    """
    done = {short_id(item.call_id) for item in _calls_of(resumption.items) if item.call_id and item.output is not None}
    calls = tuple(call for call in resumption.calls if call.call_id not in done)
    answered = tuple(answer for answer in map(_answer_of, calls) if answer is not None)
    settled = {answer.call.call_id for answer in answered}
    still_open = tuple(call for call in calls if call.call_id not in settled)
    closed = [call for call in resumption.calls if call not in still_open]
    waited_for = {call.response_id for call in still_open}
    return ResumptionPlan(
        seed=_seed(resumption.items, answered, still_open),
        answered=answered,
        open=still_open,
        respond=(
            resumption.unanswered
            or (resumption.cut_response is not None and resumption.cut_response not in waited_for)
            or any(call.response_id not in waited_for for call in closed)
        ),
    )


def find_agent(starting_agent: RealtimeAgent[Any], name: str) -> RealtimeAgent[Any]:
    """Return the agent of this name that is reached from another one over its handoffs; of several the nearest.

    Raises UserError where there is none, or only behind a handoff that finds out its agent when it is carried out.
    """
    agents = [agent for agent in reachable_agents(starting_agent) if isinstance(agent, RealtimeAgent)]
    found = next((agent for agent in agents if agent.name == name), None)
    if found is not None:
        return found
    hidden = [entry for agent in agents for entry in agent.handoffs if getattr(entry, "agent", entry) is None]
    if any(entry.agent_name == name for entry in hidden):
        raise UserError(
            f"the agent {name!r} cannot be found beforehand: its handoff names no agent; make it with realtime_handoff(agent)"
        )
    known = ", ".join(sorted({repr(agent.name) for agent in agents}))
    raise UserError(f"no handoff leads from {starting_agent.name!r} to an agent called {name!r}; there are {known}")


def _calls_of(items: Iterable[RealtimeItem]) -> Iterator[RealtimeToolCallItem]:
    return (item for item in items if isinstance(item, RealtimeToolCallItem))


def _answer_of(call: PendingCall) -> AnsweredCall | None:
    if call.stage is CallStage.REJECTED:
        return AnsweredCall(call, REJECTION_MESSAGE if call.message is None else call.message, "rejected")
    if call.stage is CallStage.RUNNING and not call.idempotent:
        return AnsweredCall(call, UNKNOWN_OUTCOME, OUTCOME_UNKNOWN)
    return None


def _seed(items: Iterable[RealtimeItem], answered: Iterable[AnsweredCall], still_open: Iterable[PendingCall]) -> Seed:
    """Seed the model. Our own history keeps what the model cannot be told, such as a turn whose words never came."""
    outputs = {answer.call.call_id: answer.output for answer in answered}
    pending = {call.call_id for call in still_open}
    whole = [_with_output(item, outputs) for item in items]
    present = {short_id(item.call_id) for item in _calls_of(whole) if item.call_id}
    for call in (*(answer.call for answer in answered), *still_open):
        if call.call_id not in present:
            # Its item was lost on the way; an answer needs its question.
            lost = RealtimeToolCallItem(
                item_id=call.item_id, call_id=call.call_id, name=call.name, arguments=call.arguments, status="in_progress"
            )
            whole.append(_with_output(lost, outputs))
    named = {item.call_id for item in _calls_of(whole) if item.call_id and short_id(item.call_id) in pending}
    told = plan_seed(whole, pending=named)
    kept = {item.item_id: item for item in told.items}
    return Seed([_kept(item, kept.get(short_id(item.item_id))) for item in whole], told.messages)


def _with_output(item: RealtimeItem, outputs: dict[str, str]) -> RealtimeItem:
    if not isinstance(item, RealtimeToolCallItem) or item.call_id is None or item.output is not None:
        return item
    output = outputs.get(short_id(item.call_id))
    return item if output is None else msgspec.structs.replace(item, output=output, status="completed")


def _kept(item: RealtimeItem, told: RealtimeItem | None) -> RealtimeItem:
    """Return an item as our history goes on with it: as it is, but for what cannot be under way any more."""
    if told is not None:
        return msgspec.structs.replace(told, previous_item_id=item.previous_item_id)
    if isinstance(item, AssistantMessageItem) and item.status == "in_progress":
        item = msgspec.structs.replace(item, status="incomplete")
    return msgspec.structs.replace(item, item_id=short_id(item.item_id))
