"""Reads the audio out of an append as text, without decoding it as JSON, where it is written as known clients write it.

Pure. Base64 has no character that JSON gives a meaning to, so what decodes strictly between a known beginning and a known
end is exactly what a decoder of JSON would have found. Anything else is not taken, and goes the ordinary way.
"""

from __future__ import annotations

import binascii
from functools import partial
from typing import Final

__all__ = ["FORMS", "AppendReader"]

FORMS: Final[tuple[tuple[bytes, bytes], ...]] = (
    # What JSON.stringify writes, and this project.
    (b'{"type":"input_audio_buffer.append","audio":"', b'"}'),
    # Python's json.dumps as it comes: the official client's input_audio_buffer.append.
    (b'{"type": "input_audio_buffer.append", "audio": "', b'"}'),
    # A model of the official client as JSON in one line, with its members in their own order: the agents package.
    (b'{"audio":"', b'","type":"input_audio_buffer.append"}'),
    # The same, indented: the official client's `send` of a model.
    (b'{\n  "audio": "', b'",\n  "type": "input_audio_buffer.append"\n}'),
)
_decode = partial(binascii.a2b_base64, strict_mode=True)


class AppendReader:
    """Reads the appends of one client, which writes all of them in the same form, and silence always in the same words."""

    def __init__(self) -> None:
        self._head, self._tail = FORMS[0]
        self._last = self._last_audio = b""

    def audio(self, message: bytes) -> bytes:
        """The audio in a text message; empty if that is no append, or not plainly one."""
        if message == self._last:
            return self._last_audio
        head, tail = self._head, self._tail
        if not (message.startswith(head) and message.endswith(tail)):
            for head, tail in FORMS:
                if message.startswith(head) and message.endswith(tail):
                    self._head, self._tail = head, tail
                    break
            else:
                return b""
        try:
            audio = _decode(message[len(head) : -len(tail)])
        except binascii.Error:
            return b""
        self._last, self._last_audio = message, audio
        return audio
