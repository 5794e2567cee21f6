"""What becomes of a node's sessions when their actors die, stand still, refuse or leave."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.errors import EndReason
from orchestrator.gateway.recovery import Recovery, Stage, is_elsewhere
from orchestrator.gateway.recovery_commands import (
    Claim,
    EndCaller,
    Forget,
    Hold,
    Kill,
    Offer,
    RecoveryCommand,
    RecoveryLimits,
    Release,
)

LIMITS = RecoveryLimits(
    recover_within=20.0, offer_within=5.0, release_within=4.0, relink_within=1.0, retry_after=0.5, crashes=3, crash_window=60.0
)
BUSY = EndReason("no_seat")


def machine(*actors: str, seats: int = 4) -> Recovery:
    recovery = Recovery(LIMITS)
    for pid, actor_id in enumerate(actors, 1):
        assert recovery.hello(actor_id, pid, seats, (), 0.0) == []
    return recovery


def give(recovery: Recovery, actor_id: str, *sessions: str, hold: Hold = Hold.SOCKET) -> None:
    for session_id in sessions:
        recovery.given(session_id, actor_id, hold, 0.0)
        recovery.up(session_id, actor_id)


def die(recovery: Recovery, actor_id: str, pid: int, now: float) -> list[RecoveryCommand]:
    return [*recovery.gone(actor_id, pid, now), *recovery.link_lost(actor_id, pid, now)]


def offer(session_id: str, actor_id: str, cause: str = "actor_died", *, begun: bool = True, durable: bool = False) -> Offer:
    return Offer(session_id, actor_id, cause, begun, durable)


def ends(commands: Sequence[RecoveryCommand]) -> list[tuple[str, str, bool]]:
    return [(one.session_id, one.reason.code, one.final) for one in commands if isinstance(one, EndCaller)]


@pytest.mark.parametrize("order", ["link_first", "death_first"])
def test_a_session_goes_on_when_its_owner_is_dead_and_has_been_heard_out(order: str) -> None:
    recovery = machine("a", "b")
    give(recovery, "a", "s")
    first, second = recovery.link_lost, recovery.gone
    if order == "death_first":
        first, second = second, first
    assert first("a", 1, 1.0) == []
    assert recovery.stage("s") is Stage.OWNED
    assert second("a", 1, 1.1) == [offer("s", "b")]
    assert recovery.stage("s") is Stage.OFFERED
    assert recovery.recovered("s", "b", 2, 1.2) == []
    assert (recovery.stage("s"), recovery.owner("s"), recovery.epoch("s")) == (Stage.OWNED, "b", 2)
    assert recovery.due is None


def test_the_sessions_of_a_full_actor_are_spread_over_all_free_seats() -> None:
    recovery = machine("a", "b", "c", "d", seats=32)
    give(recovery, "a", *(f"s{number}" for number in range(30)))
    give(recovery, "b", "t")
    offers = [one.actor_id for one in die(recovery, "a", 1, 1.0) if isinstance(one, Offer)]
    # An empty actor comes first, and in the end all have the same.
    assert offers[:2] == ["c", "d"]
    assert {name: offers.count(name) for name in "bcd"} == {"b": 9, "c": 10, "d": 11} or sorted(
        offers.count(name) for name in "cd"
    ) in ([10, 10], [10, 11])
    assert recovery.load("b") + recovery.load("c") + recovery.load("d") == 31


def test_a_session_waits_for_a_seat_and_then_for_nobody() -> None:
    recovery = machine("a")
    give(recovery, "a", "s")
    assert die(recovery, "a", 1, 1.0) == []
    assert recovery.due == 21.0
    assert recovery.hello("b", 2, 1, (), 5.0) == [offer("s", "b")]
    recovery = machine("a")
    give(recovery, "a", "s")
    die(recovery, "a", 1, 1.0)
    assert recovery.tick(20.9) == []
    commands = recovery.tick(21.0)
    assert ends(commands) == [("s", "recovery_failed", False)]
    assert commands[-1] == Forget("s")
    assert len(recovery) == 0
    assert recovery.due is None


def test_a_seat_that_becomes_free_is_taken() -> None:
    recovery = machine("a", "b", seats=1)
    give(recovery, "a", "s")
    give(recovery, "b", "t")
    assert die(recovery, "a", 1, 1.0) == []
    assert recovery.ended("t", "b", 2.0) == [Forget("t"), offer("s", "b")]
    # The end of a session that is not the speaker's is nothing.
    assert recovery.ended("s", "a", 2.0) == []


def test_an_actor_that_refuses_is_asked_again_later_only() -> None:
    recovery = machine("a", "b", "c")
    give(recovery, "a", "s")
    assert die(recovery, "a", 1, 1.0) == [offer("s", "b")]
    assert recovery.refused("s", "b", BUSY, 1.0) == [offer("s", "c")]
    assert recovery.refused("s", "c", BUSY, 1.1) == []
    assert recovery.due == 1.5
    assert recovery.tick(1.5) == [offer("s", "b")]


@pytest.mark.parametrize("code", ["not_the_owner", "session_ended", "session_not_found"])
def test_what_every_actor_would_refuse_is_over_here(code: str) -> None:
    recovery = machine("a", "b", "c")
    give(recovery, "a", "s")
    die(recovery, "a", 1, 1.0)
    commands = recovery.refused("s", "b", EndReason(code), 1.0)
    assert ends(commands) == [("s", code, False)]
    assert recovery.stage("s") is None


def test_an_actor_that_is_slow_to_accept_is_asked_to_let_go_then_killed() -> None:
    recovery = machine("a", "b", "c")
    give(recovery, "a", "s")
    die(recovery, "a", 1, 1.0)
    assert recovery.due == 6.0
    assert recovery.tick(6.0) == [Release("b", "s")]
    assert recovery.stage("s") is Stage.RELEASING
    assert recovery.due == 10.0
    assert recovery.tick(10.0) == [Kill("b", 2)]
    # Until it is dead nobody else gets it.
    assert recovery.tick(10.4) == []
    assert recovery.tick(10.5) == [Kill("b", 2)]
    assert die(recovery, "b", 2, 10.6) == [offer("s", "c")]


def test_an_actor_that_lets_go_of_an_offer_lives_on() -> None:
    recovery = machine("a", "b", "c")
    give(recovery, "a", "s")
    die(recovery, "a", 1, 1.0)
    recovery.tick(6.0)
    assert recovery.released("s", "b", 6.1) == [offer("s", "c")]
    # What comes too late counts for nothing.
    assert recovery.recovered("s", "b", 2, 6.2) == [Release("b", "s")]
    assert recovery.owner("s") == "c"


def test_a_frozen_owner_is_dead_before_anybody_has_its_sessions() -> None:
    recovery = machine("a", "b")
    give(recovery, "a", "s")
    assert recovery.frozen("a", 1.0) == [Kill("a", 1)]
    assert recovery.stage("s") is Stage.OWNED
    # It woke up meanwhile, linked again and claims it: it dies all the same.
    assert recovery.hello("a", 1, 4, (Claim("s", 1, Hold.SOCKET),), 1.2) == []
    assert recovery.gone("a", 1, 1.3) == []
    assert recovery.link_lost("a", 1, 1.4) == [offer("s", "b")]
    assert recovery.frozen("nobody", 2.0) == []


def test_a_suspect_gets_nothing_until_it_is_trusted_again() -> None:
    recovery = machine("a", "b")
    give(recovery, "a", "s")
    recovery.suspect("b", suspected=True, now=0.5)
    assert die(recovery, "a", 1, 1.0) == []
    assert recovery.suspect("b", suspected=False, now=2.0) == [offer("s", "b")]
    assert recovery.suspect("nobody", suspected=True, now=2.0) == []


def test_a_link_that_broke_is_made_sure_of_unless_it_comes_back() -> None:
    recovery = machine("a", "b")
    give(recovery, "a", "s")
    assert recovery.link_lost("a", 1, 1.0) == []
    assert recovery.due == 2.0
    assert recovery.hello("a", 1, 4, (Claim("s", 1, Hold.SOCKET),), 1.5) == []
    assert recovery.due is None
    recovery.link_lost("a", 1, 3.0)
    assert recovery.tick(4.0) == [Kill("a", 1)]
    assert recovery.gone("a", 1, 4.1) == [offer("s", "b")]


def test_what_the_same_process_no_longer_holds_is_offered_when_its_journal_had_time_to_arrive() -> None:
    recovery = machine("a", "b")
    give(recovery, "a", "s", "t")
    recovery.link_lost("a", 1, 1.0)
    assert recovery.hello("a", 1, 4, (Claim("t", 1, Hold.SOCKET),), 1.1) == []
    assert recovery.stage("s") is Stage.ORPHANED
    assert recovery.due == 2.1
    assert recovery.tick(2.1) == [offer("s", "b", "not_held")]


def test_another_process_of_the_same_name_is_not_the_owner() -> None:
    recovery = machine("a")
    give(recovery, "a", "s")
    assert recovery.hello("a", 9, 4, (), 1.0) == []
    # What the old one had sent is still being read.
    assert recovery.stage("s") is Stage.OWNED
    assert recovery.ended("s", "a", 1.0) == [Forget("s")]
    give(recovery, "a", "t")
    assert recovery.link_lost("a", 1, 1.1) == []
    assert recovery.owner("t") == "a"
    assert recovery.gone("a", 1, 1.2) == []


def test_a_new_gateway_learns_from_its_actors() -> None:
    recovery = Recovery(LIMITS)
    assert recovery.hello("a", 1, 4, (Claim("s", 3, Hold.SOCKET), Claim("t", 1, Hold.NOTHING)), 0.0) == []
    assert recovery.sessions() == ("s", "t")
    assert (recovery.owner("s"), recovery.epoch("s"), recovery.hold("t")) == ("a", 3, Hold.NOTHING)
    # Whoever claims an older epoch is told to drop it; a newer one is right.
    assert recovery.hello("b", 2, 4, (Claim("s", 2, Hold.SOCKET),), 0.1) == [Release("b", "s")]
    assert recovery.hello("c", 3, 4, (Claim("s", 3, Hold.SOCKET),), 0.1) == [Release("c", "s")]
    assert recovery.hello("d", 4, 4, (Claim("s", 4, Hold.SOCKET),), 0.2) == [Release("a", "s")]
    assert (recovery.owner("s"), recovery.epoch("s")) == ("d", 4)


def test_an_orphan_whose_owner_turns_up_is_its_own() -> None:
    recovery = machine("a")
    give(recovery, "a", "s")
    recovery.link_lost("a", 1, 1.0)
    recovery.hello("a", 1, 4, (), 1.1)
    assert recovery.hello("b", 2, 4, (Claim("s", 1, Hold.SOCKET),), 1.2) == []
    assert (recovery.owner("s"), recovery.stage("s"), recovery.due) == ("b", Stage.OWNED, None)


def test_what_was_taken_by_the_journal_is_not_given_back_to_an_owner_of_old() -> None:
    recovery = machine("a", seats=1)
    assert recovery.take("s", Hold.SOCKET, 2, "resumed", 1.0) == [offer("s", "a", "resumed", durable=True)]
    assert recovery.hello("b", 2, 4, (Claim("s", 2, Hold.SOCKET),), 1.1) == [Release("b", "s")]
    # What it says of the session before it has let go is of old, and it is not offered it until then.
    assert recovery.hold_changed("s", "b", Hold.NOTHING, 1.2) == []
    assert recovery.refused("s", "a", BUSY, 1.3) == []
    assert recovery.released("s", "b", 1.4) == [offer("s", "b", "resumed", durable=True)]


def test_a_session_whose_caller_is_away_waits_in_the_journal() -> None:
    recovery = machine("a", "b")
    give(recovery, "a", "s")
    assert recovery.hold_changed("s", "a", Hold.NOTHING, 0.5) == []
    assert die(recovery, "a", 1, 1.0) == [Forget("s")]
    recovery = machine("a")
    give(recovery, "a", "s")
    die(recovery, "a", 1, 1.0)
    # The duplicate shows that the caller has gone meanwhile.
    assert recovery.set_hold("s", Hold.NOTHING, 2.0) == [Forget("s")]
    assert recovery.set_hold("s", Hold.NOTHING, 2.0) == []


def test_a_call_at_the_provider_goes_on_without_anything_held() -> None:
    recovery = machine("a", "b")
    give(recovery, "a", "s", hold=Hold.OUTSIDE)
    assert die(recovery, "a", 1, 1.0) == [offer("s", "b")]


def test_a_caller_that_was_not_answered_is_answered_by_the_next_actor() -> None:
    recovery = machine("a", "b")
    recovery.given("s", "a", Hold.SOCKET, 0.0)
    assert die(recovery, "a", 1, 1.0) == [offer("s", "b", begun=False)]
    recovery.up("s", "b")
    assert (recovery.stage("s"), recovery.epoch("s")) == (Stage.OWNED, 1)


def test_a_call_that_kills_its_owners_is_ended_before_it_has_taken_them_all() -> None:
    recovery = machine("a", "b", "c", "d")
    give(recovery, "a", "s")
    assert die(recovery, "a", 1, 1.0) == [offer("s", "b")]
    recovery.recovered("s", "b", 2, 1.1)
    assert die(recovery, "b", 2, 2.0) == [offer("s", "c")]
    commands = die(recovery, "c", 3, 3.0)
    assert ends(commands) == [("s", "recovery_failed", True)]
    # Over a long time it may lose as many.
    give(recovery, "d", "t")
    for now, name, pid in ((100.0, "d", 4), (200.0, "e", 5), (300.0, "f", 6), (400.0, "g", 7)):
        recovery.hello(chr(ord(name) + 1), pid + 1, 4, (), now - 1.0)
        assert [type(one) for one in die(recovery, name, pid, now)] == [Offer]


def test_sessions_are_moved_off_an_actor_as_far_as_there_are_seats() -> None:
    recovery = machine("a", "b", seats=2)
    give(recovery, "a", "s", "t")
    give(recovery, "b", "u")
    recovery.given("v", "a", Hold.SOCKET, 0.0)
    assert recovery.hand_over("a", 1.0) == [Release("a", "s")]
    assert recovery.hand_over("a", 1.0) == []
    assert recovery.released("s", "a", 1.1) == [offer("s", "b", "handed_over")]
    recovery.recovered("s", "b", 2, 1.2)
    # A seat becomes free; one whose caller is being answered stays for that moment.
    assert recovery.ended("u", "b", 1.3) == [Forget("u"), Release("a", "t")]
    recovery.released("t", "a", 1.4)
    recovery.recovered("t", "b", 2, 1.5)
    assert recovery.load("a") == 1
    assert recovery.hand_over("nobody", 2.0) == []


def test_one_that_is_to_be_replaced_is_better_than_none() -> None:
    recovery = machine("a", "b", seats=1)
    give(recovery, "a", "s")
    recovery.hand_over("b", 0.5)
    assert die(recovery, "a", 1, 1.0) == [offer("s", "b")]


def test_one_that_does_not_let_go_is_killed() -> None:
    recovery = machine("a", "b")
    give(recovery, "a", "s")
    recovery.hand_over("a", 1.0)
    assert recovery.due == 5.0
    assert recovery.tick(5.0) == [Kill("a", 1)]
    assert die(recovery, "a", 1, 5.1) == [offer("s", "b")]
    # What it was asked may have gone with a broken link.
    recovery = machine("a", "b")
    give(recovery, "a", "s")
    recovery.hand_over("a", 1.0)
    recovery.link_lost("a", 1, 1.1)
    assert recovery.hello("a", 1, 4, (Claim("s", 1, Hold.SOCKET),), 1.2) == [Release("a", "s")]


def test_an_offer_that_is_given_up_is_taken_back_from_whoever_is_at_it() -> None:
    recovery = Recovery(RecoveryLimits(recover_within=3.0, offer_within=50.0))
    recovery.hello("a", 1, 4, (), 0.0)
    recovery.take("s", Hold.SOCKET, 1, "resumed", 0.0)
    commands = recovery.tick(3.0)
    assert commands[0] == Release("a", "s")
    assert ends(commands) == [("s", "recovery_failed", False)]
    # It comes back with it all the same, and it may not have it again before it has let go.
    assert recovery.recovered("s", "a", 2, 3.1) == [Release("a", "s")]
    assert recovery.take("s", Hold.SOCKET, 2, "resumed", 3.2) == []
    assert recovery.released("s", "a", 3.3) == [offer("s", "a", "resumed", durable=True)]


def test_events_of_strangers_change_nothing() -> None:
    recovery = machine("a")
    assert recovery.link_lost("x", 5, 1.0) == []
    assert recovery.gone("x", 5, 1.0) == []
    assert recovery.gone("a", 99, 1.0) == []
    assert recovery.refused("s", "a", BUSY, 1.0) == []
    assert recovery.released("s", "a", 1.0) == []
    recovery.up("s", "a")
    assert (recovery.stage("s"), recovery.hold("s"), recovery.owner("s"), recovery.epoch("s")) == (None, None, None, 0)
    assert recovery.load("x") == 0


def test_a_call_that_another_node_has_by_now_is_told_apart() -> None:
    assert is_elsewhere("n2/session-0/17", "n1")
    assert not is_elsewhere("n1/session-0/17", "n1")
    assert not is_elsewhere("supervisor", "n1")


def test_what_a_dead_process_sent_over_a_new_link_is_read_first() -> None:
    recovery = machine("a", "b")
    give(recovery, "a", "s")
    recovery.link_lost("a", 1, 1.0)
    # It has linked again, and died before anybody read its greeting.
    recovery.connected(1)
    assert recovery.gone("a", 1, 1.1) == []
    assert recovery.stage("s") is Stage.OWNED
    assert recovery.link_lost("a", 1, 1.2) == [offer("s", "b")]
