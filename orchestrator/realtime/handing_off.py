"""Carries a handoff out: the target's settings, the filter, the switch, the answer to the model's call."""

from __future__ import annotations

from functools import partial
from typing import Any

from orchestrator.callables import call_user_function
from orchestrator.core.inputs import RealtimeModelSendRawMessage
from orchestrator.core.tool_calls import ToolCall
from orchestrator.errors import OrchestratorError, UserError
from orchestrator.handoffs import Handoff, HandoffInputData
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.agent_switch import AgentSwitch
from orchestrator.realtime.events import RealtimeHandoffEvent
from orchestrator.realtime.hooks_caller import HooksCaller
from orchestrator.realtime.inside import Inside
from orchestrator.realtime.tracing import Step
from orchestrator.tool_runner import tool_output_text

__all__ = ["HandingOff", "handoff_output"]


def handoff_output(agent: str) -> str:
    """Return what the model is told of a handoff to the agent of this name."""
    return tool_output_text({"assistant": agent})


class HandingOff:
    """The handoffs of one session."""

    def __init__(self, inside: Inside, hooks: HooksCaller, switch: AgentSwitch) -> None:
        self._inside = inside
        self._hooks = hooks
        self._switch = switch

    async def carry_out(self, call: ToolCall, handoff: Handoff, *, again: bool = False) -> None:
        """Carry out the handoff that the model asked for; whatever fails leaves the old agent in place and answers the call.

        With `again` it had begun before a crash: what it calls of the program is then not called a second time.
        """
        with self._inside.spans.handoff(call, source=self._inside.agent.name) as step:
            await self._carry_out(call, handoff, step, again=again)

    async def _carry_out(self, call: ToolCall, handoff: Handoff, step: Step, *, again: bool) -> None:
        inside = self._inside
        try:
            target = await self._target(handoff, call, again=again)
            prepared = await self._switch.prepare(target)
            removed = await self._filtered_out(handoff, call)
            if inside.closed:
                return
            await self._switch.make(prepared, partial(self._announce, call.call_id))
        except Exception as error:  # noqa: BLE001 - the program's callbacks may raise anything
            text = error.message if isinstance(error, OrchestratorError) else "The handoff failed."
            step.finished(error=getattr(error, "code", type(error).__name__))
            inside.answer(call, text, "handoff_failed")
            inside.fault(error)
            return
        step.finished(target=target.name)
        for item_id in removed:
            inside.submit(RealtimeModelSendRawMessage({"type": "conversation.item.delete", "item_id": item_id}))
        inside.answer(call, handoff_output(target.name))

    def _announce(self, call_id: str, source: RealtimeAgent[Any], target: RealtimeAgent[Any]) -> None:
        self._inside.hub.emit(RealtimeHandoffEvent(source, target, self._inside.info, call_id))
        self._hooks.handed_off(source, target)

    async def _target(self, handoff: Handoff, call: ToolCall, *, again: bool) -> RealtimeAgent[Any]:
        if again and not handoff.idempotent and handoff.agent is not None:
            target = handoff.agent
        else:
            target = await handoff.on_invoke_handoff(self._inside.context, call.arguments)
        if not isinstance(target, RealtimeAgent):
            raise UserError(f"the handoff {call.name} returned a {type(target).__name__}, not a RealtimeAgent")
        return target

    async def _filtered_out(self, handoff: Handoff, call: ToolCall) -> list[str]:
        """Return the ids of the items that the handoff's filter leaves out, oldest first.

        The call itself always stays, and so does any other that is not answered yet: its output will need it. Raises UserError
        when the filter returns something else, or items that are not of this conversation.
        """
        if handoff.input_filter is None:
            return []
        core = self._inside.core
        history: list[Any] = core.conversation.items
        before = tuple(item for item in history if item.item_id != call.item_id)
        asking = tuple(item for item in history if item.item_id == call.item_id)
        data = HandoffInputData(input_history=before, new_items=asking, run_context=self._inside.context)
        kept = await call_user_function(handoff.input_filter, data)
        if not isinstance(kept, HandoffInputData):
            raise UserError(f"the input_filter of {handoff.tool_name} must return a HandoffInputData")
        kept_ids = {item.item_id for item in (*kept.input_history, *kept.pre_handoff_items, *kept.new_items)}
        if not kept_ids <= {item.item_id for item in history}:
            raise UserError(f"the input_filter of {handoff.tool_name} added items: it can only leave some out")
        kept_ids |= {open_call.item_id for open_call in core.tool_calls.open}
        return [item.item_id for item in before if item.item_id not in kept_ids]
