"""Tool calls over Ray: the places of `ToolDispatcher` are tool actors, found by name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, TaskCancelledError

from actors import _options
from orchestrator.cluster.reconcile import tool_name
from orchestrator.cluster.tool_dispatch import PlaceLost, ToolDispatcher
from orchestrator.settings import Settings
from orchestrator.tool import FunctionTool

__all__ = ["ToolActorPlace", "make_tool_pool", "pools_of"]


class ToolActorPlace:
    """One tool actor, by name. A handle outlives restarts of its actor; a new one is looked up when that actor is gone.

    Lookups block for as long as the control store is away, so they run in `lookups`, at most one per place.
    """

    def __init__(self, namespace: str, name: str, lookups: Executor) -> None:
        self.name = name
        self._namespace = namespace
        self._lookups = lookups
        self._lookup: asyncio.Future[ActorHandle | None] | None = None
        self._handle: ActorHandle | None = None

    async def run(self, request: str) -> str:
        """See `ToolPlace.run`. A cancelled call is cancelled on the actor too; a thread that it started ends by itself."""
        handle = self._handle
        if handle is None:
            raise PlaceLost("the actor has not been found yet")
        try:
            reference = handle.run.remote(request)
        except RayError as error:
            raise PlaceLost(type(error).__name__) from error
        try:
            return str(await reference)
        except asyncio.CancelledError:
            with suppress(RayError, RuntimeError, ValueError):
                ray.cancel(reference)
            raise
        except TaskCancelledError as error:
            raise PlaceLost("the call was cancelled where it ran") from error
        except RayError as error:
            # Includes what the actor's own `run` raised, which is never a fault of the tool: `execute` catches those.
            raise PlaceLost(type(error).__name__) from error

    async def ping(self) -> int:
        """See `ToolPlace.ping`; looks the actor up when there is no handle to a live one."""
        if self._handle is None:
            self._handle = await self._find()
        if self._handle is None:
            raise PlaceLost("there is no such actor")
        try:
            pid = int(await self._handle.ping.remote())
        except RayError as error:
            # It may be gone for good, and another may have its name by now.
            self._handle = None
            raise PlaceLost(type(error).__name__) from error
        if not pid:
            raise PlaceLost("it takes no calls any more")
        return pid

    async def _find(self) -> ActorHandle | None:
        if self._lookup is None:
            loop = asyncio.get_running_loop()
            self._lookup = loop.run_in_executor(self._lookups, _options.find, self._namespace, self.name)
        try:
            # Shielded: a lookup whose ping ran out of time is waited for by the next ping, not started again.
            handle = await asyncio.shield(self._lookup)
        except (RayError, OSError, RuntimeError) as error:
            self._lookup = None
            raise PlaceLost(type(error).__name__) from error
        self._lookup = None
        return handle


def pools_of(tools: Mapping[tuple[str, str], FunctionTool]) -> tuple[str, ...]:
    """Return the names of the pools that these tools run on, sorted."""
    return tuple(sorted({tool.pool for tool in tools.values() if tool.run_on == "pool"}))


def make_tool_pool(settings: Settings, tools: Mapping[tuple[str, str], FunctionTool]) -> ToolDispatcher:
    """Build the runner that sends calls to the tool actors of a cluster. Call `start` on its loop, `aclose` at the end."""
    lookups = ThreadPoolExecutor(1, thread_name_prefix="tool-lookup")
    places = {
        pool: [ToolActorPlace(settings.namespace, tool_name(pool, index), lookups) for index in range(settings.tool_actors)]
        for pool in pools_of(tools)
    }
    return ToolDispatcher(tools, places, default_timeout=settings.tool_timeout)
