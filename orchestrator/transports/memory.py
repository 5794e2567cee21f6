"""Two legs joined in memory: the real leg on a transport that is a pair of queues.

Everything but the socket is the code that runs in production, so limits, close handshakes, keepalive and overflow behave the
same by construction. Bytes are delivered through `loop.call_soon`, in the order in which they were written; under the virtual
clock a conversation is therefore deterministic.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from orchestrator.transports.base import DEFAULT_OPTIONS, LegListener, LegOptions
from orchestrator.transports.client_leg import ClientLeg
from orchestrator.transports.server_leg import Accept, ServerLeg
from orchestrator.transports.websocket import WebSocketLeg

__all__ = ["MemoryLine", "MemoryPair", "memory_pair"]

_PIECE = 64 * 1024


class MemoryLine(asyncio.Transport):
    """One end of the connection, as its leg sees it. The hooks say how the network behaves at this end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, leg: WebSocketLeg) -> None:
        super().__init__()
        self._loop = loop
        self._leg = leg
        self._other: MemoryLine = self
        self._unsent = bytearray()  # written here, not yet received there
        self._high = 64 * 1024
        self._writing_paused = False
        self._reading_paused = False
        self._stalled = False
        self._dropping = False
        self._eof_written = False
        self._eof_delivered = False
        self._closing = False
        self._lost = False
        self._delivery: asyncio.Handle | None = None
        self.segment = _PIECE  # the most bytes that this end receives at once

    # Hooks for tests.

    def stall(self) -> None:
        """Receive nothing from now on: what the other end writes piles up there, as with a peer that does not read."""
        self._stalled = True

    def flow(self) -> None:
        """Undo `stall` and `drop`; what has piled up is received now, what was dropped is lost."""
        self._stalled = self._dropping = False
        self._other._schedule()

    def drop(self) -> None:
        """Lose whatever is on the way to this end from now on, the end of the stream included: a half-open connection."""
        self._dropping = True
        self._other._schedule()

    def cut(self) -> None:
        """Break the connection: both ends lose it with ConnectionResetError, and what is under way is lost."""
        for line in (self, self._other):
            line._end(ConnectionResetError("cut"))

    # What a leg calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes for the other end."""
        if self._closing:
            return
        self._unsent += data
        if len(self._unsent) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._leg.pause_writing()
        self._schedule()

    def write_eof(self) -> None:
        """End our stream after what is written."""
        self._eof_written = True
        self._schedule()

    def can_write_eof(self) -> bool:
        """Streams end one direction at a time, as with TCP."""
        return True

    def close(self) -> None:
        """Read no more, and end when all is received by the other end."""
        if not self._closing:
            self._closing = True
            self.write_eof()

    def abort(self) -> None:
        """End now; the other end sees the end of the stream."""
        self._unsent.clear()
        self._eof_written = True
        self._schedule()
        self._end(None)

    def is_closing(self) -> bool:
        """Whether this end is done for."""
        return self._closing

    def pause_reading(self) -> None:
        """Receive nothing until `resume_reading`."""
        self._reading_paused = True

    def resume_reading(self) -> None:
        """Receive again."""
        self._reading_paused = False
        self._other._schedule()

    def is_reading(self) -> bool:
        """Whether bytes are received."""
        return not (self._reading_paused or self._closing)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how much may be unsent before the leg is asked to pause."""
        self._high = 64 * 1024 if high is None else high

    def get_write_buffer_size(self) -> int:
        """Return the bytes that the other end has not received."""
        return len(self._unsent)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """There is neither socket nor address."""
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Not for a line, which has the leg that it was made for."""
        raise AssertionError("a line in memory keeps its leg: nothing upgrades to TLS here")

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the leg."""
        return self._leg

    # Delivery to the other end.

    def _receives(self) -> bool:
        return not (self._stalled or self._reading_paused)

    def _schedule(self) -> None:
        if self._delivery is None:
            self._delivery = self._loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        """Move one piece to the other end; more follows in the next turn of the loop."""
        self._delivery = None
        other = self._other
        if other._lost or other._closing or other._dropping:
            self._unsent.clear()
        elif self._unsent and other._receives():
            self._move(other)
        self._after_delivery(other)

    def _move(self, other: MemoryLine) -> None:
        room = memoryview(other._leg.get_buffer(-1))
        count = min(len(room), len(self._unsent), other.segment)
        room[:count] = self._unsent[:count]
        del self._unsent[:count]
        other._leg.buffer_updated(count)

    def _after_delivery(self, other: MemoryLine) -> None:
        if self._writing_paused and not self._lost and len(self._unsent) <= self._high // 4:
            self._writing_paused = False
            self._leg.resume_writing()
        if self._unsent:
            if other._receives():
                self._schedule()
            return
        if self._eof_written and not self._eof_delivered and other._receives():
            self._eof_delivered = True
            if not (other._closing or other._dropping or other._leg.eof_received()):
                other.close()
        if self._closing:
            self._end(None)

    def _end(self, exc: Exception | None) -> None:
        self._closing = True
        if not self._lost:
            self._lost = True
            self._unsent.clear()
            self._loop.call_soon(self._leg.connection_lost, exc)


class MemoryPair:
    """The two legs, and the lines under them. Unpacks into the legs: `client, server = memory_pair(...)`."""

    def __init__(self, client: ClientLeg, server: ServerLeg, client_line: MemoryLine, server_line: MemoryLine) -> None:
        self.client = client
        self.server = server
        self.client_line = client_line
        self.server_line = server_line

    def __iter__(self) -> Iterator[WebSocketLeg]:
        yield self.client
        yield self.server


def memory_pair(
    client_listener: LegListener,
    server_listener: LegListener,
    *,
    options: LegOptions = DEFAULT_OPTIONS,
    server_options: LegOptions | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
) -> MemoryPair:
    """Join two open legs; `server_options` are those of the server's end if they differ. Call it on the running loop.

    Listeners that want their leg get it before this returns.
    """
    loop = loop or asyncio.get_running_loop()
    decision = Accept(server_listener)
    client = ClientLeg(client_listener, options=options, loop=loop, sock=None, resumed=True)
    server = ServerLeg(
        lambda _: decision,
        options=server_options or options,
        loop=loop,
        sock=None,
        resumed=True,
        listener=server_listener,
    )
    client_line, server_line = MemoryLine(loop, client), MemoryLine(loop, server)
    client_line._other, server_line._other = server_line, client_line
    client.connection_made(client_line)
    server.connection_made(server_line)
    return MemoryPair(client, server, client_line, server_line)
