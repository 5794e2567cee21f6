"""Handing the conversation from one agent to another, and taking it back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator import RunContextWrapper, function_tool
from orchestrator.errors import UserError
from orchestrator.handoffs import HandoffInputData
from orchestrator.realtime import RealtimeAgent, RealtimeSession
from orchestrator.realtime.dispatch import DispatchTable
from orchestrator.realtime.handoffs import realtime_handoff
from orchestrator.realtime.hooks import RealtimeAgentHooks, RealtimeRunHooks
from orchestrator.realtime.items import InputText, RealtimeToolCallItem, UserMessageItem
from orchestrator.realtime.model_events import RealtimeModelToolCallEvent
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from tests.realtime.reading import Reader

MakeSession = Callable[..., RealtimeSession]


@function_tool
async def invoice() -> str:
    return "paid"


def team(**options: Any) -> tuple[RealtimeAgent[Any], RealtimeAgent[Any]]:
    billing: RealtimeAgent[Any] = RealtimeAgent(name="Billing Support", instructions="Bills.", tools=[invoice])
    desk: RealtimeAgent[Any] = RealtimeAgent(
        name="Desk", instructions="Triage.", handoffs=[realtime_handoff(billing, **options)] if options else [billing]
    )
    billing.handoffs.append(desk)
    return desk, billing


async def test_a_bare_agent_becomes_a_tool_of_the_usual_name(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    desk, _ = team()
    async with make_session(desk):
        await endpoint.settle()
        (tool,) = endpoint.last("session.update")["session"]["tools"]
    assert tool["name"] == "transfer_to_billing_support"
    assert tool["description"] == "Handoff to the Billing Support agent to handle the request."
    assert tool["parameters"]["additionalProperties"] is False


async def test_the_target_takes_over_and_can_hand_back(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    desk, billing = team()
    config = {"initial_model_settings": {"audio": {"output": {"format": "g711_ulaw", "voice": "sage"}}}}
    async with make_session(desk, model_config=config) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "transfer_to_billing_support", "{}"))
        await endpoint.settle()
        assert session.current_agent is billing
        update = endpoint.last("session.update")["session"]
        assert update["instructions"] == "Bills."
        assert [tool["name"] for tool in update["tools"]] == ["invoice", "transfer_to_desk"]
        # What the connection was set up with still holds.
        assert update["audio"]["output"] == {"format": {"type": "audio/pcmu"}, "voice": "sage"}
        assert endpoint.types()[-3:] == ["session.update", "conversation.item.create", "response.create"]
        assert endpoint.last("conversation.item.create")["item"]["output"] == '{"assistant":"Billing Support"}'
        endpoint.start_response("resp_2")
        await endpoint.settle()
        endpoint.call_tools(("call_2", "transfer_to_desk", "{}"), response_id="resp_2")
        await endpoint.settle()
        assert session.current_agent is desk
        events = [(event.from_agent.name, event.to_agent.name) for event in reader.of("handoff")]
        assert events == [("Desk", "Billing Support"), ("Billing Support", "Desk")]
        # A response is ended by the agent that began it.
        assert [event.agent.name for event in reader.of("agent_end")] == ["Desk", "Billing Support"]
        assert reader.of("tool_start") == []


@dataclass
class Reason:
    topic: str


async def test_the_models_input_is_checked_and_reaches_the_callback(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    seen: list[Any] = []

    async def on_handoff(context: RunContextWrapper[Any], reason: Reason) -> None:
        seen.append((context.context, reason))

    desk, billing = team(on_handoff=on_handoff, input_type=Reason, tool_description="Transfer to billing support")
    async with make_session(desk, context="the caller") as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "transfer_to_billing_support", '{"topic":7}'))
        await endpoint.settle()
        assert session.current_agent is desk
        assert "Expected `str`" in endpoint.last("conversation.item.create")["item"]["output"]
        assert len(reader.of("error")) == 1
        endpoint.call_tools(("call_2", "transfer_to_billing_support", '{"topic":"refund"}'), response_id="resp_2")
        await endpoint.settle()
        assert session.current_agent is billing
        assert seen == [("the caller", Reason("refund"))]


async def test_a_filter_deletes_what_it_leaves_out_and_keeps_the_rest_in_order(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    def forget_tools(data: HandoffInputData) -> HandoffInputData:
        kept = tuple(item for item in data.input_history if not isinstance(item, RealtimeToolCallItem))
        assert [item.name for item in data.new_items] == ["transfer_to_billing_support"]
        return data.clone(input_history=kept)

    desk, _ = team(input_filter=forget_tools)
    desk.tools.append(invoice)
    async with make_session(desk) as session:
        for item_id in ("item_1", "item_2"):
            message = {"id": item_id, "type": "message", "role": "user", "content": [{"type": "input_text", "text": item_id}]}
            endpoint.send("conversation.item.added", previous_item_id=None, item=message)
        endpoint.call_tools(("call_1", "invoice", "{}"))
        await endpoint.settle()
        endpoint.call_tools(("call_2", "transfer_to_billing_support", "{}"), response_id="resp_2")
        await asyncio.sleep(0.1)
        deleted = [event["item_id"] for event in endpoint.received if event["type"] == "conversation.item.delete"]
        assert deleted == ["out_call_1", "item_call_1"]
        for item_id in deleted:
            endpoint.send("conversation.item.deleted", item_id=item_id)
        await endpoint.settle()
        assert [item.item_id for item in session.history] == ["item_1", "item_2", "item_call_2"]


async def test_a_filter_that_adds_items_is_refused_and_the_agent_stays(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    def invent(data: HandoffInputData) -> HandoffInputData:
        return data.clone(pre_handoff_items=(UserMessageItem(item_id="new", content=(InputText(text="x"),)),))

    desk, _ = team(input_filter=invent)
    async with make_session(desk) as session:
        endpoint.call_tools(("call_1", "transfer_to_billing_support", "{}"))
        await asyncio.sleep(0.1)
        assert session.current_agent is desk
        assert "can only leave some out" in endpoint.last("conversation.item.create")["item"]["output"]


async def test_handoffs_can_be_switched_off(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    desk, _ = team(is_enabled=lambda context, agent: False)
    async with make_session(desk):
        await endpoint.settle()
        assert endpoint.last("session.update")["session"]["tools"] == []


def test_callbacks_that_cannot_be_called_are_refused() -> None:
    agent: RealtimeAgent[Any] = RealtimeAgent(name="A")
    with pytest.raises(UserError, match="needs on_handoff"):
        realtime_handoff(agent, input_type=Reason)
    with pytest.raises(UserError, match="must take 2 arguments"):
        realtime_handoff(agent, on_handoff=lambda context: None, input_type=Reason)
    with pytest.raises(UserError, match="must be a function"):
        realtime_handoff(agent, on_handoff="x")  # type: ignore[arg-type]


async def test_a_tool_and_a_handoff_of_one_name_are_refused(make_session: MakeSession) -> None:
    desk, _ = team(tool_name_override="invoice")
    desk.tools.append(invoice)
    with pytest.raises(UserError, match=r"'invoice' \(function tool and handoff\)"):
        await make_session(desk).enter()


async def test_an_agent_can_be_put_in_by_the_program(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    desk, billing = team()
    async with make_session(desk) as session:
        await session.update_agent(billing)
        await endpoint.settle()
        assert session.current_agent is billing
        assert endpoint.last("session.update")["session"]["instructions"] == "Bills."


class Notes(RealtimeRunHooks[Any], RealtimeAgentHooks[Any]):
    """Notes every call."""

    def __init__(self, whose: str, notes: list[str]) -> None:
        self._whose = whose
        self._notes = notes

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("on_"):
            return object.__getattribute__(self, name)

        async def note(context: Any, *arguments: Any) -> None:
            names = [getattr(argument, "name", type(argument).__name__) for argument in arguments]
            self._notes.append(f"{self._whose} {name} {' '.join(names)}")

        return note


async def test_hooks_are_called_in_order(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    notes: list[str] = []
    desk, billing = team()
    desk.hooks, billing.hooks = Notes("desk", notes), Notes("billing", notes)
    async with make_session(desk, run_config={"hooks": Notes("run", notes)}):
        endpoint.call_tools(("call_1", "transfer_to_billing_support", "{}"))
        await endpoint.settle()
        endpoint.call_tools(("call_2", "invoice", "{}"), response_id="resp_2")
        await endpoint.settle()
    assert notes == [
        "run on_agent_start Desk",
        "desk on_start Desk",
        "run on_agent_end Desk transfer_to_billing_support",
        "desk on_end Desk transfer_to_billing_support",
        "run on_handoff Desk Billing Support",
        "billing on_handoff Billing Support Desk",
        "run on_agent_start Billing Support",
        "billing on_start Billing Support",
        "run on_agent_end Billing Support invoice",
        "billing on_end Billing Support invoice",
        "run on_tool_start Billing Support invoice",
        "billing on_tool_start Billing Support invoice",
        "run on_tool_end Billing Support invoice str",
        "billing on_tool_end Billing Support invoice str",
    ]


async def test_a_hook_that_raises_is_reported_and_nothing_else(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    class Broken(RealtimeRunHooks[Any]):
        async def on_agent_start(self, context: Any, agent: Any) -> None:
            raise ValueError("hook")

    async with make_session(run_config={"hooks": Broken()}) as session:
        reader = Reader(session)
        endpoint.start_response()
        endpoint.end_response()
        await endpoint.settle()
        assert [str(event.error) for event in reader.of("error")] == ["hook"]
        assert "agent_end" in reader.types()


async def test_a_handoff_is_the_one_that_was_offered_when_the_call_came(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    desk, billing = team()
    async with make_session(desk) as session:
        call = RealtimeModelToolCallEvent("transfer_to_billing_support", "call_1", "{}", id="item_1", response_id="resp_1")
        session.receive_nowait(call)
        # Another agent takes over before the handoff's task has begun.
        session._inside.take_over(DispatchTable(RealtimeAgent(name="Other"), (), ()))
        await endpoint.settle()
        assert session.current_agent is billing
        assert endpoint.last("conversation.item.create")["item"]["call_id"] == "call_1"


async def change_the_voice(session: RealtimeSession, endpoint: ScriptedEndpoint) -> None:
    """Let the agent speak with another voice than that of the settings: new settings are then refused on our side."""
    endpoint.send("session.updated", session=endpoint._session() | {"audio": {"output": {"voice": "sage"}}})
    endpoint.start_response("resp_0")
    endpoint.speak("Hello", 100, response_id="resp_0")
    endpoint.end_response("resp_0")
    await endpoint.settle()


async def test_a_handoff_whose_settings_cannot_be_sent_leaves_the_old_agent_and_answers(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    desk, _ = team()
    async with make_session(desk) as session:
        reader = Reader(session)
        await endpoint.settle()
        await change_the_voice(session, endpoint)
        endpoint.call_tools(("call_1", "transfer_to_billing_support", "{}"))
        await endpoint.settle()
        assert session.current_agent is desk
        assert reader.of("handoff") == []
        assert "the voice cannot change" in endpoint.last("conversation.item.create")["item"]["output"]


async def test_an_agent_whose_settings_cannot_be_sent_does_not_take_over(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    desk, billing = team()
    async with make_session(desk) as session:
        await endpoint.settle()
        await change_the_voice(session, endpoint)
        with pytest.raises(UserError, match="voice"):
            await session.update_agent(billing)
        assert session.current_agent is desk


async def test_a_response_is_ended_by_the_agent_that_began_it_also_when_its_successor_has_the_same_name(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    desk, _ = team()
    async with make_session(desk) as session:
        reader = Reader(session)
        endpoint.start_response()
        await endpoint.settle()
        await session.update_agent(desk.clone(instructions="New."))
        endpoint.end_response()
        await endpoint.settle()
        assert reader.of("agent_end")[0].agent is desk


async def test_a_failure_of_the_instructions_leaves_no_task_behind(make_session: MakeSession) -> None:
    stopped = asyncio.Event()

    async def fail(context: Any, agent: Any) -> str:
        raise ValueError("no instructions")

    async def enabled(context: Any, agent: Any) -> bool:
        try:
            await asyncio.sleep(100)
        finally:
            stopped.set()
        return True

    tool = function_tool(is_enabled=enabled)(lambda_tool)
    with pytest.raises(ValueError, match="no instructions"):
        await make_session(RealtimeAgent(name="A", instructions=fail, tools=[tool])).enter()
    assert stopped.is_set()


async def lambda_tool() -> str:
    return ""
