"""MCP servers of a session: listed, called, asked about, and out of reach, all by the scenario."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.scenario import parse_scenario
from tests.simulator.support import TEXT_ONLY, Driver, error_of, of_type, only, types

SCENARIO = parse_scenario(
    """
name: warehouse
mcp:
  house:
    seconds: 0.5
    tools:
      - name: find
        description: Finds a thing.
        input_schema: {type: object, properties: {id: {type: string}}, required: [id]}
        annotations: {readOnlyHint: true}
        output: {shelf: "A-{tool.arguments.id}"}
        seconds: 0.2
      - {name: move, output: Moved., seconds: 0.2}
      - {name: burn, error: {message: It does not burn.}}
      - {name: weigh, error: {type: protocol_error, code: -32000, message: No scales.}}
  ruin: {fails: true}
turns:
  - heard: where is it
    do: [{say: Let me see.}, {call: find, server: house, arguments: {id: "7"}}, {say: "On shelf {tool.output.shelf|nowhere}."}]
  - heard: burn it
    do: [{call: burn, server: house}, {say: "{tool.output|It is as it was}."}]
  - heard: weigh it
    do: [{call: weigh, server: house}, {say: Heavy.}]
  - heard: both
    do:
      - {call: find, server: house, arguments: {id: "8"}}
      - {call: local}
      - {say: "{tools.find.output.shelf} {tools.local.output}"}
  - heard: talk
    do: [{say: Just talking.}]
