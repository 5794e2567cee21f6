"""Fixed memory, a moving window, nothing lost."""

from __future__ import annotations

import mmap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.transports.receive_buffer import READ_SIZE, ReceiveBuffer, anonymous_buffer, capacity_for
from tests.transports.support import untimed


def over(size: int, *, pending: int = 0) -> ReceiveBuffer:
    return ReceiveBuffer(memoryview(bytearray(size)), pending=pending)


def receive(buffer: ReceiveBuffer, data: bytes) -> None:
    room = buffer.room()
    room[: len(data)] = data
    buffer.received(len(data))


@untimed
@given(st.data())
def test_the_window_behaves_like_a_byte_string(data: st.DataObject) -> None:
    buffer, model = over(10_000), b""
    for _ in range(data.draw(st.integers(1, 30))):
        step = data.draw(st.sampled_from(["receive", "receive", "consume", "remove"]))
        if step == "receive":
            part = data.draw(st.binary(max_size=min(400, len(buffer.room()))))
            receive(buffer, part)
            model += part
        else:
            first = 0 if step == "consume" else data.draw(st.integers(0, len(model)))
            last = data.draw(st.integers(first, len(model)))
            if step == "consume":
                buffer.consume(buffer.start + last)
            else:
                buffer.remove(buffer.start + first, buffer.start + last)
            model = model[:first] + model[last:]
        assert bytes(buffer.view[buffer.start : buffer.end]) == model
        assert len(buffer) == len(model)


def test_room_is_found_again_by_moving_the_unread_bytes_to_the_front() -> None:
    buffer = over(READ_SIZE)
    receive(buffer, b"a" * (READ_SIZE - 100))
    buffer.consume(buffer.start + READ_SIZE - 200)
    assert len(buffer.room()) == READ_SIZE - 100
    assert bytes(buffer.view[buffer.start : buffer.end]) == b"a" * 100


def test_one_read_brings_no_more_than_read_size() -> None:
    assert len(anonymous_buffer(4 * READ_SIZE).room()) == READ_SIZE


def test_pending_bytes_are_the_first_unread_ones() -> None:
    memory = bytearray(b"left over") + bytearray(100)
    assert ReceiveBuffer(memoryview(memory), pending=9).peek(100) == b"left over"


def test_memory_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(UserError):
        ReceiveBuffer(memoryview(b"read only"))
    with pytest.raises(UserError):
        ReceiveBuffer(memoryview(bytearray(10))[::2])
    with pytest.raises(UserError):
        over(10, pending=11)


def test_bytes_read_ahead_that_do_not_fit_are_refused() -> None:
    buffer = over(10)
    buffer.append(b"12345")
    with pytest.raises(UserError):
        buffer.append(b"678901")
    assert buffer.peek(100) == b"12345"


def test_a_shared_mapping_is_received_into_directly() -> None:
    mapping = mmap.mmap(-1, capacity_for(1000))
    buffer = ReceiveBuffer(memoryview(mapping))
    receive(buffer, b"seen by whoever shares the page")
    assert mapping[:4] == b"seen"


def test_an_emptied_anonymous_buffer_gives_large_pages_back_and_stays_usable() -> None:
    buffer = anonymous_buffer(1024 * 1024)
    for _ in range(12):
        receive(buffer, b"x" * READ_SIZE)
    buffer.consume(buffer.end)
    assert bytes(buffer.view[:4]) == bytes(4)
    receive(buffer, b"again")
    assert buffer.peek(10) == b"again"
