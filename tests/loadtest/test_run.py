"""The plan of a load test, its bounds, and one whole run of a second against the stub itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.loadtest.model_process import model_process
from orchestrator.loadtest.run import LoadPlan, caller_url, run_load


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"sessions": 0}, "from 1 to 2000"),
        ({"sessions": 2001}, "from 1 to 2000"),
        ({"seconds": 0.5}, "from 1 to 3600"),
        ({"seconds": 3601}, "from 1 to 3600"),
        ({"channel": "carrier pigeon"}, "one of twilio, openai"),
        ({"sessions_per_actor": 0}, "at least one session"),
    ],
)
def test_a_plan_has_bounds(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        LoadPlan(**{"sessions": 1, "seconds": 1, **change})


@pytest.mark.parametrize(
    ("channel", "url", "complete"),
    [
        ("twilio", "ws://127.0.0.1:8080", "http://127.0.0.1:8080/twilio/voice"),
        ("twilio", "wss://voice.example.com/", "https://voice.example.com/twilio/voice"),
        ("twilio", "ws://127.0.0.1:8080/twilio/media", "ws://127.0.0.1:8080/twilio/media"),
        ("openai", "ws://127.0.0.1:8080", "ws://127.0.0.1:8080/v1/realtime?model=load-test"),
        ("openai", "https://voice.example.com", "wss://voice.example.com/v1/realtime?model=load-test"),
        ("openai", "wss://voice.example.com/other?model=m", "wss://voice.example.com/other?model=m"),
    ],
)
def test_a_bare_address_becomes_what_callers_dial(channel: str, url: str, complete: str) -> None:
    assert caller_url(channel, url) == complete


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "ftp://host", "ws://"])
def test_other_texts_are_no_address(url: str) -> None:
    with pytest.raises(UserError, match="no URL of a service"):
        caller_url("twilio", url)


async def test_a_run_without_a_service_loses_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    with model_process(tmp_path / "model.log") as model:
        plan = LoadPlan(sessions=4, seconds=1, channel="openai")
        report = await run_load(plan, model.url, model, progress=lambda what, _: told.append(what))
    assert report.sessions_ok == 4
    assert report.faults == {}
    assert report.uplink.received == report.uplink.sent > 0
    assert report.downlink.received == report.downlink.sent
    assert report.uplink.samples > 0
    assert report.session_actors is None
    assert report.load_generator.processes == 2
    assert list(dict.fromkeys(told)) == ["connecting", "measuring", "hanging up"]


async def test_a_service_that_is_not_there_fails_every_session(tmp_path: Path) -> None:
    with model_process(tmp_path / "model.log") as model:
        report = await run_load(LoadPlan(sessions=2, seconds=1), "http://127.0.0.1:1/twilio/voice", model)
    assert not report.ok
    assert report.sessions_ok == 0
    assert sum(report.faults.values()) == 2
