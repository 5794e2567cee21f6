"""Calls on a host, with a real socket pair as the caller's connection, a scripted model, and virtual time."""

import asyncio
import base64
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from orchestrator import function_tool
from orchestrator.channels.host import Given, SessionHost
from orchestrator.channels.journalling import Journals
from orchestrator.errors import EndReason
from orchestrator.journal.entries import Entry
from orchestrator.journal.stores import MemoryStore
from orchestrator.realtime import RealtimeAgent
from orchestrator.settings import Secret, Settings
from orchestrator.stream_token import StreamTokens
from orchestrator.telemetry.metrics import DeltaMetrics, MetricsDelta
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from orchestrator.testing.virtual_clock import VirtualClockLoop
from orchestrator.transports.base import LegOptions
from orchestrator.transports.opening import resume
from orchestrator.transports.websocket import WebSocketLeg

SECRET = Secret("token-secret-for-tests")


def pytest_asyncio_loop_factories(config: Any, item: Any) -> dict[str, Callable[[], Any]]:
    del config, item
    return {"virtual": VirtualClockLoop}


class Reporter:
    """Notes what the node would be told."""

    def __init__(self) -> None:
        self.ups: list[str] = []
        self.states: list[tuple[str, str]] = []
        self.ends: dict[str, EndReason] = {}
        self.recoveries: list[tuple[str, int]] = []
        self.releases: list[str] = []

    def up(self, session_id: str, accept_to_101_s: float) -> None:
        assert accept_to_101_s >= 0
        self.ups.append(session_id)

    def recovered(self, session_id: str, epoch: int, gap_s: float) -> None:
        assert gap_s >= 0
        self.recoveries.append((session_id, epoch))

    def released(self, session_id: str) -> None:
        self.releases.append(session_id)

    def state_changed(self, session_id: str, state: str) -> None:
        self.states.append((session_id, state))

    def ended(self, session_id: str, reason: EndReason) -> None:
        self.ends[session_id] = reason


class Caller:
    """The other end of a caller's socket."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self.closed: EndReason | None = None
        self.head = b""
        self._leg: WebSocketLeg | None = None

    async def open(self, sock: socket.socket) -> None:
        """Read the answer to the handshake and speak WebSocket from there on."""
        loop = asyncio.get_running_loop()
        while b"\r\n\r\n" not in self.head:
            self.head += await loop.sock_recv(sock, 1)
        self._leg = await resume(sock, self, side="client", options=LegOptions(max_message=16_000_000))

    @property
    def leg(self) -> WebSocketLeg:
        assert self._leg is not None
        return self._leg

    def send(self, message: dict[str, Any]) -> None:
        self.leg.send_text(msgspec.json.encode(message))

    def types(self) -> list[str]:
        return [message.get("type") or message["event"] for message in self.received]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.received if kind in (message.get("type"), message.get("event"))]

    def on_text(self, data: bytes) -> None:
        self.raw.append(data)
        self.received.append(msgspec.json.decode(data))

    def on_binary(self, data: bytes) -> None:
        raise AssertionError(f"a binary message of {len(data)} bytes")

    def on_closed(self, reason: EndReason) -> None:
        self.closed = reason


class Endpoint(ScriptedEndpoint):
    """A model endpoint that can fall silent."""

    def stall(self) -> None:
        """Read nothing from now on, so that not even a close is answered."""
        assert self._pair is not None
        self._pair.server_line.stall()


@function_tool
def broken_text() -> str:
    """Return text that no encoder takes."""
    return "half a pair: \udc80"


@function_tool
def lookup_order(order_id: str) -> str:
    """Look an order up."""
    return f"order {order_id} is on its way"


@function_tool
def order_facts() -> dict[str, Any]:
    """Return what is no text."""
    return {"number": 4711, "sent": True}


AGENT: RealtimeAgent[Any] = RealtimeAgent(
    name="Desk", instructions="The secret is blue.", tools=[lookup_order, broken_text, order_facts]
)


class World:
    """A host, its model endpoint and its callers."""

    def __init__(self, settings: Settings, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.reporter = Reporter()
        self.metrics = DeltaMetrics()
        self.tokens = StreamTokens(settings.token_secret)
        self.store = MemoryStore()
        # Acknowledges at once, as a gateway on a good day; `hold` says that there is none.
        self.hold = False
        self.journals = Journals("node/actor/1", self._keep, lambda session_id, reason: self.host.end(session_id, reason))
        self.host = SessionHost(
            settings, AGENT, reporter=self.reporter, metrics=self.metrics, dial=self.dial, journals=self.journals
        )
        self.refuse_dial: Exception | None = None
        self.dial_delay = 0.0
        self.when_refused: Callable[[], object] = lambda: None
        self._callers = 0

    def _keep(self, entries: Sequence[Entry]) -> None:
        if not self.hold:
            self.store.append(entries)
            for entry in entries:
                asyncio.get_running_loop().call_soon(self.journals.acknowledged, entry.session_id, entry.writer, entry.seq)

    async def dial(self, *arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(self.dial_delay)
        if self.refuse_dial is not None:
            self.when_refused()
            raise self.refuse_dial
        return await self.endpoint.dial(*arguments, **options)

    async def call(self, channel: str, *, offer: str = "") -> tuple[str, Caller]:
        """Open a caller's connection and hand the host its end."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._callers += 1
        session_id = f"sess_{self._callers}"
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET /x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{offer}\r\n"
        )
        refusal = self.host.adopt(ours, None, Given(session_id, channel, head.encode(), "127.0.0.1:1", 0.0))
        assert refusal is None
        caller = Caller()
        await caller.open(theirs)
        return session_id, caller

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0.001)
            await self.endpoint.settle()

    async def over(self, session_id: str) -> EndReason:
        """Wait for the end of a call, in virtual time."""
        while session_id not in self.reporter.ends:  # noqa: ASYNC110 - what is waited for has no event of its own
            await asyncio.sleep(0.1)
        return self.reporter.ends[session_id]

    def drain_metrics(self) -> MetricsDelta:
        return self.metrics.drain()


@pytest.fixture
def settings() -> Settings:
    return Settings(agent="tests:AGENT", token_secret=SECRET, sessions_per_actor=4, twilio_start_timeout=3.0)


@pytest.fixture
async def world(settings: Settings) -> Any:
    world = World(settings, Endpoint(output_format="audio/pcmu"))
    yield world
    await world.host.aclose(EndReason("test_over"))
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
