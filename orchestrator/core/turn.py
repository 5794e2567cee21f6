"""Who has the floor, and how long the caller waits for an answer."""

from __future__ import annotations

from orchestrator.core.states import TURN, Machine, TurnSignal, TurnState

__all__ = ["Turn"]


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
        self._machine.signal(TurnSignal.SPEECH_STOPPED)
        self._speech_ended_at = now

    def response_started(self) -> None:
        """The model began a response."""
        self._machine.signal(TurnSignal.RESPONSE_STARTED)

    def audio(self, now: float) -> float | None:
        """Agent audio went out. Returns the seconds since the caller's turn ended, once per turn, else None."""
        self._machine.signal(TurnSignal.AUDIO)
        ended, self._speech_ended_at = self._speech_ended_at, None
        return None if ended is None else now - ended

    def response_ended(self) -> None:
        """The model ended its response."""
        self._machine.signal(TurnSignal.RESPONSE_ENDED)
