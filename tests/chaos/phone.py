"""A phone on a carrier's media stream: speaks in labelled frames, and listens to labelled sentences, one for each turn."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from orchestrator.errors import EndReason, LegConnectError
from orchestrator.simulator.carrier.line import CallIdentity, CarrierLine
from orchestrator.simulator.carrier.playout import FRAME_BYTES, FRAME_SECONDS
from orchestrator.simulator.carrier.webhook import PhoneCallError, ask_what_to_do
from orchestrator.transports.base import Leg, LegListener, LegOptions
from orchestrator.transports.opening import connect
from tests.chaos.callers import Call, LostCallError
from tests.chaos.labels import LABEL_BYTES, Label, Sentence, make_label, read_label
from tests.chaos.story import Story, Turn

__all__ = ["Phone"]

# Frames of a loud sound: what the endpoint takes for somebody who speaks.
LOUD_FRAMES = 30
_LOUD = (b"\x10\x90" * FRAME_BYTES)[: FRAME_BYTES - LABEL_BYTES]
_QUIET = b"\xff" * (FRAME_BYTES - LABEL_BYTES)
# Seconds before a frame that was heard last arrives at the model.
RUN_DRY = 1.0
_OPTIONS = LegOptions(open_timeout=30.0, close_timeout=10.0)


class Phone(Call, LegListener):
    """One phone call. It speaks, waits for one whole sentence, is silent for a moment, and speaks again."""

    def __init__(self, story: Story, *, port: int, seed: int, pace: float, patience: float) -> None:
        super().__init__(story, patience=patience)
        self._port = port
        self._random = random.Random(seed)
        self._pace = pace
        self._sentence = Sentence()
        self._leg: Leg | None = None
        self._turn: Turn | None = None
        self._loud = 0
        self._mute = False
        self._closed: asyncio.Future[EndReason] = asyncio.get_running_loop().create_future()
        self._answered = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._began_at = 0.0

    async def run(self) -> None:
        """Talk until told to stop."""
        try:
            await self._dial()
            await self._talk()
            await self._hang_up()
            self.story.over = True
        except (LostCallError, PhoneCallError, LegConnectError) as error:
            self.story.lost, self.story.lost_at = str(error), time.time()
            if self._leg is not None:
                self._leg.abort(EndReason("dropped", "the caller gave up", by="us"))
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._settle()

    async def _dial(self) -> None:
        identity = CallIdentity.new()
        form = {
            "AccountSid": identity.account_sid,
            "CallSid": identity.call_sid,
            "CallStatus": "ringing",
            "Direction": "inbound",
            "From": "+15005550006",
            "To": "+15005550001",
        }
        url = f"http://127.0.0.1:{self._port}/twilio/voice"
        target = await ask_what_to_do(url, form, timeout=30.0)
        self.story.reference = identity.call_sid
        self._line = CarrierLine(identity, target.parameters, on_frame=self._hear)
        self._leg = await connect(target.url, self, headers=None, options=_OPTIONS)
        self.story.began = True
        for message in self._line.open():
            self._leg.send_text(message)
        loop = asyncio.get_running_loop()
        self._began_at = loop.time() + self._random.uniform(0, FRAME_SECONDS)
        self._timer = loop.call_at(self._began_at, self._tick)

    async def _talk(self) -> None:
        number = 0
        while not self._stopping:
            await self._pause(0.3 + self._random.random() * 2 * self._pace)
            number += 1
            self._answered.clear()
            self._turn = self._asked(number, "spoken")
            self._loud = LOUD_FRAMES
            await self._wait_for_answer(number)
        await self._pause(RUN_DRY)
        self._mute = True
        await self._pause(RUN_DRY)

    async def _pause(self, seconds: float) -> None:
        """Stay on the line for a while."""
        await asyncio.wait({self._closed}, timeout=seconds)
        self._look()

    async def _wait_for_answer(self, number: int) -> None:
        waiter = asyncio.ensure_future(self._answered.wait())
        try:
            waits: set[asyncio.Future[Any]] = {waiter, self._closed}
            await asyncio.wait(waits, timeout=self._patience, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiter.cancel()
        self._look()
        if not self._answered.is_set():
            raise LostCallError(f"no answer to turn {number} within {self._patience:g} s")

    def _look(self) -> None:
        if self._closed.done():
            reason = self._closed.result()
            raise LostCallError(f"closed: {reason.code} {reason.text}".rstrip())

    async def _hang_up(self) -> None:
        assert self._leg is not None
        self._leg.send_text(self._line.stop())
        self._leg.close(1000)
        await self._leg.wait_closed()

    def _settle(self) -> None:
        self.story.cuts = self._sentence.broken_off
        for fault in self._sentence.faults:
            self._note(fault)
        if self._leg is not None:
            for violation in self._line.violations:
                self._note(f"{violation.code}: {violation.text}")
            dropped = self._leg.statistics().messages_dropped
            if dropped:
                self._note(f"{dropped} frames were not taken by the service in time")

    # LegListener

    def on_text(self, data: bytes) -> None:
        """Take one message of the service."""
        self._sign_of_life()
        clearings = len(self._line.playout.clearings)
        self._answer(self._line.receive_text(bytes(data), asyncio.get_running_loop().time()))
        if len(self._line.playout.clearings) > clearings:
            self._sentence.break_off()

    def on_binary(self, data: bytes) -> None:
        """Note what no service should send."""
        self._note(f"a binary message of {len(data)} bytes")

    def on_closed(self, reason: EndReason) -> None:
        """Note the end."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._closed.done():
            self._closed.set_result(reason)

    def _hear(self, frame: bytes, at: float) -> None:
        """A frame leaves for the ear."""
        del at
        complete = len(self._sentence.complete)
        self._sentence.take(read_label(frame))
        if len(self._sentence.complete) == complete:
            return
        if self._turn is None:
            self._note("an answer before anything was said")
            return
        self._turn.answers += 1
        self._turn.answered_at = self._turn.answered_at or time.time()
        self._answered.set()

    def _tick(self) -> None:
        assert self._leg is not None
        loop = asyncio.get_running_loop()
        now = loop.time()
        if not self._mute:
            rest = _LOUD if self._loud else _QUIET
            self._loud -= self._loud > 0
            label = make_label(Label(self.story.caller, self.story.frames_sent))
            self.story.frames_sent += 1
            self._leg.send_audio(self._line.frame(label + rest))
        self._answer(self._line.advance(now))
        self._began_at += FRAME_SECONDS
        self._timer = loop.call_at(self._began_at, self._tick)

    def _answer(self, messages: list[bytes]) -> None:
        if self._leg is not None:
            for message in messages:
                self._leg.send_text(message)
