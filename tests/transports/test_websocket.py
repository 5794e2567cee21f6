"""A leg against a raw peer: what arrives, what is refused, and how it ends."""

from __future__ import annotations

import asyncio
import itertools
import socket
from typing import Any, Literal

import pytest
from websockets.frames import Opcode

from orchestrator.errors import EndReason, UserError
from orchestrator.testing import virtual_clock
from orchestrator.transports.base import Leg, LegOptions, LegState
from orchestrator.transports.frame_scanner import MAX_FRAGMENTS
from orchestrator.transports.keepalive import MAX_CONTROL_RATE
from orchestrator.transports.opening import resume
from orchestrator.transports.receive_buffer import ReceiveBuffer, anonymous_buffer, capacity_for
from orchestrator.transports.websocket import MESSAGES_PER_TURN
from tests.transports.support import PATIENCE, QUIET, RawPeer, Recorder, frame, raw_peer, text

SMALL = LegOptions(max_message=1000, ping_interval=None, ping_timeout=None, close_timeout=PATIENCE)

Side = Literal["client", "server"]


@pytest.mark.parametrize("side", ["client", "server"])
async def test_messages_of_both_kinds_arrive_whole_and_in_order(side: Side) -> None:
    recorder = Recorder()
    mask = side == "server"
    async with raw_peer(recorder, side=side) as (leg, peer):
        await peer.send(
            text("grüß dich".encode(), mask=mask),
            frame(Opcode.BINARY, b"\x00\xff", mask=mask),
            frame(Opcode.TEXT, b"in ", fin=False, mask=mask) + frame(Opcode.CONT, b"three ", fin=False, mask=mask),
            frame(Opcode.CONT, b"parts", mask=mask) + text(b"", mask=mask),
        )
        await recorder.until(lambda r: len(r.texts) == 3)
        assert recorder.texts == ["grüß dich".encode(), b"in three parts", b""]
        assert recorder.binaries == [b"\x00\xff"]
        assert recorder.calls == ["open", "text", "binary", "text", "text"]
        assert all(type(data) is bytes for data in recorder.texts + recorder.binaries)
        assert leg.statistics().messages_in == 4


async def test_a_ping_between_fragments_is_answered_at_once() -> None:
    recorder = Recorder()
    async with raw_peer(recorder) as (_, peer):
        await peer.send(frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.PING, b"there?"))
        frames = await peer.read_frames(lambda seen: len(seen) == 1)
        assert (frames[0].opcode, frames[0].data) == (Opcode.PONG, b"there?")
        assert recorder.texts == []
        await peer.send(frame(Opcode.CONT, b"b"))
        await recorder.until(lambda r: r.texts == [b"ab"])


async def test_a_close_frame_between_fragments_ends_the_leg_normally() -> None:
    recorder = Recorder()
    async with raw_peer(recorder) as (_, peer):
        await peer.send(frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.CLOSE, (1001).to_bytes(2, "big")))
        assert await peer.closing_code() == 1001
        peer.close()
        assert (await recorder.ended()).code == "going_away"


