"""The official client at the front door of a real deployment, beside callers who mean no good."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_socket
from websockets.exceptions import InvalidStatus

from orchestrator.simulator.speech import Speaker, SpeechRequest
from tests.waiting import until

if TYPE_CHECKING:
    from actors.launch import Cluster

pytestmark = pytest.mark.cluster

PCM_BYTES_PER_MS = 48


def door(cluster: Cluster) -> str:
    host, port = cluster.gateway_address
    return f"{host}:{port}"


@asynccontextmanager
async def official(cluster: Cluster) -> AsyncIterator[tuple[AsyncRealtimeConnection, str]]:
    """A conversation of the official client, and its session id."""
    client = AsyncOpenAI(
        api_key="sk-caller", base_url=f"http://{door(cluster)}/v1", websocket_base_url=f"ws://{door(cluster)}/v1"
    )
    async with client.realtime.connect(model="gpt-realtime") as connection:
        created = await connection.recv()
        assert created.type == "session.created"
        session_id = getattr(created.session, "id", None)
        assert isinstance(session_id, str)
        yield connection, session_id


async def through(connection: AsyncRealtimeConnection, last: str) -> list[Any]:
    """Receive up to and including an event of this type."""
    events: list[Any] = []
    while not events or events[-1].type != last:
        events.append(await connection.recv())
    return events


def of(events: list[Any], kind: str) -> list[Any]:
    return [event for event in events if event.type == kind]


async def say(connection: AsyncRealtimeConnection, text: str) -> None:
    item: Any = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await connection.conversation.item.create(item=item)
    await connection.response.create()


async def spoken_answer(connection: AsyncRealtimeConnection) -> str:
    """Receive until the agent has spoken, and return the words."""
    events = await through(connection, "response.output_audio_transcript.done")
    await through(connection, "response.done")
    return str(events[-1].transcript)


async def described(cluster: Cluster, session_id: str) -> dict[str, Any]:
    record = await asyncio.to_thread(cluster.describe, session_id)
    assert record is not None
    return record


def entries(record: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [entry for entry in record["entries"] if entry["kind"] == kind]


async def test_the_official_client_speaks_and_a_tool_actor_answers(front_desk: Cluster) -> None:
    question = Speaker().render(SpeechRequest("What is two and three?")).audio
    async with official(front_desk) as (connection, session_id):
        await connection.session.update(
            session={
                "type": "realtime",
                "audio": {"input": {"turn_detection": {"type": "server_vad"}, "transcription": {"model": "whisper-1"}}},
            }
        )
        updated = (await through(connection, "session.updated"))[-1]
        assert updated.session.id == session_id
        assert not updated.session.instructions
        sent = question + bytes(PCM_BYTES_PER_MS * 900)
        for start in range(0, len(sent), 4800):
            await connection.input_audio_buffer.append(audio=base64.b64encode(sent[start : start + 4800]).decode())
        events = await through(connection, "response.output_audio_transcript.done")
        assert of(events, "input_audio_buffer.speech_started")
        assert of(events, "conversation.item.input_audio_transcription.completed")[0].transcript == "What is two and three?"
        assert events[-1].transcript.startswith("The sum that you asked for is 5")
        audio = b"".join(base64.b64decode(event.delta) for event in of(events, "response.output_audio.delta"))
        assert len(audio) > 1000 * PCM_BYTES_PER_MS
        assert not [event for event in events if "function_call" in event.type]
        await through(connection, "response.done")
    record = await described(front_desk, session_id)
    (tool,) = entries(record, "tool")
    assert (tool["name"], tool["output"]) == ("add", "5")
    assert tool["pid"] in front_desk.tool_actor_pids().values()
    assert record["session_actor_pid"] in front_desk.session_actor_pids().values()

    async def ended() -> bool:
        ends = entries(await described(front_desk, session_id), "end")
        return bool(ends) and ends[0]["code"] == "caller_hung_up"

    await until(ended)


async def test_truncating_at_a_known_position_cuts_the_models_memory_and_the_history_there(front_desk: Cluster) -> None:
    async with official(front_desk) as (connection, session_id):
        await say(connection, "give me a speech")
        delta = (await through(connection, "response.output_audio.delta"))[-1]
        await connection.response.cancel()
        await through(connection, "response.done")
        await connection.conversation.item.truncate(item_id=delta.item_id, content_index=0, audio_end_ms=137)
        truncated = (await through(connection, "conversation.item.truncated"))[-1]
        assert truncated.audio_end_ms == 137
        await connection.conversation.item.retrieve(item_id=delta.item_id)
        retrieved = (await through(connection, "conversation.item.retrieved"))[-1]
        kept = base64.b64decode(retrieved.item.content[0].audio)
        assert len(kept) == 137 * PCM_BYTES_PER_MS
        (interruption,) = entries(await described(front_desk, session_id), "interruption")
        assert interruption["heard_ms"] == 137
        assert len(interruption["transcript"]) < 40


async def test_tools_that_fail_are_spoken_about_and_the_conversation_goes_on(front_desk: Cluster, tmp_path: Path) -> None:
    note = tmp_path / "effects"
    async with official(front_desk) as (connection, session_id):
        await say(connection, "please raise")
        assert "An error occurred" in await spoken_answer(connection)
        await say(connection, "this takes too long")
        assert "timed out after 0.2 seconds" in await spoken_answer(connection)
        await say(connection, f"die at {note}")
        answer = await spoken_answer(connection)
        assert "unknown" in answer
        await say(connection, "what is two and three?")
        assert "is 5" in await spoken_answer(connection)
    assert len(note.read_text().splitlines()) == 1
    outcomes = [
        (tool["name"], tool["ok"], tool.get("code")) for tool in entries(await described(front_desk, session_id), "tool")
    ]
    assert outcomes == [
        ("fail", False, "tool_failed"),
        ("never", False, "tool_timeout"),
        ("die", False, "tool_lost"),
        ("add", True, None),
    ]


@asynccontextmanager
async def plain(cluster: Cluster, path: str = "/v1/realtime?model=x") -> AsyncIterator[ClientConnection]:
    async with open_socket(f"ws://{door(cluster)}{path}", max_size=None, compression=None) as socket:
        yield socket


async def raw(cluster: Cluster, data: bytes) -> bytes:
    """Send bytes as they are, and read what comes until the other side closes."""
    reader, writer = await asyncio.open_connection(*cluster.gateway_address)
    try:
        writer.write(data)
        await writer.drain()
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def answer_to_a_message_of(cluster: Cluster, size: int) -> int:
    """Send one text message of this size, and return the code of the close frame that answers it."""
    reader, writer = await asyncio.open_connection(*cluster.gateway_address)
    key = "dGhlIHNhbXBsZSBub25jZQ=="
    writer.write(
        f"GET /v1/realtime?model=x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    # FIN and text, a mask of zeros, a length of eight bytes (RFC 6455 5.2).
    writer.write(b"\x81\xff" + size.to_bytes(8) + bytes(4))
    try:
        for _ in range(size // 100_000):
            writer.write(b"x" * 100_000)
            await writer.drain()
    except ConnectionError:
        pass  # It was refused before it was all there.
    answer = b""
    try:
        while piece := await reader.read(4096):
            answer += piece
    except ConnectionError:
        pass  # Reset, since it did not read the rest.
    writer.close()
    # Up to then at most session.created has come; the close frame is the last.
    return int.from_bytes(answer[answer.rindex(b"\x88") + 2 :][:2])


async def test_bad_input_is_refused_in_its_own_protocol_and_nobody_else_notices(front_desk: Cluster) -> None:
    before = (front_desk.session_actor_pids(), front_desk.snapshot()["gateways"][0]["pid"])
    async with official(front_desk) as (connection, _):
        async with plain(front_desk) as socket:
            assert json.loads(await socket.recv())["type"] == "session.created"
            bad: dict[str, str | bytes] = {
                "invalid_json": "{not json",
                "invalid_event": b"\x00\x01",
                "invalid_value": '{"type":"x"}',
            }
            for code, message in bad.items():
                await socket.send(message)  # bytes are sent as a binary frame
                assert json.loads(await socket.recv())["error"]["code"] == code
        assert await answer_to_a_message_of(front_desk, 10_000_000) == 1009
        with pytest.raises(InvalidStatus) as refused:
            async with plain(front_desk, "/v1/realtime?model=x&session_id=sess_that_never_was"):
                pass
        assert refused.value.response.status_code == 404
        assert (await raw(front_desk, b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nUpg")).startswith(b"HTTP/1.1 408")
        assert (await raw(front_desk, b"\x16\x03\x01\x02\x00\x01\x00")).startswith(b"HTTP/1.1 400")
        # Whoever stayed through all this is still in the conversation.
        await say(connection, "hello?")
        assert await spoken_answer(connection) == "I am still here."
    assert (front_desk.session_actor_pids(), front_desk.snapshot()["gateways"][0]["pid"]) == before


async def test_a_caller_over_the_cap_is_told_when_to_come_back(front_desk: Cluster) -> None:
    async with official(front_desk), official(front_desk), official(front_desk) as (connection, _):
        with pytest.raises(InvalidStatus) as refused:
            async with plain(front_desk):
                pass
        assert refused.value.response.status_code == 503
        assert int(refused.value.response.headers["Retry-After"]) > 0
        await say(connection, "hello?")
        assert await spoken_answer(connection) == "I am still here."

    async def seats_are_free() -> bool:
        try:
            async with plain(front_desk):
                return True
        except InvalidStatus:
            return False

    await until(seats_are_free)


async def test_what_happened_is_on_the_metrics_page(front_desk: Cluster) -> None:
    async def counted() -> bool:
        page = (await raw(front_desk, b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).decode()
        wanted = [
            'orchestrator_session_starts_total{channel="openai"}',
            'orchestrator_session_ends_total{channel="openai",reason="caller_hung_up"}',
            'orchestrator_refusals_total{reason="capacity"}',
            'orchestrator_tool_calls_total{outcome="timeout"}',
            "orchestrator_first_audio_seconds_count",
            'orchestrator_audio_frames_total{direction="in"}',
        ]
        return all(f"{name} " in page and f"{name} 0.0" not in page for name in wanted)

    await until(counted)
