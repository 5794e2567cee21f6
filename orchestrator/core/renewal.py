"""When the connection to the model is made anew, where, and when that is given up.

Two ways lead to a new connection. One that was lost is replaced at once (break before make): RENEWING, within a budget of time.
One that grows old, or that somebody wants replaced, is replaced while it works (make before break): PREPARING opens and seeds
the next one, READY waits for a quiet moment, or for the last one before the old connection's age ends it. No socket and no
clock: the shell (`realtime.renewing`) asks what to do next and says what became of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import TypeAlias

import msgspec

from orchestrator.core.endpoint_pool import EndpointPool, NoEndpoint, UseEndpoint
from orchestrator.core.renewal_faults import FaultKind, ModelFaultReason
from orchestrator.core.states import Machine
from orchestrator.errors import SettingsError

__all__ = [
    "RENEWAL",
    "Dial",
    "GiveUp",
    "Renewal",
    "RenewalOptions",
    "RenewalSignal",
    "RenewalState",
    "Sleep",
    "Step",
]


class RenewalState(Enum):
    """Where the connection to the model is in its life, as the session sees it: one life over many connections."""

    NEW = "new"
    LIVE = "live"
    PREPARING = "preparing"
    READY = "ready"
    RENEWING = "renewing"
    FAILED = "failed"
    CLOSED = "closed"


class RenewalSignal(Enum):
    """What changes it. `SPARE` speaks of the connection that is being prepared, the others of the one in use."""

    OPENED = "opened"
    DUE = "due"
    SPARE_READY = "spare_ready"
    SPARE_FAILED = "spare_failed"
    SWAPPED = "swapped"
    LOST = "lost"
    GAVE_UP = "gave_up"
    CLOSE = "close"


_S, _G = RenewalState, RenewalSignal
RENEWAL: Mapping[tuple[RenewalState, RenewalSignal], RenewalState] = {
    (_S.NEW, _G.OPENED): _S.LIVE,
    (_S.NEW, _G.GAVE_UP): _S.FAILED,
    (_S.LIVE, _G.DUE): _S.PREPARING,
    (_S.LIVE, _G.LOST): _S.RENEWING,
    (_S.PREPARING, _G.SPARE_READY): _S.READY,
    # Nobody can be reached. What is in use still works, so this is tried again later, and in the end that is lost.
    (_S.PREPARING, _G.SPARE_FAILED): _S.LIVE,
    (_S.PREPARING, _G.LOST): _S.RENEWING,
    (_S.READY, _G.SWAPPED): _S.LIVE,
    (_S.READY, _G.SPARE_FAILED): _S.LIVE,
    (_S.READY, _G.LOST): _S.RENEWING,
    (_S.RENEWING, _G.OPENED): _S.LIVE,
    (_S.RENEWING, _G.GAVE_UP): _S.FAILED,
    **{(state, _G.CLOSE): _S.CLOSED for state in _S},
}


class RenewalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Times are seconds. Raises SettingsError for times that contradict each other.

    `timeout` is how long a lost connection may take to be replaced, `attempt` how long one try, greeting included. A connection
    is replaced when it is `renew_after` old, 5 % earlier or later, so that calls that began together do not renew together, and
    at the latest `MARGIN` of `max_age` before the endpoint ends it. Between tries at all endpoints passes `backoff`, then twice
    as long, up to `longest_backoff`. A connection that lives shorter than `stable` belongs to the same outage as the one
    before it.
    """

    timeout: float = 60.0
    attempt: float = 10.0
    renew_after: float = 3300.0
    max_age: float = 3600.0
    backoff: float = 0.2
    longest_backoff: float = 5.0
    stable: float = 3.0

    def __post_init__(self) -> None:
        if min(self.timeout, self.attempt, self.renew_after, self.max_age, self.backoff) <= 0:
            raise SettingsError("the times of a renewal must be more than 0 seconds")
        if self.renew_after * (1 + SPREAD) > self.max_age * (1 - MARGIN):
            raise SettingsError(
                "renew_after must be at least 7 % shorter than max_age: it varies, and a swap waits for silence"
            )


# Of `renew_after`, in both directions.
SPREAD = 0.05
# Of `max_age`: so long before it a swap no longer waits for silence.
MARGIN = 0.02


class Dial(msgspec.Struct, frozen=True):
    """Open a connection to this endpoint, within `timeout` seconds."""

    endpoint: str
    timeout: float


class Sleep(msgspec.Struct, frozen=True):
    """Do nothing before `until`, unless something is reported."""

    until: float


class GiveUp(msgspec.Struct, frozen=True):
    """No further try makes sense; `code` says why."""

    code: str


Step: TypeAlias = Dial | Sleep | GiveUp