@pytest.mark.parametrize(
    ("attack", "code", "reason"),
    [
        pytest.param(b"\x81\xfe\x03\xe9", 1009, "message_too_big", id="one byte too many"),
        pytest.param(b"\x82\xff" + (2**63).to_bytes(8, "big"), 1009, "message_too_big", id="64-bit length"),
        pytest.param(
            frame(Opcode.TEXT, bytes(900), fin=False) + b"\x80\xfe\x00\xc8", 1009, "message_too_big", id="fragments too big"
        ),
        pytest.param(b"\xc1\x80", 1002, "protocol_error", id="reserved bit"),
        pytest.param(b"\x83\x80", 1002, "protocol_error", id="reserved data opcode"),
        pytest.param(b"\x8b\x80", 1002, "protocol_error", id="reserved control opcode"),
        pytest.param(b"\x81\x02hi", 1002, "protocol_error", id="unmasked"),
        pytest.param(b"\x09\x80", 1002, "protocol_error", id="fragmented ping"),
        pytest.param(b"\x89\xfe\x00\x7e", 1002, "protocol_error", id="ping of 126 bytes"),
        pytest.param(b"\x80\x80", 1002, "protocol_error", id="continuation of nothing"),
        pytest.param(frame(Opcode.TEXT, b"a", fin=False) + b"\x81\x80", 1002, "protocol_error", id="new message inside one"),
        pytest.param(text(b"\xff\xfe"), 1007, "protocol_error", id="text that is no UTF-8"),
        pytest.param(
            frame(Opcode.TEXT, b"\xc3", fin=False) + frame(Opcode.CONT, b"("),
            1007,
            "protocol_error",
            id="UTF-8 broken by a cut",
        ),
        pytest.param(frame(Opcode.CLOSE, b"\x03"), 1002, "protocol_error", id="close frame of one byte"),
        pytest.param(frame(Opcode.CLOSE, (1006).to_bytes(2, "big")), 1002, "protocol_error", id="close code 1006"),
        pytest.param(frame(Opcode.CLOSE, b"\x03\xe8\xff"), 1007, "protocol_error", id="close text that is no UTF-8"),
        pytest.param(
            frame(Opcode.BINARY, b"", fin=False) + MAX_FRAGMENTS * frame(Opcode.CONT, b"", fin=False),
            1008,
            "policy_violation",
            id="endless fragments",
        ),
        pytest.param((MAX_CONTROL_RATE + 1) * frame(Opcode.PING), 1008, "policy_violation", id="ping flood"),
        pytest.param((MAX_CONTROL_RATE + 1) * frame(Opcode.PONG), 1008, "policy_violation", id="pong flood"),
    ],
)
async def test_an_attack_gets_its_close_code_and_nothing_else(attack: bytes, code: int, reason: str) -> None:
    recorder = Recorder()
    async with raw_peer(recorder, options=SMALL) as (leg, peer):
        await peer.send(text(b"before"), attack)
        # The leg answers from the header alone: nothing more is sent.
        assert await peer.closing_code() == code
        assert leg.state is LegState.CLOSING
        # What follows is thrown away until the peer has gone.
        await peer.send(text(b"after") * 100)
        peer.close()
        ended = await recorder.ended()
        assert (ended.code, ended.by) == (reason, "us")
        assert recorder.texts == [b"before"]
        assert (leg.state, leg.close_code) == (LegState.CLOSED, code)


async def test_utf8_split_between_fragments_is_valid() -> None:
    recorder = Recorder()
    async with raw_peer(recorder) as (_, peer):
        await peer.send(frame(Opcode.TEXT, b"\xc3", fin=False) + frame(Opcode.CONT, b"\xbc"))
        await recorder.until(lambda r: r.texts == ["ü".encode()])


async def test_a_client_leg_refuses_a_masked_frame() -> None:
    recorder = Recorder()
    async with raw_peer(recorder, side="client") as (_, peer):
        await peer.send(text(b"hi", mask=True))
        frames = await peer.read_frames(lambda seen: len(seen) == 1)
        assert frames[0].data[:2] == (1002).to_bytes(2, "big")
        peer.close()
        assert (await recorder.ended()).code == "protocol_error"


async def test_a_message_of_exactly_the_limit_arrives() -> None:
    recorder = Recorder()
    async with raw_peer(recorder, options=SMALL) as (_, peer):
        await peer.send(text(b"x" * 1000), text(b"next"))
        await recorder.until(lambda r: len(r.texts) == 2)
        assert len(recorder.texts[0]) == 1000


async def test_many_tiny_messages_in_one_read_leave_turns_to_others() -> None:
    turns: list[int] = []
    recorder = Recorder()
    async with raw_peer(recorder) as (leg, peer):
        loop = asyncio.get_running_loop()

        def turn() -> None:
            turns.append(leg.statistics().messages_in)
            if len(recorder.texts) < 2000:
                loop.call_soon(turn)

        loop.call_soon(turn)
        await peer.send(text(b"x") * 2000)
        await recorder.until(lambda r: len(r.texts) == 2000)
        assert max(after - before for before, after in itertools.pairwise(turns)) <= MESSAGES_PER_TURN


async def test_more_tiny_messages_than_the_buffer_holds_wait_in_the_kernel() -> None:
    recorder = Recorder()
    async with raw_peer(recorder, options=SMALL) as (_, peer):
        await peer.send(text(b"x") * 40_000)
        await recorder.until(lambda r: len(r.texts) == 40_000)


async def test_the_end_of_the_stream_does_not_overtake_messages_that_wait_for_their_turn() -> None:
    recorder = Recorder()
    async with raw_peer(recorder) as (_, peer):
        await peer.send(text(b"x") * 1000)
        peer.close()
        assert (await recorder.ended()).code == "connection_lost"
        assert len(recorder.texts) == 1000


