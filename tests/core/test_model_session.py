"""The order of things with one Realtime endpoint, without a socket."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.core.commands import Emit, Send
from orchestrator.core.inputs import RealtimeModelSendInterrupt
from orchestrator.core.model_session import ModelSession
from orchestrator.core.playback import PlaybackCursor
from orchestrator.wire import realtime as wire
from orchestrator.wire import realtime_client as client
from orchestrator.wire import realtime_types as types

HELLO = types.MessageItem(role="user", content=[types.InputTextPart(text="hello")])


def receive(model: ModelSession, kind: str, now: float = 0.0, **fields: Any) -> list[Any]:
    event = wire.decode_server_event(msgspec.json.encode({"type": kind, "event_id": "event_1", **fields}))
    assert not isinstance(event, wire.UnknownEvent)
    return [command.event for command in model.receive(event, now) if isinstance(command, Emit | Send)]


def response(name: str, status: str = "in_progress", conversation: str | None = "conv") -> dict[str, Any]:
    return {"object": "realtime.response", "id": name, "status": status, "output": [], "conversation_id": conversation}


def test_an_interruption_of_a_request_that_is_refused_does_not_cancel_the_next_response() -> None:
    model = ModelSession(PlaybackCursor())
    asked = [command.event for command in model.send_item(HELLO, 0.0, respond=True) if isinstance(command, Send)][-1]
    model.interrupt(RealtimeModelSendInterrupt(), 0.0)
    error = {"type": "invalid_request_error", "code": "invalid_value", "message": "no", "param": None}
    receive(model, "error", error=error | {"event_id": asked.event_id})
    model.send_item(HELLO, 1.0, respond=True)
    events = receive(model, "response.created", response=response("resp_1"))
    assert not any(isinstance(event, client.ResponseCancel) for event in events)


def test_an_interruption_of_a_request_that_is_never_answered_does_not_cancel_the_next_response() -> None:
    model = ModelSession(PlaybackCursor(), response_timeout=5)
    model.send_item(HELLO, 0.0, respond=True)
    model.interrupt(RealtimeModelSendInterrupt(), 0.0)
    model.expire(6.0)
    model.send_item(HELLO, 7.0, respond=True)
    events = receive(model, "response.created", response=response("resp_1"))
    assert not any(isinstance(event, client.ResponseCancel) for event in events)


def test_a_second_interruption_keeps_the_first_one_in_mind() -> None:
    model = ModelSession(PlaybackCursor())
    model.send_item(HELLO, 0.0, respond=True)
    model.interrupt(RealtimeModelSendInterrupt(), 0.0)
    model.interrupt(RealtimeModelSendInterrupt(response_id="resp_0", cancel_response_only=True), 0.0)
    events = receive(model, "response.created", response=response("resp_1"))
    assert any(isinstance(event, client.ResponseCancel) for event in events)


def test_a_response_out_of_band_leaves_the_history_alone() -> None:
    model = ModelSession(PlaybackCursor())
    assert receive(model, "response.created", response=response("resp_x", conversation=None)) == []
    place: dict[str, Any] = {"response_id": "resp_x", "item_id": "item_x", "output_index": 0}
    item = {"id": "item_x", "type": "message", "role": "assistant", "status": "completed", "content": []}
    assert receive(model, "response.output_item.added", item=item, response_id="resp_x", output_index=0) == []
    assert receive(model, "response.output_text.delta", delta="label", content_index=0, **place) == []
    assert receive(model, "response.output_item.done", item=item, response_id="resp_x", output_index=0) == []
    assert receive(model, "response.done", response=response("resp_x", "completed", None)) == []
