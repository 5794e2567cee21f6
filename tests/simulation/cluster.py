"""A cluster in virtual time: nodes, processes that are started again, callers, and what everybody did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

from orchestrator.cluster.link_messages import GatewaySnapshot
from orchestrator.journal.entries import Entry
from orchestrator.resume_token import ResumeTokens
from orchestrator.settings import Secret
from tests.simulation.actor import ActorTwin
from tests.simulation.gateway import GatewayTwin
from tests.simulation.store import StoreTwin
from tests.simulation.supervisor import SUPERVISOR, SupervisorTwin
from tests.simulation.world import Process, Sock, World

__all__ = ["Caller", "Cluster", "Node", "Shape"]

UNIX_TIME = 1_800_000_000.0
# How long the cluster takes to see that a node is gone, or is back.
NODE_SEEN_AFTER = 1.3


@dataclass(frozen=True)
class Shape:
    """How large it all is."""

    nodes: int
    actors: int
    seats: int
    calls: int
    active: float


class Node:
    """A machine: what its processes share, and lose with it."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.name = f"n{number}"
        self.alive = True
        self.gateway: GatewayTwin | None = None
        self.actors: dict[str, ActorTwin] = {}
        self.spool: list[Entry] = []
        self.spool_limit = 10_000
        self.clock_error = 0.0
        for index in range(cluster.shape.actors):
            self.start_actor(f"{self.name}-a{index}")
        self.start_gateway()

    def wall(self) -> float:
        return UNIX_TIME + self.world.now + self.clock_error

    def start_gateway(self) -> None:
        if self.alive:
            self.gateway = GatewayTwin(self.cluster, self)
            for actor in self.actors.values():
                self.world.at(self.world.between(0.002, 0.1), actor, actor.connect)

    def start_actor(self, actor_id: str) -> None:
        if self.alive:
            actor = self.actors[actor_id] = ActorTwin(self.cluster, self, actor_id, self.cluster.shape.seats)
            self.world.at(self.world.between(0.001, 0.02), actor, actor.connect)

    def processes(self) -> list[Process]:
        return [*([] if self.gateway is None else [self.gateway]), *self.actors.values()]


class Caller:
    """Somebody who calls, comes back when the connection breaks, and hangs up some time."""

    def __init__(self, cluster: Cluster, session_id: str, channel: str) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.session_id = session_id
        self.channel = channel
        self.sock: Sock | None = None
        self.token: str | None = None
        self.gone = False
        self.returns = 0
        self.patient = self.world.random.random() < 0.85

    def call(self) -> None:
        node = self.cluster.some_node()
        if node is None or node.gateway is None or not node.gateway.alive:
            self.gone = True
            return
        self.world.at(0.001, node.gateway, node.gateway.accept, self, self.session_id, self.channel)

    def on_up(self, node: Node) -> None:
        if self.token is None:
            self.token = self.cluster.tokens.issue(self.session_id, node.wall(), 3600.0)

    def hang_up(self) -> None:
        if self.gone:
            return
        self.gone = True
        self.world.note("caller: hangs up", session=self.session_id)
        if self.channel == "sip":
            self.cluster.sip_ended(self.session_id)
        elif self.sock is not None:
            self.sock.caller_left = True
            self.cluster.tell_holders(self.sock)

    def lose_network(self) -> None:
        """Nobody is told: the other side finds out by its keepalive."""
        sock = self.sock
        if sock is not None and sock.open and not self.gone:
            sock.reachable = False
            self.world.note("caller: network lost", session=self.session_id)
            self.cluster.tell_holders(sock)
            self._come_back(self.world.between(0.3, 2.0))

    def on_close(self, sock: Sock) -> None:
        if sock is self.sock and not self.gone and sock.reachable:
            self.cluster.broken.append(self.session_id)
            self.world.note("caller: connection broke", session=self.session_id)
            self._come_back(self.world.between(0.05, 1.5))

    def refused(self, code: str, retry_after: int | None) -> None:
        self.world.note(f"caller: refused {code}", session=self.session_id)
        self.sock = None
        if retry_after is None or self.token is None:
            self.gone = True
        else:
            self._come_back(self.world.between(0.3, 1.0))

    def _come_back(self, delay: float) -> None:
        self.sock = None
        if self.token is None or not self.patient or self.returns > 12:
            self.world.note("caller: gives up", session=self.session_id)
            self.gone = True
            return
        self.returns += 1
        self.world.at(delay, None, self._return)

    def _return(self) -> None:
        if self.gone or self.sock is not None or self.token is None:
            return
        node = self.cluster.some_node()
        gateway = None if node is None else node.gateway
        if gateway is None or not gateway.alive:
            self._come_back(self.world.between(0.2, 0.6))
            return
        self.world.note("caller: comes back", session=self.session_id, node=gateway.node.name)
        self.world.at(0.001, gateway, gateway.resume, self, self.session_id, self.token)
        # A gateway that dies before it has accepted leaves the caller to try again.
        self.world.at(6.0, None, self._look_again, self.returns)

    def _look_again(self, attempt: int) -> None:
        if self.returns == attempt and self.sock is None and not self.gone:
            self._come_back(0.1)


