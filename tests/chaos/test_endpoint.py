"""The model of a chaos run answers a turn again when it is asked again, and only then."""

from __future__ import annotations

from orchestrator.simulator.endpoint.director import Say
from orchestrator.simulator.endpoint.toolbox import Toolbox
from orchestrator.simulator.scenario import load_scenario
from tests.chaos.endpoint import SCENARIO, PersistentDirector

TOOLS = Toolbox({("", "book"): {}, ("", "reserve"): {}})


def director() -> PersistentDirector:
    return PersistentDirector(load_scenario(str(SCENARIO)))


def said(one: PersistentDirector) -> list[str]:
    return [output.text for output in one.plan(TOOLS).outputs if isinstance(output, Say)]


def test_a_turn_is_answered_by_its_number() -> None:
    one = director()
    for number in (1, 2):
        one.hear_text(f"This is turn {number}.")
        assert said(one) == [f"This answers turn {number}."]


def test_a_turn_whose_answer_was_told_is_answered_again_when_that_is_asked_for() -> None:
    one = director()
    one.hear_text("This is turn 1.")
    one.recall_answer()
    assert said(one) == ["This answers turn 1."]
    one.recall_answer()
    one.hear_text("This is turn 2.")
    assert said(one) == ["This answers turn 2."]


def test_a_turn_with_a_tool_that_was_told_goes_on_behind_the_tool() -> None:
    one = director()
    one.hear_text("This is turn 2, please book in /ledger")
    one.recall_call("call_1", "book", '{"turn":"2","ledger":"/ledger"}')
    one.hear_output("call_1", "booked")
    one.recall_answer()
    assert said(one) == ["This answers turn 2."]
    assert said(one) == ["This answers turn 2."]