class Renewal:
    """The renewal of one session's connection. Times are seconds of the clock that the pool is asked with.

    `random` returns numbers from 0 to 1. `endpoint` is where the connection in use is.
    """

    def __init__(self, options: RenewalOptions, pool: EndpointPool, random: Callable[[], float]) -> None:
        self.options = options
        self.endpoint: str | None = None
        # When the connection is to be replaced, and when it must be.
        self.due_at = 0.0
        self.forced_at = 0.0
        self._machine = Machine(RenewalState.NEW, RENEWAL)
        self._pool = pool
        self._random = random
        self._live_since = 0.0
        self._deadline = 0.0
        self._not_before = 0.0
        self._rounds = 0
        # Endpoints that failed in this round, and those that will never take this session, with what they said.
        self._tried: set[str] = set()
        self._refused: dict[str, str] = {}
        self._last_code = "renew_timeout"
        # Is the first connection one that a conversation waits for which has begun already?
        self._goes_on = False

    @property
    def state(self) -> RenewalState:
        """Where the connection is in its life."""
        return self._machine.state

    def begin(self, now: float, endpoints: int) -> None:
        """The first connection is wanted: each of so many endpoints is tried once, since a caller waits."""
        self._deadline = now + self.options.attempt * endpoints

    def begin_again(self, now: float) -> None:
        """The first connection here is wanted for a conversation that had others elsewhere: it is tried as long as theirs."""
        self._goes_on = True
        self._deadline = now + self.options.timeout

    def opened(self, endpoint: str, now: float) -> None:
        """A connection is in use from now on: the first one, or one in place of one that was lost."""
        self._machine.signal(RenewalSignal.OPENED)
        self._use(endpoint, now)

    def due(self) -> None:
        """Prepare the next connection; only while the present one lives and none is being prepared."""
        self._machine.signal(RenewalSignal.DUE)
        self._begin_tries()

    def spare_ready(self, endpoint: str) -> None:
        """The next connection is open."""
        self._machine.signal(RenewalSignal.SPARE_READY)
        self._pool.connected(endpoint)

    def spare_failed(self, now: float) -> None:
        """There is no next connection (any more); try again after a while."""
        self._machine.signal(RenewalSignal.SPARE_FAILED)
        self.due_at = now + self.options.longest_backoff * (0.5 + self._random())

    def swapped(self, endpoint: str, now: float) -> None:
        """The prepared connection is in use."""
        self._machine.signal(RenewalSignal.SWAPPED)
        self._use(endpoint, now)

    def lost(self, fault: ModelFaultReason, now: float) -> None:
        """The connection in use is gone."""
        self._machine.signal(RenewalSignal.LOST)
        if self.endpoint is not None:
            self._pool.reported(self.endpoint, fault, now)
            if fault.kind is FaultKind.FATAL:
                self._refused[self.endpoint] = fault.code
        self._last_code = fault.code
        self._begin_tries()
        if fault.kind is FaultKind.AGED or now - self._live_since >= self.options.stable:
            self._rounds = 0
            self._deadline = now + self.options.timeout
        elif self._rounds == 0:
            self._deadline = now + self.options.timeout
            self._rounds = 1
        else:
            # It goes on as it was before: tries that succeed for a moment must not come faster than those that fail.
            self._pause(now)

    def failed(self, endpoint: str, fault: ModelFaultReason, now: float) -> None:
        """A connection that was dialled could not be opened."""
        self._pool.failed(endpoint, fault, now)
        self._last_code = fault.code
        if fault.kind is FaultKind.FATAL:
            self._refused[endpoint] = fault.code
        else:
            self._tried.add(endpoint)

    def gave_up(self) -> None:
        """There will be no connection any more."""
        self._machine.signal(RenewalSignal.GAVE_UP)

    def close(self) -> None:
        """The session ends."""
        self._machine.signal(RenewalSignal.CLOSE)

    def next_step(self, now: float) -> Step:
        """Say what to do to get a connection."""
        until = self.forced_at if self.state is RenewalState.PREPARING else self._deadline
        if now >= until:
            return GiveUp(self._last_code)
        if now < self._not_before:
            return Sleep(min(self._not_before, until))
        choice = self._pool.choose(now, without=self._tried, refused=self._refused, own=self.endpoint)
        if isinstance(choice, UseEndpoint):
            return Dial(choice.name, min(until - now, self.options.attempt))
        if isinstance(choice, NoEndpoint):
            return GiveUp(next(reversed(self._refused.values()), self._last_code))
        is_new = self.state is RenewalState.NEW and not self._goes_on
        if self._tried and (choice.until <= now or is_new):
            if is_new:
                return GiveUp(self._last_code)
            self._tried.clear()
            self._pause(now)
            return Sleep(min(self._not_before, until))
        if choice.until > until:
            # To wait that long would help nobody.
            return GiveUp(choice.reason)
        return Sleep(choice.until)

    def _begin_tries(self) -> None:
        self._tried.clear()
        self._not_before = 0.0

    def _pause(self, now: float) -> None:
        length = min(self.options.backoff * 2.0**self._rounds, self.options.longest_backoff)
        self._not_before = now + length * (0.5 + 0.5 * self._random())
        # Beyond this the length no longer grows.
        self._rounds = min(self._rounds + 1, 32)

    def _use(self, endpoint: str, now: float) -> None:
        self.endpoint = endpoint
        self._live_since = now
        self._pool.connected(endpoint)
        self.due_at = now + self.options.renew_after * (1 + SPREAD * (2 * self._random() - 1))
        self.forced_at = now + self.options.max_age * (1 - MARGIN)
