"""Frames reach the peer whole, in order and once, through any number of owners; only audio may be missing, and only if full."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import PageError
from orchestrator.transports.outbound import Kind
from orchestrator.transports.page_layout import TRANSPORT_SHARE
from orchestrator.transports.receive_buffer import KEEP
from orchestrator.transports.session_page import SessionPage
from orchestrator.transports.surviving_writer import SurvivingQueue, SurvivingWriter
from orchestrator.transports.tcp_counters import TcpCounters
from tests.transports.crashing import dying_after, new_page, reopened
from tests.transports.support import untimed

LIMIT = 4096
BEFORE = 99


class Kernel:
    """What the peer will get, whoever of our processes lives."""

    def __init__(self) -> None:
        self.stream = b""

    @property
    def written(self) -> int:
        return BEFORE + len(self.stream)


class Held(asyncio.Transport):
    """A transport that holds what the kernel has not taken, as far as the test lets it; it dies with its process."""

    def __init__(self, kernel: Kernel) -> None:
        super().__init__()
        self.kernel = kernel
        self.held = b""
        self.high = 0
        self.paused = self.eof = self.aborted = False
        self.writer: SurvivingWriter | None = None
        self.on_write: Any = None

    def write(self, data: Any) -> None:
        if self.on_write is not None:
            self.on_write()
        self.held += data
        if len(self.held) > self.high and not self.paused and self.writer is not None:
            self.paused = True
            self.writer.pause()

    def take(self, count: int) -> None:
        self.kernel.stream += self.held[:count]
        self.held = self.held[count:]
        if self.paused and len(self.held) <= self.high // 4 and self.writer is not None:
            self.paused = False
            self.writer.resume()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self.high = high

    def get_write_buffer_size(self) -> int:
        return len(self.held)

    def is_closing(self) -> bool:
        return self.aborted

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def abort(self) -> None:
        self.aborted = True


class Soon(asyncio.SelectorEventLoop):
    """A loop of which only `call_soon` is used, by hand."""

    def turn(self) -> None:
        self.call_soon(self.stop)
        self.run_forever()


class Rig:
    """A page and its present owner's writer."""

    def __init__(self, loop: Soon, high: int = 600, limit: int = LIMIT) -> None:
        self.loop = loop
        self.high = high
        self.kernel = Kernel()
        self.page = new_page(outbound_bytes=limit)
        with socket.socket() as sock:
            self.page.bind(sock, TcpCounters(0, BEFORE, closed=False), b"")
        self.sock = socket.socket()
        self.begin()

    def begin(self) -> None:
        self.transport = Held(self.kernel)
        self.writer = SurvivingWriter(self.page, self.kernel.written, 1 << 20, self.sock, self.loop)
        self.transport.writer = self.writer
        self.writer.attach(self.transport, self.high)

    def succeed(self) -> None:
        """Another process takes over."""
        self.page = reopened(self.page)
        self.begin()

    def drain(self) -> bytes:
        while self.transport.held or self.writer.queued_bytes:
            self.transport.take(1 << 20)
            self.loop.turn()
        return self.kernel.stream

    def close(self) -> None:
        self.page.close()
        self.sock.close()


def frame(number: int, size: int) -> bytes:
    return number.to_bytes(4, "big") + size.to_bytes(4, "big") + bytes([number % 251]) * size


def parsed(stream: bytes) -> list[int]:
    """Return the numbers of the frames; fail if they are not whole."""
    numbers = []
    while stream:
        number, size = int.from_bytes(stream[:4], "big"), int.from_bytes(stream[4:8], "big")
        assert stream[: 8 + size] == frame(number, size)
        numbers.append(number)
        stream = stream[8 + size :]
    return numbers


kinds = st.sampled_from(list(Kind))
# What an owner does: frames in a message or by itself, audio taken back; or what the kernel does, or the loop.
message = st.tuples(st.just("message"), st.lists(st.tuples(kinds, st.integers(0, 900)), max_size=5))
single = st.tuples(st.just("single"), st.tuples(kinds, st.integers(0, 900)))
steps = st.lists(
    st.tuples(
        st.one_of(
            *(message, single, message, st.tuples(st.just("take"), st.integers(0, 3000))),
            *(st.just(("turn", 0)), st.just(("clear", 0)), st.just(("die", 0))),
        ),
        st.none() | st.integers(0, 150),
    ),
    max_size=30,
)


