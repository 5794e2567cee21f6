"""Cutting the connections of a database server that does not answer.

A limit that the server keeps itself helps nobody when the server is frozen, or the network drops everything without a word: the
driver would wait for ever. Shutting its socket down makes it fail at once.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from threading import Lock
from typing import Any

from sqlalchemy import Engine, event

__all__ = ["Interrupter"]


class Interrupter:
    """Knows the sockets of an engine's connections. For drivers whose connections have a `fileno`."""

    def __init__(self, engine: Engine) -> None:
        self._lock = Lock()
        # Descriptors of our own: the driver may close its own at any moment, and the number may then be another socket's.
        self._sockets: dict[int, socket.socket] = {}
        event.listen(engine, "connect", self._on_connect)
        event.listen(engine, "close", self._on_close)

    def interrupt(self) -> None:
        """Make whatever waits for the server raise. Any thread may call it; it does not block."""
        with self._lock:
            for sock in self._sockets.values():
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _on_connect(self, connection: Any, _: Any) -> None:
        sock = socket.socket(fileno=os.dup(connection.fileno()))
        with self._lock:
            self._sockets[id(connection)] = sock

    def _on_close(self, connection: Any, _: Any) -> None:
        with self._lock:
            sock = self._sockets.pop(id(connection), None)
        if sock is not None:
            sock.close()
