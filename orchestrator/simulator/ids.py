"""Identifiers in the form that the Realtime API gives out.

Most are a prefix and 21 base62 characters, of which the first five count seconds: they sort by age roughly, and logs of a day
share a prefix. A seed makes them repeat from run to run.
"""

from __future__ import annotations

import random
import string
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["IdSource"]

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
EPOCH = 1_576_800_000
"""Unix seconds at which the counter of the time prefix is zero."""
TIME_LENGTH = 5
RANDOM_LENGTH = 16
# Drawing bytes and reading them as letters costs a tenth of drawing letters. Eight letters come a little more often for it.
_LETTERS = bytes(ord(ALPHABET[code % 62]) for code in range(256))


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))


class IdSource:
    """Makes the ids of one model session or phone call. `wall_clock` gives unix seconds. Not thread-safe."""

    def __init__(self, wall_clock: Callable[[], float], seed: int | None = None) -> None:
        self._wall_clock = wall_clock
        self._random = random.Random(seed)
        self._second = -1
        self._prefix = ""

    def event(self) -> str:
        """An id for a server event."""
        return "event_" + self._timed()

    def session(self) -> str:
        """An id for a model session."""
        return "sess_" + self._timed()

    def conversation(self) -> str:
        """An id for a conversation."""
        return "conv_" + self._timed()

    def response(self) -> str:
        """An id for a response."""
        return "resp_" + self._timed()

    def item(self) -> str:
        """An id for a conversation item."""
        return "item_" + self._timed()

    def call(self) -> str:
        """An id for a function call: this kind has no time in it."""
        return "call_" + self._random_text()

    def phone_call(self) -> str:
        """An id for a phone call."""
        return f"rtc_u1_{self._random.randbytes(16).hex()}"

    def webhook(self) -> str:
        """An id for a webhook, the same in all its deliveries."""
        return f"evt_{self._random.randbytes(16).hex()}"

    def obfuscation(self) -> str:
        """Padding for a text delta, which hides its true length from someone who counts bytes on the wire."""
        return self._random_text()[: 11 + self._random.getrandbits(2)]

    def _random_text(self) -> str:
        return self._random.randbytes(RANDOM_LENGTH).translate(_LETTERS).decode("ascii")

    def _timed(self) -> str:
        second = int(self._wall_clock())
        if second != self._second:
            self._second = second
            self._prefix = _base62(second - EPOCH, TIME_LENGTH)
        return self._prefix + self._random_text()
