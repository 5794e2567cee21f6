"""A session for load: it takes the audio that a client appends in pieces of a tenth of a second.

An append of 20 ms costs a session mostly what it costs to look at it at all. Here five of them are looked at together; every
other event still finds all audio before it. What the client sees differs in one thing: the speech of a caller is noticed up to
80 ms later.
"""

from __future__ import annotations

import binascii
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.simulator.endpoint.model_session import ModelSession

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.errors import EndReason
    from orchestrator.simulator.endpoint.model_session import SpeechDesk
    from orchestrator.simulator.endpoint.session_machine import SessionMachine

__all__ = ["CheapSession"]

APPENDS_AT_ONCE = 5
# How clients that send many frames write an append; any other form goes the usual way.
_HEAD = b'{"type":"input_audio_buffer.append","audio":"'
_TAIL = b'"}'
_LONGEST = 4096
_decode = partial(binascii.a2b_base64, strict_mode=True)


class CheapSession(ModelSession):
    """As `ModelSession`, at less cost."""

    def __init__(self, machine: SessionMachine, desk: SpeechDesk, on_frame: Callable[[bytes], None] | None = None) -> None:
        super().__init__(machine, desk, on_frame)
        self._waiting: list[bytes] = []

    def on_text(self, data: bytes) -> None:
        """Keep a frame of audio for later; hand any other event to the machine, after the audio before it."""
        if data.startswith(_HEAD) and data.endswith(_TAIL) and len(data) <= _LONGEST:
            self._waiting.append(data)
            if len(self._waiting) >= APPENDS_AT_ONCE:
                self._hand_over()
            return
        self._hand_over()
        super().on_text(data)

    def on_binary(self, data: bytes) -> None:
        """See `ModelSession`."""
        self._hand_over()
        super().on_binary(data)

    def on_closed(self, reason: EndReason) -> None:
        """See `ModelSession`."""
        self._waiting.clear()
        super().on_closed(reason)

    def _hand_over(self) -> None:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            # Strict: whatever is no plain base64, such as a further member of the event, is found out here.
            pieces = [_decode(data[len(_HEAD) : -len(_TAIL)]) for data in waiting]
        except binascii.Error:
            pieces = []
        if not all(pieces) or len(pieces) != len(waiting):
            for data in waiting:
                super().on_text(data)
        else:
            self._runner.perform(self._machine.hear(b"".join(pieces), self._loop.time()))
