"""Which fault happens to whom and when: the selectors, the moments, the windows, the draws. No clock but a number."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from orchestrator.errors import UserError
from orchestrator.simulator.endpoint.fault_effects import (
    Cut,
    Effect,
    End,
    FailResponse,
    Hold,
    Refusing,
    Release,
    Report,
    Shut,
    Visitor,
    Waiting,
)
from orchestrator.simulator.endpoint.fault_plan import MOST_FAULTS, FaultPlan
from orchestrator.simulator.endpoint.fault_session import SessionFaults
from orchestrator.simulator.endpoint.fault_types import (
    AnyFault,
    Delay,
    Drop,
    ErrorFault,
    Expire,
    Fail,
    Lognormal,
    Refuse,
    RegionDown,
    Spread,
    Stall,
    TranscriptionFault,
)

CREATED = b'{"type":"session.created","event_id":"event_1"}'
RESPONSE = b'{"type":"response.created","event_id":"event_2"}'
DELTA = b'{"type":"response.output_audio.delta","event_id":"event_3"}'
OTHER = b'{"type":"rate_limits.updated","event_id":"event_4"}'
WORDS = b'{"type":"conversation.item.input_audio_transcription.delta","event_id":"event_5"}'
TRANSCRIBED = b'{"type":"conversation.item.input_audio_transcription.completed","event_id":"event_6"}'


def plan_of(*faults: AnyFault, seed: int | None = 1) -> FaultPlan:
    plan = FaultPlan(seed)
    for fault in faults:
        plan.add(fault, 0.0)
    return plan


def joined(
    plan: FaultPlan, number: int = 1, *, model: str = "gpt-realtime", key: str = "sk-a", now: float = 0.0
) -> SessionFaults:
    return plan.join(Visitor(number, model, key), now)


def send(session: SessionFaults, frames: Iterable[bytes], now: float = 0.0) -> list[list[Effect]]:
    return [session.sent(frame, now) for frame in frames]


def fired(plan: FaultPlan) -> list[int]:
    return [report.fired for report in plan.reports(0.0)]


# --- Moments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "happens"),
    [
        (Drop(at="session_created"), [1, 0, 0, 0, 0, 0]),
        (Drop(at="nth_response"), [0, 1, 0, 0, 0, 0]),
        (Drop(at="nth_audio_delta"), [0, 0, 1, 0, 0, 0]),
        (Drop(at="nth_audio_delta", n=2), [0, 0, 0, 1, 0, 0]),
        (Drop(at="nth_audio_delta", n="each"), [0, 0, 1, 1, 0, 1]),
        (Drop(at="nth_event", n=5), [0, 0, 0, 0, 1, 0]),
        (Drop(at="nth_event", n="each", times=2), [1, 1, 0, 0, 0, 0]),
        (Drop(at="nth_second"), [0, 0, 0, 0, 0, 0]),
        (Drop(at="now"), [0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_fault_happens_right_after_what_it_waits_for(fault: Drop, happens: list[int]) -> None:
    session = joined(plan_of(fault))
    effects = send(session, [CREATED, RESPONSE, DELTA, DELTA, OTHER, DELTA])
    assert [len(found) for found in effects] == happens


@pytest.mark.parametrize(
    ("fault", "effect"),
    [
        (Drop(at="nth_event"), Cut()),
        (Drop(at="nth_event", code=1012, reason="restart"), Shut(1012, "restart")),
        (Stall(at="nth_event"), Hold("fault_1", sending=True, receiving=True)),
        (Stall(at="nth_event", direction="send"), Hold("fault_1", sending=True, receiving=False)),
        (Stall(at="nth_event", direction="receive"), Hold("fault_1", sending=False, receiving=True)),
        (Fail(code="rate_limit_exceeded", message="m"), FailResponse("server_error", "rate_limit_exceeded", "m")),
        (ErrorFault(code=None, message="m"), Report("server_error", None, "m")),
        (Expire(at="nth_event"), End()),
    ],
)
def test_each_kind_has_its_effect(fault: AnyFault, effect: Effect) -> None:
    assert joined(plan_of(fault)).sent(RESPONSE, 0.0) == [effect]


def test_now_happens_once_to_the_sessions_that_there_are() -> None:
    plan = FaultPlan()
    here = joined(plan)
    plan.add(Drop(), 5.0)
    assert plan.advance(5.0) == [(here, Cut())]
    assert plan.advance(6.0) == []
    assert send(joined(plan, 2, now=6.0), [CREATED, RESPONSE]) == [[], []]
    assert fired(plan) == [1]


def test_now_may_be_later() -> None:
    plan = plan_of(Drop(after_seconds=10))
    assert plan.due == 10
    late = joined(plan, now=3.0)
    assert plan.advance(9.0) == []
    assert plan.advance(10.0) == [(late, Cut())]
    assert plan.due is None


def test_a_second_is_counted_from_when_the_session_began() -> None:
    plan = plan_of(Expire(at="nth_second", n=20))
    session = joined(plan, now=100.0)
    assert session.due == 120
    assert session.advance(119.0) == []
    assert session.advance(120.5) == [End()]
    assert session.due is None


def test_each_second_catches_up_after_a_late_timer() -> None:
    session = joined(plan_of(ErrorFault(at="nth_second", n="each", times=3)))
    assert [len(session.advance(now)) for now in (1.0, 3.2, 9.0)] == [1, 2, 0]
    assert session.due is None


def test_a_second_beyond_the_end_of_the_fault_never_comes() -> None:
    assert joined(plan_of(Expire(at="nth_second", n=20, for_seconds=10))).due is None


def test_what_was_sent_before_a_fault_was_added_does_not_count() -> None:
    plan = FaultPlan()
    session = joined(plan)
    send(session, [RESPONSE, RESPONSE])
    plan.add(Fail(n=1), 1.0)
    assert session.sent(RESPONSE, 1.0) == [FailResponse("server_error", "server_error", Fail().message)]


# --- Windows ----------------------------------------------------------------------------------------------------------


def test_a_fault_happens_in_its_time_only() -> None:
    session = joined(plan_of(Drop(at="nth_response", n="each", after_seconds=5, for_seconds=10)))
    assert [len(session.sent(RESPONSE, now)) for now in (4.9, 5.0, 14.9, 15.0)] == [0, 1, 1, 0]


def test_counting_begins_with_the_time_of_the_fault() -> None:
    session = joined(plan_of(Drop(at="nth_response", n=2, after_seconds=5)))
    assert [len(session.sent(RESPONSE, now)) for now in (1.0, 2.0, 6.0, 7.0)] == [0, 0, 0, 1]


def test_a_stall_ends_after_its_seconds() -> None:
    session = joined(plan_of(Stall(at="session_created", seconds=2)))
    session.sent(CREATED, 1.0)
    assert session.due == 3.0
    assert session.advance(3.0) == [Release("fault_1")]
    assert session.due is None


def test_a_stall_for_ever_ends_with_the_time_of_its_fault() -> None:
    session = joined(plan_of(Stall(at="session_created", for_seconds=7)))
    session.sent(CREATED, 1.0)
    assert session.due == 7.0
    assert session.advance(7.0) == [Release("fault_1")]


def test_a_stall_for_ever_ends_when_its_fault_is_removed() -> None:
    plan = plan_of(Stall(at="session_created"))
    session = joined(plan)
    session.sent(CREATED, 1.0)
    assert session.due is None
    assert plan.remove("fault_1") == [(session, Release("fault_1"))]
    assert plan.remove("fault_1") is None


def test_a_fault_that_is_removed_happens_no_more() -> None:
    plan = plan_of(Drop(at="nth_response"))
    session = joined(plan)
    assert plan.remove("fault_1") == []
    assert session.sent(RESPONSE, 0.0) == []
    assert session.idle


# --- Whom -------------------------------------------------------------------------------------------------------------


def test_a_model_or_a_key_can_be_picked() -> None:
    plan = plan_of(Drop(at="session_created", model="gpt-realtime-2"), Drop(at="session_created", key="sk-b"))
    assert send(joined(plan, 1), [CREATED]) == [[]]
    assert send(joined(plan, 2, model="gpt-realtime-2"), [CREATED]) == [[Cut()]]
    assert send(joined(plan, 3, key="sk-b"), [CREATED]) == [[Cut()]]
    assert fired(plan) == [1, 1]


def test_the_nth_session_is_counted_among_those_concerned() -> None:
    plan = plan_of(Drop(at="session_created", key="sk-b", nth_session=2))
    hit = [
        bool(joined(plan, number, key=key).sent(CREATED, 0.0)) for number, key in enumerate("abab", 1) for key in [f"sk-{key}"]
    ]
    assert hit == [False, False, False, True]


def test_the_nth_session_is_one_to_come() -> None:
    plan = FaultPlan()
    here = joined(plan)
    plan.add(Drop(at="nth_event", nth_session=1), 1.0)
    assert here.sent(OTHER, 1.0) == []
    assert joined(plan, 2).sent(OTHER, 1.0) == [Cut()]


def test_times_are_counted_over_all_sessions() -> None:
    plan = plan_of(Drop(at="session_created", times=2))
    assert [bool(joined(plan, number).sent(CREATED, 0.0)) for number in range(1, 5)] == [True, True, False, False]
    (report,) = plan.reports(0.0)
    assert (report.fired, report.active) == (2, False)


def test_an_ended_session_is_forgotten() -> None:
    plan = FaultPlan()
    session = joined(plan)
    plan.leave(session)
    plan.add(Drop(), 1.0)
    assert plan.advance(1.0) == []


# --- Chance -----------------------------------------------------------------------------------------------------------


def outcomes(seed: int | None, order: Iterable[int]) -> dict[int, list[bool]]:
    plan = plan_of(Fail(n="each", probability=0.3), seed=seed)
    sessions = {number: joined(plan, number) for number in order}
    return {number: [bool(session.sent(RESPONSE, 0.0)) for _ in range(50)] for number, session in sessions.items()}


def test_a_probability_is_about_right() -> None:
    hits = [hit for run in outcomes(1, range(1, 41)).values() for hit in run]
    assert sum(hits) / len(hits) == pytest.approx(0.3, abs=0.04)


def test_draws_repeat_under_a_seed_in_whatever_order_sessions_come() -> None:
    assert outcomes(7, [1, 2, 3]) == outcomes(7, [3, 1, 2])
    assert outcomes(7, [1]) != outcomes(8, [1])
    assert outcomes(7, [1, 2])[1] != outcomes(7, [1, 2])[2]


# --- Connections ------------------------------------------------------------------------------------------------------


def test_a_refusal_says_how_and_how_often() -> None:
    plan = plan_of(Refuse(status=429, retry_after=3, times=1), Refuse(key="sk-b"))
    assert plan.connect(Visitor(1, "m", "sk-a"), 0.0) == Refusing(429, 3)
    assert plan.connect(Visitor(2, "m", "sk-a"), 0.0) is None
    assert plan.connect(Visitor(3, "m", "sk-b"), 0.0) == Refusing(None, None)
    assert fired(plan) == [1, 1]


def test_the_nth_socket_is_counted_whatever_else_refuses_it() -> None:
    plan = plan_of(Refuse(status=500, nth_session=1), Refuse(status=503, nth_session=2))
    found = [plan.connect(Visitor(number), 0.0) for number in (1, 2, 3)]
    assert found == [Refusing(500, None), Refusing(503, None), None]


def test_an_upgrade_may_have_to_wait() -> None:
    plan = plan_of(Stall(at="connect", seconds=4, times=1), Stall(at="connect", for_seconds=30))
    assert plan.connect(Visitor(1), 1.0) == Waiting("fault_1", 5.0)
    assert plan.connect(Visitor(2), 1.0) == Waiting("fault_2", 30.0)
    assert joined(plan).idle


def test_a_region_that_is_down_drops_refuses_and_comes_back() -> None:
    plan = plan_of(RegionDown(after_seconds=10, for_seconds=5))
    session = joined(plan)
    assert plan.connect(Visitor(2), 9.0) is None
    assert plan.request("sk-a", 9.0) is None
    assert plan.advance(10.0) == [(session, Cut())]
    assert plan.connect(Visitor(3), 12.0) == Refusing(None, None)
    assert plan.request("sk-a", 12.0) == Refusing(None, None)
    assert plan.connect(Visitor(4), 15.0) is None
    assert plan.request("sk-a", 15.0) is None


def test_a_refusal_of_sockets_refuses_no_other_request() -> None:
    assert plan_of(Refuse(status=503)).request("sk-a", 0.0) is None


# --- What lasts -------------------------------------------------------------------------------------------------------


def test_without_faults_a_session_is_idle_and_nothing_is_late() -> None:
    session = joined(FaultPlan())
    assert session.idle
    assert (session.delay(0.0), session.lag(TRANSCRIBED, 0.0), session.copies(TRANSCRIBED, 0.0)) == (0.0, 0.0, 1)


def test_delays_add_up_in_their_time() -> None:
    session = joined(plan_of(Delay(seconds=0.2), Delay(seconds=0.1, for_seconds=5)))
    assert session.delay(1.0) == pytest.approx(0.3)
    assert session.delay(6.0) == pytest.approx(0.2)


def test_a_delay_is_drawn_anew_for_each_frame_and_repeats_under_a_seed() -> None:
    fault = Delay(seconds=Spread(lognormal=Lognormal(0.1, 1.0)))
    first, second = ([session.delay(0.0) for _ in range(20)] for session in (joined(plan_of(fault)), joined(plan_of(fault))))
    assert first == second
    assert len(set(first)) == 20


def test_whether_a_session_is_delayed_is_decided_once() -> None:
    plan = plan_of(Delay(seconds=1.0, probability=0.5))
    late = [{session.delay(0.0) for _ in range(10)} for session in (joined(plan, number) for number in range(1, 41))]
    assert all(len(delays) == 1 for delays in late)
    assert 8 < sum(delays == {1.0} for delays in late) < 32
    assert fired(plan) == [sum(delays == {1.0} for delays in late)]


def test_a_transcription_lags_and_repeats() -> None:
    session = joined(plan_of(TranscriptionFault(seconds=1.5, copies=2)))
    assert (session.lag(WORDS, 0.0), session.copies(WORDS, 0.0)) == (1.5, 1)
    assert (session.lag(TRANSCRIBED, 0.0), session.copies(TRANSCRIBED, 0.0)) == (1.5, 2)
    assert (session.lag(DELTA, 0.0), session.copies(DELTA, 0.0)) == (0.0, 1)


# --- The list ---------------------------------------------------------------------------------------------------------


def test_the_list_shows_what_there_is_without_keys() -> None:
    plan = plan_of(Drop(key="sk-secret"), Refuse(status=500, after_seconds=9))
    reports = plan.reports(0.0)
    assert [(report.id, report.active) for report in reports] == [("fault_1", True), ("fault_2", False)]
    assert reports[0].fault.key == "***"
    assert "fault_2" in plan
    assert "fault_3" not in plan


def test_there_is_a_limit() -> None:
    plan = plan_of(*[Drop(at="nth_event")] * MOST_FAULTS)
    with pytest.raises(UserError, match="remove some"):
        plan.add(Drop(), 0.0)
