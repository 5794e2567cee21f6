"""The node link: a `SOCK_SEQPACKET` Unix socket between a node's gateway and each of its session actors.

One message is one datagram, a caller's socket travels as ancillary data, and the end of the link means that the other process
died (seen about 11 ms after a kill). There is no Ray in here. All of it runs in callbacks of one loop: no task, no await.
"""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from actors._paths import MAX_SOCKET_PATH, make_private_directory
from orchestrator.cluster.link_messages import (
    MAX_MESSAGE,
    Adopt,
    Drain,
    EndSession,
    FromActor,
    FromGateway,
    Hello,
    JournalAcknowledged,
    JournalLost,
    JournalRefused,
    ListenerKept,
    Recover,
    Refused,
    Release,
    SessionHeld,
    StateParcel,
    decode_from_actor,
    decode_from_gateway,
    encode,
)
from orchestrator.errors import EndReason, SettingsError, WireError
from orchestrator.gateway.links import GatewayLinkListener
from orchestrator.http_server.acceptor import Acceptor
from orchestrator.telemetry.logs import get_logger

__all__ = ["ActorLinkListener", "Link", "NodeLinkClient", "NodeLinkServer"]

# Messages that wait for the other side to read. The kernel takes about 167 small ones before that.
QUEUE_LIMIT: Final = 1024
FIRST_RETRY: Final = 0.02
LAST_RETRY: Final = 1.0

# Messages handled per wake, so that a busy link cannot keep the loop from the others.
_BATCH: Final = 64
# More than are ever sent, so that a peer of another version cannot make us lose descriptors unseen.
_MAX_FDS: Final = 4
# The kernel is short of something for a moment: too many descriptors under way, or no memory for the message.
_SHORTAGE: Final = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
_SHORTAGE_DELAY: Final = 0.02

# How many descriptors come with a message: a socket, and for a session its page.
_DESCRIPTORS: Final[Mapping[type, int]] = {Adopt: 2, Recover: 2, SessionHeld: 2, ListenerKept: 1}

_log = get_logger()


