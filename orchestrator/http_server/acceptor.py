"""A listening socket, and its accept loop as a callback."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any, Final

from orchestrator.telemetry.logs import get_logger

__all__ = ["Acceptor", "listen"]

_BACKLOG: Final = 1024

# This process or the machine is out of something that comes back. Accepting again at once would only spin.
_CAPACITY: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CAPACITY_DELAY: Final = 0.1
# The connection broke before it was accepted, which is the peer's affair (accept(2), "Error handling").
_BROKEN: Final = frozenset(
    {
        errno.ECONNABORTED,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENONET,
        errno.ENOPROTOOPT,
        errno.EOPNOTSUPP,
        errno.EPERM,  # a firewall's verdict
        errno.EPROTO,
        errno.ETIMEDOUT,
    }
)
# Accepted per wake, so that a storm of connections cannot keep the loop from those it has.
_BATCH: Final = 64

_log = get_logger()


async def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on the first address of `host`; port 0 takes a free one. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    # A name for loopback may stand for both protocols; most clients on this machine are told 127.0.0.1.
    family, _, _, _, address = min(found, key=lambda entry: entry[0] is not socket.AF_INET)
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG)


class Acceptor:
    """Accepts until closed. Owns the listening socket, which must be listening and is made non-blocking.

    `on_accept` gets each connection, non-blocking, with the peer's address. An error that is neither the peer's nor a
    shortage stops the loop for good and goes to `on_failure`.
    """

    def __init__(
        self,
        listener: socket.socket,
        on_accept: Callable[[socket.socket, Any], None],
        on_failure: Callable[[OSError], None],
    ) -> None:
        self._listener = listener
        self._on_accept = on_accept
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Stop and close the listening socket. Idempotent."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _BROKEN:
                    continue
                self._stop(error)
                return
            sock.setblocking(False)
            self._on_accept(sock, address)
            if self._listener.fileno() < 0:
                return

    def _stop(self, error: OSError) -> None:
        self._loop.remove_reader(self._listener.fileno())
        if error.errno in _CAPACITY:
            _log.error("accept_delayed", error=error.strerror, retry_after=_CAPACITY_DELAY)
            self._retry = self._loop.call_later(_CAPACITY_DELAY, self._resume)
        else:
            _log.error("accept_failed", error=error.strerror)
            self._on_failure(error)

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listener.fileno(), self._accept)
