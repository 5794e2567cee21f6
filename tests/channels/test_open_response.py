"""The end that a caller is told of a response that the model cannot end any more."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.channels.open_response import OpenResponse
from orchestrator.wire import realtime as wire
from orchestrator.wire import realtime_server as server


def told(*events: dict[str, Any]) -> list[str]:
    response = OpenResponse()
    for event in events:
        response.note(wire.decode_server_event(msgspec.json.encode(event)))
    ends = response.end()
    assert response.end() == []
    return [str(type(event).__struct_config__.tag) for event in ends]


CREATED = {"type": "response.created", "response": {"id": "r", "status": "in_progress", "conversation_id": "c"}}
PLACE = {"response_id": "r", "item_id": "i", "output_index": 0, "content_index": 0}
ITEM = {"id": "i", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
ADDED = {"type": "response.output_item.added", "response_id": "r", "output_index": 0, "item": ITEM}
PART = {"type": "response.content_part.added", "part": {"type": "text", "text": ""}, **PLACE}
DONE = {"type": "response.done", "response": {"id": "r", "status": "completed", "conversation_id": "c"}}


def test_nothing_is_told_where_nothing_is_open() -> None:
    assert told() == []
    assert told(CREATED, ADDED, DONE) == []


def test_a_response_that_had_only_begun_is_only_ended() -> None:
    assert told(CREATED) == ["response.done"]


def test_each_thing_that_is_open_is_closed_once() -> None:
    over = {"type": "response.output_text.done", "text": "x", **PLACE}
    assert told(CREATED, ADDED, PART) == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.done",
    ]
    assert told(CREATED, ADDED, PART, over) == ["response.content_part.done", "response.output_item.done", "response.done"]
    final = {"type": "response.output_item.done", "response_id": "r", "item": ITEM | {"status": "completed"}}
    assert told(CREATED, ADDED, PART, over, final) == ["response.done"]


def test_what_was_written_is_in_the_end() -> None:
    response = OpenResponse()
    for event in (CREATED, ADDED, PART, {"type": "response.output_text.delta", "delta": "so far", **PLACE}):
        response.note(wire.decode_server_event(msgspec.json.encode(event)))
    done = response.end()[-1]
    assert isinstance(done, server.ResponseDone)
    assert msgspec.to_builtins(done.response.output[0])["content"] == [{"type": "output_text", "text": "so far"}]
