"""Checklist lines 13 to 19: the session object, and what `session.update` may and may not do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.simulator.endpoint.options import ModelOptions
from tests.simulator.checklist.support import members as members_of
from tests.simulator.support import (
    TEXT_ONLY,
    UNIX_TIME,
    Driver,
    as_base64,
    error_of,
    quiet,
    types,
)

VAD: dict[str, Any] = {
    "type": "server_vad",
    "threshold": 0.5,
    "prefix_padding_ms": 300,
    "silence_duration_ms": 200,
    "idle_timeout_ms": None,
    "create_response": True,
    "interrupt_response": True,
}
PCM = {"type": "audio/pcm", "rate": 24000}
INPUT = {"format": PCM, "transcription": None, "noise_reduction": None, "turn_detection": VAD}
DEFAULTS: dict[str, Any] = {
    "type": "realtime",
    "object": "realtime.session",
    "id": None,
    "model": "gpt-realtime",
    "output_modalities": ["audio"],
    "instructions": None,
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "tracing": None,
    "truncation": "auto",
    "prompt": None,
    "expires_at": int(UNIX_TIME) + 3600,
    "audio": {"input": INPUT, "output": {"format": PCM, "voice": "alloy", "speed": 1.0}},
    "include": None,
}


def session_of(driver: Driver) -> dict[str, Any]:
    """The session as it was last reported."""
    told = [event for event in driver.events if event["type"] in ("session.created", "session.updated")]
    found: dict[str, Any] = told[-1]["session"]
    return found


def unchanged(driver: Driver, before: dict[str, Any]) -> bool:
    """Whether an update of nothing still reports the same session."""
    driver.update()
    return session_of(driver) == before


# --- 13: the object ---------------------------------------------------------------------------------------------------


def test_13a_the_session_has_every_member_with_its_default_in_captured_order(driver: Driver) -> None:
    session = session_of(driver)
    assert list(session) == list(DEFAULTS)
    assert session["id"].startswith("sess_")
    assert session["instructions"]
    assert session == {**DEFAULTS, "id": session["id"], "instructions": session["instructions"]}
    assert list(session["audio"]["input"]["turn_detection"]) == list(VAD)


def test_13b_a_model_that_reasons_has_two_members_more(drive: Callable[..., Driver]) -> None:
    session = session_of(drive(model="gpt-realtime-2.1"))
    assert set(session) - set(DEFAULTS) == {"reasoning", "parallel_tool_calls"}
    assert session["reasoning"] == {"effort": "low"}


def test_13c_a_transcription_session_has_the_hearing_half(drive: Callable[..., Driver]) -> None:
    session = session_of(drive(kind="transcription"))
    assert session == {
        "type": "transcription",
        "object": "realtime.transcription_session",
        "id": session["id"],
        "expires_at": int(UNIX_TIME) + 3600,
        "audio": {
            "input": {
                **INPUT,
                "turn_detection": {name: VAD[name] for name in list(VAD)[:4]},
            }
        },
        "include": None,
    }


def test_13d_what_identifies_it_stays(driver: Driver) -> None:
    first = session_of(driver)
    for number in range(3):
        driver.wait(100.0)
        driver.update(instructions=f"Number {number}.", audio={"output": {"speed": 1.1}})
        for name in ("type", "object", "id", "model", "expires_at"):
            assert session_of(driver)[name] == first[name]


# --- 14 and 15: what is refused as a whole ----------------------------------------------------------------------------


def test_14_an_update_names_its_type(driver: Driver) -> None:
    before = session_of(driver)
    error = error_of(driver.send("session.update", session={"instructions": "Be brief."}))
    assert (error["code"], error["param"]) == ("missing_required_parameter", "session.type")
    assert error["message"] == "Missing required parameter: 'session.type'."
    assert unchanged(driver, before)


@pytest.mark.parametrize(
    ("session", "param"),
    [
        ({"x": 1}, "session.x"),
        ({"modalities": ["text"]}, "session.modalities"),
        ({"voice": "alloy"}, "session.voice"),
        ({"temperature": 0.8}, "session.temperature"),
        ({"input_audio_format": "pcm16"}, "session.input_audio_format"),
        ({"audio": {"x": 1}}, "session.audio.x"),
        ({"audio": {"input": {"turn_detection": {"type": "server_vad", "x": 1}}}}, "session.audio.input.turn_detection.x"),
        ({"audio": {"input": {"turn_detection": {"type": "semantic_vad", "threshold": 1}}}}, None),
        ({"audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000, "x": 1}}}}, "session.audio.output.format.x"),
        ({"tools": [{"type": "function", "name": "a"}, {"type": "function", "name": "b", "x": 1}]}, "session.tools[1].x"),
        ({"tracing": {"x": 1}}, "session.tracing.x"),
    ],
)
def test_15a_an_unknown_member_refuses_the_update_as_a_whole(
    driver: Driver, session: dict[str, Any], param: str | None
) -> None:
    before = session_of(driver)
    error = error_of(driver.update(instructions="Be brief.", max_output_tokens=7, **session))
    param = param or "session.audio.input.turn_detection.threshold"
    assert (error["code"], error["param"]) == ("unknown_parameter", param)
    assert error["message"] == f"Unknown parameter: '{param}'."
    assert unchanged(driver, before)


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ({"type": "session.update", "session": {"type": "realtime"}, "x": 1}, "x"),
        ({"type": "input_audio_buffer.commit", "x": 1}, "x"),
        ({"type": "response.create", "response": {"x": 1}}, "response.x"),
        ({"type": "response.create", "response": {"modalities": ["text"]}}, "response.modalities"),
        ({"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": [], "x": 1}}, "item.x"),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "a", "x": 1}]},
            },
            "item.content[0].x",
        ),
    ],
)
def test_15b_nor_is_one_taken_anywhere_else(driver: Driver, event: dict[str, Any], param: str) -> None:
    error = error_of(driver.send(type_=event["type"], **{name: it for name, it in event.items() if name != "type"}))
    assert (error["code"], error["param"]) == ("unknown_parameter", param)
    assert driver.run() == []


# --- 16: what is taken ------------------------------------------------------------------------------------------------


def test_16a_absent_members_are_kept_and_the_whole_session_comes_back(driver: Driver) -> None:
    before = session_of(driver)
    tool = {"type": "function", "name": "lookup", "description": "Looks it up.", "parameters": {"type": "object"}}
    driver.update(instructions="Be brief.", tools=[tool], max_output_tokens=100)
    driver.update(audio={"input": {"transcription": {"model": "whisper-1"}}})
    driver.update(audio={"output": {"voice": "cedar"}}, tool_choice="required")
    expected = {**before, "instructions": "Be brief.", "tools": [tool], "max_output_tokens": 100, "tool_choice": "required"}
    expected["audio"] = {
        "input": {**INPUT, "transcription": {"model": "whisper-1", "language": None, "prompt": None}},
        "output": {**before["audio"]["output"], "voice": "cedar"},
    }
    assert session_of(driver) == expected
    assert list(session_of(driver)) == list(before)


def test_16b_null_and_the_empty_clear(driver: Driver) -> None:
    audio = {
        "transcription": {"model": "gpt-4o-transcribe", "language": "en"},
        "noise_reduction": {"type": "near_field"},
        "turn_detection": {**VAD, "idle_timeout_ms": 6000},
    }
    tools = [{"type": "function", "name": "lookup"}]
    prompt = {"id": "pmpt_1"}
    include = ["item.input_audio_transcription.logprobs"]
    driver.update(instructions="x", tools=tools, prompt=prompt, include=include, max_output_tokens=9, audio={"input": audio})
    full = session_of(driver)
    assert full["tools"]
    assert full["audio"]["input"]["noise_reduction"]["type"] == "near_field"
    cleared = dict.fromkeys(audio)
    driver.update(instructions="", tools=[], prompt=None, include=None, max_output_tokens=None, audio={"input": cleared})
    session = session_of(driver)
    assert session["audio"]["input"] == {"format": PCM, **cleared}
    expected: dict[str, Any] = {"instructions": "", "tools": [], "prompt": None, "include": None, "max_output_tokens": "inf"}
    assert {name: session[name] for name in expected} == expected


def test_16c_turn_detection_is_replaced_and_its_defaults_come_back(driver: Driver) -> None:
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 900, "threshold": 0.9}}})
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "prefix_padding_ms": 100}}})
    assert session_of(driver)["audio"]["input"]["turn_detection"] == {**VAD, "prefix_padding_ms": 100}
    driver.update(audio={"input": {"turn_detection": {"type": "semantic_vad"}}})
    assert session_of(driver)["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    }


def test_16d_noise_reduction_keeps_a_strength_that_is_not_named(driver: Driver) -> None:
    driver.update(audio={"input": {"noise_reduction": {"type": "near_field", "strength": 0.5}}})
    driver.update(audio={"input": {"noise_reduction": {"type": "far_field"}}})
    assert session_of(driver)["audio"]["input"]["noise_reduction"] == {"type": "far_field", "strength": 0.5}


# --- 17 and 18: what cannot be changed, and limits --------------------------------------------------------------------


def test_17a_another_model_is_ignored(driver: Driver) -> None:
    driver.update(model="gpt-realtime-mini", instructions="x")
    assert (session_of(driver)["model"], session_of(driver)["instructions"]) == ("gpt-realtime", "x")


def test_17b_or_refused_if_that_is_wanted(drive: Callable[..., Driver]) -> None:
    driver = drive(options=ModelOptions(model_change="refuse"))
    assert error_of(driver.update(model="gpt-realtime-mini"))["param"] == "session.model"
    assert types(driver.update(model="gpt-realtime")) == ["session.updated"]


def test_17c_the_voice_is_settled_by_the_first_audio(driver: Driver) -> None:
    def use(voice: str) -> list[dict[str, Any]]:
        return driver.update(instructions="x", audio={"output": {"voice": voice}})

    assert types(use("marin")) == ["session.updated"]
    driver.ask("first question", output_modalities=["text"])
    assert types(use("cedar")) == ["session.updated"]
    driver.ask("first question")
    before = session_of(driver)
    error = error_of(use("marin"))
    assert (error["code"], error["param"]) == ("cannot_update_voice", None)
    assert error["message"] == "Cannot update a conversation's voice if assistant audio is present."
    assert unchanged(driver, before)
    assert types(use("cedar")) == ["session.updated"]
    error = error_of(driver.send("response.create", response={"audio": {"output": {"voice": "marin"}}}))
    assert error["code"] == "cannot_update_voice"


def test_18a_tracing_is_settled_once_it_is_on(driver: Driver) -> None:
    driver.update(tracing="auto")
    for other in (None, {"workflow_name": "x"}):
        assert error_of(driver.update(tracing=other))["param"] == "session.tracing"
    assert session_of(driver)["tracing"] == "auto"
    assert types(driver.update(tracing="auto")) == ["session.updated"]


@pytest.mark.parametrize("side", ["input", "output"])
def test_18b_pcm_has_one_rate(driver: Driver, side: str) -> None:
    error = error_of(driver.update(audio={side: {"format": {"type": "audio/pcm", "rate": 16000}}}))
    param = f"session.audio.{side}.format.rate"
    assert (error["code"], error["param"]) == ("integer_below_min_value", param)
    assert "Expected a value >= 24000" in error["message"]


def speed(number: float) -> dict[str, Any]:
    return {"audio": {"output": {"speed": number}}}


def idle_timeout(number: float) -> dict[str, Any]:
    return {"audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": number}}}}


def max_output_tokens(number: float) -> dict[str, Any]:
    return {"max_output_tokens": number}


@pytest.mark.parametrize(
    ("of", "param", "outside", "inside"),
    [
        (speed, "session.audio.output.speed", (0.24, 1.51), (0.25, 1.5)),
        (idle_timeout, "session.audio.input.turn_detection.idle_timeout_ms", (4999, 30_001), (5000, 30_000)),
        (max_output_tokens, "session.max_output_tokens", (0, 4097), (1, 4096)),
    ],
)
def test_18c_numbers_have_limits(
    driver: Driver,
    of: Callable[[float], dict[str, Any]],
    param: str,
    outside: tuple[float, float],
    inside: tuple[float, float],
) -> None:
    before = session_of(driver)
    for number, side in zip(outside, ("below_min_value", "above_max_value"), strict=True):
        error = error_of(driver.update(instructions="x", **of(number)))
        assert error["param"] == param
        assert error["code"].endswith(side)
    assert unchanged(driver, before)
    for number in inside:
        assert types(driver.update(**of(number))) == ["session.updated"]


# --- 19: whose fault it was -------------------------------------------------------------------------------------------

FAULTY: list[tuple[str, dict[str, Any]]] = [
    ("session.update", {"session": {"type": "realtime", "x": 1}}),
    ("input_audio_buffer.append", {"audio": "?"}),
    ("input_audio_buffer.commit", {}),
    ("conversation.item.create", {"item": {"type": "function_call_output", "call_id": "call_x", "output": ""}}),
    ("conversation.item.delete", {"item_id": "item_x"}),
    ("conversation.item.truncate", {"item_id": "item_x", "content_index": 0, "audio_end_ms": 0}),
    ("response.create", {"response": {"conversation": "some"}}),
    ("response.cancel", {}),
    ("nope", {}),
]


@pytest.mark.parametrize(("type_", "members"), FAULTY)
def test_19a_an_error_names_the_event_that_caused_it(driver: Driver, type_: str, members: dict[str, Any]) -> None:
    assert error_of(driver.send(type_, event_id="mine", **members))["event_id"] == "mine"
    error = error_of(driver.send(type_, **members))
    assert error["event_id"] is None
    assert {"type", "code", "message", "param", "event_id"} == set(error)


def test_19b_what_is_no_event_has_no_name(driver: Driver) -> None:
    assert error_of(driver.send_raw(b'{"event_id":"mine"'))["event_id"] is None
    assert error_of(driver.send_binary())["event_id"] is None


def test_19c_what_succeeds_never_names_it(driver: Driver) -> None:
    content = [{"type": "input_text", "text": "first question"}]
    driver.send("session.update", event_id="mine", session=TEXT_ONLY)
    driver.send("input_audio_buffer.append", event_id="mine", audio=as_base64(quiet(200)))
    driver.send("input_audio_buffer.commit", event_id="mine")
    driver.send("input_audio_buffer.clear", event_id="mine")
    item = {"id": "item_1", "type": "message", "role": "user", "content": content}
    driver.send("conversation.item.create", event_id="mine", item=item)
    driver.send("conversation.item.retrieve", event_id="mine", item_id="item_1")
    driver.send("response.create", event_id="mine")
    driver.run()
    driver.send("conversation.item.delete", event_id="mine", item_id="item_1")
    assert len(driver.events) > 20
    assert "error" not in types(driver.events)
    assert [value for _, value in members_of(driver.events) if value == "mine"] == []
