"""Calls the program's hooks, in order, in a task of their own: a slow hook delays the next one and nothing else.

What is queued when the session closes is still called, within a limit: the last word of a conversation is often the one that
a program waits for.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from orchestrator.callables import call_user_function
from orchestrator.realtime.inside import Inside
from orchestrator.telemetry.logs import get_logger

__all__ = ["HooksCaller"]

LIMIT = 1024
_log = get_logger()


class HooksCaller:
    """The hooks of a session: those of the run, then those of the agent concerned.

    What a hook raises is reported and goes no further. When `LIMIT` calls wait, a further one is left out and reported.
    """

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        self._run_hooks = inside.run_config.get("hooks")
        self._waiting: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()
        # Runs while there is something to call.
        self._task: asyncio.Task[None] | None = None

    def agent_started(self, agent: Any) -> None:
        """An agent begins a response."""
        self._call("on_agent_start", "on_start", agent, (agent,), (agent,))

    def agent_ended(self, agent: Any, output: Any) -> None:
        """An agent ended a response."""
        self._call("on_agent_end", "on_end", agent, (agent, output), (agent, output))

    def handed_off(self, source: Any, target: Any) -> None:
        """The conversation went from one agent to another."""
        self._call("on_handoff", "on_handoff", target, (source, target), (target, source))

    def tool_started(self, agent: Any, tool: Any) -> None:
        """A tool is about to run."""
        self._call("on_tool_start", "on_tool_start", agent, (agent, tool), (agent, tool))

    def tool_ended(self, agent: Any, tool: Any, result: Any) -> None:
        """A tool's output was sent to the model."""
        self._call("on_tool_end", "on_tool_end", agent, (agent, tool, result), (agent, tool, result))

    def _call(
        self, run_name: str, agent_name: str, agent: Any, run_arguments: tuple[Any, ...], agent_arguments: tuple[Any, ...]
    ) -> None:
        if self._run_hooks is not None:
            self._enqueue(getattr(self._run_hooks, run_name, None), run_arguments)
        if agent.hooks is not None:
            self._enqueue(getattr(agent.hooks, agent_name, None), agent_arguments)

    def _enqueue(self, hook: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
        # Hooks that are no subclass of ours may lack some; this is called in the middle of the model's event.
        if self._inside.closed or hook is None:
            return
        if len(self._waiting) >= LIMIT:
            self._inside.fault({"message": "hooks are too slow; a call of one was left out"})
            return
        self._waiting.append((hook, arguments))
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._serve(), name="hooks")

    async def aclose(self, grace: float) -> None:
        """Call what is queued, for at most `grace` seconds; what is left then is cancelled and reported in the log."""
        task = self._task
        if task is None or task.done():
            return
        await asyncio.wait({task}, timeout=grace)
        if not task.done():
            _log.warning("hooks_left_out", running=1, waiting=len(self._waiting))
            task.cancel()
            await asyncio.wait({task}, timeout=grace)

    async def _serve(self) -> None:
        while self._waiting:
            hook, arguments = self._waiting.popleft()
            try:
                await call_user_function(hook, self._inside.context, *arguments)
            except Exception as error:  # noqa: BLE001 - the program's own code
                self._inside.fault(error)
