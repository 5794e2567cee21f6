"""Whatever was received and not handled is found again, from the page and the kernel's count alone."""

from __future__ import annotations

import os
import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import PageError
from orchestrator.transports.receive_buffer import KEEP, MIN_ROOM, READ_SIZE
from orchestrator.transports.session_page import SessionPage
from orchestrator.transports.surviving_buffer import SurvivingReceiveBuffer
from orchestrator.transports.tcp_counters import TcpCounters
from tests.transports.crashing import dying_after, new_page, reopened
from tests.transports.support import untimed

STREAM = random.Random(1).randbytes(4 * READ_SIZE)
# What the counters of a connection may say when a page gets it.
BEFORE = 1234

steps = st.lists(
    st.tuples(
        st.sampled_from(["receive", "receive", "consume", "remove", "clear"]),
        st.floats(0, 1),
        st.floats(0, 1),
        st.none() | st.integers(0, 40),
    ),
    max_size=40,
)


def bound_page(head: bytes = b"") -> SessionPage:
    page = new_page()
    with socket.socket() as sock:
        page.bind(sock, TcpCounters(BEFORE, 0, closed=False), head)
    return page


def unread(buffer: SurvivingReceiveBuffer) -> bytes:
    return bytes(buffer.view[buffer.start : buffer.end])


class Rig:
    """A page, its owner's buffer, and a kernel that counts what was taken from it."""

    def __init__(self) -> None:
        self.page = bound_page()
        self.taken = BEFORE
        self.model = b""
        self.buffer = SurvivingReceiveBuffer(self.page, self.taken)

    def receive(self, share: float) -> None:
        room = self.buffer.room()
        most = min(len(room), READ_SIZE + 3000 - len(self.model))
        if most <= 0:
            return
        assert len(room) >= MIN_ROOM
        count = 1 + int(share * (most - 1))
        data = STREAM[self.taken % READ_SIZE :][:count]
        room[:count] = data
        # From here on the kernel says that they were taken, whether or not the owner lives to hear it.
        self.taken += count
        self.model += data
        self.buffer.received(count)

    def change(self, what: str, first: float, last: float) -> bytes:
        """Handle a part of what is unread, and return what should be left; the commit is yet to come."""
        buffer, model = self.buffer, self.model
        start = int(first * len(model)) if what == "remove" else 0
        stop = len(model) if what == "clear" else start + int(last * (len(model) - start))
        if what == "consume":
            buffer.consume(buffer.start + stop)
        elif what == "remove":
            buffer.remove(buffer.start + start, buffer.start + stop)
        else:
            buffer.clear()
        return model[:start] + model[stop:]

    def step(self, what: str, first: float, last: float, dies: int | None) -> None:
        before = after = self.model
        with dying_after(dies) as died:
            if what == "receive":
                self.receive(first)
            else:
                self.page.staging = True
                after = self.change(what, first, last)
                self.page.staging = False
                if self.page.dirty:
                    self.page.commit()
                self.model = after
        if died[0]:
            self.page = reopened(self.page)
            self.buffer = SurvivingReceiveBuffer(self.page, self.taken)
            # A change that died before or after its commit; bytes that were received are there in any case.
            self.model = unread(self.buffer)
            assert what == "receive" or self.model in (before, after)


@untimed
@given(steps)
def test_a_crash_anywhere_loses_no_byte_and_doubles_none(given_steps: list[tuple[str, float, float, int | None]]) -> None:
    rig = Rig()
    for step in given_steps:
        received = rig.model
        rig.step(*step)
        if step[0] == "receive":
            assert rig.model[: len(received)] == received
        assert unread(rig.buffer) == rig.model
        assert len(rig.buffer) == len(rig.model)
        other = SessionPage.open(os.dup(rig.page.fileno()))
        assert unread(SurvivingReceiveBuffer(other, rig.taken)) == rig.model
        other.close()
    rig.page.close()


@pytest.mark.parametrize(
    ("what", "first", "last"),
    [("consume", 0, 0.3), ("consume", 0, 1), ("remove", 0, 0.3), ("remove", 0.3, 0.1), ("remove", 0.3, 1), ("clear", 0, 1)],
)
def test_a_change_is_there_whole_or_not_at_all_at_every_line(what: str, first: float, last: float) -> None:
    def begin() -> Rig:
        rig = Rig()
        rig.receive(0.001)
        rig.step("consume", 0, 0.01, None)
        return rig

    whole = begin()
    before = whole.model
    whole.page.staging = True
    after = whole.change(what, first, last)
    assert reopened_copy(whole) == before, "nothing is changed for others before the commit"
    whole.page.commit()
    assert reopened_copy(whole) == after
    whole.page.close()
    died = [True]
    lines = 0
    while died[0]:
        rig = begin()
        with dying_after(lines) as died:
            rig.page.staging = True
            rig.change(what, first, last)
            rig.page.commit()
        assert reopened_copy(rig) in ((before, after) if died[0] else (after,))
        rig.page.close()
        lines += 1
    assert lines > 5


