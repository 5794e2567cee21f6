"""The Ray half of reconciling: sees which actors there are, and starts, restarts and finds them.

Used by the supervisor, and once by the composition root, so that nothing waits for the supervisor to start. Each method
blocks for a round trip to Ray's control store, for as long as that is away: call them in a thread where a loop runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from ray.actor import ActorHandle

from actors import _options
from actors._paths import link_path
from actors.gateway import GatewayActor
from actors.session import SessionActor
from actors.tool import ToolActor
from orchestrator.cluster.reconcile import Action, ActorSpec, Create, Forget, Kind, Plan, Replace
from orchestrator.settings import Settings

__all__ = ["Children", "Deployment"]


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What all actors of a deployment are made from. It contains the secrets: never log it.

    `pools` are the tool pools that the agent's tools name. `link_directory` is where each node has its link socket.
    """

    settings: Settings
    pools: tuple[str, ...]
    link_directory: str

    def encode(self) -> bytes:
        """Encode for the supervisor's constructor."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Deployment:
        """Decode what `encode` made."""
        return msgspec.json.decode(data, type=cls)

    def plan(self) -> Plan:
        """Return how many actors there should be."""
        return Plan(self.settings.session_actors, self.settings.tool_actors, self.pools)


class Children:
    """All actors of a deployment but the supervisor.

    They are constructed as `GatewayActor(settings, node, link_path)`, `SessionActor(settings, name, link_path)` and
    `ToolActor(settings)`, with `settings` as JSON bytes.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._namespace = deployment.settings.namespace
        self._settings = deployment.settings.to_json()

    def observe(self) -> tuple[set[str], set[str]]:
        """Return the ids of the live nodes and the names of the actors that exist."""
        return _options.live_nodes(), _options.existing_names(self._namespace)

    def perform(self, action: Action) -> ActorHandle | None:
        """Carry out an action of the reconciler; return the handle of an actor that was created."""
        match action:
            case Create(spec):
                kind, arguments = self._construction(spec)
                return _options.create(kind, self._namespace, spec, *arguments)
            case Replace(spec):
                _options.restart(self._namespace, spec.name)
            case Forget():
                pass
        return None

    def find(self, name: str) -> ActorHandle | None:
        """Return a handle to an actor, or None when there is none of that name."""
        return _options.find(self._namespace, name)

    def _construction(self, spec: ActorSpec) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        if spec.kind is Kind.TOOL:
            return ToolActor, (self._settings,)
        if spec.node is None:
            raise AssertionError("a gateway or session actor without a node: the plan places them all")
        path = link_path(self._deployment.link_directory, spec.node)
        if spec.kind is Kind.GATEWAY:
            return GatewayActor, (self._settings, spec.node, path)
        return SessionActor, (self._settings, spec.name, path)
