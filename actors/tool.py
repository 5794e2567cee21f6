"""The tool actor: runs function tools of the agent, outside of every session's process.

A timed-out synchronous tool leaves a thread behind that nothing can end. When too many have gathered, the actor takes no more
calls, lets those in flight end, and leaves; Ray starts it again, empty.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import msgspec

from orchestrator.agent_ref import load_agent
from orchestrator.cluster.tool_dispatch import NOT_STARTED
from orchestrator.settings import Settings
from orchestrator.telemetry.logs import configure, get_logger
from orchestrator.tool_runner import ToolReply, ToolRequest, collect_tools, execute

__all__ = ["ToolActor", "ToolThreads", "encode_reply"]

MAX_THREADS = 64
# Threads that still run although their call is over. Eight are visible in any thread dump and far from MAX_THREADS.
MAX_STUCK = 8
# How long calls in flight may still take once the actor has decided to leave.
LEAVE_WITHIN = 30.0

_log = get_logger()
_call: contextvars.ContextVar[_Call | None] = contextvars.ContextVar("call", default=None)


class _Call:
    """One call, as the threads that it starts see it."""

    __slots__ = ("over", "threads")

    def __init__(self) -> None:
        self.over = False
        self.threads = 0


class ToolThreads(ThreadPoolExecutor):
    """The loop's default executor, which knows how many of its threads outlived their call."""

    def __init__(self, max_workers: int = MAX_THREADS) -> None:
        super().__init__(max_workers, thread_name_prefix="tool")
        self._busy: set[_Call] = set()

    @property
    def stuck(self) -> int:
        """How many threads still run for calls that are over."""
        return sum(call.threads for call in tuple(self._busy) if call.over)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a function in a thread, on behalf of the call of the current context."""
        call = _call.get()
        if call is None:
            return super().submit(fn, *args, **kwargs)
        loop = asyncio.get_running_loop()
        call.threads += 1
        self._busy.add(call)
        future = super().submit(fn, *args, **kwargs)
        # Counted on the loop's thread only, so that no lock is needed.
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._ended, call))
        return future

    def _ended(self, call: _Call) -> None:
        call.threads -= 1
        if not call.threads:
            self._busy.discard(call)


class ToolActor:
    """A Ray actor: `settings` is `Settings.to_json()`. Raises UserError in its constructor when the agent cannot be loaded."""

    def __init__(self, settings: bytes) -> None:
        deployed = Settings.from_json(settings)
        configure(deployed.log_level)
        self._tools = collect_tools(load_agent(deployed.agent))
        self._threads = ToolThreads()
        asyncio.get_running_loop().set_default_executor(self._threads)
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._leaving: asyncio.Task[None] | None = None

    async def run(self, request: str) -> str:
        """Run one `ToolRequest` and return a `ToolReply`, both JSON."""
        call_request = msgspec.json.decode(request, type=ToolRequest)
        if self._leaving is not None:
            return msgspec.json.encode(_not_started(call_request)).decode()
        call = _Call()
        _call.set(call)
        self._in_flight += 1
        self._idle.clear()
        try:
            reply = await execute(self._tools, call_request)
        finally:
            call.over = True
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
            self._leave_if_stuck()
        _log_reply(call_request, reply)
        return encode_reply(reply)

    async def ping(self) -> int:
        """Return the pid, or 0 when the actor takes no calls any more."""
        return 0 if self._leaving is not None else os.getpid()

    async def pid(self) -> int:
        """Return the pid."""
        return os.getpid()

    async def status(self) -> str:
        """Return JSON: pid, calls in flight, stuck threads, whether it is leaving."""
        status = {
            "pid": os.getpid(),
            "in_flight": self._in_flight,
            "stuck_threads": self._threads.stuck,
            "leaving": self._leaving is not None,
        }
        return msgspec.json.encode(status).decode()

    def _leave_if_stuck(self) -> None:
        if self._leaving is None and self._threads.stuck >= MAX_STUCK:
            _log.error("tool_actor_leaves", stuck_threads=self._threads.stuck, in_flight=self._in_flight)
            self._leaving = asyncio.get_running_loop().create_task(self._leave(), name="leave")

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_WITHIN):
                await self._idle.wait()
                # The reply of the last call is on its way out of the process: let Ray take it from the loop first.
                await asyncio.sleep(0.1)
        except TimeoutError:
            _log.error("tool_calls_lost", in_flight=self._in_flight)
        # A stuck thread would hold up any gentler exit, and Ray does not restart an actor that exits by its own API.
        os._exit(1)


def encode_reply(reply: ToolReply) -> str:
    """Encode a reply, whatever text the tool returned: what UTF-8 cannot express, as file names can hold, must not look like
    the death of the actor that ran it."""
    plain = msgspec.structs.replace(reply, output=reply.output.encode("utf-8", "replace").decode())
    for candidate in (reply, plain):
        with suppress(UnicodeEncodeError):
            return msgspec.json.encode(candidate).decode()
    return msgspec.json.encode(msgspec.structs.replace(plain, context=None)).decode()


def _not_started(request: ToolRequest) -> ToolReply:
    return ToolReply(
        call_id=request.call_id, ok=False, output="not started", error_code=NOT_STARTED, pid=os.getpid(), seconds=0.0
    )


def _log_reply(request: ToolRequest, reply: ToolReply) -> None:
    # Neither arguments nor output: they hold what was said.
    _log.info(
        "tool_call",
        session_id=request.session_id,
        call_id=request.call_id,
        tool=request.tool,
        ok=reply.ok,
        error_code=reply.error_code,
        seconds=round(reply.seconds, 4),
    )
