"""The demo's recording."""

from __future__ import annotations

import wave
from pathlib import Path

from orchestrator.demo.recording import Recording

LOUD, QUIET = b"\x10" * 160, b"\xff" * 160


def read(path: Path) -> tuple[int, list[bool], list[bool]]:
    """Return the length in frames of 20 ms, and for each whether there is sound on the left and on the right."""
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (2, 2, 8000)
        data = file.readframes(file.getnframes())
    places = [data[start : start + 640] for start in range(0, len(data), 640)]
    left = [any(place[offset] or place[offset + 1] for offset in range(0, 640, 4)) for place in places]
    right = [any(place[offset] or place[offset + 1] for offset in range(2, 640, 4)) for place in places]
    return len(places), left, right


def test_puts_the_caller_left_and_the_agent_right_where_they_were_in_time(tmp_path: Path) -> None:
    recording = Recording()
    for number in range(5):
        recording.said(LOUD if number == 1 else QUIET, 100.0 + number * 0.02)
    recording.heard(LOUD, 100.065)
    recording.heard(LOUD, 100.085)
    recording.write(tmp_path / "call.wav")
    length, left, right = read(tmp_path / "call.wav")
    assert length == 5
    assert left == [False, True, False, False, False]
    assert right == [False, False, False, True, True]


def test_two_frames_that_fall_on_one_place_are_both_kept(tmp_path: Path) -> None:
    recording = Recording()
    recording.heard(LOUD, 1.0)
    recording.heard(LOUD, 1.005)
    recording.write(tmp_path / "call.wav")
    assert read(tmp_path / "call.wav")[2] == [True, True]


def test_does_not_grow_for_ever(tmp_path: Path) -> None:
    recording = Recording()
    for number in range(40_000):
        recording.said(QUIET, number * 0.02)
    recording.write(tmp_path / "call.wav")
    assert read(tmp_path / "call.wav")[0] == 30_000


def test_a_call_that_never_was_gives_an_empty_file(tmp_path: Path) -> None:
    Recording().write(tmp_path / "call.wav")
    assert read(tmp_path / "call.wav")[0] == 0
