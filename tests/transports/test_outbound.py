"""Audio gives way, nothing else is lost, the order holds."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.transports.outbound import FrameWriter, Kind, OutboundQueue
from tests.transports.support import untimed


class Sink(asyncio.Transport):
    """A transport that takes `capacity` bytes, then asks its writer to pause."""

    def __init__(self, writer: FrameWriter, capacity: int) -> None:
        super().__init__()
        self.writer = writer
        self.capacity = capacity
        self.written = b""
        self.eof = self.closed = self.aborted = False

    def write(self, data: Any) -> None:
        assert not self.eof
        self.written += data
        if len(self.written) > self.capacity:
            self.writer.pause()

    def drain(self, capacity: int) -> None:
        self.capacity = len(self.written) + capacity
        self.writer.resume()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True


def writer_on_sink(capacity: int, queue_limit: int, sock: socket.socket | None = None) -> tuple[FrameWriter, Sink]:
    writer = FrameWriter(queue_limit, sock)
    sink = Sink(writer, capacity)
    writer.attach(sink, 1)
    return writer, sink


frames = st.lists(st.tuples(st.sampled_from(list(Kind)), st.integers(1, 30)), max_size=40)


@untimed
@given(frames, st.integers(0, 120))
def test_queue_keeps_the_order_the_limit_and_everything_but_audio(pushed: list[tuple[Kind, int]], limit: int) -> None:
    queue = OutboundQueue(limit)
    kept: list[tuple[bytes, Kind]] = []
    audio = 0
    for number, (kind, size) in enumerate(pushed):
        frame = bytes([number]) * size
        if queue.push(frame, kind):
            kept.append((frame, kind))
            audio += kind is Kind.AUDIO
        else:
            assert kind is not Kind.AUDIO
        assert queue.size <= limit
    popped = [queue.pop() for _ in range(len(queue))]
    assert queue.size == 0
    assert [entry for entry in popped if entry[1] is not Kind.AUDIO] == [entry for entry in kept if entry[1] is not Kind.AUDIO]
    assert popped == [entry for entry in kept if entry in popped]
    assert queue.dropped == audio - sum(kind is Kind.AUDIO for _, kind in popped)


def test_the_oldest_audio_goes_first() -> None:
    queue = OutboundQueue(30)
    for number in range(5):
        queue.push(bytes([number]) * 10, Kind.AUDIO)
    assert [queue.pop()[0][0] for _ in range(len(queue))] == [2, 3, 4]
    assert queue.dropped == 2


def test_audio_makes_room_for_a_message_and_is_never_a_reason_to_overflow() -> None:
    queue = OutboundQueue(30)
    assert queue.push(b"m" * 20, Kind.MESSAGE)
    assert queue.push(b"a" * 10, Kind.AUDIO)
    assert queue.push(b"n" * 10, Kind.MESSAGE)
    assert queue.push(b"b" * 10, Kind.AUDIO), "audio that finds no room is dropped, not refused"
    assert not queue.push(b"o", Kind.MESSAGE)
    assert queue.dropped == 2


def test_clear_audio_takes_back_audio_only() -> None:
    queue = OutboundQueue(100)
    for kind in (Kind.AUDIO, Kind.MESSAGE, Kind.AUDIO, Kind.CONTROL_FRAME):
        queue.push(kind.value.encode(), kind)
    assert queue.clear_audio() == 2
    assert [queue.pop()[1] for _ in range(len(queue))] == [Kind.MESSAGE, Kind.CONTROL_FRAME]
    assert queue.dropped == 2


def test_writer_writes_directly_until_paused_then_queues_then_flushes_in_order() -> None:
    writer, sink = writer_on_sink(capacity=10, queue_limit=100)
    for part in (b"12345", b"678901", b"abc", b"def"):
        assert writer.write(part, Kind.MESSAGE)
    assert sink.written == b"12345678901"
    assert writer.queued_bytes == 6
    sink.drain(2)
    assert sink.written == b"12345678901abc"
    sink.drain(100)
    assert sink.written == b"12345678901abcdef"
    assert (writer.messages_out, writer.bytes_out) == (4, 17)


def test_a_run_is_one_write_or_waits_message_by_message() -> None:
    writer, sink = writer_on_sink(capacity=5, queue_limit=6)
    assert writer.write_run([b"abc", b"de"])
    assert (sink.written, writer.messages_out, writer.bytes_out) == (b"abcde", 2, 5)
    assert writer.write_run([b"f"])
    assert writer.write_run([b"ghi", b"jk"]), "the transport holds enough: these wait"
    assert (sink.written, writer.queued_bytes, writer.messages_out) == (b"abcdef", 5, 3)
    assert not writer.write_run([b"l", b"m"])
    sink.drain(100)
    assert (sink.written, writer.messages_out) == (b"abcdefghijkl", 6)
    assert writer.write_run([])
    writer.finish()
    assert writer.write_run([b"n"])
    assert (sink.written, writer.messages_out) == (b"abcdefghijkl", 6)


def test_control_frames_are_written_in_their_place_and_not_counted_as_messages() -> None:
    writer, sink = writer_on_sink(capacity=0, queue_limit=100)
    for part, kind in ((b"1", Kind.MESSAGE), (b"2", Kind.AUDIO), (b"p", Kind.CONTROL_FRAME), (b"3", Kind.AUDIO)):
        writer.write(part, kind)
    sink.drain(100)
    assert sink.written == b"12p3"
    assert writer.messages_out == 3


def test_the_end_of_the_stream_waits_for_what_is_queued() -> None:
    writer, sink = writer_on_sink(capacity=0, queue_limit=100)
    writer.write(b"1", Kind.MESSAGE)
    writer.write(b"2", Kind.MESSAGE)
    writer.finish()
    writer.write(b"late", Kind.MESSAGE)
    assert not sink.eof
    sink.drain(100)
    assert sink.written == b"12"
    assert sink.eof


def test_what_is_held_is_written_when_both_the_owner_and_the_transport_agree() -> None:
    writer, sink = writer_on_sink(capacity=1, queue_limit=100)
    writer.hold(held=True)
    writer.write(b"1", Kind.MESSAGE)
    writer.resume()
    assert sink.written == b""
    writer.hold(held=False)
    writer.write(b"2", Kind.MESSAGE)
    writer.write(b"3", Kind.MESSAGE)
    writer.hold(held=True)
    sink.drain(100)
    assert sink.written == b"12"
    writer.hold(held=False)
    assert sink.written == b"123"


def test_close_cuts_the_connection_if_something_is_stuck() -> None:
    writer, sink = writer_on_sink(capacity=0, queue_limit=100)
    writer.write(b"1", Kind.MESSAGE)
    writer.write(b"2", Kind.MESSAGE)
    writer.close()
    assert sink.aborted
    assert not sink.closed


def test_the_socket_is_shut_down_though_a_duplicate_is_held() -> None:
    ours, theirs = socket.socketpair()
    duplicate = ours.dup()
    with ours, theirs, duplicate:
        writer, _ = writer_on_sink(capacity=100, queue_limit=100, sock=ours)
        writer.lost()
        theirs.settimeout(5)
        assert theirs.recv(10) == b""


def test_a_released_socket_is_left_alone() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        writer, sink = writer_on_sink(capacity=100, queue_limit=100, sock=ours)
        writer.release()
        writer.lost()
        assert sink.closed
        ours.send(b"still there")
        assert theirs.recv(20) == b"still there"
