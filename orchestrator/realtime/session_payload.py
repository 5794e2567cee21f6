"""From session settings, nested or flat, to the `session` object of a `session.update`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.errors import UserError
from orchestrator.realtime.audio_formats import to_wire_format
from orchestrator.realtime.config import RealtimeSessionModelSettings
from orchestrator.tool import FunctionTool

__all__ = ["DEFAULT_MODEL_SETTINGS", "DEFAULT_REALTIME_MODEL", "session_payload"]

DEFAULT_REALTIME_MODEL = "gpt-realtime-2.1"
# What holds where a program sets nothing.
DEFAULT_MODEL_SETTINGS: RealtimeSessionModelSettings = {
    "voice": "ash",
    "modalities": ["audio"],
    "input_audio_format": "pcm16",
    "output_audio_format": "pcm16",
    "input_audio_transcription": {"model": "gpt-4o-mini-transcribe"},
    "turn_detection": {"type": "semantic_vad", "interrupt_response": True},
}
_DEFAULT: Mapping[str, Any] = DEFAULT_MODEL_SETTINGS
_CAMEL = {
    "createResponse": "create_response",
    "interruptResponse": "interrupt_response",
    "prefixPaddingMs": "prefix_padding_ms",
    "silenceDurationMs": "silence_duration_ms",
    "idleTimeoutMs": "idle_timeout_ms",
    "modelVersion": "model_version",
}
# Copied as they are when the key is present.
_PLAIN = ("instructions", "max_output_tokens", "tool_choice")


def session_payload(settings: Mapping[str, Any], *, model_name: str, default_formats: bool = True) -> dict[str, Any]:
    """Build the complete `session` object.

    Keys that are not set are left out, an explicit None is sent as null. `default_formats` is False for calls whose audio the
    provider carries itself. Raises UserError for tools that are not function tools.
    """
    payload: dict[str, Any] = {
        "type": "realtime",
        "model": settings.get("model_name") or model_name,
        "output_modalities": settings.get("output_modalities") or settings.get("modalities") or list(_DEFAULT["modalities"]),
    }
    payload |= {key: settings[key] for key in _PLAIN if key in settings}
    payload |= {key: settings[key] for key in ("parallel_tool_calls", "reasoning") if settings.get(key) is not None}
    if "prompt" in settings:
        prompt = settings["prompt"]
        known = ("id", "version", "variables")
        payload["prompt"] = {key: prompt[key] for key in known if key in prompt} if prompt else None
    audio = settings.get("audio") or {}
    payload["audio"] = {
        "input": _audio_input(settings, audio.get("input") or {}, default_formats=default_formats),
        "output": _audio_output(settings, audio.get("output") or {}, default_formats=default_formats),
    }
    payload["tools"] = _tools(settings.get("tools") or [], settings.get("handoffs") or [])
    return payload


def _first(nested: Mapping[str, Any], key: str, settings: Mapping[str, Any], flat: str) -> Any:
    """Return the nested value if its key is present (even None), else the flat one, else the default."""
    return nested[key] if key in nested else settings.get(flat, _DEFAULT.get(flat))


def _format(nested: Mapping[str, Any], settings: Mapping[str, Any], flat: str, *, default: bool) -> dict[str, Any]:
    value = nested.get("format") or settings.get(flat) or (_DEFAULT[flat] if default else None)
    wire = to_wire_format(value)
    return {} if wire is None else {"format": wire}


def _audio_input(settings: Mapping[str, Any], nested: Mapping[str, Any], *, default_formats: bool) -> dict[str, Any]:
    result = _format(nested, settings, "input_audio_format", default=default_formats)
    if "noise_reduction" in nested or "input_audio_noise_reduction" in settings:
        result["noise_reduction"] = _first(nested, "noise_reduction", settings, "input_audio_noise_reduction")
    result["transcription"] = _first(nested, "transcription", settings, "input_audio_transcription")
    detection = _first(nested, "turn_detection", settings, "turn_detection")
    result["turn_detection"] = None if detection is None else _snake_case(detection)
    return result


def _audio_output(settings: Mapping[str, Any], nested: Mapping[str, Any], *, default_formats: bool) -> dict[str, Any]:
    result = _format(nested, settings, "output_audio_format", default=default_formats)
    result["voice"] = nested.get("voice") or settings.get("voice") or _DEFAULT["voice"]
    speed = nested.get("speed", settings.get("speed"))
    if speed is not None:
        result["speed"] = speed
    return result


def _snake_case(detection: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {_CAMEL[key]: value for key, value in detection.items() if key in _CAMEL}
    return renamed | {key: value for key, value in detection.items() if key not in _CAMEL}


def _tools(tools: Sequence[Any], handoffs: Sequence[Any]) -> list[dict[str, Any]]:
    entries = []
    for tool in tools:
        if not isinstance(tool, FunctionTool):
            raise UserError(f"Tool {getattr(tool, 'name', tool)} is unsupported. Must be a function tool.")
        entries.append((tool.name, tool.description, tool.params_json_schema))
    entries += [(entry.tool_name, entry.tool_description, entry.input_json_schema) for entry in handoffs]
    return [
        {"type": "function", "name": name, "description": description, "parameters": parameters}
        for name, description, parameters in entries
    ]
