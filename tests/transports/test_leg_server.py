"""The small server: routes, refusals, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from websockets.http11 import Request

from orchestrator.errors import LegConnectError
from orchestrator.transports.base import LegOptions
from orchestrator.transports.leg_server import serve
from orchestrator.transports.opening import connect
from orchestrator.transports.server_leg import Accept, Refuse
from tests.transports.support import PATIENCE, QUIET, Recorder, eventually


async def http(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_the_route_sees_the_request_and_its_listener_gets_the_leg() -> None:
    seen: list[tuple[str, str | None]] = []
    echo = Recorder(lambda leg, data: leg.send_text(data))

    def route(request: Request) -> Accept:
        seen.append((request.path, request.headers.get("X-Caller")))
        return Accept(echo, "realtime", (("X-Served-By", "test"),))

    recorder = Recorder()
    async with serve(route, options=QUIET) as server:
        url = f"ws://127.0.0.1:{server.port}/v1/realtime?model=m"
        leg = await connect(url, recorder, headers={"X-Caller": "me"}, subprotocols=["realtime"], options=QUIET)
        assert leg.subprotocol == "realtime"
        leg.send_text(b"hello")
        await recorder.until(lambda r: r.texts == [b"hello"])
        assert server.legs == 1
    assert seen == [("/v1/realtime?model=m", "me")]
    assert (await recorder.ended()).code == "going_away"
    assert (await echo.ended()).code == "going_away"
    assert server.legs == 0
    assert server.port == 0


async def test_a_refusal_is_a_plain_response() -> None:
    def route(request: Request) -> Refuse:
        if request.path == "/healthz":
            return Refuse(200, (("Content-Type", "text/plain"),), b"fine\n")
        return Refuse(404, body=b"no such thing\n")

    async with serve(route, options=QUIET) as server:
        answer = await http(server.port, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\nfine\n")
        with pytest.raises(LegConnectError) as info:
            await connect(f"ws://127.0.0.1:{server.port}/x", Recorder(), options=QUIET)
        assert (info.value.status, info.value.body) == (404, "no such thing\n")


async def test_a_route_that_raises_is_a_500_for_its_client_only() -> None:
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    recorder = Recorder()

    def route(request: Request) -> Accept | Refuse:
        if request.path == "/bad-header":
            return Accept(recorder, headers=(("X", "a\r\nb"),))
        if request.path != "/good":
            raise LookupError("no such agent")
        return Accept(recorder)

    async with serve(route, options=QUIET) as server:
        for path in ("/raises", "/bad-header"):
            with pytest.raises(LegConnectError) as info:
                await connect(f"ws://127.0.0.1:{server.port}{path}", Recorder(), options=QUIET)
            assert info.value.status == 500
            assert "no such agent" not in info.value.body
        await connect(f"ws://127.0.0.1:{server.port}/good", Recorder(), options=QUIET)
    assert len(contexts) == 2


async def test_above_the_limit_requests_are_answered_503_until_there_is_room() -> None:
    async with serve(lambda _: Accept(Recorder()), options=QUIET, max_legs=1) as server:
        url = f"ws://127.0.0.1:{server.port}"
        first = await connect(url, Recorder(), options=QUIET)
        with pytest.raises(LegConnectError) as info:
            await connect(url, Recorder(), options=QUIET)
        assert info.value.status == 503
        first.close()
        await first.wait_closed()
        await eventually(lambda: server.legs == 0)
        await connect(url, Recorder(), options=QUIET)


async def test_unfinished_upgrades_do_not_hold_up_the_end() -> None:
    async with serve(lambda _: Accept(Recorder()), options=QUIET) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n")
        await writer.drain()
        await eventually(lambda: server.legs == 1)
    # The end comes as a reset if the bytes of the head were still unread.
    with contextlib.suppress(ConnectionResetError):
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
    writer.close()
    with contextlib.suppress(ConnectionResetError):
        await writer.wait_closed()


async def test_a_client_that_does_not_close_is_cut_at_the_deadline() -> None:
    options = LegOptions(close_timeout=0.1)
    async with serve(lambda _: Accept(Recorder()), options=options) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + key)
        await reader.readuntil(b"\r\n\r\n")
    assert server.legs == 0
    text = b"the server is going away"
    assert await reader.read() == bytes([0x88, 2 + len(text)]) + (1001).to_bytes(2, "big") + text
    writer.close()
    await writer.wait_closed()
