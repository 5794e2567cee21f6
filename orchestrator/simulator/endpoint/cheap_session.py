"""A session for load: it takes the audio that a client has appended since the last look in one piece.

An append of 20 ms costs a session mostly what it costs to look at it at all. Where the leg hands over what came in a tenth of a
second at once, the appends in it are looked at together; every other event still finds all audio before it, and nothing is
kept for later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.simulator.endpoint.append_text import AppendReader
from orchestrator.simulator.endpoint.model_session import ModelSession
from orchestrator.wire.realtime import encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.endpoint.model_session import SpeechDesk
    from orchestrator.simulator.endpoint.session_machine import SessionMachine
    from orchestrator.wire.realtime import ServerEvent

__all__ = ["CheapSession"]


class CheapSession(ModelSession):
    """As `ModelSession`, at less cost. Implements `RunListener`."""

    def __init__(self, machine: SessionMachine, desk: SpeechDesk, on_frame: Callable[[bytes], None] | None = None) -> None:
        super().__init__(machine, desk, on_frame)
        self._appends = AppendReader()
        self._unsent: list[bytes] = []

    def on_texts(self, messages: list[bytes]) -> None:
        """Have the audio of appends in a row heard in one go, and hand any other event to the machine in its place."""
        read = self._appends.audio
        pieces: list[bytes] = []
        for data in messages:
            if audio := read(data):
                pieces.append(audio)
                continue
            self._hear(pieces)
            pieces = []
            self.on_text(data)
        self._hear(pieces)

    def _hear(self, pieces: list[bytes]) -> None:
        if pieces:
            self._runner.perform(self._machine.hear(b"".join(pieces), self._loop.time()))

    # --- Outlet -------------------------------------------------------------------------------------------------------

    def emit(self, event: ServerEvent) -> None:
        """Take an event that goes out with those that follow at once."""
        data = encode(event)
        if self._on_frame is not None:
            self._on_frame(data)
        self._unsent.append(data)

    def flush(self) -> None:
        """Send what was taken."""
        if not self._unsent:
            return
        # First, since a fault that happens with one of them may lead back here.
        messages, self._unsent = self._unsent, []
        if self._leg is not None:
            self._leg.send_texts(messages)

    def finish(self, code: int, reason: str) -> None:
        """Send what was taken, and close the leg."""
        self.flush()
        super().finish(code, reason)
