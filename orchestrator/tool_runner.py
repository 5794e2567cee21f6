"""One tool call as data, and the seam behind which it runs: in this process, or on a tool actor.

Arguments, result and context are JSON. The context travels as a copy: the top-level fields that the tool changed come back in
the reply and are applied to the session's own object by `apply_context`.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import time
import typing
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from orchestrator.callables import call_user_function
from orchestrator.errors import ModelBehaviorError, OrchestratorError, ToolTimeoutError, UserError
from orchestrator.telemetry.trace_context import remote_parent
from orchestrator.tool import FunctionTool, ToolErrorFunction, invoke_with_timeout
from orchestrator.tool_context import ToolContext

__all__ = [
    "InProcessToolRunner",
    "ToolOutcome",
    "ToolReply",
    "ToolRequest",
    "ToolRunner",
    "apply_context",
    "collect_tools",
    "execute",
    "idempotency_key",
    "pack_context",
    "reachable_agents",
    "run_tool",
    "tool_output_text",
]

_BROKEN = "An error occurred while running the tool."

Tools = Mapping[tuple[str, str], FunctionTool]


class ToolRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `arguments` is JSON text as the model sent it; `timeout_s` (seconds) is for tools that set none.

    `context` is a JSON value and `context_type` "module:Class", so that the tool sees the class it was written for.
    `idempotency_key` is the same for every attempt at this call. `traceparent` (W3C Trace Context) is the span of the call:
    those that the tool starts become its children.
    """

    call_id: str
    session_id: str
    agent: str
    tool: str
    arguments: str
    context: Any = None
    context_type: str | None = None
    timeout_s: float | None = None
    idempotency_key: str = ""
    traceparent: str | None = None


