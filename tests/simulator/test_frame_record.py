from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.simulator import command
from orchestrator.simulator.frame_record import RECORD_VARIABLE, FrameRecord, record_path

AUDIO = b'{"type":"response.output_audio.delta","event_id":"event_1","delta":"AAAA","output_index":0}'
RETRIEVED = (
    b'{"type":"conversation.item.retrieved","event_id":"event_2","item":{"content":'
    b'[{"type":"input_audio","transcript":"say \\"audio\\":\\"x\\"","audio":"BBBB"}]}}'
)
TEXT = b'{"type":"response.output_text.delta","event_id":"event_3","delta":"Hello"}'


def test_frames_are_written_as_they_are_but_for_the_audio(tmp_path: Path) -> None:
    heard: list[bytes] = []
    with FrameRecord(tmp_path / "frames", heard.append) as record:
        for frame in (AUDIO, RETRIEVED, TEXT):
            record(frame)
    assert heard == [AUDIO, RETRIEVED, TEXT]
    lines = (tmp_path / "frames").read_bytes().splitlines()
    assert lines == [AUDIO.replace(b"AAAA", b""), RETRIEVED.replace(b"BBBB", b""), TEXT]
    assert [json.loads(line)["event_id"] for line in lines] == ["event_1", "event_2", "event_3"]


def test_several_add_to_one_file_which_is_private(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    with FrameRecord(path) as first, FrameRecord(path) as second:
        first(TEXT)
        second(TEXT)
        first(TEXT)
    assert path.read_bytes() == (TEXT + b"\n") * 3
    assert path.stat().st_mode & 0o777 == 0o600


def test_after_its_end_it_writes_nothing(tmp_path: Path) -> None:
    with FrameRecord(tmp_path / "frames") as record:
        pass
    record(TEXT)
    assert (tmp_path / "frames").read_bytes() == b""


def test_a_full_disk_ends_the_record_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[bytes] = []
    with FrameRecord(Path("/dev/full"), heard.append) as record:
        record(TEXT)
        record(TEXT)
    assert heard == [TEXT, TEXT]
    assert [entry.message for entry in caplog.records] == ["frames are no longer recorded: No space left on device"]


def test_a_file_that_cannot_be_made_is_the_users_fault(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no-such-folder"), FrameRecord(tmp_path / "no-such-folder" / "frames"):
        pytest.fail("it was opened")


def test_the_environment_names_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RECORD_VARIABLE, "/somewhere/frames")
    assert record_path() == Path("/somewhere/frames")
    monkeypatch.setenv(RECORD_VARIABLE, "")
    assert record_path() is None
    monkeypatch.delenv(RECORD_VARIABLE)
    assert record_path() is None


def test_the_command_takes_a_file_and_else_what_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    monkeypatch.setenv(RECORD_VARIABLE, "/somewhere/frames")
    assert command._read_options(parser.parse_args(["--record", "/elsewhere"])).record == Path("/elsewhere")
    assert command._read_options(parser.parse_args([])).record == Path("/somewhere/frames")
