"""The names of marks: what they claim, and that a clear makes them claim nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.marks import PlaybackMarks

LENGTHS = st.lists(st.floats(0.125, 900.0), min_size=1, max_size=40)


def test_a_mark_is_due_when_the_last_one_is_far_enough_behind() -> None:
    marks = PlaybackMarks(200.0)
    assert marks.due(199.0) is None
    first = marks.due(200.0)
    assert first is not None
    assert marks.position(first) == 200.0
    assert marks.due(399.0) is None
    assert marks.due(400.0) not in (None, first)


def test_at_the_end_a_mark_is_sent_unless_there_is_one_already() -> None:
    marks = PlaybackMarks(200.0)
    assert marks.at(0.0) is None
    last = marks.at(50.0)
    assert last is not None
    assert marks.position(last) == 50.0
    assert marks.at(50.0) is None


def test_a_clear_makes_every_mark_void_and_marks_go_on_after_it() -> None:
    marks = PlaybackMarks(200.0)
    old = marks.due(400.0)
    assert old is not None
    marks.void(300.0)
    assert marks.position(old) is None
    assert marks.due(499.0) is None
    new = marks.due(500.0)
    assert new is not None
    assert (marks.position(new), marks.position(old)) == (500.0, None)


@pytest.mark.parametrize("name", ["", ":", "0", "0:", ":5", "0:-5", "0:5.5", "0:\u0665", "1:5", "00:5", "0:5:5", "not ours"])
def test_what_is_no_mark_of_ours_says_nothing(name: str) -> None:
    assert PlaybackMarks().position(name) is None


def test_a_number_of_absurd_length_is_no_trouble() -> None:
    assert PlaybackMarks().position("0:" + "9" * 5000) == 999999999999.0


@given(LENGTHS, st.floats(1.0, 500.0))
def test_a_mark_never_claims_more_than_was_sent_nor_less_than_the_one_before(lengths: list[float], every: float) -> None:
    marks, sent, claimed = PlaybackMarks(every), 0.0, 0.0
    for length in lengths:
        sent += length
        name = marks.due(sent)
        if name is not None:
            position = marks.position(name)
            assert position is not None
            assert claimed <= position <= sent < position + 1
            claimed = position
