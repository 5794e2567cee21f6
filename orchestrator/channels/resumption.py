"""From a call's journal to the session that goes on with it."""

from __future__ import annotations

from typing import Any

from orchestrator.core.call_items import short_id
from orchestrator.core.items import RealtimeItem, RealtimeToolCallItem
from orchestrator.journal.state import CallState, OpenToolCall
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.resumption import CallStage, PendingCall, Resumption, StandingApproval
from orchestrator.usage import Usage

__all__ = ["resumption_of"]


def resumption_of(state: CallState, *, starting_agent: RealtimeAgent[Any] | None = None) -> Resumption:
    """Return what a new session must know of a call, before or after the call was claimed in the journal.

    `starting_agent` is the service's own, from which the agents of open calls and standing decisions are found; the session's
    agent is `find_agent(starting_agent, state.agent)`. Raises msgspec.ValidationError, KeyError or TypeError for items that
    make no sense, as `CallState.history` does.
    """
    items = tuple(state.history)
    return Resumption(
        items=items,
        calls=(*map(_pending, state.tool_calls.values()), *_unnoted(state, items)),
        decisions=tuple(StandingApproval(known.agent, known.tool, known.approved, known.message) for known in state.decisions),
        usage=Usage(state.requests, state.input_tokens, state.output_tokens, state.total_tokens),
        cut_response=state.response_id,
        unanswered=state.unanswered,
        starting_agent=starting_agent,
    )


def _pending(call: OpenToolCall) -> PendingCall:
    return PendingCall(
        call_id=short_id(call.call_id),
        item_id=short_id(call.item_id),
        name=call.name,
        arguments=call.arguments,
        response_id=call.response_id,
        stage=CallStage(call.stage.value),
        idempotent=call.idempotent,
        message=call.message,
        agent=call.agent,
    )


def _unnoted(state: CallState, items: tuple[RealtimeItem, ...]) -> list[PendingCall]:
    """Return the calls of which nothing but the item was kept: none of them has begun.

    A call that a client put into the conversation is completed, and its output is the client's affair.
    """
    return [
        PendingCall(
            call_id=short_id(item.call_id),
            item_id=short_id(item.item_id),
            name=item.name,
            arguments=item.arguments,
            response_id=state.response_id,
            agent=state.agent,
        )
        for item in items
        if isinstance(item, RealtimeToolCallItem)
        and item.call_id
        and item.output is None
        and item.status == "in_progress"
        and not {item.call_id, short_id(item.call_id)} & state.tool_calls.keys()
    ]
