"""What may be called in a response, and arguments for calls that nobody has written down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.endpoint.toolbox import Toolbox, least_arguments, toolbox
from orchestrator.simulator.scenario import parse_scenario
from orchestrator.wire.realtime import FunctionTool, FunctionToolChoice, McpListedTool, McpTool, McpToolChoice, Tool, ToolChoice
from tests.simulator.support import TEXT_ONLY, Driver, of_type, only, types

TOOLS: list[Tool] = [
    FunctionTool(name="f", parameters={"type": "object"}),
    FunctionTool(name="g"),
    McpTool(server_label="s", server_url="https://example.com"),
]
REMOTE = {"s": (McpListedTool(name="m", input_schema={"type": "object"}), McpListedTool(name="n", input_schema={}))}
ALL = {("", "f"), ("", "g"), ("s", "m"), ("s", "n")}


@pytest.mark.parametrize(
    ("choice", "keys", "must"),
    [
        ("auto", ALL, False),
        (None, ALL, False),
        ("none", set(), False),
        ("required", ALL, True),
        (FunctionToolChoice(name="g"), {("", "g")}, True),
        (McpToolChoice(server_label="s"), {("s", "m"), ("s", "n")}, True),
        (McpToolChoice(server_label="s", name="n"), {("s", "n")}, True),
        (FunctionToolChoice(name="gone"), ALL, False),
        (McpToolChoice(server_label="gone"), ALL, False),
    ],
)
def test_the_choice_narrows_what_may_be_called(choice: ToolChoice, keys: set[Any], must: bool) -> None:
    box = toolbox(TOOLS, REMOTE, choice, parallel=True)
    assert (set(box.schemas), box.must) == (keys, must)


def test_nothing_can_be_required_of_no_tools() -> None:
    assert not toolbox([], {}, "required", parallel=True).must
    assert ("", "f") not in Toolbox()


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        (None, {}),
        ({}, {}),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, {}),
        ({"type": "object", "properties": {"a": {"type": "string", "minLength": 3}}, "required": ["a"]}, {"a": "xxx"}),
        ({"properties": {"a": {"enum": ["red", "blue"]}}, "required": ["a"]}, {"a": "red"}),
        ({"properties": {"a": {"const": 7}, "b": {"default": [1]}}, "required": ["a", "b"]}, {"a": 7, "b": [1]}),
        ({"properties": {"a": {"type": "integer", "minimum": 5}}, "required": ["a"]}, {"a": 5}),
        ({"properties": {"a": {"type": "integer", "exclusiveMinimum": 5}}, "required": ["a"]}, {"a": 6}),
        ({"properties": {"a": {"type": "integer", "maximum": -2}}, "required": ["a"]}, {"a": -2}),
        ({"properties": {"a": {"type": "number", "exclusiveMaximum": 0}}, "required": ["a"]}, {"a": -1}),
        ({"properties": {"a": {"type": "integer", "minimum": 4, "multipleOf": 3}}, "required": ["a"]}, {"a": 6}),
        (
            {"properties": {"a": {"type": ["null", "string"]}, "b": {"type": "boolean"}}, "required": ["a", "b"]},
            {"a": None, "b": False},
        ),
        (
            {"properties": {"a": {"type": "array", "items": {"type": "integer"}, "minItems": 2}}, "required": ["a"]},
            {"a": [0, 0]},
        ),
        ({"properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}, "required": ["a"]}, {"a": 0}),
        (
            {
                "$defs": {"place": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
                "properties": {"a": {"$ref": "#/$defs/place"}},
                "required": ["a"],
            },
            {"a": {"city": ""}},
        ),
        (
            {"allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]}, {"properties": {"b": {}}}]},
            {"a": 0},
        ),
        ({"properties": {"a": {"$ref": "https://example.com/x"}}, "required": ["a"]}, {"a": None}),
        ({"$ref": "#"}, {}),
        ({"type": "string"}, {}),
    ],
)
def test_the_least_arguments_have_what_is_required(schema: Any, arguments: dict[str, Any]) -> None:
    assert least_arguments(schema) == arguments


KEYWORDS = ["type", "properties", "required", "items", "minItems", "enum", "$ref", "allOf", "anyOf", "minimum", "a"]
LEAF = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5) | st.sampled_from(["object", "array", "#/a", "string"])
)
JSON = st.recursive(
    LEAF,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=5),
    max_leaves=20,
)


@given(JSON)
def test_no_schema_is_too_strange(schema: Any) -> None:
    assert isinstance(least_arguments(schema), dict)


# --- As a client sees it ----------------------------------------------------------------------------------------------

SCENARIO = parse_scenario(
    """
