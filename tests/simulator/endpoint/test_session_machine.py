"""A session as a client sees it: items, turns, interruptions, truncation, faults, and its end."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.session_machine import Close, ModelOptions
from orchestrator.simulator.scenario import load_scenario
from orchestrator.simulator.speech import Speaker, SpeechRequest
from tests.simulator.support import LOOKUP, TEXT_ONLY, Driver, as_base64, error_of, loud, of_type, only, quiet, types

USER_TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
BARGE_IN = [
    "input_audio_buffer.speech_started",
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    "conversation.item.done",
    "response.output_item.done",
    "response.done",
    "rate_limits.updated",
]


def message(text: str = "hi", role: str = "user", **more: Any) -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}], **more}


# --- Start, end and faults of frames ----------------------------------------------------------------------------------


def test_session_created_is_the_first_event_and_nothing_follows_by_itself(driver: Driver) -> None:
    driver.wait(60)
    assert types(driver.events) == ["session.created"]


def test_a_session_ends_at_its_greatest_age(driver: Driver) -> None:
    driver.wait(3599)
    assert driver.closed is None
    events = driver.wait(2)
    text = "Your session hit the maximum duration of 60 minutes."
    assert error_of(events)["code"] == "session_expired"
    assert error_of(events)["message"] == text
    assert driver.closed == Close(1001, text)
    assert driver.machine.due is None
    assert driver.send("session.update", session=TEXT_ONLY) == []


def test_every_event_has_an_id_of_its_own(driver: Driver) -> None:
    driver.ask("first question")
    ids = [event["event_id"] for event in driver.events]
    assert len(set(ids)) == len(ids)
    assert all(event_id.startswith("event_") for event_id in ids)


def test_faults_of_a_frame_are_answered_and_the_session_goes_on(driver: Driver) -> None:
    error = error_of(driver.send_binary())
    assert (error["code"], error["param"]) == ("invalid_event", None)
    assert error["message"] == "Expected a text WebSocket message; binary frames are not supported."
    error = error_of(driver.send_raw(b"{nonsense"))
    assert error["code"] == "invalid_json"
    assert error["message"].startswith("Invalid event: failed to parse JSON value.")
    error = error_of(driver.send("nope", event_id="e1"))
    assert (error["code"], error["param"], error["event_id"]) == ("invalid_value", "type", "e1")
    assert error["message"].startswith("Invalid value: 'nope'. Supported values are: 'session.update', 'session.close', ")
    assert error["message"].endswith("'response.create', and 'response.cancel'.")
    assert error_of(driver.send_raw(b"[]"))["event_id"] is None
    assert types(driver.update(instructions="still here")) == ["session.updated"]


def test_a_type_for_calls_only_is_unknown_on_a_websocket(driver: Driver) -> None:
    error = error_of(driver.send("output_audio_buffer.clear"))
    assert error["message"].startswith("Invalid value: 'output_audio_buffer.clear'.")


def test_an_unknown_member_is_refused_by_its_path(driver: Driver) -> None:
    error = error_of(driver.send("conversation.item.create", item=message(colour="red"), event_id="e2"))
    assert (error["code"], error["param"], error["event_id"]) == ("unknown_parameter", "item.colour", "e2")


# --- Items ------------------------------------------------------------------------------------------------------------


def test_items_are_created_in_place_and_named_by_their_true_neighbour(driver: Driver) -> None:
    def create(item_id: str, **more: Any) -> tuple[str, str | None]:
        added, done = driver.send("conversation.item.create", item=message(id=item_id), **more)
        assert added["item"] == done["item"]
        assert added["previous_item_id"] == done["previous_item_id"]
        assert added["item"]["status"] == "completed"
        return added["item"]["id"], added["previous_item_id"]

    assert create("a") == ("a", None)
    assert create("b", previous_item_id=None) == ("b", "a")
    assert create("head", previous_item_id="root") == ("head", None)
    assert create("between", previous_item_id="a") == ("between", "a")
    driver.send("conversation.item.delete", item_id="b")
    assert create("end") == ("end", "between")


def test_an_item_without_an_id_gets_one(driver: Driver) -> None:
    added = driver.send("conversation.item.create", item=message())[0]
    assert added["item"]["id"].startswith("item_")


@pytest.mark.parametrize(
    ("item", "more", "code", "param"),
    [
        (message(id="taken"), {}, "item_create_duplicate_item_id", None),
        (message(id="new"), {"previous_item_id": "gone"}, "item_create_invalid_previous_item_id", None),
        ({"type": "function_call_output", "call_id": "call_x", "output": ""}, {}, "invalid_tool_call_id", None),
        (message(id="x" * 33), {}, "string_above_max_length", "item.id"),
        (
            {"type": "message", "role": "assistant", "content": [{"type": "output_audio", "transcript": "hi"}]},
            {},
            "missing_required_parameter",
            "item.content[0].text",
        ),
        ({"type": "mcp_list_tools", "server_label": "x", "tools": []}, {}, "invalid_value", "item.type"),
        (
            {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": "?"}]},
            {},
            "invalid_value",
            "item.content[0].audio",
        ),
    ],
)
def test_an_item_that_breaks_a_rule_is_refused(
    driver: Driver, item: dict[str, Any], more: dict[str, Any], code: str, param: str | None
) -> None:
    driver.send("conversation.item.create", item=message(id="taken"))
    error = error_of(driver.send("conversation.item.create", item=item, event_id="mine", **more))
    assert (error["code"], error["param"], error["event_id"]) == (code, param, "mine")


def test_an_image_comes_back_as_it_was_sent(driver: Driver) -> None:
    content = [{"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"}]
    added = driver.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})[0]
    assert added["item"]["content"] == content


def test_audio_in_an_item_is_a_spoken_turn_and_only_retrieve_shows_it(driver: Driver) -> None:
    sound = loud(500)
    content = [{"type": "input_audio", "audio": as_base64(sound), "transcript": "as the client heard it"}]
    added, done = driver.send("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    assert added["item"]["content"] == [{"type": "input_audio", "transcript": "as the client heard it"}]
    assert added["item"] == done["item"]
    retrieved = only(driver.send("conversation.item.retrieve", item_id=added["item"]["id"]), "conversation.item.retrieved")
    assert base64.b64decode(retrieved["item"]["content"][0]["audio"]) == sound
    driver.send("response.create", response={"output_modalities": ["text"]})
    assert only(driver.run(), "response.output_text.done")["text"].startswith("The first answer")


def test_history_can_be_put_back_and_the_scenario_goes_on_where_it_was(driver: Driver) -> None:
    driver.send("session.update", session={**TEXT_ONLY, "tools": [LOOKUP]})
    history = [
        message("first question", id="h1"),
        message("The first answer.", role="assistant", id="h2"),
        message("please look it up", id="h3"),
        {"type": "function_call", "name": "lookup", "call_id": "call_1", "arguments": "{}", "id": "h4"},
        {"type": "function_call_output", "call_id": "call_1", "output": '{"value":"green"}', "id": "h5"},
    ]
    before = "root"
    for item in history:
        driver.send("conversation.item.create", item=item, previous_item_id=before)
        before = item["id"]
    driver.send("response.create")
    assert only(driver.run(), "response.output_text.done")["text"] == "It is green."
    driver.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
    driver.speak()
    transcript = only(driver.run(), "conversation.item.input_audio_transcription.completed")["transcript"]
    assert transcript == "the third question"


def test_the_first_item_is_what_is_said_wherever_it_is_put(driver: Driver) -> None:
    driver.send("session.update", session=TEXT_ONLY)
    driver.send("conversation.item.create", item=message("the third question"), previous_item_id="root")
    driver.send("response.create")
    assert of_type(driver.run(), "response.output_text.done")[0]["text"] == "Third."


def test_text_put_between_older_items_is_history_and_not_a_question(driver: Driver) -> None:
    driver.send("session.update", session=TEXT_ONLY)
    driver.say("first question", item_id="q")
    driver.send("conversation.item.create", item=message("the third question"), previous_item_id="root")
    driver.send("response.create")
    assert only(driver.run(), "response.output_text.done")["text"].startswith("The first answer")


# --- Spoken turns -----------------------------------------------------------------------------------------------------


def test_a_spoken_turn_is_one_item_from_its_first_sound_to_its_answer(driver: Driver) -> None:
    events = driver.append(quiet(1000) + loud(600) + quiet(1000))
    assert types(events) == [*USER_TURN, "response.created"]
    started, stopped, committed, added, done = events[:5]
    assert (started["audio_start_ms"], stopped["audio_end_ms"]) == (700, 1800)
    ids = {started["item_id"], stopped["item_id"], committed["item_id"], added["item"]["id"], done["item"]["id"]}
    assert len(ids) == 1
    assert added["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    assert committed["previous_item_id"] is None
    reply = only(driver.run(), "conversation.item.added")
    assert reply["previous_item_id"] == started["item_id"]
    retrieved = driver.send("conversation.item.retrieve", item_id=started["item_id"])[0]["item"]
    assert retrieved["object"] == "realtime.item"
    assert base64.b64decode(retrieved["content"][0]["audio"]) == quiet(300) + loud(600) + quiet(200)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_turns_are_heard_in_every_input_format(driver: Driver, encoding: Encoding) -> None:
    wire = {"type": encoding.value, **({"rate": 24000} if encoding is Encoding.PCM16 else {})}
    driver.update(audio={"input": {"format": wire}})
    events = driver.speak(encoding=encoding)
    assert types(events)[:5] == USER_TURN


def test_milliseconds_count_all_audio_of_the_session(driver: Driver) -> None:
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "create_response": False}}})
    driver.speak()
    started = only(driver.speak(), "input_audio_buffer.speech_started")
    assert started["audio_start_ms"] == 1100 + 100 - 300


def test_small_appends_in_real_time_give_the_same_turn(driver: Driver) -> None:
    audio = quiet(200) + loud(500) + quiet(400)
    for start in range(0, len(audio), 960):
        driver.append(audio[start : start + 960])
        driver.wait(0.02)
    assert types(driver.events)[1 : 1 + len(USER_TURN)] == USER_TURN
    assert driver.times[1] == pytest.approx(0.24)


def test_transcription_comes_later_and_is_stored(driver: Driver) -> None:
    driver.update(audio={"input": {"transcription": {"model": "gpt-4o-mini-transcribe"}}})
    item_id = driver.speak()[0]["item_id"]
    assert driver.wait(0.29) == []
    events = driver.wait(0.02)
    deltas = of_type(events, "conversation.item.input_audio_transcription.delta")
    completed = only(events, "conversation.item.input_audio_transcription.completed")
    assert "".join(event["delta"] for event in deltas) == completed["transcript"] == "first question"
    assert completed["item_id"] == item_id
    assert completed["usage"]["type"] == "tokens"
    content = driver.send("conversation.item.retrieve", item_id=item_id)[0]["item"]["content"]
    assert content[0]["transcript"] == "first question"


def test_whisper_sends_one_delta_and_is_billed_by_time(driver: Driver) -> None:
    driver.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
    driver.speak(600)
    events = driver.wait(0.3)
    assert len(of_type(events, "conversation.item.input_audio_transcription.delta")) == 1
    completed = only(events, "conversation.item.input_audio_transcription.completed")
    assert completed["usage"] == {"type": "duration", "seconds": 0.9}


def test_without_transcription_there_is_none(driver: Driver) -> None:
    driver.speak()
    driver.run()
    assert not any("transcription" in name for name in types(driver.events))


def test_an_item_deleted_before_its_transcript_has_none(driver: Driver) -> None:
    driver.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
    item_id = driver.speak()[0]["item_id"]
    driver.send("conversation.item.delete", item_id=item_id)
    assert not any("transcription" in name for name in types(driver.run()))


def test_create_response_false_commits_and_answers_nothing(driver: Driver) -> None:
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "create_response": False}}})
    assert types(driver.speak()) == USER_TURN
    assert driver.run() == []
    driver.send("response.create")
    assert only(driver.run(), "response.done")["response"]["status"] == "completed"


def test_without_turn_detection_the_client_commits(driver: Driver) -> None:
    driver.update(audio={"input": {"turn_detection": None}})
    assert driver.speak() == []
    events = driver.send("input_audio_buffer.commit")
    assert types(events) == ["input_audio_buffer.committed", "conversation.item.added", "conversation.item.done"]
    assert driver.run() == []


def test_a_commit_that_is_too_small_is_refused(driver: Driver) -> None:
    driver.append(quiet(50))
    error = error_of(driver.send("input_audio_buffer.commit"))
    assert error["code"] == "input_audio_buffer_commit_empty"
    assert "buffer only has 50.00ms of audio" in error["message"]


def test_clear_forgets_what_was_not_committed(driver: Driver) -> None:
    driver.append(loud(500))
    assert types(driver.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    error = error_of(driver.send("input_audio_buffer.commit"))
    assert error["message"].endswith("buffer only has 0.00ms of audio.")
    assert driver.append(quiet(600)) == []


def test_a_client_may_commit_in_the_middle_of_a_turn(driver: Driver) -> None:
    started = only(driver.append(loud(500)), "input_audio_buffer.speech_started")
    committed = only(driver.send("input_audio_buffer.commit"), "input_audio_buffer.committed")
    assert committed["item_id"] == started["item_id"]
    assert driver.append(quiet(600)) == []


@pytest.mark.parametrize("audio", ["", "***", "AAA"])
def test_bad_audio_is_refused(driver: Driver, audio: str) -> None:
    error = error_of(driver.send("input_audio_buffer.append", audio=audio, event_id="a1"))
    assert error["message"].startswith("Invalid 'audio'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz)")
    assert error["event_id"] == "a1"


def test_an_append_beyond_15_mib_is_refused(driver: Driver) -> None:
    error = error_of(driver.send("input_audio_buffer.append", audio="A" * (15 * 1024 * 1024 + 4)))
    assert (error["code"], error["param"]) == ("string_above_max_length", "audio")


# --- Interruption and truncation --------------------------------------------------------------------------------------


def interrupted(driver: Driver, after: float = 0.5) -> list[dict[str, Any]]:
    """A response that the caller talks into."""
    driver.speak()
    driver.wait(0.3 + after)
    return driver.append(loud(100))


def test_a_caller_who_talks_into_the_answer_ends_it(driver: Driver) -> None:
    events = interrupted(driver, 0.1)
    assert types(events) == BARGE_IN
    done = only(events, "response.done")["response"]
    assert done["status_details"] == {"type": "cancelled", "reason": "turn_detected"}
    assert done["output"][0]["status"] == "incomplete"
    assert done["usage"]["output_token_details"]["audio_tokens"] > 0
    later = driver.run() + driver.append(loud(300) + quiet(500)) + driver.run()
    assert done["id"] not in {event.get("response_id") for event in later}
    assert only(later, "response.done")["response"]["status"] == "completed"


def test_interrupt_response_false_lets_the_answer_run_and_queues_the_next(driver: Driver) -> None:
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}})
    driver.speak()
    driver.wait(0.35)
    assert types(driver.speak()) == USER_TURN
    events = driver.run()
    assert [event["response"]["status"] for event in of_type(events, "response.done")] == ["completed", "completed"]
    names = types(events)
    assert names.index("response.created") == names.index("rate_limits.updated") + 1


def test_a_turn_during_an_answer_may_also_go_unanswered(drive: Callable[..., Driver]) -> None:
    driver = drive(options=ModelOptions(queue_turns=False))
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}})
    driver.speak()
    driver.wait(0.35)
    driver.speak()
    assert len(of_type(driver.run(), "response.done")) == 1


def test_speech_does_not_cancel_what_is_out_of_band(driver: Driver) -> None:
    response = {"conversation": "none", "input": [], "instructions": "first question"}
    driver.send("response.create", response=response)
    driver.wait(0.4)
    assert types(driver.append(loud(100))) == ["input_audio_buffer.speech_started"]
    assert only(driver.run(), "response.done")["response"]["status"] == "completed"


def test_truncation_leaves_exactly_what_was_heard(driver: Driver) -> None:
    events = interrupted(driver, 0.1)
    item_id = only(events, "response.done")["response"]["output"][0]["id"]
    sent = b"".join(base64.b64decode(event["delta"]) for event in of_type(driver.events, "response.output_audio.delta"))
    before = driver.send("conversation.item.retrieve", item_id=item_id)[0]["item"]["content"][0]
    assert base64.b64decode(before["audio"]) == sent
    assert before["transcript"]
    answer = driver.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=420)
    assert types(answer) == ["conversation.item.truncated"]
    assert (answer[0]["item_id"], answer[0]["content_index"], answer[0]["audio_end_ms"]) == (item_id, 0, 420)
    after = driver.send("conversation.item.retrieve", item_id=item_id)[0]["item"]["content"][0]
    assert base64.b64decode(after["audio"]) == sent[: 420 * 48]
    assert "transcript" not in after


def test_truncation_lowers_what_the_next_response_is_based_on(drive: Callable[..., Driver]) -> None:
    tokens = []
    for cut in (None, 100):
        driver = drive()
        item_id = only(driver.ask("first question"), "response.done")["response"]["output"][0]["id"]
        if cut is not None:
            driver.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=cut)
        tokens.append(only(driver.ask("x"), "response.done")["response"]["usage"]["input_token_details"]["audio_tokens"])
    assert tokens == [45, 2]


def test_the_bound_of_a_truncation_is_what_was_generated_so_far(driver: Driver) -> None:
    driver.say("first question")
    driver.send("response.create")
    driver.wait(0.31)
    item_id = only(driver.events, "response.output_item.added")["item"]["id"]
    error = error_of(driver.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=201))
    assert error["message"] == "Audio content of 200ms is already shorter than 201ms"
    assert error["code"] == "invalid_value"
    accepted = driver.send("conversation.item.truncate", item_id=item_id, content_index=0, audio_end_ms=150)
    assert types(accepted) == ["conversation.item.truncated"]
    driver.run()
    content = driver.send("conversation.item.retrieve", item_id=item_id)[0]["item"]["content"][0]
    assert len(base64.b64decode(content["audio"])) == 150 * 48
    assert "transcript" not in content


def test_what_is_not_the_assistants_audio_cannot_be_truncated(driver: Driver) -> None:
    driver.say("hi", item_id="text")
    item_id = driver.speak()[0]["item_id"]
    for name in ("text", item_id):
        error = error_of(driver.send("conversation.item.truncate", item_id=name, content_index=0, audio_end_ms=0))
        assert error["code"] == "unsupported_content_type"
        assert error["message"] == "Only model output audio messages can be truncated"
    error = error_of(driver.send("conversation.item.truncate", item_id="gone", content_index=0, audio_end_ms=0))
    assert error["code"] == "item_truncate_invalid_item_id"


# --- The order desk, as the demo plays it -----------------------------------------------------------------------------


def test_the_order_desk_from_question_to_goodbye(drive: Callable[..., Driver], speaker: Speaker) -> None:
    driver = drive(load_scenario("order_desk"), speech=speaker.render)
    mulaw = {"type": "audio/pcmu"}
    driver.update(
        tools=[{"type": "function", "name": "lookup_order", "parameters": {"type": "object"}}],
        audio={"input": {"format": mulaw, "transcription": {"model": "whisper-1"}}, "output": {"format": mulaw}},
    )

    def say(text: str) -> None:
        audio = speaker.render(SpeechRequest(text, "echo", encoding=Encoding.MULAW)).audio + quiet(500, Encoding.MULAW)
        for start in range(0, len(audio), 160):
            driver.append(audio[start : start + 160])
            driver.wait(0.02)

    say("Where is my order four seven one one?")
    driver.wait(1)
    call = only(driver.events, "response.function_call_arguments.done")
    assert (call["name"], call["arguments"]) == ("lookup_order", '{"order_id":"4711"}')
    output = '{"order_id":"4711","status":"on its way","carrier":"Northern Parcel","eta":"tomorrow"}'
    driver.send("conversation.item.create", item={"type": "function_call_output", "call_id": call["call_id"], "output": output})
    driver.send("response.create")
    driver.wait(1.5)
    start = len(driver.events)
    say("Thank you, goodbye.")
    driver.run()
    cancelled, goodbye = of_type(driver.events[start:], "response.done")
    assert cancelled["response"]["status"] == "cancelled"
    assert "on its way" in cancelled["response"]["output"][0]["content"][0]["transcript"]
    assert goodbye["response"]["output"][0]["content"][0]["transcript"] == "You are welcome. Goodbye!"
    heard = [event["transcript"] for event in of_type(driver.events, "conversation.item.input_audio_transcription.completed")]
    assert heard == ["Where is my order four seven one one?", "Thank you, goodbye."]
