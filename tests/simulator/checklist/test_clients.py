"""Checklist lines 58 to 60: what official clients make of all this, and that it can be had again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import aiohttp
import pytest
from openai.types.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from orchestrator.simulator.scenario import load_scenario, shipped_scenarios
from orchestrator.simulator.server import SimulatorServer
from tests.judges.frame_judge import FrameJudge, shape_of
from tests.simulator.checklist.conftest import Serve
from tests.simulator.checklist.support import KEY, MODEL, PATIENCE, Clock, judged_by, opened, user
from tests.simulator.support import LOOKUP, Driver, as_base64, loud, of_type, quiet, types

Drive = Callable[..., Driver]
TRANSCRIPTION = "conversation.item.input_audio_transcription"
# A client of before the calls, MCP and idle timeouts raises an error for these.
UNKNOWN_TO_SOME = ("conversation.created", "conversation.item.created", "output_audio_buffer.", "mcp", "response.mcp")
USUAL = {
    *("session.created", "session.updated", "input_audio_buffer.speech_started", "input_audio_buffer.speech_stopped"),
    *("input_audio_buffer.committed", "conversation.item.added", "conversation.item.done", "rate_limits.updated"),
    *(f"{TRANSCRIPTION}.delta", f"{TRANSCRIPTION}.completed", "response.created", "response.done"),
    *("response.output_item.added", "response.output_item.done", "response.content_part.added"),
    *("response.content_part.done", "response.output_text.delta", "response.output_text.done"),
    *("response.output_audio.delta", "response.output_audio.done", "response.output_audio_transcript.delta"),
    *("response.output_audio_transcript.done", "response.function_call_arguments.delta"),
    "response.function_call_arguments.done",
}
# What the libraries are seen to do with the endpoint, by the judges' modules that run them.
JUDGED = {
    "test_openai_client": ["test_a_spoken_turn_through_handlers", "test_it_connects_anew_when_a_session_has_reached_its_age"],
    "test_agents_python": [
        *("test_it_has_no_complaint", "test_a_text_turn", "test_a_spoken_turn", "test_a_tool_call"),
        *("test_an_interruption", "test_a_second_connection"),
    ],
    "test_agents_js": [
        *("test_it_has_no_complaint", "test_it_could_read_every_frame", "test_a_text_turn", "test_a_spoken_turn"),
        *("test_a_tool_call", "test_an_interruption", "test_a_second_connection"),
    ],
}


@cache
def official() -> TypeAdapter[Any]:
    return TypeAdapter(RealtimeServerEvent)


def played(drive: Drive, name: str) -> list[dict[str, Any]]:
    """Two sessions of a shipped scenario, one in which every turn is typed and one in which it is spoken."""
    scenario = load_scenario(name)
    calls = dict.fromkeys(step.call for turn in scenario.turns for step in turn.do if step.call is not None)
    typed, spoken = drive(scenario), drive(scenario)
    for driver in (typed, spoken):
        driver.update(
            tools=[{"type": "function", "name": call, "parameters": {}} for call in calls],
            audio={"input": {"transcription": {"model": "gpt-4o-transcribe"}}},
        )
    for turn in scenario.turns:
        typed.ask(turn.heard, output_modalities=["text"])
    for _ in (*scenario.turns, scenario.default):
        spoken.speak()
        spoken.run()
    return typed.events + spoken.events


@pytest.mark.parametrize("name", shipped_scenarios())
def test_58a_every_frame_of_a_shipped_scenario_is_one_of_the_official_types(drive: Drive, name: str) -> None:
    events = played(drive, name)
    assert len(events) > 40
    judge, shapes = FrameJudge(), set()
    for event in events:
        frame = json.dumps(event, separators=(",", ":"), ensure_ascii=False).encode()
        assert judge.complaint(frame) is None
        if (shape := shape_of(event)) not in shapes:
            shapes.add(shape)
            assert official().validate_json(frame).type == event["type"]


def test_58b_they_are_the_types_that_every_client_knows(drive: Drive) -> None:
    seen: set[str] = set()
    for name in shipped_scenarios():
        events = played(drive, name)
        seen |= set(types(events))
        for event in events:
            assert not event["type"].startswith(UNKNOWN_TO_SOME), event["type"]
            if event["type"] == "response.done":
                # Without these Pipecat's model does not take a response.
                assert "status_details" in event["response"]
                assert {"input_token_details", "output_token_details"} <= set(event["response"]["usage"])
            if event["type"] == f"{TRANSCRIPTION}.failed":
                # Nor do the zod schemas take a null here.
                assert None not in event["error"].values()
    assert seen == USUAL | {f"{TRANSCRIPTION}.failed"}


def test_58c_the_judges_read_every_frame_too() -> None:
    assert "test_it_could_read_every_frame" in judged_by("test_agents_js")
    assert "test_frames_of_the_api_pass" in judged_by("test_frames")


@pytest.mark.parametrize("module", JUDGED)
def test_59a_the_libraries_have_each_kind_of_turn(module: str) -> None:
    assert set(JUDGED[module]) <= set(judged_by(module))


async def test_59b_a_client_that_replays_history_as_livekit_does(server: SimulatorServer) -> None:
    """A new socket, the settings, each item by its own id behind the one before it, and a response known by its metadata."""
    url = f"http://127.0.0.1:{server.port}/v1/realtime{MODEL}"
    history = [user("Hello.", id="item_lk_1"), user("", id="item_lk_2"), user("first question", id="item_lk_3")]
    history[1] = {**history[1], "role": "assistant", "content": [{"type": "output_text", "text": "Good day."}]}
    events: list[dict[str, Any]] = []
    async with (
        asyncio.timeout(PATIENCE),
        aiohttp.ClientSession(headers=KEY) as session,
        session.ws_connect(url, heartbeat=20) as socket,
    ):
        audio = {"input": {"turn_detection": {"type": "semantic_vad", "create_response": True}}, "output": {"voice": "marin"}}
        configuration = {"type": "realtime", "output_modalities": ["audio"], "audio": audio, "tools": [LOOKUP]}
        await socket.send_json({"type": "session.update", "event_id": "update_1", "session": configuration})
        before = "root"
        for item in history:
            await socket.send_json(
                {"type": "conversation.item.create", "event_id": item["id"], "item": item, "previous_item_id": before}
            )
            before = item["id"]
        metadata = {"client_event_id": "response_1"}
        await socket.send_json({"type": "response.create", "event_id": "response_1", "response": {"metadata": metadata}})
        while not events or events[-1]["type"] != "response.done":
            events.append(await socket.receive_json())
    assert "error" not in types(events)
    added = of_type(events, "conversation.item.added")
    assert [event["previous_item_id"] for event in added] == [None, "item_lk_1", "item_lk_2", "item_lk_3"]
    (created,) = of_type(events, "response.created")
    assert created["response"]["metadata"] == events[-1]["response"]["metadata"] == metadata
    assert events[-1]["response"]["audio"]["output"]["voice"] == "marin"


async def log(serve: Serve, seed: int) -> list[str]:
    """All frames of a session with speech, a transcript, a call and an error in it."""
    server = await serve(seed=seed, wall_clock=Clock())
    audio = {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}
    async with opened(server) as raw:
        await raw.send("session.update", session={"type": "realtime", "tools": [LOOKUP], "audio": audio})
        await raw.send("input_audio_buffer.append", audio=as_base64(quiet(100) + loud(600) + quiet(400)))
        await raw.until("rate_limits.updated")
        await raw.send("conversation.item.create", item=user("look it up"))
        await raw.send("response.create")
        await raw.until("rate_limits.updated")
        await raw.send("response.cancel")
        await raw.until("error")
    return raw.frames


async def test_60a_under_a_seed_and_a_clock_every_frame_repeats(serve: Serve) -> None:
    first = await log(serve, 7)
    assert len(first) > 40
    assert await log(serve, 7) == first
    assert await log(serve, 8) != first


def test_60b_at_the_same_times_the_same_frames_come_at_the_same_times() -> None:
    def timed() -> list[tuple[float, bytes]]:
        frames: list[bytes] = []
        driver = Driver(frames.append)
        driver.update(audio={"input": {"transcription": {"model": "gpt-4o-transcribe"}}})
        driver.wait(0.125)
        driver.append(quiet(100) + loud(600) + quiet(400))
        driver.wait(0.5)
        driver.append(loud(400))
        driver.run()
        return list(zip(driver.times, frames, strict=True))

    assert len(timed()) > 20
    assert timed() == timed()