# Ends.


@pytest.mark.parametrize("side", ["client", "server"])
async def test_the_peer_closes(side: Side) -> None:
    recorder = Recorder()
    async with raw_peer(recorder, side=side) as (leg, peer):
        await peer.send(frame(Opcode.CLOSE, (1000).to_bytes(2, "big") + b"done", mask=side == "server"))
        if side == "server":
            assert await peer.closing_code() == 1000
        else:  # a client leaves it to the server to end the connection
            await peer.read_frames(lambda seen: len(seen) == 1)
        peer.close()
        assert await leg.wait_closed() == EndReason("closed_normally", "done", None, "peer")
        assert recorder.reason == EndReason("closed_normally", "done", None, "peer")
        assert (leg.close_code, leg.close_reason) == (1000, "done")


async def test_the_peer_closes_without_a_code() -> None:
    recorder = Recorder()
    async with raw_peer(recorder) as (leg, peer):
        await peer.send(frame(Opcode.CLOSE))
        await peer.read_to_end()
        peer.close()
        assert (await recorder.ended()).code == "closed_normally"
        assert leg.close_code == 1005


@pytest.mark.parametrize("side", ["client", "server"])
async def test_we_close(side: Side) -> None:
    recorder = Recorder()
    async with raw_peer(recorder, side=side) as (leg, peer):
        leg.close(4000, "enough")
        assert leg.state is LegState.CLOSING
        assert recorder.reasons == []
        frames = await peer.read_frames(lambda seen: len(seen) == 1)
        assert frames[0].data == (4000).to_bytes(2, "big") + b"enough"
        await peer.send(frame(Opcode.CLOSE, (4000).to_bytes(2, "big"), mask=side == "server"))
        if side == "server":
            await peer.read_to_end()
        peer.close()
        assert await recorder.ended() == EndReason("closed_with_code", "4000 enough", None, "us")
        assert (leg.close_code, leg.close_reason) == (4000, "enough")


async def test_after_our_close_nothing_is_heard_or_sent() -> None:
    recorder = Recorder()
    async with raw_peer(recorder) as (leg, peer):
        leg.close()
        leg.close(1001, "again")
        leg.send_text(b"late")
        leg.send_audio(b"late")
        await peer.send(text(b"late"), frame(Opcode.PING, b"?"), frame(Opcode.CLOSE, (1000).to_bytes(2, "big")))
        frames = await peer.read_to_end()
        assert [frame.opcode for frame in frames] == [Opcode.CLOSE]
        assert peer.received.endswith(b"\x8a\x01?"), "a ping is answered until the peer has closed, too"
        peer.close()
        assert (await recorder.ended()).code == "closed_normally"
        assert recorder.calls == ["open", "closed"]
        leg.send_text(b"later still")
        leg.close()
        leg.abort(EndReason("too_late"))
        assert (await leg.wait_closed()).code == "closed_normally"


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000])
async def test_a_code_that_may_not_be_sent_is_refused_and_changes_nothing(code: int) -> None:
    async with raw_peer(Recorder()) as (leg, _):
        with pytest.raises(ValueError, match="may not be sent"):
            leg.close(code)
        assert leg.state is LegState.OPEN


async def test_a_long_close_text_is_cut_between_characters() -> None:
    async with raw_peer(Recorder()) as (leg, peer):
        leg.close(1000, "ü" * 100)
        frames = await peer.read_frames(lambda seen: len(seen) == 1)
        assert bytes(frames[0].data[2:]).decode() == "ü" * 61


async def test_a_peer_that_goes_without_a_word_is_a_lost_connection() -> None:
    recorder = Recorder()
    async with raw_peer(recorder) as (leg, peer):
        await peer.send(text(b"half of a message")[:9])
        peer.close()
        reason = await recorder.ended()
        assert (reason.code, reason.by) == ("connection_lost", "network")
        assert "inside a message" in reason.text
        assert leg.close_code == 1006


async def test_abort_ends_the_leg_with_the_reason_given_and_never_from_inside() -> None:
    recorder = Recorder()
    async with raw_peer(recorder) as (leg, peer):
        leg.abort(EndReason("shed", "too much load"))
        leg.abort(EndReason("other"))
        assert recorder.reasons == []
        assert await peer.closing_code() == 1006
        assert await recorder.ended() == EndReason("shed", "too much load")


