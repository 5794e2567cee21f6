"""Responses: the order of their events, their pace, their ends, and what they cost."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from orchestrator.errors import IllegalTransitionError
from orchestrator.simulator.endpoint.generation import TRANSITIONS, ResponseState
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.scenario import parse_scenario
from orchestrator.simulator.speech import SpeechRequest
from tests.simulator.support import LOOKUP, TEXT_ONLY, Driver, error_of, loud, of_type, only, quiet, types

ANSWER = "The first answer has quite a few words in it."
MULAW = {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}

TEXT_TURN = [
    "response.created",
    "response.output_item.added",
    "conversation.item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]
AUDIO_END = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]
AUDIO_TURN = [*TEXT_TURN[:4], "response.output_audio_transcript.delta", "response.output_audio.delta", *AUDIO_END]


def order(events: Sequence[Any]) -> list[str]:
    """The types in order of their first appearance."""
    return list(dict.fromkeys(types(events)))


def joined(events: Sequence[Any], type_: str) -> str:
    return "".join(event["delta"] for event in of_type(events, type_))


def test_a_text_turn_has_the_captured_order(driver: Driver) -> None:
    driver.send("session.update", session=TEXT_ONLY)
    added = driver.say("first question", item_id="item_u")
    assert types(added) == ["conversation.item.added", "conversation.item.done"]
    driver.send("response.create")
    events = driver.events[-1:] + driver.run()
    assert order(events) == TEXT_TURN
    created, item = events[0]["response"], only(events, "conversation.item.added")
    assert created["status"] == "in_progress"
    assert (created["output"], created["usage"], created["status_details"]) == ([], None, None)
    assert created["conversation_id"].startswith("conv_")
    assert created["output_modalities"] == ["text"]
    assert item["previous_item_id"] == "item_u"
    assert item["item"]["status"] == "in_progress"
    assert item["item"]["content"] == []
    assert only(events, "response.content_part.added")["part"] == {"type": "text", "text": ""}


def test_text_deltas_and_every_later_copy_of_the_text_agree(driver: Driver) -> None:
    driver.send("session.update", session=TEXT_ONLY)
    events = driver.ask("first question")
    done = only(events, "response.done")["response"]
    assert joined(events, "response.output_text.delta") == ANSWER
    assert only(events, "response.output_text.done")["text"] == ANSWER
    assert only(events, "response.content_part.done")["part"] == {"type": "text", "text": ANSWER}
    assert only(events, "conversation.item.done")["item"]["content"] == [{"type": "output_text", "text": ANSWER}]
    assert only(events, "response.output_item.done")["item"] == done["output"][0]
    assert (done["status"], done["status_details"]) == ("completed", None)
    assert all(11 <= len(event["obfuscation"]) <= 14 for event in of_type(events, "response.output_text.delta"))


@pytest.mark.parametrize(("audio", "bytes_per_ms"), [({}, 48), (MULAW, 8), ({"output": {"format": {"type": "audio/pcma"}}}, 8)])
def test_an_audio_turn_has_the_captured_order_and_speaks_the_announced_format(
    driver: Driver, audio: dict[str, Any], bytes_per_ms: int
) -> None:
    driver.update(audio=audio)
    events = driver.ask("first question")
    assert order(events) == AUDIO_TURN
    assert types(events)[-len(AUDIO_END) :] == AUDIO_END
    assert only(events, "response.content_part.added")["part"] == {"type": "audio", "transcript": ""}
    sent = b"".join(base64.b64decode(event["delta"]) for event in of_type(events, "response.output_audio.delta"))
    assert len(sent) == len(ANSWER) * 50 * bytes_per_ms
    sizes = {len(base64.b64decode(event["delta"])) for event in of_type(events, "response.output_audio.delta")[:-1]}
    assert sizes == {200 * bytes_per_ms}
    done = only(events, "response.done")["response"]
    assert joined(events, "response.output_audio_transcript.delta") == ANSWER
    assert only(events, "response.output_audio_transcript.done")["transcript"] == ANSWER
    assert only(events, "response.content_part.done")["part"] == {"type": "audio", "transcript": ANSWER}
    assert done["output"][0]["content"] == [{"type": "output_audio", "transcript": ANSWER}]
    assert done["audio"]["output"]["format"]["type"] == audio.get("output", {}).get("format", {"type": "audio/pcm"})["type"]


def test_the_transcript_runs_ahead_of_the_audio(driver: Driver) -> None:
    events = driver.ask("first question")
    kinds = [name for name in types(events) if name.endswith(".delta")]
    assert kinds[0] == "response.output_audio_transcript.delta"
    assert kinds[-3:] == ["response.output_audio.delta"] * 3


def test_audio_comes_after_the_time_to_think_and_five_times_faster_than_it_plays(driver: Driver) -> None:
    driver.say("first question")
    driver.send("response.create")
    driver.run()
    times = [
        time for event, time in zip(driver.events, driver.times, strict=True) if event["type"] == "response.output_audio.delta"
    ]
    assert times[0] == pytest.approx(0.3)
    assert all(later - earlier == pytest.approx(0.04) for earlier, later in itertools.pairwise(times))


def test_pace_and_size_of_the_deltas_can_be_chosen(drive: Callable[..., Driver]) -> None:
    timing = Timing(first_output=2.0, pace=0, delta_ms=100)
    driver = drive(options=ModelOptions(timing=timing))
    driver.say("first question")
    driver.send("response.create")
    assert types(driver.wait(1.99)) == []
    events = driver.wait(0.01)
    assert types(events)[-1] == "rate_limits.updated"
    assert len(of_type(events, "response.output_audio.delta")) == -(-len(ANSWER) * 50 // 100)


def test_a_scenario_may_say_how_long_it_thinks(drive: Callable[..., Driver]) -> None:
    driver = drive(parse_scenario("name: x\ndefault: {think: 1.5, do: [{say: hello}]}"))
    driver.say("?")
    driver.send("response.create")
    assert driver.wait(1.4) == []
    assert order(driver.wait(0.2))[0] == "response.output_item.added"


def test_speech_that_takes_longer_to_make_than_to_think_is_waited_for(drive: Callable[..., Driver]) -> None:
    driver = drive(hold_speech=True)
    driver.say("first question")
    assert types(driver.send("response.create")) == ["response.created"]
    assert driver.held == [SpeechRequest(ANSWER)]
    assert driver.wait(5.0) == []
    assert types(driver.provide())[0] == "response.output_item.added"
    assert types(driver.run())[-1] == "rate_limits.updated"


def test_speech_that_is_there_early_does_not_shorten_the_time_to_think(drive: Callable[..., Driver]) -> None:
    driver = drive(hold_speech=True)
    driver.say("first question")
    driver.send("response.create")
    driver.wait(0.1)
    assert driver.provide() == []
    assert driver.wait(0.19) == []
    assert len(of_type(driver.run(), "response.done")) == 1


def test_speech_that_cannot_be_made_fails_the_response(drive: Callable[..., Driver]) -> None:
    driver = drive(speech=lambda _: None)
    driver.say("first question")
    events = driver.send("response.create")
    response = only(events, "response.done")["response"]
    assert response["status"] == "failed"
    assert response["status_details"]["error"]["code"] == "server_error"
    assert types(events)[-1] == "rate_limits.updated"


def test_a_function_call_has_the_captured_order(driver: Driver) -> None:
    driver.update(tools=[LOOKUP])
    events = driver.ask("look it up")
    assert order(events) == [
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]
    added = only(events, "response.output_item.added")["item"]
    assert (added["status"], added["name"], added["arguments"]) == ("in_progress", "lookup", "")
    assert added["call_id"].startswith("call_")
    done = only(events, "response.function_call_arguments.done")
    assert joined(events, "response.function_call_arguments.delta") == done["arguments"] == '{"key":"look it up"}'
    assert (done["name"], done["call_id"]) == ("lookup", added["call_id"])
    assert only(events, "response.done")["response"]["output"] == [
        {**added, "status": "completed", "arguments": done["arguments"]}
    ]


def test_a_tool_output_starts_nothing_until_a_response_is_asked_for(driver: Driver) -> None:
    driver.send("session.update", session={**TEXT_ONLY, "tools": [LOOKUP]})
    call = only(driver.ask("look it up"), "response.function_call_arguments.done")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": '{"value":"blue"}'}
    assert types(driver.send("conversation.item.create", item=output)) == ["conversation.item.added", "conversation.item.done"]
    assert driver.run() == []
    driver.send("response.create")
    assert only(driver.run(), "response.output_text.done")["text"] == "It is blue."


def test_several_outputs_have_rising_indexes_and_finish_in_order(driver: Driver) -> None:
    driver.send("session.update", session=TEXT_ONLY)
    events = driver.ask("the third question")
    assert [event["output_index"] for event in of_type(events, "response.output_item.added")] == [0, 1]
    first_done = types(events).index("response.output_item.done")
    assert types(events).count("response.output_item.added") == 2
    assert first_done < len(events) - 1 - types(events)[::-1].index("response.output_item.added")
    texts = [item["content"][0]["text"] for item in only(events, "response.done")["response"]["output"]]
    assert texts == ["Third.", "Two messages."]


def test_a_second_response_is_refused_and_the_first_goes_on(driver: Driver) -> None:
    driver.say("first question")
    response = only(driver.send("response.create"), "response.created")["response"]
    error = error_of(driver.send("response.create", event_id="again"))
    assert error == {
        "type": "invalid_request_error",
        "code": "conversation_already_has_active_response",
        "message": f"Conversation already has an active response in progress: {response['id']}. Wait until the response is "
        "finished before creating a new one.",
        "param": None,
        "event_id": "again",
    }
    assert only(driver.run(), "response.done")["response"]["status"] == "completed"


def test_a_cancel_in_the_middle_closes_what_is_open_and_nothing_follows(driver: Driver) -> None:
    driver.say("first question")
    driver.send("response.create")
    driver.wait(0.5)
    heard = joined(driver.events, "response.output_audio_transcript.delta")
    assert ANSWER.startswith(heard)
    assert heard != ANSWER
    events = driver.send("response.cancel")
    assert types(events) == AUDIO_END
    assert events[1]["transcript"] == events[2]["part"]["transcript"] == heard
    assert events[3]["item"]["status"] == events[4]["item"]["status"] == "incomplete"
    response = events[5]["response"]
    assert (response["status"], response["status_details"]) == (
        "cancelled",
        {"type": "cancelled", "reason": "client_cancelled"},
    )
    assert response["usage"]["output_tokens"] > 0
    assert driver.run() == []


def test_a_cancel_before_anything_came_leaves_an_empty_response(driver: Driver) -> None:
    driver.say("first question")
    response_id = only(driver.send("response.create"), "response.created")["response"]["id"]
    events = driver.send("response.cancel", response_id=response_id)
    assert types(events) == ["response.done", "rate_limits.updated"]
    assert events[0]["response"]["output"] == []
    assert driver.run() == []


def test_a_call_that_is_cut_short_is_incomplete_and_cannot_be_run(driver: Driver) -> None:
    driver.update(tools=[LOOKUP])
    driver.say("look it up " + "x" * 100)
    driver.send("response.create")
    driver.wait(0.32)
    events = driver.send("response.cancel")
    assert types(events) == ["conversation.item.done", "response.output_item.done", "response.done", "rate_limits.updated"]
    assert events[0]["item"]["status"] == "incomplete"


@pytest.mark.parametrize("response_id", [None, "resp_unknown"])
def test_a_cancel_with_nothing_to_cancel_is_refused(driver: Driver, response_id: str | None) -> None:
    error = error_of(driver.send("response.cancel", **({"response_id": response_id} if response_id else {})))
    assert (error["code"], error["param"]) == ("response_cancel_not_active", None)
    assert error["message"] == "Cancellation failed: no active response found"


def test_the_token_limit_cuts_the_answer(driver: Driver) -> None:
    driver.send("session.update", session=TEXT_ONLY)
    events = driver.ask("first question", max_output_tokens=5)
    response = only(events, "response.done")["response"]
    assert (response["status"], response["max_output_tokens"]) == ("incomplete", 5)
    assert response["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}
    text = only(events, "response.output_text.done")["text"]
    assert ANSWER.startswith(text)
    assert 0 < len(text) < len(ANSWER)
    assert response["output"][0]["status"] == "incomplete"
    spoken = only(driver.ask("first question", output_modalities=["audio"], max_output_tokens=20), "response.done")["response"]
    assert spoken["status"] == "incomplete"
    assert spoken["usage"]["output_tokens"] >= 20


def test_a_response_may_differ_from_its_session(driver: Driver) -> None:
    events = driver.ask(
        "first question",
        output_modalities=["audio"],
        audio={"output": {"format": {"type": "audio/pcmu"}, "voice": "ash"}},
        metadata={"reason": "test"},
        max_output_tokens=4000,
    )
    for name in ("response.created", "response.done"):
        response = only(events, name)["response"]
        assert response["audio"] == {"output": {"format": {"type": "audio/pcmu"}, "voice": "ash"}}
        assert response["metadata"] == {"reason": "test"}
        assert response["max_output_tokens"] == 4000
    assert only(driver.update(), "session.updated")["session"]["max_output_tokens"] == "inf"


def test_usage_grows_with_the_conversation_and_is_cached_in_steps(driver: Driver) -> None:
    usages = [only(driver.ask("first question"), "response.done")["response"]["usage"] for _ in range(4)]
    inputs = [usage["input_tokens"] for usage in usages]
    assert inputs == sorted(set(inputs))
    assert usages[0]["input_token_details"]["cached_tokens"] == 0
    for before, usage in itertools.pairwise(usages):
        cached = usage["input_token_details"]["cached_tokens"]
        assert cached == before["input_tokens"] // 64 * 64
    spoken = usages[0]["output_token_details"]["audio_tokens"]
    assert spoken == len(ANSWER) * 50 // 50


def test_out_of_band_responses_run_beside_and_leave_no_trace(driver: Driver) -> None:
    driver.say("first question", item_id="item_q")
    active = only(driver.send("response.create"), "response.created")["response"]
    asides = []
    for number in ("1", "2"):
        message = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "the third question"}]}
        events = driver.send(
            "response.create",
            response={
                "conversation": "none",
                "input": [{"type": "item_reference", "id": "item_q"}, message],
                "metadata": {"number": number},
                "output_modalities": ["text"],
            },
        )
        asides.append(only(events, "response.created")["response"])
    events = driver.run()
    assert [(aside["conversation_id"], aside["metadata"]) for aside in asides] == [
        (None, {"number": "1"}),
        (None, {"number": "2"}),
    ]
    done = {event["response"]["id"]: event["response"] for event in of_type(events, "response.done")}
    assert set(done) == {active["id"], *(aside["id"] for aside in asides)}
    for aside in asides:
        assert [item["content"][0]["text"] for item in done[aside["id"]]["output"]] == ["Third.", "Two messages."]
    items = {event["item"]["id"] for event in of_type(driver.events, "conversation.item.added")}
    assert items == {"item_q", done[active["id"]]["output"][0]["id"]}
    retrieved = driver.send("conversation.item.retrieve", item_id=done[asides[0]["id"]]["output"][0]["id"])
    assert error_of(retrieved)["code"] == "item_retrieve_invalid_item_id"


def test_an_out_of_band_response_is_cancelled_by_its_id_only(driver: Driver) -> None:
    aside = only(
        driver.send("response.create", response={"conversation": "none", "input": [], "instructions": "first question"}),
        "response.created",
    )["response"]
    assert error_of(driver.send("response.cancel"))["code"] == "response_cancel_not_active"
    events = driver.send("response.cancel", response_id=aside["id"])
    assert only(events, "response.done")["response"]["status"] == "cancelled"


def test_an_input_that_refers_to_nothing_is_refused_before_anything_starts(driver: Driver) -> None:
    response = {"conversation": "none", "input": [{"type": "item_reference", "id": "item_gone"}]}
    error = error_of(driver.send("response.create", response=response))
    assert (error["code"], error["param"]) == ("invalid_value", "response.input[0].id")


def test_out_of_band_responses_are_bounded(driver: Driver) -> None:
    response = {"conversation": "none", "input": [], "output_modalities": ["text"]}
    answers = [driver.send("response.create", response=response) for _ in range(17)]
    assert [types(answer)[0] for answer in answers] == ["response.created"] * 16 + ["error"]
    assert len(of_type(driver.run(), "response.done")) == 16
    assert types(driver.send("response.create", response=response)) == ["response.created"]


def test_an_item_deleted_while_it_is_generated_still_ends_in_order(driver: Driver) -> None:
    driver.say("first question")
    driver.send("response.create")
    item = only(driver.wait(0.4), "response.output_item.added")["item"]
    assert types(driver.send("conversation.item.delete", item_id=item["id"])) == ["conversation.item.deleted"]
    assert types(driver.run())[-len(AUDIO_END) :] == AUDIO_END
    assert error_of(driver.send("conversation.item.retrieve", item_id=item["id"]))["code"] == "item_retrieve_invalid_item_id"


def test_an_ended_response_takes_no_other_end() -> None:
    assert all(TRANSITIONS[state] == frozenset() for state in ResponseState if state is not ResponseState.IN_PROGRESS)


def test_ending_twice_is_a_bug_of_ours(driver: Driver) -> None:
    driver.say("first question")
    driver.send("response.create")
    generation = driver.machine._responses.active
    assert generation is not None
    generation.cancel("client_cancelled")
    with pytest.raises(IllegalTransitionError):
        generation.cancel("client_cancelled")


def test_a_turn_that_waits_for_its_answer_is_not_answered_into_the_next_one(drive: Callable[..., Driver]) -> None:
    driver = drive(options=ModelOptions(timing=Timing(first_output=0.0, pace=1.0)))
    driver.append(quiet(100) + loud(300))
    driver.send("response.create")
    assert "response.created" not in types(driver.append(quiet(600)))
    events = driver.append(loud(300))
    assert types(events)[0] == "input_audio_buffer.speech_started"
    assert only(events, "response.done")["response"]["status"] == "cancelled"
    assert "response.created" not in types(events)
    assert types(driver.append(quiet(600))).count("response.created") == 1
