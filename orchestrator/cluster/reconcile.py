"""What has to be done so that the actors that run are the actors that should run.

Pure: it is told the time, the nodes and the actors that exist, and returns actions. Crashes are not its business: Ray
restarts an actor whose process died. It covers what Ray does not: an actor that was never created or is dead for good, a node
that joined or left, a process that runs but is of no use any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "Action",
    "ActorSpec",
    "Create",
    "Forget",
    "Kind",
    "Plan",
    "Reconciler",
    "Replace",
    "desired",
    "gateway_name",
    "session_name",
    "tool_name",
]

# Twelve hexadecimal digits of a random node id are unique in any cluster that will ever be, and a name stays readable.
NODE_DIGITS = 12
# Ray takes 5 s to kill a process that is stopped; a second kill before that would hit the one that comes after it.
REPLACE_PAUSE = 15.0


class Kind(Enum):
    """What an actor is."""

    GATEWAY = "gateway"
    SESSION = "session"
    TOOL = "tool"


@dataclass(frozen=True, order=True)
class ActorSpec:
    """An actor that should exist. `node` is the id of the only node where it may run, or None for any."""

    name: str
    kind: Kind
    node: str | None = None
    pool: str | None = None


@dataclass(frozen=True)
class Plan:
    """How many actors there should be: session actors per node, tool actors per pool."""

    session_actors: int
    tool_actors: int
    pools: tuple[str, ...] = ("default",)


@dataclass(frozen=True)
class Create:
    """Start an actor that does not exist."""

    spec: ActorSpec


@dataclass(frozen=True)
class Replace:
    """Kill the actor's process and let it start again, because of `cause`."""

    spec: ActorSpec
    cause: str


@dataclass(frozen=True)
class Forget:
    """The actor belongs to a node that has left: drop what is known of it."""

    spec: ActorSpec


Action = Create | Replace | Forget
_NONE: Mapping[str, str] = {}


def short_node(node: str) -> str:
    """Return the part of a node id that is used in names."""
    return node[:NODE_DIGITS]


def gateway_name(node: str) -> str:
    """Name the gateway of a node."""
    return f"gateway-{short_node(node)}"


def session_name(node: str, index: int) -> str:
    """Name a session actor of a node."""
    return f"session-{short_node(node)}-{index}"


def tool_name(pool: str, index: int) -> str:
    """Name a tool actor of a pool."""
    return f"tool-{pool}-{index}"


def desired(nodes: Iterable[str], plan: Plan) -> tuple[ActorSpec, ...]:
    """Return every actor that should exist, in the order in which it should be started.

    A call needs a gateway, one session actor and, for tools, one tool actor: those come first, the others after.
    """
    ordered = sorted(nodes)
    gateways = [ActorSpec(gateway_name(node), Kind.GATEWAY, node) for node in ordered]
    ranked: list[tuple[int, int, ActorSpec]] = []
    for position, node in enumerate(ordered):
        ranked += [
            (index, position, ActorSpec(session_name(node, index), Kind.SESSION, node)) for index in range(plan.session_actors)
        ]
    for position, pool in enumerate(plan.pools, start=len(ordered)):
        ranked += [
            (index, position, ActorSpec(tool_name(pool, index), Kind.TOOL, None, pool)) for index in range(plan.tool_actors)
        ]
    ranked.sort(key=lambda entry: entry[:2])
    return (*gateways, *(spec for _, _, spec in ranked))


@dataclass
class _Attempts:
    count: int
    last_at: float


class Reconciler:
    """Compares what should run with what does, and remembers only how often it has tried.

    An actor that does not stay (its constructor fails, say) is tried again after 1, 2, 4 … at most `max_backoff` seconds; one
    that has been there for `settled_after` seconds since the last try starts again from 1.
    """

    def __init__(self, plan: Plan, *, max_backoff: float = 60.0, settled_after: float = 30.0) -> None:
        self._plan = plan
        self._max_backoff = max_backoff
        self._settled_after = settled_after
        self._known: dict[str, ActorSpec] = {}
        self._attempts: dict[str, _Attempts] = {}

    def step(
        self, now: float, nodes: Collection[str], existing: Collection[str], unfit: Mapping[str, str] = _NONE
    ) -> tuple[Action, ...]:
        """Return what to do now.

        `nodes` are the ids of the live nodes, `existing` the names of the actors that exist or are being started or
        restarted, `unfit` says of which of them the process is of no use, and why. `now` is seconds of a monotonic clock. A
        session actor is never replaced: it may be speaking with a caller all the same.

        No nodes at all means that the cluster could not be seen, not that it is empty: then nothing is done.
        """
        if not nodes:
            return ()
        wanted = {spec.name: spec for spec in desired(nodes, self._plan)}
        actions: list[Action] = [Forget(spec) for name, spec in self._known.items() if name not in wanted]
        for name in set(self._attempts) - set(wanted):
            del self._attempts[name]
        self._known = wanted
        for name, spec in wanted.items():
            if name not in existing:
                if self._may_try(name, now):
                    actions.append(Create(spec))
            elif name in unfit and spec.kind is not Kind.SESSION:
                if self._may_try(name, now, pause=REPLACE_PAUSE):
                    actions.append(Replace(spec, unfit[name]))
            else:
                self._settle(name, now)
        return tuple(actions)

    def next_try_at(self, name: str) -> float:
        """Return the time before which the actor is not tried again; minus infinity when it may be tried at once."""
        tried = self._attempts.get(name)
        if tried is None:
            return float("-inf")
        # The exponent is bounded: a power of two with a five-digit exponent is no float.
        return tried.last_at + min(self._max_backoff, 2.0 ** min(tried.count - 1, 30))

    def _may_try(self, name: str, now: float, *, pause: float = 0.0) -> bool:
        tried = self._attempts.get(name)
        if now < self.next_try_at(name) or (tried is not None and now < tried.last_at + pause):
            return False
        self._attempts[name] = _Attempts(1 if tried is None else tried.count + 1, now)
        return True

    def _settle(self, name: str, now: float) -> None:
        tried = self._attempts.get(name)
        if tried is not None and now - tried.last_at >= self._settled_after:
            del self._attempts[name]
