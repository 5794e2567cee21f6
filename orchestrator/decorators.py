"""The decorators in one place, under the guide's module name."""

from orchestrator.guardrail import input_guardrail, output_guardrail
from orchestrator.tool import function_tool
from orchestrator.tool_guardrails import tool_input_guardrail, tool_output_guardrail

__all__ = ["function_tool", "input_guardrail", "output_guardrail", "tool", "tool_input_guardrail", "tool_output_guardrail"]

tool = function_tool