class Crashing(Rig):
    """Keeps an account of what must arrive, and of what may."""

    def __init__(self, loop: Soon) -> None:
        super().__init__(loop)
        self.number = 0
        self.must: list[int] = []
        self.may: set[int] = set()

    def do(self, what: str, argument: Any, dies: int | None) -> None:
        first = self.number
        frames = argument if what == "message" else [argument] if what == "single" else []
        accepted: list[bool] = []
        with dying_after(dies) as died:
            if what == "take":
                self.transport.take(argument)
            elif what == "turn":
                self.loop.turn()
            elif what == "clear":
                self.writer.clear_audio()
            elif what == "single":
                accepted.append(self.writer.write(frame(first, argument[1]), argument[0]))
            elif what == "message":
                self.page.staging = True
                self.page.save(b"%d" % first)
                for number, (kind, size) in enumerate(frames, first):
                    accepted.append(self.writer.write(frame(number, size), kind))
                self.page.staging = False
                self.page.commit()
                self.writer.settle()
        self.number += len(frames) + 1
        if died[0] or what == "die":
            committed = self.page.saved == b"%d" % first and what == "message"
            self.succeed()
        else:
            committed = True
        for number, (kind, _) in enumerate(frames, first):
            in_time = number - first < len(accepted)
            if committed and kind is not Kind.AUDIO and in_time and accepted[number - first]:
                self.must.append(number)
            elif committed or what == "single":
                self.may.add(number)


@untimed
@given(steps)
def test_a_crash_anywhere_breaks_no_frame_and_loses_none_that_was_committed(
    given_steps: list[tuple[tuple[str, Any], int]],
) -> None:
    loop = Soon()
    rig = Crashing(loop)
    for (what, argument), dies in given_steps:
        rig.do(what, argument, dies)
    numbers = parsed(rig.drain())
    assert numbers == sorted(set(numbers))
    assert set(rig.must) <= set(numbers) <= set(rig.must) | rig.may
    rig.close()
    loop.close()


