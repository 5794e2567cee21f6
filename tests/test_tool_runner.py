"""Tool calls as data: what travels, what comes back, and that no fault of a tool escapes."""

import dataclasses
import os
from typing import Any

import msgspec
import pydantic
import pytest

from orchestrator import RunContextWrapper, ToolContext, function_tool
from orchestrator.agent_ref import load_agent, load_run_config
from orchestrator.errors import UserError
from orchestrator.realtime import RealtimeAgent
from orchestrator.tool_runner import (
    InProcessToolRunner,
    ToolReply,
    ToolRequest,
    apply_context,
    collect_tools,
    idempotency_key,
    pack_context,
    tool_output_text,
    unpack_context,
)


@dataclasses.dataclass
class Customer:
    name: str
    points: int = 0


@function_tool
def award(context: RunContextWrapper[Customer], points: int) -> int:
    context.context.points += points
    return context.context.points


@function_tool(failure_error_function=None)
def broken() -> str:
    raise KeyError("secret")


specialist: RealtimeAgent[Any] = RealtimeAgent(name="Specialist", tools=[broken])
AGENT: RealtimeAgent[Any] = RealtimeAgent(name="Desk", tools=[award], handoffs=[specialist])
specialist.handoffs.append(AGENT)
CONFIG = {"model_settings": {"voice": "marin"}}
NO_AGENT = object()


def request(agent: str, tool: str, arguments: str = "{}", context: Any = None) -> ToolRequest:
    value, kind = pack_context(context)
    return ToolRequest(
        call_id="call_1", session_id="s", agent=agent, tool=tool, arguments=arguments, context=value, context_type=kind
    )


@function_tool
def key_of(context: ToolContext[Any]) -> str:
    return context.idempotency_key


async def test_a_tool_knows_the_key_of_its_call_wherever_it_runs() -> None:
    agent: RealtimeAgent[Any] = RealtimeAgent(name="Desk", tools=[key_of])
    asked = msgspec.structs.replace(request("Desk", "key_of"), idempotency_key=idempotency_key("s", "call_1"))
    reply = await InProcessToolRunner(collect_tools(agent)).run(asked)
    assert reply.output == "s:call_1"
    assert idempotency_key("", "call_1") == "call_1"


def test_tools_are_collected_over_handoffs_that_form_a_circle() -> None:
    assert set(collect_tools(AGENT)) == {("Desk", "award"), ("Specialist", "broken")}


async def test_the_context_travels_as_a_copy_and_its_changes_come_back() -> None:
    customer = Customer("Ada", 5)
    runner = InProcessToolRunner(collect_tools(AGENT))
    wire = msgspec.json.encode(request("Desk", "award", '{"points":7}', customer))
    reply = await runner.run(msgspec.json.decode(wire, type=ToolRequest))
    assert (reply.ok, reply.output, reply.pid, reply.context) == (True, "12", os.getpid(), {"points": 12})
    assert customer.points == 5
    assert reply.context is not None
    apply_context(customer, reply.context)
    assert customer == Customer("Ada", 12)
    assert msgspec.json.decode(msgspec.json.encode(reply), type=ToolReply) == reply


async def test_no_fault_of_a_tool_escapes() -> None:
    runner = InProcessToolRunner(collect_tools(AGENT))
    failed = await runner.run(request("Specialist", "broken"))
    assert (failed.ok, failed.error_code, failed.output) == (False, "tool_failed", "An error occurred while running the tool.")
    missing = await runner.run(request("Desk", "broken"))
    assert (missing.ok, missing.error_code) == (False, "tool_not_found")
    lost = await runner.run(msgspec.structs.replace(request("Desk", "award"), context={}, context_type="no_such:Thing"))
    assert (lost.ok, lost.error_code) == (False, "user_error")
    misfit = await runner.run(msgspec.structs.replace(request("Desk", "award", context=Customer("A")), context={"name": 7}))
    assert (misfit.ok, misfit.error_code) == (False, "user_error")


def test_contexts_without_a_json_form_are_refused_with_a_way_out() -> None:
    with pytest.raises(UserError, match='run_on="session"'):
        pack_context(object())
    assert pack_context({"a": 1}) == ({"a": 1}, None)
    assert unpack_context({"name": "A", "points": 2}, f"{__name__}:Customer").points == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("as it is", "as it is"),
        ({"a": [1]}, '{"a":[1]}'),
        (Customer("A"), '{"name":"A","points":0}'),
        (None, "null"),
        (object, "<class 'object'>"),
    ],
)
def test_outputs_become_text(value: Any, text: str) -> None:
    assert tool_output_text(value) == text


def test_agents_and_settings_are_found_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "desk_for_test", sys.modules[__name__])
    assert load_agent("desk_for_test:AGENT") is AGENT
    assert load_run_config("desk_for_test:CONFIG") == CONFIG
    assert load_run_config(None) == {}
    for reference, match in [
        ("desk_for_test:NO_AGENT", "not a RealtimeAgent"),
        ("desk_for_test:missing", 'has no "missing"'),
        ("no_such_module:agent", "cannot be imported"),
        ("nonsense", "write package.module:attribute"),
    ]:
        with pytest.raises(UserError, match=match):
            load_agent(reference)


@dataclasses.dataclass
class Buyer:
    customer: Customer


@dataclasses.dataclass
class Guest(Buyer):
    table: int = 0


def test_inherited_fields_of_the_context_keep_their_type() -> None:
    guest = Guest(Customer("Ada"))
    apply_context(guest, {"customer": {"name": "Ada", "points": 5}})
    assert guest.customer == Customer("Ada", 5)


def test_a_pydantic_model_becomes_json() -> None:
    class Order(pydantic.BaseModel):
        number: int

    assert tool_output_text(Order(number=7)) == '{"number":7}'
