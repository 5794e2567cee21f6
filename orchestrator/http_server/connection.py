"""One accepted connection while it is the server's: read its request, answer it, or let go of it.

No task: a reader callback and one timer. The connection decides nothing; its owner does, in callbacks that return at once.
"""

from __future__ import annotations

import asyncio
import socket
from enum import Enum
from typing import Final, Protocol

from orchestrator.errors import IllegalTransitionError
from orchestrator.http_server.answers import Refusal, Response, render
from orchestrator.http_server.request_head import HeadReader, RequestHead

__all__ = ["Connection", "ConnectionOwner", "Stage"]

_READ_SIZE: Final = 16 * 1024
# After an answer the peer gets this long to read it and to close. Closing with unread input at once would make the kernel
# send a reset, which can destroy the answer before the peer has read it.
_LINGER: Final = 2.0
_LINGER_BYTES: Final = 1024 * 1024


class Stage(Enum):
    """What the connection is doing."""

    HEAD = "head"
    BODY = "body"
    ANSWERING = "answering"
    LINGERING = "lingering"
    GONE = "gone"


_NEXT: Final[dict[Stage, frozenset[Stage]]] = {
    Stage.HEAD: frozenset({Stage.BODY, Stage.ANSWERING, Stage.GONE}),
    Stage.BODY: frozenset({Stage.ANSWERING, Stage.GONE}),
    Stage.ANSWERING: frozenset({Stage.LINGERING, Stage.GONE}),
    Stage.LINGERING: frozenset({Stage.GONE}),
    Stage.GONE: frozenset(),
}


class ConnectionOwner(Protocol):
    """Decides about connections. After `on_connection_gone`, which comes once, the connection is not the server's."""

    def on_head(self, connection: Connection, head: RequestHead) -> None:
        """Take a complete head: answer, `read_body` or `release`."""

    def on_body(self, connection: Connection, head: RequestHead, body: bytes) -> None:
        """Take a complete body: answer."""

    def on_bad_request(self, connection: Connection, refusal: Refusal) -> None:
        """Learn that no complete request will come: answer."""

    def on_connection_gone(self, connection: Connection) -> None:
        """Forget the connection."""


class Connection:
    """Owns the socket from accept until it is closed or released. `accepted_at` is the machine's monotonic clock, seconds."""

    def __init__(
        self,
        sock: socket.socket,
        peer: str,
        accepted_at: float,
        owner: ConnectionOwner,
        *,
        head_limit: int,
        timeout: float,
    ) -> None:
        self.peer = peer
        self.accepted_at = accepted_at
        self.stage = Stage.HEAD
        self.head: RequestHead | None = None
        self._sock = sock
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self._reader = HeadReader(head_limit)
        self._body = b""
        self._body_length = 0
        self._unsent = b""
        self._discarded = 0
        self._saw_eof = False
        self._deadline = self._loop.call_later(timeout, self._on_deadline)
        self._loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def received(self) -> bytes:
        """Every byte read so far while the head was expected: the head, and what came with it."""
        return self._reader.received

    def fileno(self) -> int:
        """Return the socket's descriptor, for handing it over."""
        return self._sock.fileno()

    def duplicate(self) -> socket.socket:
        """Return a duplicate of the socket, the caller's to close. Raises OSError when there is no descriptor for it."""
        return self._sock.dup()

    def read_body(self, head: RequestHead, length: int) -> None:
        """Read `length` bytes after the head, under the same deadline, then call `on_body`."""
        self._enter(Stage.BODY)
        self._body_length = length
        self._take_body(head, head.rest)

    def answer(self, response: Response) -> None:
        """Send the answer and close, giving the peer a moment to read it."""
        self._enter(Stage.ANSWERING)
        self._deadline.cancel()
        self._deadline = self._loop.call_later(_LINGER, self.abort)
        self._unsent = render(response)
        self._on_writable()

    def pause(self) -> None:
        """Stop watching the socket, as must be done before another process gets it.

        A descriptor that is closed while it is watched, and lives on in another process, stays in this process's epoll set,
        where nothing can remove it any more.
        """
        self._loop.remove_reader(self._sock.fileno())

    def resume(self) -> None:
        """Watch the socket again, since it was not handed over."""
        self._loop.add_reader(self._sock.fileno(), self._on_readable)

    def release(self) -> None:
        """Give the descriptor up: whoever it was handed to closes it. To be called after `pause`."""
        self._enter(Stage.GONE)
        self._deadline.cancel()
        self._sock.detach()
        self._owner.on_connection_gone(self)

    def take(self) -> socket.socket:
        """Return the socket itself to somebody in this process, who owns it from now on. Nothing here watches it any more."""
        self.pause()
        self._enter(Stage.GONE)
        self._deadline.cancel()
        self._owner.on_connection_gone(self)
        return self._sock

    def abort(self) -> None:
        """Close at once. Idempotent."""
        if self.stage is Stage.GONE:
            return
        self._enter(Stage.GONE)
        self._deadline.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._owner.on_connection_gone(self)

    def _enter(self, stage: Stage) -> None:
        if stage not in _NEXT[self.stage]:
            raise IllegalTransitionError(f"a connection cannot go from {self.stage.value} to {stage.value}")
        self.stage = stage

    def _on_deadline(self) -> None:
        what = "request head" if self.stage is Stage.HEAD else "request body"
        self._refuse(408, "head_timeout" if self.stage is Stage.HEAD else "body_timeout", f"the {what} took too long")

    def _refuse(self, status: int, code: str, message: str) -> None:
        self._owner.on_bad_request(self, Refusal(status=status, code=code, message=message))

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(_READ_SIZE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.abort()
            return
        try:
            if data:
                self._take(data)
            else:
                self._on_eof()
        except BaseException:
            # A bug in handling one request must not leave its connection behind; the loop reports the exception.
            self.abort()
            raise

    def _take(self, data: bytes) -> None:
        if self.stage is Stage.HEAD:
            result = self._reader.feed(data)
            if isinstance(result, Refusal):
                self._owner.on_bad_request(self, result)
            elif result is not None:
                self.head = result
                self._owner.on_head(self, result)
        elif self.stage is Stage.BODY and self.head is not None:
            self._take_body(self.head, data)
        else:
            self._discarded += len(data)
            if self._discarded > _LINGER_BYTES:
                self.abort()

    def _take_body(self, head: RequestHead, data: bytes) -> None:
        self._body += data
        if len(self._body) >= self._body_length:
            self._owner.on_body(self, head, self._body[: self._body_length])

    def _on_eof(self) -> None:
        if self.stage in (Stage.HEAD, Stage.BODY) and self.received:
            # The peer may have closed only its own direction, and may still read why it gets nothing.
            self._saw_eof = True
            self._refuse(400, "incomplete_request", "the request ended before it was complete")
        elif self.stage is Stage.ANSWERING:
            self._saw_eof = True
            self.pause()  # else the end of input would wake the loop until the answer is written
        else:
            # Nothing was asked (a port probe), or everything is answered.
            self.abort()

    def _on_writable(self) -> None:
        try:
            sent = self._sock.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self.abort()
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._sock.fileno(), self._on_writable)
            return
        self._loop.remove_writer(self._sock.fileno())
        self._enter(Stage.LINGERING)
        if self._saw_eof:
            self.abort()
            return
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.abort()