async def test_waiting_for_the_end_can_be_cancelled() -> None:
    recorder = Recorder()
    async with raw_peer(recorder) as (leg, _):
        waiter = asyncio.ensure_future(leg.wait_closed())
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        leg.abort(EndReason("over"))
        assert (await leg.wait_closed()).code == "over"


@pytest.mark.parametrize("how", ["close", "abort", "peer closes"])
async def test_the_connection_ends_though_a_duplicate_of_the_socket_is_held(how: str) -> None:
    ours, theirs = socket.socketpair()
    recorder = Recorder()
    with ours.dup(), theirs:
        peer = RawPeer(theirs, "client")
        leg = await resume(ours, recorder, side="server", options=QUIET)
        if how == "abort":
            leg.abort(EndReason("over"))
        else:
            if how == "close":
                leg.close()
            await peer.send(frame(Opcode.CLOSE, (1000).to_bytes(2, "big")))
        await peer.read_to_end()
        # Our duplicate keeps the file open; only the shutdown lets this be an end for the peer in both directions.
        theirs.shutdown(socket.SHUT_WR)
        await recorder.ended()
        with pytest.raises(OSError, match="Broken pipe"):
            theirs.send(b"anybody?")


# Listeners that misbehave.


@pytest.mark.parametrize("callback", ["on_open", "on_text", "on_binary", "on_closed"])
async def test_a_listener_that_raises_ends_its_own_leg_only(callback: str) -> None:
    class Clumsy(Recorder):
        def __getattribute__(self, name: str) -> Any:
            if name != callback:
                return super().__getattribute__(name)
            original = super().__getattribute__(name)

            def clumsy(argument: Any) -> None:
                original(argument)
                raise RuntimeError("clumsy")

            return clumsy

    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    recorder, other = Clumsy(), Recorder()
    async with raw_peer(other) as (_, other_peer), raw_peer(recorder) as (leg, peer):
        await peer.send(frame(Opcode.BINARY, b"1") if callback == "on_binary" else text(b"1"), text(b"2"))
        if callback == "on_closed":
            leg.close()
            await peer.send(frame(Opcode.CLOSE))
        frames = await peer.read_to_end()
        peer.close()
        reason = await recorder.ended()
        if callback != "on_closed":
            assert (reason.code, reason.cause) == ("listener_error", "RuntimeError")
            assert frames[-1].data[:2] == (1011).to_bytes(2, "big")
        assert [type(context["exception"]) for context in contexts] == [RuntimeError]
        await other_peer.send(text(b"unharmed"))
        await other.until(lambda r: r.texts == [b"unharmed"])


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_listener_may_end_the_leg_from_a_callback(how: str) -> None:
    def end(leg: Leg, _: bytes) -> None:
        if how == "close":
            leg.close()
        else:
            leg.abort(EndReason("enough"))

    recorder = Recorder(end)
    async with raw_peer(recorder) as (_, peer):
        await peer.send(text(b"1") + text(b"2") + text(b"3") + frame(Opcode.CLOSE))
        assert await peer.closing_code() == (1000 if how == "close" else 1006)
        peer.close()
        await recorder.ended()
        assert recorder.texts == [b"1"]


# Slow peers.


async def test_audio_for_a_slow_reader_is_dropped_oldest_first_and_counted() -> None:
    recorder = Recorder()
    options = LegOptions(ping_interval=None, ping_timeout=None, write_high=4096, queue_limit=10_000)
    async with raw_peer(recorder, options=options, send_buffer=4096) as (leg, peer):
        for number in range(500):
            leg.send_audio(b"%04d" % number * 100)
        leg.send_text(b"not to be lost")
        statistics = leg.statistics()
        assert statistics.messages_dropped > 0
        assert statistics.queued_bytes <= 10_000 + 4096 + 410
        frames = await peer.read_frames(lambda seen: bool(seen) and seen[-1].data == b"not to be lost")
        numbers = [int(frame.data[:4]) for frame in frames[:-1]]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == 499, "the newest are kept"
        assert len(numbers) + statistics.messages_dropped == 500
        assert leg.statistics().messages_out == len(frames)
        assert leg.state is LegState.OPEN


