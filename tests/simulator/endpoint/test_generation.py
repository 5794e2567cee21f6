"""Responses that end otherwise than well, and what of their events can be switched; `test_responses` has the regular course."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.scenario import parse_scenario
from tests.simulator.support import LOOKUP, TEXT_ONLY, Driver, of_type, only, types

TEXT = "One two three four five six seven."


def ends(end: str, do: str = f"[{{say: {TEXT}}}]") -> Any:
    return parse_scenario(f"name: x\nturns: [{{heard: go, do: {do}, end: {end}}}]\ndefault: {{do: [{{say: Default.}}]}}")


def text_session(driver: Driver) -> Driver:
    driver.send("session.update", session={**TEXT_ONLY, "tools": [LOOKUP]})
    return driver


@pytest.mark.parametrize("code", ["inference_rate_limit_exceeded", "insufficient_quota", "server_error"])
def test_a_response_may_fail_before_anything_came(drive: Callable[..., Driver], code: str) -> None:
    events = drive(ends(f"{{status: failed, code: {code}, message: Sorry., type: server_error}}")).ask("go")
    assert types(events) == ["response.created", "response.done", "rate_limits.updated"]
    response = events[1]["response"]
    assert (response["status"], response["output"]) == ("failed", [])
    assert response["status_details"] == {
        "type": "failed",
        "error": {"type": "server_error", "code": code, "message": "Sorry."},
    }
    assert response["usage"]["output_tokens"] == 0


@pytest.mark.parametrize("modality", ["text", "audio"])
@pytest.mark.parametrize("reason", ["content_filter", "max_output_tokens"])
def test_a_response_may_be_cut_off_after_some_words(drive: Callable[..., Driver], modality: str, reason: str) -> None:
    driver = drive(ends(f"{{status: incomplete, reason: {reason}, after: 3}}"))
    events = driver.ask("go", output_modalities=[modality])
    response = only(events, "response.done")["response"]
    assert (response["status"], response["status_details"]) == ("incomplete", {"type": "incomplete", "reason": reason})
    (item,) = response["output"]
    assert item["status"] == "incomplete"
    said = item["content"][0].get("text", item["content"][0].get("transcript"))
    assert TEXT.startswith(said)
    assert 3 <= len(said.split()) < 7
    assert modality == "audio" or said == "One two three "


def test_an_end_comes_with_the_last_word_at_the_latest(drive: Callable[..., Driver]) -> None:
    driver = text_session(drive(ends("{status: failed, code: server_error, after: 100}")))
    response = only(driver.ask("go"), "response.done")["response"]
    assert (response["status"], response["output"][0]["status"]) == ("failed", "completed")
    assert response["output"][0]["content"][0]["text"] == TEXT


def test_only_the_last_response_of_a_turn_ends_so(drive: Callable[..., Driver]) -> None:
    driver = text_session(drive(ends("{status: incomplete, reason: content_filter}", "[{call: lookup}, {say: Never.}]")))
    events = driver.ask("go")
    assert only(events, "response.done")["response"]["status"] == "completed"
    call = only(events, "response.function_call_arguments.done")
    item = {"type": "function_call_output", "call_id": call["call_id"], "output": "{}"}
    driver.send("conversation.item.create", item=item)
    driver.send("response.create")
    assert only(driver.run(), "response.done")["response"]["status"] == "incomplete"


def test_after_a_failure_the_conversation_goes_on(drive: Callable[..., Driver]) -> None:
    driver = text_session(drive(ends("{status: failed, code: server_error}")))
    driver.ask("go")
    assert only(driver.ask("anything"), "response.done")["response"]["status"] == "completed"


def test_the_token_limit_cuts_a_call_which_then_cannot_be_run(driver: Driver) -> None:
    text_session(driver)
    events = driver.ask("look it up " + "x" * 200, max_output_tokens=10)
    response = only(events, "response.done")["response"]
    assert (response["status"], response["status_details"]["reason"]) == ("incomplete", "max_output_tokens")
    assert response["output"][0]["status"] == "incomplete"
    assert "response.function_call_arguments.done" not in types(events)
    driver.send("response.create")
    assert only(driver.run(), "response.output_text.done")["text"] == "I do not know."


def test_an_answer_that_just_fits_is_complete(driver: Driver) -> None:
    text_session(driver)
    tokens = only(driver.ask("first question"), "response.done")["response"]["usage"]["output_tokens"]
    assert only(driver.ask("first question", max_output_tokens=tokens), "response.done")["response"]["status"] == "completed"


def test_the_order_of_the_two_ends_of_an_item_can_be_switched(drive: Callable[..., Driver]) -> None:
    for first, names in (
        (True, ["conversation.item.done", "response.output_item.done"]),
        (False, ["response.output_item.done", "conversation.item.done"]),
    ):
        driver = text_session(drive(options=ModelOptions(item_done_first=first)))
        found = [name for name in types(driver.ask("first question")) if name in names]
        assert found == names


def test_without_obfuscation_no_delta_has_any(drive: Callable[..., Driver]) -> None:
    driver = drive(options=ModelOptions(obfuscation=False))
    driver.update(tools=[LOOKUP])
    for text, modality in (("first question", "text"), ("first question", "audio"), ("look it up", "text")):
        driver.ask(text, output_modalities=[modality])
    assert len({event["type"] for event in driver.events if event["type"].endswith(".delta")}) == 4
    assert not any("obfuscation" in event for event in driver.events)


def test_the_conversation_may_be_announced(drive: Callable[..., Driver]) -> None:
    driver = drive(options=ModelOptions(conversation_created=True))
    assert types(driver.events) == ["session.created", "conversation.created"]
    assert driver.events[1]["conversation"]["object"] == "realtime.conversation"
    created = only(driver.ask("first question"), "response.created")["response"]
    assert created["conversation_id"] == driver.events[1]["conversation"]["id"]


def test_reasoning_is_refused_where_the_model_does_not(driver: Driver) -> None:
    (error,) = driver.send("response.create", response={"reasoning": {"effort": "low"}})
    assert (error["error"]["code"], error["error"]["param"]) == ("invalid_value", "response.reasoning")
    assert of_type(driver.events, "response.created") == []


def test_a_reference_says_what_the_item_says(driver: Driver) -> None:
    text_session(driver)
    driver.say("the third question", item_id="item_q")
    response = {"conversation": "none", "input": [{"type": "item_reference", "id": "item_q"}]}
    driver.send("response.create", response=response)
    assert [event["text"] for event in of_type(driver.run(), "response.output_text.done")] == ["Third.", "Two messages."]
