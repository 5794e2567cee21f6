"""The judge of frames can say no, and the log by which every test is judged hears every endpoint."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI

from orchestrator.demo.endpoint import offline_endpoint
from orchestrator.simulator.scenario import load_scenario
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from tests.judges.frame_judge import FrameJudge, shape_of
from tests.judges.frame_log import FrameLog

CANONICAL = Path(__file__).parent.parent / "wire" / "canonical_frames.jsonl"
STARTED = {"type": "input_audio_buffer.speech_started", "event_id": "event_1", "audio_start_ms": 20, "item_id": "item_1"}


def compact(event: Any) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def test_frames_of_the_api_pass() -> None:
    judge = FrameJudge()
    complaints = [judge.complaint(line) for line in CANONICAL.read_bytes().splitlines()]
    assert len(complaints) > 20
    assert set(complaints) == {None}


@pytest.mark.parametrize(
    ("event", "complaint"),
    [
        ([], "does not begin"),
        ({"event_id": "event_1", "type": "input_audio_buffer.cleared"}, "does not begin"),
        ({"type": "input_audio_buffer.emptied", "event_id": "event_1"}, "there is no event"),
        ({**STARTED, "audio_start_ms": "20"}, "valid integer"),
        ({**STARTED, "item_id": None}, "valid string"),
        ({key: value for key, value in STARTED.items() if key != "item_id"}, "Field required"),
        ({**STARTED, "audio_begin_ms": 20}, "do not have: .*audio_begin_ms"),
    ],
)
def test_others_do_not(event: Any, complaint: str) -> None:
    judge = FrameJudge()
    assert judge.complaint(compact(STARTED)) is None
    assert re.search(complaint, judge.complaint(compact(event)) or "")


def test_nor_does_what_only_json_makes_of_it() -> None:
    assert FrameJudge().complaint(json.dumps(STARTED).encode()) == "it is not compact JSON"


def test_a_wrong_value_is_found_after_a_right_one_of_the_same_kind() -> None:
    judge = FrameJudge()
    item = {"id": "item_1", "type": "message", "status": "completed", "role": "user", "content": []}
    event = {"type": "conversation.item.added", "event_id": "event_1", "previous_item_id": None, "item": item}
    assert judge.complaint(compact(event)) is None
    assert judge.complaint(compact({**event, "item": {**item, "status": "finished"}})) is not None


def test_frames_that_differ_in_free_text_only_are_one_shape() -> None:
    first, second = {**STARTED, "audio_start_ms": 1}, {**STARTED, "event_id": "event_2", "audio_start_ms": 2}
    assert shape_of(first) == shape_of(second)
    assert shape_of(first) != shape_of({**STARTED, "type": "input_audio_buffer.speech_stopped"})


def test_the_log_names_the_frame_that_is_wrong_and_goes_on_behind_it(tmp_path: Path) -> None:
    log = FrameLog(tmp_path / "frames.jsonl")
    log.judge()
    log.path.write_bytes(compact(STARTED) + b"\n" + compact({**STARTED, "item_id": 7}) + b"\n")
    with pytest.raises(AssertionError, match=r"(?s)1 of 2 frames.*valid string.*\"item_id\":7"):
        log.judge()
    log.judge()
    assert log.frames == 2


async def greeted(url: str) -> None:
    """Let an endpoint send a few frames."""
    client = AsyncOpenAI(api_key="sk-judge", websocket_base_url=url.removesuffix("/realtime"))
    async with client.realtime.connect(model="gpt-realtime") as connection:
        await connection.response.create()
        async for event in connection:
            if event.type == "response.done":
                return


async def test_an_endpoint_of_this_process_is_heard(frame_log: FrameLog) -> None:
    before = frame_log.frames
    async with SimulatorServer(SimulatorOptions(load_scenario("order_desk"))) as server:
        await greeted(server.url)
    frame_log.judge()
    assert frame_log.frames > before + 10


async def test_an_endpoint_of_another_process_is_heard(frame_log: FrameLog, tmp_path: Path) -> None:
    before = frame_log.frames
    with offline_endpoint("order_desk", tmp_path / "endpoint.log") as url:
        await greeted(url)
    frame_log.judge()
    assert frame_log.frames > before + 10
