"""Which endpoint the next model session is opened at: health, rate limits and seats of each, shared by the calls of a process.

An endpoint whose connections fail one after the other is left alone for a time that grows (its circuit is open); then one
connection tries it (half-open), and what becomes of that decides. One that is refused for good, such as by a wrong key, is left
alone for long, and by the session that was refused for ever. Source of the pattern: Nygard, "Release It!", circuit breaker.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from enum import Enum
from typing import TypeAlias

import msgspec

from orchestrator.core.renewal_faults import FaultKind, ModelFaultReason
from orchestrator.core.states import Machine
from orchestrator.errors import SettingsError

__all__ = [
    "CIRCUIT",
    "Choice",
    "CircuitSignal",
    "CircuitState",
    "Endpoint",
    "EndpointPool",
    "NoEndpoint",
    "UseEndpoint",
    "Wait",
]

# So many connections fail in a row before nobody tries any more.
FAILURES_TO_OPEN = 3
OPEN_FIRST = 1.0
OPEN_LONGEST = 60.0
# A wrong key or an empty account is mended by people.
REFUSED_SECONDS = 300.0
# What a rate limit without a `Retry-After` costs.
RATE_LIMIT_SECONDS = 2.0
# Of a time that was asked for at most so much is added, so that those who wait do not come back together.
JITTER = 0.25


class CircuitState(Enum):
    """Whether connections to an endpoint make sense."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitSignal(Enum):
    """What changes it. A connection that was begun before the circuit opened may still end in any state."""

    SUCCESS = "success"
    FAILURE = "failure"
    TRIP = "trip"
    PROBE = "probe"


CIRCUIT = {
    (CircuitState.CLOSED, CircuitSignal.SUCCESS): CircuitState.CLOSED,
    (CircuitState.CLOSED, CircuitSignal.FAILURE): CircuitState.CLOSED,
    (CircuitState.CLOSED, CircuitSignal.TRIP): CircuitState.OPEN,
    (CircuitState.OPEN, CircuitSignal.SUCCESS): CircuitState.CLOSED,
    (CircuitState.OPEN, CircuitSignal.FAILURE): CircuitState.OPEN,
    (CircuitState.OPEN, CircuitSignal.TRIP): CircuitState.OPEN,
    (CircuitState.OPEN, CircuitSignal.PROBE): CircuitState.HALF_OPEN,
    (CircuitState.HALF_OPEN, CircuitSignal.SUCCESS): CircuitState.CLOSED,
    (CircuitState.HALF_OPEN, CircuitSignal.FAILURE): CircuitState.OPEN,
    (CircuitState.HALF_OPEN, CircuitSignal.TRIP): CircuitState.OPEN,
}


class Endpoint(msgspec.Struct, frozen=True):
    """One place where model sessions can be opened.

    Those of the lowest `priority` are used while any of them can be; among them sessions are spread by `weight`. At most
    `max_sessions` are open there at once, None for no limit of ours.
    """

    name: str
    priority: int = 0
    weight: float = 1.0
    max_sessions: int | None = None


class UseEndpoint(msgspec.Struct, frozen=True):
    """Connect here. A seat is taken: `failed` or `released` gives it back."""

    name: str


class Wait(msgspec.Struct, frozen=True):
    """None can be used now; ask again at `until` (seconds, the clock of `now`). `reason` is why the nearest one cannot."""

    until: float
    reason: str


class NoEndpoint(msgspec.Struct, frozen=True):
    """None is left to this session."""


Choice: TypeAlias = UseEndpoint | Wait | NoEndpoint


class _Health:
    __slots__ = ("circuit", "failures", "not_before", "openings", "reason", "sessions")

    def __init__(self) -> None:
        self.circuit = Machine(CircuitState.CLOSED, CIRCUIT)
        self.sessions = 0
        self.failures = 0
        # How often the circuit has opened without a success since.
        self.openings = 0
        self.not_before = 0.0
        self.reason = ""