class ToolReply(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a call. `output` is the text for the model, also when the call failed (`ok` false).

    `pid` is the process that ran it, `seconds` the time there, `context` the changed top-level fields, or None.
    """

    call_id: str
    ok: bool
    output: str
    pid: int
    seconds: float
    error_code: str | None = None
    context: dict[str, Any] | None = None


class ToolRunner(Protocol):
    """Runs tool calls somewhere."""

    async def run(self, request: ToolRequest) -> ToolReply:
        """Run one call. Never raises for a fault of the tool or its place; cancelling it cancels the call."""


class InProcessToolRunner:
    """Runs every call in this process. The default without a cluster."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

    async def run(self, request: ToolRequest) -> ToolReply:
        """Run one call here; see `ToolRunner.run`."""
        return await execute(self._tools, request)


@dataclasses.dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What a tool returned (`value`), the text of it for the model, and the code of the fault if there was one."""

    ok: bool
    value: Any
    text: str
    error_code: str | None = None


async def run_tool(tool: FunctionTool, context: ToolContext[Any], arguments: str, timeout: float | None) -> ToolOutcome:
    """Run a tool here: synchronous functions in a thread, within the timeout (seconds), every fault turned into text.

    Cancellation cancels the tool (a thread is left to end by itself) and propagates.
    """
    try:
        value = await invoke_with_timeout(tool, context, arguments, timeout)
        return ToolOutcome(ok=True, value=value, text=tool_output_text(value))
    except ToolTimeoutError as error:
        text, code = error.message, error.code
        if tool.timeout_error_function is not None:
            text = await _failure_text(tool.timeout_error_function, context, error)
    except ModelBehaviorError as error:
        # The model wrote the arguments, so it may know what was wrong with them.
        text, code = error.message, error.code
    except Exception as error:  # noqa: BLE001 - user code may raise anything, and the conversation goes on
        text, code = await _failure_text(tool.failure_error_function, context, error), "tool_failed"
    return ToolOutcome(ok=False, value=text, text=text, error_code=code)


async def execute(tools: Tools, request: ToolRequest) -> ToolReply:
    """Run one call in this process, on a copy of the session's context; never raises for a fault of the tool.

    Cancellation is that of `run_tool`.
    """
    started = time.monotonic()
    tool = tools.get((request.agent, request.tool))
    changed = None
    if tool is None:
        outcome = ToolOutcome(ok=False, value=None, text=f"Tool {request.tool} not found", error_code="tool_not_found")
    else:
        try:
            context = ToolContext(
                context=unpack_context(request.context, request.context_type),
                tool_name=request.tool,
                tool_call_id=request.call_id,
                tool_arguments=request.arguments,
                agent=request.agent,
                idempotency_key=request.idempotency_key,
            )
        except (UserError, msgspec.ValidationError) as error:
            outcome = ToolOutcome(ok=False, value=None, text=f"The tool could not run: {error}", error_code="user_error")
        else:
            with remote_parent(request.traceparent):
                outcome = await run_tool(tool, context, request.arguments, request.timeout_s)
            changed = _changes(request.context, context.context)
    return ToolReply(
        call_id=request.call_id,
        ok=outcome.ok,
        output=outcome.text,
        error_code=outcome.error_code,
        pid=os.getpid(),
        seconds=time.monotonic() - started,
        context=changed,
    )


async def _failure_text(function: ToolErrorFunction | None, context: ToolContext[Any], error: Exception) -> str:
    """Ask the tool's own error function; it may itself be broken."""
    if function is None:
        return _BROKEN
    try:
        return str(await call_user_function(function, context, error))
    except Exception:  # noqa: BLE001 - as above
        return _BROKEN


def tool_output_text(output: Any) -> str:
    """Turn what a tool returned into the text that the model receives: text as it is, the rest as JSON."""
    if isinstance(output, str):
        return output
    try:
        if callable(to_json := getattr(output, "model_dump_json", None)):
            return str(to_json())  # A pydantic model.
        return msgspec.json.encode(output).decode()
    except (TypeError, ValueError, msgspec.MsgspecError):
        return str(output)


def idempotency_key(session_id: str, call_id: str) -> str:
    """Return what names one tool call to other systems: the same for every attempt at it, whoever makes it.

    A session without an id has only the model's id of the call to go by.
    """
    return f"{session_id}:{call_id}" if session_id else call_id


def reachable_agents(agent: Any) -> list[Any]:
    """Return an agent and all that its handoffs lead to, however many steps away and in circles, the nearest first.

    A handoff that only finds out its agent when it is carried out leads nowhere here.
    """
    found: dict[int, Any] = {}
    waiting = deque([agent])
    while waiting:
        current = waiting.popleft()
        if id(current) not in found:
            found[id(current)] = current
            targets = (getattr(entry, "agent", entry) for entry in current.handoffs)
            waiting += [target for target in targets if hasattr(target, "tools")]
    return list(found.values())


def collect_tools(agent: Any) -> dict[tuple[str, str], FunctionTool]:
    """Return every function tool reachable from an agent over its handoffs, by (agent name, tool name)."""
    return {(current.name, tool.name): tool for current in reachable_agents(agent) for tool in current.tools}


def pack_context(context: Any) -> tuple[Any, str | None]:
    """Return the JSON copy of a context and the name of its class ("module:Class"; None for plain JSON values).

    Raises UserError when it has no JSON form.
    """
    try:
        value = msgspec.to_builtins(context)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the context ({type(context).__name__}) cannot be sent to a tool actor: {error}; "
            'use plain data or a dataclass, or run its tools with run_on="session"'
        ) from None
    if context is None or isinstance(context, dict | list | str | int | float | bool):
        return value, None
    return value, f"{type(context).__module__}:{type(context).__qualname__}"


def unpack_context(value: Any, type_name: str | None) -> Any:
    """Rebuild the context that `pack_context` described. Raises UserError when its class cannot be found here."""
    if type_name is None:
        return value
    module_name, _, qualname = type_name.partition(":")
    try:
        kind: Any = importlib.import_module(module_name)
        for part in qualname.split("."):
            kind = getattr(kind, part)
    except (ImportError, AttributeError):
        raise UserError(
            f"the context's class {type_name} cannot be imported where the tool runs; put it into a module"
        ) from None
    return msgspec.convert(value, kind)


def apply_context(context: Any, changes: Mapping[str, Any]) -> None:
    """Write the fields that a tool changed into the session's own context."""
    for name, value in changes.items():
        if isinstance(context, dict):
            context[name] = value
        elif dataclasses.is_dataclass(context) or isinstance(context, msgspec.Struct):
            setattr(context, name, msgspec.convert(value, _hints(type(context)).get(name, Any)))


def _hints(kind: type) -> dict[str, Any]:
    """Return the types of all fields, inherited ones too; none where a name is known to type checkers only."""
    try:
        return typing.get_type_hints(kind)
    except NameError:
        return {}


def _changes(before: Any, after: Any) -> dict[str, Any] | None:
    """Return the top-level fields that differ, or None when there are none or the context is no mapping of fields."""
    try:
        now = msgspec.to_builtins(after)
    except (TypeError, ValueError, OrchestratorError):
        return None
    if not isinstance(before, dict) or not isinstance(now, dict):
        return None
    changed = {name: value for name, value in now.items() if name not in before or before[name] != value}
    return changed or None
