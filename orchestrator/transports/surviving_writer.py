"""The outgoing side of a leg in a session page: nothing is written that a new owner could not finish.

A frame that can go at once is kept in the ring of what was given to the transport; the kernel's count of the bytes that it
accepted says which of them the next owner must send again, to the byte. A frame that has to wait is a record of the queue's
log, and moves to the ring, in a commit of its own, when its time has come.
"""

from __future__ import annotations

import asyncio
import heapq
import socket
import struct
from collections.abc import Iterator
from operator import itemgetter
from typing import Final

from orchestrator.errors import PageError
from orchestrator.transports.outbound import FrameWriter, Kind, OutboundQueue
from orchestrator.transports.page_layout import TRANSPORT_SHARE, ring_read, ring_write
from orchestrator.transports.receive_buffer import KEEP
from orchestrator.transports.session_page import SessionPage

__all__ = ["SurvivingQueue", "SurvivingWriter"]

_RECORD: Final = struct.Struct("=QIB3x")  # number, length, kind
_KINDS: Final = tuple(Kind)
_NUMBER_OF: Final = {kind: number for number, kind in enumerate(_KINDS)}


class SurvivingQueue(OutboundQueue):
    """An `OutboundQueue` that is logged in a page, from which it is read when it is made.

    Records have the queue's numbers. What is dropped or taken is the lowest of all or the lowest audio, so two numbers say
    which records still count, and a commit covers any change. Staged; whoever changes the queue commits.
    """

    __slots__ = ("_high", "_page")

    def __init__(self, limit: int, page: SessionPage) -> None:
        super().__init__(limit, _RECORD.size)
        self._page = page
        # The furthest byte of the log that was touched since memory was last given back; an earlier owner may have used all.
        self._high = page.layout.queue_half
        self._restore()

    @property
    def frame_bytes(self) -> int:
        """The bytes of the frames alone."""
        return self.size - len(self) * _RECORD.size

    def push(self, frame: bytes, kind: Kind) -> bool:
        """See `OutboundQueue.push`."""
        number = self._number
        accepted = super().push(frame, kind)
        if self._number != number:
            self._log(frame, kind)
        self._note()
        return accepted

    def pop(self) -> tuple[bytes, Kind]:
        """See `OutboundQueue.pop`."""
        entry = super().pop()
        self._note()
        return entry

    def clear_audio(self) -> int:
        """See `OutboundQueue.clear_audio`."""
        count = super().clear_audio()
        if count:
            self._note()
        return count

    def give_back(self) -> None:
        """Let go of the memory of a queue that is empty, and committed so."""
        if self._high > KEEP:
            layout = self._page.layout
            self._page.give_back(layout.queue_at, 2 * layout.queue_half)
            self._high = 0

    def _note(self) -> None:
        """Stage which records count."""
        page, following = self._page, self._number + 1
        page.queue_floor = self._audio[0][0] if self._audio else following
        page.queue_head = min(page.queue_floor, self._kept[0][0] if self._kept else following)
        if not self._audio and not self._kept and page.queue_end:
            # The half that the valid slot refers to stays as it is.
            page.queue_half = 1 - page.committed_half
            page.queue_end = 0

    def _log(self, frame: bytes, kind: Kind) -> None:
        page = self._page
        if page.queue_end + _RECORD.size + len(frame) <= page.layout.queue_half:
            self._write(self._number, frame, kind)
            return
        page.queue_half = 1 - page.committed_half
        page.queue_end = 0
        audio = ((number, frame, Kind.AUDIO) for number, frame in self._audio)
        for entry in heapq.merge(self._kept, audio, key=itemgetter(0)):
            self._write(*entry)

    def _write(self, number: int, frame: bytes, kind: Kind) -> None:
        page = self._page
        at = page.layout.queue_at + page.queue_half * page.layout.queue_half + page.queue_end
        _RECORD.pack_into(page.memory, at, number, len(frame), _NUMBER_OF[kind])
        page.memory[at + _RECORD.size : at + _RECORD.size + len(frame)] = frame
        page.queue_end += _RECORD.size + len(frame)
        self._high = max(self._high, page.queue_end)

    def _restore(self) -> None:
        page = self._page
        for number, frame, kind in self._records():
            if kind is Kind.AUDIO and number >= page.queue_floor:
                self._audio.append((number, frame))
            elif kind is not Kind.AUDIO and number >= page.queue_head:
                self._kept.append((number, frame, kind))
            else:
                continue
            self.size += _RECORD.size + len(frame)
        # Numbers go on where they were; below head and floor a record would not count.
        numbers = [page.queue_head - 1, page.queue_floor - 1]
        numbers += [entries[-1][0] for entries in (self._audio, self._kept) if entries]
        self._number = max(0, *numbers)

    def _records(self) -> Iterator[tuple[int, bytes, Kind]]:
        page = self._page
        at = page.layout.queue_at + page.queue_half * page.layout.queue_half
        stop = at + page.queue_end
        while at < stop:
            if at + _RECORD.size > stop:
                raise PageError("the session page is damaged: its queue does not add up")
            number, size, kind = _RECORD.unpack_from(page.memory, at)
            at += _RECORD.size
            if at + size > stop or kind >= len(_KINDS):
                raise PageError("the session page is damaged: its queue does not add up")
            yield number, page.memory[at : at + size], _KINDS[kind]
            at += size


