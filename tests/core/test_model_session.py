"""The order of things with one Realtime endpoint, without a socket."""

from __future__ import annotations

from typing import Any

import msgspec

from orchestrator.core.commands import Emit, Send
from orchestrator.core.inputs import RealtimeModelSendInterrupt
from orchestrator.core.model_session import ModelSession
from orchestrator.core.playback import PlaybackCursor
from orchestrator.core.response import ALREADY_ACTIVE
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


def asked_for(model: ModelSession, now: float = 0.0) -> client.ResponseCreate:
    """Send a message; return the request for its answer."""
    sent = [command.event for command in model.send_item(HELLO, now, respond=True) if isinstance(command, Send)]
    assert isinstance(sent[-1], client.ResponseCreate)
    return sent[-1]


def overtaken(model: ModelSession, asked: client.ResponseCreate) -> list[Any]:
    error = {"type": "invalid_request_error", "code": ALREADY_ACTIVE, "message": "busy", "param": None}
    return receive(model, "error", error=error | {"event_id": asked.event_id})


def kinds(events: list[Any]) -> set[type]:
    return {type(event) for event in events}


def test_an_interruption_also_stops_the_answer_that_the_servers_own_response_overtakes() -> None:
    model = ModelSession(PlaybackCursor())
    asked = asked_for(model)
    model.interrupt(RealtimeModelSendInterrupt(), 0.0)
    # The server's own response comes first: it is what would be heard now.
    assert client.ResponseCancel in kinds(receive(model, "response.created", response=response("resp_vad")))
    assert overtaken(model, asked) == []
    # Ours is not asked for again: whoever interrupted wanted neither.
    assert client.ResponseCreate not in kinds(receive(model, "response.done", response=response("resp_vad", "cancelled")))
    assert model.responses.waiting == 0
    assert asked_for(model, 1.0).event_id != asked.event_id


def test_an_interruption_between_the_servers_own_response_and_its_refusal_of_ours_stops_both() -> None:
    model = ModelSession(PlaybackCursor())
    asked = asked_for(model)
    receive(model, "response.created", response=response("resp_vad"))
    cancels = [c.event for c in model.interrupt(RealtimeModelSendInterrupt(), 0.0) if isinstance(c, Send)]
    assert client.ResponseCancel in kinds(cancels)
    overtaken(model, asked)
    assert client.ResponseCreate not in kinds(receive(model, "response.done", response=response("resp_vad", "cancelled")))


def test_what_is_asked_for_after_an_interruption_is_answered() -> None:
    model = ModelSession(PlaybackCursor())
    asked = asked_for(model)
    receive(model, "response.created", response=response("resp_vad"))
    model.interrupt(RealtimeModelSendInterrupt(), 0.0)
    assert model.send_item(HELLO, 0.1, respond=True)[1:] == []
    overtaken(model, asked)
    events = receive(model, "response.done", response=response("resp_vad", "cancelled"))
    assert [type(event) for event in events].count(client.ResponseCreate) == 1
    assert client.ResponseCancel not in kinds(receive(model, "response.created", response=response("resp_2")))


def test_an_interruption_of_one_response_leaves_what_is_asked_for_alone() -> None:
    model = ModelSession(PlaybackCursor())
    asked = asked_for(model)
    receive(model, "response.created", response=response("resp_vad"))
    model.interrupt(RealtimeModelSendInterrupt(response_id="resp_vad"), 0.0)
    overtaken(model, asked)
    assert client.ResponseCreate in kinds(receive(model, "response.done", response=response("resp_vad", "cancelled")))


def test_a_tool_call_out_of_band_is_not_run() -> None:
    model = ModelSession(PlaybackCursor())
    receive(model, "response.created", response=response("resp_x", conversation=None))
    item = {"id": "f1", "type": "function_call", "status": "completed", "name": "t", "call_id": "c1", "arguments": "{}"}
    # An output would answer a call that the conversation does not have.
    assert receive(model, "response.output_item.done", item=item, response_id="resp_x", output_index=0) == []


def test_a_call_that_a_response_makes_is_reported_once_when_it_is_whole() -> None:
    model = ModelSession(PlaybackCursor())
    receive(model, "response.created", response=response("resp_1"))
    item = {"id": "f1", "type": "function_call", "name": "t", "call_id": "c1", "arguments": "{}", "status": "completed"}
    begun = item | {"status": "in_progress", "arguments": ""}
    place: dict[str, Any] = {"response_id": "resp_1", "output_index": 0}
    assert receive(model, "response.output_item.added", item=begun, **place) == []
    for kind, reported in (("added", begun), ("done", item)):
        (placed,) = receive(model, f"conversation.item.{kind}", item=reported, previous_item_id="u1")
        assert placed.type == "item_placed"
    events = receive(model, "response.output_item.done", item=item, **place)
    assert [event.type for event in events] == ["item_updated", "function_call"]


def test_nothing_brings_a_deleted_item_back_but_its_creation() -> None:
    model = ModelSession(PlaybackCursor())
    receive(model, "response.created", response=response("resp_1"))
    receive(model, "conversation.item.deleted", item_id="a1")
    item = {"id": "a1", "type": "message", "role": "assistant", "status": "completed", "content": []}
    place: dict[str, Any] = {"response_id": "resp_1", "output_index": 0}
    spoken: dict[str, Any] = {"item_id": "a1", "content_index": 0, "delta": "late"} | place
    assert receive(model, "response.output_audio_transcript.delta", **spoken) == []
    assert receive(model, "response.output_text.delta", **spoken) == []
    assert receive(model, "response.output_item.done", item=item, **place) == []
    assert receive(model, "conversation.item.done", item=item, previous_item_id=None) == []
    told: dict[str, Any] = {"item_id": "a1", "content_index": 0, "transcript": "late"}
    assert receive(model, "conversation.item.input_audio_transcription.completed", **told) == []
    assert [event.type for event in receive(model, "conversation.item.added", item=item)] == ["item_updated"]
    assert len(receive(model, "response.output_audio_transcript.delta", **spoken)) == 1


def test_the_beta_name_of_a_new_item_is_understood() -> None:
    item = {"id": "u1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    (event,) = receive(ModelSession(PlaybackCursor()), "conversation.item.created", item=item, previous_item_id=None)
    assert event.item.item_id == "u1"
