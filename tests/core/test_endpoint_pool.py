"""Which endpoint is chosen, and how long one is left alone."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.endpoint_pool import (
    CIRCUIT,
    FAILURES_TO_OPEN,
    JITTER,
    OPEN_LONGEST,
    REFUSED_SECONDS,
    CircuitState,
    Endpoint,
    EndpointPool,
    NoEndpoint,
    UseEndpoint,
    Wait,
)
from orchestrator.core.renewal_faults import FaultKind, ModelFaultReason
from orchestrator.errors import SettingsError

DOWN = ModelFaultReason(FaultKind.RETRY, "unreachable")
REFUSED = ModelFaultReason(FaultKind.FATAL, "invalid_api_key")
AGED = ModelFaultReason(FaultKind.AGED, "session_expired")


def pool_of(*endpoints: Endpoint) -> EndpointPool:
    return EndpointPool(endpoints or (Endpoint("a"),), lambda: 0.0)


def chosen(pool: EndpointPool, now: float = 0.0, **options: object) -> str:
    choice = pool.choose(now, **options)  # type: ignore[arg-type]
    assert isinstance(choice, UseEndpoint)
    return choice.name


def break_(pool: EndpointPool, now: float, name: str = "a") -> None:
    for _ in range(FAILURES_TO_OPEN):
        assert chosen(pool, now) == name
        pool.failed(name, DOWN, now)


def test_a_pool_needs_endpoints_with_names_of_their_own() -> None:
    for endpoints in ((), (Endpoint("a"), Endpoint("a"))):
        with pytest.raises(SettingsError):
            EndpointPool(endpoints, lambda: 0.0)


def test_sessions_are_spread_by_weight_among_those_of_the_first_priority() -> None:
    pool = pool_of(Endpoint("a", weight=3.0), Endpoint("b"), Endpoint("c", priority=1))
    names = [chosen(pool) for _ in range(8)]
    assert (names.count("a"), names.count("b")) == (6, 2)
    assert chosen(pool, without={"a", "b"}) == "c"


def test_a_full_endpoint_is_passed_over_but_for_who_is_there_already() -> None:
    pool = pool_of(Endpoint("a", max_sessions=1), Endpoint("b", priority=1, max_sessions=1))
    assert [chosen(pool), chosen(pool)] == ["a", "b"]
    choice = pool.choose(0.0)
    assert isinstance(choice, Wait)
    assert (choice.until > 0.0, choice.reason) == (True, "all_seats_taken")
    assert chosen(pool, own="a") == "a"
    pool.released("a")
    pool.released("b")
    assert chosen(pool) == "b"


def test_a_circuit_opens_for_a_growing_time_and_one_probe_decides() -> None:
    states: list[CircuitState] = []
    pool = EndpointPool([Endpoint("a")], lambda: 0.0, lambda _, state: states.append(state))
    break_(pool, 0.0)
    assert pool.choose(0.5) == Wait(1.0, "unreachable")
    assert chosen(pool, 1.0) == "a"
    # Nobody else tries meanwhile.
    assert isinstance(pool.choose(1.0), Wait)
    pool.failed("a", DOWN, 1.0)
    assert pool.choose(1.5) == Wait(3.0, "unreachable")
    assert chosen(pool, 3.0) == "a"
    pool.connected("a")
    assert chosen(pool, 3.0) == "a"
    assert states == [
        CircuitState.CLOSED,
        CircuitState.OPEN,
        CircuitState.HALF_OPEN,
        CircuitState.OPEN,
        CircuitState.HALF_OPEN,
        CircuitState.CLOSED,
    ]
    # After a success it begins with a short time again.
    pool.released("a")
    break_(pool, 10.0)
    assert pool.choose(10.0) == Wait(11.0, "unreachable")


def test_a_probe_that_is_given_up_leaves_the_next_try_to_another() -> None:
    pool = pool_of()
    break_(pool, 0.0)
    assert chosen(pool, 1.0) == "a"
    pool.abandoned("a", 1.0)
    assert pool.sessions("a") == 0
    assert chosen(pool, 1.0) == "a"


def test_a_rate_limit_is_kept_to_and_is_no_failure() -> None:
    pool = pool_of()
    assert chosen(pool) == "a"
    pool.failed("a", ModelFaultReason(FaultKind.LIMITED, "rate_limited", 7.0), 0.0)
    assert pool.choose(0.0) == Wait(7.0, "rate_limited")
    assert pool.state("a") is CircuitState.CLOSED
    assert chosen(pool, 7.0) == "a"


def test_one_that_refuses_for_good_is_left_alone_for_long_and_by_the_refused_for_ever() -> None:
    pool = pool_of()
    assert chosen(pool) == "a"
    pool.failed("a", REFUSED, 0.0)
    assert pool.choose(0.0, refused={"a"}) == NoEndpoint()
    assert pool.choose(0.0) == Wait(REFUSED_SECONDS, "invalid_api_key")
    assert chosen(pool, REFUSED_SECONDS) == "a"


def test_age_is_no_fault() -> None:
    pool = pool_of()
    assert chosen(pool) == "a"
    for _ in range(10):
        pool.reported("a", AGED, 0.0)
    assert pool.state("a") is CircuitState.CLOSED
    assert isinstance(pool.choose(0.0), UseEndpoint)


def test_every_pair_of_the_circuit_that_can_come_is_listed() -> None:
    listed = set(CIRCUIT)
    assert {state for state, _ in listed} == set(CircuitState)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["choose", "connected", "failed", "limited", "refused", "aged", "released", "abandoned"]),
        st.floats(0.0, 30.0),
        st.integers(0, 5),
    ),
    max_size=80,
)


@given(EVENTS, st.floats(0.0, 1.0))
def test_seats_are_counted_right_and_no_endpoint_is_shut_for_ever(events: list[tuple[str, float, int]], luck: float) -> None:
    endpoints = [Endpoint("a", max_sessions=2), Endpoint("b", weight=2.0), Endpoint("c", priority=1, max_sessions=1)]
    pool = EndpointPool(endpoints, lambda: luck)
    now = 0.0
    dialling: list[str] = []
    connected: list[str] = []
    faults = {"failed": DOWN, "limited": ModelFaultReason(FaultKind.LIMITED, "x", 5.0), "refused": REFUSED, "aged": AGED}
    for event, wait, which in events:
        now += wait
        if event == "choose":
            choice = pool.choose(now)
            if isinstance(choice, UseEndpoint):
                dialling.append(choice.name)
            else:
                assert isinstance(choice, Wait)
                assert choice.until >= now
        elif event == "released" and connected:
            pool.released(connected.pop(which % len(connected)))
        elif event == "connected" and dialling:
            connected.append(dialling.pop(which % len(dialling)))
            pool.connected(connected[-1])
        elif event == "abandoned" and dialling:
            pool.abandoned(dialling.pop(which % len(dialling)), now)
        elif event in faults and dialling:
            pool.failed(dialling.pop(which % len(dialling)), faults[event], now)
        seats = [pool.sessions(endpoint.name) for endpoint in endpoints]
        assert seats == [(dialling + connected).count(endpoint.name) for endpoint in endpoints]
        for endpoint, taken in zip(endpoints, seats, strict=True):
            assert endpoint.max_sessions is None or taken <= endpoint.max_sessions
    for name in itertools.chain(dialling):
        pool.abandoned(name, now)
    for name in connected:
        pool.released(name)
    assert isinstance(pool.choose(now + max(REFUSED_SECONDS, OPEN_LONGEST) * (1 + JITTER)), UseEndpoint)