def test_the_unread_bytes_are_copied_to_the_front_whole_or_not_at_all_at_every_line() -> None:
    died = [True]
    lines = 0
    while died[0]:
        rig = Rig()
        rig.receive(1.0)
        rig.step("consume", 0, 0.97, None)
        while rig.buffer.end <= KEEP:
            rig.receive(1.0)
            rig.step("consume", 0, 0.97, None)
        with dying_after(lines) as died:
            rig.buffer.room()
        assert reopened_copy(rig) == rig.model
        rig.page.close()
        lines += 1
    assert lines > 10


def reopened_copy(rig: Rig) -> bytes:
    """What another process would find now."""
    other = SessionPage.open(os.dup(rig.page.fileno()))
    try:
        return unread(SurvivingReceiveBuffer(other, rig.taken))
    finally:
        other.close()


def test_an_area_that_is_nearly_full_is_copied_and_then_goes_on_at_the_front() -> None:
    page = new_page(max_message=300_000)
    with socket.socket() as sock:
        page.bind(sock, TcpCounters(0, 0, closed=False), b"")
    buffer = SurvivingReceiveBuffer(page, 0)
    taken = 0
    while buffer.capacity - buffer.end >= MIN_ROOM:
        room = buffer.room()
        assert buffer.start < 4 * 300_000
        room[:] = STREAM[: len(room)]
        buffer.received(len(room))
        taken += len(room)
        if len(buffer) > 300_000:
            buffer.consume(buffer.start + len(buffer) - 300_000)
            page.commit()
    kept = unread(buffer)
    assert len(kept) == 300_000
    assert len(buffer.room()) == READ_SIZE
    assert (buffer.start, unread(buffer)) == (0, kept)
    assert unread(SurvivingReceiveBuffer(page, taken)) == kept
    page.close()


def test_the_end_of_the_unread_bytes_is_cut_off_without_moving_any() -> None:
    rig = Rig()
    rig.receive(0.5)
    start, end = rig.buffer.start, rig.buffer.end
    rig.page.staging = True
    rig.buffer.remove(end - 10, end)
    assert (rig.buffer.start, rig.buffer.end) == (start, end - 10)
    rig.page.staging = False
    rig.page.commit()
    assert unread(SurvivingReceiveBuffer(rig.page, rig.taken)) == rig.model[:-10]
    rig.page.close()


def test_a_head_that_was_read_by_somebody_else_comes_first_and_counts_once() -> None:
    page = bound_page(b"GET / ")
    buffer = SurvivingReceiveBuffer(page, BEFORE)
    assert unread(buffer) == b"GET / "
    buffer.room()[:5] = b"HTTP/"
    page = reopened(page)
    assert unread(SurvivingReceiveBuffer(page, BEFORE + 5)) == b"GET / HTTP/"
    page.close()


def test_large_messages_leave_no_memory_behind() -> None:
    page = SessionPage.create(max_message=4 << 20, outbound_bytes=1, audio_bytes=1, snapshot_bytes=0)
    with socket.socket() as sock:
        page.bind(sock, TcpCounters(0, 0, closed=False), b"")
    buffer = SurvivingReceiveBuffer(page, 0)
    taken = 0
    for _ in range(40):
        room = buffer.room()
        room[:] = STREAM[: len(room)]
        buffer.received(len(room))
        taken += len(room)
    assert os.fstat(page.fileno()).st_blocks * 512 > KEEP
    buffer.consume(buffer.end)
    page.commit()
    buffer.room()
    assert os.fstat(page.fileno()).st_blocks * 512 <= 16 * 1024
    # What a dead owner left is given back by the next.
    room = buffer.room()
    room[:] = STREAM[: len(room)]
    page = reopened(page)
    again = SurvivingReceiveBuffer(page, taken)
    again.room()
    assert os.fstat(page.fileno()).st_blocks * 512 <= 16 * 1024
    page.close()


def test_a_peer_that_never_pauses_uses_the_same_memory_again_and_again() -> None:
    page = SessionPage.create(max_message=4 << 20, outbound_bytes=1, audio_bytes=1, snapshot_bytes=0)
    with socket.socket() as sock:
        page.bind(sock, TcpCounters(0, 0, closed=False), b"")
    buffer = SurvivingReceiveBuffer(page, 0)
    for _ in range(100):
        room = buffer.room()
        room[:] = STREAM[: len(room)]
        buffer.received(len(room))
        # The beginning of a message is always left.
        buffer.consume(buffer.end - 1000)
        page.commit()
    assert os.fstat(page.fileno()).st_blocks * 512 <= KEEP + 2 * READ_SIZE
    assert unread(buffer) == STREAM[READ_SIZE - 1000 : READ_SIZE]
    page.close()


@pytest.mark.parametrize("taken", [BEFORE - 1, BEFORE + 10_000_000])
def test_a_count_that_does_not_fit_is_refused(taken: int) -> None:
    page = bound_page()
    with pytest.raises(PageError, match="does not fit"):
        SurvivingReceiveBuffer(page, taken)
    page.close()
