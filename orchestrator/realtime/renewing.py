"""Makes the connections of one model, one after the other: the shell around `core.renewal`.

One task at a time is under way here, and only while a connection is being made. The model is asked to take it, and goes on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.core.caller_audio import AudioStore, MemoryAudioStore
from orchestrator.core.endpoint_pool import EndpointPool
from orchestrator.core.renewal import Dial, GiveUp, Renewal, RenewalOptions, RenewalState, Sleep
from orchestrator.core.renewal_faults import FaultKind, ModelFaultReason, classify_refusal
from orchestrator.errors import EndReason, LegClosedError, LegConnectError, UserError
from orchestrator.realtime.connection import ModelConnection

__all__ = ["ModelRenewal", "Renewer", "RenewingOwner", "Target"]

# How often it is looked whether the moment is quiet, once the next connection is ready (seconds).
LOOK_EVERY = 0.05
DEMANDED = "demanded"
AGE = "age"


@dataclass(frozen=True, slots=True)
class Target:
    """Where an endpoint is. `headers` returns what its upgrade is sent with, anew each time; it may raise.

    `model` is what the endpoint calls the model, None where the session's settings say it.
    """

    url: str
    headers: Callable[[], Awaitable[Mapping[str, str]]] = field(repr=False)
    model: str | None = None


@dataclass(frozen=True, slots=True)
class ModelRenewal:
    """How a model's connection is made anew. `pool` is shared by the sessions of a process, and `targets` has its endpoints.

    `make_store` makes the store of a session's caller audio; `random` returns numbers from 0 to 1.
    """

    pool: EndpointPool
    targets: Mapping[str, Target]
    options: RenewalOptions = RenewalOptions()
    make_store: Callable[[], AudioStore] = MemoryAudioStore
    random: Callable[[], float] = random.random


class RenewingOwner(Protocol):
    """The model whose connections these are."""

    def new_connection(self, endpoint: str) -> ModelConnection:
        """Make the listener of a connection."""

    async def dial_target(self, target: Target, connection: ModelConnection) -> None:
        """Open a leg for the connection. Raises what opening raises."""

    def prepare(self, connection: ModelConnection) -> None:
        """Tell a connection that will be taken later what is known by now."""

    def is_quiet(self) -> bool:
        """Would nobody notice if another connection were taken now?"""

    def take(self, connection: ModelConnection, cause: str) -> None:
        """Use this connection from now on, and let go of the one before it."""

    def lose(self, code: str) -> None:
        """There will be no connection any more."""


class Renewer:
    """The connections of one model. Owns the task `model renewal`, one `model connection close` for each old one, a timer."""

    def __init__(self, renewal: ModelRenewal, owner: RenewingOwner) -> None:
        self._renewal = renewal
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._machine = Renewal(renewal.options, renewal.pool, renewal.random)
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._cause = ""
        self._code = ""

    @property
    def state(self) -> RenewalState:
        """Where the connection is in its life."""
        return self._machine.state

    async def first(self, *, again: bool = False) -> ModelConnection:
        """Open the first connection, trying each endpoint once; or, `again`, for as long as one that was lost is worth.

        Raises what the last try raised: LegConnectError, or UserError for an endpoint that cannot be dialled as it is set up.
        """
        if again:
            self._machine.begin_again(self._now())
        else:
            self._machine.begin(self._now(), len(self._renewal.targets))
        failures: list[Exception] = []
        connection = await self._obtain(failures)
        if connection is None:
            self._machine.gave_up()
            raise failures[-1] if failures else LegConnectError(f"no endpoint of the model can be used: {self._code}")
        return connection

    def in_use(self, connection: ModelConnection) -> None:
        """The model has taken this connection."""
        now = self._now()
        if self.state is RenewalState.READY:
            self._machine.swapped(connection.endpoint, now)
        else:
            self._machine.opened(connection.endpoint, now)
        self._set_timer()

    def lost(self, fault: ModelFaultReason) -> None:
        """The connection in use is gone: make another one."""
        self._machine.lost(fault, self._now())
        self._cause = fault.code
        self._woken.set()
        self._start()

    def demand(self, cause: str = DEMANDED) -> None:
        """Replace the connection at the next quiet moment. Nothing happens while one is being made already."""
        if self.state is RenewalState.LIVE:
            self._cause = cause
            self._machine.due()
            self._start()

    def retire(self, connection: ModelConnection) -> None:
        """Close a connection that is used no more, in the background."""
        self._renewal.pool.released(connection.endpoint)
        if connection.leg is None:
            return
        connection.leg.close()
        task = self._loop.create_task(_closed(connection), name="model connection close")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def ended(self, connection: ModelConnection) -> None:
        """A connection that was in use has ended by itself."""
        self._renewal.pool.released(connection.endpoint)

    async def aclose(self) -> None:
        """Make no more connections, and wait until the old ones are closed. Idempotent."""
        if self.state is not RenewalState.CLOSED:
            self._machine.close()
        if self._timer is not None:
            self._timer.cancel()
        task = self._task
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait({task})
        if self._closing:
            await asyncio.wait(set(self._closing))

    def _now(self) -> float:
        return self._loop.time()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None:
            self._task = self._loop.create_task(self._run(), name="model renewal")

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._machine.due_at, self.demand, AGE)

    async def _run(self) -> None:
        try:
            await self._renew()
        finally:
            self._task = None
        if self.state is RenewalState.RENEWING:
            # It was lost in the very callbacks in which it was taken.
            self._start()

    async def _renew(self) -> None:
        while self.state in (RenewalState.PREPARING, RenewalState.RENEWING):
            connection = await self._obtain([])
            if connection is None:
                if self.state is RenewalState.RENEWING:
                    self._machine.gave_up()
                    self._owner.lose(self._code)
                elif self.state is RenewalState.PREPARING:
                    self._machine.spare_failed(self._now())
                    self._set_timer()
                return
            if self.state is RenewalState.PREPARING:
                self._machine.spare_ready(connection.endpoint)
                await self._hold(connection)
                if not connection.alive:
                    self._give_back(connection)
                    continue
            self._owner.take(connection, self._cause)
            return

    async def _hold(self, connection: ModelConnection) -> None:
        """Keep the next connection until it can be taken unnoticed, or must be; or until one of the two is gone."""
        try:
            self._owner.prepare(connection)
            while connection.alive and self.state is RenewalState.READY and self._now() < self._machine.forced_at:
                if self._owner.is_quiet():
                    return
                await self._sleep(self._now() + LOOK_EVERY)
        except BaseException:
            self.retire(connection)
            raise

    def _give_back(self, connection: ModelConnection) -> None:
        """The next connection has failed before it was taken."""
        if connection.leg is not None:
            connection.leg.abort(EndReason("not_used", "the connection failed before it was used"))
        self._machine.failed(connection.endpoint, connection.fault, self._now())
        if self.state is RenewalState.READY:
            self._machine.spare_failed(self._now())
            self._set_timer()

    async def _obtain(self, failures: list[Exception]) -> ModelConnection | None:
        """Get an open connection, or None where that was given up; why is in `_code`, and what was raised in `failures`."""
        while True:
            step = self._machine.next_step(self._now())
            if isinstance(step, GiveUp):
                self._code = step.code
                return None
            if isinstance(step, Sleep):
                await self._sleep(step.until)
            elif isinstance(step, Dial):
                connection = await self._dial(step, failures)
                if connection is not None:
                    return connection

    async def _dial(self, step: Dial, failures: list[Exception]) -> ModelConnection | None:
        connection = self._owner.new_connection(step.endpoint)
        try:
            async with asyncio.timeout(step.timeout):
                await self._owner.dial_target(self._renewal.targets[step.endpoint], connection)
                # A wrong key is answered with 101 too; only the greeting says that the session exists.
                await connection.wait_greeted()
        except asyncio.CancelledError:
            self._abort(connection)
            self._renewal.pool.abandoned(step.endpoint, self._now())
            raise
        except Exception as error:  # noqa: BLE001 - a function of the program may make the key
            self._abort(connection)
            failures.append(error if isinstance(error, UserError | LegConnectError) else _as_refusal(error, connection))
            self._machine.failed(step.endpoint, _fault_of(error, connection), self._now())
            return None
        return connection

    def _abort(self, connection: ModelConnection) -> None:
        if connection.leg is not None:
            connection.leg.abort(EndReason("connect_failed"))
        if not connection.greeted.done():
            connection.greeted.cancel()

    async def _sleep(self, until: float) -> None:
        """Sleep until then, or until something is reported."""
        self._woken.clear()
        try:
            async with asyncio.timeout_at(until):
                await self._woken.wait()
        except TimeoutError:
            pass


async def _closed(connection: ModelConnection) -> None:
    if connection.leg is not None:
        await connection.leg.wait_closed()


def _fault_of(error: Exception, connection: ModelConnection) -> ModelFaultReason:
    if isinstance(error, LegConnectError):
        return classify_refusal(error.status, error.body, error.retry_after)
    if isinstance(error, LegClosedError):
        return connection.fault
    if isinstance(error, UserError):
        return ModelFaultReason(FaultKind.FATAL, "user_error")
    return ModelFaultReason(FaultKind.RETRY, "timeout" if isinstance(error, TimeoutError) else "connect_failed")


def _as_refusal(error: Exception, connection: ModelConnection) -> LegConnectError:
    """Say that there is no connection, as for one that was refused by HTTP."""
    code = connection.error_code or type(error).__name__
    refusal = LegConnectError(f"the endpoint ended the connection instead of greeting: {code}")
    refusal.__cause__ = error
    return refusal
