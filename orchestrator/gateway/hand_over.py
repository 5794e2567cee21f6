"""Callers that were given to a session actor which has not answered yet, and the deadline for its answer.

An actor whose process stopped keeps its link, so nothing else would ever end such a caller, or free its slot. Until the actor
has spoken the gateway holds a duplicate of the socket: closing one's own descriptor ends no connection that others hold.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from orchestrator.http_server.answers import Refusal, render

__all__ = ["ANSWER_WITHIN", "HandOvers"]

# Seconds. A working actor answers within milliseconds; a loop that was blocked for longer is of no use to this caller.
ANSWER_WITHIN: Final = 10.0
# When this process itself has stood still, its timers run before it reads what came in the meantime.
_CATCH_UP: Final = 0.1


class HandOvers:
    """The duplicates, by session id, each with its timer. `on_silence` hears of a session whose actor missed the deadline."""

    def __init__(self, on_silence: Callable[[str], None], answer_within: float = ANSWER_WITHIN) -> None:
        self._on_silence = on_silence
        self._answer_within = answer_within
        self._open: dict[str, tuple[socket.socket, asyncio.TimerHandle]] = {}

    def __len__(self) -> int:
        return len(self._open)

    def begin(self, session_id: str, duplicate: socket.socket) -> None:
        """Watch over a caller; `duplicate` of its socket is ours from now on."""
        self._watch(session_id, duplicate, self._answer_within, self._look_again)

    def settle(self, session_id: str) -> None:
        """The caller is the actor's, or the actor has ended its connection, or both are gone. Idempotent."""
        entry = self._open.pop(session_id, None)
        if entry is not None:
            duplicate, timer = entry
            timer.cancel()
            duplicate.close()

    def refuse(self, session_id: str, refusal: Refusal) -> None:
        """Nobody has answered the caller: say so and end the connection, whoever else holds it. Idempotent."""
        entry = self._open.get(session_id)
        if entry is not None:
            # Nothing was sent before, so this fits into the socket's buffer; where it does not, the end must do.
            with suppress(OSError):
                entry[0].send(render(refusal.response()), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            with suppress(OSError):
                entry[0].shutdown(socket.SHUT_RDWR)
        self.settle(session_id)

    def _look_again(self, session_id: str) -> None:
        self._watch(session_id, self._open[session_id][0], _CATCH_UP, self._on_silence)

    def _watch(self, session_id: str, duplicate: socket.socket, seconds: float, then: Callable[[str], None]) -> None:
        self._open[session_id] = (duplicate, asyncio.get_running_loop().call_later(seconds, then, session_id))

    def close(self) -> None:
        """Leave all callers to their actors."""
        for session_id in tuple(self._open):
            self.settle(session_id)
