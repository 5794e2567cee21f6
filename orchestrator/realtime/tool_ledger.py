"""The seam to whoever keeps what must be known of tool calls when this process has died."""

from __future__ import annotations

from typing import Protocol

from orchestrator.core.tool_calls import ToolCall

__all__ = ["ToolLedger"]


class ToolLedger(Protocol):
    """Hears of each step of a call before it has any effect. A session without one asks nobody and waits for nothing.

    No method raises. All but `may_start` return at once.
    """

    def requested(self, call: ToolCall, agent: str) -> None:
        """The model asked for a call of what this agent offers."""

    def decided(self, call: ToolCall, *, approved: bool, always: bool, message: str | None) -> None:
        """A person has decided; `message` is what the model will be told of a rejection."""

    async def may_start(self, call: ToolCall, *, idempotent: bool, wait: bool) -> bool:
        """The call is about to run. Without `idempotent` nobody may ever run it again.

        With `wait`, returns once that is kept where a crash of this process cannot reach it. False means that it cannot be, and
        the call must not run. Safe to cancel.
        """

    def answered(self, call: ToolCall, output: str, error_code: str | None) -> None:
        """The call has its output, which the model is about to be told."""
