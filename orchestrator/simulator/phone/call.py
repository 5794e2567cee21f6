"""One phone call as a pure state machine: it rings, is taken or turned away, is talked in, and ends for a reason.

No socket, no clock, no task: every method takes the present time (seconds, never falling). Afterwards `due` says when `advance`
must be called at the latest, or is None once the call is over.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from orchestrator.errors import EndReason, IllegalTransitionError
from orchestrator.simulator.phone.caller import FRAME_MS, Caller, HangUp, Hear, Press, Said
from orchestrator.simulator.phone.earpiece import Earpiece

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.simulator.audio import Encoding
    from orchestrator.simulator.phone.caller import CallerOutput
    from orchestrator.simulator.phone.earpiece import Heard
    from orchestrator.simulator.phone.order import PhoneOrder, Step
    from orchestrator.simulator.speech import SpeechRequest, Utterance

__all__ = ["TRANSITIONS", "CallState", "PhoneCall"]

FRAME_SECONDS: Final = FRAME_MS / 1000
# A loop that stood still longer than this has lost the audio in between, as a line would.
_MOST_FRAMES_AT_ONCE: Final = 50
MOST_EVENTS: Final = 1000


class CallState(Enum):
    """Where a call is in its life."""

    RINGING = "ringing"
    CONNECTED = "connected"
    REJECTED = "rejected"
    REFERRED = "referred"
    ENDED = "ended"


TRANSITIONS: Final[Mapping[CallState, frozenset[CallState]]] = {
    CallState.RINGING: frozenset({CallState.CONNECTED, CallState.REJECTED, CallState.ENDED}),
    CallState.CONNECTED: frozenset({CallState.REFERRED, CallState.ENDED}),
    CallState.REJECTED: frozenset(),
    CallState.REFERRED: frozenset(),
    CallState.ENDED: frozenset(),
}

_NO_ANSWER: Final = EndReason("no_answer", "nobody accepted the call in time", by="us")
_CALLER_HUNG_UP: Final = EndReason("caller_hung_up", "the caller put the phone down", by="caller")


class PhoneCall:
    """The state of one call. `ring_seconds` is how long it rings before it is dropped."""

    def __init__(self, order: PhoneOrder, language: str, now: float, ring_seconds: float) -> None:
        self.state = CallState.RINGING
        self.end_reason: EndReason | None = None
        self.status_code: int | None = None
        self.target_uri: str | None = None
        self.ear = Earpiece()
        self._caller = Caller(order, language)
        self._rang_at = now
        self._drop_at = now + ring_seconds
        self._connected_at: float | None = None
        self._frames = 0
        self._over_at: float | None = None
        self._events: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        self.note("ringing", now)

    # --- What others do to it -----------------------------------------------------------------------------------------

    def accept(self, now: float) -> None:
        """The call is taken. Raises IllegalTransitionError, as the others do, if it is not ringing."""
        self._enter(CallState.CONNECTED)
        self._connected_at = now
        self._caller.connect(now)
        self.note("connected", now)

    def reject(self, status_code: int, now: float) -> None:
        """The call is turned away with a SIP status."""
        self._enter(CallState.REJECTED)
        self.status_code = status_code
        self._over(EndReason("rejected", f"the call was rejected with {status_code}", by="model"), now)

    def refer(self, target_uri: str, now: float) -> None:
        """The caller is sent to somebody else."""
        self._enter(CallState.REFERRED)
        self.target_uri = target_uri
        self._over(EndReason("referred", "the caller was sent to somebody else", by="model"), now)

    def end(self, reason: EndReason, now: float) -> None:
        """The call ends, whether it was taken or still rang."""
        self._enter(CallState.ENDED)
        self._over(reason, now)

    def hang_up(self, now: float) -> None:
        """The caller puts the phone down."""
        self.end(_CALLER_HUNG_UP, now)

    def add_step(self, step: Step) -> bool:
        """Have the caller do one more thing; False if too much waits already."""
        return self._caller.add(step)

    def provide(self, request: SpeechRequest, utterance: Utterance | None) -> None:
        """Take the caller's speech; None says that it cannot be made."""
        self._caller.provide(request, utterance)

    def note(self, what: str, now: float, **details: Any) -> None:
        """Put down what happened; of very many events the oldest go."""
        self._events.append({"at": round(now - self._rang_at, 3), "event": what, **details})

    # --- Time ---------------------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether the call has ended, in whichever way."""
        return not TRANSITIONS[self.state]

    @property
    def due(self) -> float | None:
        """When `advance` must be called."""
        if self._connected_at is not None and not self.over:
            # One multiplication instead of a running sum, which would drift.
            return self._connected_at + self._frames * FRAME_SECONDS
        return self._drop_at if self.state is CallState.RINGING else None

    def advance(self, now: float, encoding: Encoding) -> list[CallerOutput]:
        """Let time pass: what the caller did and said, in frames of the format that the line has now."""
        if self.state is CallState.RINGING and now >= self._drop_at:
            self.end(_NO_ANSWER, now)
        outputs: list[CallerOutput] = []
        while not self.over and self._connected_at is not None and (due := self.due) is not None and due <= now:
            self._frames += 1
            if now - due > _MOST_FRAMES_AT_ONCE * FRAME_SECONDS:
                continue
            for output in self._caller.frame(due, self.ear, encoding):
                if isinstance(output, HangUp):
                    self.hang_up(due)
                    break
                self._note_output(output, due)
                outputs.append(output)
        return outputs

    # --- What it was --------------------------------------------------------------------------------------------------

    @property
    def steps_left(self) -> int:
        """Steps that the caller has not done."""
        return self._caller.steps_left

    def seconds(self, now: float) -> float:
        """How long the call was connected."""
        if self._connected_at is None:
            return 0.0
        return (now if self._over_at is None else self._over_at) - self._connected_at

    def heard(self, now: float) -> list[Heard]:
        """What the caller heard of the agent."""
        return self.ear.heard(now if self._over_at is None else min(now, self._over_at))

    def events(self) -> list[dict[str, Any]]:
        """What happened, with the seconds since it began to ring."""
        return list(self._events)

    def _note_output(self, output: CallerOutput, at: float) -> None:
        match output:
            case Said(text=text, made=True):
                self.note("caller_said", at, text=text)
            case Said(text=text):
                self.note("caller_mute", at, text=text)
            case Press(key=key):
                self.note("caller_pressed", at, key=key)
            case Hear() | HangUp() | _:
                pass

    def _enter(self, state: CallState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransitionError(f"a call cannot go from {self.state.value} to {state.value}")
        self.state = state

    def _over(self, reason: EndReason, now: float) -> None:
        self.end_reason = reason
        self._over_at = now
        self.ear.clear(now)
        self.note(self.state.value, now, reason=reason.code)
