"""Who has the floor, and how long the caller waits for an answer."""

from __future__ import annotations

from typing import NamedTuple

from orchestrator.core.states import TURN, Machine, TurnSignal, TurnState

__all__ = ["FirstAudio", "Turn"]


class FirstAudio(NamedTuple):
    """The agent takes the floor, so long after the caller's turn ended; None when no speech of the caller led to it."""

    seconds_after_speech: float | None


class Turn:
    """The floor of one conversation. Times are seconds of one monotonic clock."""

    __slots__ = ("_machine", "_speech_ended_at")

    def __init__(self) -> None:
        self._machine = Machine(TurnState.OPEN, TURN)
        # End of the caller's last speech while no agent audio has answered it yet, else None.
        self._speech_ended_at: float | None = None

    @property
    def state(self) -> TurnState:
        """Who has the floor."""
        return self._machine.state

    def speech_started(self) -> None:
        """The caller began to speak."""
        self._machine.signal(TurnSignal.SPEECH_STARTED)
        self._speech_ended_at = None

    def speech_stopped(self, now: float) -> None:
        """The caller's turn ended."""
        # While the agent has the floor it is the end of something that nobody waits for an answer to.
        if self._machine.signal(TurnSignal.SPEECH_STOPPED) is TurnState.OPEN:
            self._speech_ended_at = now

    def response_started(self) -> None:
        """The model began a response."""
        self._machine.signal(TurnSignal.RESPONSE_STARTED)

    def audio(self, now: float) -> FirstAudio | None:
        """Agent audio went out. Tells of the first of a turn, else None."""
        before = self._machine.state
        if self._machine.signal(TurnSignal.AUDIO) is before:
            return None
        ended, self._speech_ended_at = self._speech_ended_at, None
        return FirstAudio(None if ended is None else now - ended)

    def response_ended(self) -> None:
        """The model ended its response."""
        self._machine.signal(TurnSignal.RESPONSE_ENDED)
