"""What is cut out of a stream at once is what the protocol would have made of it, message by message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from orchestrator.transports.text_run import MOST_BYTES, cut_texts
from tests.transports.support import frame, text, untimed

MAX = 4000
PLAIN = [b"a" * 126, b"b" * 272, b"c" * 1300]

parts = st.one_of(
    st.integers(126, 600).map(lambda size: text(b"x" * size)),
    st.text(min_size=0, max_size=200).map(lambda words: text(words.encode())),
    st.builds(frame, st.sampled_from([Opcode.TEXT, Opcode.BINARY, Opcode.CONT]), st.binary(max_size=300), fin=st.booleans()),
    st.builds(frame, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=100)),
    st.just(text(b"y" * 200, mask=False)),
    st.just(text(b"z" * (MAX + 1))),
    st.binary(max_size=40),
)


def cut(data: bytes, *, start: int = 0, most: int = 64, max_message: int = MAX) -> tuple[list[bytes], int]:
    return cut_texts(memoryview(bytearray(data)), start, len(data), max_message=max_message, most=most)


def understood(data: bytes) -> list[Frame]:
    """The frames of a stream that ends at a frame's end, as the protocol reads them. Fails where the protocol does."""
    protocol = ServerProtocol(state=OPEN, max_size=None)
    protocol.receive_data(data)
    assert protocol.parser_exc is None
    return [event for event in protocol.events_received() if isinstance(event, Frame)]


@untimed
@given(st.lists(parts, max_size=12).map(b"".join), st.integers(1, 6))
def test_what_is_cut_is_what_the_protocol_reads(data: bytes, most: int) -> None:
    messages, stop = cut(data, most=most)
    frames = understood(data[:stop])
    assert [frame.data for frame in frames] == messages
    assert all(frame.opcode is Opcode.TEXT and frame.fin for frame in frames)
    assert len(messages) <= most
    for message in messages:
        message.decode()


@untimed
@given(st.lists(parts, max_size=12).map(b"".join), st.data())
def test_where_a_stream_is_split_makes_no_difference(data: bytes, draw: st.DataObject) -> None:
    whole, end = cut(data)
    split = draw.draw(st.integers(0, len(data)))
    first, stop = cut_texts(memoryview(bytearray(data)), 0, split, max_message=MAX, most=64)
    assert stop <= split
    rest, last = cut(data, start=stop)
    assert (first + rest, last) == (whole, end)


def test_plain_messages_are_cut_and_the_rest_is_left() -> None:
    data = b"".join(text(payload) for payload in PLAIN)
    assert cut(data) == (PLAIN, len(data))
    assert cut(data + text(PLAIN[0])[:-1]) == (PLAIN, len(data))
    for other in (frame(Opcode.PING), text(b"short"), text(("é" * 100).encode()), text(PLAIN[0], mask=False)):
        assert cut(data + other) == (PLAIN, len(data))
        assert cut(other + data) == ([], 0)


@pytest.mark.parametrize("first", [0x01, 0x02, 0x82, 0x80, 0xC1, 0x89])
def test_any_other_kind_of_frame_is_left(first: int) -> None:
    data = text(PLAIN[0])
    assert cut(bytes([first]) + data[1:]) == ([], 0)


def test_a_message_beyond_the_limit_is_left() -> None:
    data = text(b"x" * 300)
    assert cut(data, max_message=300) == ([b"x" * 300], len(data))
    assert cut(data, max_message=299) == ([], 0)


def test_one_look_takes_only_so_much() -> None:
    payload = b"x" * 30_000
    data = text(payload) * 3
    messages, stop = cut(data, max_message=MOST_BYTES)
    assert messages == [payload] * 2
    assert stop == len(data) // 3 * 2
