"""The transition tables: what they list is what may happen, and nothing else changes a state."""

from enum import Enum
from typing import Any

import pytest

from orchestrator.core.states import (
    RESPONSE,
    SESSION,
    TOOL_CALL,
    TURN,
    Machine,
    ResponseSignal,
    ResponseState,
    SessionState,
    ToolCallSignal,
    ToolCallState,
    TurnSignal,
    TurnState,
)
from orchestrator.errors import IllegalTransitionError


def reachable(initial: Enum, table: dict[Any, Any]) -> set[Enum]:
    seen = {initial}
    grown = True
    while grown:
        more = {target for (source, _), target in table.items() if source in seen} - seen
        grown = bool(more)
        seen |= more
    return seen


@pytest.mark.parametrize(
    ("initial", "table"),
    [
        (SessionState.NEW, SESSION),
        (ResponseState.IDLE, RESPONSE),
        (TurnState.OPEN, TURN),
        (ToolCallState.REQUESTED, TOOL_CALL),
    ],
)
def test_every_state_is_reachable(initial: Enum, table: dict[Any, Any]) -> None:
    assert reachable(initial, table) == set(type(initial))


def test_an_unlisted_pair_raises_and_changes_nothing() -> None:
    machine = Machine(ToolCallState.ANSWERED, TOOL_CALL)
    with pytest.raises(IllegalTransitionError, match="START is not allowed in ANSWERED"):
        machine.signal(ToolCallSignal.START)
    assert machine.state is ToolCallState.ANSWERED
    assert not machine.allows(ToolCallSignal.START)


def test_whatever_the_outside_reports_about_the_floor_is_listed() -> None:
    assert set(TURN) == {(state, signal) for state in TurnState for signal in TurnSignal}


def test_a_response_that_is_not_asked_for_is_listed_in_every_state_but_for_our_own_mistakes() -> None:
    for state in ResponseState:
        assert (state, ResponseSignal.CREATED) in RESPONSE
        assert (state, ResponseSignal.RESET) in RESPONSE


def test_a_session_that_ended_stays_ended() -> None:
    assert not [pair for pair in SESSION if pair[0] is SessionState.ENDED]
