"""Settings, nested and flat, and what they become on the wire."""

from typing import Any

import pytest
from openai.types.realtime import RealtimeClientEvent
from pydantic import TypeAdapter

from orchestrator import function_tool
from orchestrator.errors import UserError
from orchestrator.realtime.audio_formats import bytes_per_ms, duration_ms, to_wire_format
from orchestrator.realtime.session_payload import session_payload

OFFICIAL: TypeAdapter[Any] = TypeAdapter(RealtimeClientEvent)


@function_tool
def lookup(order_id: str, urgent: bool = False) -> str:
    """Find an order.

    Args:
        order_id: The number on the receipt.
    """
    return f"{order_id} {urgent}"


LOOKUP = {
    "type": "function",
    "name": "lookup",
    "description": "Find an order.",
    "parameters": {
        "title": "lookup_args",
        "type": "object",
        "properties": {
            "order_id": {"description": "The number on the receipt.", "type": "string"},
            "urgent": {"type": "boolean", "default": False},
        },
        "required": ["order_id", "urgent"],
        "additionalProperties": False,
    },
}

GOLDEN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {},
        {
            "type": "realtime",
            "model": "m",
            "output_modalities": ["audio"],
            "audio": {
                "input": {
                    "format": {"type": "audio/pcm", "rate": 24000},
                    "transcription": {"model": "gpt-4o-mini-transcribe"},
                    "turn_detection": {"type": "semantic_vad", "interrupt_response": True},
                },
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "ash"},
            },
            "tools": [],
        },
    ),
    (
        {
            "model_name": "gpt-realtime",
            "audio": {
                "input": {
                    "format": "g711_ulaw",
                    "transcription": None,
                    "noise_reduction": None,
                    "turn_detection": {"type": "server_vad", "silenceDurationMs": 300, "createResponse": True},
                },
                "output": {"format": "pcmu", "voice": {"id": "voice_1"}, "speed": 1.2},
            },
            "voice": "loses to the nested one",
            "tool_choice": "auto",
            "instructions": "Be brief.",
            "prompt": {"id": "pmpt_1", "variables": {"a": "b"}, "other": 1},
            "tools": [lookup],
            "tracing": "auto",
        },
        {
            "type": "realtime",
            "model": "gpt-realtime",
            "output_modalities": ["audio"],
            "instructions": "Be brief.",
            "tool_choice": "auto",
            "prompt": {"id": "pmpt_1", "variables": {"a": "b"}},
            "audio": {
                "input": {
                    "format": {"type": "audio/pcmu"},
                    "noise_reduction": None,
                    "transcription": None,
                    "turn_detection": {"silence_duration_ms": 300, "create_response": True, "type": "server_vad"},
                },
                "output": {"format": {"type": "audio/pcmu"}, "voice": {"id": "voice_1"}, "speed": 1.2},
            },
            "tools": [LOOKUP],
        },
    ),
    (
        {
            "modalities": ["text"],
            "voice": "marin",
            "speed": 0.9,
            "input_audio_format": "g711_alaw",
            "output_audio_format": "pcm16",
            "input_audio_transcription": {"model": "whisper-1", "language": "en"},
            "input_audio_noise_reduction": {"type": "near_field"},
            "turn_detection": None,
            "max_output_tokens": 500,
            "parallel_tool_calls": None,
        },
        {
            "type": "realtime",
            "model": "m",
            "output_modalities": ["text"],
            "max_output_tokens": 500,
            "audio": {
                "input": {
                    "format": {"type": "audio/pcma"},
                    "noise_reduction": {"type": "near_field"},
                    "transcription": {"model": "whisper-1", "language": "en"},
                    "turn_detection": None,
                },
                "output": {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "marin", "speed": 0.9},
            },
            "tools": [],
        },
    ),
]


@pytest.mark.parametrize(("settings", "payload"), GOLDEN)
def test_golden_payloads(settings: dict[str, Any], payload: dict[str, Any]) -> None:
    made = session_payload(settings, model_name="m")
    assert made == payload
    OFFICIAL.validate_python({"type": "session.update", "session": made})


def test_a_call_whose_audio_is_elsewhere_gets_no_formats() -> None:
    audio = session_payload({}, model_name="m", default_formats=False)["audio"]
    assert "format" not in audio["input"]
    assert "format" not in audio["output"]


def test_what_is_no_function_tool_is_refused() -> None:
    with pytest.raises(UserError, match="Must be a function tool"):
        session_payload({"tools": [object()]}, model_name="m")


def test_formats_and_lengths() -> None:
    assert to_wire_format({"type": "audio/pcm", "rate": 16000}) == {"type": "audio/pcm", "rate": 24000}
    assert to_wire_format("opus") is None
    assert bytes_per_ms("g711_ulaw") == 8.0
    assert bytes_per_ms("anything") == 48.0
    assert duration_ms({"type": "audio/pcma"}, 160) == 20.0
