"""The context of one tool call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.run_context import RunContextWrapper, TContext

__all__ = ["ToolContext"]


@dataclass(eq=False)
class ToolContext(RunContextWrapper[TContext]):
    """What a tool whose first parameter asks for it receives: the run's context plus the call that it serves.

    `tool_arguments` is the JSON text that the model sent; `agent` the agent that owns the tool, or its name where the tool
    runs in another process than its session. `idempotency_key` is the same however often this call is run, after a crash too:
    what a tool asks of another system should carry it, so that the system does it once.
    """

    tool_name: str = ""
    tool_call_id: str = ""
    tool_arguments: str = ""
    agent: Any = None
    idempotency_key: str = ""
