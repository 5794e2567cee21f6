"""When a connection is made anew, and when that is given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.endpoint_pool import Endpoint, EndpointPool
from orchestrator.core.renewal import (
    MARGIN,
    RENEWAL,
    SPREAD,
    Dial,
    GiveUp,
    Renewal,
    RenewalOptions,
    RenewalSignal,
    RenewalState,
    Sleep,
)
from orchestrator.core.renewal_faults import FaultKind, ModelFaultReason, classify_close, classify_refusal
from orchestrator.errors import IllegalTransitionError, SettingsError

DOWN = ModelFaultReason(FaultKind.RETRY, "unreachable")
LOST = ModelFaultReason(FaultKind.RETRY, "connection_lost")
REFUSED = ModelFaultReason(FaultKind.FATAL, "invalid_api_key")
AGED = ModelFaultReason(FaultKind.AGED, "session_expired")


def renewal_of(*names: str, luck: float = 0.5, **options: float) -> Renewal:
    pool = EndpointPool([Endpoint(name, priority=index) for index, name in enumerate(names or ("a",))], lambda: 0.0)
    return Renewal(RenewalOptions(**options), pool, lambda: luck)


def live(renewal: Renewal, now: float = 0.0) -> None:
    renewal.begin(now, 1)
    step = renewal.next_step(now)
    assert isinstance(step, Dial)
    renewal.opened(step.endpoint, now)


def state_of(renewal: Renewal) -> RenewalState:
    """Return the state, of which the type checker then assumes nothing."""
    return renewal.state


def test_the_first_connection_tries_each_endpoint_once() -> None:
    renewal = renewal_of("a", "b")
    renewal.begin(0.0, 2)
    tried = []
    while isinstance(step := renewal.next_step(0.0), Dial):
        tried.append(step.endpoint)
        renewal.failed(step.endpoint, DOWN, 0.0)
    assert tried == ["a", "b"]
    assert step == GiveUp("unreachable")


def test_the_first_connection_of_a_conversation_that_goes_on_is_tried_as_long_as_one_that_was_lost() -> None:
    renewal = renewal_of("a", "b", timeout=30.0)
    renewal.begin_again(0.0)
    now, dials = 0.0, 0
    while not isinstance(step := renewal.next_step(now), GiveUp):
        if isinstance(step, Dial):
            dials += 1
            renewal.failed(step.endpoint, DOWN, now)
        else:
            now = step.until
    assert dials > 6
    # Until the next pause would end after the time that a lost one has.
    assert 20.0 < now <= 30.0
    assert step == GiveUp("unreachable")


def test_a_lost_connection_is_replaced_at_once_then_elsewhere_then_after_pauses_that_grow() -> None:
    renewal = renewal_of("a", "b", luck=1.0)
    live(renewal)
    renewal.lost(LOST, 100.0)
    assert renewal.state is RenewalState.RENEWING
    now = 100.0
    dials: list[tuple[str, float]] = []
    pauses: list[float] = []
    while len(dials) < 5:
        step = renewal.next_step(now)
        if isinstance(step, Dial):
            dials.append((step.endpoint, round(now - 100.0, 3)))
            renewal.failed(step.endpoint, DOWN, now)
        else:
            assert isinstance(step, Sleep)
            pauses.append(step.until - now)
            now = step.until
    assert dials[:4] == [("a", 0.0), ("b", 0.0), ("a", 0.2), ("b", 0.2)]
    assert pauses[1] > pauses[0]
    renewal.opened("a", now)
    assert state_of(renewal) is RenewalState.LIVE


def test_it_is_given_up_when_the_budget_is_used() -> None:
    renewal = renewal_of(timeout=30.0)
    live(renewal)
    renewal.lost(LOST, 100.0)
    now = 100.0
    while not isinstance(step := renewal.next_step(now), GiveUp):
        if isinstance(step, Dial):
            assert step.timeout <= 130.0 - now
            renewal.failed("a", DOWN, now)
        else:
            assert step.until > now
            now = step.until
    assert step.code == "unreachable"
    assert now <= 130.0
    renewal.gave_up()
    assert renewal.state is RenewalState.FAILED


def test_where_every_endpoint_refuses_for_good_no_time_is_lost() -> None:
    renewal = renewal_of("a", "b")
    live(renewal)
    renewal.lost(ModelFaultReason(FaultKind.FATAL, "insufficient_quota"), 1.0)
    step = renewal.next_step(1.0)
    assert isinstance(step, Dial)
    assert step.endpoint == "b"
    renewal.failed("b", REFUSED, 1.0)
    assert renewal.next_step(1.0) == GiveUp("invalid_api_key")


def test_connections_that_live_for_a_moment_are_one_outage() -> None:
    renewal = renewal_of(timeout=20.0)
    live(renewal)
    now, lives = 50.0, 0
    while True:
        renewal.lost(LOST, now)
        while isinstance(step := renewal.next_step(now), Sleep):
            now = step.until
        if isinstance(step, GiveUp):
            break
        lives += 1
        renewal.opened(step.endpoint, now)
        now += 0.01
    # It is not tried for ever, and not in a hurry.
    assert now <= 71.0
    assert 3 < lives < 20


def test_age_begins_anew_without_a_pause_however_often() -> None:
    renewal = renewal_of()
    live(renewal)
    for number in range(50):
        renewal.lost(AGED, number * 0.1)
        assert isinstance(renewal.next_step(number * 0.1), Dial)
        renewal.opened("a", number * 0.1)


@given(st.floats(0.0, 1.0))
def test_a_connection_is_replaced_in_time_and_not_all_at_once(luck: float) -> None:
    renewal = renewal_of(luck=luck)
    live(renewal, 1000.0)
    assert abs(renewal.due_at - 1000.0 - 3300.0) <= 3300.0 * SPREAD + 1e-6
    assert renewal.due_at < renewal.forced_at == pytest.approx(1000.0 + 3600.0 * (1 - MARGIN))


def test_the_next_connection_is_prepared_while_the_last_one_works() -> None:
    renewal = renewal_of()
    live(renewal)
    renewal.due()
    step = renewal.next_step(10.0)
    assert isinstance(step, Dial)
    renewal.spare_ready(step.endpoint)
    assert renewal.state is RenewalState.READY
    renewal.swapped(step.endpoint, 12.0)
    assert state_of(renewal) is RenewalState.LIVE
    assert renewal.due_at > 3000.0


def test_what_cannot_be_prepared_is_tried_again_and_harms_nobody() -> None:
    renewal = renewal_of()
    live(renewal)
    renewal.due()
    renewal.spare_failed(3300.0)
    assert renewal.state is RenewalState.LIVE
    assert 3300.0 < renewal.due_at < 3310.0


def test_the_table_is_kept_to() -> None:
    assert len({state for state, _ in RENEWAL}) == len(RenewalState)
    renewal = renewal_of()
    with pytest.raises(IllegalTransitionError):
        renewal.lost(LOST, 0.0)
    with pytest.raises(IllegalTransitionError):
        renewal.swapped("a", 0.0)
    assert renewal.state is RenewalState.NEW
    for state in RenewalState:
        assert RENEWAL[state, RenewalSignal.CLOSE] is RenewalState.CLOSED


def test_times_that_contradict_each_other_are_refused() -> None:
    for options in ({"timeout": 0.0}, {"renew_after": 3550.0}, {"max_age": 60.0}):
        with pytest.raises(SettingsError):
            RenewalOptions(**options)


@pytest.mark.parametrize(
    ("status", "body", "after", "kind", "code"),
    [
        (None, "", None, FaultKind.RETRY, "unreachable"),
        (401, "", None, FaultKind.FATAL, "invalid_api_key"),
        (403, "", None, FaultKind.FATAL, "forbidden"),
        (404, "", None, FaultKind.FATAL, "model_not_found"),
        (408, "", None, FaultKind.RETRY, "unavailable"),
        (429, "", 3.0, FaultKind.LIMITED, "rate_limited"),
        (429, '{"error":{"code":"insufficient_quota"}}', 3.0, FaultKind.FATAL, "insufficient_quota"),
        (500, "", None, FaultKind.RETRY, "unavailable"),
        (503, "", 3.0, FaultKind.LIMITED, "rate_limited"),
    ],
)
def test_refusals_are_read(status: int | None, body: str, after: float | None, kind: FaultKind, code: str) -> None:
    fault = classify_refusal(status, body, after)
    assert (fault.kind, fault.code) == (kind, code)


@pytest.mark.parametrize(
    ("close_code", "error", "kind"),
    [
        (3000, "invalid_api_key", FaultKind.FATAL),
        (3000, None, FaultKind.FATAL),
        (4000, "missing_model", FaultKind.FATAL),
        (4004, None, FaultKind.FATAL),
        (1001, "session_expired", FaultKind.AGED),
        (1001, None, FaultKind.AGED),
        (1006, None, FaultKind.RETRY),
        (1011, "server_error", FaultKind.RETRY),
        (1012, None, FaultKind.RETRY),
        (1013, None, FaultKind.LIMITED),
        (1000, "rate_limit_exceeded", FaultKind.LIMITED),
        (1000, None, FaultKind.RETRY),
    ],
)
def test_ends_are_read(close_code: int, error: str | None, kind: FaultKind) -> None:
    assert classify_close(close_code, error).kind is kind
