"""The play buffer of the offline carrier, against the rules that Twilio documents."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.carrier.playout import BUFFER_LIMIT, FRAME_BYTES, Clearing, Ear, MarkEcho, Playout, is_loud

LOUD = b"\x10"
QUIET = b"\xff"


def test_plays_160_bytes_every_20_ms_from_the_moment_audio_arrives() -> None:
    frames: list[tuple[bytes, float]] = []
    playout = Playout(lambda frame, at: frames.append((frame, at)))
    playout.receive_audio(LOUD * 480, 10.0)
    playout.advance(10.05)
    assert [at for _, at in frames] == [10.0, 10.02, 10.04]
    assert playout.heard_ms == 60
    assert playout.waiting_ms == 0


def test_pads_a_short_last_frame_but_counts_only_what_was_sent() -> None:
    frames: list[bytes] = []
    playout = Playout(lambda frame, _: frames.append(frame))
    playout.receive_audio(LOUD * 100, 0.0)
    assert frames == [LOUD * 100 + QUIET * 60]
    assert playout.heard_bytes == 100


def test_a_mark_comes_back_when_the_audio_before_it_has_sounded() -> None:
    playout = Playout()
    assert playout.receive_audio(LOUD * 320, 0.0) == []
    assert playout.receive_mark("a", 0.0) == []
    assert playout.next_echo_at() == 0.04
    assert playout.advance(0.039) == []
    assert playout.advance(0.04) == [MarkEcho("a", 0.04, cleared=False)]
    assert playout.next_echo_at() is None


def test_a_mark_comes_back_at_once_when_nothing_plays() -> None:
    playout = Playout()
    assert playout.receive_mark("a", 5.0) == [MarkEcho("a", 5.0, cleared=False)]


def test_a_mark_waits_for_the_frame_that_is_sounding() -> None:
    playout = Playout()
    playout.receive_audio(LOUD * 160, 0.0)
    assert playout.receive_mark("a", 0.01) == []
    assert playout.advance(0.02) == [MarkEcho("a", 0.02, cleared=False)]


def test_clear_drops_what_waits_and_echoes_all_marks_at_once() -> None:
    playout = Playout()
    for name in ("a", "b", "c"):
        playout.receive_audio(LOUD * 800, 0.0)
        playout.receive_mark(name, 0.0)
    echoes = playout.clear(0.15)
    assert echoes == [
        MarkEcho("a", 0.1, cleared=False),
        MarkEcho("b", 0.15, cleared=True),
        MarkEcho("c", 0.15, cleared=True),
    ]
    assert playout.clearings == [Clearing(at=0.15, heard_ms=160.0, dropped_ms=140.0, marks=2)]
    assert playout.heard_ms == 160


def test_audio_after_a_clear_is_played_whole() -> None:
    frames: list[float] = []
    playout = Playout(lambda _, at: frames.append(at))
    playout.receive_audio(LOUD * 1600, 0.0)
    playout.clear(0.03)
    playout.receive_audio(LOUD * 320, 0.03)
    playout.receive_mark("after", 0.03)
    assert playout.advance(1.0) == [MarkEcho("after", 0.08, cleared=False)]
    assert frames == [0.0, 0.02, 0.04, 0.06]


def test_late_audio_is_not_played_in_a_hurry() -> None:
    frames: list[float] = []
    playout = Playout(lambda _, at: frames.append(at))
    playout.receive_audio(LOUD * 160, 0.0)
    playout.receive_audio(LOUD * 320, 0.5)
    playout.advance(0.5)
    assert frames == [0.0, 0.5]
    playout.advance(0.52)
    assert frames == [0.0, 0.5, 0.52]


def test_the_clock_does_not_drift_in_an_hour() -> None:
    times: list[float] = []
    playout = Playout(lambda _, at: times.append(at))
    for minute in range(60):
        playout.receive_audio(QUIET * (3000 * FRAME_BYTES), minute * 60.0)
    playout.advance(4000.0)
    assert len(times) == 180_000
    assert times[-1] == 3599.98


def test_discards_what_exceeds_ten_minutes() -> None:
    playout = Playout()
    playout.receive_audio(QUIET * (BUFFER_LIMIT + 1000), 0.0)
    playout.receive_audio(QUIET * 500, 0.0)
    assert playout.discarded_bytes == 1000 + 500 - FRAME_BYTES  # one frame left for the phone at once
    assert playout.received_bytes == BUFFER_LIMIT + FRAME_BYTES


def test_the_ear_hears_voices_and_not_silence() -> None:
    assert is_loud(LOUD * 160)
    assert not is_loud(QUIET * 160)
    assert not is_loud(b"\x7f" * 160)
    assert not is_loud(b"")
    ear = Ear()
    playout = Playout(ear.hear)
    playout.receive_audio(QUIET * 1600 + LOUD * 320, 0.0)
    ear.await_voice(0.1)
    playout.advance(0.19)
    assert ear.first_voice_at is None
    playout.advance(0.3)
    assert ear.first_voice_at == 0.2
    assert ear.voice_began_at == 0.2
    assert ear.voice_last_at == 0.22


_ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("audio"), st.integers(0, 2000)),
        st.tuples(st.just("mark"), st.just(0)),
        st.tuples(st.just("clear"), st.just(0)),
        st.tuples(st.just("wait"), st.integers(0, 400)),
    ),
    max_size=60,
)


@given(_ACTIONS)
def test_heard_is_sent_minus_cleared_and_marks_keep_their_order(actions: list[tuple[str, int]]) -> None:
    heard = bytearray()
    playout = Playout(lambda frame, _: heard.extend(frame))
    now, sent, pieces, marks = 0.0, 0, 0, 0
    echoes: list[MarkEcho] = []
    for kind, amount in actions:
        if kind == "audio":
            pieces += 1
            echoes += playout.receive_audio(bytes([pieces % 100]) * amount, now)
            sent += amount
        elif kind == "mark":
            echoes += playout.receive_mark(str(marks), now)
            marks += 1
        elif kind == "clear":
            echoes += playout.clear(now)
            assert playout.pending_marks == 0
            assert playout.waiting_ms == 0
        else:
            now += amount / 1000
            echoes += playout.advance(now)
        if (due := playout.next_echo_at()) is not None:
            assert due > now
    echoes += playout.advance(now + 1e4)
    assert playout.heard_bytes == sent - playout.cleared_bytes
    assert playout.heard_bytes == len(bytes(heard).replace(QUIET, b""))
    assert [echo.name for echo in echoes] == [str(index) for index in range(marks)]
    assert [echo.at for echo in echoes] == sorted(echo.at for echo in echoes)
    assert playout.cleared_bytes == sum(clearing.dropped_ms * 8 for clearing in playout.clearings)


@given(st.lists(st.integers(1, 700), min_size=1, max_size=20), st.lists(st.floats(0, 3), max_size=30))
def test_how_often_the_clock_is_read_changes_nothing(sizes: list[int], readings: list[float]) -> None:
    def run(times: list[float]) -> tuple[list[float], list[MarkEcho]]:
        starts: list[float] = []
        playout = Playout(lambda _, at: starts.append(at))
        echoes: list[MarkEcho] = []
        for index, size in enumerate(sizes):
            echoes += playout.receive_audio(LOUD * size, 0.0)
            echoes += playout.receive_mark(str(index), 0.0)
        for now in [*times, 1e3]:
            echoes += playout.advance(now)
        return starts, echoes

    assert run([]) == run(sorted(readings))
