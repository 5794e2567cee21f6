"""A call from ringing to its end, with every other thing that could be tried in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from orchestrator.errors import EndReason, IllegalTransitionError
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.outputs import Render
from orchestrator.simulator.phone.call import MOST_EVENTS, TRANSITIONS, CallState, PhoneCall
from orchestrator.simulator.phone.caller import Hear, Press
from orchestrator.simulator.phone.order import PhoneOrder
from tests.simulator.support import tone

MULAW = Encoding.MULAW
GONE = EndReason("hung_up", by="model")


def call(*says: dict[str, Any]) -> PhoneCall:
    order = msgspec.convert({"webhook_url": "http://localhost/", "says": says}, PhoneOrder)
    return PhoneCall(order, "en-us", now=100.0, ring_seconds=30.0)


def names(phone: PhoneCall) -> list[tuple[float, str]]:
    return [(event["at"], event["event"]) for event in phone.events()]


def test_it_rings_until_nobody_takes_it() -> None:
    phone = call()
    assert phone.due == 130.0
    assert phone.advance(129.9, MULAW) == []
    assert phone.state is CallState.RINGING
    assert phone.advance(130.0, MULAW) == []
    assert phone.end_reason is not None
    assert phone.end_reason.code == "no_answer"
    assert phone.due is None
    assert names(phone) == [(0.0, "ringing"), (30.0, "ended")]
    assert phone.seconds(200.0) == 0.0


def test_connected_it_carries_a_frame_every_20_ms() -> None:
    phone = call()
    phone.accept(101.0)
    assert phone.due == 101.0
    outputs = phone.advance(101.05, MULAW)
    assert outputs == [Hear(b"\xff" * 160)] * 3
    assert phone.due == pytest.approx(101.06)
    assert phone.seconds(103.0) == 2.0


def test_a_loop_that_stood_still_loses_the_audio_in_between() -> None:
    phone = call()
    phone.accept(100.0)
    outputs = phone.advance(160.0, MULAW)
    assert 40 < len(outputs) < 60
    assert phone.due == pytest.approx(160.02)


def test_the_script_is_done_in_order_and_noted() -> None:
    phone = call({"text": "hi", "after_seconds": 0}, {"dtmf": "7", "after_seconds": 0}, {"hang_up": True, "after_seconds": 0.5})
    phone.accept(100.0)
    pressed = []
    while (due := phone.due) is not None:
        for output in phone.advance(due, MULAW):
            if isinstance(output, Render):
                phone.provide(output.request, tone(output.request))
            if isinstance(output, Press):
                pressed.append(output.key)
    assert pressed == ["7"]
    assert phone.end_reason is not None
    assert (phone.end_reason.code, phone.end_reason.by) == ("caller_hung_up", "caller")
    assert [what for _, what in names(phone)] == ["ringing", "connected", "caller_said", "caller_pressed", "ended"]
    assert phone.steps_left == 0


def test_what_the_agent_said_beyond_the_end_was_not_heard() -> None:
    phone = call()
    phone.accept(100.0)
    phone.ear.read("a", "one two three four")
    phone.ear.play("a", 4.0, now=100.0)
    phone.end(GONE, 102.0)
    assert [(item.transcript, item.ms) for item in phone.heard(500.0)] == [("one two", 2000)]
    assert phone.seconds(500.0) == 2.0


DOINGS: dict[str, Callable[[PhoneCall], None]] = {
    "accept": lambda phone: phone.accept(101.0),
    "reject": lambda phone: phone.reject(486, 101.0),
    "refer": lambda phone: phone.refer("tel:+1", 101.0),
    "end": lambda phone: phone.end(GONE, 101.0),
    "hang_up": lambda phone: phone.hang_up(101.0),
}
REACHED = {
    "accept": CallState.CONNECTED,
    "reject": CallState.REJECTED,
    "refer": CallState.REFERRED,
    "end": CallState.ENDED,
    "hang_up": CallState.ENDED,
}


def in_state(state: CallState) -> PhoneCall:
    phone = call()
    if state in (CallState.CONNECTED, CallState.REFERRED):
        phone.accept(100.5)
    if state is CallState.REFERRED:
        phone.refer("sip:a@b", 100.6)
    if state is CallState.REJECTED:
        phone.reject(603, 100.5)
    if state is CallState.ENDED:
        phone.end(GONE, 100.5)
    assert phone.state is state
    return phone


@pytest.mark.parametrize("state", list(CallState))
@pytest.mark.parametrize("doing", list(DOINGS))
def test_only_what_the_table_lists_can_happen(state: CallState, doing: str) -> None:
    phone = in_state(state)
    before = (phone.state, phone.status_code, phone.target_uri, phone.end_reason, phone.events())
    if REACHED[doing] in TRANSITIONS[state]:
        DOINGS[doing](phone)
        assert phone.state is REACHED[doing]
        assert phone.over == (doing != "accept")
    else:
        with pytest.raises(IllegalTransitionError):
            DOINGS[doing](phone)
        assert (phone.state, phone.status_code, phone.target_uri, phone.end_reason, phone.events()) == before


def test_a_rejected_call_says_with_what_and_one_referred_to_whom() -> None:
    assert in_state(CallState.REJECTED).status_code == 603
    assert in_state(CallState.REFERRED).target_uri == "sip:a@b"


def test_of_very_many_events_the_oldest_go() -> None:
    phone = call()
    for number in range(MOST_EVENTS + 3):
        phone.note("sideband_left", 100.0 + number)
    assert len(phone.events()) == MOST_EVENTS
    assert phone.events()[0]["at"] == 3.0
