"""When audio is heard that is played as it comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.endpoint.playback import Playback, Unheard


def test_audio_plays_one_after_the_other_however_fast_it_comes() -> None:
    playback = Playback()
    assert playback.add("r", "a", 2.0, now=10.0) == 10.0
    assert playback.add("r", "a", 1.0, now=10.1) == 12.0
    assert playback.add("r", "b", 1.0, now=10.2) == 13.0
    assert playback.ends_at == 14.0
    assert playback.cut(13.5) == [Unheard("r", "b", 500)]
    assert playback.ends_at == 13.5


def test_a_pause_in_the_audio_is_not_part_of_what_was_heard() -> None:
    playback = Playback()
    playback.add("r", "a", 1.0, now=0.0)
    assert playback.add("r", "a", 1.0, now=5.0) == 5.0
    assert playback.cut(5.25) == [Unheard("r", "a", 1250)]


def test_what_was_heard_to_its_end_is_not_cut() -> None:
    playback = Playback()
    playback.add("r", "a", 1.0, now=0.0)
    assert playback.cut(1.0) == []
    assert playback.ends_at == 1.0
    assert Playback().cut(3.0) == []


@given(st.lists(st.tuples(st.sampled_from("aab"), st.floats(0, 3), st.floats(0, 2)), max_size=30), st.floats(0, 100))
def test_nothing_is_heard_twice_or_beyond_its_length(pieces: list[tuple[str, float, float]], until: float) -> None:
    playback, now = Playback(), 0.0
    total: dict[str, float] = {}
    runs = 0
    last = ""
    for name, seconds, pause in pieces:
        # An item that was left is never gone on with.
        runs += name != last
        last = name
        item_id = f"{name}{runs}"
        now += pause
        assert playback.add("r", item_id, seconds, now) >= now
        total[item_id] = total.get(item_id, 0.0) + seconds
    cut = playback.cut(now + until)
    assert len({unheard.item_id for unheard in cut}) == len(cut)
    assert all(0 <= unheard.heard_ms <= total[unheard.item_id] * 1000 + 1e-6 for unheard in cut)
    assert playback.cut(now + until) == []
