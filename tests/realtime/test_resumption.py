"""A session that goes on where another was left: what the program gives, and what it may not give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import ToolContext, function_tool
from orchestrator.errors import UserError
from orchestrator.handoffs import Handoff
from orchestrator.realtime import RealtimeAgent, RealtimeSession
from orchestrator.realtime.handoffs import realtime_handoff
from orchestrator.realtime.items import InputText, RealtimeToolCallItem, UserMessageItem
from orchestrator.realtime.resumption import CallStage, PendingCall, Resumption, find_agent, plan_resumption
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from orchestrator.tool_runner import ToolReply, ToolRequest
from orchestrator.usage import Usage
from tests.realtime.reading import Reader

MakeSession = Callable[..., RealtimeSession]
ASKED = UserMessageItem(item_id="u1", content=(InputText(text="is it paid?"),))
CALLED = RealtimeToolCallItem(item_id="f1", call_id="call_1", name="key_of", arguments="{}")
RUNNING = PendingCall(
    call_id="call_1", item_id="f1", name="key_of", arguments="{}", response_id="r1", stage=CallStage.RUNNING, idempotent=True
)


@function_tool(idempotent=True, run_on="session")
async def key_of(context: ToolContext[Any]) -> str:
    return context.idempotency_key


def created(endpoint: ScriptedEndpoint) -> list[tuple[str, str | None]]:
    items = [event["item"] for event in endpoint.received if event["type"] == "conversation.item.create"]
    return [(item["type"], item.get("output")) for item in items]


async def test_an_open_call_runs_again_and_its_answer_leads_to_one_response(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    resumption = Resumption(items=(ASKED, CALLED), calls=(RUNNING,), cut_response="r1", usage=Usage(2, 10, 20, 30))
    agent: RealtimeAgent[Any] = RealtimeAgent(name="Desk", tools=[key_of])
    async with make_session(agent, resumption=resumption, session_id="s1") as session:
        reader = Reader(session)
        await endpoint.settle()
        assert created(endpoint) == [("message", None), ("function_call", None), ("function_call_output", "s1:call_1")]
        assert endpoint.types().count("response.create") == 1
        assert reader.types() == ["history_updated", "tool_start", "history_updated", "tool_end"]
        assert [item.item_id for item in session.history] == ["u1", "f1"]
        assert session.usage.total_tokens == 30


async def test_the_key_travels_to_a_tool_that_runs_elsewhere(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    class Elsewhere:
        keys: list[str] = []  # noqa: RUF012 - of this test

        async def run(self, request: ToolRequest) -> ToolReply:
            self.keys.append(request.idempotency_key)
            return ToolReply(call_id=request.call_id, ok=True, output="done", pid=1, seconds=0.0)

    @function_tool(name_override="key_of", idempotent=True)
    async def far(context: ToolContext[Any]) -> str:
        raise AssertionError("not here")

    agent: RealtimeAgent[Any] = RealtimeAgent(name="Desk", tools=[far])
    resumption = Resumption(items=(CALLED,), calls=(RUNNING,))
    async with make_session(agent, resumption=resumption, session_id="s1", tool_runner=Elsewhere()):
        endpoint.call_tools(("call_2", "key_of", "{}"))
        await endpoint.settle()
    assert Elsewhere.keys == ["s1:call_1", "s1:call_2"]


def test_a_session_has_one_past(make_session: MakeSession) -> None:
    with pytest.raises(UserError, match="give one of the two"):
        make_session(history=[ASKED], resumption=Resumption())


async def test_without_a_past_nothing_is_asked_of_the_model(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    async with make_session(resumption=Resumption()):
        await endpoint.settle()
        assert endpoint.types() == ["session.update"]


def test_a_plan_is_the_same_however_often_it_is_made() -> None:
    unknown = PendingCall(call_id="c2", item_id="f2", name="pay", arguments="{}", stage=CallStage.RUNNING)
    resumption = Resumption(items=(ASKED, CALLED), calls=(RUNNING, unknown), unanswered=True)
    plan = plan_resumption(resumption)
    assert plan_resumption(resumption) == plan
    # A call whose item was lost is told with its answer, since neither makes sense alone.
    assert [message.message["item"]["type"] for message in plan.seed.messages][-2:] == ["function_call", "function_call_output"]


def test_an_agent_is_found_over_handoffs_that_form_a_circle() -> None:
    third: RealtimeAgent[Any] = RealtimeAgent(name="Third")
    second: RealtimeAgent[Any] = RealtimeAgent(name="Second", handoffs=[third])
    first: RealtimeAgent[Any] = RealtimeAgent(name="First", handoffs=[realtime_handoff(second)])
    third.handoffs += [first, RealtimeAgent(name="Second")]
    assert [find_agent(first, name) for name in ("First", "Second", "Third")] == [first, second, third]
    with pytest.raises(UserError, match="no handoff leads from 'First' to an agent called 'Fourth'"):
        find_agent(first, "Fourth")


def test_an_agent_that_only_its_handoff_knows_cannot_be_found() -> None:
    async def invoke(context: Any, arguments: str) -> Any:
        raise AssertionError

    hidden = Handoff("to_night_shift", "", {}, invoke, "Night shift")
    with pytest.raises(UserError, match="its handoff names no agent"):
        find_agent(RealtimeAgent(name="First", handoffs=[hidden]), "Night shift")
