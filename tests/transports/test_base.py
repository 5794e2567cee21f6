"""The states, limits and reasons that all legs share."""

from __future__ import annotations

import itertools

import pytest

from orchestrator.errors import EndReason, IllegalTransitionError, SettingsError
from orchestrator.transports.base import TRANSITIONS, LegOptions, LegState, OpenListener, advance, reason_for_close
from tests.transports.support import Recorder


@pytest.mark.parametrize(("current", "target"), list(itertools.product(LegState, repeat=2)))
def test_only_listed_transitions_are_made(current: LegState, target: LegState) -> None:
    if target in TRANSITIONS[current]:
        assert advance(current, target) is target
    else:
        with pytest.raises(IllegalTransitionError, match=f"{current.value} to {target.value}"):
            advance(current, target)


def test_every_state_leads_to_the_end_and_the_end_leads_nowhere() -> None:
    assert not TRANSITIONS[LegState.CLOSED]
    assert all(LegState.CLOSED in TRANSITIONS[state] for state in LegState if state is not LegState.CLOSED)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1000, EndReason("closed_normally", "bye", None, "peer")),
        (1001, EndReason("going_away", "bye", None, "peer")),
        (1005, EndReason("closed_normally", "bye", None, "peer")),
        (1009, EndReason("message_too_big", "bye", None, "peer")),
        (4001, EndReason("closed_with_code", "4001 bye", None, "peer")),
    ],
)
def test_close_codes_have_names(code: int, expected: EndReason) -> None:
    assert reason_for_close(code, "bye", "peer") == expected


@pytest.mark.parametrize(
    "wrong", [{"max_message": 10}, {"queue_limit": -1}, {"write_high": -1}, {"ping_interval": 0.0}, {"close_timeout": -1.0}]
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        LegOptions(**wrong)  # type: ignore[arg-type]  # that is the point


def test_a_listener_with_on_open_is_recognised() -> None:
    class Plain:
        def on_text(self, data: bytes) -> None: ...

        def on_binary(self, data: bytes) -> None: ...

        def on_closed(self, reason: EndReason) -> None: ...

    assert isinstance(Recorder(), OpenListener)
    assert not isinstance(Plain(), OpenListener)
