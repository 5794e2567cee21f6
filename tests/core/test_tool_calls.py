"""Tool calls: run once, answered once, one response for calls that were made together."""

import pytest

from orchestrator.core.states import ToolCallState
from orchestrator.core.tool_calls import MAX_REMEMBERED, ToolCall, ToolCalls
from orchestrator.errors import ModelBehaviorError


def request(calls: ToolCalls, call_id: str, response_id: str = "resp_1", arguments: str = "{}") -> ToolCall:
    call = calls.requested(call_id, f"item_{call_id}", "lookup", arguments, response_id)
    assert call is not None
    calls.started(call)
    return call


def test_the_last_answer_of_a_response_asks_for_the_next_one() -> None:
    calls = ToolCalls()
    for call_id in ("a", "b"):
        request(calls, call_id)
    request(calls, "c", "resp_2")
    first, second = calls.answered("b", "2"), calls.answered("a", "1")
    assert first is not None
    assert second is not None
    assert (first.start_response, second.start_response) == (False, True)


def test_a_call_is_answered_once() -> None:
    calls = ToolCalls()
    call = request(calls, "a")
    assert calls.answered("a", "1") is not None
    assert calls.answered("a", "2") is None
    assert calls.answered("unknown", "2") is None
    assert call.state is ToolCallState.ANSWERED


def test_a_repeated_call_is_not_run_again() -> None:
    calls = ToolCalls()
    request(calls, "a")
    assert calls.requested("a", "item_a", "lookup", "{}", "resp_1") is None


def test_an_id_that_is_used_for_another_call_is_the_models_fault() -> None:
    calls = ToolCalls()
    request(calls, "a")
    with pytest.raises(ModelBehaviorError, match="unique call ID"):
        calls.requested("a", "item_a", "lookup", '{"other":1}', "resp_1")
    with pytest.raises(ModelBehaviorError, match="without a call id"):
        calls.requested("", "item_a", "lookup", "{}", "resp_1")


def test_what_is_open_at_the_end_is_dropped_and_never_answered() -> None:
    calls = ToolCalls()
    request(calls, "a")
    assert [call.call_id for call in calls.drop_all()] == ["a"]
    assert calls.answered("a", "late") is None
    assert calls.open == []


def test_memory_of_answered_calls_is_bounded_and_open_ones_are_kept() -> None:
    calls = ToolCalls()
    kept = request(calls, "open")
    for number in range(MAX_REMEMBERED + 50):
        request(calls, f"call_{number}")
        calls.answered(f"call_{number}", "x")
    assert calls.open == [kept]
    assert len(calls._calls) <= MAX_REMEMBERED + 1


def test_only_the_first_handoff_of_a_response_may_be_carried_out_and_none_while_another_is() -> None:
    calls = ToolCalls()
    first, second, later = request(calls, "a"), request(calls, "b"), request(calls, "c", "resp_2")
    assert calls.may_hand_off(first)
    assert not calls.may_hand_off(second)
    assert not calls.may_hand_off(later)
    calls.answered("a", "done")
    assert not calls.may_hand_off(second)
    assert calls.may_hand_off(later)
