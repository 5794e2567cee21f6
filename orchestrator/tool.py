"""Function tools: what a model may call, and how and where each one runs.

The decorator keeps the guide's names. What is added here says where a tool runs in a cluster: `run_on`, `pool`,
`idempotent`, `retries`.
"""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, overload

from orchestrator.errors import ToolTimeoutError, UserError
from orchestrator.function_schema import DocstringStyle, FunctionSchema, function_schema
from orchestrator.run_context import RunContextWrapper
from orchestrator.tool_context import ToolContext
from orchestrator.tool_guardrails import ToolInputGuardrail, ToolOutputGuardrail

__all__ = ["FunctionTool", "Tool", "ToolErrorFunction", "default_tool_error_function", "function_tool"]

ToolErrorFunction: TypeAlias = Callable[[RunContextWrapper[Any], Exception], str | Awaitable[str]]
RunOn: TypeAlias = Literal["pool", "session"]
TimeoutBehavior: TypeAlias = Literal["error_as_result", "raise_exception"]


def default_tool_error_function(context: RunContextWrapper[Any], error: Exception) -> str:
    """Give the model a constant text: the exception may hold what the caller must not hear."""
    return "An error occurred while running the tool. Please try again."


@dataclass(eq=False)
class FunctionTool:
    """A tool that a model may call.

    `on_invoke_tool(context, arguments_json)` runs it and may raise; the caller of it applies `timeout_seconds` and
    `failure_error_function`. `run_on="pool"` sends the call to a tool actor when there is a cluster, `"session"` keeps it in
    the session's own process (a synchronous function then runs in a thread). Only a tool marked `idempotent` is ever run
    again after its actor died, at most `retries` times. `needs_approval`, a bool or a function
    `(context, arguments, call_id) -> bool`, makes a call wait for a person. A call that takes too long is answered in either
    case; `timeout_behavior="raise_exception"` reports it to the session as an error too.
    """

    name: str
    description: str
    params_json_schema: dict[str, Any]
    on_invoke_tool: Callable[[ToolContext[Any], str], Awaitable[Any]]
    strict_json_schema: bool = True
    is_enabled: bool | Callable[..., bool | Awaitable[bool]] = True
    timeout_seconds: float | None = None
    failure_error_function: ToolErrorFunction | None = default_tool_error_function
    run_on: RunOn = "pool"
    pool: str = "default"
    idempotent: bool = False
    retries: int = 0
    needs_approval: bool | Callable[..., bool | Awaitable[bool]] = False
    tool_input_guardrails: Sequence[ToolInputGuardrail] = ()
    tool_output_guardrails: Sequence[ToolOutputGuardrail] = ()
    timeout_error_function: ToolErrorFunction | None = None
    timeout_behavior: TimeoutBehavior = "error_as_result"
    schema: FunctionSchema | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.timeout_seconds is not None and not (math.isfinite(self.timeout_seconds) and self.timeout_seconds > 0):
            raise UserError(f"tool {self.name}: the timeout must be a finite number of seconds above 0")
        if self.retries and not self.idempotent:
            raise UserError(f"tool {self.name}: retries need idempotent=True, since a lost call may have taken effect")
        if self.run_on not in ("pool", "session"):
            raise UserError(f'tool {self.name}: run_on is "pool" or "session", not {self.run_on!r}')
        if self.timeout_behavior not in ("error_as_result", "raise_exception"):
            raise UserError(
                f'tool {self.name}: timeout_behavior is "error_as_result" or "raise_exception", not {self.timeout_behavior!r}'
            )


Tool: TypeAlias = FunctionTool


@overload
def function_tool(func: Callable[..., Any], /) -> FunctionTool: ...


@overload
def function_tool(
    *,
    name_override: str | None = None,
    description_override: str | None = None,
    docstring_style: DocstringStyle | None = None,
    use_docstring_info: bool = True,
    failure_error_function: ToolErrorFunction | None = default_tool_error_function,
    strict_mode: bool = True,
    is_enabled: bool | Callable[..., bool | Awaitable[bool]] = True,
    needs_approval: bool | Callable[..., bool | Awaitable[bool]] = False,
    tool_input_guardrails: Sequence[ToolInputGuardrail] = (),
    tool_output_guardrails: Sequence[ToolOutputGuardrail] = (),
    timeout: float | None = None,
    timeout_behavior: TimeoutBehavior = "error_as_result",
    timeout_error_function: ToolErrorFunction | None = None,
    run_on: RunOn = "pool",
    pool: str = "default",
    idempotent: bool = False,
    retries: int = 0,
) -> Callable[[Callable[..., Any]], FunctionTool]: ...


