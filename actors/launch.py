"""The composition root: the one place where a deployment's actors are put together, on a Ray of our own or on a cluster."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError

from actors import _options
from actors._paths import make_private_directory, shared_link_directory
from actors.children import Children, Deployment
from actors.local_ray import RayConnection, start_ray
from actors.supervisor import SupervisorActor
from actors.tool_pool import pools_of
from orchestrator.agent_ref import load_agent, load_run_config
from orchestrator.cluster.link_messages import GatewaySnapshot
from orchestrator.cluster.reconcile import Kind, Reconciler, desired, gateway_name
from orchestrator.errors import EndReason, InfrastructureFault
from orchestrator.settings import Settings
from orchestrator.stream_token import with_token_secret
from orchestrator.tool_runner import collect_tools

__all__ = ["Cluster", "launch"]

Progress = Callable[[str], None]

# Seconds. A machine of two cores starts two to four actors per second, beside what else it does.
START_WITHIN = 60.0
START_WITHIN_PER_ACTOR = 3.0
CALL_WITHIN = 10.0
END_WITHIN = 12.0
POLL = 0.05
LOG_TAIL_LINES = 15
_GATEWAYS = f"{Kind.GATEWAY.value}-"
_SESSIONS = f"{Kind.SESSION.value}-"
_TOOLS = f"{Kind.TOOL.value}-"


def launch(
    settings: Settings, *, address: str | None = None, on_progress: Progress | None = None, start_within: float | None = None
) -> Cluster:
    """Start everything and return when the gateway takes calls and every actor of the plan is up.

    Without `address` a Ray of our own is started on loopback, unless this process is connected to one already; with it the
    cluster there is used, and a deployment of the same namespace that runs there already is joined and keeps its settings.
    `on_progress` is told of each step in words for people. Blocks, 8 to 15 seconds on two cores; call it in a thread where a
    loop runs. Raises UserError or SettingsError for what is wrong with the agent or the settings, before anything is started,
    and InfrastructureFault, after ending what it had started, naming what did not come up within `start_within` seconds.
    """
    tell = on_progress or (lambda _text: None)
    tell(f"loading the agent {settings.agent}")
    pools = pools_of(collect_tools(load_agent(settings.agent)))
    load_run_config(settings.run_config)
    # Made here if none is set: every gateway, also one that is restarted, must know the tokens of the others.
    settings = with_token_secret(settings)
    tell("starting Ray on this machine" if address is None else f"connecting to Ray at {address}")
    connection = start_ray(address)
    try:
        return _compose(settings, pools, connection, tell, start_within)
    except BaseException:
        connection.stop()
        raise


def _compose(
    settings: Settings, pools: tuple[str, ...], connection: RayConnection, tell: Progress, start_within: float | None
) -> Cluster:
    if connection.directory is None:
        link_directory = shared_link_directory(settings.namespace)
    else:
        link_directory = str(connection.directory / "link")
        make_private_directory(link_directory)
    deployment = Deployment(settings=settings, pools=pools, link_directory=link_directory)
    joined = _options.find(settings.namespace, _options.SUPERVISOR) is not None
    if joined:
        tell(f"joining the deployment that runs in namespace {settings.namespace}; its settings stay in force")
    supervisor = _options.create(SupervisorActor, settings.namespace, _options.SUPERVISOR, deployment.encode())
    cluster = Cluster(deployment, connection, supervisor, founded=not joined)
    try:
        if joined:
            cluster._join(tell, start_within)
        else:
            cluster._start(tell, start_within)
    except BaseException:
        if not joined:
            cluster._remove_actors()
        raise
    return cluster


class Cluster:
    """A running deployment, as the process sees it that launched it. Its methods block for a call or two."""

    def __init__(self, deployment: Deployment, connection: RayConnection, supervisor: ActorHandle, *, founded: bool) -> None:
        self._deployment = deployment
        self._namespace = deployment.settings.namespace
        self._connection = connection
        self._children = Children(deployment)
        self._supervisor = supervisor
        self._founded = founded
        self._gateways: tuple[GatewaySnapshot, ...] = ()
        self._closed = False

    @property
    def gateway_address(self) -> tuple[str, int]:
        """Host and port of a gateway: of this node's where there is one, else of any. With `port` 0 a restart changes it."""
        self._gateways = tuple(self._gateway_views()) or self._gateways
        here = ray.get_runtime_context().get_node_id()
        best = min(self._gateways, key=lambda view: view.node != here)
        return best.host, best.port

    @property
    def log_directory(self) -> Path:
        """Where this node's actors write their log lines."""
        return self._connection.log_directory

    def snapshot(self) -> dict[str, Any]:
        """Return the supervisor's directory: `gateways` and `sessions`. Raises InfrastructureFault when it does not answer."""
        view: dict[str, Any] = msgspec.json.decode(self._ask(self._supervisor.directory.remote(), "the supervisor"))
        return view

    def status(self) -> dict[str, Any]:
        """Return the supervisor's status: which actors should exist and do. Raises as `snapshot`."""
        view: dict[str, Any] = msgspec.json.decode(self._ask(self._supervisor.status.remote(), "the supervisor"))
        return view

    def describe(self, session_id: str) -> dict[str, Any] | None:
        """Return a session's call record, also for one that ended a short while ago; None when no session actor knows it."""
        owner = self._owner(session_id)
        for name in sorted(self._names(_SESSIONS), key=lambda name: name != owner):
            for record in self._ask_all([name], "describe", session_id).values():
                if record is not None:
                    described: dict[str, Any] = msgspec.json.decode(record)
                    return described
        return None

    def session_actor_pids(self) -> dict[str, int]:
        """Return the process of each session actor that answers, by actor name."""
        return self._ask_all(self._names(_SESSIONS), "ping")

    def tool_actor_pids(self) -> dict[str, int]:
        """Return the process of each tool actor that answers, by actor name."""
        return self._ask_all(self._names(_TOOLS), "pid")

    def shutdown(self, graceful_timeout: float = 0.0) -> None:
        """End the deployment if this process founded it, then leave Ray, or end it if it was started here.

        The gateways admit nobody from now on; calls may end by themselves for `graceful_timeout` seconds, the rest are ended
        with reason `shutdown`, for which they get a few seconds more. Goes on past actors that do not answer. May be called
        twice.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if self._founded:
                self._drain(graceful_timeout)
                self._remove_actors()
        finally:
            self._connection.stop()

    def _drain(self, graceful_timeout: float) -> None:
        gateways = self._names(_GATEWAYS)
        self._ask_all(gateways, "drain")
        deadline = time.monotonic() + graceful_timeout
        # A gateway that does not answer counts no session, since nothing can be waited for.
        while (running := sum(len(view.sessions) for view in self._gateway_views())) and time.monotonic() < deadline:
            time.sleep(POLL)
        if running:
            reason = EndReason("shutdown", "the service is being shut down")
            self._ask_all(self._names(_SESSIONS), "end_all", msgspec.json.encode(reason), within=END_WITHIN)

    def _remove_actors(self) -> None:
        # The supervisor first, or it would start the others again.
        _options.remove(self._namespace, _options.SUPERVISOR)
        for name in _options.existing_names(self._namespace):
            _options.remove(self._namespace, name)
        shutil.rmtree(self._deployment.link_directory, ignore_errors=True)

    def _names(self, prefix: str) -> list[str]:
        return sorted(name for name in _options.existing_names(self._namespace) if name.startswith(prefix))

    def _owner(self, session_id: str) -> str | None:
        """Return the name of the session actor that has the session, if the supervisor knows."""
        try:
            place = self._ask(self._supervisor.lookup.remote(session_id), "the supervisor")
        except InfrastructureFault:
            return None
        return None if place is None else str(msgspec.json.decode(place)["session"]["actor_id"])

    def _gateway_views(self) -> list[GatewaySnapshot]:
        answers = self._ask_all(self._names(_GATEWAYS), "snapshot").values()
        return [msgspec.msgpack.decode(answer, type=GatewaySnapshot) for answer in answers]

    def _ask(self, reference: Any, whom: str) -> Any:
        try:
            return ray.get(reference, timeout=CALL_WITHIN)
        except (RayError, GetTimeoutError) as error:
            raise InfrastructureFault(f"{whom} did not answer: {type(error).__name__}") from error

    def _ask_all(self, names: Iterable[str], method: str, *arguments: Any, within: float = CALL_WITHIN) -> dict[str, Any]:
        """Call a method of each of these actors at once. Return by name what was answered; who does not answer is left out."""
        handles = {name: self._children.find(name) for name in names}
        calls = {name: getattr(handle, method).remote(*arguments) for name, handle in handles.items() if handle is not None}
        if calls:
            ray.wait(list(calls.values()), num_returns=len(calls), timeout=within)
        answers: dict[str, Any] = {}
        for name, call in calls.items():
            with suppress(RayError):
                answers[name] = ray.get(call, timeout=0)
        return answers

    def _start(self, tell: Progress, start_within: float | None) -> None:
        """Create all actors, and wait until they are up and linked."""
        nodes, existing = self._children.observe()
        plan = self._deployment.plan()
        count = len(desired(nodes, plan)) + 1
        deadline = time.monotonic() + (start_within or START_WITHIN + START_WITHIN_PER_ACTOR * count)
        tell(f"starting {count} actors on {len(nodes)} node{'s' if len(nodes) > 1 else ''}")
        # Not left to the supervisor, which is only starting itself. Who creates an actor first makes no difference.
        handles = {_options.SUPERVISOR: self._supervisor}
        for action in Reconciler(plan).step(0.0, nodes, existing):
            created = self._children.perform(action)
            if created is not None:
                handles[action.spec.name] = created
        self._wait_for_constructors(handles, deadline, tell)
        self._wait_for_gateways(nodes, plan.session_actors, deadline, tell)

    def _join(self, tell: Progress, start_within: float | None) -> None:
        """Wait until every node of a deployment that runs already takes calls."""
        nodes, _ = self._children.observe()
        self._wait_for_gateways(nodes, 1, time.monotonic() + (start_within or START_WITHIN), tell)

    def _wait_for_constructors(self, handles: Mapping[str, ActorHandle], deadline: float, tell: Progress) -> None:
        waiting = {handle.__ray_ready__.remote(): name for name, handle in handles.items()}
        while waiting:
            remaining = deadline - time.monotonic()
            done, _ = ray.wait(list(waiting), timeout=max(0.0, remaining))
            if not done:
                raise self._not_up(", ".join(sorted(waiting.values())), "did not start in time")
            for reference in done:
                name = waiting.pop(reference)
                try:
                    ray.get(reference)
                except RayError as error:
                    raise InfrastructureFault(f"{name} failed to start: {_last_line(str(error))}") from error
                tell(f"{name} is up")

    def _wait_for_gateways(self, nodes: set[str], actors: int, deadline: float, tell: Progress) -> None:
        tell("waiting for the gateway")
        while True:
            self._gateways = tuple(self._gateway_views())
            ready = {view.node for view in self._gateways if view.ready and len(view.actors) >= actors}
            if nodes <= ready:
                break
            if time.monotonic() > deadline:
                missing = ", ".join(sorted(map(gateway_name, nodes - ready)))
                raise self._not_up(missing, "did not become ready in time: not all session actors are linked to it")
            time.sleep(POLL)
        host, port = self.gateway_address
        tell(f"ready at {host}:{port}")

    def _not_up(self, what: str, why: str) -> InfrastructureFault:
        # The tail and not the path: the directory goes away with a Ray that was started here.
        return InfrastructureFault(f"{what} {why}\nlast lines of the log:\n{_log_tail(self._connection.log_directory)}")


def _last_line(text: str) -> str:
    """Return the last line that says something: of a traceback, the error itself."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), text)


def _log_tail(directory: Path) -> str:
    """Return the last lines of the newest non-empty actor log, with the file's name before them."""
    logs = [path for path in directory.glob("worker-*") if path.is_file() and path.stat().st_size]
    if not logs:
        return "(no actor has written anything)"
    newest = max(logs, key=lambda path: path.stat().st_mtime)
    lines = newest.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join([f"{newest.name}:", *lines])
