"""What travels with a conversation and is never shown to the model: the user's own context object, and usage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from orchestrator.usage import Usage

__all__ = ["RunContextWrapper", "TContext"]

TContext = TypeVar("TContext")


@dataclass(eq=False)
class RunContextWrapper(Generic[TContext]):
    """The user's context, as instructions, tools, guardrails and callbacks receive it.

    `context` is the object given to `RealtimeRunner.run(context=...)`; `usage` grows with every response.
    """

    context: TContext
    usage: Usage = field(default_factory=Usage)
