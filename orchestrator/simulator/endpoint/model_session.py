"""One model session on a leg and on the clock of a loop: asks the machine, and does what it says.

A session costs a leg, a machine and one timer: no task, no queue of its own. Speech that is not at hand is made in a thread,
once, however many sessions wait for it. `ModelSession` is an ordinary leg listener, so a test can put it on an in-memory leg
and under a virtual clock.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from orchestrator.errors import OrchestratorError
from orchestrator.simulator.endpoint.session_machine import Close, Render, SessionMachine
from orchestrator.transports import LegState
from orchestrator.wire.realtime import encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from orchestrator.errors import EndReason
    from orchestrator.simulator.endpoint.session_machine import Output
    from orchestrator.simulator.speech import Speaker, SpeechRequest, Utterance
    from orchestrator.transports import Leg

__all__ = ["ModelSession", "SpeechDesk"]

INTERNAL_ERROR = 1011

_log = logging.getLogger(__name__)


class SpeechDesk:
    """Gives out speech: at once where it is at hand, else when a thread of `pool` has made it. Lives on one loop."""

    def __init__(self, speaker: Speaker, pool: Executor) -> None:
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
            deliver(utterance)


class ModelSession:
    """Listens to the leg of one client. `on_frame` hears every frame that is sent."""

    def __init__(self, machine: SessionMachine, desk: SpeechDesk, on_frame: Callable[[bytes], None] | None = None) -> None:
        self._machine = machine
        self._desk = desk
        self._on_frame = on_frame
        self._leg: Leg | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._wakes_at: float | None = None

    def on_open(self, leg: Leg) -> None:
        """The session begins."""
        self._leg = leg
        self._perform(self._machine.start(self._loop.time()))

    def on_text(self, data: bytes) -> None:
        """Hand an event to the machine."""
        # Most are audio that nothing follows from; a timer is never needed earlier because of one.
        if outputs := self._machine.receive_text(data, self._loop.time()):
            self._perform(outputs)

    def on_binary(self, _: bytes) -> None:
        """The API has no binary messages; the machine says so."""
        self._perform(self._machine.receive_binary(self._loop.time()))

    def on_closed(self, _: EndReason) -> None:
        """The session is over, whatever it was doing."""
        self._leg = None
        self._set_timer()

    def _perform(self, outputs: list[Output]) -> None:
        leg = self._leg
        if leg is None:
            return
        waiting = deque(outputs)
        while waiting:
            output = waiting.popleft()
            if isinstance(output, Render):
                utterance = self._desk.cached(output.request)
                if utterance is None:
                    self._order(output.request)
                else:
                    waiting.extend(self._machine.provide(output.request, utterance, self._loop.time()))
            elif isinstance(output, Close):
                leg.close(output.code, output.reason)
            else:
                data = encode(output)
                if self._on_frame is not None:
                    self._on_frame(data)
                leg.send_text(data)
        self._set_timer()

    def _order(self, request: SpeechRequest) -> None:
        def deliver(utterance: Utterance | None) -> None:
            self._guarded(lambda now: self._machine.provide(request, utterance, now))

        self._desk.order(request, deliver)

    def _set_timer(self) -> None:
        """Wake up when the machine is due: one timer, which moves only if something else has become the next."""
        due = self._machine.due if self._leg is not None and self._leg.state is LegState.OPEN else None
        if due == self._wakes_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if due is None else self._loop.call_at(due, self._wake, due)
        self._wakes_at = due

    def _wake(self, due: float) -> None:
        self._timer = self._wakes_at = None
        # A loop may run a timer early by the resolution of its clock.
        self._guarded(lambda now: self._machine.advance(max(due, now)))

    def _guarded(self, ask: Callable[[float], list[Output]]) -> None:
        """Ask the machine from outside the leg, which itself ends a session whose listener raises."""
        if self._leg is None:
            return
        try:
            self._perform(ask(self._loop.time()))
        except Exception:
            self._leg.close(INTERNAL_ERROR, "internal error")
            raise
