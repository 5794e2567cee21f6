"""The scanner finds the same messages however the stream is cut, and judges headers as the protocol object would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, State
from websockets.server import ServerProtocol
from websockets.utils import apply_mask

from orchestrator.transports.frame_scanner import MAX_FRAGMENTS, Cut, FrameScanner
from orchestrator.transports.receive_buffer import ReceiveBuffer, capacity_for
from tests.transports.support import frame, text, untimed

MAX = 1000

Control = tuple[Opcode, bytes]
# A control frame, or a message: its opcode and its fragments, each with the control frames that follow it.
Item = tuple[Opcode, bytes | list[tuple[bytes, list[Control]]]]

control_frames = st.tuples(st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))
messages = st.tuples(
    st.sampled_from([Opcode.TEXT, Opcode.BINARY]),
    st.lists(st.tuples(st.binary(max_size=120), st.lists(control_frames, max_size=2)), min_size=1, max_size=5),
)
streams = st.lists(st.one_of(control_frames, messages), max_size=12)
segmentations = st.lists(st.integers(1, 40), min_size=1, max_size=50)


class Reader:
    """Runs a scanner over a receive buffer as a leg does, and keeps what it cuts."""

    def __init__(self, *, masked: bool = True, max_message: int = MAX) -> None:
        self.buffer = ReceiveBuffer(memoryview(bytearray(capacity_for(max_message))))
        self.scanner = FrameScanner(masked=masked, max_message=max_message)
        self.messages: list[bytes] = []
        self.controls: list[bytes] = []
        self.violated = False
        self.longest = 0

    def feed(self, data: bytes) -> None:
        while data and not self.violated:
            room = self.buffer.room()
            count = min(len(room), len(data))
            assert count > 0, "the buffer is full, and no header was refused"
            room[:count] = data[:count]
            data = data[count:]
            self.buffer.received(count)
            self._scan()
            self.longest = max(self.longest, len(self.buffer))

    def _scan(self) -> None:
        buffer, scanner = self.buffer, self.scanner
        while True:
            cut = scanner.next(buffer.view, buffer.start, buffer.end)
            if cut is Cut.MESSAGE:
                assert scanner.start == buffer.start
                self.messages.append(bytes(buffer.view[scanner.start : scanner.stop]))
                buffer.consume(scanner.stop)
            elif cut is Cut.CONTROL:
                self.controls.append(bytes(buffer.view[scanner.start : scanner.stop]))
                buffer.remove(scanner.start, scanner.stop)
            else:
                self.violated = cut is Cut.VIOLATION
                return


def encode(stream: list[Item], *, mask: bool) -> tuple[bytes, list[bytes], list[bytes]]:
    """Return the stream, its messages as they must be fed, and its control frames."""
    wire, whole, controls = b"", [], []
    for opcode, content in stream:
        if isinstance(content, bytes):
            wire += (part := frame(opcode, content, mask=mask))
            controls.append(part)
            continue
        message = b""
        for index, (payload, between) in enumerate(content):
            fin = index == len(content) - 1
            message += (part := frame(Opcode.CONT if index else opcode, payload, fin=fin, mask=mask))
            wire += part
            for control, answer in [] if fin else between:
                wire += (part := frame(control, answer, mask=mask))
                controls.append(part)
        whole.append(message)
    return wire, whole, controls


def segments(data: bytes, sizes: list[int]) -> list[bytes]:
    parts, at, turn = [], 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        parts.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return parts


@untimed
@given(streams, segmentations, st.booleans())
def test_any_segmentation_gives_the_same_messages(stream: list[Item], sizes: list[int], masked: bool) -> None:
    wire, whole, controls = encode(stream, mask=masked)
    reader = Reader(masked=masked)
    for part in segments(wire, sizes):
        reader.feed(part)
    assert not reader.violated
    assert reader.messages == whole
    assert reader.controls == controls
    assert len(reader.buffer) == 0


@untimed
@given(st.binary(max_size=3000), segmentations)
def test_random_bytes_never_raise_and_never_outgrow_the_buffer(data: bytes, sizes: list[int]) -> None:
    reader = Reader()
    for part in segments(data, sizes):
        reader.feed(part)
    assert reader.longest <= MAX + 14 + 64


frame_headers = st.builds(
    lambda first, masked, length: (first, masked, length),
    st.integers(0, 255),
    st.booleans(),
    st.sampled_from([0, 1, 100, 125, 126, 500, MAX, MAX + 1, 65535, 65536, 2**40, 2**63 + 5]),
)


def header(first: int, masked: bool, length: int) -> bytes:
    bit = 0x80 if masked else 0
    if length < 126:
        return bytes([first, bit | length])
    if length < 65536:
        return bytes([first, bit | 126]) + length.to_bytes(2, "big")
    return bytes([first, bit | 127]) + length.to_bytes(8, "big")


def verdict_of_protocol(protocol: Protocol, data: bytes) -> int | None:
    """Return the close code that the protocol fails with, or None."""
    protocol.receive_data(data)
    if protocol.state is State.OPEN or protocol.close_rcvd is not None or protocol.close_sent is None:
        return None
    return int(protocol.close_sent.code)


@untimed
@given(st.lists(frame_headers, min_size=1, max_size=4))
def test_headers_are_judged_as_the_protocol_judges_whole_frames(headers: list[tuple[int, bool, int]]) -> None:
    protocol = ServerProtocol(state=OPEN, max_size=MAX)
    reader = Reader()
    for first, masked, length in headers:
        if first & 0x0F == Opcode.CLOSE:
            continue  # judged by its payload, which is the protocol's business alone
        start = header(first, masked, length)
        body = bytes(4 + length) if length <= MAX else b""
        code = verdict_of_protocol(protocol, start + body)
        # A control frame amid a message counts against the message's size in the protocol object; the leg feeds it alone.
        if code == 1009 and first & 0x08 and length <= 125:
            return
        reader.feed(start)
        assert reader.violated is (code is not None), (start, code)
        if code is not None:
            assert reader.scanner.violation is not None
            assert reader.scanner.violation.code == code
            return
        reader.feed(body)


def test_a_64_bit_length_is_refused_from_the_header_alone() -> None:
    reader = Reader()
    reader.feed(header(0x82, masked=True, length=2**62))
    assert reader.scanner.violation is not None
    assert reader.scanner.violation.code == 1009


def test_a_message_of_exactly_the_limit_passes_and_one_more_byte_does_not() -> None:
    reader = Reader()
    reader.feed(text(bytes(MAX)))
    assert len(reader.messages) == 1
    reader.feed(text(bytes(MAX + 1))[:4])
    assert reader.violated


def test_fragments_count_together_against_the_limit() -> None:
    reader = Reader()
    reader.feed(frame(Opcode.TEXT, bytes(600), fin=False))
    reader.feed(frame(Opcode.CONT, bytes(401), fin=False)[:4])
    assert reader.scanner.violation is not None
    assert reader.scanner.violation.code == 1009


@pytest.mark.parametrize("payload", [b"", b"x"])
def test_endless_tiny_fragments_are_refused(payload: bytes) -> None:
    reader = Reader(max_message=2 * MAX_FRAGMENTS)
    reader.feed(frame(Opcode.TEXT, payload, fin=False))
    piece = frame(Opcode.CONT, payload, fin=False)
    for _ in range(MAX_FRAGMENTS):
        assert not reader.violated
        reader.feed(piece)
    assert reader.scanner.violation is not None
    assert reader.scanner.violation.code == 1008


def test_a_message_in_the_most_fragments_allowed_fits_the_buffer_with_the_longest_headers() -> None:
    """A peer need not use the shortest form of a length, so every header may have 14 bytes."""
    size = 4 * MAX_FRAGMENTS
    reader = Reader(max_message=size)
    for index in range(MAX_FRAGMENTS):
        first = (0x01 if index == 0 else 0x00) | (0x80 if index == MAX_FRAGMENTS - 1 else 0)
        reader.feed(bytes([first, 0xFF]) + (4).to_bytes(8, "big") + bytes(8))
        if index == MAX_FRAGMENTS // 2:
            reader.feed(frame(Opcode.PING, bytes(125)))
    assert not reader.violated
    assert len(reader.messages) == 1
    assert len(reader.controls) == 1


def test_what_the_scanner_cuts_is_what_the_protocol_understands() -> None:
    reader = Reader()
    reader.feed(frame(Opcode.TEXT, b"one ", fin=False) + frame(Opcode.PING, b"?") + frame(Opcode.CONT, b"two"))
    protocol = ServerProtocol(state=OPEN)
    protocol.receive_data(reader.controls[0])
    protocol.receive_data(reader.messages[0])
    events = protocol.events_received()
    assert [event.data for event in events if isinstance(event, Frame)] == [b"?", b"one ", b"two"]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 999, MAX])
@pytest.mark.parametrize("mask", [True, False])
def test_the_content_of_a_message_in_one_frame_is_found(length: int, mask: bool) -> None:
    content = bytes(range(256)) * 4
    data = text(content[:length], mask=mask)
    scanner = FrameScanner(masked=mask, max_message=MAX)
    assert scanner.next(memoryview(b"---" + data), 3, 3 + len(data)) is Cut.MESSAGE
    assert scanner.stop - scanner.payload == length
    found = (b"---" + data)[scanner.payload : scanner.stop]
    key = (b"---" + data)[scanner.payload - 4 : scanner.payload]
    assert (apply_mask(found, key) if mask else found) == content[:length]


def test_the_content_of_fragments_is_for_the_protocol() -> None:
    data = frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.CONT, b"b")
    scanner = FrameScanner(masked=True, max_message=MAX)
    assert scanner.next(memoryview(data), 0, len(data)) is Cut.MESSAGE
    assert scanner.payload == 0
