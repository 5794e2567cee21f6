"""Plain HTTP on the port of the sockets: what is answered, how much of it, and what harms nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from orchestrator.http_server.acceptor import listen
from orchestrator.http_server.answers import Refusal, Response
from orchestrator.http_server.request_head import RequestHead
from orchestrator.simulator import front as front_module
from orchestrator.simulator.front import MAX_BODY, Front, HangUp, SocketOffer
from orchestrator.simulator.rest.routes import RestRequest, Route, RouteTable
from orchestrator.transports import Leg, LegOptions
from tests.waiting import until

PATIENCE = 30.0


class Echo:
    """A listener that says everything again."""

    leg: Leg

    def on_open(self, leg: Leg) -> None:
        self.leg = leg

    def on_text(self, data: bytes) -> None:
        self.leg.send_text(data)

    def on_binary(self, data: bytes) -> None: ...

    def on_closed(self, reason: Any) -> None: ...


def say_again(request: RestRequest) -> Response:
    return Response(body=request.body)


def fail(_: RestRequest) -> Response:
    raise RuntimeError("a bug")


def decide(head: RequestHead) -> SocketOffer | Refusal | HangUp | None:
    match head.path:
        case "/socket":
            return SocketOffer(Echo(), "realtime")
        case "/closed":
            return Refusal(status=401, code="closed", message="not for you")
        case "/gone":
            return HangUp()
    return None


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    routes = RouteTable([Route("POST", "/echo", say_again), Route("GET", "/echo", say_again), Route("POST", "/fail", fail)])
    running = Front(await listen("127.0.0.1", 0), routes, decide, options=LegOptions(), max_sessions=2)
    yield running
    await running.aclose()


async def exchange(front: Front, data: bytes) -> tuple[int, bytes]:
    """Send bytes, and return the status and the body of what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    try:
        async with asyncio.timeout(PATIENCE):
            writer.write(data)
            answer = await reader.read()
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]), body) if head else (0, b"")


def request(method: str, path: str, body: bytes = b"", *lines: str) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: a", *lines, *([f"Content-Length: {len(body)}"] if body else []), "", ""]
    return "\r\n".join(head).encode() + body


async def test_a_body_is_read_before_it_is_answered(front: Front) -> None:
    assert await exchange(front, request("POST", "/echo", b"hello")) == (200, b"hello")


async def test_a_large_body_comes_in_many_pieces(front: Front) -> None:
    body = b"x" * MAX_BODY
    assert await exchange(front, request("POST", "/echo", body)) == (200, body)


async def test_no_body_is_an_empty_one(front: Front) -> None:
    assert await exchange(front, request("POST", "/echo")) == (200, b"")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (request("POST", "/echo", b"", f"Content-Length: {MAX_BODY + 1}"), 413),
        (request("POST", "/echo", b"", "Content-Length: " + "9" * 15), 413),
        (request("POST", "/echo", b"", "Transfer-Encoding: chunked"), 411),
        (request("GET", "/nowhere"), 404),
        (request("DELETE", "/echo"), 405),
        (request("GET", "/closed"), 401),
        (b"nonsense\r\n\r\n", 400),
        (request("GET", "/echo", b"", "X: " + "x" * 20_000), 431),
    ],
)
async def test_what_cannot_be_answered_is_refused_as_an_error_object(front: Front, data: bytes, status: int) -> None:
    answered, body = await exchange(front, data)
    assert answered == status
    assert json.loads(body)["error"]["message"]


async def test_a_connection_may_be_hung_up_on(front: Front) -> None:
    assert await exchange(front, request("GET", "/gone")) == (0, b"")


async def test_a_bug_in_a_handler_is_one_clients_and_is_reported(front: Front) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    status, body = await exchange(front, request("POST", "/fail"))
    assert (status, json.loads(body)["error"]["code"]) == (500, "internal_error")
    assert b"a bug" not in body
    assert len(reported) == 1
    assert (await exchange(front, request("POST", "/echo", b"still here")))[0] == 200


async def test_what_came_with_the_head_reaches_the_leg(front: Front) -> None:
    """A client that does not wait for the answer has sent its first frame with the request."""
    frame = b"\x81\x82\0\0\0\0hi"
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    key = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    )
    writer.write(request("GET", "/socket", b"", *key) + frame)
    async with asyncio.timeout(PATIENCE):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(4) == b"\x81\x02hi"
    writer.close()


async def test_a_socket_without_an_upgrade_is_told_what_it_takes(front: Front) -> None:
    assert (await exchange(front, request("GET", "/socket")))[0] == 426

    async def gone() -> bool:
        return front.sessions == 0

    async with asyncio.timeout(PATIENCE):
        await until(gone)


async def test_plain_requests_are_answered_while_all_sessions_are_taken(front: Front) -> None:
    url = f"ws://127.0.0.1:{front.port}/socket"
    async with connect(url) as first, connect(url):
        assert front.sessions == 2
        upgrade = request("GET", "/socket", b"", "Upgrade: websocket", "Connection: Upgrade")
        assert (await exchange(front, upgrade))[0] == 503
        assert (await exchange(front, request("POST", "/echo", b"x")))[0] == 200
        await first.send("hi")
        assert await first.recv() == "hi"


async def test_of_too_many_unfinished_requests_the_oldest_goes(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "MAX_PENDING", 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", front.port)
    writer.write(b"GET /echo HTTP/1.1\r\n")
    await writer.drain()

    async def waiting() -> bool:
        return bool(front._connections)

    async with asyncio.timeout(PATIENCE):
        await until(waiting)
        assert (await exchange(front, request("GET", "/echo")))[0] == 200
        assert await reader.read() == b""
    writer.close()


async def test_closing_ends_everything_that_is_open(front: Front) -> None:
    async with connect(f"ws://127.0.0.1:{front.port}/socket") as raw:
        half = socket.create_connection(("127.0.0.1", front.port))
        await asyncio.get_running_loop().run_in_executor(None, half.sendall, b"POST /echo HTTP/1.1\r\nHost: a\r\n")
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(front.aclose(), raw.wait_closed())
        assert raw.close_code == 1001
        assert front.sessions == 0
        half.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", front.port)


async def test_an_upgrade_under_way_leaves_no_socket_behind() -> None:
    """The server is closed in the very turn in which the request came."""
    closing: list[asyncio.Task[None]] = []

    def close_first(_: RequestHead) -> SocketOffer:
        closing.append(asyncio.get_running_loop().create_task(running.aclose()))
        return SocketOffer(Echo())

    running = Front(await listen("127.0.0.1", 0), RouteTable(), close_first, options=LegOptions(), max_sessions=2)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    writer.write(request("GET", "/socket", b"", "Upgrade: websocket", "Connection: Upgrade"))
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            assert b" 101 " not in await reader.read()
        await closing[0]
    writer.close()
    assert running.sessions == 0
