"""Callbacks at the turning points of a conversation. Override what you need; all of it is asynchronous."""

from __future__ import annotations

from typing import Any, Generic

from orchestrator.run_context import RunContextWrapper, TContext

__all__ = ["RealtimeAgentHooks", "RealtimeRunHooks"]


class RealtimeRunHooks(Generic[TContext]):
    """Callbacks for all agents of a session; given as `hooks` of the run's configuration."""

    async def on_agent_start(self, context: RunContextWrapper[TContext], agent: Any) -> None:
        """An agent begins a response."""

    async def on_agent_end(self, context: RunContextWrapper[TContext], agent: Any, output: Any) -> None:
        """An agent ended a response; `output` is its last message, or None."""

    async def on_handoff(self, context: RunContextWrapper[TContext], from_agent: Any, to_agent: Any) -> None:
        """An agent handed the conversation over."""

    async def on_tool_start(self, context: RunContextWrapper[TContext], agent: Any, tool: Any) -> None:
        """A tool is about to run."""

    async def on_tool_end(self, context: RunContextWrapper[TContext], agent: Any, tool: Any, result: Any) -> None:
        """A tool's output was sent to the model."""


class RealtimeAgentHooks(Generic[TContext]):
    """Callbacks for one agent; given as its `hooks`."""

    async def on_start(self, context: RunContextWrapper[TContext], agent: Any) -> None:
        """The agent begins a response."""

    async def on_end(self, context: RunContextWrapper[TContext], agent: Any, output: Any) -> None:
        """The agent ended a response; `output` is its last message, or None."""

    async def on_handoff(self, context: RunContextWrapper[TContext], agent: Any, source: Any) -> None:
        """The agent takes the conversation over from `source`."""

    async def on_tool_start(self, context: RunContextWrapper[TContext], agent: Any, tool: Any) -> None:
        """A tool of the agent is about to run."""

    async def on_tool_end(self, context: RunContextWrapper[TContext], agent: Any, tool: Any, result: Any) -> None:
        """The output of a tool of the agent was sent to the model."""
