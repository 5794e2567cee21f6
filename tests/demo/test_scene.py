"""The demo's scene against a scripted service on virtual time."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.demo.record import CallerView
from orchestrator.demo.scene import PATIENCE_MS, Lines, play
from orchestrator.errors import EndReason, LegConnectError
from orchestrator.simulator.carrier.phone_call import PhoneCall
from orchestrator.simulator.carrier.playout import is_loud
from orchestrator.testing import virtual_clock
from orchestrator.transports.base import Leg, LegListener, LegOptions
from orchestrator.transports.memory import memory_pair

URL = "ws://127.0.0.1/twilio/media"
VOICE = b"\x10"
LINES = Lines(question=VOICE * 8000, interruption=VOICE * 4000)


class OrderDesk(LegListener):
    """Answers a pause after speech with ten seconds of voice, and speech during that with `clear` and then a goodbye."""

    def __init__(self, *, greets: bool = False, clears: bool = True, answers: bool = True) -> None:
        self.greets, self.clears, self.answers = greets, clears, answers
        self.leg: Leg | None = None
        self.sid = ""
        self.heard_voice = self.heard_pause = 0
        self.turns = 0
        self.stopped = False

    async def dial(self, url: str, listener: LegListener, *, headers: Mapping[str, str] | None, options: LegOptions) -> Leg:
        return memory_pair(listener, self, options=options).client

    def on_open(self, leg: Leg) -> None:
        self.leg = leg

    def on_text(self, data: bytes) -> None:
        message = json.loads(data)
        if message["event"] == "start":
            self.sid = message["streamSid"]
            if self.greets:
                self.speak(1000)
        elif message["event"] == "media":
            self.listen(base64.b64decode(message["media"]["payload"]))
        elif message["event"] == "stop":
            self.stopped = True

    def on_binary(self, data: bytes) -> None:
        raise AssertionError("a carrier sends text only")

    def on_closed(self, reason: EndReason) -> None:
        del reason

    def listen(self, frame: bytes) -> None:
        if is_loud(frame):
            self.heard_voice += 1
            self.heard_pause = 0
            if self.turns == 1 and self.heard_voice == 5 and self.clears:
                self.send("clear")
            return
        self.heard_pause += 1
        if self.heard_voice and self.heard_pause == 20:
            self.heard_voice = 0
            self.turns += 1
            if self.answers:
                self.speak(10_000 if self.turns == 1 else 500)

    def speak(self, milliseconds: int) -> None:
        self.send("media", media={"payload": base64.b64encode(VOICE * (8 * milliseconds)).decode()})

    def send(self, event: str, **body: Any) -> None:
        assert self.leg is not None
        self.leg.send_text(json.dumps({"event": event, "streamSid": self.sid, **body}).encode())


def played(desk: OrderDesk) -> CallerView:
    told: list[str] = []

    async def scene() -> CallerView:
        view = await play(PhoneCall(URL, connect=desk.dial), LINES, told.append)
        # Nothing of the call goes on.
        await asyncio.sleep(10.0)
        return view

    view = virtual_clock.run(scene())
    assert told[0] == "dialling"
    return view


@pytest.mark.parametrize("greets", [False, True])
def test_asks_listens_interrupts_and_hangs_up(*, greets: bool) -> None:
    desk = OrderDesk(greets=greets)
    view = played(desk)
    assert view.trouble is None
    assert view.answered
    assert view.greeting_heard is greets
    assert view.answer_wait_ms == pytest.approx(400, abs=21)
    assert view.goodbye_wait_ms == pytest.approx(400, abs=21)
    assert view.cut is not None
    # It listens for two seconds, and the desk takes 100 ms to notice the interruption.
    assert view.cut.heard_ms == pytest.approx(PATIENCE_MS + 100, abs=41)
    assert view.cut.heard_ms + view.cut.dropped_ms == 10_000
    assert view.heard_ms == pytest.approx(view.cut.heard_ms + 500 + (1000 if greets else 0))
    assert view.hung_up
    assert desk.stopped
    assert view.violations == []


def test_notes_what_it_waited_for_in_vain() -> None:
    view = played(OrderDesk(answers=False))
    assert view.question_ended_ms is not None
    assert view.answer_began_ms is None
    assert view.trouble == "no voice of the agent within 30 s"
    assert not view.hung_up


def test_notes_an_agent_that_talks_on() -> None:
    view = played(OrderDesk(clears=False))
    assert view.answer_began_ms is not None
    assert view.cut is None
    assert view.trouble == "no `clear` within 5 s"


def test_notes_a_call_that_nobody_takes() -> None:
    async def refuse(url: str, listener: LegListener, *, headers: Mapping[str, str] | None, options: LegOptions) -> Leg:
        raise LegConnectError("the endpoint refused the upgrade (HTTP 503)", 503)

    view = virtual_clock.run(play(PhoneCall(URL, connect=refuse), LINES))
    assert not view.answered
    assert view.trouble is not None
    assert "HTTP 503" in view.trouble
