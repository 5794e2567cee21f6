"""What an agent may call: evaluated when it becomes the active one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import function_tool
from orchestrator.realtime import RealtimeAgent, RealtimeSession
from orchestrator.realtime.handoffs import realtime_handoff
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint

MakeSession = Callable[..., RealtimeSession]


def tool(name: str, enabled: Any = True) -> Any:
    @function_tool(name_override=name, is_enabled=enabled)
    async def empty() -> str:
        return ""

    return empty


async def test_all_checks_run_at_the_same_time(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    waiting = asyncio.Barrier(4)

    async def slow(context: Any, agent: Any) -> bool:
        await waiting.wait()
        return True

    billing: RealtimeAgent[Any] = RealtimeAgent(name="Billing")
    agent: RealtimeAgent[Any] = RealtimeAgent(
        name="A",
        tools=[tool("one", slow), tool("two", slow), tool("off", False)],
        handoffs=[realtime_handoff(billing, is_enabled=slow), realtime_handoff(RealtimeAgent(name="B"), is_enabled=slow)],
    )
    async with make_session(agent):
        await endpoint.settle()
        names = [entry["name"] for entry in endpoint.last("session.update")["session"]["tools"]]
    assert names == ["one", "two", "transfer_to_billing", "transfer_to_b"]


async def test_a_check_that_fails_is_the_programs_own_exception_and_stops_the_others(make_session: MakeSession) -> None:
    stopped = asyncio.Event()

    async def fail(context: Any, agent: Any) -> bool:
        raise ValueError("no idea")

    async def slow(context: Any, agent: Any) -> bool:
        try:
            await asyncio.sleep(100)
        finally:
            stopped.set()
        return True

    with pytest.raises(ValueError, match="no idea"):
        await make_session(RealtimeAgent(name="A", tools=[tool("one", slow), tool("two", fail)])).enter()
    assert stopped.is_set()


async def test_tools_of_the_connection_are_checked_too(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    settings = {"initial_model_settings": {"tools": [tool("on"), tool("off", lambda context, agent: False)]}}
    async with make_session(model_config=settings):
        await endpoint.settle()
        assert [entry["name"] for entry in endpoint.last("session.update")["session"]["tools"]] == ["on"]


async def test_instructions_that_became_nonsense_later_are_left_out(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    agent: RealtimeAgent[Any] = RealtimeAgent(name="A", instructions="Help.")
    agent.instructions = 7  # type: ignore[assignment]
    async with make_session(agent):
        await endpoint.settle()
        assert endpoint.last("session.update")["session"]["instructions"] == ""
