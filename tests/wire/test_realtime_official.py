"""The official `openai` package as the judge: it accepts all that we write, and knows no event or member that we lack.

A new release of it that knows more makes these tests fail; that is their purpose.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import pytest
from openai.types import realtime as official
from pydantic import BaseModel, TypeAdapter

from orchestrator.wire import realtime as wire

HERE = Path(__file__).parent
SERVER = [line for name in ("canonical_frames", "server_events") for line in (HERE / f"{name}.jsonl").read_bytes().splitlines()]
CLIENT = (HERE / "client_events.jsonl").read_bytes().splitlines()
SERVER_JUDGE: TypeAdapter[Any] = TypeAdapter(official.RealtimeServerEvent)
CLIENT_JUDGE: TypeAdapter[Any] = TypeAdapter(official.RealtimeClientEvent)

# What the server sends although the official types do not have it, by our class.
BEYOND_OFFICIAL = {
    "RealtimeSessionConfig": {"object", "id", "expires_at"},
    "TranscriptionSessionConfig": {"object", "id", "expires_at"},
    "ConversationItemInputAudioTranscriptionDelta": {"obfuscation"},
    "ResponseOutputTextDelta": {"obfuscation"},
    "ResponseOutputAudioTranscriptDelta": {"obfuscation"},
    "ResponseFunctionCallArgumentsDelta": {"obfuscation"},
    "McpListToolsItem": {"object", "status"},
    "McpCallItem": {"object", "status"},
    "McpApprovalRequestItem": {"object", "status"},
    "McpApprovalResponseItem": {"object", "status"},
    "InputAudioBufferDtmfEventReceived": {"event_id"},
    # One class of ours for two of theirs: a response has no speed.
    "AudioOutputConfig": {"speed"},
    # One class of ours for three of theirs: only PCM has a rate, only two of the errors have a code.
    "AudioFormat": {"rate"},
    "McpError": {"code"},
}
# What we read as a free-form object, the variables of a prompt, so that there is no struct to compare.
FREE_FORM = {"ResponseInputText", "ResponseInputImage", "ResponseInputFile", "PromptCacheBreakpoint"}


def members(annotation: Any) -> list[Any]:
    """List the types that an annotation is made of: `list[A | B] | None` gives A, B and None."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal or not arguments:
        return [annotation]
    return [member for argument in arguments for member in members(argument)]


def models(annotation: Any) -> list[type[BaseModel]]:
    return [member for member in members(annotation) if isinstance(member, type) and issubclass(member, BaseModel)]


def structs(annotation: Any) -> list[type[msgspec.Struct]]:
    found = [member for member in members(annotation) if isinstance(member, type) and issubclass(member, msgspec.Struct)]
    return [cls for cls in found if cls is not wire.UnknownObject]


def tags(model: type[BaseModel]) -> set[str]:
    """Name the values that a model's `type` may have."""
    field = model.model_fields.get("type")
    annotations = members(field.annotation) if field else []
    return {value for annotation in annotations if get_origin(annotation) is Literal for value in get_args(annotation)}


def counterparts(model: type[BaseModel], candidates: list[type[msgspec.Struct]]) -> list[type[msgspec.Struct]]:
    """Pick those of our structs that stand for one of their models: by tag, or the untagged ones."""
    return [cls for cls in candidates if cls.__struct_config__.tag in tags(model) or cls.__struct_config__.tag is None]


def all_pairs() -> dict[type[BaseModel], list[type[msgspec.Struct]]]:
    """Walk both trees of types together and pair their models with our structs."""
    pairs: dict[type[BaseModel], list[type[msgspec.Struct]]] = {}
    events: dict[str, type[msgspec.Struct]] = {**wire.SERVER_EVENTS, **wire.CLIENT_EVENTS}
    for event in models(official.RealtimeServerEvent) + models(official.RealtimeClientEvent):
        pairs[event] = [events[tag] for tag in tags(event) if tag in events]
    waiting = list(pairs.items())
    while waiting:
        model, ours = waiting.pop()
        hints = [msgspec.structs.fields(cls) for cls in ours]
        for name, info in model.model_fields.items():
            candidates = [
                cls for fields in hints for field in fields if field.encode_name == name for cls in structs(field.type)
            ]
            found = {child: counterparts(child, candidates) for child in models(info.annotation) if child not in pairs}
            pairs.update(found)
            waiting.extend(found.items())
    return pairs


PAIRS = all_pairs()


def extras(value: Any) -> set[str]:
    """Name every member that the official models took without knowing it."""
    if isinstance(value, BaseModel):
        found = {f"{type(value).__name__}.{name}" for name in value.model_extra or {}}
        return found.union(*(extras(getattr(value, name)) for name in type(value).model_fields))
    if isinstance(value, list):
        return set().union(*(extras(member) for member in value))
    return set()


@pytest.mark.parametrize("frame", SERVER, ids=lambda frame: json.loads(frame)["type"])
def test_the_official_client_reads_our_server_events(frame: bytes) -> None:
    encoded = wire.encode(wire.decode_server_event(frame))
    event = SERVER_JUDGE.validate_json(encoded)
    assert event.to_dict(mode="json") == json.loads(frame)
    allowed = {"object", "id", "expires_at", "obfuscation", "speed"}
    assert {name.rpartition(".")[2] for name in extras(event)} <= allowed


@pytest.mark.parametrize("frame", CLIENT, ids=lambda frame: json.loads(frame)["type"])
def test_our_client_events_are_valid_for_the_official_types(frame: bytes) -> None:
    encoded = wire.encode(wire.decode_client_event(frame))
    event = CLIENT_JUDGE.validate_json(encoded)
    assert event.to_dict(mode="json") == json.loads(frame)
    assert extras(event) == set()


def test_the_official_types_name_the_same_events() -> None:
    for union, ours in (
        (official.RealtimeServerEvent, wire.SERVER_EVENTS),
        (official.RealtimeClientEvent, wire.CLIENT_EVENTS),
    ):
        assert sorted(tag for event in models(union) for tag in tags(event)) == sorted(ours)


def test_every_official_model_has_a_counterpart() -> None:
    assert {model.__name__ for model, ours in PAIRS.items() if not ours} == FREE_FORM


@pytest.mark.parametrize(
    ("model", "ours"),
    [(model, ours) for model, ours in PAIRS.items() if ours],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_we_have_the_members_of_an_official_model(model: type[BaseModel], ours: list[type[msgspec.Struct]]) -> None:
    known = {field.encode_name for cls in ours for field in msgspec.structs.fields(cls)}
    known |= {str(cls.__struct_config__.tag_field) for cls in ours}
    assert set(model.model_fields) - known == set()
    for cls in ours:
        fields = {field.encode_name for field in msgspec.structs.fields(cls)}
        assert fields - set(model.model_fields) <= BEYOND_OFFICIAL.get(cls.__name__, set())
