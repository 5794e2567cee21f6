"""Realtime voice agents, many at once: the library part, which needs no cluster."""

from orchestrator.run_context import RunContextWrapper
from orchestrator.tool import FunctionTool, Tool, function_tool
from orchestrator.tool_context import ToolContext
from orchestrator.usage import Usage

__all__ = ["FunctionTool", "RunContextWrapper", "Tool", "ToolContext", "Usage", "function_tool"]
