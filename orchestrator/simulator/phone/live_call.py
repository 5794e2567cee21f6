"""A call on the clock of a loop: a phone on one side, a model session in the middle, any number of sockets beside it.

The session's events go to every socket, but for the audio, which goes into the caller's ear. One timer for the phone, one for
the machine; no task.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.errors import EndReason
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.model_session import INTERNAL_ERROR, WORK, MachineRunner
from orchestrator.simulator.endpoint.outputs import Render
from orchestrator.simulator.endpoint.session_config import encoding_of
from orchestrator.simulator.endpoint.session_view import SessionView
from orchestrator.simulator.phone.caller import Hear, Press
from orchestrator.wire.realtime import (
    AudioOutputConfig,
    OutputAudioBufferCleared,
    OutputAudioBufferStarted,
    OutputAudioBufferStopped,
    ResponseAudioConfig,
    ResponseCreated,
    ResponseDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioTranscriptDelta,
    SessionCreated,
    SessionUpdated,
    base64_length,
    encode,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.endpoint.fault_effects import Inside
    from orchestrator.simulator.endpoint.model_session import SpeechDesk
    from orchestrator.simulator.endpoint.outputs import Output
    from orchestrator.simulator.endpoint.session_machine import SessionMachine
    from orchestrator.simulator.phone.call import PhoneCall
    from orchestrator.simulator.phone.caller import CallerOutput
    from orchestrator.simulator.phone.order import Step
    from orchestrator.simulator.speech import SpeechRequest
    from orchestrator.transports import Leg
    from orchestrator.wire.realtime import ServerEvent

__all__ = ["LiveCall", "Sideband"]

GOING_AWAY = 1001
MOST_SIDEBANDS = 16


class LiveCall:
    """Owns the timers of one call. `on_frame` hears every frame that goes to sockets."""

    def __init__(
        self,
        call_id: str,
        phone: PhoneCall,
        desk: SpeechDesk,
        on_frame: Callable[[bytes], None] | None,
    ) -> None:
        self.call_id = call_id
        self.phone = phone
        self._desk = desk
        self._on_frame = on_frame
        self._loop = asyncio.get_running_loop()
        # From accept to the end of the session. A call is remembered for long after that, which its audio need not be.
        self._runner: MachineRunner | None = None
        self._line: Encoding | None = None
        self._formats: dict[str, Encoding] = {}
        self._legs: list[Leg] = []
        self._timer: asyncio.TimerHandle | None = None
        self._set_timer()

    @property
    def sidebands(self) -> int:
        """How many sockets are open beside the call."""
        return len(self._legs)

    # --- What happens to the call -------------------------------------------------------------------------------------

    def accept(self, machine: SessionMachine) -> None:
        """Take the call, with a session in call mode that has not begun. Raises IllegalTransitionError if it does not ring."""
        now = self._loop.time()
        self.phone.accept(now)
        self._runner = MachineRunner(machine, self._desk, self)
        self._line = _input_encoding(machine)
        self._runner.perform(machine.start(now))
        self._set_timer()

    def reject(self, status_code: int) -> None:
        """Turn the call away. Raises IllegalTransitionError if it does not ring."""
        self.phone.reject(status_code, self._loop.time())
        self._finish()

    def refer(self, target_uri: str) -> None:
        """Send the caller to somebody else. Raises IllegalTransitionError if the call is not connected."""
        self.phone.refer(target_uri, self._loop.time())
        self._finish()

    def end(self, reason: EndReason) -> None:
        """End the call. Raises IllegalTransitionError if it is over."""
        self.phone.end(reason, self._loop.time())
        self._finish()

    def hang_up(self) -> None:
        """The caller puts the phone down. Raises IllegalTransitionError if the call is over."""
        self.phone.hang_up(self._loop.time())
        self._finish()

    def say(self, step: Step) -> bool:
        """Have the caller do one more thing; False if too much waits already."""
        return self.phone.add_step(step)

    def press(self, keys: str) -> None:
        """Have the caller press keys (0-9, *, # and A-D) now; before the call is taken nobody hears it."""
        for key in keys:
            self._press(key)

    def abort(self) -> None:
        """The server goes: drop the sockets with 1001. Does nothing to a call that is over."""
        if not self.phone.over:
            self.phone.end(EndReason("going_away", "the server is going away"), self._loop.time())
            self._close(GOING_AWAY, "the server is going away")
            self._set_timer()

    # --- Sockets beside it --------------------------------------------------------------------------------------------

    def attach(self, leg: Leg) -> None:
        """A socket joins: it alone is told what the session is."""
        runner = self._runner
        if runner is None or len(self._legs) >= MOST_SIDEBANDS:
            leg.close(GOING_AWAY, "the call is over" if self.phone.over else "too many sockets beside this call")
            return
        now = self._loop.time()
        outputs = runner.machine.attach(now)
        # What was due goes to the others first: the new one begins with session.created.
        begins = next((index for index, output in enumerate(outputs) if isinstance(output, SessionCreated)), len(outputs))
        greeting = [output for output in outputs[begins:] if not isinstance(output, WORK)]
        runner.perform(outputs[:begins])
        if not self.live:
            leg.close(GOING_AWAY, "the call is over")
            return
        for event in greeting:
            self._send(event, [leg])
        self._legs.append(leg)
        self.phone.note("sideband_attached", now)

    def detach(self, leg: Leg) -> None:
        """A socket has gone; the call goes on."""
        if leg in self._legs:
            self._legs.remove(leg)
            self.phone.note("sideband_left", self._loop.time())

    def receive_text(self, data: bytes) -> None:
        """A socket sent an event."""
        self._ask(lambda machine, now: machine.receive_text(data, now))

    def inject(self, effect: Inside) -> None:
        """Have a fault happen inside the session."""
        if self._runner is not None:
            self._runner.inject(effect)

    def receive_binary(self) -> None:
        """A socket sent what it should not."""
        self._ask(lambda machine, now: machine.receive_binary(now))

    # --- Outlet -------------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether the session goes on."""
        return self._runner is not None

    def emit(self, event: ServerEvent) -> None:
        """Pass an event to the sockets, or into the caller's ear."""
        now = self._loop.time()
        match event:
            case ResponseOutputAudioDelta():
                self._hear(event, now)
                return
            case ResponseCreated():
                self._formats[str(event.response.id)] = _output_encoding(event)
            case ResponseDone():
                self._formats.pop(str(event.response.id), None)
            case ResponseOutputAudioTranscriptDelta():
                self.phone.ear.read(event.item_id, event.delta)
            case OutputAudioBufferStarted():
                self.phone.note("agent_started", now)
            case OutputAudioBufferStopped():
                self.phone.note("agent_stopped", now)
            case OutputAudioBufferCleared():
                self.phone.ear.clear(now)
                self.phone.note("agent_cut_off", now)
            case SessionUpdated() if self._runner is not None:
                self._line = _input_encoding(self._runner.machine)
        self._send(event, self._legs)

    def flush(self) -> None:
        """Nothing is held back."""

    def finish(self, code: int, reason: str) -> None:
        """The session is over, and the call with it."""
        self._close(code, reason)
        if not self.phone.over:
            text = reason or "the model session ended"
            self.phone.end(EndReason("session_ended", text, by="model"), self._loop.time())
            self._set_timer()

    # --- The phone ----------------------------------------------------------------------------------------------------

    def _hear(self, event: ResponseOutputAudioDelta, now: float) -> None:
        encoding = self._formats.get(event.response_id)
        if encoding is not None:
            self.phone.ear.play(event.item_id, base64_length(event.delta) / encoding.bytes_per_ms / 1000, now)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = self.phone.due
        self._timer = None if due is None else self._loop.call_at(due, self._wake, due)

    def _wake(self, due: float) -> None:
        self._timer = None
        try:
            # A loop may run a timer early by the resolution of its clock.
            now = max(due, self._loop.time())
            for output in self.phone.advance(now, self._line or Encoding.MULAW):
                self._perform(output)
        except Exception:
            self.finish(INTERNAL_ERROR, "internal error")
            raise
        if self.phone.over:
            self._finish()
        else:
            self._set_timer()

    def _perform(self, output: CallerOutput) -> None:
        match output:
            case Hear(audio=audio):
                self._ask(lambda machine, now: machine.hear(audio, now))
            case Press(key=key):
                self._press(key)
            case Render(request=request):
                self._order(request)

    def _press(self, key: str) -> None:
        self._ask(lambda machine, now: machine.dtmf(key, now))

    def _ask(self, question: Callable[[SessionMachine, float], list[Output]]) -> None:
        """Ask the session, if there is one. Should it fail, the call is over: half a session is of use to nobody beside it."""
        if self._runner is not None:
            self._runner.ask(partial(question, self._runner.machine))

    def _order(self, request: SpeechRequest) -> None:
        utterance = self._desk.cached(request)
        if utterance is not None:
            self.phone.provide(request, utterance)
        else:
            self._desk.order(request, partial(self.phone.provide, request))

    # --- The end ------------------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """The phone is down: end the session."""
        self._ask(lambda machine, now: machine.end(now))
        self._set_timer()

    def _close(self, code: int, reason: str) -> None:
        runner, self._runner = self._runner, None
        legs, self._legs = self._legs, []
        for leg in legs:
            leg.close(code, reason)
        if runner is not None:
            runner.set_timer()

    def _send(self, event: ServerEvent, legs: list[Leg]) -> None:
        if not legs:
            return
        data = encode(event)
        if self._on_frame is not None:
            self._on_frame(data)
        for leg in tuple(legs):
            leg.send_text(data)


class Sideband:
    """Listens to one socket beside a call."""

    def __init__(self, call: LiveCall) -> None:
        self._call = call
        self._leg: Leg | None = None

    def on_open(self, leg: Leg) -> None:
        """Join the call."""
        self._leg = leg
        self._call.attach(leg)

    def on_text(self, data: bytes) -> None:
        """Hand an event to the session."""
        self._call.receive_text(data)

    def on_binary(self, _: bytes) -> None:
        """The API has no binary messages."""
        self._call.receive_binary()

    def on_closed(self, _: EndReason) -> None:
        """Leave the call."""
        if self._leg is not None:
            self._call.detach(self._leg)

    def inject(self, effect: Inside) -> None:
        """Have a fault happen inside the session of the call."""
        self._call.inject(effect)


def _input_encoding(machine: SessionMachine) -> Encoding:
    return SessionView(machine.session).input_encoding


def _output_encoding(event: ResponseCreated) -> Encoding:
    audio = event.response.audio
    output = audio.output if isinstance(audio, ResponseAudioConfig) else None
    return encoding_of(output.format if isinstance(output, AudioOutputConfig) else None)
