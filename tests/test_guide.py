"""The guide's first half, as it stands there but for the package's name, against the offline endpoint over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from orchestrator import function_tool
from orchestrator.realtime import RealtimeAgent, RealtimePlaybackTracker, RealtimeRunner, RealtimeUserInputMessage
from orchestrator.realtime.items import AssistantAudio, AssistantMessageItem, InputAudio, UserMessageItem
from orchestrator.realtime.model_inputs import RealtimeModelSendRawMessage
from orchestrator.simulator.endpoint.options import Timing
from orchestrator.simulator.endpoint.session_machine import ModelOptions
from orchestrator.simulator.scenario import parse_scenario
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from orchestrator.simulator.speech import Speaker, SpeechRequest

SCENARIO = parse_scenario(
    """
name: guide
turns:
  - heard: What is the weather in Oslo?
    match: weather
    do:
      - call: get_weather
        arguments: {city: Oslo}
      - say: "{tool.output}"
  - match: summarize
    do: [{say: "We spoke about the weather, at some length, and then about nothing else at all, which took a while."}]
  - match: describe
    do: [{say: "A small red square."}]
default: {do: [{say: "Pardon?"}]}
"""
)


@function_tool
def get_weather(city: str) -> str:
    """Get current weather for a city."""
    return f"The weather in {city} is sunny, 72F."


@pytest.fixture
async def server() -> AsyncIterator[SimulatorServer]:
    options = SimulatorOptions(SCENARIO, model=ModelOptions(timing=Timing(first_output=0.0, pace=5.0), transcription_delay=0.0))
    async with SimulatorServer(options, Speaker()) as running:
        yield running


def make_runner() -> RealtimeRunner:
    agent: RealtimeAgent[Any] = RealtimeAgent(
        name="Assistant",
        instructions="You can answer weather questions.",
        tools=[get_weather],
    )
    return RealtimeRunner(
        starting_agent=agent,
        config={
            "model_settings": {
                "model_name": "gpt-realtime",
                "audio": {
                    "input": {
                        "format": "pcm16",
                        "transcription": {"model": "gpt-4o-mini-transcribe"},
                        "turn_detection": {"type": "server_vad", "interrupt_response": True},
                    },
                    "output": {"format": "pcm16", "voice": "ash"},
                },
                "tool_choice": "auto",
            }
        },
    )


def config(server: SimulatorServer, **more: Any) -> Any:
    return {"url": f"{server.base_url}/realtime?model=gpt-realtime", "api_key": "sk-offline", **more}


def spoken(item: Any) -> str:
    """Return the words of the agent's message."""
    return str(item.content[0].transcript)


async def read(session: Any, last: str) -> list[Any]:
    """The guide's loop, up to an event of this type."""
    events = []
    async for event in session:
        events.append(event)
        if event.type == last:
            break
    return events


async def test_a_message_a_tool_and_the_history(server: SimulatorServer) -> None:
    session = await make_runner().run(model_config=config(server))
    async with session:
        await session.send_message("How is the weather?")
        events = await read(session, "tool_end")
        assert events[-1].output == "The weather in Oslo is sunny, 72F."
        events += await read(session, "audio_end")
        events += await read(session, "agent_end")
        kinds = [event.type for event in events]
        for kind in ("agent_start", "tool_start", "tool_end", "audio", "audio_end", "history_added", "history_updated"):
            assert kind in kinds
        assert "raw_model_event" in kinds
        assert spoken(session.history[-1]) == "The weather in Oslo is sunny, 72F."


async def test_spoken_audio_is_heard_and_answered(server: SimulatorServer) -> None:
    question = Speaker().render(SpeechRequest("What is the weather in Oslo?")).audio
    async with await make_runner().run(model_config=config(server)) as session:
        for start in range(0, len(question), 9600):
            await session.send_audio(question[start : start + 9600])
        await session.send_audio(bytes(48 * 800))
        await read(session, "tool_end")
        audio = [event for event in await read(session, "audio_end") if event.type == "audio"]
        assert sum(len(event.audio.data) for event in audio) > 48 * 1000
        (user,) = [item for item in session.history if isinstance(item, UserMessageItem)]
        assert user.content == (InputAudio(transcript="What is the weather in Oslo?"),)


async def test_manual_turns(server: SimulatorServer) -> None:
    async with await make_runner().run(model_config=config(server)) as session:
        off = {"type": "session.update", "session": {"type": "realtime", "audio": {"input": {"turn_detection": None}}}}
        await session.model.send_event(RealtimeModelSendRawMessage(message=off))
        await session.send_audio(b"\x10\x20" * 12_000, commit=True)
        await session.model.send_event(RealtimeModelSendRawMessage(message={"type": "response.create"}))
        await read(session, "tool_end")


async def test_a_structured_message(server: SimulatorServer) -> None:
    message: RealtimeUserInputMessage = {
        "type": "message",
        "role": "user",
        "content": [
            {"type": "input_text", "text": "Describe this image."},
            {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "high"},
        ],
    }
    async with await make_runner().run(model_config=config(server)) as session:
        await session.send_message(message)
        await read(session, "agent_end")
        assert spoken(session.history[-1]) == "A small red square."


async def test_an_interruption_cuts_the_models_memory_at_what_the_tracker_reports(server: SimulatorServer) -> None:
    tracker = RealtimePlaybackTracker()
    async with await make_runner().run(model_config=config(server, playback_tracker=tracker)) as session:
        await session.send_message("Summarize what we discussed so far.")
        first = (await read(session, "audio"))[-1]
        tracker.on_play_ms(first.item_id, first.content_index, 120.0)
        await session.interrupt()
        cut = (await read(session, "audio_interrupted"))[-1].cut
        assert (cut.item_id, cut.heard_ms) == (first.item_id, 120.0)
        retrieve = {"type": "conversation.item.retrieve", "item_id": first.item_id}
        await session.model.send_event(RealtimeModelSendRawMessage(message=retrieve))
        remembered = await retrieved_audio(session)
        assert remembered == 120 * 48
        item = next(item for item in session.history if item.item_id == first.item_id)
        assert isinstance(item, AssistantMessageItem)
        part = item.content[0]
        assert isinstance(part, AssistantAudio)
        assert (part.heard_ms, item.status) == (120.0, "incomplete")


async def retrieved_audio(session: Any) -> int:
    """Return how many bytes of audio the model still has of the item that was asked for."""
    async for event in session:
        data = getattr(event.data, "data", None) if event.type == "raw_model_event" else None
        if isinstance(data, dict) and data["type"] == "conversation.item.retrieved":
            return len(data["item"]["content"][0]["audio"]) * 3 // 4
    raise AssertionError("the session ended")


async def test_one_runner_serves_many_sessions_at_once(server: SimulatorServer) -> None:
    runner = make_runner()

    async def talk() -> str:
        async with await runner.run(model_config=config(server)) as session:
            await session.send_message("How is the weather?")
            await read(session, "audio_end")
            await read(session, "agent_end")
            return spoken(session.history[-1])

    assert await asyncio.gather(*(talk() for _ in range(5))) == ["The weather in Oslo is sunny, 72F."] * 5
