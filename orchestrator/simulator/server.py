"""The offline Realtime API as a WebSocket server: who asks for what, who may come in, who is told to go."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Self

from orchestrator.simulator.endpoint.admission import PATH, AccessRules, Admitted, Turned, admit, path_of
from orchestrator.simulator.endpoint.model_session import ModelSession, SpeechDesk
from orchestrator.simulator.endpoint.session_machine import ModelOptions, SessionMachine
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.speech import Speaker, SpeechRequest
from orchestrator.transports import Accept, LegOptions, LegServer, Refuse, serve
from orchestrator.wire.realtime import ErrorDetails, ErrorEvent, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.http11 import Request

    from orchestrator.errors import EndReason
    from orchestrator.simulator.scenario import Scenario
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
            return Accept(ModelSession(machine, self._desk, options.on_frame), SUBPROTOCOL)
        return Accept(_Refusal(decision, ids.event(), options.on_frame), SUBPROTOCOL)