class Link:
    """One established link, as either side has it. Implements the gateway's `ActorLink`.

    `on_data` gets each datagram with the descriptors that came with it, which it then owns. `on_lost` comes once, last, and
    never from inside a method of the link.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_data: Callable[[Link, bytes, list[int]], None],
        on_lost: Callable[[Link, EndReason], None],
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self._sock = sock
        self._on_data = on_data
        self._on_lost = on_lost
        self._queue_limit = queue_limit
        self._queue: deque[tuple[bytes, tuple[int, ...]]] = deque()
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._ending: EndReason | None = None
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._on_readable)

    @property
    def is_open(self) -> bool:
        """Whether messages are taken."""
        return self._ending is None

    @property
    def queued(self) -> int:
        """How many messages wait for the other side to read."""
        return len(self._queue)

    def offer(self, message: FromActor | FromGateway, fds: tuple[int, ...] = ()) -> bool:
        """Send a message that may be refused: False, and nothing is taken, when the queue is full or the link has ended.

        On True the link owns `fds`, and closes them once they are sent or the link has ended. Raises WireError for a message
        that is too large; then nothing is taken either.
        """
        data = encode(message)
        if self._ending is not None or len(self._queue) >= self._queue_limit:
            return False
        self._queue.append((data, fds))
        if len(self._queue) == 1:
            self._flush()
        return True

    def send(self, message: FromActor | FromGateway, fds: tuple[int, ...] = ()) -> None:
        """Send a message that must not be lost: where the queue is full the link ends with `link_overflow`.

        Does nothing once the link has ended. The link owns `fds` in any case. Raises WireError for a message that is too large.
        """
        if self.offer(message, fds):
            return
        _close_all(fds)
        if self._ending is None:
            self.close(EndReason("link_overflow", "the other side of the node link does not read", by="peer"))

    def close(self, reason: EndReason) -> None:
        """End the link; what is queued is dropped. Idempotent: the first reason holds."""
        if self._ending is not None:
            return
        self._ending = reason
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        if self._retry is not None:
            self._retry.cancel()
        self._sock.close()
        for _, fds in self._queue:
            _close_all(fds)
        self._queue.clear()
        self._loop.call_soon(self._on_lost, self, reason)

    def _flush(self) -> None:
        self._retry = None
        while self._queue:
            data, fds = self._queue[0]
            try:
                if fds:
                    socket.send_fds(self._sock, [data], fds)
                else:
                    self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                self._loop.add_writer(self._sock.fileno(), self._flush)
                return
            except OSError as error:
                if error.errno in _SHORTAGE:
                    self._loop.remove_writer(self._sock.fileno())
                    self._retry = self._loop.call_later(_SHORTAGE_DELAY, self._flush)
                else:
                    self._lose(error)
                return
            self._queue.popleft()
            _close_all(fds)
        self._loop.remove_writer(self._sock.fileno())

    def _on_readable(self) -> None:
        for _ in range(_BATCH):
            if self._ending is not None:
                return
            try:
                data, fds, flags = _receive(self._sock)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._lose(error)
                return
            if not data and not fds:
                self._lose(None)
                return
            if flags & socket.MSG_CTRUNC:
                # This process may open no more descriptors: the message is whole, what came with it is lost.
                _log.error("link_descriptors_lost", kept=len(fds))
                _close_all(fds)
                fds = []
            if flags & socket.MSG_TRUNC:
                _log.error("link_message_refused", detail=f"longer than {MAX_MESSAGE} bytes")
                _close_all(fds)
                continue
            self._on_data(self, data, fds)

    def _lose(self, error: OSError | None) -> None:
        text = "the other side of the node link is gone"
        self.close(EndReason("link_lost", text, None if error is None else error.strerror, "infrastructure"))


class NodeLinkServer:
    """The gateway's side: takes links at `path`, a socket in a directory that is this user's alone.

    The socket's file is left behind, since by then it may be that of a successor. The first message of a link is a Hello.
    """

    def __init__(self, path: str, listener: GatewayLinkListener, *, queue_limit: int = QUEUE_LIMIT) -> None:
        self.path = path
        self._listener = listener
        self._queue_limit = queue_limit
        self._links: set[Link] = set()
        self._acceptor: Acceptor | None = None
        # Why no new link can come any more, if so. Established ones go on.
        self.failure: EndReason | None = None

    def start(self) -> None:
        """Listen, in place of a former gateway's socket if there is one. Raises SettingsError when the path cannot be used."""
        if len(os.fsencode(self.path)) > MAX_SOCKET_PATH:
            raise SettingsError(f"the path of the node link is longer than {MAX_SOCKET_PATH} bytes: {self.path}")
        make_private_directory(os.path.dirname(self.path))  # noqa: PTH120 - paths travel as text
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            Path(self.path).unlink(missing_ok=True)
            sock.bind(self.path)
            sock.listen(socket.SOMAXCONN)
            self._acceptor = Acceptor(sock, self._on_accept, self._on_failure)
        except OSError as error:
            sock.close()
            raise SettingsError(f"cannot listen on the node link {self.path}: {error.strerror or error}") from None

    def close(self) -> None:
        """Stop listening and end all links. Idempotent. The listener still hears of each link's end, soon after."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        for link in tuple(self._links):
            link.close(EndReason("gateway_closed", "the gateway closed its node link"))

    def _on_accept(self, sock: socket.socket, _address: Any) -> None:
        self._links.add(Link(sock, self._on_data, self._on_lost, self._queue_limit))

    def _on_failure(self, error: OSError) -> None:
        self.failure = EndReason("link_accept_failed", error.strerror or str(error), type(error).__name__, "infrastructure")
        _log.error("node_link_failed", error=error.strerror)

    def _on_data(self, link: Link, data: bytes, fds: list[int]) -> None:
        try:
            message = decode_from_actor(data)
        except WireError as error:
            _close_all(fds)
            _log.error("link_message_refused", detail=error.message, size=len(data))
            return
        if isinstance(message, SessionHeld | ListenerKept):
            sock = _socket_of(fds[:1])
            if sock is None or len(fds) != _DESCRIPTORS[type(message)]:
                _log.error("link_message_refused", detail=f"{type(message).__name__} with {len(fds)} descriptors")
                _close_all(fds[1:])
                if sock is not None:
                    sock.close()
            elif isinstance(message, ListenerKept):
                self._listener.on_listener(link, sock)
            else:
                self._listener.on_session_held(link, message, sock, fds[1])
            return
        _close_all(fds)
        self._listener.on_link_message(link, message)

    def _on_lost(self, link: Link, reason: EndReason) -> None:
        self._links.discard(link)
        self._listener.on_link_lost(link, reason)


class ActorLinkListener(Protocol):
    """What a session actor hears from its node's gateway."""

    def on_adopt(self, sock: socket.socket, page: int, message: Adopt) -> None:
        """Take a session with its caller's socket, non-blocking, and the descriptor of its page; both are the listener's."""

    def on_recover(self, sock: socket.socket, page: int, state: bytes, message: Recover) -> None:
        """Go on with a session that lost its owner; `state` is its `CallState` in JSON, or empty. Else as `on_adopt`."""

    def on_release(self, message: Release) -> None:
        """Let go of a session."""

    def on_listener(self, sock: socket.socket) -> None:
        """Keep the gateway's listening socket, in place of an earlier one."""

    def on_end_session(self, message: EndSession) -> None:
        """End a session."""

    def on_drain(self) -> None:
        """Learn that no more sessions will come."""

    def on_journal(self, message: JournalAcknowledged | JournalRefused | JournalLost) -> None:
        """Learn what became of journal entries."""

    def on_link_up(self) -> None:
        """Learn that there is a link: the gateway has been told Hello."""

    def on_link_lost(self, reason: EndReason) -> None:
        """Learn that the link is lost; sessions go on, and the client tries again by itself."""


