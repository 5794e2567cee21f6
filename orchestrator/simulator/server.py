"""The offline Realtime API as a WebSocket server: the machine of each session, put on a leg and on the clock of a loop.

A session costs a leg, a machine and one timer: no task, no queue of its own. Speech that is not at hand is made in a thread,
once, however many sessions wait for it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Self

from orchestrator.errors import EndReason, OrchestratorError
from orchestrator.simulator.admission import PATH, AccessRules, Admitted, Turned, admit, path_of
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.session_machine import Close, ModelOptions, Render, SessionMachine
from orchestrator.simulator.speech import Speaker, SpeechRequest
from orchestrator.transports import Accept, LegOptions, LegServer, LegState, Refuse, serve
from orchestrator.wire.realtime import ErrorDetails, ErrorEvent, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.http11 import Request

    from orchestrator.simulator.scenario import Scenario
    from orchestrator.simulator.session_machine import Output
    from orchestrator.simulator.speech import Utterance
    from orchestrator.transports import Leg

__all__ = ["SimulatorOptions", "SimulatorServer"]

SUBPROTOCOL = "realtime"
# What the API was seen to do.
PING_INTERVAL = 20.26
RENDER_THREADS = 2

LEG_OPTIONS = LegOptions(
    # An append may carry 15 MiB of base64.
    max_message=16 * 1024 * 1024,
    # Nothing here may be dropped, and a response comes faster than a slow client reads it.
    queue_limit=64 * 1024 * 1024,
    ping_interval=PING_INTERVAL,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SimulatorOptions:
    """How to run the server. Port 0 takes a free one; a `seed` makes ids repeat; `on_frame` hears every frame that is sent."""

    scenario: Scenario
    host: str = "127.0.0.1"
    port: int = 0
    access: AccessRules = field(default_factory=AccessRules)
    model: ModelOptions = field(default_factory=ModelOptions)
    seed: int | None = None
    max_sessions: int = 1024
    on_frame: Callable[[bytes], None] | None = None


class SpeechDesk:
    """Gives out speech: at once where it is at hand, else when a thread has made it. Lives on one loop."""

    def __init__(self, speaker: Speaker, pool: ThreadPoolExecutor) -> None:
        self._speaker = speaker
        self._pool = pool
        self._waiting: dict[SpeechRequest, list[Callable[[Utterance | None], None]]] = {}

    def cached(self, request: SpeechRequest) -> Utterance | None:
        """The utterance if it is at hand."""
        return self._speaker.cached(request)

    def order(self, request: SpeechRequest, deliver: Callable[[Utterance | None], None]) -> None:
        """Have it made; `deliver` is called on the loop, with None if it cannot be made."""
        waiting = self._waiting.get(request)
        if waiting is not None:
            waiting.append(deliver)
            return
        self._waiting[request] = [deliver]
        made = asyncio.get_running_loop().run_in_executor(self._pool, self._speaker.render, request)
        made.add_done_callback(lambda future: self._deliver(request, future))

    def _deliver(self, request: SpeechRequest, future: asyncio.Future[Utterance]) -> None:
        utterance: Utterance | None = None
        if not future.cancelled():
            fault = future.exception()
            if fault is None:
                utterance = future.result()
            else:
                # Not the text: what is said in a call belongs in no log.
                _log.error(
                    "no speech could be made: %s", fault if isinstance(fault, OrchestratorError) else type(fault).__name__
                )
        for deliver in self._waiting.pop(request):
            deliver(utterance)


class _Session:
    """One session: hears the leg, asks the machine, does what it says."""

    def __init__(self, machine: SessionMachine, desk: SpeechDesk, on_frame: Callable[[bytes], None] | None) -> None:
        self._machine = machine
        self._desk = desk
        self._on_frame = on_frame
        self._leg: Leg | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at: float | None = None

    def on_open(self, leg: Leg) -> None:
        self._leg = leg
        self._perform(self._machine.start(self._loop.time()))

    def on_text(self, data: bytes) -> None:
        # Most messages are audio that nothing follows from; a timer is never needed earlier because of one.
        if outputs := self._machine.receive_text(data, self._loop.time()):
            self._perform(outputs)

    def on_binary(self, data: bytes) -> None:
        self._perform(self._machine.receive_binary(self._loop.time()))

    def on_closed(self, reason: EndReason) -> None:
        self._leg = None
        self._set_timer()

    def _perform(self, outputs: list[Output]) -> None:
        leg = self._leg
        if leg is None:
            return
        waiting = deque(outputs)
        while waiting:
            output = waiting.popleft()
            if isinstance(output, Render):
                utterance = self._desk.cached(output.request)
                if utterance is None:
                    self._order(output.request)
                else:
                    waiting.extend(self._machine.provide(output.request, utterance, self._loop.time()))
            elif isinstance(output, Close):
                leg.close(output.code, output.reason)
            else:
                data = encode(output)
                if self._on_frame is not None:
                    self._on_frame(data)
                leg.send_text(data)
        self._set_timer()

    def _order(self, request: SpeechRequest) -> None:
        def deliver(utterance: Utterance | None) -> None:
            if self._leg is not None:
                self._perform(self._machine.provide(request, utterance, self._loop.time()))

        self._desk.order(request, deliver)

    def _set_timer(self) -> None:
        """Wake up when the machine is due: one timer, which moves only if something else has become the next."""
        due = self._machine.due if self._leg is not None and self._leg.state is LegState.OPEN else None
        if due == self._wakes_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._wake, due)
        self._wakes_at = due

    def _wake(self, due: float) -> None:
        self._timer = self._wakes_at = None
        # A loop may run a timer early by the resolution of its clock.
        self._perform(self._machine.advance(max(due, self._loop.time())))


class _Refusal:
    """A client that may not come in: it is told why, and goes."""

    def __init__(self, turned: Turned, event_id: str, on_frame: Callable[[bytes], None] | None) -> None:
        self._turned = turned
        self._event_id = event_id
        self._on_frame = on_frame

    def on_open(self, leg: Leg) -> None:
        details = ErrorDetails(type="invalid_request_error", code=self._turned.code, message=self._turned.message)
        data = encode(ErrorEvent(event_id=self._event_id, error=details))
        if self._on_frame is not None:
            self._on_frame(data)
        leg.send_text(data)
        leg.close(self._turned.close_code, self._turned.close_reason)

    def on_text(self, data: bytes) -> None:
        """Too late."""

    def on_binary(self, data: bytes) -> None:
        """Too late."""

    def on_closed(self, reason: EndReason) -> None:
        """Nothing is held."""


class SimulatorServer:
    """The offline Realtime API. An async context manager: it listens inside the block, and ends its sessions at the end.

    Entering raises UserError where no speech can be made, and OSError where the port is taken.
    """

    def __init__(self, options: SimulatorOptions, speaker: Speaker | None = None) -> None:
        self._options = options
        self._speaker = speaker or Speaker()
        self._exit = AsyncExitStack()
        self._server: LegServer | None = None
        self._desk: SpeechDesk | None = None
        self._numbers = count()

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.port if self._server is not None else 0

    @property
    def base_url(self) -> str:
        """What to give a client as `websocket_base_url`."""
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        return f"ws://{host}:{self.port}/v1"

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"{self.base_url}/realtime"

    async def __aenter__(self) -> Self:
        options = self._options
        async with AsyncExitStack() as stack:
            pool = stack.enter_context(ThreadPoolExecutor(RENDER_THREADS, "simulator-speech"))
            # Loading the voices takes a while, and may fail: better now than in the first call.
            ready = SpeechRequest("ready", language=options.scenario.language)
            await asyncio.get_running_loop().run_in_executor(pool, self._speaker.render, ready)
            self._desk = SpeechDesk(self._speaker, pool)
            server = serve(self._route, options.host, options.port, LEG_OPTIONS, max_legs=options.max_sessions)
            self._server = await stack.enter_async_context(server)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    def _route(self, request: Request) -> Accept | Refuse:
        options = self._options
        if path_of(request) != PATH:
            return Refuse(404, (("Content-Type", "text/plain"),), b"nothing here but /v1/realtime\n")
        if self._desk is None:
            raise AssertionError("requests come only while the server runs")
        seed = None if options.seed is None else options.seed + next(self._numbers)
        ids = IdSource(time.time, seed)
        decision = admit(request, options.access)
        if isinstance(decision, Admitted):
            machine = SessionMachine(options.scenario, options.model, ids, model=decision.model, unix_time=time.time())
            return Accept(_Session(machine, self._desk, options.on_frame), SUBPROTOCOL)
        return Accept(_Refusal(decision, ids.event(), options.on_frame), SUBPROTOCOL)
