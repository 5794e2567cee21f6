"""The one place that a leg's bytes are received into, over memory that the leg is given.

It never grows: whatever the peer announces, the scanner refuses it by its header before it can outgrow the memory. The
memory may be a page shared with another process, so nothing but the bytes lives in it.
"""

from __future__ import annotations

import mmap
from typing import Final

from orchestrator.errors import UserError
from orchestrator.transports.frame_scanner import MAX_FRAGMENTS, MAX_HEADER

__all__ = ["KEEP", "MIN_ROOM", "READ_SIZE", "ReceiveBuffer", "anonymous_buffer", "capacity_for"]

# The most that one read may bring, so that one busy peer holds the loop no longer than that takes.
READ_SIZE: Final = 64 * 1024

# Below this much room at the end, unread bytes are moved to the front. Also what is always left for a control frame that
# arrives between the fragments of a message of the greatest size.
MIN_ROOM: Final = 4096

# A buffer that has held more than this gives its pages back once it is empty.
KEEP: Final = 256 * 1024


def capacity_for(max_message: int) -> int:
    """Return the bytes of memory that a leg needs for messages of up to `max_message` bytes in any legal fragmentation."""
    return max_message + MAX_FRAGMENTS * MAX_HEADER + 2 * MIN_ROOM


class ReceiveBuffer:
    """A window of unread bytes, `view[start:end]`, over fixed writable memory.

    `pending` is the number of bytes at the front that are there already: received by an earlier owner of the connection,
    not yet handled. The memory must outlive the buffer. Read `view`, `start` and `end`; change them only by the methods.
    """

    __slots__ = ("_high", "_mapping", "capacity", "end", "received_total", "start", "view")

    def __init__(self, memory: memoryview, *, pending: int = 0) -> None:
        if memory.readonly or not memory.c_contiguous:
            raise UserError("a receive buffer needs writable, contiguous memory")
        self.view = memory.cast("B")
        self.capacity = len(self.view)
        if not 0 <= pending <= self.capacity:
            raise UserError("a receive buffer cannot hold more pending bytes than it has room for")
        self.start = 0
        self.end = pending
        self.received_total = 0  # bytes received through this object
        self._high = pending  # the furthest byte touched since pages were last given back
        self._mapping: mmap.mmap | None = None

    def __len__(self) -> int:
        return self.end - self.start

    def room(self) -> memoryview:
        """Return memory to receive into, never empty as long as the scanner is obeyed; then call `received`."""
        if self.capacity - self.end < MIN_ROOM and self.start:
            # Each byte moves at most once per message: afterwards the unfinished message starts at the front.
            unread = self.end - self.start
            self.view[:unread] = self.view[self.start : self.end]
            self.start, self.end = 0, unread
        return self.view[self.end : self.end + READ_SIZE]

    def received(self, count: int) -> None:
        """Say that `count` bytes were received into the memory that `room` returned."""
        self.end += count
        self.received_total += count
        if self.end > self._high:
            self._high = self.end

    def append(self, data: bytes) -> None:
        """Add bytes that were received elsewhere. Raises UserError if they do not fit."""
        if len(data) > self.capacity - self.end:
            raise UserError(f"{len(data)} bytes were read ahead, but the leg's buffer has room for {self.capacity - self.end}")
        self.view[self.end : self.end + len(data)] = data
        self.received(len(data))

    def peek(self, limit: int) -> bytes:
        """Return a copy of up to `limit` unread bytes."""
        return bytes(self.view[self.start : min(self.end, self.start + limit)])

    def consume(self, stop: int) -> None:
        """Drop what is before `stop`, an index into `view`."""
        self.start = stop
        if stop == self.end:
            self.clear()

    def remove(self, start: int, stop: int) -> None:
        """Drop `view[start:stop]` from among the unread bytes."""
        if start == self.start:
            self.consume(stop)
            return
        # The part behind the hole is what one read brought; the part before it may be a large unfinished message.
        behind = self.end - stop
        self.view[start : start + behind] = self.view[stop : self.end]
        self.end = start + behind

    def clear(self) -> None:
        """Drop all unread bytes."""
        self.start = self.end = 0
        if self._high > KEEP and self._mapping is not None:
            # One large message must not keep its pages resident for the rest of a long call.
            self._mapping.madvise(mmap.MADV_DONTNEED)
            self._high = 0

    @classmethod
    def over(cls, mapping: mmap.mmap) -> ReceiveBuffer:
        """Make a buffer over a private anonymous mapping, whose pages may be given back when it is empty."""
        buffer = cls(memoryview(mapping))
        buffer._mapping = mapping
        return buffer


def anonymous_buffer(max_message: int) -> ReceiveBuffer:
    """Make a buffer for messages of up to `max_message` bytes over fresh memory, of which only touched pages are real."""
    return ReceiveBuffer.over(mmap.mmap(-1, capacity_for(max_message), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