async def test_clear_audio_takes_back_what_waits_and_keeps_the_order_of_the_rest() -> None:
    options = LegOptions(ping_interval=None, ping_timeout=None, write_high=4096, queue_limit=100_000)
    async with raw_peer(Recorder(), options=options, send_buffer=4096) as (leg, peer):
        for number in range(100):
            leg.send_audio(b"a%03d" % number * 100)
            if number % 10 == 0:
                leg.send_text(b"t%03d" % number)
        cleared = leg.clear_audio()
        leg.send_text(b"end")
        assert cleared > 0
        assert leg.statistics().messages_dropped == cleared
        frames = await peer.read_frames(lambda seen: bool(seen) and seen[-1].data == b"end")
        texts = [frame.data for frame in frames if frame.data[:1] == b"t"]
        audio = [frame.data[:4] for frame in frames if frame.data[:1] == b"a"]
        assert texts == [b"t%03d" % number for number in range(0, 100, 10)]
        assert audio == [b"a%03d" % number for number in range(100 - cleared)]


async def test_messages_that_must_not_be_dropped_end_the_leg_when_the_queue_is_full() -> None:
    recorder = Recorder()
    options = LegOptions(ping_interval=None, ping_timeout=None, write_high=4096, queue_limit=10_000)
    async with raw_peer(recorder, options=options, send_buffer=4096) as (leg, _):
        for _ in range(500):
            leg.send_text(bytes(400))
        assert leg.state is LegState.CLOSING
        assert (await recorder.ended()).code == "leg_overflow"
        assert leg.statistics().messages_dropped == 0


async def test_pongs_for_a_peer_that_does_not_read_are_bounded_too() -> None:
    recorder = Recorder()
    options = LegOptions(ping_interval=None, ping_timeout=None, write_high=0, queue_limit=1000)
    async with raw_peer(recorder, options=options, send_buffer=4096) as (leg, peer):
        leg.send_text(bytes(100_000))
        await peer.send(frame(Opcode.PING, bytes(125)) * 20)
        assert (await recorder.ended()).code == "leg_overflow"


# Deadlines, on virtual time: a socket pair with both ends on the loop needs no other.


def test_a_peer_that_never_answers_our_close_is_cut_at_the_deadline() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        options = LegOptions(ping_interval=None, close_timeout=3.0)
        async with raw_peer(recorder, options=options) as (leg, _):
            leg.close(1000, "bye")
            assert await recorder.ended() == EndReason("closed_normally", "bye", None, "us")
            assert asyncio.get_running_loop().time() == 3.0

    virtual_clock.run(scenario())


def test_a_peer_that_never_goes_after_an_error_is_cut_at_the_deadline() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        options = LegOptions(ping_interval=None, close_timeout=3.0)
        async with raw_peer(recorder, options=options) as (leg, peer):
            await peer.send(b"\x83\x80")
            assert (await recorder.ended()).code == "protocol_error"
            assert asyncio.get_running_loop().time() == 3.0
            assert leg.close_code == 1002

    virtual_clock.run(scenario())


def test_our_close_frame_that_cannot_be_written_does_not_hold_the_leg() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        options = LegOptions(ping_interval=None, close_timeout=3.0, write_high=0)
        async with raw_peer(recorder, options=options, send_buffer=4096) as (leg, _):
            leg.send_text(bytes(100_000))
            leg.close()
            await recorder.ended()
            assert asyncio.get_running_loop().time() == 3.0

    virtual_clock.run(scenario())


# Resumption.


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("cut", [0, 1, 5, 9, 14])
async def test_another_leg_goes_on_in_the_middle_of_a_message(side: Side, cut: int) -> None:
    ours, theirs = socket.socketpair()
    mask = side == "server"
    peer = RawPeer(theirs, "client" if mask else "server")
    first, second = Recorder(), Recorder()
    memory = memoryview(bytearray(capacity_for(1000)))
    options = LegOptions(max_message=1000, ping_interval=None, ping_timeout=None)
    duplicate = ours.dup()
    leg = await resume(ours, first, side=side, options=options, buffer=ReceiveBuffer(memory))
    message = frame(Opcode.TEXT, b"second", fin=False, mask=mask) + frame(Opcode.CONT, b" message", mask=mask)
    await peer.send(text(b"first", mask=mask), message[:cut])
    await first.until(lambda r: r.texts == [b"first"])
    leg.send_text(b"reply to the first")
    await peer.read_frames(lambda seen: len(seen) == 1)

    kept = leg.detach()
    assert (await first.ended()).code == "detached"
    await peer.send(message[cut:], text(b"third", mask=mask))

    successor = await resume(duplicate, second, side=side, options=options, buffer=kept)
    await second.until(lambda r: len(r.texts) == 2)
    assert second.texts == [b"second message", b"third"]
    successor.send_text(b"reply to the third")
    frames = await peer.read_frames(lambda seen: len(seen) == 2)
    assert frames[1].data == b"reply to the third"
    successor.close()
    await peer.send(frame(Opcode.CLOSE, (1000).to_bytes(2, "big"), mask=mask))
    peer.close()
    assert (await second.ended()).code == "closed_normally"


