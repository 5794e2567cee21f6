"""A gateway on a real loopback port, session actors on real node links in the same process, and callers."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import h11
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from websockets.asyncio.client import ClientConnection, connect

from actors.node_link import NodeLinkClient, NodeLinkServer
from orchestrator.cluster.link_messages import (
    Adopt,
    Ended,
    EndSession,
    HeldSession,
    Hello,
    JournalAcknowledged,
    JournalLost,
    JournalRefused,
    ListenerKept,
    Recover,
    Recovered,
    Release,
    SessionHeld,
    SessionStateChanged,
    Up,
)
from orchestrator.errors import EndReason
from orchestrator.gateway.server import GatewayServer
from orchestrator.settings import Settings
from orchestrator.telemetry.metrics import RegistryMetrics
from orchestrator.transports.base import Leg, LegOptions, LegState
from orchestrator.transports.opening import accept, resume
from orchestrator.transports.session_page import SessionPage
from orchestrator.transports.websocket import WebSocketLeg

UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; the test's own timeout is the limit."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event of its own
        await asyncio.sleep(0.002)


def request(method: str, target: str, headers: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    """Write a request by hand."""
    lines = [f"{method} {target} HTTP/1.1", "Host: a", *(f"{name}: {text}" for name, text in (headers or {}).items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; `status` 0 means that the connection ended without one."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """The code of the error object in the body."""
        error = msgspec.json.decode(self.body)["error"]
        assert set(error) == {"message", "type", "code", "param"}
        assert error["message"]
        return str(error["code"])


class EchoCall:
    """A session that sends back what it hears."""

    def __init__(self, on_closed: Callable[[EndReason], None]) -> None:
        self.leg: WebSocketLeg | None = None
        self.sock: socket.socket | None = None
        self.page: SessionPage | None = None
        self.on_closed = on_closed

    def on_open(self, leg: Leg) -> None:
        assert isinstance(leg, WebSocketLeg)
        self.leg = leg

    def on_text(self, data: bytes) -> None:
        assert self.leg is not None
        self.leg.send_text(data)

    def on_binary(self, data: bytes) -> None:
        assert self.leg is not None
        self.leg.close(1003)


class FakeSessionActor:
    """Takes sockets from the gateway and echoes on them."""

    def __init__(self, path: str, name: str, seats: int, *, answers: bool = True) -> None:
        self.name = name
        self.seats = seats
        self.answers = answers
        self.adopted: list[Adopt] = []
        self.held: list[tuple[socket.socket, int, Adopt]] = []
        self.recovered: list[tuple[Recover, bytes]] = []
        self.releases: list[Release] = []
        self.listener: socket.socket | None = None
        # Stands for the actor's process. The signal is the question where its threads are.
        self.process = subprocess.Popen(["sh", "-c", "trap '' USR1; exec sleep 600"])
        self.drains = 0
        self.ended_by_gateway: list[str] = []
        self.calls: dict[str, EchoCall] = {}
        self.client = NodeLinkClient(path, self.hello, self)
        self._beats = asyncio.get_running_loop().call_later(0, lambda: None)
        self._tasks: set[asyncio.Task[None]] = set()

    def hello(self) -> Hello:
        return Hello(
            self.name, self.process.pid, self.seats, tuple(HeldSession(session, "openai", "live") for session in self.calls)
        )

    def on_adopt(self, sock: socket.socket, page: int, message: Adopt) -> None:
        self.adopted.append(message)
        if self.answers:
            self._start(self._answer(sock, SessionPage.open(page), message))
        else:
            self.held.append((sock, page, message))

    def on_recover(self, sock: socket.socket, page: int, state: bytes, message: Recover) -> None:
        self.recovered.append((message, state))
        self._start(self._go_on(sock, SessionPage.open(page), message))

    def on_release(self, message: Release) -> None:
        self.releases.append(message)

    def on_listener(self, sock: socket.socket) -> None:
        if self.listener is not None:
            self.listener.close()
        self.listener = sock

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, sock: socket.socket, page: SessionPage, message: Adopt) -> None:
        call = EchoCall(lambda reason: self.ended(message.session_id, reason))
        call.leg = await accept(sock, message.head, call, options=_options(page), subprotocol="realtime", page=page)
        self.keep(message.session_id, call, sock, page)
        self.client.send(Up(message.session_id, 0.001))
        self.client.send(SessionStateChanged(message.session_id, "live"))

    async def _go_on(self, sock: socket.socket, page: SessionPage, message: Recover) -> None:
        call = EchoCall(lambda reason: self.ended(message.session_id, reason))
        call.leg = await resume(sock, call, side="server", options=_options(page), page=page)
        self.keep(message.session_id, call, sock, page)
        self.client.send(Recovered(message.session_id, 2, 0.001))

    def keep(self, session_id: str, call: EchoCall, sock: socket.socket, page: SessionPage) -> None:
        self.calls[session_id] = call
        call.sock, call.page = sock, page
        self._beat()

    def _beat(self) -> None:
        for call in self.calls.values():
            if call.page is not None:
                call.page.beat()
        self._beats.cancel()
        self._beats = asyncio.get_running_loop().call_later(0.1, self._beat)

    def ended(self, session_id: str, reason: EndReason) -> None:
        self.calls.pop(session_id, None)
        self.client.send(Ended(session_id, reason))

    def on_end_session(self, message: EndSession) -> None:
        self.ended_by_gateway.append(message.session_id)

    def on_drain(self) -> None:
        self.drains += 1

    def on_journal(self, message: JournalAcknowledged | JournalRefused | JournalLost) -> None:
        pass

    def on_link_up(self) -> None:
        given = {message.session_id: message for message in self.adopted}
        for session_id, call in self.calls.items():
            if call.sock is not None and call.page is not None and session_id in given:
                adopt = given[session_id]
                held = SessionHeld(session_id, adopt.channel, adopt.head, adopt.peer, adopt.accepted_at)
                self.client.send(held, (os.dup(call.sock.fileno()), os.dup(call.page.fileno())))
        if self.listener is not None:
            self.client.send(ListenerKept(), (os.dup(self.listener.fileno()),))

    def on_link_lost(self, reason: EndReason) -> None:
        pass

    def answer_held(self) -> None:
        """Take up the calls that were left waiting."""
        self.answers = True
        held, self.held = self.held, []
        for sock, page, message in held:
            self.adopted.remove(message)
            self.on_adopt(sock, page, message)

    def stand_still(self) -> None:
        """Do nothing any more, as a process that is stopped."""
        self._beats.cancel()
        for call in self.calls.values():
            if call.leg is not None:
                call.leg.stall(sending=True, receiving=True)

    async def close(self) -> None:
        """Be gone, as a killed process is: its descriptors are closed, and the connections go on if others hold them."""
        self.client.close()
        self._beats.cancel()
        calls, self.calls = list(self.calls.values()), {}
        for call in calls:
            call.on_closed = lambda _: None
            if call.leg is not None and call.leg.state is LegState.OPEN:
                call.leg.detach()
                await call.leg.wait_closed()
            if call.page is not None:
                call.page.close()
        for sock, page, _ in self.held:
            sock.close()
            os.close(page)
        self.held.clear()
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        self.process.kill()
        self.process.wait()


class Rig:
    """The gateway and its actors."""

    def __init__(self, settings: Settings, link_path: str, **options: Any) -> None:
        self.metrics = RegistryMetrics()
        self.server = GatewayServer(settings, self.metrics, **options)
        self.links = NodeLinkServer(link_path, self.server.sessions)
        self.link_path = link_path
        self.actors: list[FakeSessionActor] = []

    @property
    def port(self) -> int:
        return self.server.address[1]

    async def add_actor(self, seats: int = 1, *, answers: bool = True, path: str | None = None) -> FakeSessionActor:
        """Start a session actor, on the gateway's own node link or another, and wait until the gateway knows it."""
        actor = FakeSessionActor(path or self.link_path, f"actor-{len(self.actors)}", seats, answers=answers)
        self.actors.append(actor)
        actor.client.start()
        await eventually(lambda: any(known.actor_id == actor.name for known in self.server.snapshot().actors))
        return actor

    async def ask(self, data: bytes, *, end: bool = False) -> Answer:
        """Send bytes, wait for the gateway to close, and read what it answered; `end` ends our direction first."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            if end:
                writer.write_eof()
            received = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        return parse(received)

    async def get(self, target: str, headers: dict[str, str] | None = None) -> Answer:
        return await self.ask(request("GET", target, headers))

    @asynccontextmanager
    async def call(self, target: str = "/v1/realtime", **options: Any) -> AsyncIterator[ClientConnection]:
        """Be a caller whose call was taken."""
        async with connect(f"ws://127.0.0.1:{self.port}{target}", proxy=None, compression=None, **options) as caller:
            yield caller

    def metric(self, name: str, **labels: str) -> float:
        """Read one sample from the rendered text; 0 if it is not there."""
        families = text_string_to_metric_families(self.metrics.render().decode())
        samples = (sample for family in families for sample in family.samples)
        return next((sample.value for sample in samples if sample.name == name and sample.labels == labels), 0.0)

    async def close(self) -> None:
        for actor in self.actors:
            await actor.close()
        self.server.close()
        self.links.close()


def _options(page: SessionPage) -> LegOptions:
    return LegOptions(max_message=page.layout.max_message)


def parse(data: bytes) -> Answer:
    """Read an answer to a GET or POST."""
    if not data:
        return Answer(0, {}, b"")
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    response, body = client.next_event(), b""
    assert isinstance(response, h11.Response)
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    headers = {name.decode(): text.decode() for name, text in response.headers}
    return Answer(response.status_code, headers, body)


async def echo(caller: ClientConnection, text: str) -> None:
    """Check that a call is alive."""
    await caller.send(text)
    assert await caller.recv() == text


@asynccontextmanager
async def running(settings: Settings, link_path: str, *, listener_within: float = 0.0, **options: Any) -> AsyncIterator[Rig]:
    """Run a gateway; in the end nothing of it may be left, and nothing may have raised in the loop."""
    loop = asyncio.get_running_loop()
    raised: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: raised.append(context))
    rig = Rig(settings, link_path, **options)
    rig.links.start()
    try:
        await rig.server.start(listener_within=listener_within)
        yield rig
    finally:
        await rig.close()
    assert rig.server.snapshot().pending_heads == 0
    assert not raised
