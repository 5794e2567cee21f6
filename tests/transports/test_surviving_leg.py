"""A caller's leg over its page, given from owner to owner: the caller notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any, Literal

import pytest
from websockets.frames import Frame, Opcode

from orchestrator.errors import EndReason, LegClosedError, PageError, Refused, UserError
from orchestrator.testing import virtual_clock
from orchestrator.transports.base import Leg, LegOptions, LegState
from orchestrator.transports.opening import accept, resume
from orchestrator.transports.outbound import FrameWriter
from orchestrator.transports.receive_buffer import anonymous_buffer
from orchestrator.transports.session_page import SessionPage
from orchestrator.transports.surviving_leg import SurvivingLeg
from orchestrator.transports.tcp_counters import read_counters
from tests.transports.support import PATIENCE, RawPeer, Recorder, eventually, frame, text

HEAD = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
OPTIONS = LegOptions(
    max_message=200_000, ping_interval=None, ping_timeout=None, open_timeout=PATIENCE, close_timeout=PATIENCE, write_high=8192
)


class Line:
    """A caller's connection. Its server's end is kept here while owners come and go; `page` is as the next owner gets it."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
            self.caller = socket.create_connection(listener.getsockname())
            self.kept, _ = listener.accept()
        for sock in (self.kept, self.caller):
            sock.setblocking(False)
        self.peer = RawPeer(self.caller, "client")
        self.page = SessionPage.create(max_message=200_000, outbound_bytes=1 << 20, audio_bytes=4096, snapshot_bytes=100)
        self.leg: SurvivingLeg | None = None

    async def accept(self, listener: Any, head: bytes = HEAD, options: LegOptions = OPTIONS) -> SurvivingLeg:
        leg = await accept(self.kept.dup(), head, listener, options=options, page=self.page)
        assert isinstance(leg, SurvivingLeg)
        self.leg = leg
        return leg

    async def resume(self, listener: Any, options: LegOptions = OPTIONS) -> SurvivingLeg:
        leg = await resume(self.kept.dup(), listener, side="server", options=options, page=self.page)
        assert isinstance(leg, SurvivingLeg)
        self.leg = leg
        return leg

    async def die(self) -> None:
        """The owner is gone, with whatever it had not given to the kernel."""
        assert self.leg is not None
        self.leg._surviving_writer.release()
        await self.leg.wait_closed()
        self.reopen()

    def reopen(self) -> None:
        fd = os.dup(self.page.fileno())
        self.page.close()
        self.page = SessionPage.open(fd)

    async def head_of_answer(self) -> bytes:
        """Read up to the end of the HTTP answer, and nothing of what follows."""
        answer = b""
        async with asyncio.timeout(PATIENCE):
            while not answer.endswith(b"\r\n\r\n"):
                answer += await asyncio.get_running_loop().sock_recv(self.caller, 1)
        return answer

    async def close(self) -> None:
        if self.leg is not None and self.leg.state is not LegState.CLOSED:
            self.leg.abort(EndReason("test_over"))
            await self.leg.wait_closed()
        self.page.close()
        self.kept.close()
        self.caller.close()


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    line = Line()
    yield line
    await line.close()