class SurvivingWriter(FrameWriter):
    """A `FrameWriter` whose frames are in a page before they are anywhere else.

    `written` is the kernel's count of bytes accepted from all owners so far. Raises PageError if that does not fit the page.
    While a message is being handled frames are staged; `settle` sends them after the commit.
    """

    __slots__ = ("_base", "_capacity", "_high", "_log", "_loop", "_page", "_rest", "_retry", "_staged")

    def __init__(
        self, page: SessionPage, written: int, queue_limit: int, sock: socket.socket, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(queue_limit, sock)
        layout = page.layout
        count = page.out_tail - written
        if not 0 <= count <= layout.sent_size:
            raise PageError("what was sent on this connection does not fit the session page; is it another's?")
        self._page = page
        self._loop = loop
        self._queue = self._log = SurvivingQueue(min(queue_limit, layout.outbound_bytes), page)
        self._finished = page.finished
        # What the last owner committed and the kernel has not got: perhaps the rest of a frame.
        self._rest = ring_read(page.memory, layout.sent_at, layout.sent_size, written - page.out_base, count)
        self._staged: list[tuple[bytes, Kind]] = []
        self._base = 0  # below this position all is with the kernel; as of the first of the staged frames
        self._high = layout.sent_size  # as in the queue
        # A transport that has room holds at most TRANSPORT_SHARE, so any frame that may wait finds a place then.
        self._capacity = layout.outbound_bytes + TRANSPORT_SHARE
        self._retry: asyncio.Handle | None = None

    @property
    def queued_bytes(self) -> int:
        """See `FrameWriter.queued_bytes`."""
        held = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._log.frame_bytes + sum(len(frame) for frame, _ in self._staged) + held

    @property
    def settled(self) -> bool:
        """All that is not with the kernel is in the page."""
        return True

    def attach(self, transport: asyncio.Transport, write_high: int) -> None:
        """See `FrameWriter.attach`. Goes on where the last owner stopped, perhaps inside a frame."""
        super().attach(transport, min(write_high, TRANSPORT_SHARE))
        if self._rest:
            transport.write(self._rest)
            self.bytes_out += len(self._rest)
            self._rest = b""
        self._go_on()

    def write(self, frame: bytes, kind: Kind) -> bool:
        """See `FrameWriter.write`."""
        if self._finished:
            return True
        page = self._page
        if self._paused or self._queue.size or not self._keep(frame):
            accepted = self._queue.push(frame, kind)
            page.changed()
            if not (self._paused or page.staging):
                self._go_on_soon()
            return accepted
        if page.staging:
            page.dirty = True
            self._staged.append((frame, kind))
        else:
            page.commit()
            self._write_now(frame, kind)
        return True

    def settle(self) -> None:
        """Send what the message that was just committed has staged."""
        staged = self._staged
        if staged:
            self._staged = []
            for frame, kind in staged:
                self._write_now(frame, kind)
        if self._queue.size or self._finished:
            self._go_on()

    def finish(self) -> None:
        """See `FrameWriter.finish`."""
        self._finished = True
        self._page.mark_finished()
        self._page.changed()
        self._go_on()

    def clear_audio(self) -> int:
        """See `FrameWriter.clear_audio`."""
        count = self._queue.clear_audio()
        if count:
            self._page.changed()
        return count

    def abort(self) -> None:
        """See `FrameWriter.abort`."""
        self._staged = []
        super().abort()

    def release(self) -> None:
        """See `FrameWriter.release`. What the transport holds is not flushed: the next owner sends it."""
        transport = self._transport
        self._staged = []
        self._transport = self._socket = None
        self._finished = True
        self._queue.clear()
        if transport is not None:
            transport.abort()

    def lost(self) -> None:
        """See `FrameWriter.lost`."""
        self._staged = []
        if self._retry is not None:
            self._retry.cancel()
        super().lost()

    def _keep(self, frame: bytes) -> bool:
        """Put a frame behind what was given to the transport; False if there is no room for it."""
        page, transport = self._page, self._transport
        tail = page.out_tail
        layout = page.layout
        if not self._staged and transport is not None:
            self._base = tail - transport.get_write_buffer_size()
            if self._base == tail:
                # The usual case: nothing here can be asked for again, so the memory that is in use already is used again.
                page.out_base = tail
                if self._high > KEEP:
                    page.give_back(layout.sent_at, layout.sent_size)
                    self._high = 0
        size = len(frame)
        if tail + size - self._base > self._capacity:
            return False
        position = tail - page.out_base
        ring_write(page.memory, layout.sent_at, layout.sent_size, position, frame)
        if position + size > self._high:
            self._high = position + size
        page.out_tail = tail + size
        return True

    def _go_on(self) -> None:
        self._paused = self._full or self._held
        page, transport = self._page, self._transport
        if page.staging or transport is None:
            return
        while self._queue and not self._paused:
            if transport.get_write_buffer_size() > TRANSPORT_SHARE:
                # It will say that it is full, or will have written, when the loop has turned.
                self._go_on_soon()
                return
            frame, kind = self._queue.pop()
            if not self._keep(frame):
                raise AssertionError("a transport with room leaves room for any frame that may wait")
            page.commit()
            self._write_now(frame, kind)
        if not self._queue:
            self._log.give_back()
            if self._finished and not self._paused:
                self._send_eof()

    def _go_on_soon(self) -> None:
        if self._retry is None:
            self._retry = self._loop.call_soon(self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self._go_on()