async def test_a_whole_message_that_was_left_pending_is_delivered_at_once() -> None:
    message = text(b"cut")
    pending = text(b"left over") + message[:4]
    memory = bytearray(capacity_for(QUIET.max_message))
    memory[: len(pending)] = pending
    recorder = Recorder()
    async with raw_peer(recorder, buffer=ReceiveBuffer(memoryview(memory), pending=len(pending))) as (_, peer):
        assert recorder.texts == [b"left over"]
        await peer.send(message[4:])
        await recorder.until(lambda r: r.texts == [b"left over", b"cut"])


async def test_only_an_open_leg_with_nothing_unwritten_can_be_detached() -> None:
    async with raw_peer(Recorder(), send_buffer=4096) as (leg, _):
        leg.send_text(bytes(100_000))
        with pytest.raises(UserError):
            leg.detach()
        leg.abort(EndReason("over"))
        with pytest.raises(UserError):
            leg.detach()


async def test_a_buffer_that_is_too_small_is_refused_and_the_socket_closed() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with pytest.raises(UserError, match="need a buffer"):
            await resume(ours, Recorder(), side="server", buffer=anonymous_buffer(1000))
        assert ours.fileno() == -1


async def test_statistics_count_wire_bytes_and_outlive_the_leg() -> None:
    recorder = Recorder()
    async with raw_peer(recorder) as (leg, peer):
        message = text(b"x" * 200)
        await peer.send(message)
        await recorder.until(lambda r: bool(r.texts))
        leg.send_text(b"y" * 200)
        leg.send_audio(b"z" * 10)
        leg.abort(EndReason("over"))
        await recorder.ended()
        statistics = leg.statistics()
        assert (statistics.messages_in, statistics.messages_out) == (1, 2)
        assert (statistics.bytes_in, statistics.bytes_out) == (len(message), 204 + 12)
        assert statistics.queued_bytes == 0


async def test_the_memory_that_was_given_is_let_go_at_the_end() -> None:
    memory = bytearray(capacity_for(1000))
    buffer = ReceiveBuffer(memoryview(memory))
    recorder = Recorder()
    async with raw_peer(recorder, options=SMALL, buffer=buffer) as (leg, peer):
        await peer.send(text(b"seen in the memory"))
        await recorder.until(lambda r: bool(r.texts))
        leg.abort(EndReason("over"))
        await recorder.ended()
        buffer.view.release()
        # Memory that is still looked at cannot be resized.
        del buffer
        memory.append(0)


@pytest.mark.parametrize("side", ["client", "server"])
async def test_messages_that_are_sent_together_arrive_one_by_one(side: Side) -> None:
    recorder = Recorder()
    async with raw_peer(recorder, side=side) as (leg, peer):
        sent = [b"", "grüß dich".encode(), b"x" * 300, b"y" * 70_000]
        leg.send_texts(sent)
        frames = await peer.read_frames(lambda seen: len(seen) == len(sent))
        assert [bytes(frame.data) for frame in frames] == sent
        assert all(frame.opcode is Opcode.TEXT and frame.fin for frame in frames)
        assert leg.statistics().messages_out == len(sent)
        leg.abort(EndReason("test_over"))
        leg.send_texts(sent)
        assert leg.statistics().messages_out == len(sent)


async def test_messages_that_find_no_room_together_end_the_leg() -> None:
    recorder = Recorder()
    options = LegOptions(queue_limit=100, write_high=0, ping_interval=None)
    async with raw_peer(recorder, options=options, send_buffer=4096) as (leg, _):
        while leg.statistics().queued_bytes == 0:
            leg.send_texts([b"x" * 50_000])
        leg.send_texts([b"y" * 60, b"z" * 60])
        assert (await recorder.ended()).code == "leg_overflow"
