"""The agent: who speaks in a conversation, with which instructions and tools."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Generic

from orchestrator.callables import call_user_function
from orchestrator.run_context import RunContextWrapper, TContext
from orchestrator.tool import FunctionTool

__all__ = ["Instructions", "RealtimeAgent"]

Instructions = str | Callable[..., str | Awaitable[str]] | None


@dataclass
class RealtimeAgent(Generic[TContext]):
    """A voice agent. The model and the voice belong to the session, not to the agent.

    `instructions` may be text or a function `(context, agent) -> text`, plain or async, evaluated when the agent becomes the
    active one. Raises TypeError when a field has the wrong type.
    """

    name: str
    handoff_description: str | None = None
    tools: list[FunctionTool] = field(default_factory=list)
    instructions: Instructions = None
    prompt: dict[str, Any] | None = None
    handoffs: list[Any] = field(default_factory=list)
    output_guardrails: list[Any] = field(default_factory=list)
    hooks: Any = None
    input_guardrails: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, kind in (("name", str), ("tools", list), ("handoffs", list)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise TypeError(f"RealtimeAgent {name} must be a {kind.__name__}, got {type(value).__name__}")
        if self.instructions is not None and not isinstance(self.instructions, str) and not callable(self.instructions):
            raise TypeError(
                f"RealtimeAgent instructions must be a str, a callable or None, got {type(self.instructions).__name__}"
            )

    def clone(self, **changes: Any) -> RealtimeAgent[TContext]:
        """Return a copy with some fields replaced; lists that are not replaced are shared."""
        return dataclasses.replace(self, **changes)

    async def get_system_prompt(self, context: RunContextWrapper[TContext]) -> str | None:
        """Return the instructions as text, calling and awaiting them where they are a function."""
        if self.instructions is None or isinstance(self.instructions, str):
            return self.instructions
        return str(await call_user_function(self.instructions, context, self))

    async def get_all_tools(self, context: RunContextWrapper[TContext]) -> list[FunctionTool]:
        """Return the tools that are enabled now."""
        enabled = []
        for tool in self.tools:
            answer = tool.is_enabled
            if await call_user_function(answer, context, self) if callable(answer) else answer:
                enabled.append(tool)
        return enabled
