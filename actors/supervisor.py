"""The supervisor: one per cluster, by name. Keeps the directory and sees to it that every actor that should run does.

It is on no call's path and holds no truth: killed, it comes back, finds its detached children by name, and has its directory
again after one report from each gateway.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from typing import Any

import msgspec
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from actors.children import Children, Deployment
from orchestrator.cluster.directory import Directory
from orchestrator.cluster.link_messages import GatewaySnapshot
from orchestrator.cluster.pings import Pings
from orchestrator.cluster.reconcile import Create, Forget, Kind, Reconciler, Replace, desired
from orchestrator.telemetry.logs import bind, configure

__all__ = ["SupervisorActor"]

INTERVAL = 0.5
# Gateways report once a second; a node that is gone is forgotten sooner, with its node.
REPORT_EXPIRY = 10.0
# A gateway or tool actor whose loop is blocked for this long is of no use to anyone: an async tool must not block it at all.
SILENT_AFTER = 15.0
PING_INTERVAL = 5.0
# What Ray raises when an actor or its control store is not there.
_AWAY = (RayError, OSError, RuntimeError, ValueError)


class SupervisorActor:
    """A Ray actor: `deployment` is `Deployment.encode()`."""

    def __init__(self, deployment: bytes) -> None:
        self._deployment = Deployment.decode(deployment)
        configure(self._deployment.settings.log_level)
        self._log = bind(actor="supervisor", pid=os.getpid())
        self._children = Children(self._deployment)
        self._reconciler = Reconciler(self._deployment.plan())
        self._directory = Directory()
        self._pings = Pings(interval=PING_INTERVAL, silent_after=SILENT_AFTER)
        self._handles: dict[str, ActorHandle] = {}
        self._existing: set[str] = set()
        self._nodes: set[str] = set()
        self._started_at = time.time()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._spawn(self._reconcile_for_ever(), "reconcile")

    async def report(self, snapshot: bytes) -> None:
        """Take a gateway's `GatewaySnapshot`, MessagePack."""
        self._directory.receive_report(msgspec.msgpack.decode(snapshot, type=GatewaySnapshot), time.monotonic())

    async def directory(self) -> str:
        """Return JSON: `gateways` and `sessions`, as far as they have been reported since this process started."""
        view = {
            "gateways": self._directory.gateways(time.monotonic()),
            "sessions": tuple(self._directory.sessions()),
        }
        return msgspec.json.encode(view).decode()

    async def lookup(self, session_id: str) -> str | None:
        """Return JSON of a session's `Place`, or None when no gateway has reported it."""
        place = self._directory.lookup(session_id)
        return None if place is None else msgspec.json.encode(place).decode()

    async def status(self) -> str:
        """Return JSON: pid, start (Unix seconds), nodes, each actor that should exist and whether it does, and the pids
        of those that answer (session actors are asked by their gateways)."""
        wanted = desired(self._nodes, self._deployment.plan())
        view = {
            "pid": os.getpid(),
            "started_at": self._started_at,
            "nodes": sorted(self._nodes),
            "actors": {spec.name: spec.name in self._existing for spec in wanted},
            "pids": self._pings.pids(),
            "sessions": len(self._directory),
        }
        return msgspec.json.encode(view).decode()

    async def pid(self) -> int:
        """Return the pid."""
        return os.getpid()

    def __ray_shutdown__(self) -> None:
        # Ray runs this before a graceful exit only, in the main thread, when it has stopped the loop and ended its thread.
        self._loop.run_until_complete(self._close())

    async def _close(self) -> None:
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reconcile_for_ever(self) -> None:
        while True:
            try:
                await self._reconcile()
            except Exception as error:  # noqa: BLE001 - a supervisor that lives and does nothing is worse than a loud one
                # The control store may be away; what exists goes on without it and without us.
                self._log.warning("reconcile_failed", error=type(error).__name__, text=str(error))
            await asyncio.sleep(INTERVAL)

    async def _reconcile(self) -> None:
        self._nodes, self._existing = await asyncio.to_thread(self._children.observe)
        now = time.monotonic()
        for node, lost in self._directory.expire(now, REPORT_EXPIRY).items():
            self._log.warning("gateway_silent", node=node, sessions=len(lost))
        for action in self._reconciler.step(now, self._nodes, self._existing, self._pings.unfit(now)):
            self._log.info(type(action).__name__.lower(), name=action.spec.name, cause=getattr(action, "cause", None))
            if isinstance(action, Create | Replace):
                await asyncio.to_thread(self._children.perform, action)
            if isinstance(action, Forget) and action.spec.kind is Kind.GATEWAY and action.spec.node is not None:
                self._directory.forget_node(action.spec.node)
            self._handles.pop(action.spec.name, None)
        wanted = desired(self._nodes, self._deployment.plan())
        pinged = [spec.name for spec in wanted if spec.kind is not Kind.SESSION and spec.name in self._existing]
        for name in self._pings.due(pinged, time.monotonic()):
            self._pings.on_sent(name, time.monotonic())
            self._spawn(self._ping(name), f"ping {name}")

    async def _ping(self, name: str) -> None:
        """Ask a gateway or tool actor for its pid. No deadline: how long the question has been open is what is measured."""
        try:
            handle = self._handles.get(name) or await asyncio.to_thread(self._children.find, name)
            if handle is None:
                self._pings.on_failure(name)
                return
            self._handles[name] = handle
            self._pings.on_answer(name, await handle.ping.remote(), time.monotonic())
        except RayTaskError as error:
            self._pings.on_complaint(name, str(error.cause))
        except _AWAY:
            self._handles.pop(name, None)
            self._pings.on_failure(name)
