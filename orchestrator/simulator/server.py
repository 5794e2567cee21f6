"""The offline Realtime API as a server: what listens, who is let in to what, and who is told to go."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Self

import msgspec

from orchestrator.errors import WireError
from orchestrator.http_server.acceptor import listen
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.admission import (
    AccessRules,
    Admitted,
    ApiForm,
    Joined,
    Turned,
    admit,
    bad_settings,
    no_such_call,
)
from orchestrator.simulator.endpoint.cheap_session import CheapSession
from orchestrator.simulator.endpoint.fault_desk import FaultDesk
from orchestrator.simulator.endpoint.model_session import ModelSession, SpeechDesk
from orchestrator.simulator.endpoint.session_machine import ModelOptions, SessionMachine
from orchestrator.simulator.endpoint.vad import make_judge
from orchestrator.simulator.fault_gate import FaultGate
from orchestrator.simulator.frame_record import FrameRecord, record_path
from orchestrator.simulator.front import Front, SocketOffer
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.loopback import is_loopback
from orchestrator.simulator.phone.exchange import CallRules, PhoneExchange
from orchestrator.simulator.phone.live_call import Sideband
from orchestrator.simulator.recognition import PhraseRecognizer, RecognitionDesk, phrases_of
from orchestrator.simulator.rest.calls import CallsApi
from orchestrator.simulator.rest.client_secrets import ClientSecrets
from orchestrator.simulator.rest.faults import fault_routes
from orchestrator.simulator.rest.phones import phone_routes
from orchestrator.simulator.rest.routes import RouteTable
from orchestrator.simulator.speech import Speaker, SpeechRequest
from orchestrator.transports import LegOptions, SharedReader
from orchestrator.wire.realtime import ErrorDetails, ErrorEvent, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from orchestrator.errors import EndReason
    from orchestrator.http_server.request_head import RequestHead
    from orchestrator.simulator.front import Decision
    from orchestrator.simulator.scenario import Scenario
    from orchestrator.transports import Leg
    from orchestrator.wire.realtime import RealtimeSessionConfig

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
# A frame of audio comes every 20 ms; five that are read and heard together cost little more than one.
CHEAP_READ_INTERVAL = 0.1


@dataclass(frozen=True)
class SimulatorOptions:
    """How to run the server. Port 0 takes a free one; `on_frame` hears every frame that is sent.

    With `cheap`, many sessions cost little: what clients send is read and heard up to 0.1 s later.
    A `seed` makes ids and faults repeat, but for the seconds that ids begin with and expire at: those are of `wall_clock`.

    `calls` says how phone calls go. Frames are also written to the file `record`, by default the one that the variable
    SIMULATOR_RECORD names, if any.
    """

    scenario: Scenario
    host: str = "127.0.0.1"
    port: int = 0
    access: AccessRules = field(default_factory=AccessRules)
    model: ModelOptions = field(default_factory=ModelOptions)
    calls: CallRules = field(default_factory=CallRules)
    seed: int | None = None
    cheap: bool = False
    max_sessions: int = 1024
    on_frame: Callable[[bytes], None] | None = None
    wall_clock: Callable[[], float] = time.time
    record: Path | None = field(default_factory=record_path)


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

    Entering raises UserError where no speech can be made or found, and OSError where the port is taken.
    """

    def __init__(self, options: SimulatorOptions, speaker: Speaker | None = None) -> None:
        self._options = options
        self._speaker = speaker or Speaker()
        self._exit = AsyncExitStack()
        self._front: Front | None = None
        self._desk: SpeechDesk | None = None
        self._exchange: PhoneExchange | None = None
        self._numbers = count()
        self._secrets = ClientSecrets(options.access, self._ids, clock=options.wall_clock)
        self.routes = RouteTable(self._secrets.routes(), on_loopback=is_loopback(options.host))

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._front.port if self._front is not None else 0

    @property
    def base_url(self) -> str:
        """What to give a client as `websocket_base_url`."""
        return f"ws://{self._address}"

    @property
    def rest_url(self) -> str:
        """What to give a client as `base_url`."""
        return f"http://{self._address}"

    @property
    def control_url(self) -> str:
        """Where the simulator itself is driven."""
        return self.rest_url.removesuffix(self._options.access.form.value) + "/simulator"

    @property
    def _address(self) -> str:
        host = f"[{self._options.host}]" if ":" in self._options.host else self._options.host
        return f"{host}:{self.port}{self._options.access.form.value}"

    @property
    def url(self) -> str:
        """Where the API is."""
        return f"{self.base_url}/realtime"

    async def __aenter__(self) -> Self:
        options = self._options
        async with AsyncExitStack() as stack:
            if options.record is not None:
                record = stack.enter_context(FrameRecord(options.record, options.on_frame))
                options = self._options = replace(options, on_frame=record)
            pool = _threads(stack, RENDER_THREADS, "simulator-speech")
            # Loading the voices takes a while, and may fail: better now than in the first call.
            ready = SpeechRequest("ready", language=options.scenario.language)
            await asyncio.get_running_loop().run_in_executor(pool, self._speaker.render, ready)
            # A detector that is not installed is better missed now, too.
            make_judge(options.model.vad, Encoding.PCM16)
            self._desk = SpeechDesk(self._speaker, pool, await self._recognition(stack))
            listener = await listen(options.host, options.port)
            stack.callback(listener.close)
            self._exchange = exchange = PhoneExchange(
                options.calls, self._desk, options.scenario.language, self._ids, options.on_frame, clock=options.wall_clock
            )
            self.routes.add(*CallsApi(exchange, options.access, self._call_machine).routes(), *phone_routes(exchange))
            faults = FaultDesk(options.scenario.faults, options.seed)
            self.routes.add(*fault_routes(faults))
            gate = FaultGate(faults, options.access.form, self._upgrade)
            legs = LEG_OPTIONS
            if options.cheap:
                legs = msgspec.structs.replace(legs, reader=SharedReader(CHEAP_READ_INTERVAL))
            front = Front(listener, self.routes, gate, options=legs, max_sessions=options.max_sessions)
            stack.push_async_callback(front.aclose)
            # Before the front, since a socket that stalls would not end in good order.
            stack.callback(faults.clear)
            # Before the front, since calls own the sockets beside them.
            stack.push_async_callback(exchange.aclose)
            self._front = front
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    async def _recognition(self, stack: AsyncExitStack) -> RecognitionDesk | None:
        """Who understands what callers say, if anybody is to. Raises UserError where that cannot be."""
        options = self._options
        if not options.model.recognition:
            return None
        # A thread of its own: a turn takes far longer to understand than a sentence to say.
        pool = _threads(stack, 1, "simulator-recognition")
        phrases = phrases_of(options.scenario)
        loop = asyncio.get_running_loop()
        recognizer = await loop.run_in_executor(pool, PhraseRecognizer, phrases, options.scenario.language)
        return RecognitionDesk(recognizer, pool)

    def _upgrade(self, head: RequestHead) -> Decision:
        """Who takes a socket that this request asks for."""
        options = self._options
        if head.method != "GET" or head.path.rstrip("/") != options.access.form.realtime:
            return None
        ids = self._ids()
        decision = admit(head, options.access, self._secrets.preset)
        if isinstance(decision, Admitted):
            try:
                return SocketOffer(self._session(decision, ids), SUBPROTOCOL)
            except WireError as error:
                decision = bad_settings(error)
        elif isinstance(decision, Joined):
            call = None if self._exchange is None else self._exchange.find(decision.call_id)
            if call is not None and call.live.live:
                return SocketOffer(Sideband(call.live), SUBPROTOCOL)
            decision = no_such_call(decision.call_id)
        if options.access.form is ApiForm.AZURE:
            return decision.refusal()
        return SocketOffer(_Refusal(decision, ids.event(), options.on_frame), SUBPROTOCOL)

    def _session(self, admitted: Admitted, ids: IdSource) -> ModelSession:
        options = self._options
        if self._desk is None:
            raise AssertionError("requests come only while the server runs")
        machine = SessionMachine(
            options.scenario,
            options.model,
            ids,
            model=admitted.model,
            unix_time=options.wall_clock(),
            kind=admitted.kind,
            preset=admitted.preset,
        )
        kind = CheapSession if options.cheap else ModelSession
        return kind(machine, self._desk, options.on_frame)

    def _call_machine(self, model: str, preset: RealtimeSessionConfig) -> SessionMachine:
        options = self._options
        return SessionMachine(
            options.scenario,
            options.model,
            self._ids(),
            model=model,
            unix_time=options.wall_clock(),
            preset=preset,
            in_call=True,
        )

    def _ids(self) -> IdSource:
        seed = None if self._options.seed is None else self._options.seed + next(self._numbers)
        return IdSource(self._options.wall_clock, seed)


def _threads(stack: AsyncExitStack, count: int, name: str) -> ThreadPoolExecutor:
    """A pool that ends with the stack. What nobody has begun to make by then is not made."""
    pool = ThreadPoolExecutor(count, name)
    stack.callback(pool.shutdown, cancel_futures=True)
    return pool
