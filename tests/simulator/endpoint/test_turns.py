"""Turns that nobody takes: the idle timeout, and what keeps it from coming."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.simulator.scenario import parse_scenario
from tests.simulator.support import Driver, as_base64, loud, of_type, only, quiet, types

SCENARIO = parse_scenario(
    """
name: idle
turns: [{heard: hello, do: [{say: "Hello there."}]}]
idle: {do: [{say: "Are you still there?"}]}
default: {do: [{say: "Default."}]}
"""
)
SECONDS = len("Hello there.") * 0.05
TRIGGERED = "input_audio_buffer.timeout_triggered"


def detection(**more: Any) -> dict[str, Any]:
    return {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000, **more}}}


@pytest.fixture
def idle(drive: Callable[..., Driver]) -> Driver:
    driver = drive(SCENARIO)
    driver.update(audio=detection())
    return driver


def test_silence_after_the_answer_was_heard_brings_a_turn_of_its_own(idle: Driver) -> None:
    idle.speak()
    idle.wait(0.3)
    first = len(idle.events)
    while only_silence := idle.wait(0.1):
        assert TRIGGERED not in types(only_silence)
    # The answer came in an instant, and takes a while to play.
    until = 0.3 + SECONDS + 6.0
    idle.append(quiet(500))
    idle.wait(until - idle.now - 0.01)
    assert TRIGGERED not in types(idle.events[first:])
    events = idle.wait(0.02)
    assert types(events) == [
        TRIGGERED,
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
    ]
    item_id = events[0]["item_id"]
    assert events[1]["item_id"] == events[2]["item"]["id"] == item_id
    assert events[2]["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    assert only(idle.wait(2.0), "response.output_audio_transcript.done")["transcript"] == "Are you still there?"


def test_its_milliseconds_are_the_silence_after_playback(idle: Driver) -> None:
    idle.speak()
    appended = 1100
    for _ in range(70):
        idle.wait(0.1)
        idle.append(quiet(100))
    event = only(idle.events, TRIGGERED)
    assert event["audio_start_ms"] == pytest.approx(appended + (0.3 + SECONDS) * 1000, abs=101)
    assert event["audio_end_ms"] - event["audio_start_ms"] == pytest.approx(6000, abs=101)
    retrieved = idle.send("conversation.item.retrieve", item_id=event["item_id"])[0]["item"]
    assert len(retrieved["content"][0]["audio"]) == len(as_base64(quiet(event["audio_end_ms"] - event["audio_start_ms"])))


def test_it_comes_again_after_its_own_answer(idle: Driver) -> None:
    idle.speak()
    idle.wait(30)
    assert len(of_type(idle.events, TRIGGERED)) == 4


def test_speech_keeps_it_away(idle: Driver) -> None:
    idle.speak()
    idle.wait(6.0)
    idle.append(loud(200))
    assert TRIGGERED not in types(idle.wait(20))


def test_a_response_that_is_asked_for_starts_it_anew(idle: Driver) -> None:
    idle.speak()
    idle.wait(5.0)
    idle.say("hello")
    idle.send("response.create")
    assert TRIGGERED not in types(idle.wait(6.5))
    assert TRIGGERED in types(idle.wait(1.0))


def test_switching_it_off_ends_it(idle: Driver) -> None:
    idle.speak()
    idle.wait(3.0)
    idle.update(audio=detection(idle_timeout_ms=None))
    assert TRIGGERED not in types(idle.wait(60))


def test_without_an_answer_there_is_nothing_to_wait_for(idle: Driver) -> None:
    assert idle.wait(60) == []


def test_a_scenario_without_an_idle_turn_answers_with_its_default(drive: Callable[..., Driver]) -> None:
    driver = drive(parse_scenario("name: x\nturns: [{heard: hello, do: []}]\ndefault: {do: [{say: What now}]}"))
    driver.update(audio=detection())
    driver.speak()
    driver.wait(8)
    assert only(driver.events, "response.output_audio_transcript.done")["transcript"] == "What now"


def test_transcription_leaves_the_silence_alone(idle: Driver) -> None:
    idle.update(audio={"input": {"transcription": {"model": "whisper-1"}, **detection()["input"]}})
    idle.speak()
    idle.wait(8)
    done = of_type(idle.events, "conversation.item.input_audio_transcription.completed")
    assert [event["transcript"] for event in done] == ["hello"]
