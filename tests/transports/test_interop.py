"""Legs against the websockets library's own asyncio client and server, plain and through TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import pytest
from websockets.asyncio import client as websockets_client
from websockets.asyncio import server as websockets_server
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from websockets.protocol import State

from orchestrator.errors import EndReason, LegConnectError, UserError
from orchestrator.transports.base import Leg, LegOptions, LegState
from orchestrator.transports.leg_server import serve
from orchestrator.transports.opening import connect
from orchestrator.transports.server_leg import Accept
from tests.transports.certificate import make_certificate
from tests.transports.support import PATIENCE, QUIET, Recorder, eventually

Theirs = websockets_client.ClientConnection | websockets_server.ServerConnection
Ours = Literal["client", "server"]

LIMIT = 100_000

# What the library waits for a peer that does not close; some tests leave it stuck on purpose.
GRACE = 0.2
OPTIONS = LegOptions(max_message=LIMIT, ping_interval=None, open_timeout=PATIENCE, close_timeout=PATIENCE)

both_sides = pytest.mark.parametrize("ours", ["client", "server"])


@contextlib.asynccontextmanager
async def library_server(ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[tuple[int, asyncio.Future[Theirs]]]:
    """Run the library's server; the future gets its first connection."""
    connected: asyncio.Future[Theirs] = asyncio.get_running_loop().create_future()

    async def handle(connection: websockets_server.ServerConnection) -> None:
        connected.set_result(connection)
        await connection.wait_closed()

    async with websockets_server.serve(
        handle, "127.0.0.1", 0, ssl=ssl_context, max_size=None, ping_interval=None, close_timeout=GRACE
    ) as server:
        yield next(iter(server.sockets)).getsockname()[1], connected


@contextlib.asynccontextmanager
async def interop(ours: Ours, recorder: Recorder, options: LegOptions = OPTIONS) -> AsyncIterator[tuple[Leg, Theirs]]:
    """Join one of our legs to one of the library's connections, over TCP."""
    if ours == "client":
        async with library_server() as (port, connected):
            leg: Leg = await connect(f"ws://127.0.0.1:{port}", recorder, options=options)
            yield leg, await connected
            leg.abort(EndReason("test_over"))
    else:
        async with serve(lambda _: Accept(recorder), options=options) as server:
            url = f"ws://127.0.0.1:{server.port}"
            connection = await websockets_client.connect(
                url, max_size=None, ping_interval=None, close_timeout=GRACE, proxy=None
            )
            yield recorder.leg, connection
            # Closing a connection that is gone already trips over asyncio's own transport if it was full when it ended.
            if connection.state is not State.CLOSED:
                await connection.close()


@both_sides
async def test_text_binary_and_fragments(ours: Ours) -> None:
    recorder = Recorder()
    async with interop(ours, recorder) as (leg, theirs):
        assert theirs.protocol.extensions == []
        await theirs.send("grüß dich")
        await theirs.send(b"\x00\x01")
        await theirs.send(["in ", "three ", "parts"])
        await theirs.send([b"\xff", b"\xfe"])
        await recorder.until(lambda r: len(r.calls) == 5)
        assert recorder.texts == ["grüß dich".encode(), b"in three parts"]
        assert recorder.binaries == [b"\x00\x01", b"\xff\xfe"]
        leg.send_text("zurück".encode())
        leg.send_audio(b"audio")
        assert [await theirs.recv(), await theirs.recv()] == ["zurück", "audio"]


@both_sides
async def test_pings_of_both_sides(ours: Ours) -> None:
    recorder = Recorder()
    options = LegOptions(max_message=LIMIT, ping_interval=0.01, ping_timeout=PATIENCE)
    async with interop(ours, recorder, options) as (leg, theirs):
        for _ in range(3):
            await (await theirs.ping())
        written = leg.statistics().bytes_out
        # Each ping is sent only after the last one was answered.
        await eventually(lambda: leg.statistics().bytes_out >= written + 5 * 10)
        assert leg.state is LegState.OPEN


