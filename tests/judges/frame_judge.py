"""Whether a frame of an endpoint is one that the API sends, by the types of the official client."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import msgspec
from openai import BaseModel
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter, ValidationError

__all__ = ["FrameJudge"]

# Members whose text is anybody's, wherever they stand: frames that differ in nothing else are judged once.
FREE_TEXT = frozenset(
    {
        *("event_id", "id", "item_id", "previous_item_id", "response_id", "conversation_id", "call_id", "approval_request_id"),
        *("delta", "transcript", "text", "arguments", "output", "obfuscation", "instructions", "message", "audio", "image_url"),
    }
)
# Members that captures of the live API show and the official types do not have.
_PADDED = (
    "conversation.item.input_audio_transcription.delta",
    "response.output_audio_transcript.delta",
    "response.output_text.delta",
)
_SESSIONS = ("session.created", "session.updated")
CAPTURED = frozenset(
    {
        *((name, "obfuscation") for name in _PADDED),
        *((name, member) for name in _SESSIONS for member in ("expires_at", "id", "object")),
        # Not captured: but every event has one, and the type of this one alone leaves it out.
        ("input_audio_buffer.dtmf_event_received", "event_id"),
    }
)


class FrameJudge:
    """Judges frames, each shape of frame once."""

    def __init__(self) -> None:
        self._known: set[Any] = set()

    def complaint(self, frame: bytes) -> str | None:
        """Say what is wrong with a frame, or None."""
        event = msgspec.json.decode(frame)
        if not isinstance(event, dict) or list(event)[:2] != ["type", "event_id"]:
            return "it does not begin with type and event_id"
        if msgspec.json.encode(event) != frame:
            return "it is not compact JSON"
        shape = shape_of(event)
        if shape in self._known:
            return None
        complaint = _against_types(event["type"], frame)
        if complaint is None:
            self._known.add(shape)
        return complaint


def shape_of(value: Any, member: str = "") -> Any:
    """What of a JSON value the types can object to. Equal shapes deserve equal judgement."""
    if isinstance(value, dict):
        return tuple((key, shape_of(inner, key)) for key, inner in value.items())
    if isinstance(value, list):
        return (list, *dict.fromkeys(shape_of(inner, member) for inner in value))
    if isinstance(value, str) and member not in FREE_TEXT:
        return value
    return value if value is None or isinstance(value, bool) else type(value)


@cache
def _adapters() -> dict[str, TypeAdapter[Any]]:
    """The official type for each name. The union of all would try one after the other, and complain about each."""
    union, *_ = get_args(RealtimeServerEvent)
    return {get_args(model.model_fields["type"].annotation)[0]: TypeAdapter(model) for model in get_args(union)}


def _against_types(name: Any, frame: bytes) -> str | None:
    adapter = _adapters().get(name)
    if adapter is None:
        return f"there is no event {name!r}"
    try:
        # Strict: what the API sends as a number must not come as a text that looks like one.
        event = adapter.validate_json(frame, strict=True)
    except ValidationError as error:
        return str(error)
    if unknown := sorted(_unknown_members(event, name) - CAPTURED):
        return f"members that the official types do not have: {unknown}"
    return None


def _unknown_members(value: Any, name: str) -> set[tuple[str, str]]:
    """Members that no type knows; the official types let them pass."""
    if isinstance(value, list):
        return {found for inner in value for found in _unknown_members(inner, name)}
    if not isinstance(value, BaseModel):
        return set()
    found = {(name, member) for member in value.model_extra or ()}
    for member in type(value).model_fields:
        found |= _unknown_members(getattr(value, member), name)
    return found
