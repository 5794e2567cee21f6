"""The faults of a chaos run: each kind breaks something of the deployment, and says what it broke."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from orchestrator.cluster.link_messages import ActorSnapshot, GatewaySnapshot
from tests.chaos.deployment import Deployment, Endpoint, owners
from tests.chaos.story import Blow

__all__ = ["KINDS", "NOT_COVERED", "POSTGRES_KINDS", "SQLITE_KINDS", "Faults"]

# A call that has taken five owners with it within a minute is ended, so nobody is made an owner of a fifth death here.
MOST_DEATHS = 3
DEATH_WINDOW = 62.0
# Seconds.
ENDPOINT_AWAY = 3.0
REGION_AWAY = 3.0
STORE_AWAY = 3.0
LIMITED = 2.0

NOT_COVERED = (
    "loss of a node: there is one Ray node here",
    "loss of Ray's own control store",
    "power cut of the machine: what is in the kernel's page cache survives here",
    "callers' networks: nobody drops a caller's socket, so resume tokens are not tried",
)


class Faults:
    """Breaks things. `background` holds what is to be mended later; `aclose` waits for it."""

    def __init__(self, deployment: Deployment, seed: int) -> None:
        self._deployment = deployment
        self._random = random.Random(seed)
        self._deaths: dict[str, list[float]] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def inject(self, kind: str) -> Blow | None:
        """Break something of this kind; return what was broken, or None where nothing could be just now."""
        if kind in _COMES_BACK and self._background:
            return None
        return await KINDS[kind](self)

    async def aclose(self) -> None:
        """Wait until all that comes back by itself is back."""
        while self._background:
            await asyncio.wait(self._background)

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # Session actors

    async def session_actor(self) -> Blow | None:
        """Kill the owner of a session."""
        return await self._kill_owners("session-actor", 1, signal.SIGKILL)

    async def two_session_actors(self) -> Blow | None:
        """Kill two owners at once."""
        return await self._kill_owners("two-session-actors", 2, signal.SIGKILL)

    async def frozen_session_actor(self) -> Blow | None:
        """Stop an owner, which the gateway has to find out and to end."""
        return await self._kill_owners("frozen-session-actor", 1, signal.SIGSTOP)

    async def _kill_owners(self, kind: str, count: int, number: signal.Signals) -> Blow | None:
        view = await self._deployment.view()
        if view is None:
            return None
        victims = self._victims(view, count)
        if len(victims) < count:
            return None
        sessions = [session_id for _, held in victims for session_id in held]
        at = time.time()
        for actor, _ in victims:
            with suppress(ProcessLookupError):
                os.kill(actor.pid, number)
        for session_id in sessions:
            self._deaths.setdefault(session_id, []).append(at)
        return Blow(kind=kind, at=at, sessions=sessions, detail=f"pids {[actor.pid for actor, _ in victims]}")

    def _victims(self, view: GatewaySnapshot, count: int) -> list[tuple[ActorSnapshot, list[str]]]:
        """Choose owners that may die now: their calls are not at the limit, and others have room for them."""
        now = time.time()
        recovering = {one.session_id for one in view.sessions if one.state == "recovering"}
        candidates = [
            (actor, held)
            for actor, held in owners(view).items()
            if not recovering.intersection(held) and all(self._may_lose(session_id, now) for session_id in held)
        ]
        self._random.shuffle(candidates)
        chosen = candidates[:count]
        dying = {actor.actor_id for actor, _ in chosen}
        room = sum(actor.seats - actor.used for actor in view.actors if actor.actor_id not in dying)
        return chosen if room >= sum(len(held) for _, held in chosen) else []

    def _may_lose(self, session_id: str, now: float) -> bool:
        deaths = self._deaths[session_id] = [at for at in self._deaths.get(session_id, ()) if now - at < DEATH_WINDOW]
        return len(deaths) < MOST_DEATHS

    # What stands beside the calls

    async def gateway(self) -> Blow | None:
        """Kill the gateway."""
        view = await self._deployment.view()
        return None if view is None else self._kill("gateway", view.pid)

    async def supervisor(self) -> Blow | None:
        """Kill the supervisor."""
        pid = await self._deployment.supervisor()
        return None if pid is None else self._kill("supervisor", pid)

    async def tool_actor(self) -> Blow | None:
        """Kill a tool actor."""
        pids = sorted((await self._deployment.tool_actors()).values())
        return self._kill("tool-actor", self._random.choice(pids)) if pids else None

    def _kill(self, kind: str, pid: int) -> Blow | None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        return Blow(kind=kind, at=time.time(), detail=f"pid {pid}")

    # Models

    async def sockets_cut(self) -> Blow | None:
        """Cut every connection to a model, as a network does."""
        return await self._everywhere("sockets-cut", do="drop")

    async def sockets_closed(self) -> Blow | None:
        """Close every connection to a model, as a server does that is restarted."""
        return await self._everywhere("sockets-closed", do="drop", code=1012, reason="service restart")

    async def region_down(self) -> Blow | None:
        """One endpoint ends all its sessions, and lets nobody in for a while."""
        return await self._at_one("region-down", do="region_down", status=503, for_seconds=REGION_AWAY)

    async def rate_limit(self) -> Blow | None:
        """One endpoint ends its sessions, and refuses to open others for a while because there were too many."""
        return await self._at_one("rate-limit", do="region_down", status=429, retry_after=1, for_seconds=LIMITED)

    async def responses_fail(self) -> Blow | None:
        """The responses that are active fail, with the error of a model that is asked too much."""
        return await self._everywhere("responses-fail", do="fail", at="now", code="rate_limit_exceeded", times=4)

    async def endpoint(self) -> Blow | None:
        """Kill an endpoint's process; it is back some seconds later."""
        endpoint = self._random.choice(self._deployment.endpoints)
        at = time.time()
        await asyncio.to_thread(endpoint.kill)
        self._later(_restart(endpoint))
        return Blow(kind="endpoint", at=at, detail=endpoint.name)

    async def _everywhere(self, kind: str, **fault: object) -> Blow | None:
        at = time.time()
        try:
            for endpoint in self._deployment.endpoints:
                await endpoint.fault(**fault)
        except OSError:
            return None
        return Blow(kind=kind, at=at)

    async def _at_one(self, kind: str, **fault: object) -> Blow | None:
        endpoint = self._random.choice(self._deployment.endpoints)
        at = time.time()
        try:
            await endpoint.fault(**fault)
        except OSError:
            return None
        return Blow(kind=kind, at=at, detail=endpoint.name)

    # The store

    async def store_locked(self) -> Blow | None:
        """Somebody else holds SQLite's write lock."""
        at = time.time()
        self._later(self._while_locked())
        return Blow(kind="store-locked", at=at)

    async def store_stopped(self) -> Blow | None:
        """PostgreSQL crashes, and comes back after a while."""
        server = self._deployment.server
        assert server is not None
        at = time.time()
        await asyncio.to_thread(server.stop)
        self._later(_start_later(server.start))
        return Blow(kind="store-stopped", at=at)

    async def store_frozen(self) -> Blow | None:
        """PostgreSQL keeps its connections, and answers nothing for a while."""
        self._later(self._while_frozen())
        return Blow(kind="store-frozen", at=time.time())

    async def _while_locked(self) -> None:
        await asyncio.to_thread(self._hold_lock)

    def _hold_lock(self) -> None:
        with self._deployment.locked_store():
            time.sleep(STORE_AWAY)

    async def _while_frozen(self) -> None:
        assert self._deployment.server is not None
        with self._deployment.server.frozen():
            await asyncio.sleep(STORE_AWAY)


