"""What the caller said, written down: by which model, when, how often, in which order, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.transcripts import words_of
from orchestrator.simulator.scenario import parse_scenario
from tests.simulator.support import Driver, error_of, loud, of_type, only, quiet, types

PREFIX = "conversation.item.input_audio_transcription."
DELTA, COMPLETED, FAILED, SEGMENT = (PREFIX + name for name in ("delta", "completed", "failed", "segment"))
TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
SCENARIO = parse_scenario(
    """
name: heard
turns:
  - {heard: one two three, do: [{say: First.}]}
  - {heard: mumble, do: [{say: Second.}], transcription: {code: audio_unintelligible, message: Nobody understands this.}}
  - {heard: four, do: [{say: Third.}]}
default: {heard: "Something of {audio.seconds} seconds", do: [{say: Default.}]}
"""
)


def transcription(model: str = "gpt-4o-transcribe", **more: Any) -> dict[str, Any]:
    return {"input": {"transcription": {"model": model}, **more}}


@pytest.fixture
def heard(drive: Callable[..., Driver]) -> Driver:
    driver = drive(SCENARIO)
    driver.update(audio=transcription())
    return driver


@pytest.mark.parametrize("text", ["", "one", "one two", " one  two "])
def test_the_deltas_are_the_whole(text: str) -> None:
    assert "".join(words_of(text)) == text


def test_a_turn_that_cannot_be_written_down_fails_and_is_answered_all_the_same(heard: Driver) -> None:
    heard.speak()
    heard.run()
    item_id = heard.speak()[0]["item_id"]
    events = heard.run()
    failed = only(events, FAILED)
    assert (failed["item_id"], failed["content_index"]) == (item_id, 0)
    assert failed["error"] == {
        "type": "transcription_error",
        "code": "audio_unintelligible",
        "message": "Nobody understands this.",
    }
    assert COMPLETED not in types(events)
    assert only(events, "response.done")["response"]["status"] == "completed"
    assert heard.send("conversation.item.retrieve", item_id=item_id)[0]["item"]["content"][0]["transcript"] is None


def test_transcripts_may_overtake_each_other(drive: Callable[..., Driver]) -> None:
    driver = drive(SCENARIO, ModelOptions(transcription_jitter=30.0))
    driver.update(audio=transcription(turn_detection={"type": "server_vad", "create_response": False}))
    spoken = [driver.speak()[0]["item_id"] for _ in range(8)]
    written = [event["item_id"] for event in driver.run() if event["type"] in (COMPLETED, FAILED)]
    assert sorted(written) == sorted(spoken)
    assert written != spoken


def test_a_transcript_may_come_more_than_once(drive: Callable[..., Driver]) -> None:
    driver = drive(SCENARIO, ModelOptions(transcription_repeats=2))
    driver.update(audio=transcription())
    driver.speak()
    assert [event["transcript"] for event in of_type(driver.run(), COMPLETED)] == ["one two three"] * 3


def test_the_model_that_tells_voices_apart_sends_segments(heard: Driver) -> None:
    heard.update(audio=transcription("gpt-4o-transcribe-diarize"))
    heard.speak()
    segment = only(heard.run(), SEGMENT)
    assert (segment["id"], segment["speaker"], segment["text"]) == ("seg_0001", "spk_1", "one two three")
    assert (segment["start"], segment["end"]) == (0.0, pytest.approx(0.9))


def test_probabilities_and_languages_come_where_they_were_asked_for(heard: Driver) -> None:
    heard.update(
        include=["item.input_audio_transcription.logprobs"],
        audio={"input": {"transcription": {"model": "gpt-transcribe", "languages": ["en", "de"]}}},
    )
    heard.speak()
    events = heard.run()
    completed = only(events, COMPLETED)
    assert "".join(entry["token"] for entry in completed["logprobs"]) == "one two three"
    assert bytes(completed["logprobs"][1]["bytes"]) == b" two"
    assert [entry["token"] for event in of_type(events, DELTA) for entry in event["logprobs"]] == ["one", " two", " three"]
    assert completed["languages"] == [{"code": "en"}]


def test_without_obfuscation_the_deltas_have_none(drive: Callable[..., Driver]) -> None:
    driver = drive(SCENARIO, ModelOptions(obfuscation=False))
    driver.update(audio=transcription())
    driver.speak()
    events = driver.run()
    assert of_type(events, DELTA)
    assert not any("obfuscation" in event for event in events)


# --- Sessions that only write down ------------------------------------------------------------------------------------


@pytest.fixture
def scribe(drive: Callable[..., Driver]) -> Driver:
    return drive(SCENARIO, kind="transcription", model="")


def configure(driver: Driver, **session: Any) -> list[dict[str, Any]]:
    return driver.send("session.update", session={"type": "transcription", **session})


def test_a_transcription_session_has_the_documented_shape(scribe: Driver) -> None:
    session = scribe.events[0]["session"]
    assert list(session) == ["type", "object", "id", "expires_at", "audio", "include"]
    assert (session["type"], session["object"]) == ("transcription", "realtime.transcription_session")
    assert session["id"].startswith("sess_")
    assert session["audio"] == {
        "input": {
            "format": {"type": "audio/pcm", "rate": 24000},
            "transcription": None,
            "noise_reduction": None,
            "turn_detection": {
                "type": "server_vad",
                "threshold": 0.5,
                "prefix_padding_ms": 300,
                "silence_duration_ms": 200,
            },
        }
    }


def test_it_writes_down_and_answers_nothing(scribe: Driver) -> None:
    session = only(configure(scribe, audio=transcription(format={"type": "audio/pcmu"})), "session.updated")["session"]
    assert session["audio"]["input"]["transcription"]["model"] == "gpt-4o-transcribe"
    configure(scribe, audio={"input": {"format": {"type": "audio/pcm", "rate": 24000}}})
    assert types(scribe.speak()) == TURN
    assert types(scribe.run()) == [DELTA] * 3 + [COMPLETED]
    assert not any(name.startswith(("response.", "rate_limits")) for name in types(scribe.events))


@pytest.mark.parametrize("name", ["response.create", "response.cancel"])
def test_it_refuses_responses(scribe: Driver, name: str) -> None:
    error = error_of(scribe.send(name, event_id="e1"))
    assert (error["code"], error["param"], error["event_id"]) == ("invalid_value", "type", "e1")
    assert "A transcription session has no responses" in error["message"]


@pytest.mark.parametrize(
    ("session", "code", "param"),
    [
        ({"type": "realtime"}, "invalid_value", "session.type"),
        ({"type": "transcription", "instructions": "x"}, "unknown_parameter", "session.instructions"),
        ({"type": "transcription", "audio": {"output": {}}}, "unknown_parameter", "session.audio.output"),
        (
            {"type": "transcription", "audio": {"input": {"turn_detection": {"type": "semantic_vad"}}}},
            "invalid_value",
            "session.audio.input.turn_detection.type",
        ),
        (
            {"type": "transcription", "audio": transcription("gpt-realtime-whisper")},
            "invalid_value",
            "session.audio.input.turn_detection",
        ),
        (
            {
                "type": "transcription",
                "audio": {"input": {"transcription": {"model": "gpt-realtime-whisper", "prompt": "x"}, "turn_detection": None}},
            },
            "invalid_value",
            "session.audio.input.transcription.prompt",
        ),
    ],
)
def test_an_update_of_another_kind_is_refused(scribe: Driver, session: dict[str, Any], code: str, param: str) -> None:
    before = scribe.machine.session
    error = error_of(scribe.send("session.update", session=session))
    assert (error["code"], error["param"]) == (code, param)
    assert scribe.machine.session is before


def test_null_clears_what_a_transcription_session_includes(scribe: Driver) -> None:
    name = "item.input_audio_transcription.logprobs"
    assert configure(scribe, include=[name])[0]["session"]["include"] == [name]
    assert configure(scribe, include=None)[0]["session"]["include"] is None


# --- Models that write while somebody speaks --------------------------------------------------------------------------


@pytest.fixture
def live(scribe: Driver) -> Driver:
    configure(scribe, audio=transcription("gpt-realtime-whisper", turn_detection=None))
    return scribe


def test_a_live_model_writes_before_the_client_commits(live: Driver) -> None:
    assert live.append(loud(250)) == []
    (first,) = live.append(loud(100))
    (second,) = live.append(loud(300))
    assert (first["delta"], second["delta"]) == ("one", " two")
    assert live.append(loud(5000)) == []
    committed = only(live.send("input_audio_buffer.commit"), "input_audio_buffer.committed")
    assert committed["item_id"] == first["item_id"] == second["item_id"]
    events = live.run()
    assert [event["delta"] for event in of_type(events, DELTA)] == [" three"]
    assert only(events, COMPLETED)["transcript"] == "one two three"


def test_what_was_cleared_is_written_anew(live: Driver) -> None:
    live.append(loud(400))
    live.send("input_audio_buffer.clear")
    assert [event["delta"] for event in live.append(loud(400))] == ["one"]


def test_a_live_model_that_cannot_know_the_words_writes_them_at_the_end(live: Driver) -> None:
    for _ in range(3):
        live.append(quiet(200))
        live.send("input_audio_buffer.commit")
    live.run()
    assert live.append(loud(2000)) == []
    live.send("input_audio_buffer.commit")
    assert only(live.run(), COMPLETED)["transcript"] == "Something of 2.0 seconds"
