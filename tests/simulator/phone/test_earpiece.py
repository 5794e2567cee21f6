"""What a caller hears: in its time, and of its words as many as sounded."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.phone.earpiece import MOST_ITEMS, Earpiece, Heard


def test_audio_plays_one_piece_after_the_other_however_fast_it_comes() -> None:
    ear = Earpiece()
    ear.read("a", "Good morning to you")
    for _ in range(5):
        ear.play("a", 0.2, now=10.0)
    assert ear.speaking(10.9)
    assert not ear.speaking(11.0)
    assert ear.quiet_since(10.9) is None
    assert ear.quiet_since(12.0) == pytest.approx(11.0)
    assert ear.heard(10.5) == [Heard("a", "Good", 500, whole=False)]
    assert ear.heard(12.0) == [Heard("a", "Good morning to you", 1000, whole=True)]


def test_a_pause_between_two_pieces_is_not_heard() -> None:
    ear = Earpiece()
    ear.play("a", 0.2, now=1.0)
    assert not ear.speaking(3.0)
    ear.play("a", 0.2, now=5.0)
    assert ear.heard(5.1)[0].ms == 300
    assert ear.heard(9.0)[0].ms == 400


def test_what_has_not_sounded_when_the_agent_is_cut_off_is_never_heard() -> None:
    ear = Earpiece()
    ear.read("a", "one two three four")
    ear.play("a", 1.0, now=0.0)
    ear.read("b", "never")
    ear.play("b", 1.0, now=0.0)
    ear.clear(0.5)
    assert ear.quiet_since(0.5) == 0.5
    assert ear.heard(9.0) == [Heard("a", "one two", 500, whole=False), Heard("b", "", 0, whole=False)]


def test_a_clear_in_the_quiet_changes_nothing() -> None:
    ear = Earpiece()
    ear.clear(0.0)
    assert ear.quiet_since(1.0) is None
    ear.play("a", 1.0, now=1.0)
    ear.clear(5.0)
    assert ear.quiet_since(6.0) == 2.0
    assert ear.heard(6.0)[0].ms == 1000


def test_words_without_audio_are_not_heard() -> None:
    ear = Earpiece()
    ear.read("a", "silent")
    assert ear.heard(9.0) == []


def test_it_forgets_what_was_heard_long_ago() -> None:
    ear = Earpiece()
    for number in range(MOST_ITEMS + 5):
        ear.play(str(number), 0.1, now=0.0)
    heard = ear.heard(1e6)
    assert len(heard) == MOST_ITEMS
    assert heard[0].item_id == "5"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.floats(0.02, 2), st.floats(0, 3), st.booleans()), max_size=30))
def test_nothing_is_heard_before_it_came_or_for_longer_than_time_passed(steps: list[tuple[str, float, float, bool]]) -> None:
    ear, now, received, before = Earpiece(), 0.0, 0.0, 0
    for item_id, seconds, wait, clear in steps:
        ear.read(item_id, "word ")
        ear.play(item_id, seconds, now)
        received += seconds
        now += wait
        if clear:
            ear.clear(now)
        heard = sum(item.ms for item in ear.heard(now))
        assert before <= heard <= min(now, received) * 1000 + 2
        before = heard
