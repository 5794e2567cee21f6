"""Dialling, taking over accepted sockets, and every way in which either fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from orchestrator.errors import EndReason, LegClosedError, LegConnectError, Refused, UserError
from orchestrator.testing import virtual_clock
from orchestrator.transports.base import LegOptions, LegState
from orchestrator.transports.leg_server import serve
from orchestrator.transports.opening import accept, connect, resume
from orchestrator.transports.server_leg import Accept
from tests.transports.support import PATIENCE, QUIET, RawPeer, Recorder, frame, text

# accept


def request_head(*, subprotocols: str | None = None, extensions: str | None = None) -> tuple[ClientProtocol, bytes]:
    """Make a client's request, and the protocol that judges the answer."""
    protocol = ClientProtocol(parse_uri("ws://example.com/v1/realtime?model=m"), subprotocols=["realtime", "other"])  # type: ignore[list-item]
    request = protocol.connect()
    del request.headers["Sec-WebSocket-Protocol"]
    if subprotocols is not None:
        request.headers["Sec-WebSocket-Protocol"] = subprotocols
    if extensions is not None:
        request.headers["Sec-WebSocket-Extensions"] = extensions
    protocol.send_request(request)
    return protocol, b"".join(protocol.data_to_send())


HEAD = request_head()[1]


async def read_answer(sock: socket.socket) -> bytes:
    """Read to the empty line of the answer."""
    sock.setblocking(False)
    answer = b""
    async with asyncio.timeout(PATIENCE):
        while b"\r\n\r\n" not in answer:
            part = await asyncio.get_running_loop().sock_recv(sock, 4096)
            assert part, f"the connection ended after {answer!r}"
            answer += part
    return answer


async def read_all(sock: socket.socket) -> bytes:
    sock.setblocking(False)
    answer = b""
    async with asyncio.timeout(PATIENCE):
        while part := await asyncio.get_running_loop().sock_recv(sock, 4096):
            answer += part
    return answer


@pytest.mark.parametrize("after", [0, 1, 6, 15])
async def test_any_part_of_the_head_and_what_follows_it_may_have_been_read_already(after: int) -> None:
    """Every split of head and first messages between what accept is given and what is still on the socket."""
    client, head = request_head()
    stream = head + text(b"first") + text(b"second")
    # Every byte around the seams, every seventh elsewhere: all splits would only take longer.
    seams = (0, len(head), len(stream))
    splits = [at for at in range(len(stream) + 1) if at % 7 == after % 7 or min(abs(at - seam) for seam in seams) < 4]
    for split in splits:
        ours, theirs = socket.socketpair()
        recorder = Recorder()
        with theirs:
            theirs.send(stream[split:])
            leg = await accept(ours, stream[:split], recorder, options=QUIET)
            assert leg.state is LegState.OPEN
            await recorder.until(lambda r: r.texts == [b"first", b"second"])
            answer = await read_answer(theirs)
            assert answer.startswith(b"HTTP/1.1 101 ")
            assert answer.endswith(b"\r\n\r\n")
            leg.send_text(b"reply")
            peer = RawPeer(theirs, "client")
            await peer.read_frames(lambda seen: len(seen) == 1)
            await peer.send(frame(Opcode.CLOSE))
        assert (await recorder.ended()).code == "closed_normally"
    assert client.state is State.CONNECTING


async def test_the_head_may_arrive_in_single_bytes() -> None:
    client, head = request_head()
    ours, theirs = socket.socketpair()
    recorder = Recorder()
    with theirs:
        accepting = asyncio.ensure_future(accept(ours, b"", recorder, options=QUIET))
        loop = asyncio.get_running_loop()
        theirs.setblocking(False)
        for at in range(len(head)):
            await loop.sock_sendall(theirs, head[at : at + 1])
            await asyncio.sleep(0)
        leg = await accepting
        client.receive_data(await read_answer(theirs))
        assert client.state is State.OPEN
    assert (await leg.wait_closed()).code == "connection_lost"


