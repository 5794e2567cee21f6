"""The official Python client judges the endpoint by all that it offers; single features are tested beside the server."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from openai import AsyncOpenAI, OpenAI, OpenAIError
from openai.resources.realtime.realtime import AsyncRealtimeConnection, AsyncRealtimeConnectionManager

from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.admission import AccessRules
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.scenario import load_scenario
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from tests.judges.support import HERE, KEY, QUICK, SPOKEN, STEADY, speech

MODEL = "gpt-realtime"
WEATHER: Any = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}
TEXT: Any = {"type": "realtime", "output_modalities": ["text"]}
WITH_TOOL: Any = {**TEXT, "tools": [WEATHER]}
SUNNY = "It is sunny in Oslo, twenty one degrees."


@asynccontextmanager
async def served(**more: Any) -> AsyncIterator[SimulatorServer]:
    scenario = load_scenario(str(HERE / "scenario.yaml"))
    options = SimulatorOptions(scenario, **{"model": QUICK, "access": AccessRules(keys=frozenset({KEY})), **more})
    async with SimulatorServer(options) as server:
        yield server


def connecting(server: SimulatorServer, **more: Any) -> AsyncRealtimeConnectionManager:
    return AsyncOpenAI(api_key=KEY, websocket_base_url=server.base_url).realtime.connect(model=MODEL, **more)


@pytest.fixture
async def connection() -> AsyncIterator[AsyncRealtimeConnection]:
    async with served() as server, connecting(server) as opened:
        yield opened


async def until(connection: AsyncRealtimeConnection, last: str) -> list[Any]:
    """All events up to the first of this type; an error that nobody waits for is a failure."""
    events: list[Any] = []
    while not events or events[-1].type != last:
        events.append(await connection.recv())
        assert events[-1].type != "error" or last == "error", events[-1]
    return events


def pick(events: list[Any], type_: str) -> list[Any]:
    return [event for event in events if event.type == type_]


def user(text: str, **more: Any) -> Any:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}], **more}


async def append(connection: AsyncRealtimeConnection, audio: bytes) -> None:
    step = 20 * Encoding.PCM16.bytes_per_ms
    for start in range(0, len(audio), step):
        await connection.input_audio_buffer.append(audio=base64.b64encode(audio[start : start + step]).decode())


def decoded(events: list[Any]) -> bytes:
    return b"".join(base64.b64decode(event.delta) for event in pick(events, "response.output_audio.delta"))


async def test_a_spoken_turn_through_handlers() -> None:
    """The client's other way to read: it calls handlers, one for each event."""
    heard: list[Any] = []
    kinds: Counter[str] = Counter()
    async with served() as server:
        manager = connecting(server)
        manager.on("conversation.item.input_audio_transcription.completed", heard.append)
        manager.on("event", lambda event: kinds.update([event.type]))
        async with manager as connection:

            async def finish(_: Any) -> None:
                await connection.close()

            connection.once("rate_limits.updated", finish)
            # Longer than the pause that the speaker makes at the comma.
            patient: Any = {"type": "server_vad", "silence_duration_ms": 500}
            listening: Any = {"transcription": {"model": "whisper-1"}, "turn_detection": patient}
            await connection.session.update(session={"type": "realtime", "audio": {"input": listening}})
            await append(connection, speech())
            await connection.dispatch_events()
    assert [event.transcript for event in heard] == [SPOKEN]
    once = ("session.updated", "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped", "response.done")
    assert [kinds[name] for name in once] == [1, 1, 1, 1]
    assert kinds["error"] == 0


async def test_a_spoken_turn_that_the_client_ends(connection: AsyncRealtimeConnection) -> None:
    manual: Any = {"turn_detection": None, "transcription": {"model": "whisper-1"}}
    await connection.session.update(session={"type": "realtime", "audio": {"input": manual}})
    await until(connection, "session.updated")
    await append(connection, speech())
    await connection.input_audio_buffer.commit()
    events = await until(connection, "conversation.item.input_audio_transcription.completed")
    assert events[0].type == "input_audio_buffer.committed"
    assert events[-1].transcript == SPOKEN
    await connection.response.create()
    events = await until(connection, "response.done")
    assert events[-1].response.output[0].content[0].transcript == "Yes, I can hear you very well."
    assert len(decoded(events)) > Encoding.PCM16.bytes_per_ms * 1000


async def test_every_method_is_answered(connection: AsyncRealtimeConnection) -> None:
    await connection.session.update(session=TEXT)
    assert (await until(connection, "session.updated"))[-1].session.output_modalities == ["text"]
    for id_, after in (("item_second", "root"), ("item_first", "root"), ("item_third", "item_second")):
        await connection.conversation.item.create(item=user(id_, id=id_), previous_item_id=after)
        added, done = await until(connection, "conversation.item.done")
        assert (added.type, added.previous_item_id) == ("conversation.item.added", done.previous_item_id)
    await connection.conversation.item.retrieve(item_id="item_first")
    assert (await until(connection, "conversation.item.retrieved"))[-1].item.content[0].text == "item_first"
    await connection.conversation.item.delete(item_id="item_first")
    assert (await until(connection, "conversation.item.deleted"))[-1].item_id == "item_first"
    await append(connection, speech()[: 50 * Encoding.PCM16.bytes_per_ms])
    await connection.input_audio_buffer.clear()
    await until(connection, "input_audio_buffer.cleared")
    aside: Any = {"input": [user("repeat")], "conversation": "none", "metadata": {"topic": "aside"}}
    await connection.response.create(response=aside)
    answer = (await until(connection, "response.done"))[-1].response
    assert (answer.conversation_id, answer.metadata) == (None, {"topic": "aside"})
    assert answer.output[0].content[0].text == "You said: repeat"


