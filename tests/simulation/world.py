"""Virtual time, processes that die and freeze, links, networks and sockets: what the simulation puts in the machine's place.

One event at a time, in the order of a queue that a seed decides; nothing here knows what the processes are for.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

__all__ = ["Link", "Process", "Sock", "Violation", "World"]

# Some hundred are usual. More means that something turns in a circle.
MOST_STEPS = 20_000


class Violation(Exception):
    """An invariant is broken. `name` is stable."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(f"{name}: {text}")
        self.name = name


class Process:
    """Something that runs until it is killed. While it is frozen, what would have happened to it waits."""

    def __init__(self, world: World, name: str, pid: int) -> None:
        self.world = world
        self.name = name
        self.pid = pid
        self.alive = True
        self.frozen = False
        self.backlog: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.socks: set[Sock] = set()

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        backlog, self.backlog = self.backlog, []
        for action, arguments in backlog:
            self.world.at(0.0, self, action, *arguments)

    def die(self) -> None:
        """The kernel closes what the process had open."""
        self.alive = False
        self.backlog.clear()
        for sock in list(self.socks):
            sock.release(self)


class Sock:
    """A caller's connection, open as long as somebody here holds a descriptor of it."""

    __slots__ = ("caller_left", "holders", "on_close", "open", "reachable", "relay")

    def __init__(self, on_close: Callable[[Sock], None]) -> None:
        self.holders: set[Process] = set()
        self.on_close = on_close
        self.open = True
        # The caller has closed it; or its network is gone, which nobody hears of.
        self.caller_left = False
        self.reachable = True
        # The gateway through which it comes, where it is not the owner's own.
        self.relay: Process | None = None

    def hold(self, process: Process) -> None:
        if self.open:
            self.holders.add(process)
            process.socks.add(self)

    def release(self, process: Process) -> None:
        process.socks.discard(self)
        self.holders.discard(process)
        # A relay has nothing to offer by itself.
        if self.open and (self.holders <= {self.relay} or process is self.relay):
            self.shut()

    def shut(self) -> None:
        if self.open:
            self.open = False
            for process in self.holders:
                process.socks.discard(self)
            self.holders.clear()
            self.on_close(self)


class Link:
    """The node link of one actor and one gateway: both directions keep their order. It is the gateway's `ActorLink`."""

    def __init__(self, world: World, actor: Any, gateway: Any) -> None:
        self.world = world
        self.actor = actor
        self.gateway = gateway
        self.broken = self.drops = False
        self._clear_up = self._clear_down = 0.0

    def up(self, message: Any) -> None:
        """Actor to gateway."""
        if not self.broken:
            self._clear_up = max(self._clear_up, self.world.now + self.world.short())
            self.world.at_time(self._clear_up, self.gateway, self._arrive_up, message)

    def send(self, message: Any, fds: tuple[int, ...] = ()) -> None:
        """Gateway to actor."""
        if not self.broken:
            self._clear_down = max(self._clear_down, self.world.now + self.world.short())
            self.world.at_time(self._clear_down, self.actor, self._arrive_down, message)

    def offer(self, message: Any, fds: tuple[int, ...] = ()) -> bool:
        self.send(message)
        return not self.broken

    def close(self, reason: Any) -> None:
        raise Violation("link_closed", f"the gateway does not understand its actor: {reason}")

    def end(self, *, drops: bool) -> None:
        """One side is gone. What is under way still arrives, unless it was in a queue of the side that dropped the link."""
        if self.broken:
            return
        self.broken = True
        self.drops = drops
        self.world.at_time(
            max(self._clear_up, self.world.now) + self.world.short(), self.gateway, self.gateway.on_link_lost, self
        )
        self.world.at_time(
            max(self._clear_down, self.world.now) + self.world.short(), self.actor, self.actor.on_link_lost, self
        )

    drops = False

    def _arrive_up(self, message: Any) -> None:
        if not (self.broken and self.drops):
            self.gateway.on_message(self, message)

    def _arrive_down(self, message: Any) -> None:
        if not (self.broken and self.drops):
            self.actor.on_message(self, message)


class World:
    """The queue, the clock, the dice, and what was seen on the way."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.steps = 0
        self.seen: Counter[str] = Counter()
        self.trace: list[str] | None = [] if trace else None
        self._queue: list[tuple[float, int, Process | None, Callable[..., Any], tuple[Any, ...]]] = []
        self._count = 0
        self._pids = 100
        # Pairs of places between which nothing gets through, and how often they were cut.
        self._cuts: Counter[frozenset[str]] = Counter()

    # Time.

    def at(self, delay: float, process: Process | None, action: Callable[..., Any], *arguments: Any) -> None:
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay, self._count, process, action, arguments))

    def at_time(self, time: float, process: Process | None, action: Callable[..., Any], *arguments: Any) -> None:
        self._count += 1
        heapq.heappush(self._queue, (time, self._count, process, action, arguments))

    def run(self, until: float) -> None:
        queue = self._queue
        while queue and queue[0][0] <= until and self.steps <= MOST_STEPS:
            time, _, process, action, arguments = heapq.heappop(queue)
            if time > self.now:
                self.now = time
            if process is not None:
                if not process.alive:
                    continue
                if process.frozen:
                    process.backlog.append((action, arguments))
                    continue
            self.steps += 1
            action(*arguments)
        if self.steps > MOST_STEPS:
            raise Violation("comes_to_rest", f"{self.steps} steps")
        self.now = until

    def short(self) -> float:
        """A message between two processes of a node."""
        dice = self.random.random()
        # Now and then the other side is busy.
        return 0.0002 + dice**3 * 0.004 if dice < 0.95 else 0.001 + (dice - 0.95) * 0.6

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random.random()

    def new_pid(self) -> int:
        self._pids += 1
        return self._pids

    # Networks.

    def cut(self, one: str, other: str) -> None:
        self._cuts[frozenset((one, other))] += 1

    def mend(self, one: str, other: str) -> None:
        self._cuts[frozenset((one, other))] -= 1

    def connected(self, one: str, other: str) -> bool:
        return not self._cuts or self._cuts[frozenset((one, other))] <= 0

    def message(self, sender: str, receiver: str, process: Process, action: Callable[..., Any], *arguments: Any) -> None:
        """Between two nodes: may be lost, and overtake another."""
        if self.connected(sender, receiver):
            self.at(self.between(0.001, 0.03), process, self._arrive, sender, receiver, action, arguments)

    def _arrive(self, sender: str, receiver: str, action: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        if self.connected(sender, receiver):
            action(*arguments)

    # What is told.

    def note(self, what: str, **facts: object) -> None:
        self.seen[what] += 1
        if self.trace is not None:
            told = " ".join(f"{name}={value}" for name, value in facts.items())
            self.trace.append(f"{self.now:8.3f}  {what}  {told}")