@pytest.mark.parametrize(
    ("offered", "chosen", "agreed"),
    [
        ("realtime, openai-beta.v1", "realtime", "realtime"),
        ("other", "realtime", None),
        (None, "realtime", None),
        ("realtime", None, None),
    ],
)
async def test_a_subprotocol_is_chosen_only_if_offered_and_an_extension_never(
    offered: str | None, chosen: str | None, agreed: str | None
) -> None:
    client, head = request_head(subprotocols=offered, extensions="permessage-deflate; client_max_window_bits")
    ours, theirs = socket.socketpair()
    with theirs:
        headers = (("X-Session", "s1"),)
        leg = await accept(ours, head, Recorder(), options=QUIET, subprotocol=chosen, response_headers=headers)
        answer = await read_answer(theirs)
        client.receive_data(answer)
        assert client.state is State.OPEN
        assert (client.subprotocol, leg.subprotocol) == (agreed, agreed)
        assert b"\r\nX-Session: s1\r\n" in answer
        assert b"extensions" not in answer.lower()
    await leg.wait_closed()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"nonsense\r\n\r\n", 400, id="no request"),
        pytest.param(b"\x16\x03\x01\x02\x00\r\n\r\n", 400, id="TLS on a plain port"),
        pytest.param(HEAD.replace(b"Upgrade: websocket\r\n", b""), 426, id="no upgrade"),
        pytest.param(HEAD.replace(b"GET", b"POST"), 405, id="not a GET"),
        pytest.param(HEAD.replace(b"HTTP/1.1", b"HTTP/1.0"), 505, id="HTTP/1.0"),
        pytest.param(HEAD.replace(b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 8"), 400, id="old version"),
        pytest.param(HEAD.replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: !"), 400, id="bad key"),
        pytest.param(b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", 414, id="long request line"),
        pytest.param(HEAD[:-2] + b"X: " + b"x" * 9000 + b"\r\n\r\n", 431, id="long header line"),
        pytest.param(HEAD[:-2] + b"X: y\r\n" * 200 + b"\r\n", 431, id="many headers"),
        pytest.param(HEAD[:-2] + (b"X: " + b"x" * 4000 + b"\r\n") * 5, 431, id="head without end"),
        pytest.param(HEAD[:-2] + b"Content-Length: 5\r\n\r\nhello", 400, id="request with a body"),
    ],
)
@pytest.mark.parametrize("ahead", [True, False])
async def test_what_is_no_upgrade_gets_a_plain_http_error(head: bytes, status: int, ahead: bool) -> None:
    ours, theirs = socket.socketpair()
    recorder = Recorder()
    with theirs:
        if not ahead:
            theirs.send(head)
        accepting = asyncio.ensure_future(accept(ours, head if ahead else b"", recorder, options=QUIET))
        answer = await read_all(theirs)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert b"\r\nContent-Length: " in answer
        assert b"\r\nConnection: close\r\n" in answer
        theirs.close()
        with pytest.raises(Refused) as info:
            await accepting
    assert info.value.status == status
    assert recorder.calls == []
    assert ours.fileno() == -1


async def test_a_peer_that_goes_during_the_head_is_a_lost_connection() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(LegClosedError) as info:
        await accept(ours, HEAD[:50], Recorder(), options=QUIET)
    assert info.value.reason.code == "connection_lost"


@pytest.mark.parametrize("turns", range(8))
async def test_accept_may_be_cancelled_at_any_point_and_leaves_no_connection(turns: int) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        accepting = asyncio.ensure_future(accept(ours, HEAD[:50], Recorder(), options=QUIET))
        for _ in range(turns):
            await asyncio.sleep(0)
        accepting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await accepting
        if turns == 0:
            ours.close()  # it had not started, so the socket was still ours
        assert await read_all(theirs) == b""


async def test_more_read_ahead_than_fits_is_refused() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with pytest.raises(UserError):
            await accept(ours, bytes(3_000_000), Recorder(), options=QUIET)
        assert ours.fileno() == -1


def test_a_head_that_never_ends_is_answered_at_the_deadline() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        recorder = Recorder()
        with theirs:
            accepting = asyncio.ensure_future(
                accept(ours, HEAD[:-2], recorder, options=LegOptions(open_timeout=5.0, close_timeout=2.0))
            )
            answer = await read_all(theirs)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert asyncio.get_running_loop().time() == 5.0
            # It does not go, either.
            with pytest.raises(Refused) as info:
                await accepting
            assert (info.value.status, info.value.reason) == (408, "request_timeout")
            assert asyncio.get_running_loop().time() == 7.0

    virtual_clock.run(scenario())


async def test_resume_on_a_dead_connection() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    recorder = Recorder()
    leg = await resume(ours, recorder, side="server", options=QUIET)
    assert (await leg.wait_closed()).code == "connection_lost"
    assert recorder.calls == ["open", "closed"]


# connect

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def plain_server(handler: Handler) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(*parts: bytes, stay: asyncio.Event | None = None) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # a client that gave up early
            await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if stay is not None:
            await stay.wait()

    return handle


@pytest.mark.parametrize(
    ("parts", "status", "body"),
    [
        pytest.param(
            [b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 15\r\n\r\n", b'{"error": "no"}'],
            401,
            '{"error": "no"}',
            id="length",
        ),
        pytest.param([b"HTTP/1.1 403 Forbidden\r\n\r\nto the end"], 403, "to the end", id="to the end"),
        pytest.param(
            [b"HTTP/1.1 429 Too Many Requests\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\nslow\r\n", b"0\r\n\r\n"],
            429,
            "slow",
            id="chunked",
        ),
        pytest.param([b"HTTP/1.1 503 Busy\r\n\r\n", b"x" * 200_000], 503, "", id="endless body"),
        pytest.param([b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"], 302, "", id="redirect"),
        pytest.param([b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], 101, "", id="upgrade without its headers"),
        pytest.param([b"SSH-2.0-OpenSSH_9.6\r\n\r\n"], None, "", id="not HTTP"),
        pytest.param([b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000], None, "", id="headers without end"),
        pytest.param([b"HTTP/1.1 200 OK\r\nContent-Len"], None, "", id="cut head"),
        pytest.param([], None, "", id="no answer"),
    ],
)
async def test_a_refused_upgrade_says_what_the_endpoint_said(parts: list[bytes], status: int | None, body: str) -> None:
    recorder = Recorder()
    async with plain_server(answering(*parts)) as port:
        with pytest.raises(LegConnectError) as info:
            await connect(f"ws://127.0.0.1:{port}/secret-path?key=secret", recorder, headers={"X": "secret"}, options=QUIET)
    assert info.value.status == status
    assert info.value.body == body
    assert "secret" not in str(info.value)
    assert recorder.calls == []


@pytest.mark.parametrize("parts", [[], [b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\n"]])
async def test_an_endpoint_that_says_too_little_is_given_up_at_the_deadline(parts: list[bytes]) -> None:
    stay = asyncio.Event()
    expected = 500 if parts else None
    async with plain_server(answering(*parts, stay=stay)) as port:
        # On a busy machine the beginning of the answer may itself miss a short deadline.
        for deadline in (0.1, 1.0, PATIENCE):
            with pytest.raises(LegConnectError, match="no upgrade at ") as info:
                await connect(f"ws://127.0.0.1:{port}", Recorder(), options=LegOptions(open_timeout=deadline))
            if info.value.status == expected:
                break
        assert info.value.status == expected
        stay.set()


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(LegConnectError, match="cannot connect to "):
            await connect(f"ws://127.0.0.1:{unused.getsockname()[1]}", Recorder(), options=QUIET)


async def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(LegConnectError, match=r"cannot connect to nowhere\.invalid"):
        await connect("ws://nowhere.invalid/", Recorder(), options=QUIET)


@pytest.mark.parametrize("url", ["http://x/", "ws://", "ws://host:port/", "example.com", "ws://host/#part"])
async def test_a_url_that_cannot_be_dialled(url: str) -> None:
    with pytest.raises(UserError):
        await connect(url, Recorder())


async def test_a_header_that_cannot_be_sent_is_named_without_its_value() -> None:
    with pytest.raises(UserError, match="Authorization") as info:
        await connect("ws://127.0.0.1:1/", Recorder(), headers={"Authorization": "Bearer key\r\nX: y"})
    assert "key" not in str(info.value)


async def test_connect_may_be_cancelled_during_the_upgrade() -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        assert await reader.read() == b""
        gone.set()

    async with plain_server(handle) as port:
        connecting = asyncio.ensure_future(connect(f"ws://127.0.0.1:{port}", Recorder(), options=QUIET))
        await arrived.wait()
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        async with asyncio.timeout(PATIENCE):
            await gone.wait()


async def test_connect_that_is_cancelled_just_after_the_upgrade_leaves_no_connection() -> None:
    recorder = Recorder()
    async with serve(lambda _: Accept(recorder), options=QUIET) as server:
        mine = Recorder()
        connecting = asyncio.ensure_future(connect(f"ws://127.0.0.1:{server.port}", mine, options=QUIET))
        await mine.until(lambda r: r.calls == ["open"])
        if not connecting.done():
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting
        else:
            connecting.result().abort(EndReason("over"))
        await mine.ended()
        await recorder.ended()
