"""Cuts a run of plain text messages out of what was received, all at once: what a client that streams audio sends.

Only what cannot be disputed is cut: whole messages, each in one frame of the middle length, in ASCII. Whatever else follows,
be it right or wrong, is for the scanner to judge.
"""

from __future__ import annotations

from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel with C for this platform
    from websockets.utils import apply_mask

__all__ = ["MOST_BYTES", "cut_texts"]

# Of one look: what is looked at is copied, and an unfinished message may be long.
MOST_BYTES: Final = 64 * 1024
# RFC 6455 §5.2: the last or only frame of a text message, masked, with a length of two bytes.
_TEXT: Final = b"\x81\xfe"
_HEADER: Final = 8


def cut_texts(view: memoryview, start: int, end: int, *, max_message: int, most: int) -> tuple[list[bytes], int]:
    """Return the payloads of the text messages at the front of `view[start:end]`, at most `most`, and where they stop.

    The bytes must be those of a client, and begin where a message begins. A message beyond `max_message` bytes is left.
    """
    messages: list[bytes] = []
    data = view[start : min(end, start + MOST_BYTES)].tobytes()
    at, size = 0, len(data)
    while size - at >= _HEADER and data.startswith(_TEXT, at) and len(messages) < most:
        begin = at + _HEADER
        length = data[at + 2] << 8 | data[at + 3]
        stop = begin + length
        if stop > size or length > max_message:
            break
        payload = apply_mask(data[begin:stop], data[at + 4 : begin])
        if not payload.isascii():
            break
        messages.append(payload)
        at = stop
    return messages, start + at
