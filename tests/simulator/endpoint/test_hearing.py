"""Words that somebody recognises: they take their time, and the conversation waits for them in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.simulator.endpoint.hearing import MOST_WAITING
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.outputs import RecognitionRequest
from tests.simulator.support import LOOKUP, Driver, as_base64, loud, of_type, only, quiet, types

COMPLETED = "conversation.item.input_audio_transcription.completed"


@pytest.fixture
def hearing(drive: Callable[..., Driver]) -> Driver:
    driver = drive(options=ModelOptions(recognition=True))
    driver.update(output_modalities=["text"], audio={"input": {"transcription": {"model": "whisper-1"}}})
    return driver


def said(driver: Driver) -> list[str]:
    return [event["text"] for event in of_type(driver.events, "response.output_text.done")]


def test_a_response_is_announced_and_waits_for_the_words(hearing: Driver) -> None:
    events = hearing.speak()
    assert types(events)[-1] == "response.created"
    (request,) = hearing.unheard
    assert request.item_id == events[0]["item_id"]
    assert request.audio == quiet(100) + loud(600) + quiet(200)
    assert hearing.wait(10) == []
    hearing.recognize("the third question, please")
    hearing.run()
    assert said(hearing) == ["Third.", "Two messages."]
    assert only(hearing.events, COMPLETED)["transcript"] == "the third question, please"


def test_the_time_to_think_counts_from_the_start(hearing: Driver) -> None:
    hearing.speak()
    hearing.wait(0.2)
    assert hearing.recognize("first question") == []
    assert hearing.wait(0.09) == []
    assert "response.output_item.added" in types(hearing.wait(0.02))


def test_what_nobody_can_make_out_is_what_the_scenario_says(hearing: Driver) -> None:
    hearing.speak()
    hearing.recognize(None)
    hearing.run()
    assert said(hearing)[0].startswith("The first answer")
    assert only(hearing.events, COMPLETED)["transcript"] == "first question"


def test_words_that_fit_no_turn_get_the_default(hearing: Driver) -> None:
    hearing.speak()
    hearing.recognize("")
    hearing.run()
    assert said(hearing) == ["I do not know."]
    assert only(hearing.events, COMPLETED)["transcript"] == ""


def test_turns_are_heard_in_the_order_in_which_they_were_said(hearing: Driver) -> None:
    hearing.speak()
    hearing.speak()
    assert len(hearing.unheard) == 2
    hearing.recognize("first question", 1)
    assert said(hearing) == []
    assert hearing.wait(5) == []
    hearing.recognize("the third question", 0)
    hearing.run()
    assert said(hearing)[0].startswith("The first answer")
    statuses = [event["response"]["status"] for event in of_type(hearing.events, "response.done")]
    assert statuses == ["cancelled", "completed"]


def test_typed_text_waits_behind_what_was_said_before_it(hearing: Driver) -> None:
    hearing.update(audio={"input": {"turn_detection": {"type": "server_vad", "create_response": False}}})
    hearing.speak()
    hearing.say("first question")
    hearing.send("response.create")
    hearing.recognize("the third question")
    hearing.run()
    assert said(hearing)[0].startswith("The first answer")


def test_a_response_that_waits_keeps_what_it_was_asked_for_with(hearing: Driver) -> None:
    hearing.update(audio={"input": {"turn_detection": None}})
    hearing.append(loud(400))
    hearing.send("input_audio_buffer.commit")
    hearing.send("response.create", response={"tools": [LOOKUP], "tool_choice": "required"})
    hearing.recognize("first question")
    assert only(hearing.run(), "response.function_call_arguments.done")["name"] == "lookup"


def test_a_response_that_waits_can_be_cancelled(hearing: Driver) -> None:
    hearing.speak()
    response = only(hearing.send("response.cancel"), "response.done")["response"]
    assert (response["status"], response["output"]) == ("cancelled", [])
    assert types(hearing.recognize("first question")) == []
    hearing.send("response.create")
    hearing.run()
    assert said(hearing)[0].startswith("The first answer")


def test_responses_out_of_band_do_not_wait(hearing: Driver) -> None:
    hearing.speak()
    hearing.send("response.create", response={"conversation": "none", "input": [], "instructions": "first question"})
    hearing.wait(2)
    assert said(hearing)[0].startswith("The first answer")


def test_audio_in_an_item_is_recognised_too(hearing: Driver) -> None:
    content = [{"type": "input_audio", "audio": as_base64(loud(500))}]
    hearing.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    hearing.recognize("the third question")
    hearing.send("response.create")
    hearing.run()
    assert said(hearing)[0] == "Third."


def test_an_answer_that_nobody_waits_for_is_ignored(hearing: Driver) -> None:
    hearing.speak()
    (request,) = hearing.unheard
    hearing.unheard.insert(0, RecognitionRequest("item_other", b"", request.encoding))
    assert hearing.recognize("the third question") == []
    hearing.recognize("first question")
    hearing.unheard.append(request)
    assert hearing.recognize("again") == []


def test_turns_that_wait_are_bounded(hearing: Driver) -> None:
    hearing.update(audio={"input": {"turn_detection": None}})
    for _ in range(MOST_WAITING + 1):
        hearing.append(loud(100))
        hearing.send("input_audio_buffer.commit")
    assert only(hearing.run(), COMPLETED)["transcript"] == "first question"


def test_what_waits_behind_a_turn_is_bounded_too(hearing: Driver) -> None:
    hearing.speak()
    for _ in range(MOST_WAITING + 1):
        hearing.say("look")
    assert only(hearing.run(), COMPLETED)["transcript"] == "first question"


def test_nothing_is_asked_where_the_scenario_knows(driver: Driver) -> None:
    driver.speak()
    assert driver.unheard == []
