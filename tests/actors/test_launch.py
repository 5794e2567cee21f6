"""The composition root, and what a deployment does when its parts die."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from actors import _options
from actors.launch import Cluster, launch
from orchestrator.cluster.reconcile import tool_name
from orchestrator.errors import InfrastructureFault, UserError
from orchestrator.settings import Secret, Settings
from orchestrator.simulator.scenario import load_scenario
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from tests.waiting import until, until_sync

if TYPE_CHECKING:
    from actors.local_ray import RayConnection

pytestmark = pytest.mark.cluster

AGENT = "tests.agents.tools:agent"


def settings_for(namespace: str, **changes: object) -> Settings:
    base = Settings(agent=AGENT, namespace=namespace, port=0, session_actors=2, tool_actors=1)
    return msgspec.structs.replace(base, **changes)


@pytest.fixture(scope="module")
def cluster(_ray_connection: RayConnection) -> Iterator[Cluster]:
    """One deployment for all tests that only disturb it; each of them waits until it is whole again."""
    running = launch(settings_for(f"test-{uuid.uuid4().hex[:12]}"))
    yield running
    running.shutdown()


def namespace_of(cluster: Cluster) -> str:
    return cluster._namespace


def get(cluster: Cluster, path: str) -> tuple[int, str]:
    host, port = cluster.gateway_address
    with urllib.request.urlopen(f"http://{host}:{port}{path}") as answer:
        return answer.status, answer.read().decode()


def supervisor_pid(cluster: Cluster) -> int:
    with suppress(InfrastructureFault):
        return int(cluster.status()["pid"])
    return 0


def linked_actors(cluster: Cluster) -> dict[str, int]:
    """Return the session actors that the supervisor knows of, by name, with their processes."""
    with suppress(InfrastructureFault):
        gateways = cluster.snapshot()["gateways"]
        return {actor["actor_id"]: actor["pid"] for gateway in gateways for actor in gateway["actors"]}
    return {}


def test_a_launched_deployment_has_all_its_actors_and_takes_calls(cluster: Cluster) -> None:
    assert get(cluster, "/healthz")[0] == 200
    assert get(cluster, "/readyz")[0] == 200
    sessions, tools = cluster.session_actor_pids(), cluster.tool_actor_pids()
    assert len(sessions) == 2
    # The agent's tools name two pools, and each has an actor.
    assert set(tools) == {tool_name("default", 0), tool_name("other", 0)}
    processes = [*sessions.values(), *tools.values(), supervisor_pid(cluster), os.getpid()]
    assert len(set(processes)) == len(processes)
    until_sync(lambda: linked_actors(cluster) == sessions)
    assert cluster.describe("sess_that_never_was") is None


def test_a_killed_supervisor_comes_back_finds_its_children_and_has_its_directory_again(cluster: Cluster) -> None:
    sessions, tools, before = cluster.session_actor_pids(), cluster.tool_actor_pids(), supervisor_pid(cluster)
    os.kill(before, 9)
    # Nobody needs it for this.
    assert get(cluster, "/readyz")[0] == 200
    until_sync(lambda: supervisor_pid(cluster) not in (0, before))
    until_sync(lambda: linked_actors(cluster) == sessions)
    assert all(cluster.status()["actors"].values())
    assert (cluster.session_actor_pids(), cluster.tool_actor_pids()) == (sessions, tools)


def test_actors_that_are_dead_for_good_are_created_again(cluster: Cluster) -> None:
    sessions, tools = cluster.session_actor_pids(), cluster.tool_actor_pids()
    victims = [next(iter(sessions)), tool_name("default", 0)]
    for name in victims:
        _options.remove(namespace_of(cluster), name)
    until_sync(lambda: set(cluster.session_actor_pids()) == set(sessions) and set(cluster.tool_actor_pids()) == set(tools))
    assert cluster.session_actor_pids()[victims[0]] != sessions[victims[0]]
    assert cluster.tool_actor_pids()[victims[1]] != tools[victims[1]]
    until_sync(lambda: linked_actors(cluster) == cluster.session_actor_pids())


def test_a_killed_session_actor_and_a_killed_gateway_link_up_again(cluster: Cluster) -> None:
    before = cluster.session_actor_pids()
    name, victim = next(iter(before.items()))
    os.kill(victim, 9)
    until_sync(lambda: linked_actors(cluster).get(name, victim) != victim)
    after = cluster.session_actor_pids()
    until_sync(lambda: len(linked_actors(cluster)) == 2)
    gateway = cluster.snapshot()["gateways"][0]["pid"]
    os.kill(gateway, 9)

    def back() -> bool:
        with suppress(InfrastructureFault):
            gateways = cluster.snapshot()["gateways"]
            return any(view["pid"] != gateway and len(view["actors"]) == 2 for view in gateways)
        return False

    until_sync(back)
    assert cluster.session_actor_pids() == after


def test_a_second_launch_joins_the_deployment_and_its_end_leaves_it_running(cluster: Cluster) -> None:
    before = cluster.session_actor_pids()
    told: list[str] = []
    other = launch(settings_for(namespace_of(cluster), session_actors=9), on_progress=told.append)
    assert any("joining" in line for line in told)
    assert other.session_actor_pids() == before
    other.shutdown()
    assert cluster.session_actor_pids() == before


def test_shutdown_leaves_nothing_behind(ray_cluster: RayConnection, namespace: str) -> None:
    running = launch(settings_for(namespace, session_actors=1))
    link_directory = Path(running._deployment.link_directory)
    assert link_directory.is_dir()
    processes = [*running.session_actor_pids().values(), *running.tool_actor_pids().values(), supervisor_pid(running)]
    running.shutdown(graceful_timeout=5.0)
    running.shutdown()
    assert _options.existing_names(namespace) == set()
    until_sync(lambda: not any(is_running(pid) for pid in processes))
    assert not link_directory.exists()


async def test_shutdown_waits_for_running_calls_and_ends_the_rest_with_a_reason(
    ray_cluster: RayConnection, namespace: str
) -> None:
    async with SimulatorServer(SimulatorOptions(load_scenario("order_desk"))) as model:
        settings = settings_for(namespace, session_actors=3, model_url=model.url, model_api_key=Secret("sk-of-a-test"))
        running = await asyncio.to_thread(launch, settings)
        host, port = running.gateway_address
        url = f"ws://{host}:{port}/v1/realtime?model=any"
        async with connect(url) as short, connect(url) as long:
            for caller in (short, long):
                assert json.loads(await caller.recv())["type"] == "session.created"
            ending = asyncio.ensure_future(asyncio.to_thread(running.shutdown, 3.0))

            async def refuses() -> bool:
                with suppress(InvalidStatus, OSError):
                    async with connect(url):
                        return False
                return True

            await until(refuses)
            assert await answers(long)
            await short.close()
            assert not ending.done()
            last = [json.loads(message) async for message in long][-1]
            assert last["error"]["code"] == "shutdown"
            assert long.close_code is not None
            assert long.close_code != 1006
        await ending
    assert _options.existing_names(namespace) == set()


async def answers(caller: ClientConnection) -> bool:
    """Say whether the session of a caller still does its work."""
    await caller.send(json.dumps({"type": "no.such.event", "event_id": "mine"}))
    return bool(json.loads(await caller.recv())["error"]["event_id"] == "mine")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_an_agent_that_does_not_exist_is_told_before_anything_is_started(ray_cluster: RayConnection, namespace: str) -> None:
    told: list[str] = []
    with pytest.raises(UserError, match="no_such_module"):
        launch(settings_for(namespace, agent="no_such_module:agent"), on_progress=told.append)
    assert len(told) == 1
    assert _options.existing_names(namespace) == set()


def test_a_port_that_is_taken_is_told_by_name_and_everything_is_ended(ray_cluster: RayConnection, namespace: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InfrastructureFault, match=rf"gateway-\w+ failed to start: .*{port}"):
            launch(settings_for(namespace, port=port))
    assert _options.existing_names(namespace) == set()


def test_what_does_not_come_up_in_time_is_named(ray_cluster: RayConnection, namespace: str) -> None:
    started = time.monotonic()
    with pytest.raises(InfrastructureFault, match=r"session-\w+-0.* did not start in time"):
        launch(settings_for(namespace, agent="tests.agents.slow:agent"), start_within=0.5)
    assert time.monotonic() > started
    assert _options.existing_names(namespace) == set()