class NodeLinkClient:
    """The session actor's side: links to the gateway at `path`, and again whenever the link is lost.

    `hello` is asked for the introduction on every new link; it names the sessions that are held at that moment, so what was
    not told while there was no link needs no telling later.
    """

    def __init__(
        self,
        path: str,
        hello: Callable[[], Hello],
        listener: ActorLinkListener,
        *,
        queue_limit: int = QUEUE_LIMIT,
        first_retry: float = FIRST_RETRY,
        last_retry: float = LAST_RETRY,
    ) -> None:
        self.path = path
        self._hello = hello
        self._listener = listener
        self._queue_limit = queue_limit
        self._first_retry = first_retry
        self._last_retry = last_retry
        self._delay = first_retry
        self._link: Link | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._running = False
        # Parts of states that came so far, by session.
        self._states: dict[str, bytearray] = {}

    @property
    def connected(self) -> bool:
        """Whether there is a link."""
        return self._link is not None and self._link.is_open

    @property
    def queued(self) -> int:
        """How many messages wait for the gateway to read. Telemetry should be drained only while there are few."""
        return 0 if self._link is None else self._link.queued

    def start(self) -> None:
        """Begin to try, at once and then every 20 ms to 1 s. Idempotent. May call `on_link_up` before it returns."""
        if not self._running:
            self._running = True
            self._connect()

    def close(self) -> None:
        """End the link and try no more. Idempotent. The listener hears nothing any more."""
        self._running = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._link is not None:
            self._link.close(EndReason("actor_closed", "the session actor closed its node link"))
            self._link = None

    def send(self, message: FromActor, fds: tuple[int, ...] = ()) -> None:
        """Send a message that must not be lost while there is a link; without one it is dropped, see `hello`.

        Where the gateway does not read, the link ends with `link_overflow`. `fds` are closed in any case. Raises WireError
        for a message that is too large.
        """
        if self._link is not None:
            self._link.send(message, fds)
        else:
            _close_all(fds)

    def offer(self, message: FromActor) -> bool:
        """Send a message that may be refused, such as Telemetry; False when it was not taken."""
        return self._link is not None and self._link.offer(message)

    def _connect(self) -> None:
        self._timer = None
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            sock.connect(self.path)
        except OSError:
            # Not there, or its backlog is full.
            sock.close()
            self._try_again()
            return
        self._delay = self._first_retry
        self._link = Link(sock, self._on_data, self._on_lost, self._queue_limit)
        self._link.send(self._hello())
        self._listener.on_link_up()

    def _try_again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._delay, self._connect)
        self._delay = min(self._delay * 2, self._last_retry)

    def _on_lost(self, link: Link, reason: EndReason) -> None:
        if link is self._link:
            self._link = None
            self._states.clear()
            if self._running:
                self._try_again()
            self._listener.on_link_lost(reason)

    def _on_data(self, link: Link, data: bytes, fds: list[int]) -> None:
        try:
            message = decode_from_gateway(data)
        except WireError as error:
            _close_all(fds)
            _log.error("link_message_refused", detail=error.message, size=len(data))
            return
        if isinstance(message, Adopt | Recover | ListenerKept):
            self._take_descriptors(link, message, fds)
            return
        _close_all(fds)
        match message:
            case StateParcel():
                self._states.setdefault(message.session_id, bytearray()).extend(message.data)
            case Release():
                self._listener.on_release(message)
            case EndSession():
                self._listener.on_end_session(message)
            case Drain():
                self._listener.on_drain()
            case JournalAcknowledged() | JournalRefused() | JournalLost():
                self._listener.on_journal(message)

    def _take_descriptors(self, link: Link, message: Adopt | Recover | ListenerKept, fds: list[int]) -> None:
        state = b"" if not isinstance(message, Recover) else bytes(self._states.pop(message.session_id, b""))
        whole = len(fds) == _DESCRIPTORS[type(message)]
        sock = _socket_of(fds[:1])
        if whole and sock is not None:
            match message:
                case Adopt():
                    self._listener.on_adopt(sock, fds[1], message)
                case Recover():
                    self._listener.on_recover(sock, fds[1], state, message)
                case ListenerKept():
                    self._listener.on_listener(sock)
            return
        if sock is not None:
            sock.close()
        _close_all(fds[1:])
        if not isinstance(message, ListenerKept):
            _refuse(link, message, "what came with it is no socket" if whole else f"it came with {len(fds)} descriptors")


def _socket_of(fds: list[int]) -> socket.socket | None:
    """Return the first descriptor as a non-blocking socket; None, and it is closed, where it is none."""
    try:
        sock = socket.socket(fileno=fds[0])
    except (OSError, IndexError):
        _close_all(fds)
        return None
    sock.setblocking(False)
    return sock


def _refuse(link: Link, message: Adopt | Recover, text: str) -> None:
    _log.error("adopt_refused", session_id=message.session_id, detail=text)
    link.send(Refused(message.session_id, EndReason("bad_hand_over", text, by="infrastructure")))


def _receive(sock: socket.socket) -> tuple[bytes, list[int], int]:
    """Receive one datagram and its descriptors, closed on exec; `socket.recv_fds` ignores the flag that says so."""
    size = struct.calcsize("i")
    data, ancillary, flags, _ = sock.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(_MAX_FDS * size), socket.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % size])
    return data, list(fds), flags


def _close_all(fds: Iterable[int]) -> None:
    for fd in fds:
        with suppress(OSError):
            os.close(fd)
