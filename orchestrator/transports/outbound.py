"""What waits to be written, and what goes first when there is no room: a bounded queue, and the writer that uses it.

The queue is used only while the transport says that it holds enough; the usual case is one direct write per message.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
from collections import deque

__all__ = ["FrameWriter", "Kind", "OutboundQueue"]


class Kind(enum.Enum):
    """What an encoded frame is, which decides its fate when there is no room."""

    CONTROL_FRAME = "control_frame"  # ping, pong, close, or a piece of the upgrade: kept, and not counted as a message
    MESSAGE = "message"  # kept
    AUDIO = "audio"  # may be dropped


class OutboundQueue:
    """Encoded frames in the order in which they were pushed, `limit` bytes at most, each counted `overhead` bytes longer.

    Audio gives way, oldest first, to anything that is pushed later; nothing else ever does.
    """

    __slots__ = ("_audio", "_kept", "_limit", "_number", "_overhead", "dropped", "size")

    def __init__(self, limit: int, overhead: int = 0) -> None:
        self._limit = limit
        self._overhead = overhead
        # Two queues with a common numbering: the oldest audio is found at once, and the order is kept.
        self._kept: deque[tuple[int, bytes, Kind]] = deque()
        self._audio: deque[tuple[int, bytes]] = deque()
        self._number = 0
        self.size = 0
        self.dropped = 0  # audio messages that were never written

    def __len__(self) -> int:
        return len(self._kept) + len(self._audio)

    def push(self, frame: bytes, kind: Kind) -> bool:
        """Add a frame. Returns False, adding nothing, if a frame that must be kept finds no room."""
        size = len(frame) + self._overhead
        excess = self.size + size - self._limit
        while excess > 0 and self._audio:
            excess -= self._drop_oldest_audio()
        if excess > 0:
            if kind is not Kind.AUDIO:
                return False
            self.dropped += 1
            return True
        self._number += 1
        self.size += size
        if kind is Kind.AUDIO:
            self._audio.append((self._number, frame))
        else:
            self._kept.append((self._number, frame, kind))
        return True

    def pop(self) -> tuple[bytes, Kind]:
        """Take the oldest frame. Raises IndexError if there is none."""
        if self._audio and (not self._kept or self._audio[0][0] < self._kept[0][0]):
            frame, kind = self._audio.popleft()[1], Kind.AUDIO
        else:
            _, frame, kind = self._kept.popleft()
        self.size -= len(frame) + self._overhead
        return frame, kind

    def clear_audio(self) -> int:
        """Drop all audio; return how many messages that was."""
        count = len(self._audio)
        while self._audio:
            self._drop_oldest_audio()
        return count

    def clear(self) -> None:
        """Drop everything, uncounted: the connection is over."""
        self._kept.clear()
        self._audio.clear()
        self.size = 0

    def _drop_oldest_audio(self) -> int:
        _, frame = self._audio.popleft()
        size = len(frame) + self._overhead
        self.size -= size
        self.dropped += 1
        return size


class FrameWriter:
    """The outgoing side of one connection: direct writes, the queue behind them, the end of the stream.

    `sock` is the connection's socket, if the leg has it: other processes may hold duplicates of it, and then only a
    `shutdown` ends the connection, while closing our own descriptor would leave the peer waiting.
    """

    __slots__ = ("_finished", "_full", "_held", "_paused", "_queue", "_socket", "_transport", "bytes_out", "messages_out")

    def __init__(self, queue_limit: int, sock: socket.socket | None = None) -> None:
        self._queue = OutboundQueue(queue_limit)
        self._socket = sock
        self._transport: asyncio.Transport | None = None
        self._full = False  # the transport holds enough
        self._held = False  # the owner wants nothing written
        self._paused = False  # either; while it is not, the queue is empty
        self._finished = False
        self.bytes_out = 0
        self.messages_out = 0

    @property
    def dropped(self) -> int:
        """Audio messages that were never written."""
        return self._queue.dropped

    @property
    def queued_bytes(self) -> int:
        """Bytes accepted but not yet taken by the kernel."""
        held = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return self._queue.size + held

    @property
    def settled(self) -> bool:
        """Whether another owner of the connection would miss nothing of what was written here."""
        return not self.queued_bytes

    @property
    def encrypted(self) -> bool:
        """Whether the transport speaks TLS."""
        return self._transport is not None and self._transport.get_extra_info("ssl_object") is not None

    def attach(self, transport: asyncio.Transport, write_high: int) -> None:
        """Start writing to a connected transport."""
        self._transport = transport
        transport.set_write_buffer_limits(high=write_high)

    def write(self, frame: bytes, kind: Kind) -> bool:
        """Write or queue one encoded frame. Returns False if it must be kept and there is no room for it."""
        if self._finished:
            return True
        if self._paused:
            return self._queue.push(frame, kind)
        self._write_now(frame, kind)
        return True

    def write_run(self, frames: list[bytes]) -> bool:
        """Write or queue encoded messages that must be kept, in one go. Returns False if there is no room for all of them."""
        if self._paused or self._finished or not frames:
            return all(self.write(frame, Kind.MESSAGE) for frame in frames)
        self._write_now(b"".join(frames), Kind.MESSAGE, len(frames))
        return True

    def finish(self) -> None:
        """Send the end of the stream after what is queued; whatever is written later is forgotten."""
        self._finished = True
        if not self._paused:
            self._send_eof()

    def pause(self) -> None:
        """Hear from the transport that it holds enough."""
        self._full = self._paused = True

    def resume(self) -> None:
        """Hear from the transport that it has room again."""
        self._full = False
        self._go_on()

    def hold(self, *, held: bool) -> None:
        """Write nothing until this is taken back, whatever the transport says."""
        self._held = held
        self._go_on()

    def _go_on(self) -> None:
        self._paused = self._full or self._held
        while self._queue and not self._paused:
            self._write_now(*self._queue.pop())
        if self._finished and not self._paused:
            self._send_eof()

    def clear_audio(self) -> int:
        """Drop queued audio; return how many messages that was."""
        return self._queue.clear_audio()

    def pause_reading(self) -> None:
        """Ask the transport to read nothing for now."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Ask the transport to read again."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """End the connection now; what is queued is lost."""
        self._queue.clear()
        self._finished = True
        self._shut_down()
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End the connection without waiting for the peer: at once if something is stuck, else after what was written."""
        if self._transport is None or self.queued_bytes:
            self.abort()
        else:
            self._finished = True
            self._transport.close()

    def release(self) -> None:
        """Drop the descriptor and leave the connection to whoever holds a duplicate."""
        self._socket = None
        self._finished = True
        if self._transport is not None:
            self._transport.close()

    def lost(self) -> None:
        """Hear that the transport has ended. It still holds the socket, and closes it right after this."""
        self._shut_down()
        self._queue.clear()
        self._transport = None
        self._finished = True

    def _write_now(self, frame: bytes, kind: Kind, count: int = 1) -> None:
        if self._transport is None:
            return
        self._transport.write(frame)
        self.bytes_out += len(frame)
        if kind is not Kind.CONTROL_FRAME:
            self.messages_out += count

    def _send_eof(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    def _shut_down(self) -> None:
        if self._socket is None:
            return
        # ENOTCONN: the peer was faster. EBADF: the transport, which owns the same object, has closed it.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket = None
