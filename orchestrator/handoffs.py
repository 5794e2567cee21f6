"""Handing a conversation from one agent to another. The names are the guide's."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from orchestrator.run_context import RunContextWrapper

__all__ = ["Handoff", "HandoffInputData", "HandoffInputFilter", "default_tool_description", "default_tool_name"]


@dataclass(frozen=True)
class HandoffInputData:
    """What a filter decides about. Items are those of the history, oldest first.

    `input_history` is the conversation so far; `new_items` holds the call that asks for the handoff. What the filter leaves out
    of what it returns is deleted from the model's conversation and from the history; what it keeps stays, in its order.
    """

    input_history: tuple[Any, ...]
    pre_handoff_items: tuple[Any, ...] = ()
    new_items: tuple[Any, ...] = ()
    run_context: RunContextWrapper[Any] | None = None

    def clone(self, **changes: Any) -> HandoffInputData:
        """Return a copy with some fields replaced."""
        return dataclasses.replace(self, **changes)


HandoffInputFilter: TypeAlias = Callable[[HandoffInputData], HandoffInputData | Awaitable[HandoffInputData]]


@dataclass
class Handoff:
    """A way to another agent, which the model sees as a tool.

    `on_invoke_handoff(context, arguments_json)` returns the agent. `agent` is that agent where it is known beforehand. One
    that is `idempotent` calls nothing of the program, so after a crash it may be carried out again as it is.
    """

    tool_name: str
    tool_description: str
    input_json_schema: dict[str, Any]
    on_invoke_handoff: Callable[[RunContextWrapper[Any], str], Awaitable[Any]]
    agent_name: str
    input_filter: HandoffInputFilter | None = None
    strict_json_schema: bool = True
    is_enabled: bool | Callable[..., bool | Awaitable[bool]] = True
    agent: Any = field(default=None, repr=False)
    idempotent: bool = False


def default_tool_name(agent_name: str) -> str:
    """Return the name of the tool that leads to an agent."""
    return f"transfer_to_{re.sub(r'[^A-Za-z0-9_]', '_', agent_name).lower()}"


def default_tool_description(agent_name: str, handoff_description: str | None) -> str:
    """Return what the model reads about it."""
    return f"Handoff to the {agent_name} agent to handle the request. {handoff_description or ''}".strip()
