"""A session on a phone call: the endpoint plays what it says, knows what was heard, and cuts the rest off by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from orchestrator.errors import WireError
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.endpoint.outputs import Close
from orchestrator.simulator.scenario import parse_scenario
from tests.simulator.support import UNIX_TIME, Driver, error_of, loud, of_type, only, quiet, types

ANSWER = "The first answer has quite a few words in it."
SECONDS = len(ANSWER) * 0.05
STARTED, STOPPED, CLEARED = (f"output_audio_buffer.{name}" for name in ("started", "stopped", "cleared"))


@pytest.fixture
def call(drive: Callable[..., Driver]) -> Driver:
    return drive(in_call=True)


def asked(call: Driver) -> list[dict[str, Any]]:
    """A turn that is answered aloud; the answer has not begun."""
    return call.hear(quiet(100) + loud(600) + quiet(400))


def times_of(driver: Driver, type_: str) -> list[float]:
    return [time for event, time in zip(driver.events, driver.times, strict=True) if event["type"] == type_]


def truncations(events: Sequence[Any]) -> list[tuple[str, int]]:
    return [(event["item_id"], event["audio_end_ms"]) for event in of_type(events, "conversation.item.truncated")]


def test_audio_of_the_phone_is_heard_as_that_of_a_socket_is(call: Driver) -> None:
    names = types(asked(call))
    assert names[:3] == [f"input_audio_buffer.{name}" for name in ("speech_started", "speech_stopped", "committed")]
    assert names[-1] == "response.created"


def test_the_output_buffer_starts_with_the_first_audio_and_stops_when_all_was_played(call: Driver) -> None:
    asked(call)
    events = call.run()
    names = types(events)
    response_id = only(events, "response.done")["response"]["id"]
    assert names.index("response.content_part.added") < names.index(STARTED) < names.index("response.output_audio.delta")
    assert names.index("response.done") < names.index(STOPPED)
    assert only(events, STARTED)["response_id"] == only(events, STOPPED)["response_id"] == response_id
    assert times_of(call, STOPPED)[0] == pytest.approx(times_of(call, STARTED)[0] + SECONDS)


def test_a_socket_is_told_nothing_of_playback(driver: Driver) -> None:
    driver.ask("first question")
    driver.append(loud(300))
    assert not any(name.startswith("output_audio_buffer") for name in types(driver.events))


def test_speech_into_the_answer_cancels_clears_and_truncates_at_what_was_heard(call: Driver) -> None:
    asked(call)
    call.wait(0.3 + 0.15)
    events = call.hear(loud(100))
    names = types(events)
    assert names[0] == "input_audio_buffer.speech_started"
    assert names[-4:] == ["response.done", "rate_limits.updated", CLEARED, "conversation.item.truncated"]
    item = only(events, "response.done")["response"]["output"][0]
    assert truncations(events) == [(item["id"], 150)]
    content = call.send("conversation.item.retrieve", item_id=item["id"])[0]["item"]["content"][0]
    assert "transcript" not in content
    later = call.run()
    assert STOPPED not in types(later)


def test_speech_after_the_response_is_done_and_before_it_was_heard_cuts_it_off(call: Driver) -> None:
    asked(call)
    call.wait(0.3 + 1.0)
    done = only(call.events, "response.done")["response"]
    events = call.hear(loud(100))
    assert types(events) == ["input_audio_buffer.speech_started", CLEARED, "conversation.item.truncated"]
    assert truncations(events) == [(done["output"][0]["id"], 1000)]


def test_speech_after_all_was_heard_cuts_nothing(call: Driver) -> None:
    asked(call)
    call.run()
    assert types(call.hear(loud(100))) == ["input_audio_buffer.speech_started"]


def test_without_interruption_the_phone_plays_on(call: Driver) -> None:
    call.update(audio={"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}})
    asked(call)
    call.wait(0.5)
    assert types(call.hear(loud(100))) == ["input_audio_buffer.speech_started"]
    assert only(call.run(), STOPPED)


def test_a_cancel_lets_play_what_was_said_and_a_clear_stops_it(call: Driver) -> None:
    asked(call)
    call.wait(0.3 + 0.1)
    call.send("response.cancel")
    events = call.send("output_audio_buffer.clear")
    assert types(events) == [CLEARED, "conversation.item.truncated"]
    assert truncations(events)[0][1] == 100
    assert call.send("output_audio_buffer.clear") == []
    assert STOPPED not in types(call.run())


def test_after_a_cancel_alone_the_buffer_drains(call: Driver) -> None:
    asked(call)
    call.wait(0.3 + 0.1)
    said = len(of_type(call.events, "response.output_audio.delta")) * 0.2
    call.send("response.cancel")
    call.run()
    assert times_of(call, STOPPED)[0] == pytest.approx(times_of(call, STARTED)[0] + said)


def test_a_clear_in_the_middle_of_a_response_mutes_the_rest_of_it(call: Driver) -> None:
    asked(call)
    call.wait(0.3 + 0.1)
    call.send("output_audio_buffer.clear")
    events = call.run()
    assert of_type(events, "response.output_audio.delta") == []
    assert only(events, "response.done")["response"]["status"] == "completed"
    call.hear(loud(600) + quiet(400))
    assert types(call.run()).count(STARTED) == 1


def test_a_second_answer_starts_when_the_first_was_heard(call: Driver) -> None:
    for _ in range(2):
        call.say("first question")
        call.send("response.create")
        call.wait(1.0)
    call.run()
    starts, stops = times_of(call, STARTED), times_of(call, STOPPED)
    assert starts[0] == pytest.approx(0.3)
    assert starts[1] == pytest.approx(stops[0])
    assert stops[1] == pytest.approx(starts[0] + 2 * SECONDS)


def test_what_was_never_heard_is_truncated_to_nothing(drive: Callable[..., Driver]) -> None:
    call = drive(in_call=True, options=ModelOptions(timing=Timing(pace=0)))
    call.say("the third question")
    call.send("response.create")
    call.wait(0.3 + 0.1)
    first, second = only(call.events, "response.done")["response"]["output"]
    assert truncations(call.hear(loud(100))) == [(first["id"], 100), (second["id"], 0)]


def test_an_item_that_was_deleted_is_not_truncated(call: Driver) -> None:
    asked(call)
    item = only(call.wait(0.3 + 0.1), "response.output_item.added")["item"]
    call.send("conversation.item.delete", item_id=item["id"])
    events = call.hear(loud(100))
    assert types(events)[-1] == CLEARED


@pytest.mark.parametrize("key", list("0123456789*#ABCD"))
def test_keys_of_the_phone_are_reported_with_their_time(call: Driver, key: str) -> None:
    call.wait(12.5)
    event = only(call.dtmf(key), "input_audio_buffer.dtmf_event_received")
    assert (event["event"], event["received_at"]) == (key, int(UNIX_TIME) + 12)


@pytest.mark.parametrize("key", ["", "E", "12", "\n"])
def test_what_is_no_key_is_refused(call: Driver, key: str) -> None:
    with pytest.raises(WireError, match="one of 0123456789"):
        call.dtmf(key)


def test_every_socket_that_joins_is_greeted(call: Driver) -> None:
    first = call.events[0]
    again = only(call.attach(), "session.created")
    assert again["session"] == first["session"]
    assert again["event_id"] != first["event_id"]


@pytest.mark.parametrize("code", [1000, 4001])
def test_the_end_of_the_call_closes_everything(drive: Callable[..., Driver], code: int) -> None:
    call = drive(in_call=True, options=ModelOptions(call_end_code=code))
    asked(call)
    assert call.end() == []
    assert call.closed == Close(code, "")
    assert call.machine.due is None
    assert call.run() == call.hear(loud(500)) == call.send("response.create") == call.attach() == call.end() == []


def test_a_call_may_speak_as_phones_do(drive: Callable[..., Driver]) -> None:
    call = drive(parse_scenario("name: x\ndefault: {do: [{say: hello}]}"), in_call=True)
    mulaw = {"type": "audio/pcmu"}
    call.update(audio={"input": {"format": mulaw}, "output": {"format": mulaw}})
    call.hear(loud(600, Encoding.MULAW) + quiet(400, Encoding.MULAW))
    assert only(call.run(), STARTED)


def test_a_sideband_may_append_and_is_told_of_its_faults(call: Driver) -> None:
    assert error_of(call.send("input_audio_buffer.append", audio="?"))["code"] == "invalid_value"