@both_sides
@pytest.mark.parametrize("size", [125, 126, 65535, 65536, LIMIT])
async def test_every_form_of_length_up_to_the_limit(ours: Ours, size: int) -> None:
    recorder = Recorder()
    async with interop(ours, recorder) as (leg, theirs):
        await theirs.send("x" * size)
        await theirs.send(["y" * (size // 2), "y" * (size - size // 2)])
        leg.send_text(b"z" * size)
        assert await theirs.recv() == "z" * size
        await recorder.until(lambda r: len(r.texts) == 2)
        assert recorder.texts == [b"x" * size, b"y" * size]


@both_sides
@pytest.mark.parametrize("fragments", [False, True])
async def test_a_message_over_the_limit_is_refused_with_1009_though_it_is_long(ours: Ours, fragments: bool) -> None:
    recorder = Recorder()
    async with interop(ours, recorder) as (_, theirs):
        with contextlib.suppress(ConnectionClosed):
            await theirs.send(["x" * 60_000] * 100 if fragments else "x" * 10_000_000)
        with pytest.raises(ConnectionClosedError) as info:
            await theirs.recv()
        assert info.value.rcvd is not None
        assert info.value.rcvd.code == 1009
        assert (await recorder.ended()).code == "message_too_big"
        assert recorder.texts == []


@both_sides
@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
async def test_they_close(ours: Ours, code: int) -> None:
    recorder = Recorder()
    async with interop(ours, recorder) as (leg, theirs):
        await theirs.close(code, "theirs")
        reason = await recorder.ended()
        assert reason.by == "peer"
        assert (leg.close_code, leg.close_reason) == (code, "theirs")
        assert theirs.protocol.close_rcvd is not None
        assert theirs.protocol.close_rcvd.code == code


@both_sides
@pytest.mark.parametrize("code", [1000, 1001, 1011, 3000, 4999])
async def test_we_close(ours: Ours, code: int) -> None:
    recorder = Recorder()
    async with interop(ours, recorder) as (leg, theirs):
        leg.send_text(b"last words")
        leg.close(code, "ours")
        assert await theirs.recv() == "last words"
        with pytest.raises(ConnectionClosedOK if code in (1000, 1001) else ConnectionClosedError) as info:
            await theirs.recv()
        assert info.value.rcvd is not None
        assert (info.value.rcvd.code, info.value.rcvd.reason) == (code, "ours")
        assert (await recorder.ended()).by == "us"
        assert leg.close_code == code


@both_sides
async def test_they_vanish(ours: Ours) -> None:
    recorder = Recorder()
    async with interop(ours, recorder) as (leg, theirs):
        theirs.transport.abort()
        reason = await recorder.ended()
        assert (reason.code, reason.by) == ("connection_lost", "network")
        assert leg.close_code == 1006


@both_sides
async def test_a_slow_reader_misses_audio_and_nothing_else(ours: Ours) -> None:
    recorder = Recorder()
    options = LegOptions(ping_interval=None, write_high=8192, queue_limit=100_000)
    async with interop(ours, recorder, options) as (leg, theirs):
        # Until its queue is read, the library stops reading its socket.
        number = 0
        async with asyncio.timeout(PATIENCE):
            while leg.statistics().messages_dropped < 50:
                leg.send_audio(b"a%06d" % number * 1000)
                number += 1
                await asyncio.sleep(0)
        leg.send_text(b"not to be lost")
        seen: list[str] = []
        while not seen or seen[-1] != "not to be lost":
            seen.append(str(await theirs.recv()))
        numbers = [int(message[1:7]) for message in seen[:-1]]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == number - 1
        assert len(numbers) + leg.statistics().messages_dropped == number


@both_sides
async def test_a_slow_reader_that_is_sent_what_must_not_be_dropped_loses_the_leg(ours: Ours) -> None:
    recorder = Recorder()
    options = LegOptions(ping_interval=None, write_high=8192, queue_limit=100_000)
    async with interop(ours, recorder, options) as (leg, _):
        async with asyncio.timeout(PATIENCE):
            while leg.state is LegState.OPEN:
                leg.send_text(bytes(7000))
                await asyncio.sleep(0)
        assert (await recorder.ended()).code == "leg_overflow"


async def test_many_legs_at_once() -> None:
    echoes: list[Recorder] = []

    def route(_: object) -> Accept:
        echoes.append(Recorder(lambda leg, data: leg.send_text(data)))
        return Accept(echoes[-1])

    async with serve(route, options=QUIET) as server:
        url = f"ws://127.0.0.1:{server.port}"

        async def talk(name: int) -> None:
            async with websockets_client.connect(url, proxy=None) as connection:
                for turn in range(20):
                    await connection.send(f"{name} {turn}")
                    assert await connection.recv() == f"{name} {turn}"

        await asyncio.gather(*(talk(name) for name in range(50)))
        for echo in echoes:
            assert (await echo.ended()).code == "closed_normally"


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture
def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def client_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(certificate)
    return context


async def test_a_conversation_through_tls(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    recorder = Recorder()
    async with library_server(server_context) as (port, connected):
        leg = await connect(f"wss://127.0.0.1:{port}/", recorder, options=QUIET, ssl_context=client_context)
        theirs = await connected
        for size in (1, 1400, 70_000, 900_000):
            await theirs.send("x" * size)
            leg.send_text(b"y" * size)
            assert await theirs.recv() == "y" * size
            await recorder.until(lambda r, size=size: bool(r.texts) and len(r.texts[-1]) == size)  # type: ignore[misc]
        for number in range(2000):
            await theirs.send(str(number))
        await recorder.until(lambda r: len(r.texts) == 2004)
        assert recorder.texts[4:] == [b"%d" % number for number in range(2000)]
        with pytest.raises(UserError, match="TLS"):
            leg.detach()
        leg.close(1000, "done")
        assert await recorder.ended() == EndReason("closed_normally", "done", None, "us")
        assert theirs.protocol.close_rcvd is not None


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_the_other_end_of_tls_ends_it(how: str, server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    recorder = Recorder()
    async with library_server(server_context) as (port, connected):
        leg = await connect(f"wss://127.0.0.1:{port}/", recorder, options=QUIET, ssl_context=client_context)
        theirs = await connected
        if how == "close":
            await theirs.close(1001)
            assert (await recorder.ended()).code == "going_away"
        else:
            theirs.transport.abort()
            assert (await recorder.ended()).code == "connection_lost"
        assert leg.state is LegState.CLOSED


async def test_a_certificate_that_nobody_vouches_for_is_refused(server_context: ssl.SSLContext) -> None:
    async with library_server(server_context) as (port, _):
        with pytest.raises(LegConnectError, match="certificate verify failed"):
            await connect(f"wss://127.0.0.1:{port}/", Recorder(), options=QUIET)


async def test_tls_to_a_plain_server_fails_and_a_context_for_a_plain_url_is_refused(client_context: ssl.SSLContext) -> None:
    async with library_server() as (port, _):
        with pytest.raises(LegConnectError):
            await connect(f"wss://127.0.0.1:{port}/", Recorder(), options=QUIET, ssl_context=client_context)
        with pytest.raises(UserError, match="wss"):
            await connect(f"ws://127.0.0.1:{port}/", Recorder(), options=QUIET, ssl_context=client_context)


async def test_audio_is_dropped_through_tls_too(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    recorder = Recorder()
    options = LegOptions(ping_interval=None, write_high=8192, queue_limit=100_000, close_timeout=0.2)
    async with library_server(server_context) as (port, _):
        leg = await connect(f"wss://127.0.0.1:{port}/", recorder, options=options, ssl_context=client_context)
        async with asyncio.timeout(PATIENCE):
            while leg.statistics().messages_dropped < 10:
                leg.send_audio(bytes(7000))
                await asyncio.sleep(0)
        # Neither TLS nor the library lets go of what is stuck, so this takes the deadline.
        leg.close()
        assert (await recorder.ended()).code == "closed_normally"
