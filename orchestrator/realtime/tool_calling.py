"""Tool calls of a session: approval, guardrails, the run itself, the answer."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestrator.callables import call_user_function
from orchestrator.core.call_items import short_id
from orchestrator.core.events import RealtimeModelToolCallEvent
from orchestrator.core.inputs import RealtimeModelSendToolOutput
from orchestrator.core.tool_calls import Answer, ToolCall
from orchestrator.errors import ToolTimeoutError, UserError
from orchestrator.exceptions import ToolInputGuardrailTripwireTriggered, ToolOutputGuardrailTripwireTriggered
from orchestrator.handoffs import Handoff
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.dispatch import DispatchTable
from orchestrator.realtime.events import RealtimeToolApprovalRequired, RealtimeToolEnd, RealtimeToolStart
from orchestrator.realtime.handing_off import HandingOff
from orchestrator.realtime.hooks_caller import HooksCaller
from orchestrator.realtime.inside import Inside
from orchestrator.realtime.resumption import REJECTION_MESSAGE, CallStage
from orchestrator.run_config import ToolErrorFormatterArgs
from orchestrator.tool import FunctionTool
from orchestrator.tool_context import ToolContext
from orchestrator.tool_guardrails import ToolInputGuardrailData, ToolOutputGuardrailData
from orchestrator.tool_runner import ToolRequest, ToolRunner, apply_context, idempotency_key, pack_context, run_tool

__all__ = ["REJECTION_MESSAGE", "ToolCalling"]

NOT_RECORDED = "{} was not started, since what it does cannot be recorded at present. Try again later."
SECOND_HANDOFF = "Only one handoff can be carried out at a time, and another one was asked for first: this one was not."


@dataclass(slots=True)
class _Work:
    """A call with all that it was dispatched with; a handoff in the meantime changes nothing of it."""

    call: ToolCall
    tool: FunctionTool
    agent: RealtimeAgent[Any]
    context: ToolContext[Any]


@dataclass(slots=True)
class _Result:
    """What became of a call."""

    ok: bool
    value: Any
    text: str
    error_code: str | None = None
    pid: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Decision:
    """For all further calls: approved (None) or rejected with a message."""

    agent: RealtimeAgent[Any]
    rejection: str | None


class ToolCalling:
    """Runs the calls of one session, each in a task of its own, or one after the other with `async_tool_calls=False`.

    `runner` runs the tools that are not bound to the session's own process, `timeout` (seconds) is for tools that set none.
    """

    def __init__(
        self,
        inside: Inside,
        hooks: HooksCaller,
        handing_off: HandingOff,
        runner: ToolRunner | None,
        timeout: float | None,
    ) -> None:
        self._inside = inside
        self._hooks = hooks
        self._handing_off = handing_off
        self._runner = runner
        self._timeout = timeout
        self._waiting: dict[str, _Work] = {}
        # Calls whose output is not sent yet, with what is reported once it is.
        self._unsent: dict[str, RealtimeToolEnd] = {}
        # What a person decided for all further calls of a tool of an agent, which is kept so that no other can get its id.
        self._decided: dict[tuple[int, str], _Decision] = {}
        self._one_at_a_time = asyncio.Lock() if inside.run_config.get("async_tool_calls") is False else None

    def start(self, call: ToolCall) -> None:
        """Deal with a call of the model."""
        # Looked up now: when the task begins, another agent may have taken over.
        self.start_from(call, self._inside.tables_for(call))

    def start_from(self, call: ToolCall, tables: Sequence[DispatchTable], stage: CallStage = CallStage.REQUESTED) -> None:
        """Deal with a call of what one of these tables offers, which has come as far as `stage` before."""
        inside = self._inside
        table = next((table for table in tables if call.name in table.handoffs or call.name in table.tools), None)
        if inside.ledger is not None:
            inside.ledger.requested(call, (table or tables[0]).agent.name)
        if table is None:
            inside.answer(call, f"Tool {call.name} not found", "tool_not_found")
            inside.fault({"message": f"Tool {call.name} not found"})
            return
        handoff = table.handoffs.get(call.name)
        if handoff is not None:
            self._start_handoff(call, handoff, again=stage is CallStage.RUNNING)
            return
        tool, agent = table.tools[call.name], table.agent
        work = _Work(call, tool, agent, self._context_of(call, agent))
        if stage is CallStage.AWAITING_APPROVAL:
            self._ask(work)
        else:
            # What was approved, or had begun, was decided about.
            step = self._decide if stage is CallStage.REQUESTED else self._run
            inside.tasks.spawn(self._deal_with(work, step), f"tool {call.name} {call.call_id}")

    def decide_for_all(self, agent: RealtimeAgent[Any], tool: str, rejection: str | None) -> None:
        """All further calls of this tool by this agent are approved, or else answered with a rejection."""
        self._decided[id(agent), tool] = _Decision(agent, rejection)

    def _context_of(self, call: ToolCall, agent: RealtimeAgent[Any]) -> ToolContext[Any]:
        inside = self._inside
        # By the short form of an id, which is the call's name in a session that goes on with it.
        key = idempotency_key(inside.session_id, short_id(call.call_id))
        return ToolContext(inside.context.context, inside.context.usage, call.name, call.call_id, call.arguments, agent, key)

    def _start_handoff(self, call: ToolCall, handoff: Handoff, *, again: bool) -> None:
        inside = self._inside
        if inside.core.tool_calls.may_hand_off(call):
            inside.tasks.spawn(self._hand_off(call, handoff, again=again), f"handoff {call.name}")
        else:
            inside.answer(call, SECOND_HANDOFF, "second_handoff")

    async def _hand_off(self, call: ToolCall, handoff: Handoff, *, again: bool) -> None:
        ledger = self._inside.ledger
        if ledger is not None:
            # Where it leads is known, so it can be finished by somebody else; what it calls must not be called twice.
            finishable = handoff.agent is not None
            if not await ledger.may_start(call, idempotent=finishable, wait=not handoff.idempotent):
                self._inside.answer(call, NOT_RECORDED.format("The handoff"), "not_recorded")
                return
        await self._handing_off.carry_out(call, handoff, again=again)

    def answer(self, answer: Answer) -> None:
        """Give the model an output."""
        call = answer.call
        event = RealtimeModelToolCallEvent(
            call.name, call.call_id, call.arguments, id=call.item_id, response_id=call.response_id
        )
        output = RealtimeModelSendToolOutput(event, answer.output, answer.start_response)
        self._inside.submit(output, lambda: self._sent(call.call_id))

    def approve(self, call_id: str, *, always: bool) -> None:
        """Let a call that waits run; nothing happens when it does not wait."""
        work = self._take_waiting(call_id)
        if work is None:
            return
        self._note_decision(work, None, approved=True, always=always)
        self._inside.tasks.spawn(self._deal_with(work, self._run), f"tool {work.call.name} {call_id}")

    async def reject(self, call_id: str, *, always: bool, message: str | None) -> None:
        """Answer a call that waits without running it; nothing happens when it does not wait."""
        work = self._take_waiting(call_id)
        if work is None:
            return
        try:
            text = await self._rejection(work, message)
        except asyncio.CancelledError:
            # Nobody has answered the call, so somebody must still be able to.
            self._waiting[call_id] = work
            raise
        self._note_decision(work, text, approved=False, always=always)
        self._finish(work, _Result(ok=False, value=text, text=text, error_code="rejected"))

    def _note_decision(self, work: _Work, rejection: str | None, *, approved: bool, always: bool) -> None:
        """Keep what a person decided, before it has any effect."""
        if self._inside.ledger is not None:
            self._inside.ledger.decided(work.call, approved=approved, always=always, message=rejection)
        if always:
            self.decide_for_all(work.agent, work.tool.name, rejection)

    def _take_waiting(self, call_id: str) -> _Work | None:
        return None if self._inside.closed else self._waiting.pop(call_id, None)

    async def _deal_with(self, work: _Work, step: Callable[[_Work], Awaitable[None]]) -> None:
        if self._one_at_a_time is None:
            await self._answered(work, step)
        else:
            async with self._one_at_a_time:
                await self._answered(work, step)

    async def _answered(self, work: _Work, step: Callable[[_Work], Awaitable[None]]) -> None:
        """See to it that the call is answered, whatever the program's guardrails do."""
        try:
            await step(work)
        except Exception as error:  # noqa: BLE001 - the program's own code
            self._inside.fault(error)
            text = "The tool could not run."
            self._finish(work, _Result(ok=False, value=text, text=text, error_code="tool_failed", pid=os.getpid()))

    async def _decide(self, work: _Work) -> None:
        """Run the call, or ask a person first."""
        key = (id(work.agent), work.tool.name)
        needed = key not in self._decided and await self._needs_approval(work)
        # A person may have decided while the program was asked whether one must.
        decided = self._decided.get(key)
        if decided is not None and decided.rejection is not None:
            text = decided.rejection
            self._finish(work, _Result(ok=False, value=text, text=text, error_code="rejected"))
        elif decided is not None or not needed:
            await self._run(work)
        elif not await self._stopped_before_approval(work):
            self._ask(work)

    def _ask(self, work: _Work) -> None:
        inside, call = self._inside, work.call
        inside.core.tool_calls.ask(call)
        self._waiting[call.call_id] = work
        inside.spans.approval_required(call)
        inside.hub.emit(RealtimeToolApprovalRequired(work.agent, work.tool, call.call_id, call.arguments, inside.info))

    async def _needs_approval(self, work: _Work) -> bool:
        needed = work.tool.needs_approval
        if not callable(needed):
            return needed
        try:
            arguments = msgspec.json.decode(work.call.arguments or "{}", type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return True  # What cannot be read cannot be judged by the function, so a person must.
        if work.tool.schema is not None and not work.tool.schema.is_plain(arguments):
            return True  # A default, say, would be an argument that the function never saw.
        try:
            return bool(await call_user_function(needed, self._inside.context, arguments, work.call.call_id))
        except Exception as error:  # noqa: BLE001 - the program's own code; on doubt a person decides
            self._inside.fault(error)
            return True

    async def _stopped_before_approval(self, work: _Work) -> bool:
        """Check the arguments before anybody is asked, where the run wants that."""
        execution = self._inside.run_config.get("tool_execution") or {}
        if execution.get("pre_approval_tool_input_guardrails") is not True:
            return False
        stopped = await self._check_input(work)
        if stopped is not None:
            self._finish(work, stopped)
        return stopped is not None

    async def _run(self, work: _Work) -> None:
        result = await self._check_input(work) or await self._check_ledger(work)
        if result is None:
            inside = self._inside
            inside.core.tool_started(work.call.call_id)
            inside.hub.emit(RealtimeToolStart(work.agent, work.tool, work.call.arguments, inside.info, work.call.call_id))
            self._hooks.tool_started(work.agent, work.tool)
            with inside.spans.tool(work.call, agent=work.agent.name) as step:
                result = await self._check_output(work, await self._execute(work, step.traceparent))
                step.finished(error=None if result.ok else result.error_code, result=result.text)
        self._finish(work, result)

    async def _check_ledger(self, work: _Work) -> _Result | None:
        """See to it that a side effect is known of before it happens; return the answer of a call that must not run."""
        ledger, idempotent = self._inside.ledger, work.tool.idempotent
        if ledger is None or await ledger.may_start(work.call, idempotent=idempotent, wait=not idempotent):
            return None
        text = NOT_RECORDED.format(f"Tool {work.tool.name}")
        return _Result(ok=False, value=text, text=text, error_code="not_recorded", pid=os.getpid())

    async def _execute(self, work: _Work, traceparent: str | None) -> _Result:
        started = time.monotonic()
        if self._runner is None or work.tool.run_on == "session":
            outcome = await run_tool(work.tool, work.context, work.call.arguments, self._timeout)
            result = _Result(outcome.ok, outcome.value, outcome.text, outcome.error_code, os.getpid())
            result.seconds = time.monotonic() - started
        else:
            result = await self._run_remotely(self._runner, work, traceparent)
        if result.error_code == ToolTimeoutError.code and work.tool.timeout_behavior == "raise_exception":
            self._inside.fault(ToolTimeoutError(result.text))
        if not result.ok and work.tool.failure_error_function is None and result.error_code == "tool_failed":
            # Nobody has put the failure into words, so whoever watches the session must see it.
            self._inside.fault({"message": f"Tool {work.tool.name} failed", "call_id": work.call.call_id})
        return result

    async def _run_remotely(self, runner: ToolRunner, work: _Work, traceparent: str | None) -> _Result:
        inside, call = self._inside, work.call
        try:
            context, context_type = pack_context(inside.context.context)
        except UserError as error:
            text = f"The tool could not run: {error.message}"
            return _Result(ok=False, value=text, text=text, error_code=error.code, pid=os.getpid())
        request = ToolRequest(
            call_id=call.call_id,
            session_id=inside.session_id,
            agent=work.agent.name,
            tool=call.name,
            arguments=call.arguments,
            context=context,
            context_type=context_type,
            timeout_s=self._timeout,
            idempotency_key=work.context.idempotency_key,
            traceparent=traceparent,
        )
        reply = await runner.run(request)
        if reply.context:
            try:
                apply_context(inside.context.context, reply.context)
            except (AttributeError, TypeError, ValueError) as error:
                inside.fault({"message": f"a tool's change of the context cannot be applied: {error}"})
        return _Result(reply.ok, reply.output, reply.output, reply.error_code, reply.pid, reply.seconds)

    async def _check_input(self, work: _Work) -> _Result | None:
        """Ask the guardrails on the arguments, in order; return the answer of the first that stops the call."""
        data = ToolInputGuardrailData(work.context, work.agent)
        for guardrail in work.tool.tool_input_guardrails:
            verdict = await guardrail.run(data)
            behavior = verdict.behavior
            if behavior is not None and behavior["type"] == "raise_exception":
                return self._tripped(work, ToolInputGuardrailTripwireTriggered(guardrail, verdict))
            if behavior is not None and behavior["type"] == "reject_content":
                return _Result(ok=False, value=behavior["message"], text=behavior["message"], error_code="guardrail")
        return None

    async def _check_output(self, work: _Work, result: _Result) -> _Result:
        """Ask the guardrails on the output, in order; the first that objects has the last word."""
        for guardrail in work.tool.tool_output_guardrails:
            verdict = await guardrail.run(ToolOutputGuardrailData(work.context, work.agent, result.value))
            behavior = verdict.behavior
            if behavior is not None and behavior["type"] == "raise_exception":
                return self._tripped(work, ToolOutputGuardrailTripwireTriggered(guardrail, verdict))
            if behavior is not None and behavior["type"] == "reject_content":
                text = behavior["message"]
                return _Result(False, text, text, "guardrail", result.pid, result.seconds)
        return result

    def _tripped(self, work: _Work, error: Exception) -> _Result:
        self._inside.fault(error)
        text = "The tool call was stopped."
        return _Result(ok=False, value=text, text=text, error_code="guardrail", pid=os.getpid())

    async def _rejection(self, work: _Work, message: str | None) -> str:
        """Return what the model is told of a rejected call: the message, the program's own words, or ours."""
        if message is not None:
            return message
        formatter = self._inside.run_config.get("tool_error_formatter")
        if formatter is None:
            return REJECTION_MESSAGE
        arguments = ToolErrorFormatterArgs(
            kind="approval_rejected",
            tool_type="function",
            tool_name=work.tool.name,
            call_id=work.call.call_id,
            default_message=REJECTION_MESSAGE,
            run_context=self._inside.context,
        )
        try:
            text = await call_user_function(formatter, arguments)
        except Exception as error:  # noqa: BLE001 - the program's own code
            self._inside.fault(error)
            return REJECTION_MESSAGE
        return text if isinstance(text, str) else REJECTION_MESSAGE

    def _finish(self, work: _Work, result: _Result) -> None:
        inside, call = self._inside, work.call
        if inside.closed:
            return
        end = RealtimeToolEnd(work.agent, work.tool, call.arguments, result.value, inside.info, call.call_id)
        end.ok, end.error_code, end.pid, end.seconds = result.ok, result.error_code, result.pid, result.seconds
        self._unsent[call.call_id] = end
        inside.answer(call, result.text, result.error_code)

    def _sent(self, call_id: str) -> None:
        """The model has the output of a call; a handoff's is reported by other means."""
        end = self._unsent.pop(call_id, None)
        if end is not None and not self._inside.closed:
            self._inside.hub.emit(end)
            self._hooks.tool_ended(end.agent, end.tool, end.output)