@contextlib.contextmanager
def nothing_written(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The owner gets no further than its next commit."""
    with monkeypatch.context() as patch:
        patch.setattr(FrameWriter, "_write_now", lambda *_: None)
        patch.setattr(FrameWriter, "_send_eof", lambda *_: None)
        yield


def echo(leg: Leg, data: bytes) -> None:
    leg.send_text(data)


def texts(frames: list[Frame]) -> list[bytes]:
    return [bytes(frame.data) for frame in frames if frame.opcode is Opcode.TEXT]


async def test_a_caller_is_accepted_and_given_on_without_noticing(line: Line) -> None:
    first, second = Recorder(echo), Recorder(echo)
    leg = await line.accept(first, HEAD + text(b"early"))
    assert line.page.opened
    assert (await line.head_of_answer()).startswith(b"HTTP/1.1 101 ")
    await line.peer.send_text(b"one")
    await line.peer.read_frames(lambda frames: len(frames) == 2)
    assert leg.statistics().messages_in == 2
    await line.die()
    assert line.page.opened
    await line.peer.send_text(b"two")
    await line.resume(second)
    await line.peer.send_text(b"three")
    frames = await line.peer.read_frames(lambda frames: len(frames) == 4)
    assert texts(frames) == [b"early", b"one", b"two", b"three"]
    assert (first.texts, second.texts) == ([b"early", b"one"], [b"two", b"three"])
    assert second.calls[0] == "open"


async def test_a_message_that_was_received_in_parts_by_many_owners_arrives_whole(line: Line) -> None:
    recorders = [Recorder()]
    leg = await line.accept(recorders[0])
    await line.head_of_answer()
    message = (
        frame(Opcode.TEXT, b"x" * 20_000, fin=False)
        + frame(Opcode.PING, b"1")
        + frame(Opcode.CONT, b"y" * 70_000, fin=False)
        + frame(Opcode.PING, b"2")
        + frame(Opcode.CONT, b"z" * 3)
    )
    cuts = [0, 1, 10, 20_010, 20_013, 20_015, 50_000, 90_028, 90_030, len(message) - 1]
    for start, stop in itertools.pairwise(cuts):
        before = leg.statistics().bytes_in
        await line.peer.send(message[start:stop])
        await eventually(lambda: leg.statistics().bytes_in - before == stop - start)  # noqa: B023
        await line.die()
        recorders.append(Recorder())
        leg = await line.resume(recorders[-1])
    await line.peer.send(message[-1:])
    await recorders[-1].until(lambda recorder: bool(recorder.texts))
    assert [recorder.texts for recorder in recorders[:-1]] == [[]] * (len(recorders) - 1)
    assert recorders[-1].texts == [b"x" * 20_000 + b"y" * 70_000 + b"zzz"]
    frames = await line.peer.read_frames(lambda frames: len(frames) == 2)
    assert [(frame.opcode, frame.data) for frame in frames] == [(Opcode.PONG, b"1"), (Opcode.PONG, b"2")]


async def test_frames_that_the_kernel_took_in_part_or_not_at_all_are_sent_by_the_next_owner(line: Line) -> None:
    leg = await line.accept(Recorder())
    await line.head_of_answer()
    sent = [b"%d:" % number + bytes([97 + number]) * 50_000 for number in range(12)]
    for number, payload in enumerate(sent):
        leg.send_text(payload)
        if number in (3, 7, 8):
            assert leg.statistics().queued_bytes
            await asyncio.sleep(0)  # a part of it goes
            await line.die()
            leg = await line.resume(Recorder())
    frames = await line.peer.read_frames(lambda frames: len(frames) == len(sent))
    assert texts(frames) == sent


async def test_what_a_message_leads_to_is_seen_all_at_once(line: Line) -> None:
    seen: list[tuple[bytes, int, int, int]] = []

    def look() -> None:
        other = SessionPage.open(os.dup(line.page.fileno()))
        seen.append((other.saved, other.audio.end, other.out_tail - tail, read_counters(line.kept).taken - other.in_base))
        other.close()

    def on_text(leg: Leg, data: bytes) -> None:
        leg.send_text(b"answer")
        line.page.save(data)
        line.page.audio.push("audio")
        look()

    recorder = Recorder(on_text)
    await line.accept(recorder)
    await line.head_of_answer()
    tail = line.page.out_tail
    await line.peer.send_text(b"question")
    await line.peer.read_frames(lambda frames: len(frames) == 1)
    look()
    assert seen == [(b"", 0, 0, 14), (b"question", 1, 8, 0)]


async def test_an_answer_is_not_written_before_the_message_is_committed(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    committed: list[bytes] = []
    write_now = FrameWriter._write_now

    def look_and_write(*arguments: Any) -> None:
        committed.append(line.page.saved)
        write_now(*arguments)

    def on_text(leg: Leg, data: bytes) -> None:
        leg.send_text(b"answer")
        line.page.save(data)

    await line.accept(Recorder(on_text))
    await line.head_of_answer()
    monkeypatch.setattr(FrameWriter, "_write_now", look_and_write)
    await line.peer.send_text(b"question")
    await line.peer.read_frames(lambda frames: len(frames) == 1)
    assert committed == [b"question"]


async def test_what_a_block_does_outside_of_a_message_is_seen_all_at_once(line: Line) -> None:
    leg = await line.accept(Recorder())
    await line.head_of_answer()
    other = SessionPage.open(os.dup(line.page.fileno()))
    with leg.as_one():
        leg.send_text(b"first")
        line.page.save(b"saved")
        with leg.as_one():
            leg.send_text(b"second")
        assert other.saved == b""
    assert other.saved == b"saved"
    other.close()
    frames = await line.peer.read_frames(lambda frames: len(frames) == 2)
    assert texts(frames) == [b"first", b"second"]


async def test_an_urgent_byte_costs_nobody_a_byte(line: Line) -> None:
    recorder = Recorder()
    await line.accept(recorder)
    await line.head_of_answer()
    data = text(b"with an urgent byte")
    await line.peer.send(data[:5])
    line.caller.send(data[5:6], socket.MSG_OOB)
    await line.die()
    await line.resume(recorder := Recorder())
    await line.peer.send(data[6:])
    await recorder.until(lambda seen: seen.texts == [b"with an urgent byte"])


# The handshake.


@pytest.mark.parametrize("known", [1, 60])
@pytest.mark.parametrize("taken", [0, 50])
async def test_before_the_answer_a_new_owner_begins_anew_and_counts_no_byte_twice(line: Line, known: int, taken: int) -> None:
    await line.peer.send(HEAD[:known])
    loop = asyncio.get_running_loop()
    head = await loop.sock_recv(line.kept, known)
    assert len(head) == known
    line.page.bind(line.kept, read_counters(line.kept), head)
    # The first owner takes some more of the head, and dies.
    await line.peer.send(HEAD[known:] + text(b"early"))
    if taken:
        assert await loop.sock_recv_into(line.kept, line.page.receive_area[known : known + taken]) == taken
    line.reopen()
    assert line.page.bound
    assert not line.page.opened
    recorder = Recorder(echo)
    await line.accept(recorder, head)
    assert (await line.head_of_answer()).count(b"HTTP/1.1 101 ") == 1
    assert texts(await line.peer.read_frames(lambda frames: len(frames) == 1)) == [b"early"]


class Greeter(Recorder):
    def on_open(self, leg: Leg) -> None:
        super().on_open(leg)
        leg.send_text(b"hello")


async def test_an_answer_that_was_committed_and_not_written_is_sent_by_the_next_owner(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nothing_written(monkeypatch):
        await line.accept(Greeter())
    await line.die()
    assert line.page.opened
    recorder = Recorder(echo)
    await line.resume(recorder)
    assert (await line.head_of_answer()).count(b"HTTP/1.1 101 ") == 1
    await line.peer.send_text(b"late")
    assert texts(await line.peer.read_frames(lambda frames: len(frames) == 2)) == [b"hello", b"late"]
    assert recorder.texts == [b"late"]


@pytest.mark.parametrize(
    "head", [b"nonsense\r\n\r\n", HEAD.replace(b"GET", b"POST"), HEAD[:-2] + (b"X: " + b"x" * 4000 + b"\r\n") * 5]
)
async def test_a_refusal_that_was_committed_and_not_written_is_sent_by_the_next_owner(
    line: Line, monkeypatch: pytest.MonkeyPatch, head: bytes
) -> None:
    with nothing_written(monkeypatch):
        accepting = asyncio.create_task(line.accept(Recorder(), head, OPTIONS))
        await eventually(lambda: line.page.finished)
        line.reopen()
        recorder = Recorder()
    again = asyncio.create_task(line.accept(recorder, head))
    answer = await read_all(line.caller)
    assert answer.startswith(b"HTTP/1.1 4")
    assert answer.count(b"HTTP/1.1 4") == 1
    line.caller.close()
    with pytest.raises(LegClosedError, match="refused by an earlier owner"):
        await again
    with contextlib.suppress(Refused, LegClosedError):
        await accepting
    assert recorder.calls == []


def test_a_head_that_never_ends_is_answered_at_the_deadline() -> None:
    async def scenario() -> None:
        line = Line()
        options = LegOptions(max_message=1000, open_timeout=5.0, close_timeout=2.0)
        accepting = asyncio.ensure_future(line.accept(Recorder(), HEAD[:-2], options))
        answer = await read_all(line.caller)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert line.page.finished
        with pytest.raises(Refused) as info:
            await accepting
        assert (info.value.status, line.page.opened) == (408, False)
        await line.close()

    virtual_clock.run(scenario())


def test_a_peer_that_answers_no_ping_is_given_up_in_one_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        line = Line()
        await line.accept(recorder := Recorder(), options=LegOptions(max_message=1000, ping_interval=2.0, ping_timeout=3.0))
        await line.head_of_answer()
        await line.peer.send(text(b"half of a message")[:9])
        commits: list[tuple[int, bool, int]] = []
        commit = SessionPage.commit

        def look(page: SessionPage) -> None:
            commit(page)
            commits.append((page.close_code, page.finished, read_counters(line.kept).taken - page.in_base - page.in_start))

        monkeypatch.setattr(SessionPage, "commit", look)
        assert (await recorder.ended()).code == "keepalive_timeout"
        assert commits == [(0, False, 9), (1011, True, 0)], "a ping, and the end"
        await line.close()

    virtual_clock.run(scenario())


async def read_all(sock: socket.socket) -> bytes:
    answer = b""
    async with asyncio.timeout(PATIENCE):
        while data := await asyncio.get_running_loop().sock_recv(sock, 65536):
            answer += data
    return answer


# Ends.


async def test_our_close_goes_on_with_the_next_owner(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    leg = await line.accept(Recorder())
    await line.head_of_answer()
    leg.send_text(b"last")
    with nothing_written(monkeypatch):
        leg.close(4001, "enough")
        assert leg.state is LegState.CLOSING
    await line.peer.send_text(b"too late")
    await line.die()

    class Talkative(Recorder):
        def on_open(self, leg: Leg) -> None:
            assert leg.state is LegState.CLOSING
            leg.send_text(b"after the end")
            super().on_open(leg)

    recorder = Talkative()
    leg = await line.resume(recorder)
    frames = await line.peer.read_frames(lambda frames: len(frames) == 2)
    assert bytes(frames[0].data) == b"last"
    assert bytes(frames[1].data) == (4001).to_bytes(2, "big") + b"enough"
    await line.peer.send(frame(Opcode.CLOSE, (4001).to_bytes(2, "big")))
    await line.peer.read_to_end()
    line.caller.close()
    assert await recorder.ended() == EndReason("closed_with_code", "4001", None, "us")
    assert (recorder.calls, leg.close_code) == (["open", "closed"], 4001)


@pytest.mark.parametrize(("payload", "code", "reason"), [(b"", 1005, "closed_normally"), (b"\x03\xe9bye", 1001, "going_away")])
async def test_the_peers_close_goes_on_with_the_next_owner(
    line: Line, monkeypatch: pytest.MonkeyPatch, payload: bytes, code: int, reason: str
) -> None:
    await line.accept(Recorder())
    await line.head_of_answer()
    with nothing_written(monkeypatch):
        await line.peer.send(frame(Opcode.CLOSE, payload))
        await eventually(lambda: line.page.finished)
    await line.die()
    assert (line.page.close_code, line.page.closed_by_peer) == (code, True)
    recorder = Recorder()
    leg = await line.resume(recorder)
    frames = await line.peer.read_to_end()
    assert [(frame.opcode, bytes(frame.data)) for frame in frames] == [(Opcode.CLOSE, payload)]
    line.caller.close()
    ended = await recorder.ended()
    assert (ended.code, ended.by, leg.close_code) == (reason, "peer", code)


async def test_a_fault_of_the_peer_is_answered_once_though_its_owner_dies_over_it(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    await line.accept(Recorder())
    await line.head_of_answer()
    with nothing_written(monkeypatch):
        await line.peer.send(b"\x83\x80" + b"and more of it")
        await eventually(lambda: line.page.finished)
    await line.die()
    recorder = Recorder()
    await line.resume(recorder)
    assert await line.peer.closing_code() == 1002
    line.caller.close()
    assert (await recorder.ended()).code == "protocol_error"
    assert recorder.texts == []


async def test_the_end_of_the_peers_stream_does_not_cost_the_last_message(line: Line) -> None:
    await line.accept(Recorder())
    await line.head_of_answer()
    message = text(b"last words")
    await line.peer.send(message[:4])
    await asyncio.sleep(0.01)
    await line.die()
    await line.peer.send(message[4:])
    line.caller.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.01)
    recorder = Recorder()
    await line.resume(recorder)
    assert (await recorder.ended()).code == "connection_lost"
    assert recorder.texts == [b"last words"]


async def test_a_connection_that_was_reset_meanwhile_is_over(line: Line) -> None:
    await line.accept(Recorder())
    await line.die()
    line.caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    line.caller.close()
    await eventually(lambda: read_counters(line.kept).closed)
    recorder = Recorder()
    with pytest.raises(LegClosedError, match="while nobody had it"):
        await line.resume(recorder)
    assert recorder.calls == []


async def test_a_caller_that_does_not_read_ends_its_leg(line: Line) -> None:
    recorder = Recorder()
    leg = await line.accept(recorder, options=LegOptions(ping_interval=None, max_message=1000, queue_limit=50_000))
    for _ in range(200):
        leg.send_text(b"x" * 10_000)
        await asyncio.sleep(0)
    assert (await recorder.ended()).code == "leg_overflow"


async def test_a_leg_can_be_detached_with_something_left_to_write(line: Line) -> None:
    recorder = Recorder()
    leg = await line.accept(recorder)
    await line.head_of_answer()
    for _ in range(10):
        leg.send_text(b"x" * 50_000)
    assert leg.statistics().queued_bytes
    leg.detach()
    assert (await recorder.ended()).code == "detached"
    line.reopen()
    await line.resume(Recorder())
    frames = await line.peer.read_frames(lambda frames: len(frames) == 10)
    assert texts(frames) == [b"x" * 50_000] * 10


async def test_a_page_takes_the_next_connection_of_its_caller(line: Line) -> None:
    await line.accept(recorder := Recorder())
    line.page.save(b"kept")
    line.caller.close()
    await recorder.ended()
    line.page.forget_leg()
    other = Line()
    other.page.close()
    other.page = line.page
    await other.accept(Recorder(echo))
    await other.head_of_answer()
    await other.peer.send_text(b"back again")
    assert texts(await other.peer.read_frames(lambda frames: len(frames) == 1)) == [b"back again"]
    assert other.page.saved == b"kept"
    await other.close()


# What is refused.


@pytest.mark.parametrize("what", ["resume before accept", "accept after", "client", "buffer", "large messages"])
async def test_a_page_that_does_not_suit_is_refused(line: Line, what: str) -> None:
    sock = line.kept.dup()
    side: Literal["client", "server"] = "client" if what == "client" else "server"
    if what != "resume before accept":
        line.page.bind(line.kept, read_counters(line.kept), b"")
        line.page.mark_opened()
        line.page.commit()
    with pytest.raises(UserError):  # noqa: PT012 - one of two
        if what == "accept after":
            await accept(sock, b"", Recorder(), page=line.page)
        else:
            buffer = anonymous_buffer(1000) if what == "buffer" else None
            options = LegOptions(max_message=200_001 if what == "large messages" else 1000)
            await resume(sock, Recorder(), side=side, options=options, buffer=buffer, page=line.page)
    assert sock.fileno() == -1


async def test_a_page_of_another_connection_is_refused(line: Line) -> None:
    await line.accept(Recorder())
    await line.die()
    stranger, theirs = socket.socketpair()
    with theirs:
        with pytest.raises(PageError, match="needs TCP"):
            await resume(stranger, Recorder(), side="server", options=OPTIONS, page=line.page)
        assert stranger.fileno() == -1
    other = Line()
    with pytest.raises(PageError, match="belongs to another connection"):
        await resume(other.kept.dup(), Recorder(), side="server", options=OPTIONS, page=line.page)
    await other.close()
