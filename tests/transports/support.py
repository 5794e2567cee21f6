"""A listener that remembers, and a raw peer that can say anything."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

from hypothesis import HealthCheck, settings
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from orchestrator.errors import EndReason
from orchestrator.testing.virtual_clock import VirtualClockLoop
from orchestrator.transports.base import Leg, LegOptions
from orchestrator.transports.opening import resume
from orchestrator.transports.receive_buffer import ReceiveBuffer
from orchestrator.transports.websocket import WebSocketLeg

# No test waits this many seconds unless something is broken.
PATIENCE = 20.0

# Without pings, so that a slow machine adds no frames of its own.
QUIET = LegOptions(ping_interval=None, ping_timeout=None, open_timeout=PATIENCE, close_timeout=PATIENCE)

# How long an example takes says nothing on a machine that others use too.
untimed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def patience() -> asyncio.Timeout:
    """Bound a wait in real time; on virtual time the loop itself says when a wait is in vain."""
    virtual = isinstance(asyncio.get_running_loop(), VirtualClockLoop)
    return asyncio.timeout(None if virtual else PATIENCE)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a state that nothing announces."""
    async with patience():
        while not condition():  # noqa: ASYNC110 - there is no event to wait for; each look gives the loop a turn
            await asyncio.sleep(0)


class Recorder:
    """Keeps what a listener is told, in order, and lets a test wait for it."""

    def __init__(self, on_text: Callable[[Leg, bytes], None] | None = None) -> None:
        self.texts: list[bytes] = []
        self.binaries: list[bytes] = []
        self.reasons: list[EndReason] = []
        self.calls: list[str] = []
        self._leg: Leg | None = None
        self._on_text = on_text
        self._changed = asyncio.Event()

    @property
    def leg(self) -> Leg:
        assert self._leg is not None, "on_open was not called"
        return self._leg

    @property
    def reason(self) -> EndReason:
        assert len(self.reasons) == 1, f"on_closed was called {len(self.reasons)} times"
        assert self.calls[-1] == "closed"
        return self.reasons[0]

    def on_open(self, leg: Leg) -> None:
        assert not self.calls, "on_open must be the first call"
        self._leg = leg
        self._note("open")

    def on_text(self, data: bytes) -> None:
        self.texts.append(data)
        self._note("text")
        if self._on_text is not None:
            self._on_text(self.leg, data)

    def on_binary(self, data: bytes) -> None:
        self.binaries.append(data)
        self._note("binary")

    def on_closed(self, reason: EndReason) -> None:
        self.reasons.append(reason)
        self._note("closed")

    async def until(self, condition: Callable[[Recorder], bool]) -> None:
        async with patience():
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()

    async def ended(self) -> EndReason:
        await self.until(lambda recorder: bool(recorder.reasons))
        return self.reason

    def _note(self, call: str) -> None:
        assert not self.calls or self.calls[-1] != "closed", "nothing may follow on_closed"
        self.calls.append(call)
        self._changed.set()


def frame(opcode: Opcode, payload: bytes = b"", *, fin: bool = True, mask: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=mask)


def text(payload: bytes, *, mask: bool = True) -> bytes:
    return frame(Opcode.TEXT, payload, mask=mask)


class RawPeer:
    """The other end of a leg's socket, without a leg: sends bytes as they are, and reads frames."""

    def __init__(self, sock: socket.socket, side: Literal["client", "server"]) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.masks = side == "client"
        self.received = b""
        self._protocol: Protocol
        if self.masks:
            self._protocol = ClientProtocol(parse_uri("ws://localhost"), state=OPEN, max_size=None)
        else:
            self._protocol = ServerProtocol(state=OPEN, max_size=None)
        self.frames: list[Frame] = []

    async def send(self, *parts: bytes) -> None:
        async with patience():
            for part in parts:
                await asyncio.get_running_loop().sock_sendall(self.socket, part)

    async def send_text(self, payload: bytes) -> None:
        await self.send(text(payload, mask=self.masks))

    async def read_frames(self, condition: Callable[[Sequence[Frame]], bool]) -> list[Frame]:
        while not condition(self.frames):
            assert await self._read(), f"the leg ended the connection after {self.frames}"
        return self.frames

    async def read_to_end(self) -> list[Frame]:
        while await self._read():
            pass
        return self.frames

    async def closing_code(self) -> int:
        """Read to the end; return the code of the close frame, or 1006."""
        frames = await self.read_to_end()
        closes = [frame for frame in frames if frame.opcode is Opcode.CLOSE]
        return int.from_bytes(closes[0].data[:2], "big") if closes else 1006

    async def _read(self) -> bool:
        async with patience():
            try:
                data = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
            except ConnectionResetError:
                return False
        self.received += data
        if data:
            self._protocol.receive_data(data)
            self.frames += [event for event in self._protocol.events_received() if isinstance(event, Frame)]
        return bool(data)

    def close(self) -> None:
        self.socket.close()


@contextlib.asynccontextmanager
async def raw_peer(
    recorder: Recorder,
    *,
    side: Literal["client", "server"] = "server",
    options: LegOptions = QUIET,
    buffer: ReceiveBuffer | None = None,
    send_buffer: int | None = None,
) -> AsyncIterator[tuple[WebSocketLeg, RawPeer]]:
    """Join a leg on `side` to a raw peer by a socket pair."""
    ours, theirs = socket.socketpair()
    if send_buffer is not None:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    leg = await resume(ours, recorder, side=side, options=options, buffer=buffer)
    peer = RawPeer(theirs, "client" if side == "server" else "server")
    try:
        yield leg, peer
    finally:
        leg.abort(EndReason("test_over"))
        peer.close()
        async with patience():
            await leg.wait_closed()
