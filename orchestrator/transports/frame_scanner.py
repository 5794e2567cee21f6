"""Finds where whole WebSocket messages begin and end, by reading frame headers and nothing else.

Pure: no socket, no clock, no copy of the data. The protocol object is fed only what this module has found to be whole, so it
never holds a part of anything, and a leg can go on in another process from the bytes alone. Every rule that a header can
break is checked here, so a bad or oversize frame is refused as soon as its header is there; the payload, masking and close
codes stay the protocol's business. Source: RFC 6455 §5.2 to §5.5.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple

__all__ = ["MAX_FRAGMENTS", "MAX_HEADER", "Cut", "FrameScanner", "Violation"]

# 2 bytes, 8 of length, 4 of mask.
MAX_HEADER: Final = 14

# Fragments may be empty, so the limit on a message's bytes alone would let a peer fill the buffer with headers.
MAX_FRAGMENTS: Final = 4096

_MAX_CONTROL_PAYLOAD: Final = 125
_PROTOCOL_ERROR: Final = 1002
_POLICY_VIOLATION: Final = 1008
_TOO_BIG: Final = 1009


class Cut(enum.Enum):
    """What the scanner found at the front of the data."""

    WAIT = "wait"  # nothing whole yet
    MESSAGE = "message"  # a whole text or binary message, from its first fragment to its last
    CONTROL = "control"  # a whole control frame, perhaps between the fragments of an unfinished message
    VIOLATION = "violation"  # a header that ends the connection


class Violation(NamedTuple):
    """Why a header ends the connection: the close code to answer with, and a text for people."""

    code: int
    text: str


class _Kind(enum.IntEnum):
    """What the first byte of a frame says about it."""

    WHOLE = 0  # a text or binary message in one frame; `next` relies on its being 0
    LAST = 1  # of the fragments of a message
    FIRST = 2
    MIDDLE = 3
    CONTROL = 4
    CONTROL_FRAGMENT = 5
    RESERVED_BITS = 6
    BAD_OPCODE = 7


def _kind(first: int) -> int:
    """Classify the first byte of a frame header."""
    opcode, fin = first & 0x0F, first >= 0x80
    if opcode not in (0, 1, 2, 8, 9, 10):
        return _Kind.BAD_OPCODE
    if first & 0x70:
        return _Kind.RESERVED_BITS
    if opcode >= 8:
        return _Kind.CONTROL if fin else _Kind.CONTROL_FRAGMENT
    if opcode == 0:
        return _Kind.LAST if fin else _Kind.MIDDLE
    return _Kind.WHOLE if fin else _Kind.FIRST


_KINDS: Final = tuple(int(_kind(first)) for first in range(256))

# Plain integers: comparing enum members costs a look-up per frame, and this is read for every frame of every call.
_LAST: Final = int(_Kind.LAST)
_MIDDLE: Final = int(_Kind.MIDDLE)
_CONTROL: Final = int(_Kind.CONTROL)
_BAD_OPCODE: Final = int(_Kind.BAD_OPCODE)
_WAIT: Final = Cut.WAIT
_MESSAGE: Final = Cut.MESSAGE

_BAD_KIND: Final = {
    int(_Kind.CONTROL_FRAGMENT): "fragmented control frame",
    int(_Kind.RESERVED_BITS): "reserved bits must be 0",
    int(_Kind.BAD_OPCODE): "invalid opcode",
}


class FrameScanner:
    """Cuts a stream of frames from one peer.

    `masked` says whether the peer must mask, which is whether it is a client. Call `next` with the unread part of the
    stream; take away exactly what it found before calling it again:

    - after MESSAGE, everything up to `stop`; `payload` is where its content begins if it came in a single frame, else 0;
    - after CONTROL, the bytes from `start` to `stop`, which need not be at the front;
    - after WAIT, nothing: call again when there is more;
    - after VIOLATION, `violation` says why, and the scanner is of no further use.
    """

    __slots__ = (
        *("_fragments", "_masked", "_max_message", "_overhead", "_passed", "_size"),
        *("payload", "start", "stop", "violation"),
    )

    def __init__(self, *, masked: bool, max_message: int) -> None:
        self._masked = masked
        self._overhead = 6 if masked else 2
        self._max_message = max_message
        self._passed = 0  # bytes of the fragments already passed over, from the front of the unread part
        self._size = 0  # their payload
        self._fragments = 0  # their number; 0 when no message is unfinished
        self.start = 0
        self.payload = 0
        self.stop = 0
        self.violation: Violation | None = None

    @property
    def at_message(self) -> bool:
        """Whether the unread part of the stream begins where a message, or a control frame, begins."""
        return not self._fragments

    def next(self, data: memoryview, start: int, end: int) -> Cut:
        """Look at `data[start:end]`, the unread part of the stream. Its beginning may move between calls."""
        at = start + self._passed
        while end - at >= 2:
            kind = _KINDS[data[at]]
            second = data[at + 1]
            if kind == _BAD_OPCODE:
                return self._violate(_PROTOCOL_ERROR, _BAD_KIND[kind])
            if (second > 127) is not self._masked:
                return self._violate(_PROTOCOL_ERROR, "incorrect masking")
            length = second & 0x7F
            stop = at + self._overhead + length
            if length == 126:
                if end - at < 4:
                    return _WAIT
                length = data[at + 2] << 8 | data[at + 3]
                stop = at + self._overhead + 2 + length
            elif length == 127:
                if end - at < 10:
                    return _WAIT
                length = int.from_bytes(data[at + 2 : at + 10], "big")
                stop = at + self._overhead + 8 + length
            if kind or self._fragments or length > self._max_message:
                bad = self._judge(kind, length)
                if bad is not None:
                    return bad
            if stop > end:
                return _WAIT
            if kind <= _LAST:  # or WHOLE
                self._passed = self._size = self._fragments = 0
                self.start = start
                self.payload = 0 if kind else stop - length
                self.stop = stop
                return _MESSAGE
            if kind == _CONTROL:
                self.start = at
                self.stop = stop
                return Cut.CONTROL
            self._fragments += 1
            self._size += length
            self._passed += stop - at
            at = stop
        return _WAIT

    def _judge(self, kind: int, length: int) -> Cut | None:
        """Check the rules that the plain case, a whole message of legal size, cannot break.

        Size comes first: it is what the protocol object would name, were it fed the header.
        """
        room = self._max_message if kind == _CONTROL else self._max_message - self._size
        if length > room:
            return self._violate(_TOO_BIG, f"message of more than {self._max_message} bytes")
        if kind > _CONTROL:
            return self._violate(_PROTOCOL_ERROR, _BAD_KIND[kind])
        if kind == _CONTROL:
            return self._violate(_PROTOCOL_ERROR, "control frame too long") if length > _MAX_CONTROL_PAYLOAD else None
        if kind in (_MIDDLE, _LAST):
            if not self._fragments:
                return self._violate(_PROTOCOL_ERROR, "unexpected continuation frame")
            if self._fragments >= MAX_FRAGMENTS:
                return self._violate(_POLICY_VIOLATION, f"message of more than {MAX_FRAGMENTS} fragments")
        elif self._fragments:
            return self._violate(_PROTOCOL_ERROR, "expected a continuation frame")
        return None

    def _violate(self, code: int, text: str) -> Cut:
        self.violation = Violation(code, text)
        return Cut.VIOLATION
