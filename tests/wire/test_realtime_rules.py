"""What a client may send: each rule broken once, and the code, path and message of the refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orchestrator.errors import WireError
from orchestrator.wire import realtime as wire
from orchestrator.wire.realtime_rules import ITEMS, supported_values


def nested(path: str, value: Any) -> Any:
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def session(path: str, value: Any, **siblings: Any) -> dict[str, Any]:
    body = nested(path, value)
    parent = body
    for key in path.split(".")[:-1]:
        parent = parent[key]
    parent.update(siblings)
    return {"type": "session.update", "session": {"type": "realtime", **body}}


def response(path: str, value: Any) -> dict[str, Any]:
    return {"type": "response.create", "response": nested(path, value)}


def item(**members: Any) -> dict[str, Any]:
    return {"type": "conversation.item.create", "item": members}


def message(role: str, part: dict[str, Any], **members: Any) -> dict[str, Any]:
    return item(type="message", role=role, content=[part], **members)


def truncate(content_index: int, audio_end_ms: int) -> dict[str, Any]:
    return {
        "type": "conversation.item.truncate",
        "item_id": "item_A1",
        "content_index": content_index,
        "audio_end_ms": audio_end_ms,
    }


DEEP: Any = None
for _ in range(150):
    DEEP = [DEEP]
DETECTION = "audio.input.turn_detection"
TEXT = {"type": "input_text", "text": "hi"}

BROKEN: list[tuple[dict[str, Any], str, str]] = [
    (session("output_modalities", ["text", "audio"]), "invalid_value", "session.output_modalities"),
    (session("output_modalities", ["video"]), "invalid_value", "session.output_modalities[0]"),
    (session("max_output_tokens", 0), "integer_below_min_value", "session.max_output_tokens"),
    (session("max_output_tokens", 4097), "integer_above_max_value", "session.max_output_tokens"),
    (session("max_output_tokens", "lots"), "invalid_value", "session.max_output_tokens"),
    (session("tool_choice", "maybe"), "invalid_value", "session.tool_choice"),
    (session("reasoning.effort", "huge"), "invalid_value", "session.reasoning.effort"),
    (session("tracing", "manual"), "invalid_value", "session.tracing"),
    (session("tracing.metadata", DEEP), "invalid_value", "session.tracing.metadata"),
    (session("prompt.variables", {"a": DEEP}, id="pmpt_1"), "invalid_value", "session.prompt.variables"),
    (session("truncation", "never"), "invalid_value", "session.truncation"),
    (session("truncation.retention_ratio", 1.5, type="retention_ratio"), "decimal_above_max_value",
     "session.truncation.retention_ratio"),
    (session("include", ["everything"]), "invalid_value", "session.include[0]"),
    (session("tools", [{"type": "function", "name": "f", "parameters": {"a": DEEP}}]), "invalid_value",
     "session.tools[0].parameters"),
    (session("tools", [{"type": "mcp", "server_label": "s", "require_approval": "often"}]), "invalid_value",
     "session.tools[0].require_approval"),
    (session("tools", [{"type": "mcp", "server_label": "s", "allowed_callers": ["me"]}]), "invalid_value",
     "session.tools[0].allowed_callers[0]"),
    (session("audio.input.format.rate", 16000, type="audio/pcm"), "integer_below_min_value", "session.audio.input.format.rate"),
    (session("audio.input.format.rate", 48000, type="audio/pcm"), "integer_above_max_value", "session.audio.input.format.rate"),
    (session("audio.input.format.type", "pcm16"), "invalid_value", "session.audio.input.format.type"),
    (session("audio.output.format.type", "mp3"), "invalid_value", "session.audio.output.format.type"),
    (session("audio.output.speed", 0.1), "decimal_below_min_value", "session.audio.output.speed"),
    (session("audio.output.speed", 2), "decimal_above_max_value", "session.audio.output.speed"),
    (session("audio.input.noise_reduction.type", "mid"), "invalid_value", "session.audio.input.noise_reduction.type"),
    (session("audio.input.transcription.delay", "long"), "invalid_value", "session.audio.input.transcription.delay"),
    (session(f"{DETECTION}.type", "server"), "invalid_value", f"session.{DETECTION}.type"),
    (session(f"{DETECTION}.threshold", 1.1, type="server_vad"), "decimal_above_max_value", f"session.{DETECTION}.threshold"),
    (session(f"{DETECTION}.prefix_padding_ms", -1, type="server_vad"), "integer_below_min_value",
     f"session.{DETECTION}.prefix_padding_ms"),
    (session(f"{DETECTION}.silence_duration_ms", -1, type="server_vad"), "integer_below_min_value",
     f"session.{DETECTION}.silence_duration_ms"),
    (session(f"{DETECTION}.idle_timeout_ms", 4999, type="server_vad"), "integer_below_min_value",
     f"session.{DETECTION}.idle_timeout_ms"),
    (session(f"{DETECTION}.idle_timeout_ms", 30001, type="server_vad"), "integer_above_max_value",
     f"session.{DETECTION}.idle_timeout_ms"),
    (session(f"{DETECTION}.eagerness", "rude", type="semantic_vad"), "invalid_value", f"session.{DETECTION}.eagerness"),
    (response("conversation", "conv_1"), "invalid_value", "response.conversation"),
    (response("output_modalities", ["audio", "text"]), "invalid_value", "response.output_modalities"),
    (response("max_output_tokens", 10**400), "integer_above_max_value", "response.max_output_tokens"),
    (response("audio.output.format", {"type": "audio/pcm", "rate": 8000}), "integer_below_min_value",
     "response.audio.output.format.rate"),
    (response("metadata", {str(key): "" for key in range(17)}), "object_above_max_properties", "response.metadata"),
    (response("metadata", {"k" * 65: ""}), "string_above_max_length", "response.metadata"),
    (response("metadata", {"k": "v" * 513}), "string_above_max_length", "response.metadata.k"),
    (response("input", [{"type": "item_reference", "id": "x" * 33}]), "string_above_max_length", "response.input[0].id"),
    (response("input", [{"type": "message", "role": "robot", "content": []}]), "invalid_value", "response.input[0].role"),
    (response("input", [{"type": "song"}]), "invalid_value", "response.input[0].type"),
    (message("user", TEXT, id="x" * 33), "string_above_max_length", "item.id"),
    (message("user", TEXT, status="done"), "invalid_value", "item.status"),
    (message("developer", TEXT), "invalid_value", "item.role"),
    (message("user", {"type": "output_text", "text": "hi"}), "invalid_value", "item.content[0].type"),
    (message("user", {"type": "text", "text": "hi"}), "invalid_value", "item.content[0].type"),
    (message("system", {"type": "input_audio", "audio": "AAAA"}), "invalid_value", "item.content[0].type"),
    (message("assistant", TEXT), "invalid_value", "item.content[0].type"),
    (message("assistant", {"type": "output_audio", "transcript": "hi"}), "missing_required_parameter", "item.content[0].text"),
    (message("user", {"type": "input_image", "detail": "4k"}), "invalid_value", "item.content[0].detail"),
    (item(type="function_call_output", call_id="x" * 33, output=""), "string_above_max_length", "item.call_id"),
    (item(type="item_reference", id="item_1"), "invalid_value", "item.type"),
    (item(type="mcp_list_tools", server_label="s", tools=[{"name": "t", "input_schema": {"a": DEEP}}]), "invalid_value",
     "item.tools[0].input_schema"),
    (truncate(-1, 0), "integer_below_min_value", "content_index"),
    (truncate(0, -1), "integer_below_min_value", "audio_end_ms"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "param"), BROKEN, ids=lambda value: value if isinstance(value, str) else "")
def test_a_broken_rule_is_refused_with_its_code_and_path(body: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(WireError) as caught:
        wire.decode_client_event(json.dumps(body).encode())
    assert (caught.value.wire_code, caught.value.param) == (code, param)
    assert caught.value.message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (
            session("audio.input.format.rate", 16000, type="audio/pcm"),
            (
                "Invalid 'session.audio.input.format.rate': integer below minimum value. "
                "Expected a value >= 24000, but got 16000 instead."
            ),
        ),
        (
            session("output_modalities", ["text", "audio"]),
            "Invalid modalities: ['text', 'audio']. Supported combinations are: ['text'] and ['audio'].",
        ),
        (
            session("tool_choice", "maybe"),
            "Invalid value: 'maybe'. Supported values are: 'none', 'auto', and 'required'.",
        ),
        (
            message("user", TEXT, id="x" * 33),
            (
                "Invalid 'item.id': string too long. "
                "Expected a string with maximum length 32, but got a string with length 33 instead."
            ),
        ),
        (
            response("max_output_tokens", 10**400),
            (
                "Invalid 'response.max_output_tokens': integer above maximum value. "
                "Expected a value <= 4096, but got a number out of range instead."
            ),
        ),
    ],
)
def test_a_refusal_reads_as_the_api_writes_it(body: dict[str, Any], text: str) -> None:
    with pytest.raises(WireError) as caught:
        wire.decode_client_event(json.dumps(body).encode())
    assert caught.value.message == text


@pytest.mark.parametrize(
    "body",
    [
        session("audio.input.turn_detection", None),
        session("audio", None),
        session("audio.input", None),
        session("audio.output.voice", "a-voice-that-is-new"),
        session("model", "a-model-that-is-new"),
        session(f"{DETECTION}.idle_timeout_ms", None, type="server_vad"),
        session("audio.input.format.rate", None, type="audio/pcm"),
        {"type": "response.create", "response": None},
        {"type": "response.create", "response": {"input": None, "metadata": None, "audio": None, "tools": None}},
    ],
)
def test_null_and_open_names_are_accepted(body: dict[str, Any]) -> None:
    assert not isinstance(wire.decode_client_event(json.dumps(body).encode()), wire.UnknownEvent)


def test_supported_values_are_known_by_the_place_of_a_type() -> None:
    assert supported_values("item.type") == ITEMS
    assert supported_values("response.input[3].type") == (*ITEMS, "item_reference")
    assert supported_values("session.tools[12].type") == ("function", "mcp")
    assert supported_values("item.status") == ()
    assert supported_values("type") == ()
