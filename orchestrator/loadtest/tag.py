"""A label hidden in the first bytes of an audio payload: who sent it, its number, and when, on the machine's monotonic clock.

The service passes µ-law payloads through without decoding them, so what goes in at one end comes out at the other; both ends
run on one host and share `time.monotonic_ns`, so one label is enough to measure one direction. The label is ASCII: a
codec that maps the two µ-law zeros onto each other would not hurt it.
"""

from __future__ import annotations

import binascii
from typing import NamedTuple

__all__ = ["TAG_BYTES", "Tag", "make_tag", "read_tag", "read_tag_base64"]

# A multiple of three, so that the label has a base64 form of its own and can be read without decoding the whole payload.
TAG_BYTES = 30
_MAGIC = b"otag"
_BASE64_LENGTH = TAG_BYTES // 3 * 4
_SEQUENCE_BITS = 24


class Tag(NamedTuple):
    """`source` is the number of the sender (below 65536), `sequence` counts its payloads, `sent_ns` is monotonic."""

    source: int
    sequence: int
    sent_ns: int


def make_tag(tag: Tag) -> bytes:
    """Write a label of 30 bytes."""
    return b"%b%010x%016x" % (_MAGIC, tag.source << _SEQUENCE_BITS | tag.sequence, tag.sent_ns)


def read_tag(audio: bytes) -> Tag | None:
    """Read the label at the start of a payload, or None when there is none."""
    if not audio.startswith(_MAGIC) or len(audio) < TAG_BYTES:
        return None
    try:
        number, sent_ns = int(audio[4:14], 16), int(audio[14:TAG_BYTES], 16)
    except ValueError:
        return None
    return Tag(number >> _SEQUENCE_BITS, number & (1 << _SEQUENCE_BITS) - 1, sent_ns)


def read_tag_base64(payload: bytes) -> Tag | None:
    """Read the label of a base64 payload, of which only the beginning is decoded."""
    try:
        return read_tag(binascii.a2b_base64(payload[:_BASE64_LENGTH]))
    except binascii.Error:
        return None
