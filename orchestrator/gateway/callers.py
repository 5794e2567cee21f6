"""What the gateway holds of every caller that it gave away: a duplicate of the socket, and the session's page.

With both another actor can go on where a former one stopped, and the connection never notices. Closing one's own descriptor
ends no connection that others hold, so whoever wants it ended must shut it down.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from orchestrator.cluster.link_messages import Adopt, Recover
from orchestrator.http_server.answers import Refusal, render
from orchestrator.transports.session_page import SessionPage

__all__ = ["Caller", "Callers"]


@dataclass(slots=True, eq=False)
class Caller:
    """One caller: `adopt` is what its first actor was given with the socket."""

    adopt: Adopt
    sock: socket.socket
    page: SessionPage

    @property
    def session_id(self) -> str:
        """The caller's session."""
        return self.adopt.session_id

    def descriptors(self) -> tuple[int, int]:
        """Return new duplicates of the socket and of the page's descriptor, to be sent away. Raises OSError."""
        sock = os.dup(self.sock.fileno())
        try:
            return sock, os.dup(self.page.fileno())
        except OSError:
            os.close(sock)
            raise

    def recover(self, cause: str, lost_at: float) -> Recover:
        """Return the message that asks an actor to go on with this session."""
        given = self.adopt
        return Recover(given.session_id, given.channel, given.head, given.peer, given.accepted_at, cause, lost_at)

    def close(self) -> None:
        """Let go of what is held; the connection goes on if somebody else has it."""
        self.sock.close()
        self.page.close()


class Callers:
    """The callers by session id."""

    def __init__(self) -> None:
        self._callers: dict[str, Caller] = {}

    def __len__(self) -> int:
        return len(self._callers)

    def __iter__(self) -> Iterator[Caller]:
        return iter(tuple(self._callers.values()))

    def keep(self, caller: Caller) -> None:
        """Hold a caller, in place of an earlier holding of the same session."""
        self.drop(caller.session_id)
        self._callers[caller.session_id] = caller

    def get(self, session_id: str) -> Caller | None:
        """Return the caller of a session, or None."""
        return self._callers.get(session_id)

    def drop(self, session_id: str) -> None:
        """The session is over, or somebody else's: let go of its caller. Idempotent."""
        caller = self._callers.pop(session_id, None)
        if caller is not None:
            caller.close()

    def refuse(self, session_id: str, refusal: Refusal) -> None:
        """End a caller's connection, whoever else holds it, with this answer where none was begun. Idempotent."""
        caller = self._callers.get(session_id)
        if caller is None:
            return
        if not caller.page.opened:
            # Nothing was sent before, so this fits into the socket's buffer; where it does not, the end must do.
            with suppress(OSError):
                caller.sock.send(render(refusal.response()), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        self.end(session_id)

    def end(self, session_id: str) -> None:
        """End a caller's connection, whoever else holds it, without a word. Idempotent."""
        caller = self._callers.get(session_id)
        if caller is not None:
            with suppress(OSError):
                caller.sock.shutdown(socket.SHUT_RDWR)
            self.drop(session_id)

    def close(self) -> None:
        """Leave all callers to their actors."""
        for session_id in tuple(self._callers):
            self.drop(session_id)
