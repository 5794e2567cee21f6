"""One model session on the clock of a loop: asks the machine, and does what it says.

`MachineRunner` does that for whoever listens, through an `Outlet`; an ordinary session is a leg listener that is the outlet of
its own runner, and a call (`phone/`) is one with any number of legs. A session costs a leg, a machine and one timer: no task,
no queue of its own. Speech that is not at hand is made in a thread, once, however many sessions wait for it. A test can put
`ModelSession` on an in-memory leg and under a virtual clock.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from orchestrator.errors import OrchestratorError
from orchestrator.simulator.endpoint.fault_effects import inject
from orchestrator.simulator.endpoint.outputs import Close, Recognize, Render
from orchestrator.transports import LegState
from orchestrator.wire.realtime import encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from orchestrator.errors import EndReason
    from orchestrator.simulator.endpoint.fault_effects import Inside
    from orchestrator.simulator.endpoint.outputs import Output, RecognitionRequest
    from orchestrator.simulator.endpoint.session_machine import SessionMachine
    from orchestrator.simulator.recognition import RecognitionDesk
    from orchestrator.simulator.speech import Speaker, SpeechRequest, Utterance
    from orchestrator.transports import Leg
    from orchestrator.wire.realtime import ServerEvent

__all__ = ["MachineRunner", "ModelSession", "Outlet", "SpeechDesk"]

INTERNAL_ERROR = 1011
WORK = (Render, Recognize, Close)

_log = logging.getLogger(__name__)


class SpeechDesk:
    """Gives out speech: at once where it is at hand, else when a thread of `pool` has made it. Lives on one loop.

    `recognition` is where what callers say is understood, if anywhere.
    """

    def __init__(self, speaker: Speaker, pool: Executor, recognition: RecognitionDesk | None = None) -> None:
        self.recognition = recognition
        self._speaker = speaker
        self._pool = pool
        self._waiting: dict[SpeechRequest, list[Callable[[Utterance | None], None]]] = {}

    def cached(self, request: SpeechRequest) -> Utterance | None:
        """The utterance if it is at hand."""
        return self._speaker.cached(request)

    def order(self, request: SpeechRequest, deliver: Callable[[Utterance | None], None]) -> None:
        """Have it made; `deliver` is called on the loop, with None if it cannot be made."""
        waiting = self._waiting.get(request)
        if waiting is not None:
            waiting.append(deliver)
            return
        self._waiting[request] = [deliver]
        made = asyncio.get_running_loop().run_in_executor(self._pool, self._speaker.render, request)
        made.add_done_callback(lambda future: self._hand_out(request, future))

    def _hand_out(self, request: SpeechRequest, future: asyncio.Future[Utterance]) -> None:
        utterance: Utterance | None = None
        if not future.cancelled():
            fault = future.exception()
            if fault is None:
                utterance = future.result()
            else:
                # Not the text: what is said in a call belongs in no log.
                why = fault.message if isinstance(fault, OrchestratorError) else type(fault).__name__
                _log.error("no speech could be made: %s", why)
        for deliver in self._waiting.pop(request):
            # One by one: where one session fails, the others still get theirs.
            future.get_loop().call_soon(deliver, utterance)


class Outlet(Protocol):
    """Where the events of a session go. Called on the loop; must not block."""

    @property
    def live(self) -> bool:
        """Whether the session still goes on. Afterwards the machine is asked nothing more."""

    def emit(self, event: ServerEvent) -> None:
        """Take the next event."""

    def flush(self) -> None:
        """Let go of events that were taken, if some are held back: for now there are no more."""

    def finish(self, code: int, reason: str) -> None:
        """The session is over: close whatever is open with this code. Nothing is emitted after it."""


class MachineRunner:
    """Keeps a machine going: hands its output out, has its speech made, and wakes it up in time."""

    def __init__(self, machine: SessionMachine, desk: SpeechDesk, outlet: Outlet) -> None:
        self.machine = machine
        self._desk = desk
        self._outlet = outlet
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at: float | None = None
        self._doing: list[Output] | None = None

    def perform(self, outputs: list[Output]) -> None:
        """Do what the machine has said, and set the timer anew. The list is the runner's from now on."""
        if self._doing is not None:
            # An event that was emitted has led back here, as one does with which a fault happens.
            self._doing += outputs
            return
        if not outputs:
            # So it is for nearly all audio: nothing happens, and at most the clock of the session has moved.
            self.set_timer()
            return
        if not self._outlet.live:
            return
        self._doing = outputs
        try:
            self._do(outputs)
        finally:
            self._doing = None
        self.set_timer()

    def _do(self, outputs: list[Output]) -> None:
        outlet = self._outlet
        # What follows from an output comes after the others, so the list grows while it is read.
        for done, output in enumerate(outputs, 1):
            if not isinstance(output, WORK):
                outlet.emit(output)
            elif isinstance(output, Render):
                utterance = self._desk.cached(output.request)
                if utterance is None:
                    self._order(output.request)
                else:
                    outputs.extend(self.machine.provide(output.request, utterance, self._loop.time()))
            elif isinstance(output, Recognize):
                self._recognize(output.request)
            else:
                outlet.finish(output.code, output.reason)
            if done == len(outputs):
                outlet.flush()

    def ask(self, question: Callable[[float], list[Output]]) -> None:
        """Ask the machine from outside its outlet's own callbacks. Should it fail, the session ends with 1011."""
        if not self._outlet.live:
            return
        try:
            self.perform(question(self._loop.time()))
        except Exception:
            self._outlet.finish(INTERNAL_ERROR, "internal error")
            raise

    def inject(self, effect: Inside) -> None:
        """Have a fault happen inside the session."""
        self.ask(lambda now: inject(self.machine, effect, now))

    def set_timer(self) -> None:
        """Wake up when the machine is due: one timer, which moves only if something else has become the next."""
        due = self.machine.due if self._outlet.live else None
        if due == self._wakes_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._wake, due)
        self._wakes_at = due

    def _order(self, request: SpeechRequest) -> None:
        def deliver(utterance: Utterance | None) -> None:
            self.ask(lambda now: self.machine.provide(request, utterance, now))

        self._desk.order(request, deliver)

    def _recognize(self, request: RecognitionRequest) -> None:
        def deliver(text: str | None) -> None:
            self.ask(lambda now: self.machine.recognized(request, text, now))

        recognition = self._desk.recognition
        if recognition is None:
            # Later, as where there is one: the machine does not expect the answer within its own call.
            self._loop.call_soon(deliver, None)
        else:
            recognition.order(request.audio, request.encoding, deliver)

    def _wake(self, due: float) -> None:
        self._timer = self._wakes_at = None
        # A loop may run a timer early by the resolution of its clock.
        self.ask(lambda now: self.machine.advance(max(due, now)))


