"""What the active agent may do: the tools and handoffs that the model was told of, by name."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.errors import UserError
from orchestrator.handoffs import Handoff
from orchestrator.realtime.agent import RealtimeAgent, enabled_now
from orchestrator.realtime.handoffs import as_handoff
from orchestrator.run_context import RunContextWrapper
from orchestrator.tool import FunctionTool

__all__ = ["DispatchTable", "agent_settings"]


class DispatchTable:
    """The tools and handoffs of one agent. Raises UserError when two of them have one name."""

    def __init__(self, agent: RealtimeAgent[Any], tools: Iterable[FunctionTool], handoffs: Iterable[Handoff]) -> None:
        self.agent = agent
        tools, handoffs = tuple(tools), tuple(handoffs)
        _refuse_duplicates(tools, handoffs)
        self.tools: Mapping[str, FunctionTool] = {tool.name: tool for tool in tools}
        self.handoffs: Mapping[str, Handoff] = {handoff.tool_name: handoff for handoff in handoffs}


async def agent_settings(
    agent: RealtimeAgent[Any], context: RunContextWrapper[Any], base: Mapping[str, Any], overlay: Mapping[str, Any]
) -> tuple[dict[str, Any], DispatchTable]:
    """Return the settings for the model while this agent is active, and what it may then call.

    `base` are the run's settings; the agent's prompt, instructions, tools and handoffs are laid over them, and over these
    `overlay`, what the program set for this very connection. Raises what the agent's own functions raise, and UserError for
    two tools of one name.
    """
    try:
        async with asyncio.TaskGroup() as group:
            instructions = group.create_task(agent.get_system_prompt(context))
            tools = group.create_task(agent.get_all_tools(context))
            handoffs = group.create_task(enabled_now(_as_handoffs(agent.handoffs), context, agent))
    except BaseExceptionGroup as failed:
        # The first failure has stopped the others; it is the program's own exception that the program wants to see.
        raise failed.exceptions[0] from None
    settings = {
        **base,
        "instructions": instructions.result() or "",
        "tools": tools.result(),
        "handoffs": handoffs.result(),
    }
    if agent.prompt is not None:
        settings["prompt"] = agent.prompt
    settings |= overlay
    if "tools" in overlay:
        settings["tools"] = await enabled_now(overlay["tools"], context, agent)
    if "handoffs" in overlay:
        settings["handoffs"] = await enabled_now(_as_handoffs(overlay["handoffs"]), context, agent)
    function_tools = [tool for tool in settings["tools"] if isinstance(tool, FunctionTool)]
    return settings, DispatchTable(agent, function_tools, settings["handoffs"])


def _as_handoffs(entries: Iterable[Any]) -> list[Handoff]:
    return [handoff for handoff in map(as_handoff, entries) if handoff is not None]


def _refuse_duplicates(tools: tuple[FunctionTool, ...], handoffs: tuple[Handoff, ...]) -> None:
    kinds = [(tool.name, "function tool") for tool in tools] + [(handoff.tool_name, "handoff") for handoff in handoffs]
    doubled = sorted(name for name, number in Counter(name for name, _ in kinds).items() if number > 1)
    if not doubled:
        return
    described = []
    for name in doubled:
        counted = Counter(kind for found, kind in kinds if found == name)
        words = [kind if number == 1 else f"{number} {kind}s" for kind, number in counted.items()]
        described.append(f"'{name}' ({' and '.join(words)})")
    names = "names" if len(doubled) > 1 else "name"
    raise UserError(f"Duplicate Realtime tool {names} found: {', '.join(described)}")
