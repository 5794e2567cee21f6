"""What the parts of one session share: its state, and the few things that each of them may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from orchestrator.core.commands import SessionCommand
from orchestrator.core.inputs import RealtimeModelSendEvent
from orchestrator.core.session import SessionCore
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.dispatch import DispatchTable
from orchestrator.realtime.event_hub import EventHub
from orchestrator.realtime.events import RealtimeError, RealtimeEventInfo
from orchestrator.realtime.task_set import TaskSet
from orchestrator.run_context import RunContextWrapper

__all__ = ["Inside"]


class Inside:
    """The inside of a session. `perform` carries out commands of the core, `submit` sends something to the model."""

    def __init__(
        self,
        agent: RealtimeAgent[Any],
        context: Any,
        run_config: dict[str, Any],
        session_id: str,
        hub: EventHub,
        perform: Callable[[list[SessionCommand]], None],
        submit: Callable[[RealtimeModelSendEvent], None],
    ) -> None:
        self.core = SessionCore(agent.name)
        self.agent = agent
        # The agent that began the latest response, which ends it too. Names do not tell agents apart.
        self.speaker = agent
        self.table = DispatchTable(agent, (), ())
        self.context: RunContextWrapper[Any] = RunContextWrapper(context)
        self.info = RealtimeEventInfo(self.context)
        self.run_config = run_config
        # The settings that hold whoever speaks: formats, voice, turn detection.
        self.base_settings: dict[str, Any] = {}
        self.session_id = session_id
        self.hub = hub
        self.perform = perform
        self.submit = submit
        self.tasks = TaskSet(self.fault)
        self.closed = False

    def fault(self, error: Any) -> None:
        """Report something that went wrong and does not end the session."""
        self.hub.emit(RealtimeError(error, self.info))

    def take_over(self, table: DispatchTable) -> None:
        """Make the table's agent the active one."""
        self.agent = table.agent
        self.table = table
        self.core.agent = table.agent.name