@untimed
@given(st.lists(st.tuples(st.integers(0, 900), st.none() | st.integers(0, 120)), max_size=20), st.integers(0, 3000))
def test_audio_that_has_room_is_never_missing_either(frames: list[tuple[int, int | None]], taken: int) -> None:
    loop = Soon()
    rig = Rig(loop, limit=32 * 1024)
    sent: list[int] = []
    for number, (size, dies) in enumerate(frames):
        with dying_after(dies) as died:
            rig.page.staging = True
            rig.page.save(b"%d" % number)
            rig.writer.write(frame(number, size), Kind.AUDIO)
            rig.page.staging = False
            rig.page.commit()
            rig.writer.settle()
            rig.transport.take(taken // (1 + number))
        if not died[0] or rig.page.saved == b"%d" % number:
            sent.append(number)
        if died[0]:
            rig.succeed()
    assert parsed(rig.drain()) == sent
    rig.close()
    loop.close()


@pytest.fixture
def rig() -> Any:
    loop = Soon()
    rig = Rig(loop)
    yield rig
    rig.close()
    loop.close()


def committed_tail(page: SessionPage) -> int:
    other = SessionPage.open(os.dup(page.fileno()))
    try:
        return other.out_tail
    finally:
        other.close()


def test_nothing_is_given_to_the_transport_before_the_page_has_it(rig: Rig) -> None:
    tails: list[int] = []
    rig.transport.on_write = lambda: tails.append(committed_tail(rig.page))
    rig.writer.write(frame(1, 100), Kind.MESSAGE)
    assert tails == [BEFORE + 108]
    rig.page.staging = True
    rig.writer.write(frame(2, 100), Kind.MESSAGE)
    rig.writer.write(frame(3, 100), Kind.MESSAGE)
    assert committed_tail(rig.page) == BEFORE + 108
    rig.page.staging = False
    rig.page.commit()
    rig.writer.settle()
    assert tails == [BEFORE + 108, BEFORE + 324, BEFORE + 324]
    # Full now: what waits is in the log, and moves to the ring before it is written.
    rig.writer.write(frame(4, 900), Kind.MESSAGE)
    rig.writer.write(frame(5, 900), Kind.MESSAGE)
    assert rig.writer.queued_bytes == 3 * 108 + 2 * 908
    del tails[:]
    rig.drain()
    assert tails[-1] == BEFORE + len(rig.kernel.stream)
    assert parsed(rig.kernel.stream) == [1, 2, 3, 4, 5]


def test_the_rest_of_a_frame_is_sent_by_the_next_owner(rig: Rig) -> None:
    rig.writer.write(frame(1, 500), Kind.MESSAGE)
    rig.transport.take(123)
    rig.succeed()
    assert rig.transport.held == frame(1, 500)[123:]
    rig.writer.write(frame(2, 10), Kind.MESSAGE)
    assert parsed(rig.drain()) == [1, 2]


def test_audio_that_waits_gives_way_oldest_first_also_after_a_crash(rig: Rig) -> None:
    rig.writer.write(frame(1, 700), Kind.AUDIO)
    for number in range(2, 9):
        rig.writer.write(frame(number, 700), Kind.AUDIO)
    rig.succeed()
    rig.writer.write(frame(9, 1300), Kind.MESSAGE)
    numbers = parsed(rig.drain())
    # The first was with the transport already. Of the rest the limit holds five, and the message takes the room of two.
    assert numbers == [1, 6, 7, 8, 9]
    assert rig.writer.dropped == 2, "its own; the first owner dropped the others"


def test_audio_taken_back_stays_away_after_a_crash(rig: Rig) -> None:
    for number, kind in enumerate((Kind.MESSAGE, Kind.AUDIO, Kind.MESSAGE, Kind.AUDIO)):
        rig.writer.write(frame(number, 800), kind)
    assert rig.writer.clear_audio() == 2
    rig.succeed()
    assert parsed(rig.drain()) == [0, 2]


def test_audio_taken_back_in_a_message_that_was_not_committed_is_still_there(rig: Rig) -> None:
    for number in range(4):
        rig.writer.write(frame(number, 800), Kind.AUDIO)
    rig.page.staging = True
    assert rig.writer.clear_audio() == 3
    for number in range(4, 8):
        assert rig.writer.write(frame(number, 900), Kind.MESSAGE)
    rig.succeed()
    assert parsed(rig.drain()) == [0, 1, 2, 3]


def test_a_message_that_finds_no_room_is_refused(rig: Rig) -> None:
    for number in range(5):
        assert rig.writer.write(frame(number, 900), Kind.MESSAGE)
    assert not rig.writer.write(frame(5, 900), Kind.MESSAGE)
    assert not rig.writer.write(frame(6, LIMIT), Kind.MESSAGE)
    assert rig.writer.write(frame(7, 900), Kind.AUDIO), "audio is dropped"
    assert parsed(rig.drain()) == [0, 1, 2, 3, 4]


def test_more_than_the_ring_holds_in_one_message_waits_and_goes_when_the_loop_turns() -> None:
    loop = Soon()
    rig = Rig(loop, high=TRANSPORT_SHARE, limit=100_000)
    rig.page.staging = True
    for number in range(20):
        assert rig.writer.write(frame(number, 9_000), Kind.MESSAGE)
    rig.page.staging = False
    rig.page.commit()
    rig.writer.settle()
    assert parsed(rig.drain()) == list(range(20))
    rig.close()
    loop.close()


def test_the_end_of_the_stream_comes_after_everything_also_from_the_next_owner(rig: Rig) -> None:
    rig.writer.write(frame(1, 700), Kind.MESSAGE)
    rig.writer.write(frame(2, 700), Kind.MESSAGE)
    rig.writer.finish()
    rig.writer.write(frame(3, 1), Kind.MESSAGE)
    assert not rig.transport.eof
    rig.succeed()
    assert not rig.transport.eof
    assert parsed(rig.drain()) == [1, 2]
    assert rig.transport.eof


def test_a_released_connection_is_not_written_to_any_more(rig: Rig) -> None:
    rig.writer.write(frame(1, 700), Kind.MESSAGE)
    rig.writer.write(frame(2, 700), Kind.MESSAGE)
    old = rig.transport
    rig.writer.release()
    rig.writer.write(frame(3, 700), Kind.MESSAGE)
    rig.writer.lost()
    assert old.aborted
    assert rig.sock.fileno() >= 0
    rig.succeed()
    assert parsed(rig.drain()) == [1, 2]


def test_a_count_that_does_not_fit_is_refused(rig: Rig) -> None:
    for written in (BEFORE + 1, BEFORE - 1_000_000):
        with pytest.raises(PageError, match="does not fit"):
            SurvivingWriter(rig.page, written, 1000, rig.sock, rig.loop)


def test_a_damaged_queue_is_refused(rig: Rig) -> None:
    for number in range(3):
        rig.writer.write(frame(number, 700), Kind.MESSAGE)
    at = rig.page.layout.queue_at + rig.page.queue_half * rig.page.layout.queue_half
    rig.page.memory[at + 12] = 77
    with pytest.raises(PageError, match="queue does not add up"):
        SurvivingQueue(LIMIT, rig.page)


def test_memory_that_a_burst_took_is_given_back() -> None:
    loop = Soon()
    rig = Rig(loop, limit=1 << 20)
    for number in range(100):
        rig.writer.write(frame(number, 20_000), Kind.AUDIO)
    assert os.fstat(rig.page.fileno()).st_blocks * 512 > KEEP
    rig.drain()
    rig.writer.write(frame(1, 10), Kind.AUDIO)
    assert os.fstat(rig.page.fileno()).st_blocks * 512 < 2 * KEEP
    rig.close()
    loop.close()
