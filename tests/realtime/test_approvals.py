"""Tool calls that wait for a person, and guardrails around tool calls."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from orchestrator import ToolContext, function_tool
from orchestrator.decorators import tool_input_guardrail, tool_output_guardrail
from orchestrator.errors import ToolTimeoutError
from orchestrator.realtime import RealtimeAgent, RealtimeSession
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from orchestrator.tool_guardrails import ToolGuardrailFunctionOutput, ToolInputGuardrailData, ToolOutputGuardrailData
from tests.realtime.reading import Reader

MakeSession = Callable[..., RealtimeSession]
RAN: list[str] = []


@dataclass
class Reason:
    code: int = 0


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    RAN.clear()


@function_tool(needs_approval=True)
async def refund(order: str) -> str:
    RAN.append(order)
    return f"refunded {order}"


def outputs(endpoint: ScriptedEndpoint) -> list[tuple[str, str]]:
    items = [event["item"] for event in endpoint.received if event["type"] == "conversation.item.create"]
    return [(item["call_id"], item["output"]) for item in items if item["type"] == "function_call_output"]


def agent_with(*tools: Any) -> RealtimeAgent[Any]:
    return RealtimeAgent(name="Desk", tools=list(tools))


async def test_nothing_happens_until_a_person_approves(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    async with make_session(agent_with(refund)) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "refund", '{"order":"4711"}'))
        await endpoint.settle()
        (asked,) = reader.of("tool_approval_required")
        assert (asked.call_id, asked.tool.name, asked.arguments) == ("call_1", "refund", '{"order":"4711"}')
        assert (RAN, outputs(endpoint), reader.of("tool_start")) == ([], [], [])
        await session.approve_tool_call("call_1")
        await session.approve_tool_call("call_1")
        await session.approve_tool_call("never_heard_of")
        await endpoint.settle()
        assert outputs(endpoint) == [("call_1", "refunded 4711")]
        assert RAN == ["4711"]
        assert reader.types("history_added", "history_updated", "agent_start", "agent_end") == [
            "tool_approval_required",
            "tool_start",
            "tool_end",
        ]


async def test_a_rejected_call_never_runs_and_the_model_is_told(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    def formatter(arguments: Any) -> str:
        return f"no {arguments.tool_name} today, {arguments.default_message}"

    async with make_session(agent_with(refund), run_config={"tool_error_formatter": formatter}) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "refund", '{"order":"1"}'))
        await endpoint.settle()
        await session.reject_tool_call("call_1", rejection_message="Ask your manager.")
        endpoint.call_tools(("call_2", "refund", '{"order":"2"}'), response_id="resp_2")
        await endpoint.settle()
        await session.reject_tool_call("call_2")
        await asyncio.sleep(0.1)
        assert outputs(endpoint) == [
            ("call_1", "Ask your manager."),
            ("call_2", "no refund today, Tool execution was not approved."),
        ]
        assert RAN == []
        assert reader.of("tool_start") == []
        assert [end.error_code for end in reader.of("tool_end")] == ["rejected", "rejected"]


async def test_always_holds_for_all_further_calls(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    async with make_session(agent_with(refund)) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "refund", '{"order":"1"}'))
        await endpoint.settle()
        await session.approve_tool_call("call_1", always=True)
        await endpoint.settle()
        endpoint.call_tools(("call_2", "refund", '{"order":"2"}'), response_id="resp_2")
        await endpoint.settle()
        assert RAN == ["1", "2"]
        assert len(reader.of("tool_approval_required")) == 1


async def test_always_rejected_is_answered_with_the_same_message(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    async with make_session(agent_with(refund)) as session:
        endpoint.call_tools(("call_1", "refund", '{"order":"1"}'))
        await endpoint.settle()
        await session.reject_tool_call("call_1", always=True, rejection_message="Never.")
        endpoint.call_tools(("call_2", "refund", '{"order":"2"}'), response_id="resp_2")
        await endpoint.settle()
        assert outputs(endpoint) == [("call_1", "Never."), ("call_2", "Never.")]
        assert RAN == []


@pytest.mark.parametrize(
    ("arguments", "asked"), [('{"amount":5}', 0), ('{"amount":500}', 1), ("not json", 1), ('{"amount":-1}', 1)]
)
async def test_a_function_decides_whether_a_person_is_asked(
    make_session: MakeSession, endpoint: ScriptedEndpoint, arguments: str, asked: int
) -> None:
    async def too_much(context: Any, parameters: dict[str, Any], call_id: str) -> bool:
        assert call_id == "call_1"
        if parameters["amount"] < 0:
            raise ValueError("the policy itself is broken")
        return bool(parameters["amount"] > 100)

    @function_tool(needs_approval=too_much)
    async def pay(amount: int) -> str:
        return f"paid {amount}"

    async with make_session(agent_with(pay)) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "pay", arguments))
        await endpoint.settle()
        assert len(reader.of("tool_approval_required")) == asked
        assert len(outputs(endpoint)) == 1 - asked


async def test_what_waits_for_a_person_is_dropped_when_the_session_ends(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    async with make_session(agent_with(refund)) as session:
        endpoint.call_tools(("call_1", "refund", '{"order":"1"}'))
        await endpoint.settle()
    await session.approve_tool_call("call_1")
    await asyncio.sleep(0.1)
    assert (RAN, outputs(endpoint)) == ([], [])


async def test_calls_run_one_after_the_other_where_the_run_wants_that(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    running = 0

    @function_tool
    async def step(name: str) -> str:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(1)
        running -= 1
        return name

    async with make_session(agent_with(step), run_config={"async_tool_calls": False}):
        endpoint.call_tools(("call_1", "step", '{"name":"a"}'), ("call_2", "step", '{"name":"b"}'))
        await asyncio.sleep(3)
        assert outputs(endpoint) == [("call_1", "a"), ("call_2", "b")]


@tool_input_guardrail
def no_secrets(data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
    if "password" in data.context.tool_arguments:
        return ToolGuardrailFunctionOutput.reject_content("Secrets are not for tools.")
    if "bomb" in data.context.tool_arguments:
        return ToolGuardrailFunctionOutput.raise_exception()
    if "broken" in data.context.tool_arguments:
        raise ValueError("the guardrail itself")
    return ToolGuardrailFunctionOutput.allow()


@tool_output_guardrail
async def no_numbers(data: ToolOutputGuardrailData) -> ToolGuardrailFunctionOutput:
    if any(letter.isdigit() for letter in data.output):
        return ToolGuardrailFunctionOutput.reject_content("The answer is withheld.")
    return ToolGuardrailFunctionOutput.allow()


@pytest.mark.parametrize(
    ("text", "output", "ran", "errors"),
    [
        ("hello", "you said hello", True, 0),
        ("my password", "Secrets are not for tools.", False, 0),
        ("a bomb", "The tool call was stopped.", False, 1),
        ("broken", "The tool could not run.", False, 1),
        ("room 7", "The answer is withheld.", True, 0),
    ],
)
async def test_guardrails_around_a_tool(
    make_session: MakeSession, endpoint: ScriptedEndpoint, text: str, output: str, ran: bool, errors: int
) -> None:
    @function_tool(tool_input_guardrails=[no_secrets], tool_output_guardrails=[no_numbers])
    async def echo(context: ToolContext[Any], text: str) -> str:
        RAN.append(context.tool_name)
        return f"you said {text}"

    async with make_session(agent_with(echo)) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "echo", f'{{"text":"{text}"}}'))
        await asyncio.sleep(0.5)
        assert outputs(endpoint) == [("call_1", output)]
        assert bool(RAN) is ran
        assert bool(reader.of("tool_start")) is ran
        assert len(reader.of("error")) == errors


async def test_arguments_can_be_checked_before_a_person_is_asked(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    @function_tool(needs_approval=True, tool_input_guardrails=[no_secrets])
    async def echo(text: str) -> str:
        return text

    config = {"tool_execution": {"pre_approval_tool_input_guardrails": True}}
    async with make_session(agent_with(echo), run_config=config) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "echo", '{"text":"password"}'))
        await asyncio.sleep(0.5)
        assert reader.of("tool_approval_required") == []
        assert outputs(endpoint) == [("call_1", "Secrets are not for tools.")]


async def test_a_tool_that_raises_without_an_error_function_ends_its_call_and_is_reported(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    @function_tool(failure_error_function=None)
    async def fragile() -> str:
        raise RuntimeError("secret")

    async with make_session(agent_with(fragile)) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "fragile", "{}"))
        await endpoint.settle()
        assert outputs(endpoint) == [("call_1", "An error occurred while running the tool.")]
        assert reader.of("error")[0].error == {"message": "Tool fragile failed", "call_id": "call_1"}
        await session.send_message("still there?")


async def test_a_timeout_can_have_words_of_its_own(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    @function_tool(timeout=1, timeout_error_function=lambda context, error: f"Sorry. {type(error).__name__}")
    async def slow() -> str:
        await asyncio.sleep(60)
        return "never"

    async with make_session(agent_with(slow)):
        endpoint.call_tools(("call_1", "slow", "{}"))
        await asyncio.sleep(1.5)
        assert outputs(endpoint) == [("call_1", "Sorry. ToolTimeoutError")]


async def test_a_decision_for_always_does_not_pass_to_another_agent_at_the_same_address(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    async with make_session(agent_with(refund)) as session:
        reader = Reader(session)
        first = RealtimeAgent[Any](name="Desk", tools=[refund])
        kept = weakref.ref(first)
        await session.update_agent(first)
        endpoint.call_tools(("call_1", "refund", '{"order":"1"}'))
        await endpoint.settle()
        await session.approve_tool_call("call_1", always=True)
        await endpoint.settle()
        del first
        reader.events.clear()
        await session.update_agent(agent_with(refund))
        await endpoint.settle()
        gc.collect()
        assert kept() is not None, "without the agent its address may go to another, and the decision with it"


async def test_always_holds_for_an_empty_message_too(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    async with make_session(agent_with(refund)) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "refund", '{"order":"1"}'))
        await endpoint.settle()
        await session.reject_tool_call("call_1", always=True, rejection_message="")
        endpoint.call_tools(("call_2", "refund", '{"order":"2"}'), response_id="resp_2")
        await endpoint.settle()
        assert outputs(endpoint) == [("call_1", ""), ("call_2", "")]
        assert len(reader.of("tool_approval_required")) == 1


async def test_a_decision_after_the_end_changes_nothing(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    seen: list[str] = []

    class Observer:
        def on_session_event(self, event: Any) -> None:
            seen.append(event.type)

        def __getattr__(self, name: str) -> Any:
            return lambda *arguments, **options: None

    session = make_session(agent_with(refund), observer=Observer())
    async with session:
        endpoint.call_tools(("call_1", "refund", '{"order":"1"}'), ("call_2", "refund", '{"order":"2"}'))
        await endpoint.settle()
    seen.clear()
    await session.approve_tool_call("call_1")
    await session.reject_tool_call("call_2")
    await endpoint.settle()
    assert (seen, RAN) == ([], [])


async def test_a_rejection_that_is_cancelled_can_be_made_again(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    async def formatter(arguments: Any) -> str:
        await asyncio.sleep(5)
        return "no"

    async with make_session(agent_with(refund), run_config={"tool_error_formatter": formatter}) as session:
        endpoint.call_tools(("call_1", "refund", '{"order":"1"}'))
        await endpoint.settle()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.reject_tool_call("call_1"), 1)
        await session.reject_tool_call("call_1", rejection_message="no")
        await endpoint.settle()
        assert outputs(endpoint) == [("call_1", "no")]


async def test_a_quick_answer_does_not_ask_for_a_response_before_a_later_call_of_the_same_response_is_answered(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    @function_tool
    async def slow() -> str:
        await asyncio.sleep(5)
        return "slow"

    async with make_session(agent_with(slow)):
        endpoint.call_tools(("call_1", "nowhere", "{}"), ("call_2", "slow", "{}"))
        await endpoint.settle()
        assert "response.create" not in endpoint.types()
        await asyncio.sleep(6)
        assert endpoint.types()[-2:] == ["conversation.item.create", "response.create"]
        assert endpoint.types().count("response.create") == 1


@pytest.mark.parametrize("arguments", ["", "{}", '{"amount":500,"reason":{}}', '{"amount":5,"reason":{},"more":1}'])
async def test_arguments_that_the_deciding_function_would_not_see_are_for_a_person(
    make_session: MakeSession, endpoint: ScriptedEndpoint, arguments: str
) -> None:
    asked: list[dict[str, Any]] = []

    def too_much(context: Any, parameters: dict[str, Any], call_id: str) -> bool:
        asked.append(parameters)
        return bool(parameters.get("amount", 0) > 100)

    @function_tool(needs_approval=too_much, strict_mode=False)
    async def pay(amount: int = 500, reason: Reason = Reason()) -> str:  # noqa: B008 - the default is the point
        RAN.append(str(amount))
        return "paid"

    async with make_session(agent_with(pay)) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "pay", arguments))
        await asyncio.sleep(0.1)
        assert len(reader.of("tool_approval_required")) == 1
        assert (asked, RAN) == ([], [])


async def test_a_call_that_takes_too_long_is_an_error_of_the_session_where_the_tool_wants_that(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    @function_tool(timeout=1, timeout_behavior="raise_exception")
    async def endless() -> str:
        await asyncio.sleep(100)
        return "never"

    async with make_session(agent_with(endless)) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "endless", "{}"))
        await asyncio.sleep(2)
        assert [type(event.error) for event in reader.of("error")] == [ToolTimeoutError]
        assert outputs(endpoint) == [("call_1", "Tool 'endless' timed out after 1 seconds.")]
