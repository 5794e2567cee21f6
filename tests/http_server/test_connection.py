"""What a connection may do to the gateway: nothing. Each bad one gets its answer, and a call beside it goes on."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection

from orchestrator.http_server.answers import Refusal
from orchestrator.http_server.connection import Connection, Stage
from orchestrator.http_server.request_head import RequestHead
from orchestrator.settings import Settings
from orchestrator.telemetry import names
from tests.gateway.rig import UPGRADE, Rig, echo, eventually, request, running

SHORT = Settings(port=0, request_head_timeout=0.2)
LONG = Settings(port=0)


@pytest.fixture
async def rig(link_path: str) -> AsyncIterator[Rig]:
    async with running(LONG, link_path) as rig:
        await rig.add_actor(seats=2)
        yield rig


@pytest.fixture
async def beside(rig: Rig) -> AsyncIterator[ClientConnection]:
    """A call that is alive before and after whatever the test does."""
    async with rig.call() as caller:
        await echo(caller, "before")
        yield caller
        await echo(caller, "after")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400, "bad_request_head"),
        (b"\x00" * 20, 400, "bad_request_head"),
        (b"{}\r\n\r\n", 400, "bad_request_head"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version"),
        (request("GET", "/nowhere"), 404, "not_found"),
        (request("PUT", "/healthz"), 405, "method_not_allowed"),
        (request("GET", "/v1/realtime"), 426, "upgrade_required"),
        (request("GET", "/twilio/media", {**UPGRADE, "Sec-WebSocket-Version": "12"}), 426, "websocket_version"),
        (request("GET", "/v1/realtime", {**UPGRADE, "Sec-WebSocket-Key": "x"}), 400, "bad_upgrade"),
        (request("GET", "/v1/realtime", {**UPGRADE, "X": "x" * 17_000}), 431, "head_too_large"),
        (request("POST", "/twilio/voice", {"Transfer-Encoding": "chunked"}), 411, "length_required"),
        (request("POST", "/twilio/voice"), 411, "length_required"),
        (request("POST", "/twilio/voice", {"Content-Length": "70000"}), 413, "body_too_large"),
        (request("POST", "/twilio/voice", {"Content-Type": "application/json"}, b"{}"), 415, "media_type"),
        (request("POST", "/twilio/voice", {"Content-Type": "application/x-www-form-urlencoded"}, b"\xff"), 400, "bad_form"),
    ],
)
async def test_a_bad_request_gets_its_answer_is_counted_and_logged_once(
    rig: Rig, beside: ClientConnection, data: bytes, status: int, code: str
) -> None:
    with capture_logs() as logs:
        answer = await rig.ask(data)
    assert (answer.status, answer.code) == (status, code)
    assert rig.metric(names.REFUSALS_TOTAL, reason=code) == 1
    (line,) = logs
    assert (line["event"], line["reason"], line["status"]) == ("request_refused", code, status)
    assert line["peer"].startswith("127.0.0.1:")
    assert "exception" not in line
    assert "exc_info" not in line


async def test_ten_megabytes_in_place_of_a_head_are_refused_and_the_answer_arrives(rig: Rig, beside: ClientConnection) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 10_000_000)
    assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
    writer.transport.abort()
    assert rig.metric(names.REFUSALS_TOTAL, reason="head_too_large") == 1


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "head_timeout"),
        (b"GET /v1/realtime HTTP/1.1\r\nHost: a\r\nUpgr", "head_timeout"),
        (request("POST", "/twilio/voice", {"Content-Length": "10"}) + b"CallS", "body_timeout"),
    ],
)
async def test_silence_is_ended_with_408(link_path: str, data: bytes, code: str) -> None:
    async with running(SHORT, link_path) as rig:
        await rig.add_actor()
        async with rig.call() as beside:
            with capture_logs() as logs:
                answer = await rig.ask(data)
            assert (answer.status, answer.code) == (408, code)
            assert [line["reason"] for line in logs] == [code]
            await echo(beside, "still here, long after the deadline for heads")


async def test_a_slow_trickle_does_not_move_the_deadline(link_path: str) -> None:
    async with running(SHORT, link_path) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        answer = asyncio.ensure_future(reader.read())
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        while not answer.done():
            writer.write(b"x")
            await asyncio.sleep(0.005)
        assert (await answer).startswith(b"HTTP/1.1 408 ")
        writer.transport.abort()


async def test_half_a_request_and_then_the_end_is_answered(rig: Rig, beside: ClientConnection) -> None:
    answer = await rig.ask(b"GET / HTT", end=True)
    assert (answer.status, answer.code) == (400, "incomplete_request")


async def test_a_port_probe_is_neither_refused_nor_logged(rig: Rig, beside: ClientConnection) -> None:
    with capture_logs() as logs:
        assert (await rig.ask(b"", end=True)).status == 0
    assert logs == []
    assert rig.server.snapshot().refusals == 0


@pytest.mark.parametrize("data", [b"", b"GET / HTT", request("POST", "/twilio/voice", {"Content-Length": "9"})])
async def test_a_connection_that_is_reset_is_forgotten(rig: Rig, beside: ClientConnection, data: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    writer.write(data)
    await eventually(lambda: rig.server.snapshot().pending_heads == 1)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    await eventually(lambda: rig.server.snapshot().pending_heads == 0)


async def test_a_body_in_many_pieces_is_read(rig: Rig, beside: ClientConnection) -> None:
    body = b"CallSid=CA1&" + b"&".join(b"field%d=%d" % (number, number) for number in range(100))
    head = {"Content-Type": "application/x-www-form-urlencoded"}
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    data = request("POST", "/twilio/voice", head, body)
    for start in range(0, len(data), 50):
        writer.write(data[start : start + 50])
        await asyncio.sleep(0)
    assert b"<Stream" in await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_when_too_many_connections_wait_the_oldest_goes(link_path: str) -> None:
    async with running(LONG, link_path, max_connections=3) as rig:
        await rig.add_actor()
        idle = [await asyncio.open_connection("127.0.0.1", rig.port) for _ in range(3)]
        await eventually(lambda: rig.server.snapshot().pending_heads == 3)
        async with rig.call() as caller:
            await echo(caller, "x")
            assert await idle[0][0].read() == b""
            assert rig.metric(names.REFUSALS_TOTAL, reason="too_many_pending") == 1
            assert rig.server.snapshot().pending_heads == 2
        for _, writer in idle:
            writer.close()


async def test_an_answer_that_nobody_reads_does_not_hold_the_connection(link_path: str) -> None:
    async with running(LONG, link_path, max_connections=1) as rig:
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(request("GET", "/metrics"))
        await eventually(lambda: rig.server.snapshot().pending_heads == 1)
        # The next connection takes the place of the one that is answered but does not close, without a second count.
        assert (await rig.get("/healthz")).status == 200
        assert rig.server.snapshot().refusals == 0
        writer.close()


class Taker:
    """Takes the socket of every connection as soon as its head is there."""

    def __init__(self) -> None:
        self.taken: asyncio.Future[tuple[socket.socket, bytes]] = asyncio.get_running_loop().create_future()
        self.gone = 0

    def on_head(self, connection: Connection, head: RequestHead) -> None:
        received = connection.received
        self.taken.set_result((connection.take(), received))

    def on_body(self, connection: Connection, head: RequestHead, body: bytes) -> None:
        raise AssertionError("nobody asked for a body")

    def on_bad_request(self, connection: Connection, refusal: Refusal) -> None:
        raise AssertionError("the request is good")

    def on_connection_gone(self, connection: Connection) -> None:
        self.gone += 1


async def test_a_socket_that_is_taken_is_open_and_watched_by_nobody() -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    taker, loop = Taker(), asyncio.get_running_loop()
    connection = Connection(ours, "peer", 0.0, taker, head_limit=16_384, timeout=0.05)
    data = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nand more"
    await loop.sock_sendall(theirs, data)
    async with asyncio.timeout(30):
        sock, received = await taker.taken
        assert (sock, received, taker.gone) == (ours, data, 1)
        assert connection.stage is Stage.GONE
        # Neither the reader nor the deadline of the connection is left to take what comes for the new owner.
        await loop.sock_sendall(theirs, b"to the new owner")
        assert await loop.sock_recv(sock, 100) == b"to the new owner"
        connection.abort()
        await loop.sock_sendall(sock, b"still open")
        assert await loop.sock_recv(theirs, 100) == b"still open"
    sock.close()
    theirs.close()
