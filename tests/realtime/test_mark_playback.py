"""The playback tracker for carriers that echo marks, by itself and in a session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.core.playback_source import TrackedPlayback
from orchestrator.errors import UserError
from orchestrator.realtime import RealtimeAudio, RealtimeAudioInterrupted, RealtimeSession
from orchestrator.realtime.events import RealtimeAudioEnd
from orchestrator.realtime.mark_playback import MarkPlaybackTracker
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tracker(clock: Clock) -> MarkPlaybackTracker:
    return MarkPlaybackTracker(clock=clock)


def where(tracker: MarkPlaybackTracker) -> tuple[str | None, int | None, float | None]:
    state = tracker.get_state()
    elapsed = state["elapsed_ms"]
    return state["current_item_id"], state["current_item_content_index"], None if elapsed is None else round(elapsed, 6)


def test_without_marks_audio_is_heard_at_the_speed_of_the_clock(tracker: MarkPlaybackTracker, clock: Clock) -> None:
    assert where(tracker) == (None, None, None)
    tracker.on_sent("item_1", 0, 1000.0)
    clock.now += 0.4
    assert where(tracker) == ("item_1", 0, 400.0)
    assert tracker.is_playing


def test_a_mark_that_comes_late_sets_the_clock_right(tracker: MarkPlaybackTracker, clock: Clock) -> None:
    mark = tracker.on_sent("item_1", 0, 300.0)
    tracker.on_sent("item_1", 0, 700.0)
    assert mark is not None
    clock.now += 0.5
    assert tracker.on_mark(mark)
    clock.now += 0.1
    assert where(tracker) == ("item_1", 0, 400.0)


def test_what_was_heard_to_its_end_stays_there(tracker: MarkPlaybackTracker, clock: Clock) -> None:
    tracker.on_sent("item_1", 0, 500.0)
    tracker.on_sent("item_2", 1, 250.0)
    clock.now += 60.0
    assert where(tracker) == ("item_2", 1, 250.0)
    assert not tracker.is_playing


def test_the_end_of_what_is_said_has_a_mark_of_its_own(tracker: MarkPlaybackTracker) -> None:
    assert tracker.on_sent("item_1", 0, 120.0) is None
    assert tracker.on_audio_end() is not None
    assert tracker.on_audio_end() is None


@pytest.mark.parametrize("end", ["on_clear", "on_interrupted"])
def test_marks_that_a_clear_throws_back_were_not_played(tracker: MarkPlaybackTracker, clock: Clock, end: str) -> None:
    mark = tracker.on_sent("item_1", 0, 2000.0)
    assert mark is not None
    clock.now += 0.3
    getattr(tracker, end)()
    assert where(tracker) == (None, None, None)
    assert not tracker.on_mark(mark)
    tracker.on_sent("item_2", 0, 1000.0)
    clock.now += 0.2
    assert not tracker.on_mark(mark)
    assert where(tracker) == ("item_2", 0, 200.0)


def test_it_cannot_be_told_what_was_played(tracker: MarkPlaybackTracker) -> None:
    with pytest.raises(UserError, match="on_sent"):
        tracker.on_play_bytes("item_1", 0, b"\xff" * 160)


def test_what_the_session_has_and_the_phone_has_not_yet_is_cut_at_nothing(tracker: MarkPlaybackTracker, clock: Clock) -> None:
    playback = TrackedPlayback(tracker)
    for item_id in ("item_1", "item_2"):
        playback.sent(item_id, 0, 600.0, clock.now)
    tracker.on_sent("item_1", 0, 600.0)
    clock.now += 0.25
    cuts = playback.interrupt(clock.now)
    assert [(cut.item_id, round(cut.heard_ms, 6), cut.sent_ms) for cut in cuts] == [
        ("item_1", 250.0, 600.0),
        ("item_2", 0, 600.0),
    ]


@pytest.mark.parametrize("piece", [100 / 3, 0.1, 20.7, 1e-3])
def test_what_was_heard_whole_is_not_cut_though_pieces_do_not_add_up_evenly(
    tracker: MarkPlaybackTracker, clock: Clock, piece: float
) -> None:
    playback = TrackedPlayback(tracker)
    for item_id in ("item_1", "item_2", "item_3"):
        for _ in range(7):
            playback.sent(item_id, 0, piece, clock.now)
            tracker.on_sent(item_id, 0, piece)
    clock.now += 10.0
    assert playback.interrupt(clock.now) == []


async def test_a_session_truncates_where_the_marks_say(
    make_session: Callable[..., RealtimeSession], endpoint: ScriptedEndpoint
) -> None:
    tracker = MarkPlaybackTracker(clock=asyncio.get_running_loop().time)
    marks: list[str | None] = []

    async def play(session: RealtimeSession) -> None:
        """What a program does for each event, without the carrier."""
        async for event in session:
            if isinstance(event, RealtimeAudio):
                marks.append(tracker.on_sent(event.item_id, event.content_index, event.audio.duration_ms))
            elif isinstance(event, RealtimeAudioEnd):
                marks.append(tracker.on_audio_end())
            elif isinstance(event, RealtimeAudioInterrupted):
                tracker.on_clear()

    async with make_session(model_config={"playback_tracker": tracker}) as session:
        player = asyncio.create_task(play(session))
        endpoint.start_response()
        for _ in range(5):
            endpoint.speak("one two ", 400)
        await asyncio.sleep(0.7)
        # The phone plays 300 ms behind.
        assert marks[0] is not None
        assert tracker.on_mark(marks[0])
        await asyncio.sleep(0.1)
        endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
        await endpoint.settle()
        truncate: dict[str, Any] = endpoint.last("conversation.item.truncate")
        assert (truncate["item_id"], truncate["audio_end_ms"]) == ("item_a", pytest.approx(500, abs=2))
        assert not any(tracker.on_mark(mark) for mark in marks if mark)
    await player
