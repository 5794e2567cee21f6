"""Who stands still is suspected, looked at, then killed; who merely was not watched is not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gateway.freezing import AskDump, FreezeCommand, FreezeDetector, FreezeLimits, KillFrozen, Suspect, Trust

LIMITS = FreezeLimits(suspect_after=1.0, dump_after=2.0, kill_after=3.0, stall=0.75)


def looks(detector: FreezeDetector, start: float, end: float) -> dict[float, list[FreezeCommand]]:
    """Look every quarter of a second; return what came of it, by time."""
    times = [start + step / 4 for step in range(round((end - start) * 4) + 1)]
    return {time: commands for time in times if (commands := detector.look(time))}


def test_an_actor_that_beats_is_left_alone() -> None:
    detector = FreezeDetector(LIMITS)
    detector.watch("a", 0.0)
    for step in range(100):
        detector.beat("a", step / 4)
        assert detector.look(step / 4) == []


def test_one_that_stands_still_is_suspected_dumped_and_killed_once() -> None:
    detector = FreezeDetector(LIMITS)
    detector.watch("a", 0.0)
    detector.beat("a", 1.0)
    assert looks(detector, 1.0, 20.0) == {2.0: [Suspect("a")], 3.0: [AskDump("a")], 4.0: [KillFrozen("a")]}
    detector.forget("a")
    detector.forget("a")
    assert detector.look(20.5) == []


def test_one_that_moves_again_is_trusted_and_may_freeze_again() -> None:
    detector = FreezeDetector(LIMITS)
    detector.watch("a", 0.0)
    assert looks(detector, 0.0, 2.25) == {1.0: [Suspect("a")], 2.0: [AskDump("a")]}
    detector.beat("a", 2.4)
    assert detector.look(2.5) == [Trust("a")]
    assert looks(detector, 2.75, 4.5) == {3.5: [Suspect("a")], 4.5: [AskDump("a")]}


def test_a_new_process_of_the_same_name_begins_anew() -> None:
    detector = FreezeDetector(LIMITS)
    detector.watch("a", 0.0)
    assert looks(detector, 0.0, 3.0)[3.0] == [KillFrozen("a")]
    detector.watch("a", 3.0)
    assert looks(detector, 3.25, 4.0) == {4.0: [Suspect("a")]}


def test_when_we_stood_still_ourselves_nobody_is_blamed() -> None:
    detector = FreezeDetector(LIMITS)
    detector.watch("a", 0.0)
    assert detector.look(0.25) == []
    # The machine was paused for a minute: all heartbeats are old, ours included.
    assert detector.look(60.0) == []
    assert looks(detector, 60.25, 61.0) == {61.0: [Suspect("a")]}


def test_what_is_not_watched_is_ignored() -> None:
    detector = FreezeDetector(LIMITS)
    detector.beat("a", 1.0)
    assert detector.look(50.0) == []


@given(st.lists(st.tuples(st.floats(0.05, 2.0), st.sampled_from(["beat", "none", "watch", "forget"])), max_size=60))
def test_nobody_is_killed_who_was_not_silent_under_our_eyes(steps: list[tuple[float, str]]) -> None:
    detector = FreezeDetector(LIMITS)
    detector.watch("a", 0.0)
    now, silent_since, watched_for = 0.0, 0.0, 0.0
    for pause, action in steps:
        now += pause
        watched_for = watched_for + pause if pause <= LIMITS.stall else 0.0
        if action == "beat":
            detector.beat("a", now)
            silent_since = now
        elif action == "watch":
            detector.watch("a", now)
            silent_since = now
        elif action == "forget":
            detector.forget("a")
        for command in detector.look(now):
            assert action != "forget"
            if isinstance(command, KillFrozen):
                assert now - silent_since >= LIMITS.kill_after - 1e-9
                assert watched_for > 0.0
