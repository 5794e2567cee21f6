"""Ray itself: one of our own on this machine, bound to loopback, or a cluster that exists already.

Everything that is set here was measured: workers at nice 0 (at Ray's default of 15 the frame latency p99 is 98 ms instead of
3.4 beside two busy processes), all ports on 127.0.0.1, node death found within about 1.3 s.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray

from actors._paths import new_private_directory
from orchestrator.errors import InfrastructureFault

__all__ = ["NODE_ENVIRONMENT", "RayConnection", "start_ray"]

# For every process of every node, so also for the pods of a cluster. Read by the control store, the raylets and the workers.
NODE_ENVIRONMENT: Mapping[str, str] = {
    "RAY_worker_niceness": "0",
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "3",
    # A caller whose call broke waits this long for news that the callee is dead for good, before it is told "unavailable".
    # Ours are always restarted, so no such news ever comes. Ray's default is a second.
    "RAY_timeout_ms_task_wait_for_death_info": "100",
    "RAY_USAGE_STATS_ENABLED": "0",
}
LOOPBACK = "127.0.0.1"
# Nothing of ours goes through the object store; Ray insists on at least 75 MiB.
OBJECT_STORE_BYTES = 80 * 1024 * 1024


@dataclass
class RayConnection:
    """This process's connection to Ray.

    `directory` is private (0700) and ours, or None on a cluster that we did not start; `log_directory` holds the output of
    all actors of this node.
    """

    owned: bool
    directory: Path | None
    log_directory: Path
    _environment: dict[str, str | None] = field(default_factory=dict, repr=False)

    def stop(self) -> None:
        """Disconnect, and end the Ray that `start_ray` started. Does nothing when another part of this program owns it."""
        if self.owned:
            ray.shutdown()
            _restore(self._environment)
            self.owned = False
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None


def start_ray(address: str | None = None, *, cpus: int | None = None) -> RayConnection:
    """Connect to the Ray at `address`, or start one on this machine when there is none.

    A Ray to which this process is connected already is used and left alone. Raises InfrastructureFault when Ray does not
    start, or when it listens on more than loopback. Blocks for 4 to 6 seconds when it starts one.
    """
    if ray.is_initialized():
        return RayConnection(owned=False, directory=None, log_directory=_log_directory())
    if address is not None:
        try:
            with _keeping_sigterm():
                ray.init(address=address, **_QUIET)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InfrastructureFault(f"no Ray answers at {address}: {error}") from error
        return RayConnection(owned=True, directory=None, log_directory=_log_directory())
    directory = new_private_directory()
    connection = RayConnection(True, directory, directory, _set(_local_environment(directory)))
    try:
        _reread_environment()
        # Ray opens its temporary directory to everyone, so it gets one inside ours.
        with _keeping_sigterm():
            ray.init(
                _node_ip_address=LOOPBACK,
                _temp_dir=str(directory / "ray"),
                num_cpus=cpus,
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                **_QUIET,
            )
    except Exception as error:  # Ray raises plain Exception for a process of its own that did not come up
        connection.stop()
        raise InfrastructureFault(f"Ray did not start: {error}") from error
    addresses = {node["NodeManagerAddress"] for node in ray.nodes()}
    if addresses != {LOOPBACK}:
        connection.stop()
        raise InfrastructureFault(f"Ray would listen on {', '.join(sorted(addresses))} instead of {LOOPBACK}")
    connection.log_directory = _log_directory()
    return connection


@contextmanager
def _keeping_sigterm() -> Iterator[None]:
    """Put the program's own SIGTERM handler back in place: Ray replaces it by one that ends the process at once."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


_QUIET: Mapping[str, Any] = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}


def _local_environment(directory: Path) -> dict[str, str]:
    """Return the environment of a Ray on this machine. What the user has set stays, except where the ports would open up."""
    values = {name: value for name, value in NODE_ENVIRONMENT.items() if name not in os.environ}
    # The only switch that makes every port listen on loopback: a node address of 127.0.0.1 alone is replaced by the host's.
    values["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    # Loopback keeps other machines out but not the other users of this one, and who can connect can run code as us. A token
    # of this run only; Ray's default would leave one in the home directory and print a notice.
    if "RAY_AUTH_MODE" not in os.environ:
        token = directory / "token"
        token.touch(mode=0o600, exist_ok=False)
        token.write_text(secrets.token_hex(32))
        values["RAY_AUTH_MODE"] = "token"
        values["RAY_AUTH_TOKEN_PATH"] = str(token)
    # An agent module is looked for in the current directory first, as `python -m` does.
    paths = [str(Path.cwd()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    values["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    return values


def _reread_environment() -> None:
    """Make Ray see variables that it reads once, at import: it may have been imported long before.

    Private names, since Ray has no public ones for this; the check of the addresses in `start_ray` and a test of the
    listening ports tell when one of them has changed its meaning.
    """
    from ray import _raylet
    from ray._private import ray_constants, worker

    raylet: Any = _raylet  # a compiled module without annotations
    ray_constants.ENABLE_RAY_CLUSTER = False
    # The death of every worker is otherwise printed to standard output, where `--json` puts its answer.
    worker._worker_logs_enabled = False
    # And its advice to whoever started it by hand to standard error.
    logging.getLogger("ray").setLevel(logging.ERROR)
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def _set(values: Mapping[str, str]) -> dict[str, str | None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    return before


def _restore(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _log_directory() -> Path:
    from ray._private import worker  # Ray tells the path to its own tools only

    node = worker._global_node
    return Path(node.get_logs_dir_path() if node is not None else tempfile.gettempdir())