async def test_an_answer_is_cancelled_and_cut() -> None:
    async with served(model=STEADY) as server, connecting(server) as connection:
        await connection.conversation.item.create(item=user("Tell me a story."))
        await connection.response.create()
        events = await until(connection, "response.output_audio.delta")
        (created,) = pick(events, "response.created")
        await connection.response.cancel(response_id=created.response.id)
        done = (await until(connection, "response.done"))[-1].response
        assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")
        await connection.conversation.item.truncate(item_id=done.output[0].id, content_index=0, audio_end_ms=100)
        await until(connection, "conversation.item.truncated")
        await connection.conversation.item.retrieve(item_id=done.output[0].id)
        (part,) = (await until(connection, "conversation.item.retrieved"))[-1].item.content
        assert len(base64.b64decode(part.audio)) == 100 * Encoding.PCM16.bytes_per_ms


async def test_what_is_wrong_is_told_with_the_id_of_the_event(connection: AsyncRealtimeConnection) -> None:
    item, buffer = connection.conversation.item, connection.input_audio_buffer
    wrong: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
        (connection.session.update, {"session": {"type": "realtime", "max_output_tokens": 0}}, "integer_below_min_value"),
        (connection.response.cancel, {}, "response_cancel_not_active"),
        (buffer.append, {"audio": "no base64"}, "invalid_value"),
        (buffer.commit, {}, "input_audio_buffer_commit_empty"),
        (item.create, {"item": user("x"), "previous_item_id": "item_none"}, "item_create_invalid_previous_item_id"),
        (item.delete, {"item_id": "item_none"}, "item_delete_invalid_item_id"),
        (item.retrieve, {"item_id": "item_none"}, "item_retrieve_invalid_item_id"),
        (item.truncate, {"item_id": "item_none", "content_index": 0, "audio_end_ms": 1}, "item_truncate_invalid_item_id"),
    ]
    told = []
    for number, (method, arguments, _) in enumerate(wrong):
        await method(**arguments, event_id=f"mine_{number}")
        error = (await until(connection, "error"))[-1].error
        told.append((error.event_id, error.code))
    assert told == [(f"mine_{number}", code) for number, (*_, code) in enumerate(wrong)]


async def test_an_error_without_a_handler_is_raised_by_the_client(connection: AsyncRealtimeConnection) -> None:
    await connection.response.cancel()
    with pytest.raises(OpenAIError, match="response_cancel_not_active"):
        await connection.dispatch_events()


async def test_what_was_said_before_the_connection_is_sent_at_its_start() -> None:
    async with served() as server:
        manager = connecting(server)
        manager.send({"type": "session.update", "session": TEXT})
        manager.send({"type": "conversation.item.create", "item": user("Please repeat this.")})
        manager.send({"type": "response.create"})
        async with manager as connection:
            done = (await until(connection, "response.done"))[-1].response
    assert done.output[0].content[0].text == "You said: Please repeat this."


async def test_it_connects_anew_when_a_session_has_reached_its_age() -> None:
    codes: list[int] = []

    def allow(event: Any) -> None:
        codes.append(event.close_code)

    seen: list[Any] = []
    brief = ModelOptions(session_seconds=0.05)
    async with served(model=brief) as server, connecting(server, on_reconnecting=allow, initial_delay=0.0) as connection:
        async for event in connection:
            seen.append(event)
            if len(pick(seen, "session.created")) == 2:
                break
    assert [event.type for event in seen] == ["session.created", "error", "session.created"]
    assert seen[1].error.code == "session_expired"
    assert codes == [1001]
    assert seen[0].session.id != seen[2].session.id


# The client opens its socket in a way that its own dependency has begun to warn of; the endpoint has no part in it.
@pytest.mark.filterwarnings("ignore:connect.. must be used as a context manager:DeprecationWarning")
async def test_the_client_without_asyncio() -> None:
    """A tool call through the official client's blocking half."""

    def converse(base_url: str) -> list[Any]:
        events: list[Any] = []
        client = OpenAI(api_key=KEY, websocket_base_url=base_url)
        with client.realtime.connect(model=MODEL) as connection:
            connection.session.update(session=WITH_TOOL)
            connection.conversation.item.create(item=user("What is the weather like?"))
            connection.response.create()
            for event in connection:
                events.append(event)
                if event.type == "response.function_call_arguments.done":
                    assert json.loads(event.arguments) == {"city": "Oslo"}
                    output: Any = {"type": "function_call_output", "call_id": event.call_id, "output": SUNNY}
                    connection.conversation.item.create(item=output)
                if event.type == "response.done":
                    if len(pick(events, "response.done")) == 2:
                        break
                    connection.response.create()
        return events

    async with served() as server:
        events = await asyncio.to_thread(converse, server.base_url)
    assert not pick(events, "error")
    (text,) = pick(events, "response.output_text.done")
    assert text.text == SUNNY
