"""What the parts of one session share: its state, and the few things that each of them may do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from orchestrator.core.commands import SessionCommand
from orchestrator.core.inputs import RealtimeModelSendEvent
from orchestrator.core.session import SessionCore
from orchestrator.core.states import ToolCallSignal
from orchestrator.core.tool_calls import ToolCall
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.dispatch import DispatchTable
from orchestrator.realtime.event_hub import EventHub
from orchestrator.realtime.events import RealtimeError, RealtimeEventInfo
from orchestrator.realtime.task_set import TaskSet
from orchestrator.realtime.tool_ledger import ToolLedger
from orchestrator.realtime.tracing import open_spans
from orchestrator.run_context import RunContextWrapper

__all__ = ["Inside", "Submit"]


class Submit(Protocol):
    """Sends something to the model from a place that must not wait."""

    def __call__(self, event: RealtimeModelSendEvent, sent: Callable[[], None] | None = None) -> None:
        """Send it, then call `sent`; not called when sending failed, which is reported as a fault."""


class Inside:
    """The inside of a session.

    `perform` carries out commands of the core. `submit` sends something to the model without waiting, and calls `sent` once it
    is sent; `send` returns when it is sent, and raises what the model raises.
    """

    def __init__(
        self,
        agent: RealtimeAgent[Any],
        context: Any,
        run_config: dict[str, Any],
        session_id: str,
        hub: EventHub,
        perform: Callable[[list[SessionCommand]], None],
        submit: Submit,
        send: Callable[[RealtimeModelSendEvent], Awaitable[None]],
        *,
        hold_answers: bool,
        ledger: ToolLedger | None = None,
    ) -> None:
        self.core = SessionCore(agent.name, hold_answers=hold_answers)
        self.agent = agent
        self.table = DispatchTable(agent, (), ())
        # What the agent that began the latest response may call. It ends the response too; names do not tell agents apart.
        self.speaking = self.table
        self.context: RunContextWrapper[Any] = RunContextWrapper(context)
        self.info = RealtimeEventInfo(self.context)
        self.run_config = run_config
        # The settings that hold whoever speaks: formats, voice, turn detection.
        self.base_settings: dict[str, Any] = {}
        self.session_id = session_id
        self.hub = hub
        self.perform = perform
        self.submit = submit
        self.send = send
        self.tasks = TaskSet(self.fault)
        self.spans = open_spans(run_config, session_id)
        self.ledger = ledger
        self.closed = False

    def fault(self, error: Any) -> None:
        """Report something that went wrong and does not end the session."""
        self.hub.emit(RealtimeError(error, self.info))

    def answer(self, call: ToolCall, output: str, error_code: str | None = None) -> None:
        """Answer a call; nothing happens when it is not open any more. The ledger knows of it before the model does."""
        if self.ledger is not None and call.machine.allows(ToolCallSignal.ANSWER):
            self.ledger.answered(call, output, error_code)
        self.perform(self.core.tool_finished(call.call_id, output))

    def tables_for(self, call: ToolCall) -> tuple[DispatchTable, ...]:
        """Return where to look a call up: what the response was offered that made it, then what is offered now."""
        if call.response_id is not None and call.response_id == self.core.active_response:
            return (self.speaking, self.table)
        return (self.table,)

    def take_over(self, table: DispatchTable) -> None:
        """Make the table's agent the active one."""
        self.agent = table.agent
        self.table = table
        self.core.agent = table.agent.name
