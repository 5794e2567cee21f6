"""The load test's report, and the verdict in it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from rich.console import Console

from orchestrator.loadtest.report import Direction, LoadReport, render
from orchestrator.loadtest.usage import ProcessUsage

GOOD = Direction(sent=25_000, received=25_000, unsent=0, samples=24_000, p50_ms=0.31, p99_ms=2.25)
USAGE = ProcessUsage(processes=2, cpu=0.225, uss_mb=110.0, uss_growth_mb=10.0)
REPORT = LoadReport(
    channel="twilio",
    url="http://127.0.0.1:8080/twilio/voice",
    sessions=50,
    sessions_per_actor=32,
    seconds=10.0,
    connect_seconds=0.4,
    sessions_ok=50,
    faults={},
    uplink=GOOD,
    downlink=GOOD,
    session_actors=USAGE,
    gateway=USAGE,
    load_generator=USAGE,
    late_frames=0,
)

replace = msgspec.structs.replace


def printed(report: LoadReport) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(render(report))
    return capture.get()


def test_a_good_run_is_ok() -> None:
    assert REPORT.ok
    assert "50 of 50 sessions lived to the end, no frame dropped" in printed(REPORT)


@pytest.mark.parametrize(
    "change",
    [
        {"uplink": replace(GOOD, received=24_999)},
        {"downlink": replace(GOOD, received=24_999)},
        {"downlink": replace(GOOD, sent=0, received=0)},
        {"sessions_ok": 49},
    ],
)
def test_a_lost_frame_or_session_is_not_ok(change: dict[str, Any]) -> None:
    assert not replace(REPORT, **change).ok


def test_says_what_went_wrong() -> None:
    report = replace(
        REPORT, uplink=replace(GOOD, received=24_990), faults={"31951: not JSON": 3}, sessions_ok=47, late_frames=50
    )
    text = printed(report)
    for line in ("frames were dropped", "3 x 31951: not JSON", "47 of 50 sessions", "late with 50 frames (0.20%)"):
        assert line in text


def test_machines_get_what_is_derived_too() -> None:
    document = json.loads(REPORT.as_json())
    assert document["ok"] is True
    assert document["uplink"]["dropped"] == 0
    assert document["cpu_per_session"] == pytest.approx(0.0045)
    assert document["uss_mb_per_session"] == pytest.approx(2.2)
    assert document["uss_growth_mb_per_session"] == pytest.approx(0.2)


def test_a_service_elsewhere_has_no_usage() -> None:
    report = replace(
        REPORT, session_actors=None, gateway=None, sessions_per_actor=None, downlink=replace(GOOD, p50_ms=None, p99_ms=None)
    )
    document = json.loads(report.as_json())
    assert document["cpu_per_session"] is None
    assert "session actors" not in printed(report)
