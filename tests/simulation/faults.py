"""What goes wrong, and when: made from a seed, as data, so that a run can be told, repeated and shortened."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tests.simulation.cluster import Cluster, Node, Shape
from tests.simulation.store import STORE
from tests.simulation.supervisor import SUPERVISOR

__all__ = ["GENTLE", "KINDS", "Fault", "inject", "make_faults", "make_shape"]

T = TypeVar("T")


@dataclass(frozen=True)
class Fault:
    """One fault at `at` seconds; `pick` decides whom it meets, among those that are there then."""

    at: float
    kind: str
    pick: int
    duration: float


KINDS: dict[str, int] = {
    "kill_actor": 10,
    "kill_owner": 10,
    "kill_gateway": 6,
    "kill_there": 2,
    "kill_both": 3,
    "kill_supervisor": 3,
    "lose_node": 4,
    "freeze_actor": 6,
    "freeze_gateway": 3,
    "freeze_node": 4,
    "freeze_supervisor": 2,
    "cut_store": 7,
    "cut_supervisor": 4,
    "cut_nodes": 3,
    "isolate": 4,
    "store_down": 7,
    "spool_full": 3,
    "clock_step": 3,
    "break_link": 4,
    "drop_caller": 8,
    "hand_over": 4,
    "poison": 1,
}
# What the design promises to survive with every caller's connection open, however often it happens.
_RESTARTS = ("kill_gateway", "kill_both", "freeze_actor", "break_link", "drop_caller", "cut_store", "hand_over", "kill_actor")
GENTLE = (
    *("kill_actor", "kill_owner", "kill_supervisor", "freeze_actor", "freeze_supervisor", "break_link", "hand_over"),
    *("store_down", "cut_store", "cut_supervisor", "cut_nodes", "clock_step"),
)


def make_shape(seed: int) -> Shape:
    dice = random.Random(seed * 2 + 1)
    return Shape(
        nodes=dice.choice((1, 2, 2, 3)),
        actors=dice.choice((1, 2, 2, 3)),
        seats=dice.choice((1, 1, 2, 4)),
        calls=dice.choice((1, 2, 2, 3, 4)),
        active=dice.uniform(2.5, 5.0),
    )


def make_faults(seed: int, shape: Shape) -> list[Fault]:
    dice = random.Random(seed * 2)
    theme = dice.choices(("any", "gentle", "outage", "split", "restarts"), (5, 3, 2, 2, 1))[0]
    if theme == "outage":
        return _outage(dice, shape)
    if theme == "split":
        return _split(dice, shape)
    names = {"any": list(KINDS), "gentle": list(GENTLE), "restarts": list(_RESTARTS)}[theme]
    weights = [KINDS[name] for name in names]
    faults: list[Fault] = []
    at = 0.0
    for _ in range(dice.choice((1, 2, 3, 3, 4, 5, 6, 8))):
        # Some come shortly after another: what is being repaired breaks again.
        soon = faults and dice.random() < 0.45
        at = at + dice.expovariate(8.0) if soon else dice.uniform(0.2, shape.active)
        faults.append(_fault(dice, at, dice.choices(names, weights)[0], dice.expovariate(0.6) + 0.05))
    return sorted(faults, key=lambda fault: fault.at)


def _fault(dice: random.Random, at: float, kind: str, duration: float) -> Fault:
    return Fault(round(at, 4), kind, dice.randrange(1 << 30), round(duration, 3))


def _outage(dice: random.Random, shape: Shape) -> list[Fault]:
    """A long time without the store, in which the disk fills up and is emptied, and owners come and go."""
    at, duration = dice.uniform(0.3, 1.5), dice.uniform(1.5, 4.0)
    faults = [_fault(dice, at, dice.choice(("store_down", "cut_store")), duration)]
    faults += [
        _fault(dice, at + dice.uniform(-0.2, duration), "spool_full", dice.uniform(0.2, 1.5))
        for _ in range(dice.choice((0, 1, 1, 2)))
    ]
    for _ in range(dice.choice((1, 2, 3, 4))):
        kind = dice.choice(("kill_owner", "kill_owner", "hand_over", "kill_gateway", "break_link", "drop_caller"))
        faults.append(_fault(dice, at + dice.uniform(0.0, duration + 0.5), kind, dice.uniform(0.1, 1.0)))
    del shape
    return sorted(faults, key=lambda fault: fault.at)


def _split(dice: random.Random, shape: Shape) -> list[Fault]:
    """A node that lives on by itself, and changes owners, while the others take its calls over."""
    at, duration = dice.uniform(0.5, 1.5), dice.uniform(2.5, 6.0)
    faults = [_fault(dice, at, "isolate", duration)]
    for _ in range(dice.choice((1, 2, 2, 3, 4))):
        kind = dice.choice(("kill_there", "kill_there", "kill_there", "drop_caller", "hand_over", "kill_owner"))
        faults.append(_fault(dice, at + dice.uniform(0.1, duration + 0.3), kind, 0.5))
    del shape
    return sorted(faults, key=lambda fault: fault.at)


def inject(cluster: Cluster, faults: list[Fault]) -> None:
    for fault in faults:
        cluster.world.at_time(fault.at, None, _happen, cluster, fault)


def _happen(cluster: Cluster, fault: Fault) -> None:
    cluster.world.note(f"fault: {fault.kind}")
    cluster.disturbed_at = cluster.world.now
    _FAULTS[fault.kind](cluster, fault)


def _one_of(fault: Fault, things: list[T]) -> list[T]:
    return [things[fault.pick % len(things)]] if things else []


def _nodes(cluster: Cluster) -> list[Node]:
    return [node for node in cluster.nodes if node.alive]


def _kill_actor(cluster: Cluster, fault: Fault) -> None:
    for node in _one_of(fault, _nodes(cluster)):
        for actor in _one_of(fault, list(node.actors.values())):
            cluster.kill(actor)


def _kill_owner(cluster: Cluster, fault: Fault) -> None:
    owners = [actor for node in _nodes(cluster) for actor in node.actors.values() if actor.alive and actor.calls]
    for actor in _one_of(fault, owners):
        cluster.kill(actor)


def _kill_there(cluster: Cluster, fault: Fault) -> None:
    """Kill an owner of a node that is cut off."""
    away = [node for node in _nodes(cluster) if not cluster.world.connected(node.name, STORE)]
    owners = [actor for node in away for actor in node.actors.values() if actor.alive and actor.calls]
    for actor in _one_of(fault, owners):
        cluster.kill(actor)


def _kill_gateway(cluster: Cluster, fault: Fault) -> None:
    for node in _one_of(fault, _nodes(cluster)):
        if node.gateway is not None:
            cluster.kill(node.gateway)


def _kill_both(cluster: Cluster, fault: Fault) -> None:
    _kill_gateway(cluster, fault)
    _kill_actor(cluster, fault)


def _kill_supervisor(cluster: Cluster, fault: Fault) -> None:
    del fault
    cluster.kill(cluster.supervisor)


def _lose_node(cluster: Cluster, fault: Fault) -> None:
    for node in _one_of(fault, _nodes(cluster)):
        cluster.lose(node)


def _freeze_actor(cluster: Cluster, fault: Fault) -> None:
    actors = [actor for node in _nodes(cluster) for actor in node.actors.values()]
    cluster.freeze(_one_of(fault, actors), fault.duration)


def _freeze_gateway(cluster: Cluster, fault: Fault) -> None:
    gateways = [node.gateway for node in _nodes(cluster)]
    cluster.freeze([gateway for gateway in _one_of(fault, gateways) if gateway is not None], fault.duration)


def _freeze_node(cluster: Cluster, fault: Fault) -> None:
    for node in _one_of(fault, _nodes(cluster)):
        cluster.freeze(node.processes(), fault.duration * 2)
        cluster.cut(node.name, SUPERVISOR, fault.duration * 2)


def _freeze_supervisor(cluster: Cluster, fault: Fault) -> None:
    cluster.freeze([cluster.supervisor], fault.duration)


def _cut_store(cluster: Cluster, fault: Fault) -> None:
    for node in _one_of(fault, _nodes(cluster)):
        cluster.cut(node.name, STORE, fault.duration)


def _cut_supervisor(cluster: Cluster, fault: Fault) -> None:
    for node in _one_of(fault, _nodes(cluster)):
        cluster.cut(node.name, SUPERVISOR, fault.duration * 2)


def _cut_nodes(cluster: Cluster, fault: Fault) -> None:
    for node in _one_of(fault, _nodes(cluster)):
        for other in _nodes(cluster):
            if other is not node:
                cluster.cut(node.name, other.name, fault.duration)


def _isolate(cluster: Cluster, fault: Fault) -> None:
    """The node lives, and nobody but its callers can reach it."""
    for node in _one_of(fault, _nodes(cluster)):
        for place in (STORE, SUPERVISOR, *(other.name for other in _nodes(cluster) if other is not node)):
            cluster.cut(node.name, place, fault.duration)


def _store_down(cluster: Cluster, fault: Fault) -> None:
    store = cluster.store
    store.down += 1

    def back() -> None:
        store.down -= 1
        cluster.disturbed_at = cluster.world.now

    cluster.world.at(fault.duration, None, back)


def _spool_full(cluster: Cluster, fault: Fault) -> None:
    for node in _one_of(fault, _nodes(cluster)):
        before, node.spool_limit = node.spool_limit, len(node.spool) + fault.pick % 4

        def empty(node: Node = node, before: int = before) -> None:
            node.spool_limit = max(before, node.spool_limit)

        cluster.world.at(fault.duration, None, empty)
    if fault.pick % 3:
        _cut_store(cluster, fault)


def _clock_step(cluster: Cluster, fault: Fault) -> None:
    for node in _one_of(fault, _nodes(cluster)):
        node.clock_error += (fault.pick % 2000) - 1000


def _break_link(cluster: Cluster, fault: Fault) -> None:
    links = [actor.link for node in _nodes(cluster) for actor in node.actors.values() if actor.link is not None]
    for link in _one_of(fault, links):
        link.end(drops=fault.pick % 2 == 0)


def _drop_caller(cluster: Cluster, fault: Fault) -> None:
    for caller in _one_of(fault, [caller for caller in cluster.callers if caller.sock is not None]):
        caller.lose_network()


def _hand_over(cluster: Cluster, fault: Fault) -> None:
    for node in _one_of(fault, _nodes(cluster)):
        for actor in _one_of(fault, list(node.actors.values())):
            if node.gateway is not None and node.gateway.alive:
                cluster.world.at(0.0, node.gateway, node.gateway.hand_over, actor.actor_id)


def _poison(cluster: Cluster, fault: Fault) -> None:
    for caller in _one_of(fault, cluster.callers):
        cluster.poison.add(caller.session_id)
        _kill_owner(cluster, fault)


_FAULTS: dict[str, Callable[[Cluster, Fault], None]] = {
    "kill_actor": _kill_actor,
    "kill_owner": _kill_owner,
    "kill_gateway": _kill_gateway,
    "kill_there": _kill_there,
    "kill_both": _kill_both,
    "kill_supervisor": _kill_supervisor,
    "lose_node": _lose_node,
    "freeze_actor": _freeze_actor,
    "freeze_gateway": _freeze_gateway,
    "freeze_node": _freeze_node,
    "freeze_supervisor": _freeze_supervisor,
    "cut_store": _cut_store,
    "cut_supervisor": _cut_supervisor,
    "cut_nodes": _cut_nodes,
    "isolate": _isolate,
    "store_down": _store_down,
    "spool_full": _spool_full,
    "clock_step": _clock_step,
    "break_link": _break_link,
    "drop_caller": _drop_caller,
    "hand_over": _hand_over,
    "poison": _poison,
}