def function_tool(
    func: Callable[..., Any] | None = None,
    /,
    *,
    name_override: str | None = None,
    description_override: str | None = None,
    docstring_style: DocstringStyle | None = None,
    use_docstring_info: bool = True,
    failure_error_function: ToolErrorFunction | None = default_tool_error_function,
    strict_mode: bool = True,
    is_enabled: bool | Callable[..., bool | Awaitable[bool]] = True,
    needs_approval: bool | Callable[..., bool | Awaitable[bool]] = False,
    tool_input_guardrails: Sequence[ToolInputGuardrail] = (),
    tool_output_guardrails: Sequence[ToolOutputGuardrail] = (),
    timeout: float | None = None,
    timeout_behavior: TimeoutBehavior = "error_as_result",
    timeout_error_function: ToolErrorFunction | None = None,
    run_on: RunOn = "pool",
    pool: str = "default",
    idempotent: bool = False,
    retries: int = 0,
) -> FunctionTool | Callable[[Callable[..., Any]], FunctionTool]:
    """Make a function a tool. Name, description and schema come from the function unless overridden.

    `docstring_style` is found out unless given. `timeout` is in seconds and None means the deployment's default.
    Synchronous functions run in a thread. A first parameter annotated `RunContextWrapper` or `ToolContext` receives the
    context and is not shown to the model. Raises UserError when the signature has no JSON schema or the options contradict
    each other.
    """

    def make(target: Callable[..., Any]) -> FunctionTool:
        schema = function_schema(
            target,
            name=name_override,
            description=description_override,
            docstring_style=docstring_style,
            use_docstring=use_docstring_info,
            strict_mode=strict_mode,
        )
        return FunctionTool(
            name=schema.name,
            description=schema.description,
            params_json_schema=schema.parameters,
            on_invoke_tool=_invoker(target, schema),
            strict_json_schema=strict_mode,
            is_enabled=is_enabled,
            timeout_seconds=timeout,
            failure_error_function=failure_error_function,
            run_on=run_on,
            pool=pool,
            idempotent=idempotent,
            retries=retries,
            needs_approval=needs_approval,
            tool_input_guardrails=tool_input_guardrails,
            tool_output_guardrails=tool_output_guardrails,
            timeout_error_function=timeout_error_function,
            timeout_behavior=timeout_behavior,
            schema=schema,
        )

    return make if func is None else make(func)


def _invoker(target: Callable[..., Any], schema: FunctionSchema) -> Callable[[ToolContext[Any], str], Awaitable[Any]]:
    is_async = inspect.iscoroutinefunction(target)

    async def invoke(context: ToolContext[Any], arguments: str) -> Any:
        positional, keyword = schema.decode(arguments)
        if schema.takes_context:
            positional.insert(0, context)
        if is_async:
            return await target(*positional, **keyword)
        return await asyncio.to_thread(target, *positional, **keyword)

    return invoke


async def invoke_with_timeout(tool: FunctionTool, context: ToolContext[Any], arguments: str, timeout: float | None) -> Any:
    """Run the tool within its own timeout, or within the given one when it has none.

    Raises ToolTimeoutError when time is up (a thread that still runs is left to end by itself) and whatever the tool raises.
    Cancellation cancels the tool.
    """
    seconds = tool.timeout_seconds if tool.timeout_seconds is not None else timeout
    task: asyncio.Future[Any] = asyncio.ensure_future(tool.on_invoke_tool(context, arguments))
    # wait() and not wait_for(): a TimeoutError that the tool itself raises is the tool's failure, not our deadline.
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    if done:
        return task.result()
    await _cancel(task)
    raise ToolTimeoutError(f"Tool '{tool.name}' timed out after {seconds:g} seconds.")


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait({task}, timeout=1.0)