class Cluster:
    """Everything of one run."""

    def __init__(self, world: World, shape: Shape) -> None:
        self.world = world
        self.shape = shape
        self.store = StoreTwin(world)
        self.tokens = ResumeTokens(Secret("a secret"))
        self.nodes: list[Node] = []
        self.callers: list[Caller] = []
        self.poison: set[str] = set()
        # The faults are over; and nobody says anything new.
        self.calm = self.silent = False
        # What was sent, acknowledged, given up; who was refused; which tools ran that must not run twice.
        self.sent: dict[tuple[str, str, int], Entry] = {}
        # By which gateway it was taken in.
        self.arrived: dict[tuple[str, str, int], GatewayTwin] = {}
        self.kept: dict[tuple[str, str], tuple[Node, int]] = {}
        self.durable: dict[tuple[str, str], int] = {}
        self.lost: set[tuple[str, str, int]] = set()
        # Callers whose connection was closed, though they had not hung up.
        self.broken: list[str] = []
        # When something was last disturbed, or came back from being so.
        self.disturbed_at = 0.0
        self.refused: set[tuple[str, str]] = set()
        # Whom each owner took a call over from.
        self.parents: dict[tuple[str, str], str] = {}
        # Those that took over by the store alone, without knowing what the last owner's node has on its disk.
        self.strangers: set[tuple[str, str]] = set()
        self.runs: Counter[tuple[str, str]] = Counter()
        self._sip: dict[str, set[ActorTwin]] = {}
        self._sip_over: set[str] = set()
        self._numbers = 0
        self._view: set[str] = set()
        for _ in range(shape.nodes):
            self.add_node()
        self._view = {node.name for node in self.nodes}
        self.supervisor = SupervisorTwin(self)
        for number in range(shape.calls):
            self._add_caller(number)

    def add_node(self) -> None:
        self._numbers += 1
        self.nodes.append(Node(self, self._numbers))
        self.world.at(NODE_SEEN_AFTER, None, self._view.add, self.nodes[-1].name)

    def _add_caller(self, number: int) -> None:
        channel = "sip" if self.world.random.random() < 0.3 else "openai"
        caller = Caller(self, f"s{number}", channel)
        self.callers.append(caller)
        self.world.at(self.world.between(0.05, self.shape.active * 0.6), None, caller.call)
        if self.world.random.random() < 0.5:
            self.world.at(self.world.between(self.shape.active * 0.3, self.shape.active + 3.0), None, caller.hang_up)

    # What processes ask for.

    def pause(self) -> float:
        """Between two things that a call does."""
        return self.world.between(1.5, 4.0) if self.calm else self.world.between(0.08, 0.7)

    def some_node(self) -> Node | None:
        alive = [node for node in self.nodes if node.alive]
        return self.world.random.choice(alive) if alive else None

    def node(self, name: str) -> Node | None:
        return next((node for node in self.nodes if node.name == name and node.alive), None)

    def nodes_in_view(self) -> set[str]:
        return self._view

    def up(self, session_id: str, node: Node) -> None:
        for caller in self.callers:
            if caller.session_id == session_id:
                caller.on_up(node)

    def looked_up(self, session_id: str) -> str | None:
        """What the supervisor told of a session, if it is there to be asked."""
        if not self.supervisor.alive or self.supervisor.frozen:
            return None
        place = self.supervisor.directory.lookup(session_id)
        return None if place is None else place.node

    def acknowledged(self, node: Node, session_id: str, writer: str, seq: int, *, durable: bool) -> None:
        if durable:
            self.durable[session_id, writer] = max(seq, self.durable.get((session_id, writer), 0))
        else:
            self.kept[session_id, writer] = (node, max(seq, self.kept.get((session_id, writer), (node, 0))[1]))

    def ran(self, session_id: str, call_id: str, *, idempotent: bool) -> None:
        if not idempotent:
            self.runs[session_id, call_id] += 1

    def attach_sip(self, session_id: str, actor: ActorTwin) -> None:
        self._sip.setdefault(session_id, set()).add(actor)

    def sip_is_over(self, session_id: str) -> bool:
        return session_id in self._sip_over

    def sip_ended(self, session_id: str) -> None:
        self._sip_over.add(session_id)
        for actor in sorted(self._sip.get(session_id, ()), key=lambda actor: actor.pid):
            self.world.at(0.005, actor, actor.hung_up, session_id)

    def tell_holders(self, sock: Sock) -> None:
        for process in sorted(sock.holders, key=lambda process: process.pid):
            if isinstance(process, ActorTwin):
                self.world.at(0.002, process, process.caller_changed, sock)

    # Between nodes.

    def report(self, gateway: GatewayTwin, snapshot: GatewaySnapshot) -> None:
        supervisor = self.supervisor
        self.world.message(gateway.node.name, SUPERVISOR, supervisor, supervisor.on_report, snapshot)

    def restart(self, session_id: str, name: str) -> None:
        node = self.node(name)
        if node is not None and node.gateway is not None:
            self.world.message(SUPERVISOR, name, node.gateway, node.gateway.restart, session_id)

    def served(self, gateway: GatewayTwin, session_id: str) -> None:
        supervisor = self.supervisor
        self.world.message(gateway.node.name, SUPERVISOR, supervisor, supervisor.on_served, session_id)

    def ask(self, asker: GatewayTwin, name: str, session_id: str, number: int) -> None:
        node = self.node(name)
        if node is not None and node.gateway is not None:
            self.world.message(asker.node.name, name, node.gateway, self._answer, asker, node.gateway, session_id, number)

    def _answer(self, asker: GatewayTwin, asked: GatewayTwin, session_id: str, number: int) -> None:
        answer = asked.answer(session_id)
        name = asked.node.name
        self.world.message(name, asker.node.name, asker, asker.answered, number, name, answer)

    def relay(self, by: GatewayTwin, name: str, session_id: str, sock: Sock | None) -> None:
        node = self.node(name)
        if sock is None:
            return
        if node is None or node.gateway is None or not self.world.connected(by.node.name, name):
            sock.shut()
            return
        sock.relay = by
        self.world.at(0.002, node.gateway, node.gateway.relayed, session_id, sock)
        # Should that gateway be gone by then, so is the relay.
        self.world.at(0.5, None, self._look_at_relay, sock)

    def _look_at_relay(self, sock: Sock) -> None:
        if not any(isinstance(process, ActorTwin) for process in sock.holders):
            sock.shut()

    # Ends and beginnings.

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        if not process.alive:
            return
        self.world.note(f"kill: {type(process).__name__}", name=process.name, pid=process.pid)
        process.die()
        self.disturbed_at = self.world.now
        if isinstance(process, ActorTwin):
            self._actor_died(process)
        elif isinstance(process, GatewayTwin):
            for link in list(process.links):
                link.end(drops=False)
            if process.node.alive:
                self.world.at(self.world.between(0.3, 1.2), None, process.node.start_gateway)
        else:
            self.world.at(self.world.between(0.5, 1.5), None, self._start_supervisor)

    def kill_pid(self, node: Node, actor_id: str, pid: int) -> None:
        actor = node.actors.get(actor_id)
        if actor is not None and actor.pid == pid and actor.alive:
            self.kill(actor)
        elif node.gateway is not None:
            self.world.at(0.001, node.gateway, node.gateway.on_gone, actor_id, pid)

    def _actor_died(self, actor: ActorTwin) -> None:
        node = actor.node
        if actor.link is not None:
            actor.link.end(drops=False)
        for attached in self._sip.values():
            attached.discard(actor)
        if node.gateway is not None and node.gateway.alive:
            self.world.at(self.world.between(0.001, 0.02), node.gateway, node.gateway.on_gone, actor.actor_id, actor.pid)
        if node.alive:
            self.world.at(self.world.between(0.3, 1.0), None, self._restart_actor, actor)

    def _restart_actor(self, actor: ActorTwin) -> None:
        if actor.node.actors[actor.actor_id] is actor:
            actor.node.start_actor(actor.actor_id)

    def _start_supervisor(self) -> None:
        self.supervisor = SupervisorTwin(self)

    def lose(self, node: Node) -> None:
        """The machine is gone with its disk; another one comes in its place."""
        if not node.alive:
            return
        self.world.note("lose node", name=node.name)
        node.alive = False
        for process in node.processes():
            self.kill(process)
        self.world.at(NODE_SEEN_AFTER, None, self._view.discard, node.name)
        self.world.at(self.world.between(0.5, 3.0), None, self.add_node)

    def seen(self, name: str, *, present: bool) -> None:
        """The cluster's view of a node follows its network with some delay."""
        connected = self.world.connected(name, SUPERVISOR)
        if self.node(name) is None or connected != present:
            return
        (self._view.add if present else self._view.discard)(name)

    def cut(self, one: str, other: str, duration: float) -> None:
        self.world.note("cut", one=one, other=other, duration=f"{duration:.1f}")
        self.world.cut(one, other)
        self.world.at(duration, None, self._mend, one, other)
        if SUPERVISOR in (one, other):
            name = one if other == SUPERVISOR else other
            self.world.at(NODE_SEEN_AFTER, None, partial(self.seen, name, present=False))

    def _mend(self, one: str, other: str) -> None:
        self.world.mend(one, other)
        self.world.note("mend", one=one, other=other)
        self.disturbed_at = self.world.now
        if SUPERVISOR in (one, other):
            name = one if other == SUPERVISOR else other
            self.world.at(0.3, None, partial(self.seen, name, present=True))

    def freeze(self, processes: list[Any], duration: float) -> None:
        for process in processes:
            if process.alive and not process.frozen:
                self.world.note(f"freeze: {type(process).__name__}", name=process.name, duration=f"{duration:.1f}")
                process.freeze()
                self.world.at(duration, None, self._thaw, process)

    def _thaw(self, process: Process) -> None:
        if process.alive and process.frozen:
            self.world.note("thaw", name=process.name)
            self.disturbed_at = self.world.now
            process.thaw()
