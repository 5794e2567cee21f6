"""Legs that a shared reader reads, against a raw peer: late, and otherwise the same as any other leg."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Opcode

from orchestrator.errors import EndReason
from orchestrator.testing import virtual_clock
from orchestrator.transports.base import Leg, LegListener, LegOptions, LegState
from orchestrator.transports.memory import memory_pair
from orchestrator.transports.opening import resume
from orchestrator.transports.shared_reader import SharedReader
from orchestrator.transports.websocket import MESSAGES_PER_TURN
from tests.transports.support import QUIET, RawPeer, Recorder, frame, raw_peer, text, untimed

INTERVAL = 0.1
LONG = b"m" * 300
CLOSE = frame(Opcode.CLOSE, (1001).to_bytes(2, "big"))

parts = st.one_of(
    st.integers(126, 400).map(lambda size: text(b"x" * size)),
    st.text(max_size=200).map(lambda words: text(words.encode())),
    st.builds(frame, st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT]), st.binary(max_size=300), fin=st.booleans()),
    st.builds(frame, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=100)),
    st.sampled_from([CLOSE, text(LONG, mask=False), text(b"z" * 1001), b"\xff\xff", text(b"\xff" * 200), b"\xc1\xfe"]),
)


class RunRecorder(Recorder):
    """Takes messages in runs; `runs` has their lengths."""

    runs: list[int]

    def on_texts(self, messages: list[bytes]) -> None:
        self.runs = [*getattr(self, "runs", []), len(messages)]
        for data in messages:
            self.on_text(data)


def shared(options: LegOptions = QUIET) -> LegOptions:
    return msgspec.structs.replace(options, reader=SharedReader(INTERVAL))


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [piece for piece in (*pieces, data[at:]) if piece]


def course(recorder: Recorder, options: LegOptions, pieces: list[bytes]) -> tuple[object, ...]:
    """What a leg with these options hears, answers and ends with when the peer sends these pieces and then ends its stream."""

    async def scenario() -> tuple[object, ...]:
        async with raw_peer(recorder, options=options) as (leg, peer):
            for piece in pieces:
                await peer.send(piece)
                await asyncio.sleep(0.03)
            await asyncio.sleep(3 * INTERVAL)
            peer.socket.shutdown(socket.SHUT_WR)
            frames = await peer.read_to_end()
            peer.close()
            ended = await recorder.ended()
            answers = [(frame.opcode, bytes(frame.data)) for frame in frames]
            return recorder.texts, recorder.binaries, answers, (ended.code, ended.text, ended.by), leg.statistics().messages_in

    return virtual_clock.run(scenario())


@untimed
@given(st.lists(parts, max_size=10).map(b"".join), st.lists(st.integers(1, 700), max_size=8))
def test_whatever_a_client_sends_in_whatever_pieces_is_heard_and_answered_as_ever(data: bytes, sizes: list[int]) -> None:
    small = msgspec.structs.replace(QUIET, max_message=1000)
    pieces = cut(data, sizes)
    usual = course(Recorder(), small, pieces)
    assert course(Recorder(), shared(small), pieces) == usual
    assert course(RunRecorder(), shared(small), pieces) == usual
    assert course(RunRecorder(), small, pieces) == usual, "runs need no shared reader"


def test_messages_come_together_once_in_an_interval() -> None:
    async def scenario() -> None:
        times: list[float] = []
        recorder = RunRecorder(lambda *_: times.append(round(asyncio.get_running_loop().time(), 6)))
        async with raw_peer(recorder, options=shared()) as (leg, peer):
            await asyncio.sleep(1.001)
            for _ in range(20):
                await peer.send_text(LONG)
                await asyncio.sleep(0.02)
            await recorder.until(lambda seen: len(seen.texts) == 20)
            assert leg.statistics().messages_in == 20
            # The first read of all is still the transport's.
            assert recorder.runs[0] == 1
            assert set(recorder.runs[1:-1]) == {5}
            gaps = [later - earlier for earlier, later in itertools.pairwise(times[1:])]
            assert all(gap == 0 or abs(gap - INTERVAL) < 1e-5 for gap in gaps)

    virtual_clock.run(scenario())


def test_a_long_message_does_not_take_an_interval_for_each_read() -> None:
    async def scenario() -> None:
        options = shared(msgspec.structs.replace(QUIET, max_message=16 * 1024 * 1024))
        recorder = RunRecorder()
        async with raw_peer(recorder, options=options) as (_, peer):
            payload = b"x" * (16 * 1024 * 1024)
            began_at = asyncio.get_running_loop().time()
            await peer.send(text(LONG) + text(payload) + text(LONG))
            await recorder.until(lambda seen: len(seen.texts) == 3)
            assert [len(data) for data in recorder.texts] == [300, len(payload), 300]
            # 256 reads of 64 KiB. A socket pair holds two or three of them, so at times nothing more is there.
            assert asyncio.get_running_loop().time() - began_at < 128 * INTERVAL

    virtual_clock.run(scenario())


def test_more_messages_than_one_turn_takes_are_all_heard() -> None:
    async def scenario() -> None:
        recorder = RunRecorder()
        async with raw_peer(recorder, options=shared()) as (_, peer):
            await peer.send(text(LONG))
            await asyncio.sleep(1)
            await peer.send(b"".join(text(b"%04d" % number + LONG) for number in range(10 * MESSAGES_PER_TURN)))
            await recorder.until(lambda seen: len(seen.texts) == 10 * MESSAGES_PER_TURN + 1)
            assert [int(data[:4]) for data in recorder.texts[1:]] == list(range(10 * MESSAGES_PER_TURN))
            assert max(recorder.runs) == MESSAGES_PER_TURN

    virtual_clock.run(scenario())


def test_our_own_close_does_not_wait_for_the_reader() -> None:
    async def scenario() -> None:
        recorder = RunRecorder()
        options = msgspec.structs.replace(QUIET, reader=SharedReader(5.0))
        async with raw_peer(recorder, options=options) as (leg, peer):
            await peer.send_text(LONG)
            await recorder.until(lambda seen: bool(seen.texts))
            leg.close(1001)
            frames = await peer.read_frames(lambda seen: bool(seen))
            assert frames[0].opcode is Opcode.CLOSE
            await peer.send(CLOSE)
            peer.close()
            assert (await recorder.ended()).by == "us"
            assert asyncio.get_running_loop().time() == 0

    virtual_clock.run(scenario())


@pytest.mark.parametrize("inside", [b"", text(LONG)[:100]], ids=["between messages", "inside a message"])
@pytest.mark.parametrize("reset", [False, True], ids=["ended", "reset"])
async def test_a_client_that_goes_without_a_word_is_missed(inside: bytes, *, reset: bool) -> None:
    recorder = RunRecorder()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    reader = SharedReader(0.01)
    leg = await resume(ours, recorder, side="server", options=msgspec.structs.replace(QUIET, reader=reader))
    peer = RawPeer(theirs, "client")
    await peer.send(text(LONG) + inside)
    await recorder.until(lambda seen: bool(seen.texts))
    assert len(reader) == 1
    if reset:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    assert (await recorder.ended()).code == "connection_lost"
    assert len(reader) == 0
    assert leg.state is LegState.CLOSED


async def test_a_leg_that_is_aborted_is_not_read_any_more() -> None:
    recorder = RunRecorder()
    options = shared()
    async with raw_peer(recorder, options=options) as (leg, peer):
        await peer.send(text(LONG))
        await recorder.until(lambda seen: bool(seen.texts))
        leg.abort(EndReason("test_over"))
        assert options.reader is not None
        assert len(options.reader) == 0
        assert (await recorder.ended()).code == "test_over"


def test_a_listener_that_closes_in_the_middle_of_a_run_hears_nothing_after_it() -> None:
    async def scenario() -> None:
        recorder = RunRecorder(lambda leg, _: leg.close())
        async with raw_peer(recorder, options=shared()) as (_, peer):
            await peer.send(text(LONG) * 3 + text(b"short") + text(LONG) * 3)
            assert await peer.closing_code() == 1000
            peer.close()
            await recorder.ended()
            assert recorder.texts == [LONG] * 3

    virtual_clock.run(scenario())


def test_a_listener_that_fails_ends_its_leg() -> None:
    def fail(_: Leg, data: bytes) -> None:
        raise RuntimeError(data[:1])

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        recorder = RunRecorder(fail)
        async with raw_peer(recorder, options=shared()) as (_, peer):
            await peer.send(text(LONG))
            assert await peer.closing_code() == 1011
            peer.close()
            assert (await recorder.ended()).code == "listener_error"

    virtual_clock.run(scenario())


def test_a_stalled_leg_is_not_read_and_loses_nothing() -> None:
    async def scenario() -> None:
        recorder = RunRecorder()
        async with raw_peer(recorder, options=shared()) as (leg, peer):
            await peer.send_text(LONG)
            await asyncio.sleep(0.5)
            leg.stall(sending=False, receiving=True)
            await peer.send_text(LONG)
            await asyncio.sleep(5)
            assert len(recorder.texts) == 1
            leg.stall(sending=False, receiving=False)
            await asyncio.sleep(2 * INTERVAL)
            assert len(recorder.texts) == 2

    virtual_clock.run(scenario())


def test_pings_are_answered_when_they_are_read_and_the_keepalive_works() -> None:
    async def scenario() -> None:
        recorder = RunRecorder()
        options = shared(LegOptions(ping_interval=20, ping_timeout=5))
        async with raw_peer(recorder, options=options) as (leg, peer):
            await peer.send(frame(Opcode.PING, b"there?"))
            frames = await peer.read_frames(lambda seen: len(seen) == 1)
            assert (frames[0].opcode, frames[0].data) == (Opcode.PONG, b"there?")
            for _ in range(3):
                frames = await peer.read_frames(lambda seen: seen[-1].opcode is Opcode.PING)
                await peer.send(frame(Opcode.PONG, bytes(frames.pop().data)))
            assert leg.state is LegState.OPEN
            frames = await peer.read_frames(lambda seen: seen[-1].opcode is Opcode.PING)
            assert await peer.closing_code() == 1011
            assert (await recorder.ended()).code == "keepalive_timeout"

    virtual_clock.run(scenario())


def test_a_detached_leg_leaves_the_reader() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        options, recorder = shared(), RunRecorder()
        leg = await resume(ours, recorder, side="server", options=options)
        peer = RawPeer(theirs, "client")
        await peer.send(text(LONG) + text(LONG)[:50])
        await recorder.until(lambda seen: bool(seen.texts))
        kept = ours.dup()
        buffer = leg.detach()
        await recorder.ended()
        assert options.reader is not None
        assert len(options.reader) == 0
        assert len(buffer) == 50
        second = RunRecorder()
        leg = await resume(kept, second, side="server", options=options, buffer=buffer)
        peer.close()
        assert (await second.ended()).text == "the peer ended the connection inside a message"

    virtual_clock.run(scenario())


@pytest.mark.parametrize("listener", [Recorder, RunRecorder])
def test_a_leg_without_a_socket_of_its_own_is_read_by_its_transport_as_often(listener: type[Recorder]) -> None:
    async def scenario() -> None:
        times: list[float] = []
        left = Recorder()
        right = listener(lambda *_: times.append(round(asyncio.get_running_loop().time(), 6)))
        heard: LegListener = right
        client, _ = memory_pair(left, heard, options=QUIET, server_options=shared())
        for _ in range(10):
            client.send_text(LONG)
            await asyncio.sleep(0.02)
        await right.until(lambda seen: len(seen.texts) == 10)
        assert times[0] == 0
        gaps = {round(later - earlier, 5) for earlier, later in itertools.pairwise(times[1:])}
        assert gaps == {0, INTERVAL}
        client.close()
        await asyncio.gather(left.ended(), right.ended())
        assert asyncio.get_running_loop().time() < 1, "the close handshake does not wait for its deadline"

    virtual_clock.run(scenario())
