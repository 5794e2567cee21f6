"""Checklist lines 43 to 50: one response at a time and those beside it, how they are ended, calls of functions, and usage."""

from __future__ import annotations

import base64
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.scenario import parse_scenario
from tests.simulator.checklist.support import ANSWER, CALLS, TOOLS, course, joined, user
from tests.simulator.support import LOOKUP, TEXT_ONLY, Driver, error_of, loud, of_type, only, quiet, types

TAIL = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]
Drive = Callable[..., Driver]


def answering(driver: Driver) -> str:
    """A spoken answer in full flow; returns the id of its response."""
    driver.say("first question")
    response = only(driver.send("response.create"), "response.created")["response"]
    driver.wait(0.5)
    assert "response.output_audio.delta" in types(driver.events)
    return str(response["id"])


def of_response(events: list[dict[str, Any]], response_id: str) -> list[dict[str, Any]]:
    """The events of one response."""
    return [event for event in events if response_id in (event.get("response_id"), (event.get("response") or {}).get("id"))]


def beside(driver: Driver, **response: Any) -> list[dict[str, Any]]:
    """A response out of band, in text; the events at its start."""
    chosen = {"conversation": "none", "output_modalities": ["text"], **response}
    return driver.send("response.create", response=chosen)


def message(events: list[dict[str, Any]]) -> Any:
    return only(events, "response.done")["response"]["output"][0]["content"][0]["text"]


# --- 43 to 46: one at a time, beside each other, and cut off ----------------------------------------------------------


def test_43_a_second_response_is_refused_by_the_name_of_the_first(driver: Driver) -> None:
    response_id = answering(driver)
    error = error_of(driver.send("response.create", event_id="mine"))
    assert (error["code"], error["event_id"]) == ("conversation_already_has_active_response", "mine")
    assert error["message"] == (
        f"Conversation already has an active response in progress: {response_id}. Wait until the response is finished before "
        "creating a new one."
    )
    driver.run()
    done = only(driver.events, "response.done")["response"]
    assert (done["id"], done["status"]) == (response_id, "completed")
    assert done["output"][0]["content"][0]["transcript"] == ANSWER
    assert len(of_type(driver.events, "response.created")) == 1


def test_44a_a_response_out_of_band_runs_beside_the_other_and_leaves_no_trace(drive: Drive) -> None:
    driver = drive(options=ModelOptions(timing=Timing(first_output=0.1, pace=1.0, delta_ms=50)))
    main = answering(driver)
    start = len(driver.events)
    created = only(beside(driver, metadata={"topic": "aside"}, input=[user("the third question")]), "response.created")
    aside = created["response"]["id"]
    driver.run()
    events = driver.events[start:]
    own = of_response(events, aside)
    done = only(own, "response.done")["response"]
    assert (done["conversation_id"], done["metadata"], done["status"]) == (None, {"topic": "aside"}, "completed")
    assert created["response"]["metadata"] == {"topic": "aside"}
    assert [item["content"][0]["text"] for item in done["output"]] == ["Third.", "Two messages."]
    # They take turns on the wire, and the other one's item is the only one that the conversation hears of.
    between = events.index(of_response(own, aside)[-1])
    assert of_response(events[:between], main)
    assert of_response(events[between:], main)
    assert [event["item"]["role"] for event in of_type(events, "conversation.item.done")] == ["assistant"]
    assert of_type(events, "conversation.item.added") == []
    assert done["output"][0]["id"] not in {event["item"]["id"] for event in of_type(events, "conversation.item.done")}
    refused = driver.send("conversation.item.retrieve", item_id=done["output"][0]["id"])
    assert error_of(refused)["code"] == "item_retrieve_invalid_item_id"


def test_44b_its_input_is_what_it_is_told(driver: Driver) -> None:
    driver.send("session.update", session=TEXT_ONLY)
    driver.say("first question", "item_q")
    driver.say("the third question")

    def told(**response: Any) -> tuple[str, int]:
        start = len(driver.events)
        beside(driver, **response)
        driver.run()
        done = only(driver.events[start:], "response.done")["response"]
        return done["output"][0]["content"][0]["text"], done["usage"]["input_tokens"]

    text, referred = told(input=[{"type": "item_reference", "id": "item_q"}])
    assert text == ANSWER
    _, empty = told(input=[])
    _, everything = told()
    assert empty < referred < everything
    error = error_of(beside(driver, input=[{"type": "item_reference", "id": "item_x"}]))
    assert error["param"] == "response.input[0].id"


