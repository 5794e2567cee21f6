"""The memory of a session that outlives its process: a page that the gateway keeps beside the caller's socket.

What the owner of a session changes here is *staged* until `commit`, which makes all of it valid at once by changing one byte.
A process can be killed between any two instructions: whoever opens the page next finds what the last commit left, never a part
of what was being done. The kernel's own counters of the connection say the rest (`tcp_counters`). D0014.

Rules for editors of this file and its siblings (`page_audio`, `surviving_buffer`, `surviving_writer`, `surviving_leg`):

1. Nothing that the valid slot refers to is ever written over, moved or given back. Only a commit takes its reference away.
2. Bytes reach the transport only after the commit that says so, and memory is received into only as the valid slot says.
3. While `staging` is set nothing is committed: the leg sets it while it handles a message, and commits when that is done.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import struct
import time
from typing import Any, Final, Self

from orchestrator.errors import PageError
from orchestrator.transports.page_audio import PageAudio
from orchestrator.transports.page_layout import BEAT, BEAT_AT, FLIP_AT, SLOT, SLOTS_AT, PageLayout
from orchestrator.transports.tcp_counters import TcpCounters

__all__ = ["SessionPage"]

# Flags of a slot.
_BOUND: Final = 1  # the page has a connection
_OPENED: Final = 2  # whose upgrade is done
_FINISHED: Final = 4  # and nothing more will be sent, but the end of the stream
_BY_PEER: Final = 8  # the close code is the peer's

_FLAGS: Final = struct.Struct("=I")
_FLAGS_OFFSET: Final = 12 * 8
_SNAPSHOT: Final = struct.Struct("=IHBB")  # length, close code, half of the queue, copy of the snapshot
_SNAPSHOT_OFFSET: Final = _FLAGS_OFFSET + _FLAGS.size


class SessionPage:
    """One session's page: its caller leg's state, its caller's last audio, a small snapshot and a heartbeat.

    Made by `create` and, from its descriptor, in another process by `open`. One process at a time owns it and changes it;
    others may read `opened`, `saved`, `beats` and `last_beat`, which always show what is committed. Nothing here is safe to
    use from two threads. The public attributes below the first two groups are those of the sibling modules.
    """

    __slots__ = (
        *("audio", "dirty", "layout", "memory", "receive_area", "staging"),
        *("_beats", "_committed_copy", "_fd", "_live", "committed_audio_at", "committed_half"),
        *("in_base", "in_start", "out_base", "out_tail"),
        *("queue_end", "queue_floor", "queue_half", "queue_head"),
        *("audio_end", "audio_end_at", "audio_first", "audio_first_at"),
        *("close_code", "flags", "inode", "snapshot_copy", "snapshot_length"),
    )

    # What a slot holds, as staged. Inbound: where in the receive area the unread bytes start, and which position of the stream
    # stands at the area's offset 0, so that the kernel's count says where they end.
    in_start: int
    in_base: int
    # Given to the transport: the position of the stream at offset 0 of its ring, and where it ends.
    out_base: int
    out_tail: int
    # Waiting: how far the records of the half go; those numbered below `head`, and audio below `floor`, are gone.
    queue_half: int
    queue_end: int
    queue_head: int
    queue_floor: int
    # The caller's audio: numbers, and positions in its ring.
    audio_first: int
    audio_end: int
    audio_first_at: int
    audio_end_at: int
    snapshot_copy: int
    snapshot_length: int
    inode: int  # of the connection's socket
    flags: int
    close_code: int  # of the close frame that came first; 0 if there was none
    # Of the valid slot, what staging has to keep clear of.
    committed_half: int
    committed_audio_at: int
    _committed_copy: int
    _live: int

    def __init__(self, fd: int, layout: PageLayout) -> None:
        """Map a page; use `create` or `open`."""
        self.layout = layout
        self._fd = fd
        self.memory = mmap.mmap(fd, layout.total)
        self.receive_area = memoryview(self.memory)[layout.receive_at : layout.receive_at + layout.receive_size]
        self.staging = False
        self.dirty = False
        self._beats = BEAT.unpack_from(self.memory, BEAT_AT)[0]
        self._read_slot()
        self.audio = PageAudio(self)

    @classmethod
    def create(cls, *, max_message: int, outbound_bytes: int, audio_bytes: int, snapshot_bytes: int) -> Self:
        """Make a page; memory becomes real only as it is used.

        `max_message` is the most that one message of the caller may have; `outbound_bytes` bounds what waits for a caller
        who does not read, each frame counted 16 bytes longer; `audio_bytes` what `audio` holds, each payload counted 4 bytes
        longer; `snapshot_bytes` what `save` takes. Raises UserError for sizes that make no sense, and PageError where the
        system has no memory or no descriptor for it.
        """
        layout = PageLayout.of(
            max_message=max_message, outbound_bytes=outbound_bytes, audio_bytes=audio_bytes, snapshot_bytes=snapshot_bytes
        )
        fd = -1
        try:
            fd = os.memfd_create("session-page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            os.ftruncate(fd, layout.total)
            # A page that another process could shorten would kill whoever touches what is gone.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            with mmap.mmap(fd, mmap.PAGESIZE) as head:
                layout.write_head(head)
            return cls(fd, layout)
        except (OSError, ValueError) as exc:
            if fd >= 0:
                os.close(fd)
            raise PageError(
                f"no session page could be made ({type(exc).__name__}); is memory or are descriptors short?"
            ) from exc

    @classmethod
    def open(cls, fd: int) -> Self:
        """Open a page by its descriptor, which belongs to the page from now on; it stays the caller's if this raises.

        Raises PageError if it is no page, of another layout, or damaged.
        """
        layout = PageLayout.read_head(fd)
        try:
            return cls(fd, layout)
        except (OSError, ValueError) as exc:
            raise PageError(f"the session page cannot be mapped: {exc}") from exc

    # What the owner of a session uses.

    def fileno(self) -> int:
        """Return the descriptor, to be given to another process."""
        return self._fd

    def close(self) -> None:
        """Let go of the page here; its memory lives as long as any process has its descriptor. Idempotent."""
        if self._fd < 0:
            return
        os.close(self._fd)
        self._fd = -1
        self.receive_area.release()
        # A leg that has not ended yet still receives into it; the mapping goes with the last user.
        with contextlib.suppress(BufferError):
            self.memory.close()

    @property
    def opened(self) -> bool:
        """Whether the caller's upgrade is done: then `resume` goes on with the leg, else `accept` starts it anew."""
        return bool(self._committed_flags() & _OPENED)

    @property
    def bound(self) -> bool:
        """Whether the page has a connection."""
        return bool(self._committed_flags() & _BOUND)

    def save(self, data: bytes) -> None:
        """Keep a small snapshot of the session in place of the last one. Raises PageError if it is too large."""
        if len(data) > self.layout.snapshot_bytes:
            raise PageError(f"a snapshot of {len(data)} bytes: this page was made for {self.layout.snapshot_bytes}")
        copy = 1 - self._committed_copy
        at = self.layout.snapshot_at + copy * self.layout.snapshot_copy
        self.memory[at : at + len(data)] = data
        self.snapshot_copy = copy
        self.snapshot_length = len(data)
        self.changed()

    @property
    def saved(self) -> bytes:
        """The snapshot that was committed last; empty if none was."""
        slot = SLOTS_AT[self.memory[FLIP_AT]]
        length, _, _, copy = _SNAPSHOT.unpack_from(self.memory, slot + _SNAPSHOT_OFFSET)
        at = self.layout.snapshot_at + copy * self.layout.snapshot_copy
        return self.memory[at : at + length]

    def beat(self) -> None:
        """Say that the owner's loop turns. Needs no commit."""
        self._beats += 1
        BEAT.pack_into(self.memory, BEAT_AT, self._beats, time.monotonic())

    @property
    def beats(self) -> int:
        """How often any owner has said so."""
        count: int = BEAT.unpack_from(self.memory, BEAT_AT)[0]
        return count

    @property
    def last_beat(self) -> float:
        """When, on the monotonic clock that all processes of a machine share; 0 if never."""
        when: float = BEAT.unpack_from(self.memory, BEAT_AT)[1]
        return when

    def let_go(self) -> None:
        """Change nothing any more: the page is another owner's from now on. What is staged here after this is lost."""
        self.staging = True

    def forget_leg(self) -> None:
        """Make the page ready for another connection of the same caller, once the last leg has ended.

        Audio and snapshot stay.
        """
        self.in_start = self.in_base = self.out_base = self.out_tail = 0
        self.queue_end = self.queue_head = self.queue_floor = 0
        self.flags = self.close_code = self.inode = 0
        self.changed()

    # What the siblings use.

    def commit(self) -> None:
        """Make all that is staged valid at once."""
        idle = 1 - self._live
        SLOT.pack_into(
            self.memory,
            SLOTS_AT[idle],
            self.in_start,
            self.in_base,
            self.out_base,
            self.out_tail,
            self.queue_end,
            self.queue_head,
            self.queue_floor,
            self.audio_first,
            self.audio_end,
            self.audio_first_at,
            self.audio_end_at,
            self.inode,
            self.flags,
            self.snapshot_length,
            self.close_code,
            self.queue_half,
            self.snapshot_copy,
        )
        self.memory[FLIP_AT] = idle
        self._live = idle
        self.dirty = False
        self.committed_half = self.queue_half
        self.committed_audio_at = self.audio_first_at
        self._committed_copy = self.snapshot_copy

    def changed(self) -> None:
        """Hear that something was staged: commit it, unless a message is being handled."""
        if self.staging:
            self.dirty = True
        else:
            self.commit()

    def bind(self, sock: socket.socket, counters: TcpCounters, head: bytes) -> None:
        """Begin with a connection of which `head` was read already, by whomever.

        Raises PageError if the page has one, or if the head is longer than the receive area.
        """
        if self.flags & _BOUND:
            raise PageError("this page has a connection already; call forget_leg once its leg has ended")
        if len(head) > self.layout.receive_size:
            raise PageError(f"{len(head)} bytes were read ahead, but the page has room for {self.layout.receive_size}")
        self.receive_area[: len(head)] = head
        self.in_start = 0
        # The next byte of the socket goes behind the head, whether or not the head came from this socket.
        self.in_base = counters.taken - len(head)
        self.out_base = self.out_tail = counters.written
        self.inode = os.fstat(sock.fileno()).st_ino
        self.flags = _BOUND
        self.commit()

    def is_of(self, sock: socket.socket) -> bool:
        """Whether the page's connection is this one; a duplicate of its socket in another process is."""
        return self.inode == os.fstat(sock.fileno()).st_ino

    def mark_opened(self) -> None:
        """Stage that the upgrade is done."""
        self.flags |= _OPENED

    @property
    def finished(self) -> bool:
        """Whether nothing more is to be sent but the end of the stream."""
        return bool(self.flags & _FINISHED)

    def mark_finished(self) -> None:
        """Stage that."""
        self.flags |= _FINISHED

    @property
    def closed_by_peer(self) -> bool:
        """Whether `close_code`, if there is one, came from the peer."""
        return bool(self.flags & _BY_PEER)

    def mark_closing(self, code: int, *, by_peer: bool) -> None:
        """Stage the code of the close frame that came first."""
        self.close_code = code
        if by_peer:
            self.flags |= _BY_PEER

    def give_back(self, at: int, size: int) -> None:
        """Let the system have an area's memory again; it reads as zeros afterwards."""
        start = -(-at // mmap.PAGESIZE) * mmap.PAGESIZE
        stop = (at + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if stop > start:
            with contextlib.suppress(OSError):  # it stays, which costs memory and nothing else
                self.memory.madvise(mmap.MADV_REMOVE, start, stop - start)

    def _committed_flags(self) -> int:
        slot = SLOTS_AT[self.memory[FLIP_AT]]
        flags: int = _FLAGS.unpack_from(self.memory, slot + _FLAGS_OFFSET)[0]
        return flags

    def _read_slot(self) -> None:
        live = self.memory[FLIP_AT]
        if live > 1:
            raise PageError("the session page is damaged: it names no valid slot")
        self._live = live
        fields: tuple[Any, ...] = SLOT.unpack_from(self.memory, SLOTS_AT[live])
        self.in_start, self.in_base, self.out_base, self.out_tail = fields[:4]
        self.queue_end, self.queue_head, self.queue_floor = fields[4:7]
        self.audio_first, self.audio_end, self.audio_first_at, self.audio_end_at, self.inode = fields[7:12]
        self.flags, self.snapshot_length, self.close_code, self.queue_half, self.snapshot_copy = fields[12:]
        self.committed_half = self.queue_half
        self.committed_audio_at = self.audio_first_at
        self._committed_copy = self.snapshot_copy
        layout = self.layout
        if not (
            0 <= self.in_start <= layout.receive_size
            and self.out_base <= self.out_tail
            and 0 <= self.queue_end <= layout.queue_half
            and self.queue_half <= 1
            and 0 <= self.audio_end_at - self.audio_first_at <= layout.audio_bytes
            and self.audio_first <= self.audio_end
            and self.snapshot_length <= layout.snapshot_bytes
            and self.snapshot_copy <= 1
        ):
            raise PageError("the session page is damaged: its valid slot has impossible values")
