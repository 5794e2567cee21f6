"""One POST: what is sent, and what is made of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import h11
import pytest

from orchestrator.simulator.http_post import BODY_LIMIT, AnswerTooLongError, post


@asynccontextmanager
async def answering(answer: bytes, requests: list[bytes]) -> AsyncIterator[Callable[[str], str]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        requests.append(head + await reader.readexactly(4))
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield lambda path: f"http://user:word@127.0.0.1:{port}{path}"


async def test_path_query_and_headers_arrive_and_the_status_comes_back() -> None:
    requests: list[bytes] = []
    async with answering(b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok", requests) as url:
        assert await post(url("/hook?a=1"), b"body", {"X-A": "b"}) == (202, b"ok")
    (request,) = requests
    assert request.startswith(b"POST /hook?a=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    # What stands before the host names somebody, and goes nowhere.
    assert b"user" not in request
    assert b"\r\nX-A: b\r\n" in request
    assert request.endswith(b"\r\n\r\nbody")


async def test_a_redirect_is_an_answer_like_any_other() -> None:
    requests: list[bytes] = []
    async with answering(b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n", requests) as url:
        assert await post(url("/"), b"body", {}) == (302, b"")
    assert len(requests) == 1


async def test_an_answer_until_the_end_of_the_connection_is_whole() -> None:
    async with answering(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", []) as url:
        assert await post(url(""), b"body", {}) == (200, b"until the end")


async def test_what_is_no_http_is_an_error() -> None:
    async with answering(b"SSH-2.0-x\r\n\r\n", []) as url:
        with pytest.raises(h11.RemoteProtocolError):
            await post(url("/"), b"body", {})


async def test_an_answer_without_an_end_is_not_kept() -> None:
    async with answering(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * (BODY_LIMIT + 1), []) as url:
        with pytest.raises(AnswerTooLongError):
            await post(url("/"), b"body", {})


@pytest.mark.parametrize("host", ["a..b", "x" * 64])
async def test_a_name_that_can_be_none_is_an_address_that_cannot_be_reached(host: str) -> None:
    with pytest.raises(OSError, match="host name"):
        await post(f"http://{host}/", b"", {})