async def _restart(endpoint: Endpoint) -> None:
    await _start_later(endpoint.start, ENDPOINT_AWAY)


async def _start_later(start: Callable[[], None], after: float = STORE_AWAY) -> None:
    await asyncio.sleep(after)
    await asyncio.to_thread(start)


KINDS: dict[str, Callable[[Faults], Awaitable[Blow | None]]] = {
    "session-actor": Faults.session_actor,
    "two-session-actors": Faults.two_session_actors,
    "frozen-session-actor": Faults.frozen_session_actor,
    "gateway": Faults.gateway,
    "supervisor": Faults.supervisor,
    "tool-actor": Faults.tool_actor,
    "sockets-cut": Faults.sockets_cut,
    "sockets-closed": Faults.sockets_closed,
    "region-down": Faults.region_down,
    "rate-limit": Faults.rate_limit,
    "responses-fail": Faults.responses_fail,
    "endpoint": Faults.endpoint,
    "store-locked": Faults.store_locked,
    "store-stopped": Faults.store_stopped,
    "store-frozen": Faults.store_frozen,
}
# What is away for a while is not broken again meanwhile, nor two of these at once.
_COMES_BACK = ("endpoint", "store-locked", "store-stopped", "store-frozen")
# Only when it is asked for: what a model answers with an error is not asked again for a phone, which then waits in vain.
_ON_DEMAND = ("responses-fail",)
SQLITE_KINDS = tuple(kind for kind in KINDS if kind not in ("store-stopped", "store-frozen", *_ON_DEMAND))
POSTGRES_KINDS = tuple(kind for kind in KINDS if kind not in ("store-locked", *_ON_DEMAND))