name: tools
turns:
  - heard: both
    do: [{call: f}, {call: g}, {say: Done.}]
  - heard: talk
    do: [{say: Just talking.}]
  - heard: later
    do: [{say: One moment.}, {call: f, arguments: {a: 1}}, {call: g, arguments: {b: 2}}, {say: Done.}]
default: {do: [{say: Default.}]}
"""
)
F = {"type": "function", "name": "f", "parameters": {"type": "object"}}
G = {
    "type": "function",
    "name": "g",
    "parameters": {"type": "object", "properties": {"n": {"type": "integer", "minimum": 3}}, "required": ["n"]},
}


@pytest.fixture
def driver(drive: Callable[..., Driver]) -> Driver:
    driver = drive(SCENARIO)
    driver.send("session.update", session={**TEXT_ONLY, "tools": [F, G]})
    return driver


def calls(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["name"], event["arguments"]) for event in of_type(events, "response.function_call_arguments.done")]


def answer(driver: Driver, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for event in of_type(events, "response.function_call_arguments.done"):
        item = {"type": "function_call_output", "call_id": event["call_id"], "output": "{}"}
        driver.send("conversation.item.create", item=item)
    start = len(driver.events)
    driver.send("response.create", response={"tool_choice": "auto"})
    driver.run()
    return driver.events[start:]


def test_several_calls_come_in_one_response_unless_they_must_not(driver: Driver) -> None:
    assert calls(driver.ask("both")) == [("f", "{}"), ("g", "{}")]
    events = driver.ask("both", parallel_tool_calls=False)
    assert calls(events) == [("f", "{}")]
    events = answer(driver, events)
    assert calls(events) == [("g", "{}")]
    assert only(answer(driver, events), "response.output_text.done")["text"] == "Done."


def test_a_session_may_forbid_parallel_calls(driver: Driver) -> None:
    driver.update(parallel_tool_calls=False)
    assert calls(driver.ask("both")) == [("f", "{}")]


def test_none_calls_nothing(driver: Driver) -> None:
    events = driver.ask("both", tool_choice="none")
    assert calls(events) == []
    assert only(events, "response.output_text.done")["text"] == "Default."


def test_required_prefers_what_the_scenario_has(driver: Driver) -> None:
    assert calls(driver.ask("later", tool_choice="required")) == [("f", '{"a":1}'), ("g", '{"b":2}')]
    assert calls(driver.ask("later", tool_choice={"type": "function", "name": "g"})) == [("g", '{"b":2}')]


def test_required_makes_up_what_the_scenario_lacks_and_then_goes_on(driver: Driver) -> None:
    events = driver.ask("talk", tool_choice={"type": "function", "name": "g"})
    assert types(events)[0] == "response.created"
    assert calls(events) == [("g", '{"n":3}')]
    assert only(answer(driver, events), "response.output_text.done")["text"] == "Just talking."
    assert calls(driver.ask("talk", tool_choice="required")) == [("f", "{}")]


def test_a_response_out_of_band_is_under_the_same_rules(driver: Driver) -> None:
    response = {"conversation": "none", "input": [], "instructions": "talk", "tool_choice": "required"}
    driver.send("response.create", response=response)
    assert calls(driver.run()) == [("f", "{}")]
