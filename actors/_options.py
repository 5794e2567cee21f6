"""The only place with Ray options: how our actors are declared, named, found and ended.

All are detached and named, since a child that is not dies with its owner within 30 ms, and restarted for ever by Ray after a
crash; a call is never repeated by Ray (`max_task_retries=0`), since it would run the whole method again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util import list_named_actors
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from orchestrator.cluster.reconcile import ActorSpec

__all__ = ["SUPERVISOR", "create", "existing_names", "find", "live_nodes", "remove", "restart"]

SUPERVISOR = "supervisor"

# Calls to an async actor that run at once; it must exceed what all callers together may have out.
MAX_CONCURRENCY = 4096


def _options(namespace: str, name: str, node: str | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_task_retries": 0,
        "num_cpus": 0,
        "max_concurrency": MAX_CONCURRENCY,
    }
    if node is not None:
        # Hard: on another node it could not be reached over the Unix socket of its gateway.
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    return options


def create(kind: Callable[..., Any], namespace: str, spec: ActorSpec | str, *arguments: Any) -> ActorHandle:
    """Create the actor, or find it where it exists already; does not wait for its constructor. Safe to race with others."""
    name, node = (spec, None) if isinstance(spec, str) else (spec.name, spec.node)
    return ray.remote(kind).options(**_options(namespace, name, node)).remote(*arguments)


def find(namespace: str, name: str) -> ActorHandle | None:
    """Return a handle to the actor, or None. Blocks for a round trip to the control store when the name is not cached."""
    try:
        return ray.get_actor(name, namespace)
    except ValueError:
        return None


def existing_names(namespace: str) -> set[str]:
    """Return the names of the actors that exist, starting and restarting ones included. Blocks for a round trip."""
    return {entry["name"] for entry in list_named_actors(all_namespaces=True) if entry["namespace"] == namespace}


def live_nodes() -> set[str]:
    """Return the ids of the nodes that are alive. Blocks for a round trip."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def restart(namespace: str, name: str) -> None:
    """Kill the actor's process at once, without its shutdown hook; Ray starts it again. Its calls in flight are lost."""
    _kill(namespace, name, for_good=False)


def remove(namespace: str, name: str) -> None:
    """End the actor for good, at once and without its shutdown hook."""
    _kill(namespace, name, for_good=True)


def _kill(namespace: str, name: str, *, for_good: bool) -> None:
    handle = find(namespace, name)
    if handle is not None:
        ray.kill(handle, no_restart=for_good)
