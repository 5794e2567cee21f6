"""The Ray that we start ourselves: what it listens on, and who may use it."""

from __future__ import annotations

import ipaddress
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import pytest
import ray

from actors.local_ray import start_ray

if TYPE_CHECKING:
    from actors.local_ray import RayConnection

pytestmark = pytest.mark.cluster


def our_processes() -> list[psutil.Process]:
    me = psutil.Process()
    return [me, *me.children(recursive=True)]


def test_every_port_that_it_listens_on_is_on_loopback(ray_cluster: RayConnection) -> None:
    listening = []
    for process in our_processes():
        # Workers come and go; those that stay are the ones that matter.
        with suppress(psutil.NoSuchProcess), process.oneshot():
            listening += [
                (process.name(), connection.laddr.ip, connection.laddr.port)
                for connection in process.net_connections(kind="inet")
                if connection.status == psutil.CONN_LISTEN
            ]
    assert {"gcs_server", "raylet"} <= {name for name, _, _ in listening}
    outside = [entry for entry in listening if not is_loopback(entry[1])]
    assert outside == []


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def test_workers_run_at_the_normal_priority(ray_cluster: RayConnection) -> None:
    priorities = set()
    for process in our_processes():
        with suppress(psutil.NoSuchProcess):
            priorities.add(process.nice())
    assert priorities == {os.nice(0)}


def test_its_directory_and_its_token_are_closed_to_other_users(ray_cluster: RayConnection) -> None:
    assert ray_cluster.directory is not None
    assert stat.S_IMODE(ray_cluster.directory.stat().st_mode) == 0o700
    token = ray_cluster.directory / "token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_AUTH_TOKEN_PATH"] == str(token)


def test_a_ray_that_runs_already_is_used_and_not_stopped(ray_cluster: RayConnection) -> None:
    second = start_ray()
    assert not second.owned
    second.stop()
    assert ray.is_initialized()


def test_the_logs_of_its_actors_are_where_it_says(ray_cluster: RayConnection) -> None:
    assert any(ray_cluster.log_directory.glob("raylet*"))
