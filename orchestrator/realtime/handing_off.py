"""Carries a handoff out: the target's settings, the filter, the switch, the answer to the model's call."""

from __future__ import annotations

from typing import Any

from orchestrator.callables import call_user_function
from orchestrator.core.inputs import RealtimeModelSendRawMessage, RealtimeModelSendSessionUpdate
from orchestrator.core.tool_calls import ToolCall
from orchestrator.errors import OrchestratorError, UserError
from orchestrator.handoffs import Handoff, HandoffInputData
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.dispatch import agent_settings
from orchestrator.realtime.events import RealtimeHandoffEvent
from orchestrator.realtime.hooks_caller import HooksCaller
from orchestrator.realtime.inside import Inside
from orchestrator.tool_runner import tool_output_text

__all__ = ["hand_off"]


async def hand_off(inside: Inside, hooks: HooksCaller, call: ToolCall, handoff: Handoff) -> None:
    """Carry out the handoff that the model asked for; whatever fails leaves the old agent in place and answers the call."""
    source = inside.agent
    try:
        target = await _target(inside, handoff, call)
        settings, table = await agent_settings(target, inside.context, inside.base_settings, {})
        removed = await _filtered_out(inside, handoff, call)
        if inside.closed:
            return
        # Before the switch, since the model may refuse them. Nothing can come in between: from here on nothing is awaited.
        inside.submit(RealtimeModelSendSessionUpdate(settings))
    except Exception as error:  # noqa: BLE001 - the program's callbacks may raise anything
        text = error.message if isinstance(error, OrchestratorError) else "The handoff failed."
        inside.perform(inside.core.tool_finished(call.call_id, text))
        inside.fault(error)
        return
    inside.take_over(table)
    inside.hub.emit(RealtimeHandoffEvent(source, target, inside.info))
    hooks.handed_off(source, target)
    for item_id in removed:
        inside.submit(RealtimeModelSendRawMessage({"type": "conversation.item.delete", "item_id": item_id}))
    inside.perform(inside.core.tool_finished(call.call_id, tool_output_text({"assistant": target.name})))


async def _target(inside: Inside, handoff: Handoff, call: ToolCall) -> RealtimeAgent[Any]:
    target = await handoff.on_invoke_handoff(inside.context, call.arguments)
    if not isinstance(target, RealtimeAgent):
        raise UserError(f"the handoff {call.name} returned a {type(target).__name__}, not a RealtimeAgent")
    return target


async def _filtered_out(inside: Inside, handoff: Handoff, call: ToolCall) -> list[str]:
    """Return the ids of the items that the handoff's filter leaves out, oldest first; the call itself always stays.

    Raises UserError when the filter returns something else, or items that are not of this conversation.
    """
    if handoff.input_filter is None:
        return []
    history: list[Any] = inside.core.conversation.items
    before = tuple(item for item in history if item.item_id != call.item_id)
    asking = tuple(item for item in history if item.item_id == call.item_id)
    data = HandoffInputData(input_history=before, new_items=asking, run_context=inside.context)
    kept = await call_user_function(handoff.input_filter, data)
    if not isinstance(kept, HandoffInputData):
        raise UserError(f"the input_filter of {handoff.tool_name} must return a HandoffInputData")
    kept_ids = {item.item_id for item in (*kept.input_history, *kept.pre_handoff_items, *kept.new_items)}
    if not kept_ids <= {item.item_id for item in history}:
        raise UserError(f"the input_filter of {handoff.tool_name} added items: it can only leave some out")
    return [item.item_id for item in before if item.item_id not in kept_ids]
