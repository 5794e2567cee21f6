"""Checklist lines 27 to 34: audio in, the turns found in it, silence, and what is written down."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.scenario import parse_scenario
from tests.simulator.checklist.support import joined, when
from tests.simulator.support import Driver, as_base64, error_of, loud, of_type, only, quiet, types

MIB = 1024 * 1024
TURN = [
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "input_audio_buffer.committed",
    "conversation.item.added",
    "conversation.item.done",
]
TRANSCRIPTION = "conversation.item.input_audio_transcription"
Drive = Callable[..., Driver]


def hears(driver: Driver, detection: dict[str, Any] | None, **more: Any) -> None:
    driver.update(output_modalities=["text"], audio={"input": {"turn_detection": detection, **more}})


# --- 27 and 28: the buffer --------------------------------------------------------------------------------------------


def test_27a_an_append_has_no_reply(driver: Driver) -> None:
    assert driver.append(quiet(20)) == []
    assert driver.append(b"\0") == []
    assert driver.send("input_audio_buffer.append", event_id="mine", audio=as_base64(quiet(500))) == []


@pytest.mark.parametrize(("audio", "got"), [("?!", "an invalid value."), ("AAA", "an invalid value."), ("", "empty bytes")])
def test_27b_what_is_no_audio_is_refused(driver: Driver, audio: str, got: str) -> None:
    error = error_of(driver.send("input_audio_buffer.append", audio=audio))
    assert error["code"] in (None, "invalid_value")
    expected = "Invalid 'audio'. Expected base64-encoded audio bytes (mono PCM16 at 24kHz) but got "
    assert error["message"].removesuffix(".") == (expected + got).removesuffix(".")


def test_27c_an_append_carries_15_mib_and_no_more(driver: Driver) -> None:
    hears(driver, None)
    assert driver.send("input_audio_buffer.append", audio="A" * (15 * MIB)) == []
    assert error_of(driver.send("input_audio_buffer.append", audio="A" * (15 * MIB + 4)))["param"] == "audio"
    assert types(driver.send("input_audio_buffer.commit"))[0] == "input_audio_buffer.committed"


@pytest.mark.parametrize(("milliseconds", "figure"), [(0, "0.00ms"), (20, "20.00ms"), (99, "99.00ms")])
@pytest.mark.parametrize("encoding", list(Encoding))
def test_28a_a_turn_has_100_milliseconds(driver: Driver, encoding: Encoding, milliseconds: int, figure: str) -> None:
    hears(driver, None, format={"type": encoding.value})
    if milliseconds:
        driver.append(quiet(milliseconds, encoding))
    error = error_of(driver.send("input_audio_buffer.commit"))
    assert error["code"] == "input_audio_buffer_commit_empty"
    assert error["message"] == (
        "Error committing input audio buffer: buffer too small. Expected at least 100ms of audio, but buffer only has "
        f"{figure} of audio."
    )
    # What there was is not lost.
    driver.append(quiet(100 - milliseconds, encoding))
    assert types(driver.send("input_audio_buffer.commit")) == TURN[2:]


def test_28b_clear_drops_what_was_not_committed(driver: Driver) -> None:
    hears(driver, None)
    driver.append(quiet(500))
    assert types(driver.send("input_audio_buffer.clear")) == ["input_audio_buffer.cleared"]
    assert error_of(driver.send("input_audio_buffer.commit"))["code"] == "input_audio_buffer_commit_empty"


# --- 29 to 32: turns --------------------------------------------------------------------------------------------------


def test_29_without_turn_detection_the_client_decides(driver: Driver) -> None:
    hears(driver, None)
    assert driver.speak() == []
    assert driver.run() == []
    committed, added, done = driver.send("input_audio_buffer.commit")
    assert types([committed, added, done]) == TURN[2:]
    assert committed["item_id"] == added["item"]["id"] == done["item"]["id"]
    assert driver.run() == []


def test_30a_a_turn_is_one_item_on_the_clock_of_the_audio(driver: Driver) -> None:
    hears(driver, {"type": "server_vad", "create_response": False})
    events = driver.append(quiet(1000) + loud(600) + quiet(400))
    assert types(events) == TURN
    started, stopped, committed, added, done = events
    ids = [started["item_id"], stopped["item_id"], committed["item_id"], added["item"]["id"], done["item"]["id"]]
    assert len(set(ids)) == 1
    assert added["item"] == {
        "type": "message",
        "id": ids[0],
        "status": "completed",
        "role": "user",
        "content": [{"type": "input_audio", "transcript": None}],
    }
    # The prefix padding of 300 ms comes before the sound, the silence of 200 ms after it.
    assert started["audio_start_ms"] == pytest.approx(700, abs=20)
    assert stopped["audio_end_ms"] == pytest.approx(1800, abs=20)


def test_30b_the_clock_counts_all_that_was_ever_appended(driver: Driver) -> None:
    hears(driver, {"type": "server_vad", "create_response": False})
    driver.speak()
    driver.append(quiet(900))
    driver.send("input_audio_buffer.clear")
    settings = {"type": "server_vad", "create_response": False, "prefix_padding_ms": 100, "silence_duration_ms": 500}
    hears(driver, settings)
    driver.wait(100.0)
    before = len(driver.events)
    driver.append(quiet(1000) + loud(600) + quiet(1000))
    second = driver.events[before:]
    assert types(second) == TURN
    assert second[0]["audio_start_ms"] == pytest.approx(1100 + 900 + 1000 - 100, abs=20)
    assert second[1]["audio_end_ms"] == pytest.approx(1100 + 900 + 1600 + 500, abs=20)
    assert second[2]["previous_item_id"] == of_type(driver.events, "input_audio_buffer.committed")[0]["item_id"]


def test_31a_speech_is_found_by_audio_and_not_by_time(drive: Drive) -> None:
    sound = quiet(1000) + loud(600) + quiet(700) + loud(900) + quiet(400)

    def edges(*sizes: int, seconds: float) -> list[tuple[str, int]]:
        driver = drive()
        hears(driver, {"type": "server_vad", "create_response": False})
        start, found = 0, list[dict[str, Any]]()
        for size in itertools.cycle(sizes):
            if start >= len(sound):
                break
            found += driver.append(sound[start : start + size])
            start += size
            driver.wait(seconds)
        marks = [event for event in found if event["type"].startswith("input_audio_buffer.speech")]
        return [(event["type"], event.get("audio_start_ms", 0) or event["audio_end_ms"]) for event in marks]

    at_once = edges(len(sound), seconds=0.0)
    assert len(at_once) == 4
    assert edges(960, seconds=0.02) == at_once
    assert edges(2, 4799, 12_001, seconds=0.5) == at_once


def test_31b_or_no_faster_than_it_would_be_spoken(drive: Drive) -> None:
    driver = drive(options=ModelOptions(real_time=True))
    hears(driver, {"type": "server_vad", "create_response": False})
    driver.append(quiet(1000) + loud(600) + quiet(400))
    driver.run()
    (started,), (stopped,) = when(driver, TURN[0]), when(driver, TURN[1])
    assert 1.0 <= started <= 1.2
    assert 1.8 <= stopped <= 2.0


def test_32a_a_turn_need_not_be_answered(driver: Driver) -> None:
    hears(driver, {"type": "server_vad", "create_response": False})
    assert types(driver.speak()) == TURN
    assert driver.run() == []
    hears(driver, {"type": "server_vad"})
    assert types(driver.speak()) == [*TURN, "response.created"]


def test_32b_nor_does_it_need_to_interrupt(driver: Driver) -> None:
    detection = {"type": "server_vad", "interrupt_response": False, "create_response": False}
    driver.update(audio={"input": {"turn_detection": detection}})
    driver.say("first question")
    driver.send("response.create")
    driver.wait(0.4)
    assert types(driver.speak()) == TURN
    driver.run()
    response = only(driver.events, "response.done")["response"]
    assert (response["status"], response["status_details"]) == ("completed", None)


def test_32c_a_turn_that_does_not_interrupt_is_answered_afterwards(driver: Driver) -> None:
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}})
    driver.say("look")
    driver.send("response.create")
    driver.wait(0.4)
    assert types(driver.speak()) == TURN
    driver.run()
    names = types(driver.events)
    assert names.count("response.created") == 2
    assert names.index("response.done") < len(names) - 1 - names[::-1].index("response.created")


def test_32d_semantic_detection_differs_in_its_patience_only(drive: Drive) -> None:
    def pause(eagerness: str | None) -> int:
        driver = drive()
        hears(driver, {"type": "semantic_vad", **({"eagerness": eagerness} if eagerness else {})})
        events = driver.append(quiet(500) + loud(600) + quiet(9000))
        assert types(events) == [*TURN, "response.created"]
        return int(events[1]["audio_end_ms"]) - 1100

    low, medium, high = pause("low"), pause("medium"), pause("high")
    assert low > medium > high > 0
    assert pause("auto") == pause(None) == medium


# --- 33: silence ------------------------------------------------------------------------------------------------------


def silent_after_an_answer(driver: Driver) -> float:
    """An answer, and the time at which the last of its audio has been played."""
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000}}})
    driver.say("first question")
    driver.send("response.create")
    while "response.done" not in types(driver.events):
        driver.wait(0.1)
        driver.append(quiet(100))
    sound = sum(len(event["delta"]) * 3 // 4 for event in of_type(driver.events, "response.output_audio.delta"))
    return when(driver, "response.output_audio.delta")[0] + sound / 48_000


def keep_silent(driver: Driver, until: float) -> None:
    while driver.now < until:
        driver.wait(0.1)
        driver.append(quiet(100))


def test_33a_after_a_silence_the_model_speaks(driver: Driver) -> None:
    played = silent_after_an_answer(driver)
    assert played > driver.now + 0.5, "it takes longer to hear than to say"
    start = len(driver.events)
    keep_silent(driver, played + 7)
    events = driver.events[start:]
    names = ["input_audio_buffer.timeout_triggered", *TURN[2:], "response.created"]
    start = types(events).index(names[0])
    assert types(events)[start : start + 5] == names
    triggered, committed, added = events[start : start + 3]
    assert driver.times[len(driver.events) - len(events) + start] == pytest.approx(played + 6.0, abs=0.15)
    assert triggered["item_id"] == committed["item_id"] == added["item"]["id"]
    assert added["item"]["content"] == [{"type": "input_audio", "transcript": None}]
    assert triggered["audio_end_ms"] - triggered["audio_start_ms"] == pytest.approx(6000, abs=150)
    assert "input_audio_buffer.speech_started" not in types(driver.events)


def test_33b_unless_somebody_speaks_before(driver: Driver) -> None:
    played = silent_after_an_answer(driver)
    keep_silent(driver, played + 5.5)
    driver.append(loud(400))
    assert "input_audio_buffer.speech_started" in types(driver.events)
    driver.wait(20.0)
    assert of_type(driver.events, "input_audio_buffer.timeout_triggered") == []


# --- 34: transcripts --------------------------------------------------------------------------------------------------


def test_34a_nothing_is_written_down_unasked(driver: Driver) -> None:
    driver.speak()
    driver.run()
    assert [name for name in types(driver.events) if "transcription" in name] == []


@pytest.mark.parametrize("model", ["whisper-1", "gpt-4o-transcribe"])
def test_34b_deltas_and_the_whole_with_its_usage_after_the_turn(driver: Driver, model: str) -> None:
    hears(driver, {"type": "server_vad"}, transcription={"model": model})
    driver.speak()
    driver.run()
    names = types(driver.events)
    done = only(driver.events, f"{TRANSCRIPTION}.completed")
    assert names.index("input_audio_buffer.committed") < names.index(f"{TRANSCRIPTION}.delta")
    assert names.index(f"{TRANSCRIPTION}.delta") < names.index(f"{TRANSCRIPTION}.completed")
    assert done["item_id"] == only(driver.events, "input_audio_buffer.committed")["item_id"]
    assert joined(driver.events, f"{TRANSCRIPTION}.delta", item_id=done["item_id"]) == done["transcript"] == "first question"
    usage = done["usage"]
    if model == "whisper-1":
        assert set(usage) == {"type", "seconds"}
        assert usage["type"] == "duration"
        assert usage["seconds"] > 0
        return
    assert usage["type"] == "tokens"
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens"] == sum(usage["input_token_details"].values())
    assert usage["input_token_details"]["audio_tokens"] > 0


def test_34c_they_may_come_after_the_response(drive: Drive) -> None:
    driver = drive(options=ModelOptions(transcription_delay=30.0))
    hears(driver, {"type": "server_vad"}, transcription={"model": "whisper-1"})
    driver.speak()
    driver.run()
    names = types(driver.events)
    assert names.index(f"{TRANSCRIPTION}.completed") > names.index("response.done")


def test_34d_they_may_fail_and_the_response_goes_on(drive: Drive) -> None:
    scenario = parse_scenario(
        "name: x\nturns: [{heard: mumble, transcription: {code: audio_unintelligible}, do: [{say: Excuse me.}]}]\n"
        "default: {do: [{say: No.}]}"
    )
    driver = drive(scenario)
    hears(driver, {"type": "server_vad"}, transcription={"model": "whisper-1"})
    driver.speak()
    driver.run()
    failed = only(driver.events, f"{TRANSCRIPTION}.failed")
    assert failed["item_id"] == only(driver.events, "input_audio_buffer.committed")["item_id"]
    assert failed["error"]["code"] == "audio_unintelligible"
    assert {type(value) for value in failed["error"].values()} == {str}, "a member without a value is left out"
    assert only(driver.events, "response.done")["response"]["status"] == "completed"
    assert of_type(driver.events, f"{TRANSCRIPTION}.completed") == []


def test_34e_they_may_overtake_each_other(drive: Drive) -> None:
    driver = drive(options=ModelOptions(transcription_jitter=20.0))
    hears(driver, {"type": "server_vad", "create_response": False}, transcription={"model": "whisper-1"})
    for _ in range(6):
        driver.speak()
    driver.run()
    said = [event["item_id"] for event in of_type(driver.events, "input_audio_buffer.committed")]
    written = [event["item_id"] for event in of_type(driver.events, f"{TRANSCRIPTION}.completed")]
    assert sorted(written) == sorted(said)
    assert written != said


def test_34f_a_session_that_only_writes_down_does_just_that(drive: Drive) -> None:
    driver = drive(kind="transcription")
    audio = {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}
    driver.send("session.update", session={"type": "transcription", "audio": audio})
    driver.speak()
    driver.run()
    names = types(driver.events)
    assert names[:2] == ["session.created", "session.updated"]
    assert names[2:7] == TURN
    assert set(names[7:-1]) == {f"{TRANSCRIPTION}.delta"}
    assert names[-1] == f"{TRANSCRIPTION}.completed"
