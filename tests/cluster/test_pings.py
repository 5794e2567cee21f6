from __future__ import annotations

from orchestrator.cluster.pings import Pings


def make() -> Pings:
    return Pings(interval=5.0, silent_after=15.0)


def test_a_new_name_is_pinged_at_once_and_only_once() -> None:
    pings = make()
    assert pings.due(["t"], 0.0) == ("t",)
    pings.on_sent("t", 0.0)
    assert pings.due(["t"], 100.0) == ()


def test_who_answered_is_pinged_again_after_the_interval() -> None:
    pings = make()
    pings.on_sent("t", 0.0)
    pings.on_answer("t", 7, 1.0)
    assert pings.pids() == {"t": 7}
    assert pings.due(["t"], 5.9) == ()
    assert pings.due(["t"], 6.0) == ("t",)


def test_who_failed_is_pinged_again_at_once() -> None:
    pings = make()
    pings.on_sent("t", 0.0)
    pings.on_failure("t")
    assert pings.due(["t"], 0.0) == ("t",)
    assert pings.pids() == {}


def test_an_actor_that_answered_and_then_does_not_is_silent() -> None:
    pings = make()
    pings.on_sent("t", 0.0)
    pings.on_answer("t", 7, 0.0)
    pings.on_sent("t", 5.0)
    assert pings.unfit(20.0) == {}
    assert set(pings.unfit(20.1)) == {"t"}


def test_an_actor_that_takes_long_to_start_is_not_silent() -> None:
    pings = make()
    pings.on_sent("t", 0.0)
    assert pings.unfit(1000.0) == {}


def test_an_actor_that_was_killed_is_not_silent_while_it_starts_again() -> None:
    pings = make()
    pings.on_sent("t", 0.0)
    pings.on_answer("t", 7, 0.0)
    pings.on_sent("t", 5.0)
    pings.on_failure("t")
    pings.on_sent("t", 6.0)
    assert pings.unfit(1000.0) == {}


def test_an_actor_that_says_that_it_cannot_work_is_unfit_until_it_answers_otherwise() -> None:
    pings = make()
    pings.on_sent("t", 0.0)
    pings.on_complaint("t", "no port")
    assert pings.unfit(0.0) == {"t": "no port"}
    assert pings.due(["t"], 0.0) == ("t",)
    pings.on_sent("t", 0.5)
    assert pings.unfit(0.5) == {"t": "no port"}
    pings.on_answer("t", 8, 1.0)
    assert pings.unfit(1.0) == {}


def test_a_name_that_is_not_asked_for_any_more_is_forgotten_and_its_late_answer_ignored() -> None:
    pings = make()
    pings.on_sent("t", 0.0)
    assert pings.due(["u"], 1.0) == ("u",)
    pings.on_answer("t", 7, 2.0)
    assert pings.pids() == {}
