"""The errors of the library, under the guide's module name and names."""

from __future__ import annotations

from typing import Any

from orchestrator.errors import ModelBehaviorError, OrchestratorError, ToolTimeoutError, UserError

__all__ = [
    "AgentsException",
    "InputGuardrailTripwireTriggered",
    "ModelBehaviorError",
    "OutputGuardrailTripwireTriggered",
    "ToolInputGuardrailTripwireTriggered",
    "ToolOutputGuardrailTripwireTriggered",
    "ToolTimeoutError",
    "UserError",
]

AgentsException = OrchestratorError


class _Tripwire(OrchestratorError):
    """A guardrail stopped something; `guardrail` and `output` say which and why."""

    code = "guardrail_tripped"

    def __init__(self, guardrail: Any, output: Any) -> None:
        super().__init__(f"guardrail {guardrail.get_name()} triggered its tripwire")
        self.guardrail = guardrail
        self.output = output


class InputGuardrailTripwireTriggered(_Tripwire):
    """A guardrail on what the user said."""


class OutputGuardrailTripwireTriggered(_Tripwire):
    """A guardrail on what the agent says."""


class ToolInputGuardrailTripwireTriggered(_Tripwire):
    """A guardrail on a tool's arguments asked to end the call."""


class ToolOutputGuardrailTripwireTriggered(_Tripwire):
    """A guardrail on a tool's output asked to end the call."""