class EndpointPool:
    """The endpoints of a process. Times are seconds of one monotonic clock; `random` returns numbers from 0 to 1.

    `on_health` hears each change of a circuit: name and state. Raises SettingsError without endpoints, or for two of one name.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        random: Callable[[], float],
        on_health: Callable[[str, CircuitState], None] = lambda name, state: None,
    ) -> None:
        if not endpoints or len({endpoint.name for endpoint in endpoints}) != len(endpoints):
            raise SettingsError("a pool needs at least one endpoint, each with a name of its own")
        self._endpoints = tuple(endpoints)
        self._random = random
        self._on_health = on_health
        self._health = {endpoint.name: _Health() for endpoint in endpoints}
        for endpoint in endpoints:
            on_health(endpoint.name, CircuitState.CLOSED)

    def choose(
        self, now: float, *, without: Container[str] = (), refused: Container[str] = (), own: str | None = None
    ) -> Choice:
        """Choose where to connect now.

        `without` are not to be used this time, `refused` never again by this session. `own` is where the session has a
        connection that the new one replaces: that does not count against the limit of its endpoint.
        """
        left = [endpoint for endpoint in self._endpoints if endpoint.name not in refused]
        if not left:
            return NoEndpoint()
        usable = [found for found in left if found.name not in without and self._can_be_used(found, now, own)]
        if not usable:
            return self._wait(left, now, without)
        first = min(endpoint.priority for endpoint in usable)
        best = min((endpoint for endpoint in usable if endpoint.priority == first), key=self._load)
        health = self._health[best.name]
        health.sessions += 1
        if health.circuit.state is CircuitState.OPEN:
            self._signal(best.name, CircuitSignal.PROBE)
        return UseEndpoint(best.name)

    def connected(self, name: str) -> None:
        """A connection was opened and greeted; its seat stays taken until `released`."""
        health = self._health[name]
        health.failures = health.openings = 0
        health.reason = ""
        self._signal(name, CircuitSignal.SUCCESS)

    def failed(self, name: str, fault: ModelFaultReason, now: float) -> None:
        """A connection could not be opened, and its seat is free again."""
        self.released(name)
        self.reported(name, fault, now)

    def abandoned(self, name: str, now: float) -> None:
        """A connection was given up before anything became of it: its seat is free, and a probe may be made by another."""
        self.released(name)
        if self._health[name].circuit.state is CircuitState.HALF_OPEN:
            self._health[name].not_before = now
            self._signal(name, CircuitSignal.FAILURE)

    def released(self, name: str) -> None:
        """A connection has ended."""
        self._health[name].sessions -= 1

    def reported(self, name: str, fault: ModelFaultReason, now: float) -> None:
        """Note what went wrong at an endpoint, on opening a connection or later."""
        health = self._health[name]
        match fault.kind:
            case FaultKind.AGED:
                pass  # Sessions grow old in the best of places.
            case FaultKind.LIMITED:
                wait = RATE_LIMIT_SECONDS if fault.retry_after is None else fault.retry_after
                health.not_before = max(health.not_before, now + self._spread(wait))
                health.reason = fault.code
                if health.circuit.state is CircuitState.HALF_OPEN:
                    self._signal(name, CircuitSignal.SUCCESS)  # It answers, and that is what was asked.
            case FaultKind.FATAL:
                self._open(name, now + self._spread(REFUSED_SECONDS), fault.code)
            case FaultKind.RETRY:
                health.failures += 1
                health.reason = fault.code
                if health.failures >= FAILURES_TO_OPEN or health.circuit.state is not CircuitState.CLOSED:
                    length = min(OPEN_FIRST * 2.0**health.openings, OPEN_LONGEST)
                    self._open(name, now + self._spread(length), fault.code)
                else:
                    self._signal(name, CircuitSignal.FAILURE)

    def state(self, name: str) -> CircuitState:
        """Return the state of an endpoint's circuit."""
        return self._health[name].circuit.state

    def sessions(self, name: str) -> int:
        """Return how many connections have a seat at an endpoint."""
        return self._health[name].sessions

    def _can_be_used(self, endpoint: Endpoint, now: float, own: str | None) -> bool:
        health = self._health[endpoint.name]
        taken = health.sessions - (endpoint.name == own)
        if endpoint.max_sessions is not None and taken >= endpoint.max_sessions:
            return False
        return health.circuit.state is not CircuitState.HALF_OPEN and now >= health.not_before

    def _load(self, endpoint: Endpoint) -> tuple[float, float]:
        return ((self._health[endpoint.name].sessions + 1) / endpoint.weight, self._random())

    def _wait(self, left: Sequence[Endpoint], now: float, without: Container[str]) -> Wait:
        """Say when it makes sense to ask again; one that is full or being probed tells nobody when that ends."""
        times = []
        for endpoint in left:
            health = self._health[endpoint.name]
            reason = health.reason or "all_seats_taken"
            times.append(
                (max(health.not_before, now if endpoint.name in without else now + self._spread(OPEN_FIRST / 4)), reason)
            )
        until, reason = min(times)
        return Wait(until, reason)

    def _open(self, name: str, until: float, reason: str) -> None:
        health = self._health[name]
        health.not_before = max(health.not_before, until)
        health.reason = reason
        health.failures = 0
        health.openings += 1
        self._signal(name, CircuitSignal.TRIP)

    def _spread(self, seconds: float) -> float:
        return seconds * (1.0 + JITTER * self._random())

    def _signal(self, name: str, signal: CircuitSignal) -> None:
        machine = self._health[name].circuit
        before = machine.state
        if machine.signal(signal) is not before:
            self._on_health(name, machine.state)
