"""The caller's last audio, in the session page: what a model leg that is opened anew has to be told again."""

from __future__ import annotations

import itertools
import mmap
import struct
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from orchestrator.errors import PageError
from orchestrator.transports.page_layout import ring_read, ring_write

if TYPE_CHECKING:
    from orchestrator.transports.session_page import SessionPage

__all__ = ["PageAudio"]

_LENGTH: Final = struct.Struct("=I")

# Behind the oldest payload, memory is given back in pieces of this size: some seconds of a call.
_PIECE: Final = 64 * 1024


class PageAudio:
    """Payloads (base64 text) under numbers that never repeat, the oldest of which give way to new ones.

    Staged and committed with everything else of the page; see `SessionPage`.
    """

    __slots__ = ("_area", "_given_back", "_limit", "_page", "_size", "_sizes")

    def __init__(self, page: SessionPage) -> None:
        self._page = page
        self._area = page.layout.audio_at
        self._size = page.layout.audio_size
        self._limit = page.layout.audio_bytes
        # Below this position of the ring no memory is held; an earlier owner may have left a piece or two.
        self._given_back = page.audio_first_at - 2 * _PIECE
        self._sizes = self._read_sizes()

    @property
    def first(self) -> int:
        """The number of the oldest payload that is held; `end` if none is."""
        return self._page.audio_first

    @property
    def end(self) -> int:
        """The number that the next payload gets."""
        return self._page.audio_end

    def push(self, payload: str) -> None:
        """Add a payload; the oldest are dropped to make room. One that is larger than all the room is dropped as well."""
        page = self._page
        # Whatever text a caller sends in place of base64 must come back as it was.
        body = payload.encode(errors="surrogatepass")
        size = _LENGTH.size + len(body)
        while self._sizes and page.audio_end_at - page.audio_first_at + size > self._limit:
            self._drop_oldest()
        page.audio_end += 1
        if size > self._limit:
            page.audio_first = page.audio_end
        else:
            self._write(_LENGTH.pack(len(body)) + body)
        page.changed()

    def drop_before(self, number: int) -> None:
        """Drop the payloads with lower numbers."""
        page = self._page
        while self._sizes and page.audio_first < number:
            self._drop_oldest()
        page.changed()

    def payloads(self, start: int) -> Iterator[str]:
        """Return the payloads from that number on, or from the oldest if that is gone; do not change the ring meanwhile."""
        page = self._page
        skipped = min(max(0, start - page.audio_first), len(self._sizes))
        position = page.audio_first_at + sum(itertools.islice(self._sizes, skipped))
        for size in itertools.islice(self._sizes, skipped, None):
            body = ring_read(page.memory, self._area, self._size, position + _LENGTH.size, size - _LENGTH.size)
            yield body.decode(errors="surrogatepass")
            position += size

    def _drop_oldest(self) -> None:
        self._page.audio_first_at += self._sizes.popleft()
        self._page.audio_first += 1

    def _write(self, record: bytes) -> None:
        page = self._page
        if page.committed_audio_at - self._given_back > _PIECE:
            self._give_back()
        if page.audio_end_at + len(record) - page.committed_audio_at > self._size:
            self._move_staged()
        ring_write(page.memory, self._area, self._size, page.audio_end_at, record)
        page.audio_end_at += len(record)
        self._sizes.append(len(record))

    def _move_staged(self) -> None:
        """Go back over memory that was filled since the last commit, by payloads that are dropped already.

        Only a message that brings more than the ring holds leads here: all that is held came with it, and begins behind
        everything that the valid slot refers to.
        """
        page = self._page
        held = ring_read(page.memory, self._area, self._size, page.audio_first_at, page.audio_end_at - page.audio_first_at)
        start = page.committed_audio_at + self._limit
        if page.audio_first_at < start:
            raise AssertionError("what is staged cannot be larger than the ring, so its rest lies behind what is committed")
        ring_write(page.memory, self._area, self._size, start, held)
        page.audio_first_at = start
        page.audio_end_at = start + len(held)

    def _give_back(self) -> None:
        """Give back what lies before the oldest committed payload, as far as the ring's other end has not reached it again."""
        page = self._page
        start = max(self._given_back, page.audio_end_at - self._size)
        stop = page.committed_audio_at
        first, last = start % self._size, stop % self._size
        if start < stop and first < last:
            page.give_back(self._area + first, last - first)
        elif start < stop:
            page.give_back(self._area + first, self._size - first)
            page.give_back(self._area, last)
        self._given_back = stop - stop % mmap.PAGESIZE

    def _read_sizes(self) -> deque[int]:
        page = self._page
        sizes: deque[int] = deque()
        position = page.audio_first_at
        while position < page.audio_end_at:
            body = _LENGTH.unpack(ring_read(page.memory, self._area, self._size, position, _LENGTH.size))[0]
            sizes.append(_LENGTH.size + body)
            position += sizes[-1]
        if position != page.audio_end_at or len(sizes) != page.audio_end - page.audio_first:
            raise PageError("the session page is damaged: its audio does not add up")
        return sizes