default: {do: [{say: I cannot.}]}
"""
)
LISTING = ["session.updated", "conversation.item.added", "mcp_list_tools.in_progress"]
CALL = [
    "response.output_item.added",
    "conversation.item.added",
    "response.mcp_call_arguments.delta",
    "response.mcp_call_arguments.done",
    "response.mcp_call.in_progress",
    "response.mcp_call.completed",
    "conversation.item.done",
    "response.output_item.done",
]


def server(label: str = "house", **more: Any) -> dict[str, Any]:
    return {
        "type": "mcp",
        "server_label": label,
        "server_url": "https://mcp.example.com",
        "require_approval": "never",
        **more,
    }


def connected(drive: Callable[..., Driver], *tools: dict[str, Any], **options: Any) -> Driver:
    driver = drive(SCENARIO, ModelOptions(**options))
    driver.send("session.update", session={**TEXT_ONLY, "tools": list(tools)})
    driver.wait(1.0)
    return driver


def said(driver: Driver) -> list[str]:
    return [event["text"] for event in of_type(driver.events, "response.output_text.done")]


def test_tools_are_listed_when_a_session_names_their_server(drive: Callable[..., Driver]) -> None:
    driver = drive(SCENARIO)
    events = driver.update(tools=[server()])
    assert types(events) == LISTING
    assert events[1]["item"] == {"type": "mcp_list_tools", "id": events[2]["item_id"], "server_label": "house", "tools": []}
    assert driver.wait(0.49) == []
    events = driver.wait(0.02)
    assert types(events) == ["mcp_list_tools.completed", "conversation.item.done"]
    tools = events[1]["item"]["tools"]
    assert [tool["name"] for tool in tools] == ["find", "move", "burn", "weigh"]
    assert tools[0] == {
        "name": "find",
        "description": "Finds a thing.",
        "input_schema": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
        "annotations": {"readOnlyHint": True},
    }
    assert types(driver.update(tools=[server()])) == ["session.updated"]
    assert types(driver.update(tools=[server(allowed_tools=["move"])])) == LISTING


@pytest.mark.parametrize("label", ["ruin", "unheard_of"])
def test_a_server_that_cannot_be_reached_fails_to_be_listed(drive: Callable[..., Driver], label: str) -> None:
    driver = drive(SCENARIO)
    driver.update(tools=[server(label)])
    events = driver.wait(1.0)
    assert types(events) == ["mcp_list_tools.failed", "conversation.item.done"]
    assert events[1]["item"]["tools"] == []


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        (["move", "find"], ["find", "move"]),
        ([], []),
        ({"tool_names": ["move"]}, ["move"]),
        ({"read_only": True}, ["find"]),
        ({"read_only": False, "tool_names": ["find", "move"]}, ["move"]),
        (None, ["find", "move", "burn", "weigh"]),
    ],
)
def test_only_allowed_tools_are_listed(drive: Callable[..., Driver], allowed: Any, names: list[str]) -> None:
    driver = drive(SCENARIO)
    driver.update(tools=[server(allowed_tools=allowed)])
    listed = only(driver.wait(1.0), "conversation.item.done")["item"]["tools"]
    assert [tool["name"] for tool in listed] == names


def test_a_call_is_made_by_the_endpoint_which_then_goes_on(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server())
    events = driver.ask("where is it")
    first, second = of_type(events, "response.done")
    names = types(events)
    start = names.index("response.output_item.added", names.index("response.output_item.done"))
    assert list(dict.fromkeys(names[start : names.index("response.done")])) == CALL
    item = first["response"]["output"][1]
    assert item == {
        "type": "mcp_call",
        "id": item["id"],
        "server_label": "house",
        "name": "find",
        "arguments": '{"id":"7"}',
        "approval_request_id": None,
        "output": '{"shelf":"A-7"}',
        "error": None,
    }
    assert "".join(event["delta"] for event in of_type(events, "response.mcp_call_arguments.delta")) == item["arguments"]
    assert "response_id" not in only(events, "response.mcp_call.in_progress")
    assert names[names.index("rate_limits.updated") + 1] == "response.created"
    assert second["response"]["output"][0]["content"][0]["text"] == "On shelf A-7."


def test_the_next_response_may_be_left_to_the_client(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server(), mcp_continues=False)
    assert len(of_type(driver.ask("where is it"), "response.done")) == 1
    driver.send("response.create")
    driver.run()
    assert said(driver) == ["Let me see.", "On shelf A-7."]


def test_a_call_takes_its_time_and_can_be_retrieved_meanwhile(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server())
    driver.say("where is it")
    driver.send("response.create")
    while "response.mcp_call.in_progress" not in types(driver.events):
        driver.wait(0.01)
    item_id = only(driver.events, "response.mcp_call.in_progress")["item_id"]
    item = driver.send("conversation.item.retrieve", item_id=item_id)[0]["item"]
    assert (item["arguments"], item["output"]) == ('{"id":"7"}', None)
    assert driver.wait(0.18) == []
    assert "response.mcp_call.completed" in types(driver.wait(0.03))


@pytest.mark.parametrize(
    ("text", "error", "then"),
    [
        ("burn it", {"type": "tool_execution_error", "message": "It does not burn."}, "It is as it was."),
        ("weigh it", {"type": "protocol_error", "code": -32000, "message": "No scales."}, "Heavy."),
    ],
)
def test_a_call_may_fail(drive: Callable[..., Driver], text: str, error: dict[str, Any], then: str) -> None:
    driver = connected(drive, server())
    events = driver.ask(text)
    item = only(events, "response.mcp_call.failed")
    done = of_type(events, "response.done")[0]["response"]
    assert done["status"] == "completed"
    assert done["output"][0]["id"] == item["item_id"]
    assert (done["output"][0]["output"], done["output"][0]["error"]) == (None, error)
    assert said(driver) == [then]


def test_a_call_that_is_cancelled_fails(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server())
    driver.say("where is it")
    driver.send("response.create")
    while "response.mcp_call.in_progress" not in types(driver.events):
        driver.wait(0.01)
    events = driver.send("response.cancel")
    assert types(events) == [
        "response.mcp_call.failed",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]
    assert events[1]["item"]["error"]["message"] == "Request cancelled"
    assert driver.run() == []


def test_before_the_listing_ends_nothing_can_be_called(drive: Callable[..., Driver]) -> None:
    driver = drive(SCENARIO)
    driver.send("session.update", session={**TEXT_ONLY, "tools": [server()]})
    driver.say("where is it")
    driver.send("response.create")
    driver.run()
    assert said(driver) == ["I cannot."]


def test_a_response_may_name_a_server_of_its_own(drive: Callable[..., Driver]) -> None:
    driver = connected(drive)
    driver.say("talk")
    events = driver.send("response.create", response={"tools": [server()]})
    assert types(events)[:2] == ["conversation.item.added", "mcp_list_tools.in_progress"]
    driver.run()
    events = driver.ask("where is it", tools=[server()])
    assert only(events, "response.mcp_call.completed")


def test_a_call_that_is_required_is_made_once(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server())
    driver.update(tool_choice={"type": "mcp", "server_label": "house", "name": "move"})
    events = driver.ask("talk")
    first, second = (event["response"]["output"][0] for event in of_type(events, "response.done"))
    assert (first["name"], second["type"]) == ("move", "message")
    assert said(driver) == ["Just talking."]


def test_calls_of_both_kinds_wait_for_the_client(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server(), {"type": "function", "name": "local"})
    events = driver.ask("both")
    assert len(of_type(events, "response.done")) == 1
    call = only(events, "response.function_call_arguments.done")
    item = {"type": "function_call_output", "call_id": call["call_id"], "output": "here"}
    driver.send("conversation.item.create", item=item)
    driver.send("response.create")
    driver.run()
    assert said(driver) == ["A-8 here"]


def test_out_of_band_a_call_leaves_no_trace(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server())
    start = len(driver.events)
    driver.send("response.create", response={"conversation": "none", "input": [], "instructions": "where is it"})
    driver.run()
    events = driver.events[start:]
    assert only(events, "response.mcp_call.completed")
    assert not any(name.startswith("conversation.") for name in types(events))
    assert len(of_type(events, "response.done")) == 1
    driver.ask("talk")
    assert said(driver)[-1] == "Just talking."


# --- Approval ---------------------------------------------------------------------------------------------------------


def asked(driver: Driver) -> dict[str, Any]:
    """The request that a question of the caller leads to."""
    events = driver.ask("where is it")
    names = types(events)
    start = names.index("response.output_item.added", names.index("response.output_item.done"))
    assert names[start:] == [
        "response.output_item.added",
        "conversation.item.added",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
        "rate_limits.updated",
    ]
    item: dict[str, Any] = only(events, "response.done")["response"]["output"][1]
    assert item == {
        "type": "mcp_approval_request",
        "id": item["id"],
        "server_label": "house",
        "name": "find",
        "arguments": '{"id":"7"}',
    }
    return item


def decide(driver: Driver, request: dict[str, Any], *, approve: bool, **more: Any) -> list[dict[str, Any]]:
    item = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": approve}
    return driver.send("conversation.item.create", item=item, **more)


def test_an_approved_call_is_made_when_the_client_asks_on(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server(require_approval="always"))
    request = asked(driver)
    assert types(decide(driver, request, approve=True)) == ["conversation.item.added", "conversation.item.done"]
    assert driver.run() == []
    driver.send("response.create")
    events = driver.run()
    call = of_type(events, "response.done")[0]["response"]["output"][0]
    assert (call["type"], call["approval_request_id"], json.loads(call["output"])) == (
        "mcp_call",
        request["id"],
        {"shelf": "A-7"},
    )
    assert said(driver) == ["Let me see.", "On shelf A-7."]


def test_a_decision_may_continue_by_itself(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server(require_approval="always"), approval_continues=True)
    request = asked(driver)
    names = types(decide(driver, request, approve=True, previous_item_id=request["id"]))
    assert names == ["conversation.item.added", "conversation.item.done", "response.created"]
    driver.run()
    assert said(driver)[-1] == "On shelf A-7."


def test_a_call_that_is_denied_is_not_made(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server(require_approval="always"))
    decide(driver, asked(driver), approve=False)
    driver.send("response.create")
    assert "response.mcp_call.in_progress" not in types(driver.run())
    assert said(driver)[-1] == "On shelf nowhere."


def test_a_new_turn_comes_before_a_decision(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server(require_approval="always"))
    decide(driver, asked(driver), approve=True)
    driver.ask("talk")
    assert said(driver)[-1] == "Just talking."
    driver.send("response.create")
    driver.run()
    assert said(driver)[-1] == "On shelf A-7."


def test_a_decision_about_nothing_is_refused(drive: Callable[..., Driver]) -> None:
    driver = connected(drive, server())
    error = error_of(decide(driver, {"id": "item_gone"}, approve=True))
    assert (error["code"], error["param"]) == ("invalid_value", "item.approval_request_id")


@pytest.mark.parametrize(
    ("wanted", "asks"),
    [
        (None, True),
        ("always", True),
        ("never", False),
        ({"never": {"tool_names": ["find"]}}, False),
        ({"never": {"tool_names": ["move"]}}, True),
        ({"never": {"read_only": True}}, False),
        ({"always": {"tool_names": ["find"]}, "never": {"read_only": True}}, True),
        ({}, True),
    ],
)
def test_who_must_agree_to_what(drive: Callable[..., Driver], wanted: Any, asks: bool) -> None:
    driver = connected(drive, server(require_approval=wanted))
    kinds = [item["type"] for item in of_type(driver.ask("where is it"), "response.done")[0]["response"]["output"]]
    assert kinds == ["message", "mcp_approval_request" if asks else "mcp_call"]
