"""The playback cursor: what was heard is known to the frame, from the clock alone and better from marks."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.core.playback import Cut, PlaybackCursor
from orchestrator.core.playback_source import TrackedPlayback, UntrackedPlayback
from orchestrator.realtime.model import RealtimePlaybackTracker


def test_audio_sent_faster_than_real_time_is_heard_at_the_speed_of_the_clock() -> None:
    cursor = PlaybackCursor()
    for step in range(10):
        cursor.sent("item_1", 0, 200.0, 100.0 + step * 0.01)
    assert cursor.sent_ms == 2000.0
    assert cursor.heard_ms(100.5) == pytest.approx(500.0)
    assert cursor.heard_ms(200.0) == 2000.0


def test_an_interruption_cuts_the_item_that_plays_and_those_behind_it_at_zero() -> None:
    cursor = PlaybackCursor()
    cursor.sent("item_1", 0, 1000.0, 0.0)
    cursor.sent("item_2", 0, 400.0, 0.1)
    assert cursor.interrupt(0.25) == [Cut("item_1", 0, 250.0, 1000.0), Cut("item_2", 0, 0.0, 400.0)]
    assert cursor.sent_ms == 250.0
    assert cursor.interrupt(0.3) == []


def test_an_item_that_was_heard_to_its_end_is_not_cut() -> None:
    cursor = PlaybackCursor()
    cursor.sent("item_1", 0, 100.0, 0.0)
    cursor.sent("item_2", 0, 400.0, 0.0625)
    assert cursor.interrupt(0.25) == [Cut("item_2", 0, 150.0, 400.0)]


def test_nothing_is_cut_when_playback_is_over() -> None:
    cursor = PlaybackCursor()
    cursor.sent("item_1", 0, 100.0, 0.0)
    assert not cursor.is_playing(0.2)
    assert cursor.interrupt(0.2) == []


def test_playback_starts_again_where_the_caller_had_run_dry() -> None:
    cursor = PlaybackCursor()
    cursor.sent("item_1", 0, 100.0, 0.0)
    cursor.sent("item_1", 0, 300.0, 5.0)
    assert cursor.interrupt(5.125) == [Cut("item_1", 0, 225.0, 400.0)]


def test_a_mark_corrects_the_clock_in_both_directions() -> None:
    cursor = PlaybackCursor()
    cursor.sent("item_1", 0, 2000.0, 0.0)
    cursor.reached(200.0, 0.5)
    assert cursor.heard_ms(0.5) == 200.0
    assert cursor.heard_ms(0.6) == pytest.approx(300.0)
    cursor.reached(1000.0, 0.7)
    assert cursor.interrupt(0.7) == [Cut("item_1", 0, 1000.0, 2000.0)]


def test_a_mark_beyond_what_was_sent_is_brought_into_range() -> None:
    cursor = PlaybackCursor()
    cursor.sent("item_1", 0, 500.0, 0.0)
    cursor.reached(90_000.0, 0.1)
    assert cursor.heard_ms(0.1) == 500.0


def test_what_is_sent_after_an_interruption_plays_at_once() -> None:
    cursor = PlaybackCursor()
    cursor.sent("item_1", 0, 2000.0, 0.0)
    cursor.interrupt(1.0)
    cursor.sent("item_2", 0, 500.0, 3.0)
    assert cursor.interrupt(3.125) == [Cut("item_2", 0, 125.0, 500.0)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(1, 900), st.floats(0, 1.5), st.booleans()), max_size=40))
@example([("a", 501.0, 0.0, False), ("b", 1.0, 0.0, False), ("a", 1.0, 0.5, True)])
def test_what_is_heard_never_exceeds_what_was_sent_and_never_runs_backwards(
    steps: list[tuple[str, float, float, bool]],
) -> None:
    cursor, now, before = PlaybackCursor(), 0.0, 0.0
    for item, duration, pause, interrupt in steps:
        cursor.sent(item, 0, duration, now)
        now += pause
        heard = cursor.heard_ms(now)
        assert before - 1e-6 <= heard <= cursor.sent_ms + 1e-6
        if interrupt:
            for cut in cursor.interrupt(now):
                assert 0.0 <= cut.heard_ms < cut.sent_ms
            assert cursor.sent_ms == pytest.approx(heard)
            heard = cursor.sent_ms
        before = heard


def test_a_tracker_says_what_was_played_and_never_more_than_was_sent() -> None:
    tracker = RealtimePlaybackTracker()
    playback = TrackedPlayback(tracker)
    playback.sent("item_1", 0, 400.0, 0.0)
    playback.sent("item_2", 0, 300.0, 0.0)
    tracker.on_play_ms("item_1", 0, 150.0)
    assert playback.interrupt(9.0) == [Cut("item_1", 0, 150.0, 400.0), Cut("item_2", 0, 0.0, 300.0)]
    assert tracker.get_state()["current_item_id"] is None
    playback.sent("item_3", 0, 100.0, 0.0)
    tracker.on_play_ms("item_3", 0, 5000.0)
    assert playback.interrupt(9.0) == []


def test_a_caller_that_keeps_track_itself_is_never_cut_by_us() -> None:
    playback = UntrackedPlayback()
    playback.sent("item_1", 0, 400.0, 0.0)
    assert playback.interrupt(0.1) == []


def test_what_is_heard_now_is_told_without_stopping_it() -> None:
    cursor = PlaybackCursor()
    assert cursor.current(0.0) is None
    cursor.sent("item_1", 0, 1000.0, 0.0)
    cursor.sent("item_2", 1, 400.0, 0.0)
    assert cursor.current(0.25) == Cut("item_1", 0, 250.0, 1000.0)
    assert cursor.current(1.25) == Cut("item_2", 1, 250.0, 400.0)
    assert cursor.current(9.0) == Cut("item_2", 1, 400.0, 400.0)
    assert cursor.interrupt(1.25) == [Cut("item_2", 1, 250.0, 400.0)]
    assert cursor.current(1.25) is None
