"""Another agent takes over: what the model is told, and what happens when it does not want to hear it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import function_tool
from orchestrator.core.events import RealtimeModelEvent, RealtimeModelToolCallEvent
from orchestrator.core.inputs import (
    RealtimeModelSendSessionUpdate,
    RealtimeModelSendToolOutput,
    RealtimeModelSendUserInput,
)
from orchestrator.realtime import (
    RealtimeAgent,
    RealtimeModelTurnEndedEvent,
    RealtimeModelTurnStartedEvent,
    RealtimeSession,
)
from orchestrator.realtime.handoffs import realtime_handoff
from orchestrator.realtime.testing import RealtimeStep, ScriptedRealtimeModel
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from tests.realtime.reading import Reader, until

MakeSession = Callable[..., RealtimeSession]


def team() -> tuple[RealtimeAgent[Any], RealtimeAgent[Any]]:
    billing: RealtimeAgent[Any] = RealtimeAgent(name="Billing", instructions="Bill.")
    return RealtimeAgent(name="Desk", instructions="Help.", handoffs=[billing]), billing


def call(name: str, call_id: str, response_id: str = "r1") -> RealtimeModelToolCallEvent:
    return RealtimeModelToolCallEvent(name, call_id, "{}", id=f"item_{call_id}", response_id=response_id)


def began(response_id: str = "r1") -> RealtimeModelEvent:
    return RealtimeModelTurnStartedEvent(response_id=response_id)


def ended(response_id: str = "r1") -> RealtimeModelEvent:
    return RealtimeModelTurnEndedEvent(response_id=response_id, status="completed")


async def test_the_prompt_of_the_old_agent_is_taken_away(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    desk, billing = team()
    desk.prompt = {"id": "pmpt_1", "variables": {"name": "Ann"}}
    billing.handoffs.append(realtime_handoff(desk))
    async with make_session(desk) as session:
        await endpoint.settle()
        assert endpoint.last("session.update")["session"]["prompt"] == desk.prompt
        endpoint.call_tools(("call_1", "transfer_to_billing", "{}"))
        await endpoint.settle()
        update = endpoint.last("session.update")["session"]
        assert "prompt" in update
        assert update["prompt"] is None
        endpoint.call_tools(("call_2", "transfer_to_desk", "{}"), response_id="resp_2")
        await endpoint.settle()
        assert endpoint.last("session.update")["session"]["prompt"] == desk.prompt
        await session.update_agent(billing)
        await endpoint.settle()
        assert endpoint.last("session.update")["session"]["prompt"] is None


async def test_a_prompt_of_the_run_holds_for_every_agent(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    desk, billing = team()
    desk.prompt = {"id": "pmpt_1"}
    async with make_session(desk, run_config={"model_settings": {"prompt": {"id": "pmpt_0"}}}) as session:
        await session.update_agent(billing)
        await endpoint.settle()
        assert endpoint.last("session.update")["session"]["prompt"] == {"id": "pmpt_0"}


async def test_a_model_that_refuses_settings_when_they_are_sent_keeps_its_agent() -> None:
    desk, _ = team()
    transfer = call("transfer_to_billing", "call_1")
    model = ScriptedRealtimeModel(
        [
            RealtimeStep(RealtimeModelSendUserInput, emit=[began(), transfer, ended()]),
            RealtimeStep(RealtimeModelSendSessionUpdate, error=ValueError("no")),
            RealtimeStep(RealtimeModelSendToolOutput(transfer, "The handoff failed.", start_response=True)),
        ]
    )
    async with RealtimeSession(model, desk) as session:
        reader = Reader(session)
        await session.send_message("hello")
        await until(lambda: not model.remaining_steps)
        assert session.current_agent is desk
        assert reader.of("handoff") == []
        assert [str(event.error) for event in reader.of("error")] == ["no"]


async def test_settings_that_the_endpoint_refuses_later_give_the_conversation_back(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    desk, billing = team()
    async with make_session(desk) as session:
        reader = Reader(session)
        await endpoint.settle()
        endpoint.refuse_settings = "Invalid value: 'x'."
        endpoint.call_tools(("call_1", "transfer_to_billing", "{}"))
        await endpoint.settle()
        # The model goes on with the instructions and tools that it has, so the session must too.
        assert session.current_agent is desk
        moves = [(event.from_agent.name, event.to_agent.name) for event in reader.of("handoff")]
        assert moves == [("Desk", "Billing"), ("Billing", "Desk")]
        (error,) = [event.error for event in reader.of("error")]
        assert error.code == "settings_refused"
        assert reader.error is None
        await session.update_agent(billing)
        await endpoint.settle()
        assert session.current_agent is desk
        assert len(reader.of("handoff")) == 2
        endpoint.refuse_settings = None
        await session.update_agent(billing)
        await endpoint.settle()
        assert session.current_agent is billing


async def test_a_late_refusal_of_a_switch_that_another_followed_changes_nothing(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    desk, billing = team()
    sales: RealtimeAgent[Any] = RealtimeAgent(name="Sales")
    async with make_session(desk) as session:
        await endpoint.settle()
        await session.update_agent(billing)
        await session.update_agent(sales)
        first = endpoint.received
        await endpoint.settle()
        event_id = [event["event_id"] for event in first if event["type"] == "session.update"][1]
        error = {"type": "invalid_request_error", "code": "invalid_value", "message": "no", "param": None, "event_id": event_id}
        endpoint.send("error", error=error)
        await endpoint.settle()
        assert session.current_agent is sales


@function_tool
async def lookup() -> str:
    return "found"


async def test_a_model_that_must_be_awaited_is_asked_to_answer_when_all_calls_are_known() -> None:
    first, second = call("lookup", "call_1"), call("lookup", "call_2")
    model = ScriptedRealtimeModel(
        [
            RealtimeStep(RealtimeModelSendUserInput, emit=[began(), first]),
            RealtimeStep(RealtimeModelSendToolOutput(first, "found", start_response=False)),
            RealtimeStep(RealtimeModelSendToolOutput(second, "found", start_response=True), emit=[began("r2"), ended("r2")]),
        ]
    )
    async with RealtimeSession(model, RealtimeAgent(name="A", tools=[lookup])) as session:
        await session.send_message("hello")
        await asyncio.sleep(1)
        # The response may call more: an output that asks for the next one would come too early.
        assert len(model.remaining_steps) == 2
        await model.emit(second)
        await asyncio.sleep(1)
        await model.emit(ended())
        await until(lambda: not model.remaining_steps)


async def test_an_output_waits_for_no_response_that_the_call_does_not_name() -> None:
    """Some models end their turn only after they have the outputs; they name no response in their calls."""
    unnamed = RealtimeModelToolCallEvent("lookup", "call_1", "{}", id="item_1")
    model = ScriptedRealtimeModel(
        [
            RealtimeStep(RealtimeModelSendUserInput, emit=[began(), unnamed]),
            RealtimeStep(RealtimeModelSendToolOutput(unnamed, "found", start_response=True), emit=[ended()]),
        ]
    )
    async with RealtimeSession(model, RealtimeAgent(name="A", tools=[lookup])) as session:
        await session.send_message("hello")
        await until(lambda: not model.remaining_steps)


async def test_the_end_of_a_tool_is_reported_when_its_output_is_sent() -> None:
    release = asyncio.Event()

    class Slow(ScriptedRealtimeModel):
        async def send_event(self, event: Any) -> None:
            if isinstance(event, RealtimeModelSendToolOutput):
                await release.wait()
            await super().send_event(event)

    first = call("lookup", "call_1")
    model = Slow(
        [RealtimeStep(RealtimeModelSendUserInput, emit=[began(), first, ended()]), RealtimeStep(RealtimeModelSendToolOutput)]
    )
    async with RealtimeSession(model, RealtimeAgent(name="A", tools=[lookup])) as session:
        reader = Reader(session)
        await session.send_message("hello")
        await asyncio.sleep(1)
        assert reader.types()[-1] == "tool_start"
        release.set()
        await until(lambda: reader.types()[-1] == "tool_end")


@pytest.mark.parametrize("lost_end", [True, False])
async def test_an_output_does_not_wait_for_an_end_that_was_lost(lost_end: bool) -> None:
    first = call("lookup", "call_1")
    model = ScriptedRealtimeModel(
        [RealtimeStep(RealtimeModelSendUserInput, emit=[began(), first]), RealtimeStep(RealtimeModelSendToolOutput)]
    )
    async with RealtimeSession(model, RealtimeAgent(name="A", tools=[lookup])) as session:
        await session.send_message("hello")
        await asyncio.sleep(1)
        await model.emit(began("r2") if lost_end else ended())
        await until(lambda: not model.remaining_steps)
