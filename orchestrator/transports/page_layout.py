"""Where everything lies in a session page.

Page 0 is the head: what the page is, the byte that commits, the heartbeat, and the two slots of which that byte names the
valid one. The areas follow, each on a boundary of memory pages, so that each can be given back by itself. Nobody needs to
know the offsets but the modules that share this one.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final, Self

import msgspec

from orchestrator.errors import PageError, UserError
from orchestrator.transports.receive_buffer import READ_SIZE, capacity_for

__all__ = ["BEAT", "BEAT_AT", "FLIP_AT", "SLOT", "SLOTS_AT", "TRANSPORT_SHARE", "PageLayout", "ring_read", "ring_write"]

_MAGIC: Final = b"ORCHPAGE"
# Raise it with every change of what the bytes of a page mean: a page of other code is refused, not guessed at.
_VERSION: Final = 1
_HEAD: Final = struct.Struct("=8sIIQQQQ")  # magic, version, size of a memory page, the four sizes

FLIP_AT: Final = 64
BEAT_AT: Final = 128
BEAT: Final = struct.Struct("=Qd")  # count, monotonic time
# Of the fields, see `SessionPage`. Each slot has cache lines of its own.
SLOTS_AT: Final = (256, 512)
SLOT: Final = struct.Struct("=12qIIHBB")

# The most that the transport may hold when it says that it has room for more. The outgoing bytes that a new owner may have to
# send again are at most these, and what was sent since.
TRANSPORT_SHARE: Final = 64 * 1024

_LARGEST: Final = 1 << 31


class PageLayout(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes that a page is made for, in bytes, and the offsets and sizes of its areas."""

    max_message: int
    outbound_bytes: int
    audio_bytes: int
    snapshot_bytes: int
    receive_at: int
    receive_size: int
    sent_at: int  # what was given to the transport, a ring of stream positions
    sent_size: int
    queue_at: int  # what waits while the transport has no room: two halves of this size each
    queue_half: int
    audio_at: int
    audio_size: int
    snapshot_at: int  # two copies of this size each
    snapshot_copy: int
    total: int

    @classmethod
    def of(cls, *, max_message: int, outbound_bytes: int, audio_bytes: int, snapshot_bytes: int) -> Self:
        """Lay out a page. Raises UserError for sizes that make no sense."""
        for name, size in (("max_message", max_message), ("outbound_bytes", outbound_bytes), ("audio_bytes", audio_bytes)):
            if not 0 < size < _LARGEST:
                raise UserError(f"{name} must be more than 0 bytes and less than 2 GiB")
        if not 0 <= snapshot_bytes < _LARGEST:
            raise UserError("snapshot_bytes must be at least 0 and less than 2 GiB")
        # What is unread is a message and a read at most. Three times that leaves room beside it for a copy, on one side of
        # it at least, wherever it lies: a copy never overlaps its source.
        receive_size = _whole_pages(3 * (capacity_for(max_message) + READ_SIZE))
        sent_size = _whole_pages(outbound_bytes + TRANSPORT_SHARE)
        # Twice what may wait, so that records are copied together once per `outbound_bytes` at most.
        queue_half = _whole_pages(2 * outbound_bytes)
        # What is committed and what is staged in its place exist side by side.
        audio_size = _whole_pages(2 * audio_bytes)
        snapshot_copy = _whole_pages(snapshot_bytes)
        receive_at = mmap.PAGESIZE
        sent_at = receive_at + receive_size
        queue_at = sent_at + sent_size
        audio_at = queue_at + 2 * queue_half
        snapshot_at = audio_at + audio_size
        return cls(
            max_message=max_message,
            outbound_bytes=outbound_bytes,
            audio_bytes=audio_bytes,
            snapshot_bytes=snapshot_bytes,
            receive_at=receive_at,
            receive_size=receive_size,
            sent_at=sent_at,
            sent_size=sent_size,
            queue_at=queue_at,
            queue_half=queue_half,
            audio_at=audio_at,
            audio_size=audio_size,
            snapshot_at=snapshot_at,
            snapshot_copy=snapshot_copy,
            total=snapshot_at + 2 * snapshot_copy,
        )

    def write_head(self, memory: mmap.mmap) -> None:
        """Say what the page is; once, before anybody else has it."""
        sizes = (self.max_message, self.outbound_bytes, self.audio_bytes, self.snapshot_bytes)
        _HEAD.pack_into(memory, 0, _MAGIC, _VERSION, mmap.PAGESIZE, *sizes)

    @classmethod
    def read_head(cls, fd: int) -> Self:
        """Read what the page is. Raises PageError if it is none, or one that this code cannot use."""
        try:
            head = os.pread(fd, _HEAD.size, 0)
            size = os.fstat(fd).st_size
        except OSError as exc:
            raise PageError(f"the session page cannot be read: {os.strerror(exc.errno or 0)}") from exc
        if len(head) < _HEAD.size or not head.startswith(_MAGIC):
            raise PageError("this descriptor is no session page")
        _, version, memory_page, *sizes = _HEAD.unpack(head)
        if version != _VERSION:
            raise PageError(f"the session page has layout {version}; this code knows {_VERSION}: end the session")
        names = ("max_message", "outbound_bytes", "audio_bytes", "snapshot_bytes")
        try:
            layout = cls.of(**dict(zip(names, sizes, strict=True)))
        except UserError as exc:
            raise PageError(f"the session page is damaged: {exc.message}") from None
        if memory_page != mmap.PAGESIZE or size != layout.total:
            raise PageError(f"the session page is damaged: it has {size} bytes instead of {layout.total}")
        return layout


def ring_write(memory: mmap.mmap, at: int, size: int, position: int, data: bytes) -> None:
    """Write at a position of an endless stream, of which the area of `size` bytes at `at` is the window."""
    start = position % size
    room = size - start
    if len(data) <= room:
        memory[at + start : at + start + len(data)] = data
    else:
        memory[at + start : at + size] = data[:room]
        memory[at : at + len(data) - room] = data[room:]


def ring_read(memory: mmap.mmap, at: int, size: int, position: int, count: int) -> bytes:
    """Read what `ring_write` wrote."""
    start = position % size
    room = size - start
    if count <= room:
        return memory[at + start : at + start + count]
    return memory[at + start : at + size] + memory[at : at + count - room]


def _whole_pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
