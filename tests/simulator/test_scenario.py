"""Scenarios: the ones that ship load, the ones that are wrong say where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.scenario import Step, Turn, fill, fill_text, load_scenario, parse_scenario, shipped_scenarios
from orchestrator.simulator.speech import Speaker, SpeechRequest

MINIMAL = "name: x\ndefault: {do: [{say: hello}]}\n"


def test_the_shipped_scenarios_load_under_their_own_names() -> None:
    assert {"echo", "order_desk"} <= set(shipped_scenarios())
    for name in shipped_scenarios():
        assert load_scenario(name).name == name


def test_the_order_desk_answers_long_enough_to_be_interrupted(speaker: Speaker) -> None:
    question, goodbye = load_scenario("order_desk").turns
    assert question.heard == "Where is my order four seven one one?"
    call, answer = question.do
    assert call.call == "lookup_order"
    assert fill(call.arguments, {"match": question.groups(question.heard)}) == {"order_id": "4711"}
    assert fill(call.arguments, {"match": question.groups("where is order 0815")}) == {"order_id": "0815"}
    text = fill_text(str(answer.say), {"tool": {"output": {"status": "on its way"}}})
    assert "It is on its way." in text
    assert speaker.render(SpeechRequest(text, encoding=Encoding.MULAW)).duration_ms > 8000
    assert goodbye.heard == "Thank you, goodbye."
    assert speaker.render(SpeechRequest(str(goodbye.do[0].say), encoding=Encoding.MULAW)).duration_ms < 3000


def test_a_scenario_is_loaded_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(MINIMAL)
    assert load_scenario(str(path)).default == Turn(do=(Step(say="hello"),))


def test_a_missing_file_names_those_that_ship() -> None:
    with pytest.raises(UserError, match=r"no scenario 'nowhere.yaml'.*echo, .*order_desk"):
        load_scenario("nowhere.yaml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [", "mine is not YAML"),
        ("just text", "Expected `object`, got `str`"),
        ("name: x", "missing required field `default`"),
        (MINIMAL + "colour: red", "unknown field `colour`"),
        ("name: x\ndefault: {do: [{}]}", r"either `say` or `call` - at `\$\.default\.do\[0\]`"),
        ("name: x\ndefault: {do: [{say: a, call: b}]}", "either `say` or `call`"),
        ("name: x\ndefault: {do: [{say: a, arguments: {b: 1}}]}", "only a `call` has arguments"),
        (MINIMAL + "turns: [{do: []}, {do: [], match: '('}]", r"not a regular expression: .* - at `\$\.turns\[1\]`"),
        (MINIMAL + "turns: [{do: [], think: -1}]", "cannot be negative"),
        (MINIMAL + "turns: [{do: [{say: '{nobody.knows}'}]}]", r"\{nobody.knows\} refers to nothing"),
        (MINIMAL + "turns: [{do: [{call: f, arguments: {a: [{b: '{'}]}}]}]", "a single brace"),
        (MINIMAL + "turns: [{do: [], end: {status: failed}}]", r"`failed` has a `code`.* - at `\$\.turns\[0\]\.end`"),
        (MINIMAL + "turns: [{do: [], end: {status: incomplete}}]", "`incomplete` has a `reason`"),
        (MINIMAL + "turns: [{do: [], end: {status: incomplete, reason: bored}}]", "Invalid enum value 'bored'"),
        (MINIMAL + "turns: [{do: [], end: {status: cancelled}}]", "Invalid enum value 'cancelled'"),
        (MINIMAL + "turns: [{do: [], end: {status: failed, code: x, after: -1}}]", "`after` cannot be negative"),
        (MINIMAL + "turns: [{do: [], transcription: {kode: x}}]", "unknown field `kode`"),
        ("name: x\ndefault: {do: [{say: a, server: b}]}", "only a `call` has a server"),
        ("name: x\ndefault: {do: [{call: f, server: b}]}", "calls a tool of 'b', but `mcp` has no such server"),
        ("name: x\ndefault: {do: [{call: f, server: b}]}\nmcp: {b: {}}", "calls 'f' of 'b', but that server has no such tool"),
        (MINIMAL + "mcp: {b: {seconds: -1}}", r"`seconds` cannot be negative - at `\$\.mcp"),
        (MINIMAL + "mcp: {b: {tools: [{name: f, seconds: -1}]}}", "`seconds` cannot be negative"),
        (MINIMAL + "mcp: {b: {tools: [{name: f, output: a, error: {message: b}}]}}", "either an `output` or an `error`"),
        (MINIMAL + "mcp: {b: {tools: [{name: f, output: '{nobody}'}]}}", r"\{nobody\} refers to nothing"),
        (MINIMAL + "mcp: {b: {tools: [{name: f, error: {message: m, code: 3}}]}}", "a `tool_execution_error` has none"),
        (MINIMAL + "mcp: {b: {tools: [{name: f, error: {message: m, type: http_error}}]}}", "have a `code`"),
        (MINIMAL + "turns: [{heard: 3, do: []}]", r"Expected `str`, got `int` - at `\$\.turns\[0\]\.heard`"),
    ],
)
def test_a_fault_is_named_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as caught:
        parse_scenario(text, "mine")
    assert caught.value.message.startswith("mine")


VALUES: dict[str, Any] = {
    "heard": "hi",
    "tool": {"output": {"status": "sent", "lines": [{"name": "teapot"}], "count": 2, "nothing": None}, "name": "f"},
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain", "plain"),
        ("I heard {heard}.", "I heard hi."),
        ("{tool.output.status} {tool.output.lines.0.name}", "sent teapot"),
        ("{tool.output.count} pieces", "2 pieces"),
        ("{tool.output.lines}", '[{"name":"teapot"}]'),
        ("{tool.output.missing}", "unknown"),
        ("{tool.output.nothing|nothing at all}", "nothing at all"),
        ("{tool.output.lines.7.name|}", ""),
        ("{{literally}} {heard}", "{literally} hi"),
    ],
)
def test_templates(template: str, text: str) -> None:
    assert fill_text(template, VALUES) == text


def test_an_argument_that_is_one_placeholder_keeps_its_type() -> None:
    template = {"count": "{tool.output.count}", "text": "{tool.output.count}!", "list": ["{heard}", 3, None, True]}
    assert fill(template, VALUES) == {"count": 2, "text": "2!", "list": ["hi", 3, None, True]}


def test_typed_text_is_matched_by_pattern_or_by_what_would_be_heard() -> None:
    turn = Turn(do=(), heard="Is it (really) here?")
    assert turn.groups("is it (really) here?") == {}
    assert turn.groups("is it really here") is None
    assert Turn(do=(), heard="", match=None).groups("anything") is None
    assert Turn(do=(), match=r"(?P<number>\d+)|(?P<word>all)").groups("order 12") == {"number": "12"}


def test_what_a_server_offers_is_found_by_name() -> None:
    scenario = parse_scenario(MINIMAL + "mcp: {b: {tools: [{name: f}, {name: g, output: [1]}]}}")
    found = scenario.mcp["b"].find("g")
    assert found is not None
    assert (found.output, found.input_schema) == ([1], {"type": "object", "properties": {}})
    assert scenario.mcp["b"].find("h") is None


def test_the_idle_turn_is_worth_rendering_too() -> None:
    assert parse_scenario(MINIMAL + "idle: {do: [{say: there}]}").spoken_texts() == ["hello", "there"]


def test_spoken_texts_are_those_without_a_placeholder() -> None:
    assert "You are welcome. Goodbye!" in load_scenario("order_desk").spoken_texts()
    assert load_scenario("echo").spoken_texts() == []
