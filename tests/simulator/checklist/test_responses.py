"""Checklist lines 35 to 42: the events of a response, their order, their pace and what they say of themselves."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from tests.simulator.checklist.support import ANSWER, CALLS, TOOLS, course, joined, members, when
from tests.simulator.support import LOOKUP, TEXT_ONLY, Driver, loud, of_type, only, types

USER = ["conversation.item.added", "conversation.item.done"]
DONE = ["conversation.item.done", "response.output_item.done"]
END = ["response.done", "rate_limits.updated"]
BEGIN = ["response.created", "response.output_item.added", "conversation.item.added", "response.content_part.added"]
TEXT_TURN = [
    *BEGIN,
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    *DONE,
    *END,
]
AUDIO_END = [
    "response.output_audio.done",
    "response.output_audio_transcript.done",
    "response.content_part.done",
    *DONE,
    *END,
]
CALL_TURN = [
    *BEGIN[:3],
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    *DONE,
    *END,
]
RESPONSE = [
    *("object", "id", "status", "status_details", "output", "conversation_id", "output_modalities", "max_output_tokens"),
    *("audio", "usage", "metadata"),
]
Drive = Callable[..., Driver]


def spoken_bytes(events: list[dict[str, Any]]) -> int:
    return sum(len(base64.b64decode(event["delta"])) for event in of_type(events, "response.output_audio.delta"))


def cut_short(driver: Driver) -> list[dict[str, Any]]:
    """A spoken answer that the client cancels in the middle: its last events."""
    driver.say("first question")
    driver.send("response.create")
    driver.wait(0.5)
    return driver.send("response.cancel")


# --- 35 to 38: order and content --------------------------------------------------------------------------------------


def test_35a_a_text_turn(driver: Driver) -> None:
    driver.send("session.update", session=TEXT_ONLY)
    start = len(driver.events)
    driver.ask("first question")
    events = driver.events[start:]
    assert course(events) == [*USER, *TEXT_TURN]
    user, assistant = of_type(events, "conversation.item.added")
    assert user["item"]["status"] == "completed"
    assert (assistant["item"]["status"], assistant["item"]["content"]) == ("in_progress", [])
    assert assistant["previous_item_id"] == user["item"]["id"]


def test_35b_a_spoken_turn(driver: Driver) -> None:
    driver.speak()
    driver.run()
    names = types(driver.events)
    first = names.index("response.created")
    assert names[1:first] == [
        "input_audio_buffer.speech_started",
        "input_audio_buffer.speech_stopped",
        "input_audio_buffer.committed",
        *USER,
    ]
    assert names[first : first + 4] == BEGIN
    middle = names[first + 4 : -len(AUDIO_END)]
    assert set(middle) == {"response.output_audio_transcript.delta", "response.output_audio.delta"}
    assert middle[0] == "response.output_audio_transcript.delta"
    assert "response.output_audio_transcript.delta" in middle[middle.index("response.output_audio.delta") :]
    assert names[-len(AUDIO_END) :] == AUDIO_END


def test_35c_a_call(driver: Driver) -> None:
    driver.update(tools=[LOOKUP])
    assert course(driver.ask("look it up")) == CALL_TURN


def test_35d_the_other_order_of_the_ends_of_an_item(drive: Drive) -> None:
    driver = drive(options=ModelOptions(item_done_first=False))
    driver.send("session.update", session=TEXT_ONLY)
    assert course(driver.ask("first question"))[-4:] == [*reversed(DONE), *END]


@pytest.mark.parametrize(
    ("modality", "part", "content", "member", "prefix"),
    [
        ("text", "text", "output_text", "text", "response.output_text"),
        ("audio", "audio", "output_audio", "transcript", "response.output_audio_transcript"),
    ],
)
def test_36a_parts_are_named_shortly_and_items_fully_and_all_say_the_same(
    driver: Driver, modality: str, part: str, content: str, member: str, prefix: str
) -> None:
    driver.update(output_modalities=[modality])
    events = driver.ask("first question")
    other = {"text": "audio", "audio": "output_text"}[modality]
    assert [name for name in types(events) if name.startswith(f"response.{other}") or f"output_{other}" in name] == []
    assert only(events, "response.content_part.added")["part"] == {"type": part, member: ""}
    assert only(events, "response.content_part.done")["part"] == {"type": part, member: ANSWER}
    assert joined(events, f"{prefix}.delta") == only(events, f"{prefix}.done")[member] == ANSWER
    whole = [{"type": content, member: ANSWER}]
    items = [only(events, name)["item"] for name in DONE] + only(events, "response.done")["response"]["output"]
    assert [item["content"] for item in items] == [whole] * 3


def test_36b_both_modalities_at_once_are_none(driver: Driver) -> None:
    (event,) = driver.update(output_modalities=["text", "audio"])
    assert event["error"]["code"] == "invalid_value"


def test_37a_two_messages_and_a_call_keep_their_deltas_apart(drive: Drive) -> None:
    driver = drive(CALLS)
    driver.update(tools=TOOLS)
    events = driver.ask("both")
    message, *calls = only(events, "response.done")["response"]["output"]
    assert joined(events, "response.output_audio_transcript.delta", item_id=message["id"]) == "One moment."
    deltas = [joined(events, "response.function_call_arguments.delta", item_id=call["id"]) for call in calls]
    done = [event["arguments"] for event in of_type(events, "response.function_call_arguments.done")]
    items = [event["item"]["arguments"] for event in of_type(events, "response.output_item.done")[1:]]
    assert deltas == done == items == [call["arguments"] for call in calls]
    assert len(of_type(events, "response.function_call_arguments.delta")) > 2


def test_37b_what_is_cut_off_says_the_same_everywhere(driver: Driver) -> None:
    events = cut_short(driver)
    said = joined(driver.events, "response.output_audio_transcript.delta")
    assert 0 < len(said) < len(ANSWER)
    assert [value for name, value in members(events) if name == "transcript"] == [said] * 5


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("where", ["session", "response"])
def test_38_audio_is_of_the_format_of_the_session_or_the_response(driver: Driver, encoding: Encoding, where: str) -> None:
    form = {"type": encoding.value, **({"rate": 24000} if encoding is Encoding.PCM16 else {})}
    audio = {"output": {"format": form}}
    if where == "session":
        driver.update(audio=audio)
    events = driver.ask("first question", **({"audio": audio} if where == "response" else {}))
    names = types(events)
    assert names.index("response.output_audio.done") < names.index("response.output_audio_transcript.done")
    assert only(events, "response.done")["response"]["audio"]["output"]["format"] == form
    deltas = [base64.b64decode(event["delta"]) for event in of_type(events, "response.output_audio.delta")]
    assert {len(delta) % encoding.width for delta in deltas} == {0}
    # The speech of these tests has 50 ms for each character.
    assert sum(map(len, deltas)) == len(ANSWER) * 50 * encoding.bytes_per_ms
    assert "delta" not in only(events, "response.output_audio.done")


# --- 39: pace ---------------------------------------------------------------------------------------------------------


def test_39a_audio_comes_five_times_faster_than_it_plays(driver: Driver) -> None:
    driver.ask("first question")
    times = when(driver, "response.output_audio.delta")
    seconds = spoken_bytes(driver.events) / 48_000
    assert seconds / (times[-1] - times[0]) == pytest.approx(5.0, rel=0.15)
    assert times[0] - when(driver, "response.created")[0] > 0.1


def test_39b_the_first_delta_and_the_pace_can_be_set(drive: Drive) -> None:
    driver = drive(options=ModelOptions(timing=Timing(first_output=1.5, pace=1.0, delta_ms=100)))
    driver.ask("first question")
    times = when(driver, "response.output_audio.delta")
    assert times[0] - when(driver, "response.created")[0] == pytest.approx(1.5)
    assert {round(later - earlier, 6) for earlier, later in itertools.pairwise(times)} == {0.1}
    assert len(base64.b64decode(of_type(driver.events, "response.output_audio.delta")[0]["delta"])) == 100 * 48


def test_39c_the_transcript_is_ahead_of_the_audio(driver: Driver) -> None:
    events = driver.ask("first question")
    total, heard, written = spoken_bytes(events), 0, 0
    for event in events:
        if event["type"] == "response.output_audio_transcript.delta":
            written += len(event["delta"])
        elif event["type"] == "response.output_audio.delta":
            heard += len(base64.b64decode(event["delta"]))
            assert written / len(ANSWER) >= heard / total


# --- 40 to 42: what a response says of itself -------------------------------------------------------------------------


def ends(driver: Driver) -> dict[str, dict[str, Any]]:
    """Responses that ended in three ways, by status."""
    driver.ask("first question")
    cut_short(driver)
    driver.ask("first question", max_output_tokens=3)
    return {event["response"]["status"]: event["response"] for event in of_type(driver.events, "response.done")}


def test_40a_a_response_begins_empty(driver: Driver) -> None:
    driver.say("first question")
    response = only(driver.send("response.create"), "response.created")["response"]
    assert list(response) == RESPONSE
    assert (response["object"], response["status"]) == ("realtime.response", "in_progress")
    assert (response["status_details"], response["output"], response["usage"]) == (None, [], None)
    assert response["metadata"] is None
    assert response["audio"] == {"output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "alloy"}}
    assert (response["output_modalities"], response["max_output_tokens"]) == (["audio"], "inf")


def test_40b_it_ends_with_its_usage_however_it_ends(driver: Driver) -> None:
    responses = ends(driver)
    assert set(responses) == {"completed", "cancelled", "incomplete"}
    for response in responses.values():
        assert list(response) == RESPONSE
        usage = response["usage"]
        assert set(usage) == {
            *("total_tokens", "input_tokens", "output_tokens", "input_token_details", "output_token_details"),
        }
        kinds = {"text_tokens", "audio_tokens", "image_tokens"}
        assert set(usage["input_token_details"]) == {*kinds, "cached_tokens", "cached_tokens_details"}
        assert set(usage["input_token_details"]["cached_tokens_details"]) == kinds
        assert set(usage["output_token_details"]) == {"text_tokens", "audio_tokens"}
        assert usage["output_tokens"] > 0
    assert responses["completed"]["status_details"] is None
    assert responses["cancelled"]["status_details"] == {"type": "cancelled", "reason": "client_cancelled"}
    assert responses["incomplete"]["status_details"] == {"type": "incomplete", "reason": "max_output_tokens"}


def test_41a_the_rate_limit_comes_once_and_right_after_the_end(driver: Driver) -> None:
    ends(driver)
    names = types(driver.events)
    assert names.count("rate_limits.updated") == names.count("response.done") == 3
    for index, name in enumerate(names):
        assert (name == "rate_limits.updated") == (index > 0 and names[index - 1] == "response.done")
    for event in of_type(driver.events, "rate_limits.updated"):
        (limit,) = event["rate_limits"]
        assert list(limit) == ["name", "limit", "remaining", "reset_seconds"]
        assert limit["name"] == "tokens"
        assert 0 <= limit["remaining"] < limit["limit"]


def test_41b_a_transcription_session_has_none_and_no_responses(drive: Drive) -> None:
    driver = drive(kind="transcription")
    audio = {"input": {"transcription": {"model": "whisper-1"}}}
    driver.send("session.update", session={"type": "transcription", "audio": audio})
    driver.speak()
    driver.run()
    assert "conversation.item.input_audio_transcription.completed" in types(driver.events)
    (refused,) = driver.send("response.create")
    assert refused["type"] == "error"
    driver.run()
    assert [name for name in types(driver.events) if name.startswith(("response.", "rate_limits."))] == []


def padded(driver: Driver) -> dict[str, list[Any]]:
    """The padding of all deltas, by kind, in a session that has deltas of every kind but those of MCP."""
    driver.update(tools=[LOOKUP], audio={"input": {"transcription": {"model": "gpt-4o-transcribe"}}})
    driver.append(loud(600) + bytes(48 * 400))
    driver.run()
    driver.ask("first question", output_modalities=["text"])
    driver.ask("look it up")
    found: dict[str, list[Any]] = {}
    for event in driver.events:
        if event["type"].endswith(".delta"):
            found.setdefault(event["type"], []).append(event.get("obfuscation"))
    return found


PADDED = {
    "conversation.item.input_audio_transcription.delta",
    "response.output_text.delta",
    "response.output_audio_transcript.delta",
}


def test_42a_deltas_of_text_are_padded(driver: Driver) -> None:
    found = padded(driver)
    assert set(found) == PADDED | {"response.output_audio.delta", "response.function_call_arguments.delta"}
    for name, paddings in found.items():
        if name in PADDED:
            assert all(11 <= len(padding) <= 14 for padding in paddings)
            assert len(set(paddings)) == len(paddings)
        else:
            assert set(paddings) == {None}, name


def test_42b_unless_that_is_not_wanted(drive: Drive) -> None:
    found = padded(drive(options=ModelOptions(obfuscation=False)))
    assert set(found) >= PADDED
    assert set(itertools.chain(*found.values())) == {None}
