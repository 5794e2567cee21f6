"""Takes up the tool calls of an earlier session where they were left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from orchestrator.core.inputs import RealtimeModelSendRawMessage
from orchestrator.core.tool_calls import ToolCall
from orchestrator.errors import ModelBehaviorError, UserError
from orchestrator.handoffs import Handoff
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.dispatch import DispatchTable
from orchestrator.realtime.events import RealtimeToolEnd
from orchestrator.realtime.handoffs import as_handoff
from orchestrator.realtime.inside import Inside
from orchestrator.realtime.resumption import (
    REJECTION_MESSAGE,
    AnsweredCall,
    PendingCall,
    Resumption,
    ResumptionPlan,
    find_agent,
)
from orchestrator.realtime.tool_calling import ToolCalling

__all__ = ["answer_known", "resume_calls"]


def answer_known(inside: Inside, plan: ResumptionPlan) -> None:
    """Close the calls that are answered without being run. To be done first: their answers stand in the seed already, and must
    be kept before they show anywhere.
    """
    for answered in plan.answered:
        call = _restored(inside, answered.call)
        if call is not None:
            if inside.ledger is not None:
                inside.ledger.answered(call, answered.output, answered.error_code)
            # The model is told with the seed, which asks for no response.
            inside.core.tool_calls.answered(call.call_id, answered.output)


def resume_calls(inside: Inside, tools: ToolCalling, resumption: Resumption, plan: ResumptionPlan) -> None:
    """Deal with the calls of a session whose model was told the plan's seed, and ask for the response that is owed.

    Where an agent or a tool does not exist any more, its call is answered so, and the session goes on.
    """
    start = resumption.starting_agent or inside.agent
    for decision in resumption.decisions:
        rejection = None if decision.approved else decision.message or REJECTION_MESSAGE
        for agent in _agents(inside, start, decision.agent):
            tools.decide_for_all(agent, decision.tool, rejection)
    for answered in plan.answered:
        _report(inside, start, answered)
    # All of them before the first is dealt with: an answer must know of the others that its response made.
    restored = [(pending, _restored(inside, pending)) for pending in plan.open]
    for pending, call in restored:
        if call is not None:
            tables = [_offers(agent) for agent in _agents(inside, start, pending.agent) if agent is not inside.agent]
            # Of the agent that speaks, what is enabled is known already.
            tools.start_from(call, (*tables, inside.table), pending.stage)
    if plan.respond:
        inside.submit(RealtimeModelSendRawMessage({"type": "response.create"}))


def _agents(inside: Inside, start: RealtimeAgent[Any], name: str) -> Iterator[RealtimeAgent[Any]]:
    """Yield the agent of this name if it can be found. The one that speaks comes first: names do not tell agents apart."""
    if name in ("", inside.agent.name):
        yield inside.agent
        return
    try:
        yield find_agent(start, name)
    except UserError as error:
        inside.fault(error)


def _offers(agent: RealtimeAgent[Any]) -> DispatchTable:
    """Return all that an agent can offer. What it offered in the moment of the call is not known any more."""
    handoffs: dict[str, Handoff] = {}
    for handoff in map(as_handoff, agent.handoffs):
        if handoff is not None:
            handoffs.setdefault(handoff.tool_name, handoff)
    tools = {tool.name: tool for tool in reversed(agent.tools) if tool.name not in handoffs}
    return DispatchTable(agent, tools.values(), handoffs.values())


def _restored(inside: Inside, pending: PendingCall) -> ToolCall | None:
    try:
        return inside.core.tool_calls.requested(
            pending.call_id, pending.item_id, pending.name, pending.arguments, pending.response_id
        )
    except ModelBehaviorError as error:
        inside.fault(error)
        return None


def _report(inside: Inside, start: RealtimeAgent[Any], answered: AnsweredCall) -> None:
    """Tell the program of a call that is answered without being run."""
    pending = answered.call
    agents = [*_agents(inside, start, pending.agent), inside.agent]
    found = next(((agent, tool) for agent in agents for tool in agent.tools if tool.name == pending.name), None)
    if found is None:
        inside.fault({"message": f"The call of {pending.name} cannot be carried on", "call_id": pending.call_id})
        return
    agent, tool = found
    inside.hub.emit(
        RealtimeToolEnd(
            agent,
            tool,
            pending.arguments,
            answered.output,
            inside.info,
            pending.call_id,
            ok=False,
            error_code=answered.error_code,
        )
    )
