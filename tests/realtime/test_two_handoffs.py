"""Only one handoff at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from orchestrator import RunContextWrapper
from orchestrator.realtime import RealtimeAgent, RealtimeSession
from orchestrator.realtime.handoffs import realtime_handoff
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from tests.realtime.reading import Reader

MakeSession = Callable[..., RealtimeSession]


def team(release: asyncio.Event | None = None) -> tuple[RealtimeAgent[Any], RealtimeAgent[Any], RealtimeAgent[Any]]:
    async def wait(context: RunContextWrapper[Any]) -> None:
        if release is not None:
            await release.wait()

    sales: RealtimeAgent[Any] = RealtimeAgent(name="Sales")
    billing: RealtimeAgent[Any] = RealtimeAgent(name="Billing", handoffs=[sales])
    desk: RealtimeAgent[Any] = RealtimeAgent(name="Desk", handoffs=[realtime_handoff(billing, on_handoff=wait), sales])
    return desk, billing, sales


def outputs(endpoint: ScriptedEndpoint) -> dict[str, str]:
    items = [event["item"] for event in endpoint.received if event["type"] == "conversation.item.create"]
    assert len({item["call_id"] for item in items}) == len(items)
    return {item["call_id"]: item["output"] for item in items}


async def test_of_two_handoffs_in_one_response_the_first_is_carried_out(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    desk, billing, _ = team()
    async with make_session(desk) as session:
        reader = Reader(session)
        endpoint.call_tools(
            ("call_1", "transfer_to_billing", "{}"),
            ("call_2", "transfer_to_sales", "{}"),
            ("call_3", "transfer_to_billing", "{}"),
        )
        await endpoint.settle()
        assert session.current_agent is billing
        assert len(reader.of("handoff")) == 1
        answers = outputs(endpoint)
        assert answers["call_1"] == '{"assistant":"Billing"}'
        assert answers["call_2"] == answers["call_3"]
        assert "one handoff" in answers["call_2"]
        assert endpoint.types().count("session.update") == 2
        # One response for all three answers, after the last of them.
        assert endpoint.types().count("response.create") == 1
        assert endpoint.types()[-1] == "response.create"


async def test_a_second_one_is_not_carried_out_after_the_first_is_done(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    desk, billing, _ = team()
    async with make_session(desk) as session:
        endpoint.start_response()
        for call_id, name in (("call_1", "transfer_to_billing"), ("call_2", "transfer_to_sales")):
            item = {"id": f"item_{call_id}", "type": "function_call", "status": "completed", "name": name, "call_id": call_id}
            endpoint.send("response.output_item.done", response_id="resp_1", output_index=0, item=item | {"arguments": "{}"})
            await endpoint.settle()
        assert session.current_agent is billing
        assert "one handoff" in outputs(endpoint)["call_2"]
        endpoint.end_response()
        # The next response may hand on again.
        await endpoint.settle()
        endpoint.call_tools(("call_3", "transfer_to_sales", "{}"), response_id="resp_2")
        await endpoint.settle()
        assert session.current_agent.name == "Sales"


async def test_a_handoff_of_a_later_response_waits_for_nobody_while_one_is_under_way(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    release = asyncio.Event()
    desk, billing, _ = team(release)
    async with make_session(desk) as session:
        endpoint.call_tools(("call_1", "transfer_to_billing", "{}"))
        await endpoint.settle()
        # The caller spoke meanwhile, and the old agent asks for another handoff.
        endpoint.call_tools(("call_2", "transfer_to_sales", "{}"), response_id="resp_2")
        await endpoint.settle()
        assert session.current_agent is desk
        assert "one handoff" in outputs(endpoint)["call_2"]
        release.set()
        await endpoint.settle()
        assert session.current_agent is billing
