"""The agent: who speaks in a conversation, with which instructions and tools."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from orchestrator.callables import call_user_function
from orchestrator.run_context import RunContextWrapper, TContext
from orchestrator.telemetry.logs import get_logger
from orchestrator.tool import FunctionTool

__all__ = ["Instructions", "RealtimeAgent", "enabled_now"]

Instructions = str | Callable[..., str | Awaitable[str]] | None
_log = get_logger()


TEntry = TypeVar("TEntry")


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
        if not callable(self.instructions):
            # Set after the agent was made, so nothing could refuse it then.
            _log.error("instructions_left_out", agent=self.name, found=type(self.instructions).__name__)
            return None
        return str(await call_user_function(self.instructions, context, self))

    async def get_all_tools(self, context: RunContextWrapper[TContext]) -> list[FunctionTool]:
        """Return the tools that are enabled now. Raises what the first check raises that fails."""
        return await enabled_now(self.tools, context, self)


async def enabled_now(entries: Iterable[TEntry], context: RunContextWrapper[Any], agent: RealtimeAgent[Any]) -> list[TEntry]:
    """Return those of the tools or handoffs whose `is_enabled` says yes; all are asked at the same time.

    Raises what the first one raises that fails; the others are cancelled then.
    """
    entries = list(entries)

    async def ask(entry: TEntry) -> bool:
        answer = getattr(entry, "is_enabled", True)
        return bool(await call_user_function(answer, context, agent) if callable(answer) else answer)

    try:
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(ask(entry)) for entry in entries]
    except BaseExceptionGroup as failed:
        # It is the program's own exception that the program wants to see.
        raise failed.exceptions[0] from None
    return [entry for entry, answer in zip(entries, answers, strict=True) if answer.result()]
