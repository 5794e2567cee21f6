"""The order desk of the demo."""

from __future__ import annotations

import json
import os

import pytest

from orchestrator.agent_ref import load_agent
from orchestrator.demo.agent import agent
from orchestrator.settings import Settings
from orchestrator.tool_runner import ToolRequest, collect_tools, execute


def test_is_the_agent_that_a_service_without_settings_runs() -> None:
    assert load_agent(Settings().agent) is agent


def test_its_tool_tells_the_model_what_to_pass() -> None:
    (tool,) = agent.tools
    assert tool.name == "lookup_order"
    assert "where an order is" in tool.description
    assert tool.params_json_schema["required"] == ["order_id"]
    assert "4711" in tool.params_json_schema["properties"]["order_id"]["description"]


@pytest.mark.parametrize(
    ("order_id", "status"), [("4711", "on its way"), ("4-7-1-2", "being packed"), ("99", "unknown"), ("", "unknown")]
)
async def test_looks_an_order_up(order_id: str, status: str) -> None:
    request = ToolRequest(
        call_id="call_1",
        session_id="sess_1",
        agent="Order desk",
        tool="lookup_order",
        arguments=json.dumps({"order_id": order_id}),
    )
    reply = await execute(collect_tools(agent), request)
    assert reply.ok
    assert reply.pid == os.getpid()
    assert json.loads(reply.output)["status"] == status
