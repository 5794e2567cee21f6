"""What a chaos run works on: a real deployment on real Ray, models in processes of their own, a journal in a real store."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from orchestrator.child_process import ChildProcess
from orchestrator.cluster.link_messages import ActorSnapshot, GatewaySnapshot
from orchestrator.journal.opening import journal_url
from orchestrator.settings import ModelEndpoint, Secret, Settings
from orchestrator.simulator.http_post import post
from orchestrator.telemetry.names import JOURNAL_LOST_TOTAL
from tests.chaos.labels import Hearing
from tests.chaos.story import Effect
from tests.journal.postgres import Postgres

if TYPE_CHECKING:
    from actors.launch import Cluster

__all__ = ["Deployment", "Endpoint", "Shape", "deployed", "owners"]

ASK_WITHIN = 2.0
START_WITHIN = 30.0
_COUNTER = re.compile(rf"^{JOURNAL_LOST_TOTAL}(?:{{[^}}]*}})? ([0-9.e+]+)$", re.MULTILINE)


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """How large the deployment is. `seats` is how many sessions the actors must be able to hold beside those that died."""

    sessions: int
    sessions_per_actor: int = 1
    spare_actors: int = 4
    tool_actors: int = 2
    endpoints: int = 2
    postgres: bool = False

    @property
    def session_actors(self) -> int:
        """How many actors hold all sessions, and so many more that some may be dead at any time."""
        return -(-self.sessions // self.sessions_per_actor) + self.spare_actors


class Endpoint:
    """One model endpoint: a process that may be killed and started again at the same address."""

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.hearings = directory / f"{name}.hearings"
        self._log = directory / f"{name}.log"
        self._child: ChildProcess | None = None
        self._port = 0
        self.url = ""
        self.control_url = ""

    def start(self) -> None:
        """Start it. Blocks until it listens."""
        arguments = ("--port", str(self._port), "--hearings", str(self.hearings))
        child = ChildProcess("tests.chaos.endpoint", arguments, log=self._log)
        child.__enter__()
        self._child = child
        ready = msgspec.json.decode(child.read_line(START_WITHIN))
        self.url, self.control_url = ready["url"], ready["control_url"]
        self._port = urlsplit(self.url).port or 0

    def kill(self) -> None:
        """Kill its process."""
        if self._child is not None:
            os.kill(self._child.pid, signal.SIGKILL)
            self.stop()

    def stop(self) -> None:
        """End it in good order. Idempotent."""
        if self._child is not None:
            self._child.__exit__(None, None, None)
            self._child = None

    async def fault(self, **members: Any) -> None:
        """Add a fault (`simulator.endpoint.fault_types`). Raises OSError where the endpoint is away."""
        body = msgspec.json.encode(members)
        status, answer = await post(f"{self.control_url}/faults", body, {"Content-Type": "application/json"})
        if status != 201:
            raise AssertionError(f"the endpoint refused a fault: {status} {answer.decode()}")


class Deployment:
    """A running deployment, and the handles on its processes. What asks Ray does so in a thread."""

    def __init__(
        self, cluster: Cluster, settings: Settings, endpoints: list[Endpoint], directory: Path, server: Postgres | None
    ) -> None:
        self.settings = settings
        self.endpoints = endpoints
        self.ledger = directory / "ledger"
        self.server = server
        self.cluster = cluster
        self.port = cluster.gateway_address[1]
        self.journal_lost = 0.0
        self._lost_before = 0.0

    async def view(self) -> GatewaySnapshot | None:
        """Return what the gateway knows now, or None where none answers."""
        answer = await asyncio.to_thread(self._ask, "gateway-", "snapshot")
        return None if answer is None else msgspec.msgpack.decode(answer, type=GatewaySnapshot)

    async def supervisor(self) -> int | None:
        """Return the supervisor's process, or None where it does not answer."""
        pid: int | None = await asyncio.to_thread(self._ask, "supervisor", "pid")
        return pid

    async def tool_actors(self) -> dict[str, int]:
        """Return the processes of the tool actors that answer, by name."""
        return await asyncio.to_thread(self.cluster.tool_actor_pids)

    async def watch_losses(self) -> None:
        """Sum up what the gateways say they have lost; each of them counts anew."""
        lost = await self._counted_lost()
        if lost is not None:
            self.journal_lost += lost - self._lost_before if lost >= self._lost_before else lost
            self._lost_before = lost

    @contextmanager
    def locked_store(self) -> Iterator[None]:
        """Keep the service from writing to SQLite."""
        path = journal_url(self.settings).removeprefix("sqlite:///")
        connection = sqlite3.connect(path, timeout=10.0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            yield
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    def effects(self) -> list[Effect]:
        """Return what the tools did, in order."""
        lines = self.ledger.read_bytes().splitlines() if self.ledger.exists() else []
        return [msgspec.json.decode(line, type=Effect) for line in lines]

    def hearings(self) -> list[Hearing]:
        """Return what the model sessions that ended in good order have heard."""
        found: list[Hearing] = []
        for endpoint in self.endpoints:
            lines = endpoint.hearings.read_bytes().splitlines() if endpoint.hearings.exists() else []
            found += [msgspec.json.decode(line, type=Hearing) for line in lines]
        return found

    async def _counted_lost(self) -> float | None:
        """Read the gateway's counter of entries that could not be kept."""
        try:
            async with asyncio.timeout(ASK_WITHIN):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                page = (await reader.read()).decode(errors="replace")
                writer.close()
        except (OSError, TimeoutError):
            return None
        found = _COUNTER.findall(page)
        return sum(map(float, found)) if found else None

    def _ask(self, prefix: str, method: str) -> Any:
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        from actors import _options

        try:
            namespace = self.settings.namespace
            name = min(name for name in _options.existing_names(namespace) if name.startswith(prefix))
            return ray.get(getattr(ray.get_actor(name, namespace), method).remote(), timeout=ASK_WITHIN)
        except (RayError, GetTimeoutError, ValueError):
            return None


def owners(view: GatewaySnapshot) -> dict[ActorSnapshot, list[str]]:
    """Return the sessions of every actor that has any."""
    found = {actor: [one.session_id for one in view.sessions if one.actor_id == actor.actor_id] for actor in view.actors}
    return {actor: sessions for actor, sessions in found.items() if sessions}


@contextmanager
def deployed(
    shape: Shape, *, keep: Path | None = None, tell: Callable[[str], None] = lambda _text: None
) -> Iterator[Deployment]:
    """Start everything, and end it with the block. Blocks for about fifteen seconds.

    What the run writes (journal, logs, what the tools did) is left in the directory `keep`, if one is given.
    """
    from actors.launch import launch

    with ExitStack() as stack:
        directory = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rto-chaos-")))
        directory.mkdir(parents=True, exist_ok=True)
        server = stack.enter_context(Postgres()) if shape.postgres else None
        endpoints = [Endpoint(f"model-{number}", directory) for number in range(1, shape.endpoints + 1)]
        for endpoint in endpoints:
            stack.callback(endpoint.stop)
            endpoint.start()
        keys = Secret("sk-offline")
        settings = Settings(
            agent="tests.agents.chaos:agent",
            namespace=f"chaos-{uuid.uuid4().hex[:12]}",
            port=0,
            model_endpoints=tuple(ModelEndpoint(name=one.name, url=one.url, key=keys) for one in endpoints),
            session_actors=shape.session_actors,
            sessions_per_actor=shape.sessions_per_actor,
            tool_actors=shape.tool_actors,
            max_sessions=shape.sessions + 8,
            state_directory=str(directory / "state"),
            journal_url=Secret(server.new_database() if server is not None else ""),
        )
        cluster = launch(settings, on_progress=tell)
        stack.callback(cluster.shutdown)
        if keep is not None:
            stack.callback(_keep_logs, cluster.log_directory, keep / "logs")
        yield Deployment(cluster, settings, endpoints, directory, server)


def _keep_logs(source: Path, target: Path) -> None:
    """Copy what the actors have written, which goes away with Ray."""
    target.mkdir(exist_ok=True)
    for path in source.glob("worker-*"):
        shutil.copy(path, target)
