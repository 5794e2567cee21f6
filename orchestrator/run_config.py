"""Pieces of a run's configuration that are passed to the program's own functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from orchestrator.run_context import RunContextWrapper

__all__ = ["ToolErrorFormatterArgs"]


@dataclass(frozen=True, slots=True)
class ToolErrorFormatterArgs:
    """What a `tool_error_formatter` knows of the call that a person rejected."""

    kind: Literal["approval_rejected"]
    tool_type: Literal["function"]
    tool_name: str
    call_id: str
    default_message: str
    run_context: RunContextWrapper[Any]
