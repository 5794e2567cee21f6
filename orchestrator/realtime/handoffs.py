"""`realtime_handoff`, and the way from an agent's `handoffs` to what the model sees."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from orchestrator.callables import call_user_function
from orchestrator.errors import ModelBehaviorError, UserError
from orchestrator.function_schema import schema_of, strict
from orchestrator.handoffs import Handoff, HandoffInputFilter, default_tool_description, default_tool_name
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.run_context import RunContextWrapper

__all__ = ["as_handoff", "realtime_handoff"]


def realtime_handoff(
    agent: RealtimeAgent[Any],
    *,
    tool_name_override: str | None = None,
    tool_description_override: str | None = None,
    tool_description: str | None = None,
    on_handoff: Callable[..., Any] | None = None,
    input_type: Any = None,
    input_filter: HandoffInputFilter | None = None,
    is_enabled: bool | Callable[..., bool | Awaitable[bool]] = True,
) -> Handoff:
    """Make a way to an agent, with a name, description, callback, input check and availability of its own.

    `on_handoff(context)` or, with `input_type`, `on_handoff(context, value)` is called before the agent takes over. The model's
    arguments are checked against `input_type` strictly. `tool_description` is another name for `tool_description_override`.
    Raises UserError for an `on_handoff` that cannot be called so.
    """
    _check_callback(on_handoff, input_type)
    schema = {"type": "object", "properties": {}} if input_type is None else schema_of(input_type)
    strict(schema)

    async def invoke(context: RunContextWrapper[Any], arguments: str) -> RealtimeAgent[Any]:
        if input_type is not None and on_handoff is not None:
            try:
                value = msgspec.json.decode(arguments or "null", type=input_type)
            except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
                raise ModelBehaviorError(f"Invalid JSON input for the handoff to {agent.name}: {error}") from error
            await call_user_function(on_handoff, context, value)
        elif on_handoff is not None:
            await call_user_function(on_handoff, context)
        return agent

    return Handoff(
        tool_name=tool_name_override or default_tool_name(agent.name),
        tool_description=tool_description_override
        or tool_description
        or default_tool_description(agent.name, agent.handoff_description),
        input_json_schema=schema,
        on_invoke_handoff=invoke,
        agent_name=agent.name,
        input_filter=input_filter,
        is_enabled=is_enabled,
        agent=agent,
        idempotent=on_handoff is None,
    )


def as_handoff(entry: Any) -> Handoff | None:
    """Return an entry of an agent's `handoffs` as a handoff; None for what is neither an agent nor a handoff."""
    if isinstance(entry, RealtimeAgent):
        return realtime_handoff(entry)
    return entry if isinstance(entry, Handoff) else None


def _check_callback(on_handoff: Callable[..., Any] | None, input_type: Any) -> None:
    if on_handoff is None:
        if input_type is not None:
            raise UserError("a handoff with input_type needs on_handoff, which receives the input")
        return
    if not callable(on_handoff):
        raise UserError("on_handoff must be a function")
    wanted = 1 if input_type is None else 2
    if len(inspect.signature(on_handoff).parameters) != wanted:
        takes = "the context and the input" if wanted == 2 else "the context"
        raise UserError(f"on_handoff must take {wanted} argument{'s' if wanted > 1 else ''}: {takes}")
