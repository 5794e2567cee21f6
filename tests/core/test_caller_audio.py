"""Which audio of a caller is still needed when a connection is lost."""

from __future__ import annotations

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.caller_audio import TRIM_EVERY, CallerAudio, MemoryAudioStore, joined

# 20 ms at 8 kHz.
SIZE = 160


def frame(number: int) -> str:
    return base64.b64encode(number.to_bytes(4, "big") * (SIZE // 4)).decode()


def audio_of(*, detects: bool = True) -> tuple[CallerAudio, MemoryAudioStore]:
    store = MemoryAudioStore()
    return CallerAudio(store, detects=detects, bytes_per_ms=8.0), store


def push(audio: CallerAudio, store: MemoryAudioStore, count: int) -> None:
    for _ in range(count):
        audio.push(frame(store.end))


def numbers(payload: str | None) -> list[int]:
    data = base64.b64decode(payload or "")
    return [int.from_bytes(data[start : start + 4], "big") for start in range(0, len(data), SIZE)]


def test_payloads_are_joined_by_what_they_stand_for() -> None:
    pieces = [b"a", b"bc", b"", b"def"]
    assert base64.b64decode(joined(base64.b64encode(piece).decode() for piece in pieces)) == b"abcdef"
    assert joined(["YQ==", "!", "Yg=="]) == base64.b64encode(b"ab").decode()


def test_while_nobody_speaks_about_a_second_is_kept() -> None:
    audio, store = audio_of()
    push(audio, store, 1000)
    assert 50 <= store.end - store.first <= 50 + TRIM_EVERY
    ((start, end, committed),) = audio.replayed()
    assert (end, committed) == (1000, False)
    assert 50 <= end - start <= 50 + TRIM_EVERY


def test_a_turn_is_kept_from_where_the_model_heard_it_begin() -> None:
    audio, store = audio_of()
    push(audio, store, 100)
    # 1.5 s in: frame 75.
    audio.speech_started(1500)
    push(audio, store, 500)
    assert audio.speaking
    assert audio.replayed() == [(75, 600, False)]


def test_a_committed_turn_is_kept_for_its_item_until_its_words_are_known() -> None:
    audio, store = audio_of()
    push(audio, store, 100)
    audio.speech_started(1500)
    push(audio, store, 50)
    audio.speech_stopped("u1", 2600)
    audio.committed("u1")
    push(audio, store, 10)
    assert numbers(audio.audio_of("u1")) == list(range(75, 130))
    # What came after the end of the turn belongs to the next one, and nothing of the turn does.
    assert audio.replayed() == [(130, 160, False)]
    push(audio, store, 500)
    assert numbers(audio.audio_of("u1")) == list(range(75, 130))
    audio.settled("u1")
    assert audio.audio_of("u1") is None
    assert store.first > 500


def test_positions_count_anew_over_each_connection() -> None:
    audio, store = audio_of()
    push(audio, store, 200)
    audio.lost()
    push(audio, store, 30)
    ((start, end, _),) = audio.replayed()
    assert end == 230
    audio.speech_started(100)
    assert audio.replayed() == [(start + 5, end, False)]


def test_without_turn_detection_all_since_the_last_commit_is_needed() -> None:
    audio, store = audio_of(detects=False)
    push(audio, store, 300)
    assert audio.replayed() == [(0, 300, False)]
    audio.commit_sent()
    push(audio, store, 20)
    assert audio.unheard
    assert audio.replayed() == [(0, 300, True), (300, 320, False)]
    audio.committed("u1")
    assert not audio.unheard
    assert numbers(audio.audio_of("u1")) == list(range(300))
    audio.cleared()
    push(audio, store, 5)
    assert audio.replayed() == [(320, 325, False)]


def test_a_commit_that_was_refused_leaves_its_audio_to_the_next() -> None:
    audio, store = audio_of(detects=False)
    push(audio, store, 2)
    audio.commit_sent()
    push(audio, store, 3)
    audio.commit_refused()
    assert audio.replayed() == [(0, 5, False)]


def test_what_is_thrown_away_is_not_told_again_and_what_was_committed_before_is() -> None:
    audio, store = audio_of(detects=False)
    push(audio, store, 10)
    audio.commit_sent()
    push(audio, store, 10)
    audio.cleared()
    push(audio, store, 10)
    assert audio.replayed() == [(0, 10, True), (20, 30, False)]


def test_audio_of_another_format_is_void() -> None:
    audio, store = audio_of()
    push(audio, store, 10)
    audio.configure(detects=True, bytes_per_ms=48.0)
    assert audio.replayed() == [(10, 10, False)]


def test_a_store_that_is_full_loses_the_oldest_and_that_is_counted() -> None:
    store = MemoryAudioStore(limit=len(frame(0)) * 100)
    audio = CallerAudio(store, detects=False, bytes_per_ms=8.0)
    push(audio, store, 150)
    assert audio.replayed() == [(50, 150, False)]
    assert audio.frames_lost == 50


def test_another_process_goes_on_with_a_store_that_it_was_given() -> None:
    audio, store = audio_of()
    push(audio, store, 100)
    audio.speech_started(1500)
    push(audio, store, 20)
    audio.speech_stopped("u1", 2200)
    audio.committed("u1")
    push(audio, store, 7)
    other = CallerAudio(store)
    other.restore(json.loads(json.dumps(audio.state())))
    assert numbers(other.audio_of("u1")) == numbers(audio.audio_of("u1"))
    assert other.replayed() == audio.replayed()


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(1, 120)),
        st.tuples(
            st.sampled_from(["start", "stop", "commit", "confirm", "clear", "refuse", "words", "lose", "replay"]), st.just(0)
        ),
    ),
    max_size=60,
)


@given(ACTIONS, st.booleans())
def test_no_frame_of_an_uncommitted_turn_is_lost_and_none_belongs_to_two(actions: list[tuple[str, int]], detects: bool) -> None:
    """Against a model of the endpoint's buffer, which holds what was appended and not committed or cleared."""
    audio, store = audio_of(detects=detects)
    turns: dict[str, list[int]] = {}
    # Frames that the client committed (each a turn of its own) and those after, as an endpoint would hold them.
    committed: list[list[int]] = []
    held: list[int] = []
    count = 0
    for action, amount in actions:
        if action == "push":
            held += range(store.end, store.end + amount)
            push(audio, store, amount)
        elif action == "commit" and not detects:
            committed.append(held)
            held = []
            audio.commit_sent()
        elif action == "confirm" and committed:
            count += 1
            turns[f"u{count}"] = committed.pop(0)
            audio.committed(f"u{count}")
        elif action == "clear":
            held = []
            audio.cleared()
        elif action == "words" and turns:
            item_id = next(iter(turns))
            del turns[item_id]
            audio.settled(item_id)
        elif action == "lose":
            audio.lost()
        elif action == "replay":
            audio.replayed()
    pieces = [list(range(start, end)) for start, end, _ in audio.replayed()]
    if detects:
        # Nobody spoke: at least the last second, and nothing that was thrown away.
        assert pieces == [held[len(held) - len(pieces[0]) :]]
        assert len(pieces[0]) >= min(50, len(held))
    else:
        assert pieces == [*committed, held]
        for item_id, wanted in list(turns.items())[-32:]:
            assert numbers(audio.audio_of(item_id)) == wanted
