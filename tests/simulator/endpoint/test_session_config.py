"""The session object: its defaults as captured, and `session.update` by the rules."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.errors import WireError
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.session_config import decode_preset, preset_session
from orchestrator.wire.realtime import RealtimeSessionConfig
from tests.simulator.support import TEXT_ONLY, UNIX_TIME, Driver, error_of, loud, only, quiet, types

# As captured from the live API, in order; null where the value is the server's own.
CAPTURED = """
{"type":"realtime","object":"realtime.session","id":null,"model":"gpt-realtime","output_modalities":["audio"],
 "instructions":null,"tools":[],"tool_choice":"auto","max_output_tokens":"inf","tracing":null,"truncation":"auto",
 "prompt":null,"expires_at":null,
 "audio":{"input":{"format":{"type":"audio/pcm","rate":24000},"transcription":null,"noise_reduction":null,
   "turn_detection":{"type":"server_vad","threshold":0.5,"prefix_padding_ms":300,"silence_duration_ms":200,
     "idle_timeout_ms":null,"create_response":true,"interrupt_response":true}},
  "output":{"format":{"type":"audio/pcm","rate":24000},"voice":"alloy","speed":1.0}},
 "include":null}
"""


def keys(value: Any, at: str = "") -> list[str]:
    """All paths of a JSON value, in order."""
    if not isinstance(value, dict):
        return [at]
    return [at, *(path for key, member in value.items() for path in keys(member, f"{at}.{key}"))]


def session_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    session: dict[str, Any] = only(events, "session.updated")["session"]
    return session


def test_a_session_starts_with_every_default_in_captured_order(driver: Driver) -> None:
    session = only(driver.events, "session.created")["session"]
    captured = json.loads(CAPTURED)
    assert keys(session) == keys(captured)
    for name in ("id", "instructions", "expires_at"):
        captured[name] = session[name]
    assert session == captured
    assert session["id"].startswith("sess_")
    assert session["instructions"]
    assert session["expires_at"] == UNIX_TIME + 3600


def test_a_reasoning_model_says_how_it_reasons(drive: Any) -> None:
    session = only(drive(model="gpt-realtime-2.1").events, "session.created")["session"]
    assert session["reasoning"] == {"effort": "low"}
    assert session["parallel_tool_calls"] is True


def test_an_update_answers_with_the_whole_object_and_no_echo_of_the_event_id(driver: Driver) -> None:
    before = driver.events[0]["session"]
    events = driver.send("session.update", event_id="mine", session={"type": "realtime", "instructions": "Be brief."})
    assert types(events) == ["session.updated"]
    assert events[0]["event_id"] != "mine"
    assert events[0]["session"] == {**before, "instructions": "Be brief."}


def test_audio_merges_by_leaf_object(driver: Driver) -> None:
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "threshold": 0.7}}})
    driver.update(audio={"output": {"voice": "marin"}})
    session = session_of(driver.update(audio={"input": {"format": {"type": "audio/pcmu"}}}))
    assert session["audio"]["input"]["format"] == {"type": "audio/pcmu"}
    assert session["audio"]["input"]["turn_detection"]["threshold"] == 0.7
    assert session["audio"]["output"] == {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 1.0}


def test_turn_detection_is_replaced_and_filled_up_with_defaults(driver: Driver) -> None:
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 900}}})
    session = session_of(driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "threshold": 0.3}}}))
    assert session["audio"]["input"]["turn_detection"] == {
        "type": "server_vad",
        "threshold": 0.3,
        "prefix_padding_ms": 300,
        "silence_duration_ms": 200,
        "idle_timeout_ms": None,
        "create_response": True,
        "interrupt_response": True,
    }
    session = session_of(driver.update(audio={"input": {"turn_detection": {"type": "semantic_vad"}}}))
    assert session["audio"]["input"]["turn_detection"] == {
        "type": "semantic_vad",
        "eagerness": "auto",
        "create_response": True,
        "interrupt_response": True,
    }


def test_transcription_is_filled_up_and_noise_reduction_keeps_its_strength(driver: Driver) -> None:
    session = session_of(driver.update(audio={"input": {"transcription": {"model": "whisper-1"}}}))
    assert session["audio"]["input"]["transcription"] == {"model": "whisper-1", "language": None, "prompt": None}
    driver.update(audio={"input": {"noise_reduction": {"type": "near_field", "strength": 0.4}}})
    session = session_of(driver.update(audio={"input": {"noise_reduction": {"type": "far_field"}}}))
    assert session["audio"]["input"]["noise_reduction"] == {"type": "far_field", "strength": 0.4}


def test_null_and_empty_values_clear(driver: Driver) -> None:
    driver.update(
        instructions="x",
        tools=[{"type": "function", "name": "f"}],
        prompt={"id": "pmpt_1"},
        max_output_tokens=100,
        audio={"input": {"transcription": {"model": "whisper-1"}, "noise_reduction": {"type": "near_field"}}},
    )
    session = session_of(
        driver.update(
            instructions="",
            tools=[],
            prompt=None,
            max_output_tokens=None,
            audio={"input": {"transcription": None, "noise_reduction": None, "turn_detection": None}},
        )
    )
    assert (session["instructions"], session["tools"], session["prompt"], session["max_output_tokens"]) == ("", [], None, "inf")
    assert session["audio"]["input"] == {
        "format": {"type": "audio/pcm", "rate": 24000},
        "transcription": None,
        "noise_reduction": None,
        "turn_detection": None,
    }


def test_tools_come_back_as_they_were_sent(driver: Driver) -> None:
    tool = {
        "type": "function",
        "name": "lookup",
        "description": "Looks up.",
        "parameters": {"type": "object", "properties": {"a": {"type": "string", "x-own": [1, {"b": None}]}}},
    }
    assert session_of(driver.update(tools=[tool], tool_choice={"type": "function", "name": "lookup"}))["tools"] == [tool]


REFUSED: list[tuple[dict[str, Any], str, str | None, str]] = [
    ({"instructions": "x"}, "missing_required_parameter", "session.type", "Missing required parameter: 'session.type'."),
    (
        {"type": "realtime", "modalities": ["text"]},
        "unknown_parameter",
        "session.modalities",
        "Unknown parameter: 'session.modalities'.",
    ),
    (
        {"type": "realtime", "audio": {"output": {"pitch": 1}}},
        "unknown_parameter",
        "session.audio.output.pitch",
        "Unknown parameter: 'session.audio.output.pitch'.",
    ),
    (
        {"type": "realtime", "audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
        "integer_below_min_value",
        "session.audio.input.format.rate",
        "Expected a value >= 24000",
    ),
    (
        {"type": "realtime", "audio": {"input": {"format": {"type": "audio/mp3"}}}},
        "invalid_value",
        "session.audio.input.format.type",
        "Invalid value: 'audio/mp3'. Supported values are: 'audio/pcm', 'audio/pcmu', and 'audio/pcma'.",
    ),
    ({"type": "realtime", "output_modalities": ["audio", "text"]}, "invalid_value", "session.output_modalities", "modalities"),
    (
        {"type": "realtime", "instructions": 5},
        "invalid_type",
        "session.instructions",
        "Invalid type for 'session.instructions'",
    ),
    ({"type": "realtime", "max_output_tokens": 5000}, "integer_above_max_value", "session.max_output_tokens", "<= 4096"),
    ({"type": "realtime", "audio": {"output": {"speed": 2.0}}}, "decimal_above_max_value", "session.audio.output.speed", "1.5"),
    (
        {"type": "realtime", "audio": {"output": {"voice": "nobody"}}},
        "invalid_value",
        "session.audio.output.voice",
        "Invalid value: 'nobody'. Supported values are: 'alloy', 'ash',",
    ),
    (
        {"type": "realtime", "audio": {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 100}}}},
        "integer_below_min_value",
        "session.audio.input.turn_detection.idle_timeout_ms",
        ">= 5000",
    ),
    ({"type": "realtime", "reasoning": {"effort": "low"}}, "invalid_value", "session.reasoning", "does not support reasoning"),
]


@pytest.mark.parametrize(("session", "code", "param", "message"), REFUSED)
def test_a_bad_update_is_refused_whole(driver: Driver, session: dict[str, Any], code: str, param: str, message: str) -> None:
    before = driver.machine.session
    error = error_of(driver.send("session.update", event_id="up_1", session={"tool_choice": "none", **session}))
    assert (error["code"], error["param"], error["event_id"]) == (code, param, "up_1")
    assert message in error["message"]
    assert driver.machine.session is before


def test_the_kind_of_a_session_cannot_be_changed(driver: Driver) -> None:
    error = error_of(driver.send("session.update", session={"type": "transcription"}))
    assert (error["code"], error["param"]) == ("invalid_value", "session.type")


def test_the_model_stays_what_it_is(driver: Driver) -> None:
    assert session_of(driver.update(model="gpt-realtime-2"))["model"] == "gpt-realtime"


def test_another_model_may_also_be_refused(drive: Callable[..., Driver]) -> None:
    driver = drive(options=ModelOptions(model_change="refuse"))
    error = error_of(driver.update(model="gpt-realtime-2"))
    assert (error["code"], error["param"]) == ("invalid_value", "session.model")
    assert session_of(driver.update(model="gpt-realtime"))["model"] == "gpt-realtime"


def test_turn_detection_may_also_keep_what_an_update_leaves_out(drive: Callable[..., Driver]) -> None:
    driver = drive(options=ModelOptions(turn_detection_merges=True))
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "threshold": 0.7, "idle_timeout_ms": 9000}}})
    session = session_of(driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "prefix_padding_ms": 100}}}))
    detection = session["audio"]["input"]["turn_detection"]
    assert (detection["threshold"], detection["prefix_padding_ms"], detection["idle_timeout_ms"]) == (0.7, 100, 9000)
    session = session_of(driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": None}}}))
    assert session["audio"]["input"]["turn_detection"]["idle_timeout_ms"] is None


def test_clearing_what_a_session_does_not_have_leaves_it_out(driver: Driver) -> None:
    session = session_of(driver.update(reasoning=None, parallel_tool_calls=None))
    assert "reasoning" not in session
    assert "parallel_tool_calls" not in session


# --- Presets ----------------------------------------------------------------------------------------------------------


def test_a_session_begins_with_its_preset(drive: Callable[..., Driver]) -> None:
    preset = decode_preset(
        b'{"type":"realtime","model":"gpt-realtime-2","instructions":"Be brief.","audio":{"output":{"voice":"marin"}}}'
    )
    driver = drive(preset=preset, model="gpt-realtime")
    session = driver.events[0]["session"]
    assert (session["model"], session["instructions"]) == ("gpt-realtime", "Be brief.")
    assert session["audio"]["output"]["voice"] == "marin"
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"
    assert session_of(driver.update(instructions="Be long."))["instructions"] == "Be long."


def test_a_preset_may_make_it_a_transcription_session(drive: Callable[..., Driver]) -> None:
    driver = drive(preset=decode_preset(b'{"type":"transcription","include":[]}'), model="")
    session = driver.events[0]["session"]
    assert (session["type"], session["include"]) == ("transcription", [])


def test_a_preset_with_a_server_has_it_listed(drive: Callable[..., Driver]) -> None:
    tool = b'{"type":"mcp","server_label":"x","server_url":"https://example.com"}'
    driver = drive(preset=decode_preset(b'{"type":"realtime","tools":[' + tool + b"]}"))
    assert types(driver.events) == ["session.created", "conversation.item.added", "mcp_list_tools.in_progress"]


@pytest.mark.parametrize(("model", "given", "result"), [("", None, "gpt-realtime"), ("", "a", "a"), ("b", "a", "b")])
def test_the_model_of_a_preset_counts_where_none_was_asked_for(model: str, given: str | None, result: str) -> None:
    preset = decode_preset(json.dumps({"type": "realtime", **({"model": given} if given else {})}).encode())
    session = preset_session(preset, session_id="sess_1", model=model, expires_at=7)
    assert isinstance(session, RealtimeSessionConfig)
    assert (session.id, session.model, session.expires_at) == ("sess_1", result, 7)


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        (b"{}", "missing_required_parameter", "session.type"),
        (b'{"type":"realtime","colour":1}', "unknown_parameter", "session.colour"),
        (b'{"type":"realtime","audio":{"output":{"voice":"nobody"}}}', "invalid_value", "session.audio.output.voice"),
        (b'{"type":"realtime","reasoning":{"effort":"low"}}', "invalid_value", "session.reasoning"),
        (b'{"type":"realtime"},"type":"response.create"', "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b"5", "invalid_type", "session"),
        (b"", "invalid_json", None),
    ],
)
def test_a_bad_preset_is_refused_by_the_rules_of_an_update(data: bytes, code: str, param: str | None) -> None:
    with pytest.raises(WireError) as caught:
        preset_session(decode_preset(data), session_id="", model="", expires_at=0)
    assert (caught.value.wire_code, caught.value.param) == (code, param)


def test_tracing_cannot_be_changed_once_enabled(driver: Driver) -> None:
    driver.update(tracing="auto")
    driver.update(tracing="auto")
    assert error_of(driver.update(tracing={"workflow_name": "x"}))["param"] == "session.tracing"


def test_the_voice_is_locked_once_the_assistant_has_spoken(driver: Driver) -> None:
    driver.update(audio={"output": {"voice": "marin"}})
    driver.ask("first question")
    error = error_of(driver.update(audio={"output": {"voice": "alloy"}}, instructions="changed?"))
    assert error["code"] == "cannot_update_voice"
    assert error["message"] == "Cannot update a conversation's voice if assistant audio is present."
    assert error["param"] is None
    assert session_of(driver.update())["instructions"] != "changed?"
    assert session_of(driver.update(audio={"output": {"voice": "marin"}}))["audio"]["output"]["voice"] == "marin"
    locked = driver.send("response.create", response={"audio": {"output": {"voice": "ash"}}})
    assert error_of(locked)["code"] == "cannot_update_voice"


def test_written_answers_do_not_lock_the_voice(driver: Driver) -> None:
    driver.send("session.update", session=TEXT_ONLY)
    driver.ask("first question")
    assert types(driver.update(audio={"output": {"voice": "ash"}})) == ["session.updated"]


def test_a_voice_of_the_customers_own_is_accepted(driver: Driver) -> None:
    voice = {"id": "voice_123"}
    assert session_of(driver.update(audio={"output": {"voice": voice}}))["audio"]["output"]["voice"] == voice
    # The official types know only a name here, so the id stands alone.
    assert only(driver.ask("first question"), "response.created")["response"]["audio"]["output"]["voice"] == "voice_123"


@pytest.mark.parametrize(("eagerness", "silence"), [("low", 1200), ("medium", 600), ("auto", 600), ("high", 300)])
def test_semantic_vad_waits_by_its_eagerness(driver: Driver, eagerness: str, silence: int) -> None:
    driver.update(audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": eagerness}}})
    events = driver.append(loud(500) + quiet(1500))
    assert only(events, "input_audio_buffer.speech_stopped")["audio_end_ms"] == 500 + silence