def test_44c_speech_does_not_end_it(driver: Driver) -> None:
    main = answering(driver)
    aside = only(beside(driver, output_modalities=["audio"]), "response.created")["response"]["id"]
    driver.wait(0.1)
    driver.append(loud(400))
    driver.run()
    statuses = {event["response"]["id"]: event["response"]["status"] for event in of_type(driver.events, "response.done")}
    assert statuses == {main: "cancelled", aside: "completed"}


def test_45a_a_cancel_ends_what_is_open(driver: Driver) -> None:
    response_id = answering(driver)
    events = driver.send("response.cancel")
    assert types(events) == TAIL
    assert [event["item"]["status"] for event in events[3:5]] == ["incomplete"] * 2
    response = events[5]["response"]
    assert (response["id"], response["status"]) == (response_id, "cancelled")
    assert response["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert response["output"] == [events[4]["item"]]
    assert driver.run() == []


def test_45b_with_nothing_to_cancel_it_is_a_harmless_error(driver: Driver) -> None:
    def refused(**members: Any) -> None:
        error = error_of(driver.send("response.cancel", **members))
        assert error["code"] == "response_cancel_not_active"
        assert error["message"] == "Cancellation failed: no active response found"

    refused()
    response_id = answering(driver)
    refused(response_id="resp_x")
    # The answer ends by itself before the cancel comes.
    driver.run()
    refused(response_id=response_id)
    assert only(driver.events, "response.done")["response"]["status"] == "completed"
    driver.ask("first question")
    assert len(of_type(driver.events, "response.done")) == 2


def test_45c_one_out_of_band_is_cancelled_by_its_name_only(driver: Driver) -> None:
    aside = only(beside(driver), "response.created")["response"]["id"]
    assert error_of(driver.send("response.cancel"))["code"] == "response_cancel_not_active"
    events = driver.send("response.cancel", response_id=aside)
    assert only(events, "response.done")["response"]["status"] == "cancelled"


def test_46_speech_comes_first_then_the_tail_and_nothing_after_it(driver: Driver) -> None:
    response_id = answering(driver)
    events = driver.append(loud(400))
    assert types(events) == ["input_audio_buffer.speech_started", *TAIL]
    response = events[6]["response"]
    assert (response["id"], response["status"]) == (response_id, "cancelled")
    assert response["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert response["output"][0]["status"] == "incomplete"
    said = joined(driver.events, "response.output_audio_transcript.delta")
    assert events[2]["transcript"] == said
    assert ANSWER.startswith(said)
    start = len(driver.events)
    driver.append(quiet(400))
    driver.run()
    later = driver.events[start:]
    assert of_response(later, response_id) == []
    assert only(later, "response.done")["response"]["status"] == "completed"


# --- 47: other ends ---------------------------------------------------------------------------------------------------


def test_47a_the_limit_of_tokens_cuts_an_answer(driver: Driver) -> None:
    driver.send("session.update", session=TEXT_ONLY)
    events = driver.ask("first question", max_output_tokens=5)
    response = only(events, "response.done")["response"]
    assert (response["status"], response["max_output_tokens"]) == ("incomplete", 5)
    assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    (item,) = response["output"]
    assert item["status"] == "incomplete"
    text = item["content"][0]["text"]
    assert text
    assert ANSWER.startswith(text)
    assert text != ANSWER
    assert only(events, "response.output_text.done")["text"] == joined(events, "response.output_text.delta") == text
    assert response["usage"]["output_tokens"] <= 6
    # The session has a limit, too.
    driver.update(max_output_tokens=5)
    assert only(driver.ask("first question"), "response.done")["response"]["status"] == "incomplete"


@pytest.mark.parametrize(
    ("end", "status", "details"),
    [
        (
            "{status: incomplete, reason: content_filter, after: 2}",
            "incomplete",
            {"type": "incomplete", "reason": "content_filter"},
        ),
        (
            "{status: failed, code: server_error, message: Sorry., after: 2}",
            "failed",
            {"type": "failed", "error": {"type": "server_error", "code": "server_error", "message": "Sorry."}},
        ),
    ],
)
def test_47b_an_answer_may_be_filtered_or_fail(drive: Drive, end: str, status: str, details: dict[str, Any]) -> None:
    driver = drive(parse_scenario(f"name: x\ndefault: {{do: [{{say: one two three four}}], end: {end}}}"))
    driver.send("session.update", session=TEXT_ONLY)
    response = only(driver.ask("?"), "response.done")["response"]
    assert (response["status"], response["status_details"]) == (status, details)
    (item,) = response["output"]
    assert (item["status"], item["content"][0]["text"].split()) == ("incomplete", ["one", "two"])


# --- 48 and 49: calls -------------------------------------------------------------------------------------------------


def test_48_a_call_grows_from_nothing_and_waits_for_its_output(driver: Driver) -> None:
    driver.send("session.update", session={**TEXT_ONLY, "tools": [LOOKUP]})
    events = driver.ask("look it up")
    assert course(events)[:6] == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
    ]
    added = only(events, "response.output_item.added")["item"]
    assert set(added) == {"id", "type", "status", "name", "call_id", "arguments"}
    assert [name for name in added if name != "type"] == ["id", "status", "name", "call_id", "arguments"]
    assert (added["type"], added["status"], added["name"], added["arguments"]) == (
        "function_call",
        "in_progress",
        "lookup",
        "",
    )
    done = only(events, "response.function_call_arguments.done")
    assert (done["name"], done["call_id"], done["item_id"]) == ("lookup", added["call_id"], added["id"])
    assert json.loads(done["arguments"]) == {"key": "look it up"}
    finished = {**added, "status": "completed", "arguments": done["arguments"]}
    assert only(events, "response.output_item.done")["item"] == finished
    assert list(finished) == list(only(events, "response.output_item.done")["item"])
    response = only(events, "response.done")["response"]
    assert (response["status"], response["output"]) == ("completed", [finished])
    output = {"type": "function_call_output", "call_id": added["call_id"], "output": '{"value":"blue"}'}
    driver.send("conversation.item.create", item=output)
    assert driver.run() == []
    driver.send("response.create")
    assert message(driver.run()) == "It is blue."


def test_49_a_message_and_two_calls_have_rising_indexes(drive: Drive) -> None:
    driver = drive(CALLS)
    driver.send("session.update", session={**TEXT_ONLY, "tools": TOOLS})
    events = driver.ask("both")
    response = only(events, "response.done")["response"]
    assert [item.get("name", item["type"]) for item in response["output"]] == ["message", "one", "two"]
    for name in ("response.output_item.added", "response.output_item.done"):
        assert [event["output_index"] for event in of_type(events, name)] == [0, 1, 2]
        assert [event["item"]["id"] for event in of_type(events, name)] == [item["id"] for item in response["output"]]
    index = {item["id"]: number for number, item in enumerate(response["output"])}
    placed = [event for event in events if "output_index" in event and "item_id" in event]
    assert len(placed) > 6
    assert all(event["output_index"] == index[event["item_id"]] for event in placed)
    chain = [event["previous_item_id"] for event in of_type(events, "conversation.item.added")]
    assert chain[1:] == [item["id"] for item in response["output"]][:-1]
    for item in response["output"][1:]:
        output = {"type": "function_call_output", "call_id": item["call_id"], "output": "ok"}
        driver.send("conversation.item.create", item=output)
    assert driver.run() == []
    driver.send("response.create")
    assert message(driver.run()) == "Done."


# --- 50: usage --------------------------------------------------------------------------------------------------------


def test_50_usage_adds_up_and_grows_and_is_cached_in_steps(driver: Driver) -> None:
    spans, said = [], []
    for _ in range(4):
        start = len(driver.events)
        driver.speak(1200)
        driver.run()
        events = driver.events[start:]
        started, stopped = (
            only(events, "input_audio_buffer.speech_started")["audio_start_ms"],
            only(events, "input_audio_buffer.speech_stopped")["audio_end_ms"],
        )
        spans.append(math.ceil((stopped - started) / 100))
        size = sum(len(base64.b64decode(event["delta"])) for event in of_type(events, "response.output_audio.delta"))
        said.append(math.ceil(size / 48 / 50))
    usages = [event["response"]["usage"] for event in of_type(driver.events, "response.done")]
    assert len(usages) == 4
    for number, usage in enumerate(usages):
        given, made = usage["input_token_details"], usage["output_token_details"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert usage["input_tokens"] == given["text_tokens"] + given["audio_tokens"] + given["image_tokens"]
        assert usage["output_tokens"] == made["text_tokens"] + made["audio_tokens"]
        assert given["cached_tokens"] == sum(given["cached_tokens_details"].values())
        assert given["cached_tokens"] % 64 == 0
        # Ten tokens for a second of the caller, twenty for one of the assistant.
        assert made["audio_tokens"] == said[number]
        assert given["audio_tokens"] == sum(spans[: number + 1]) + sum(said[:number])
    assert all(later["input_tokens"] > earlier["input_tokens"] for earlier, later in itertools.pairwise(usages))
    cached = [usage["input_token_details"]["cached_tokens"] for usage in usages]
    assert cached[0] == 0
    assert 0 < cached[-1] < usages[-1]["input_tokens"]
