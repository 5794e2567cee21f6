"""Golden traces: everything that goes over the wire to the model in the situations that matter, as files to read and compare.

A change of a file in `golden/` is a change of behaviour and wants a reason. `GOLDEN=write` writes them anew.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestrator import function_tool
from orchestrator.guardrail import GuardrailFunctionOutput, OutputGuardrail
from orchestrator.realtime import OpenAIRealtimeSIPModel, RealtimeAgent, RealtimeModelSendRawMessage, RealtimeSession
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint

GOLDEN = Path(__file__).parent / "golden"
Scene = Callable[[RealtimeSession, ScriptedEndpoint], Awaitable[None]]


@function_tool
async def get_weather(city: str) -> str:
    """Get the weather."""
    return f"sunny in {city}"


@function_tool(needs_approval=True)
async def refund(order: str) -> str:
    """Pay an order back."""
    return f"refunded {order}"


async def no_passwords(context: Any, agent: Any, output: str) -> GuardrailFunctionOutput:
    await asyncio.sleep(0.01)
    return GuardrailFunctionOutput(None, tripwire_triggered="password" in output)


def agent() -> RealtimeAgent[Any]:
    billing: RealtimeAgent[Any] = RealtimeAgent(name="Billing", instructions="Bills.")
    return RealtimeAgent(
        name="Desk",
        instructions="Help.",
        tools=[get_weather, refund],
        handoffs=[billing],
        output_guardrails=[OutputGuardrail(no_passwords)],
    )


async def text_turn(session: RealtimeSession, endpoint: ScriptedEndpoint) -> None:
    await session.send_message("hello")
    await endpoint.settle()
    endpoint.start_response()
    endpoint.speak("hi", 200)
    endpoint.end_response()


async def audio_turn(session: RealtimeSession, endpoint: ScriptedEndpoint) -> None:
    await session.send_audio(b"\x00\x01" * 10)
    await session.send_audio(b"\x00\x01" * 10, commit=True)


async def two_parallel_tools(session: RealtimeSession, endpoint: ScriptedEndpoint) -> None:
    endpoint.call_tools(("call_1", "get_weather", '{"city":"Oslo"}'), ("call_2", "get_weather", '{"city":"Rome"}'))


async def approval_then_rejection(session: RealtimeSession, endpoint: ScriptedEndpoint) -> None:
    endpoint.call_tools(("call_1", "refund", '{"order":"1"}'))
    await endpoint.settle()
    await session.approve_tool_call("call_1")
    await endpoint.settle()
    endpoint.call_tools(("call_2", "refund", '{"order":"2"}'), response_id="resp_2")
    await endpoint.settle()
    await session.reject_tool_call("call_2")


async def handoff(session: RealtimeSession, endpoint: ScriptedEndpoint) -> None:
    endpoint.call_tools(("call_1", "transfer_to_billing", "{}"))


async def guardrail_on_audio(session: RealtimeSession, endpoint: ScriptedEndpoint) -> None:
    endpoint.start_response()
    endpoint.speak("so, " * 30 + "the password is", 4000)
    await asyncio.sleep(0.5)
    endpoint.end_response(status="cancelled")


async def guardrail_on_text(session: RealtimeSession, endpoint: ScriptedEndpoint) -> None:
    endpoint.start_response()
    place = {"response_id": "resp_1", "item_id": "item_t", "output_index": 0, "content_index": 0}
    endpoint.send("response.output_text.delta", delta="so, " * 30 + "the password is", **place)
    await asyncio.sleep(0.5)
    endpoint.end_response(status="cancelled")


async def interruption(session: RealtimeSession, endpoint: ScriptedEndpoint) -> None:
    endpoint.start_response()
    endpoint.speak("one two three four", 2000)
    await asyncio.sleep(0.5)
    endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")


async def sip_attach(session: RealtimeSession, endpoint: ScriptedEndpoint) -> None:
    assert endpoint.url == "wss://api.openai.com/v1/realtime?call_id=rtc_1"
    greeting = {"response": {"instructions": "Greet the caller."}}
    await session.model.send_event(RealtimeModelSendRawMessage({"type": "response.create", "other_data": greeting}))
    await endpoint.settle()
    # The provider plays the audio to the caller and keeps it from us; what it says of that is no reason to send anything.
    endpoint.start_response()
    endpoint.send("output_audio_buffer.started", response_id="resp_1")
    endpoint.send("input_audio_buffer.speech_started", audio_start_ms=900, item_id="item_u")
    endpoint.send("output_audio_buffer.cleared", response_id="resp_1")
    endpoint.end_response(status="cancelled")
    endpoint.send("input_audio_buffer.dtmf_event_received", event="9", received_at=1_750_000_000)
    endpoint.call_tools(("call_1", "get_weather", '{"city":"Oslo"}'), response_id="resp_2")


SCENES: list[Scene] = [
    text_turn,
    audio_turn,
    two_parallel_tools,
    approval_then_rejection,
    handoff,
    guardrail_on_audio,
    guardrail_on_text,
    interruption,
    sip_attach,
]
# A call that is joined is joined by a model of its own.
OPTIONS: dict[Scene, dict[str, Any]] = {
    sip_attach: {"model": OpenAIRealtimeSIPModel, "model_config": {"call_id": "rtc_1"}},
}


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_what_goes_to_the_model_is_what_the_golden_trace_says(
    make_session: Callable[..., RealtimeSession], endpoint: ScriptedEndpoint, scene: Scene
) -> None:
    async with make_session(agent(), **OPTIONS.get(scene, {})) as session:
        await scene(session, endpoint)
        await asyncio.sleep(0.2)
    trace = b"".join(msgspec.json.encode(event) + b"\n" for event in endpoint.received)
    path = GOLDEN / f"{scene.__name__}.jsonl"
    if os.environ.get("GOLDEN") == "write":
        path.write_bytes(trace)
    assert trace.decode() == path.read_text()


def test_every_trace_has_its_scene() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == {scene.__name__ for scene in SCENES}
