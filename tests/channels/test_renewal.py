"""Calls whose model's connection is made anew: what the caller, the node and the journal see of it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from orchestrator.errors import LegConnectError
from orchestrator.journal.entries import LegChanged, decode_body
from orchestrator.settings import ModelEndpoint, Secret, Settings
from orchestrator.telemetry import names
from tests.channels.conftest import SECRET, World
from tests.channels.test_twilio import dial as dial_twilio

OFFICIAL: TypeAdapter[Any] = TypeAdapter(RealtimeServerEvent)
USER = {"id": "item_u", "type": "message", "role": "user", "status": "completed"}


async def enter(world: World) -> tuple[str, Any]:
    session_id, caller = await world.call("openai")
    await world.settle()
    return session_id, caller


def answering(world: World) -> None:
    """The user has said something, and the answer is under way."""
    item = USER | {"content": [{"type": "input_text", "text": "hello"}]}
    for kind in ("added", "done"):
        world.endpoint.send(f"conversation.item.{kind}", previous_item_id=None, item=item)
    world.endpoint.start_response()
    part = {"type": "audio", "transcript": ""}
    message = {"id": "item_a", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    world.endpoint.send("response.output_item.added", response_id="resp_1", output_index=0, item=message)
    world.endpoint.send("conversation.item.added", previous_item_id="item_u", item=message)
    place = {"response_id": "resp_1", "item_id": "item_a", "output_index": 0, "content_index": 0}
    world.endpoint.send("response.content_part.added", part=part, **place)
    world.endpoint.send("response.output_audio_transcript.delta", delta="Good day", **place)
    world.endpoint.send("response.output_audio.delta", delta=world.endpoint.audio(400), **place)


def echo(world: World, *, after: int) -> None:
    """Confirm the items that were created since, as the API does."""
    previous = None
    for event in world.endpoint.received[after:]:
        if event["type"] == "conversation.item.create":
            for kind in ("added", "done"):
                world.endpoint.send(f"conversation.item.{kind}", previous_item_id=previous, item=event["item"])
            previous = event["item"]["id"]


async def test_a_cut_answer_ends_for_the_caller_as_the_api_ends_one_and_is_asked_for_again(world: World) -> None:
    _, caller = await enter(world)
    answering(world)
    await world.settle()
    seen, sent = len(caller.received), len(world.endpoint.received)
    world.endpoint.cut()
    await world.settle()
    echo(world, after=sent)
    await world.settle()
    assert caller.types()[seen:] == [
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    for event in caller.received[seen:]:
        OFFICIAL.validate_python(event)
    done = caller.of("response.done")[-1]["response"]
    assert (done["id"], done["status"]) == ("resp_1", "cancelled")
    (item,) = done["output"]
    assert (item["status"], item["content"][0]["transcript"]) == ("incomplete", "Good day")
    # What the model is told, and that it is asked: nothing of it is the caller's affair.
    told = world.endpoint.received[sent:]
    assert [event["type"] for event in told] == [
        "session.update",
        "conversation.item.create",
        "conversation.item.create",
        "response.create",
    ]
    assert [event["item"]["id"] for event in told[1:3]] == ["item_u", "item_a"]
    assert told[2]["item"]["content"] == [{"type": "output_text", "text": "Good day"}]
    world.endpoint.start_response("resp_2")
    world.endpoint.end_response("resp_2")
    await world.settle()
    assert caller.types()[-2:] == ["response.created", "response.done"]


async def test_an_item_of_which_the_caller_got_nothing_is_gone_for_it_too(world: World) -> None:
    _, caller = await enter(world)
    world.endpoint.start_response()
    message = {"id": "item_a", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    world.endpoint.send("response.output_item.added", response_id="resp_1", output_index=0, item=message)
    world.endpoint.send("conversation.item.added", previous_item_id=None, item=message)
    await world.settle()
    world.endpoint.cut()
    await world.settle()
    assert caller.types()[-4:] == [
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "conversation.item.deleted",
    ]
    assert caller.received[-1]["item_id"] == "item_a"


async def test_the_callers_settings_hold_at_the_next_connection_and_an_update_on_its_way_is_answered(world: World) -> None:
    _, caller = await enter(world)
    caller.send({"type": "session.update", "session": {"type": "realtime", "max_output_tokens": 77}})
    await world.settle()
    world.refuse_dial = LegConnectError("cannot connect")
    world.endpoint.cut()
    await world.settle()
    sent = len(world.endpoint.received)
    caller.send({"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}})
    await world.settle()
    before = len(caller.of("session.updated"))
    world.refuse_dial = None
    await asyncio.sleep(2)
    again, late = world.endpoint.received[sent:]
    assert again["session"]["max_output_tokens"] == 77
    assert again["session"]["instructions"] == "The secret is blue."
    assert late["session"] == {"type": "realtime", "output_modalities": ["text"]}
    # Only the answer to its own.
    assert len(caller.of("session.updated")) == before + 1
    assert len(caller.of("session.created")) == 1


async def test_what_the_caller_sends_in_the_gap_is_carried_out_later_in_order(world: World) -> None:
    _, caller = await enter(world)
    world.refuse_dial = LegConnectError("cannot connect")
    world.endpoint.cut()
    await world.settle()
    sent = len(world.endpoint.received)
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    for audio in ("AAAA", "AQID"):
        caller.send({"type": "input_audio_buffer.append", "audio": audio})
    caller.send({"type": "conversation.item.create", "item": item})
    caller.send({"type": "input_audio_buffer.append", "audio": "BAUG"})
    caller.send({"type": "input_audio_buffer.commit"})
    caller.send({"type": "response.create"})
    await world.settle()
    world.refuse_dial = None
    await asyncio.sleep(2)
    told = [event for event in world.endpoint.received[sent:] if event["type"] != "session.update"]
    assert [event["type"] for event in told] == [
        "input_audio_buffer.append",
        "conversation.item.create",
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
        "response.create",
    ]
    assert (told[0]["audio"], told[2]["audio"]) == ("AAAAAQID", "BAUG")
    assert caller.of("error") == []


async def test_more_than_can_wait_is_refused_and_not_lost_silently(world: World) -> None:
    _, caller = await enter(world)
    world.refuse_dial = LegConnectError("cannot connect")
    world.endpoint.cut()
    await world.settle()
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    for number in range(1030):
        caller.send({"type": "conversation.item.create", "event_id": f"mine_{number}", "item": item})
    await world.settle()
    refused = [event["error"] for event in caller.of("error")]
    assert {error["code"] for error in refused} == {"rate_limit_exceeded"}
    assert [error["event_id"] for error in refused] == [f"mine_{number}" for number in range(1024, 1030)]


async def test_positions_of_speech_go_on_counting_for_the_caller(world: World) -> None:
    _, caller = await enter(world)
    second = world.endpoint.audio(100)
    for _ in range(40):
        caller.send({"type": "input_audio_buffer.append", "audio": second})
    await world.settle()
    world.endpoint.cut()
    await world.settle()
    replayed = [event for event in world.endpoint.received if event["type"] == "input_audio_buffer.append"][40:]
    assert replayed
    world.endpoint.send("input_audio_buffer.speech_started", audio_start_ms=100, item_id="item_x")
    await world.settle()
    start = caller.of("input_audio_buffer.speech_started")[0]["audio_start_ms"]
    told_ms = sum(len(event["audio"]) for event in replayed) * 3 / 4 / 48
    assert start == pytest.approx(4000 / 6 - told_ms + 100, abs=2)


async def test_the_node_and_the_journal_hear_of_it_and_it_is_counted(world: World) -> None:
    session_id, _ = await enter(world)
    world.endpoint.cut()
    await world.settle()
    assert [state for _, state in world.reporter.states][-3:] == ["live", "renewing", "live"]
    entries = world.store.read(session_id)
    legs = [body for body in (decode_body(entry) for entry in entries) if isinstance(body, LegChanged)]
    assert [(leg.leg, leg.state, leg.cause) for leg in legs] == [
        ("model", "lost", "connection_lost"),
        ("model", "live", "connection_lost"),
    ]
    delta = world.drain_metrics()
    counted = [counter.labels for counter in delta.counters if counter.name == names.MODEL_RENEWALS_TOTAL]
    assert counted == [("connection_lost", "renewed")]
    assert [found.sum for found in delta.histograms if found.name == names.MODEL_RENEWAL_SECONDS] == [0.0]
    health = [(gauge.labels, gauge.value) for gauge in delta.gauges if gauge.name == names.MODEL_ENDPOINT_HEALTH]
    assert health == [(("model",), 1.0)]


async def test_a_phone_is_cleared_when_its_answer_is_cut_and_not_otherwise(world: World) -> None:
    _, caller = await dial_twilio(world)
    world.endpoint.cut()
    await world.settle()
    assert caller.of("clear") == []
    world.endpoint.start_response()
    world.endpoint.speak("Good day to you", 4000)
    await world.settle()
    world.endpoint.cut()
    await world.settle()
    assert len(caller.of("clear")) == 1


@pytest.fixture
def settings(request: pytest.FixtureRequest) -> Settings:
    endpoints = getattr(request, "param", ())
    return Settings(
        agent="tests:AGENT", token_secret=SECRET, sessions_per_actor=4, twilio_start_timeout=3.0, model_endpoints=endpoints
    )


BOTH = (
    ModelEndpoint(name="open", url="wss://one.example/v1/realtime", key=Secret("sk-1")),
    ModelEndpoint(
        name="blue", url="wss://two.openai.azure.com", key=Secret("az-2"), kind="azure", model="my deployment", priority=1
    ),
)


@pytest.mark.parametrize("settings", [BOTH], indirect=True)
async def test_a_call_goes_on_at_the_endpoint_of_another_provider(world: World, settings: Settings) -> None:
    _, caller = await enter(world)
    assert world.endpoint.url == "wss://one.example/v1/realtime?model=gpt-realtime"
    assert world.endpoint.headers == {"Authorization": "Bearer sk-1"}
    real_dial = world.endpoint.dial

    async def only_azure(url: str, *arguments: Any, **options: Any) -> Any:
        if "one.example" in url:
            raise LegConnectError("cannot connect", 500)
        return await real_dial(url, *arguments, **options)

    world.endpoint.dial = only_azure  # type: ignore[method-assign]
    world.endpoint.cut()
    await world.settle()
    assert world.endpoint.url == "wss://two.openai.azure.com/openai/v1/realtime?model=my%20deployment"
    assert world.endpoint.headers == {"api-key": "az-2"}
    # What the first called the model is nothing to the second.
    assert "model" not in world.endpoint.last("session.update")["session"]
    assert msgspec.json.encode(caller.received).count(b"error") == 0