class ModelSession:
    """Listens to the leg of one client. `on_frame` hears every frame that is sent."""

    def __init__(self, machine: SessionMachine, desk: SpeechDesk, on_frame: Callable[[bytes], None] | None = None) -> None:
        self._machine = machine
        self._runner = MachineRunner(machine, desk, self)
        self._on_frame = on_frame
        self._leg: Leg | None = None
        self._loop = asyncio.get_running_loop()

    # --- LegListener --------------------------------------------------------------------------------------------------

    def on_open(self, leg: Leg) -> None:
        """The session begins."""
        self._leg = leg
        self._runner.perform(self._machine.start(self._loop.time()))

    def on_text(self, data: bytes) -> None:
        """Hand an event to the machine."""
        # Also where nothing is said to it: audio that is held back, to be heard in real time, needs the timer.
        self._runner.perform(self._machine.receive_text(data, self._loop.time()))

    def on_binary(self, _: bytes) -> None:
        """The API has no binary messages; the machine says so."""
        self._runner.perform(self._machine.receive_binary(self._loop.time()))

    def on_closed(self, _: EndReason) -> None:
        """The session is over, whatever it was doing."""
        self._leg = None
        self._runner.set_timer()

    # --- FaultTarget --------------------------------------------------------------------------------------------------

    def inject(self, effect: Inside) -> None:
        """Have a fault happen inside the session."""
        self._runner.inject(effect)

    # --- Outlet -------------------------------------------------------------------------------------------------------

    @property
    def live(self) -> bool:
        """Whether the leg is open."""
        return self._leg is not None and self._leg.state is LegState.OPEN

    def emit(self, event: ServerEvent) -> None:
        """Send an event to the client."""
        data = encode(event)
        if self._on_frame is not None:
            self._on_frame(data)
        if self._leg is not None:
            self._leg.send_text(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def finish(self, code: int, reason: str) -> None:
        """Close the leg."""
        if self._leg is not None:
            self._leg.close(code, reason)
