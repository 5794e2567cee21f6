"""The director: which turn answers what, and what is still owed after a call."""

from __future__ import annotations

import json
from typing import Any

from orchestrator.simulator.endpoint.director import OPEN_CALLS, Call, Director, Plan, Say
from orchestrator.simulator.endpoint.toolbox import Toolbox
from orchestrator.simulator.scenario import parse_scenario
from tests.simulator.support import SCENARIO


def box(*names: str, **more: Any) -> Toolbox:
    """Functions of a client, which take anything."""
    return Toolbox({("", name): {"type": "object"} for name in names}, **more)


TOOLS = box("lookup")
NOTHING = Toolbox()


def said(plan: Plan) -> list[str]:
    return [output.text for output in plan.outputs if isinstance(output, Say)]


def call_of(plan: Plan) -> Call:
    (call,) = plan.outputs
    assert isinstance(call, Call)
    return call


def test_spoken_turns_come_in_order_and_the_default_answers_after_the_last() -> None:
    director = Director(SCENARIO)
    assert director.hear_audio(1).text == "first question"
    assert said(director.plan(TOOLS)) == ["The first answer has quite a few words in it."]
    assert director.hear_audio(1).text == "look it up"
    assert director.hear_audio(1).text == "the third question"
    assert said(director.plan(TOOLS)) == ["Third.", "Two messages."]
    assert director.hear_audio(1).text == ""
    assert said(director.plan(TOOLS)) == ["I do not know."]


def test_repeat_starts_over() -> None:
    director = Director(
        parse_scenario("name: x\nrepeat: true\nturns: [{heard: a, do: []}, {heard: b, do: []}]\ndefault: {do: []}")
    )
    assert [director.hear_audio(1).text for _ in range(5)] == ["a", "b", "a", "b", "a"]


def test_typed_text_takes_the_turn_that_fits_and_speech_goes_on_after_it() -> None:
    director = Director(SCENARIO)
    director.hear_text("please LOOK at it")
    assert call_of(director.plan(TOOLS)).arguments == '{"key":"please LOOK at it"}'
    assert director.hear_audio(1).text == "the third question"


def test_a_call_is_followed_by_what_its_output_allows() -> None:
    director = Director(SCENARIO)
    director.hear_text("look")
    call = call_of(director.plan(TOOLS))
    director.called("call_1", call)
    assert said(director.plan(TOOLS)) == ["I do not know."]
    director.hear_output("call_1", json.dumps({"value": 42}))
    assert said(director.plan(TOOLS)) == ["It is 42."]
    assert said(director.plan(TOOLS)) == ["I do not know."]


def test_an_output_that_is_not_json_is_a_text() -> None:
    director = Director(
        parse_scenario("name: x\nturns: [{heard: a, do: [{call: f}, {say: '{tool.output}'}]}]\ndefault: {do: []}")
    )
    director.hear_audio(1)
    director.called("c", call_of(director.plan(box("f"))))
    director.hear_output("c", "An error occurred.")
    assert said(director.plan(box("f"))) == ["An error occurred."]


def test_a_caller_who_interrupts_is_answered_first_and_the_call_afterwards() -> None:
    director = Director(SCENARIO)
    director.hear_text("look")
    director.called("call_1", call_of(director.plan(TOOLS)))
    director.hear_audio(1)
    director.hear_output("call_1", '{"value":1}')
    assert said(director.plan(TOOLS)) == ["Third.", "Two messages."]
    assert said(director.plan(TOOLS)) == ["It is 1."]


def test_an_interrupted_turn_owes_nothing() -> None:
    director = Director(SCENARIO)
    director.hear_text("look")
    director.plan(TOOLS)  # cancelled before the call was complete, so `called` never came
    director.hear_output("call_unknown", "{}")
    assert said(director.plan(TOOLS)) == ["I do not know."]


def test_calls_of_one_response_share_what_follows() -> None:
    scenario = parse_scenario(
        "name: x\ndefault: {do: []}\nturns: [{heard: a, do: [{say: one moment}, {call: f}, {call: g},"
        " {say: '{tools.f.output.a} {tools.g.output.b}'}, {call: f}]}]"
    )
    director = Director(scenario)
    director.hear_audio(1)
    moment, first, second = director.plan(box("f", "g")).outputs
    assert moment == Say("one moment")
    assert isinstance(first, Call)
    assert isinstance(second, Call)
    director.called("1", first)
    director.called("2", second)
    director.hear_output("2", '{"b":"B"}')
    director.hear_output("1", '{"a":"A"}')
    plan = director.plan(box("f", "g"))
    assert said(plan) == ["A B"]
    assert isinstance(plan.outputs[1], Call)


def test_a_tool_that_was_not_offered_is_not_called() -> None:
    director = Director(SCENARIO)
    director.hear_text("look")
    assert said(director.plan(NOTHING)) == ["I do not know."]


def test_the_greeting_comes_once_and_only_before_the_caller_has_spoken() -> None:
    director = Director(SCENARIO)
    assert said(director.plan(TOOLS)) == ["Welcome to the test."]
    assert said(director.plan(TOOLS)) == ["I do not know."]
    other = Director(SCENARIO)
    other.hear_audio(1)
    other.plan(TOOLS)
    assert said(other.plan(TOOLS)) == ["I do not know."]


def test_an_aside_leaves_no_trace() -> None:
    director = Director(SCENARIO)
    assert said(director.plan_aside("the third question", TOOLS)) == ["Third.", "Two messages."]
    assert director.hear_audio(1).text == "first question"


def test_an_answer_that_the_client_recalls_needs_no_other() -> None:
    director = Director(SCENARIO)
    director.hear_text("first question")
    director.recall_answer()
    assert director.hear_audio(1).text == "look it up"


def test_a_call_that_the_client_recalls_is_continued() -> None:
    director = Director(SCENARIO)
    director.hear_text("look it up")
    director.recall_call("call_old", "lookup", '{"key":"x"}')
    director.hear_output("call_old", '{"value":"here"}')
    assert said(director.plan(TOOLS)) == ["It is here."]


def test_calls_that_are_never_answered_are_forgotten_in_the_end() -> None:
    director = Director(SCENARIO)
    director.hear_text("look")
    call = call_of(director.plan(TOOLS))
    for number in range(OPEN_CALLS + 1):
        director.called(str(number), call)
    director.hear_output("0", '{"value":1}')
    assert said(director.plan(TOOLS)) == ["I do not know."]


def test_spoken_turns_may_tell_their_length() -> None:
    director = Director(
        parse_scenario("name: x\ndefault: {heard: '{audio.seconds} seconds', do: [{say: 'You said: {heard}'}]}")
    )
    assert director.hear_audio(1.26).text == "1.3 seconds"
    assert said(director.plan(NOTHING)) == ["You said: 1.3 seconds"]
