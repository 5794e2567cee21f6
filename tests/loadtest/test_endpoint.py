"""The offline endpoint under load, as a process of its own: what is counted, and what the report says. No number is judged."""

from __future__ import annotations

import json

import msgspec
import pytest

from orchestrator.errors import UserError
from orchestrator.loadtest.endpoint import EndpointPlan, EndpointReport, render_endpoint, run_endpoint_load
from orchestrator.loadtest.endpoint_modes import MODES

REPORT = EndpointReport(
    sessions=100,
    seconds=10.0,
    mode="cheap",
    sessions_ok=100,
    faults={},
    frames=50_000,
    deltas=1_250,
    answers=50,
    cpu=0.2,
    uss_mb=60.0,
    caller_cpu=0.5,
    late_frames=0,
    late_p50_ms=0.4,
    late_p99_ms=9.0,
)


async def test_callers_ask_and_are_answered() -> None:
    # The first caller speaks at once, the others when their time in the turn comes.
    report = await run_endpoint_load(EndpointPlan(sessions=3, seconds=4.0, mode="cheap"))
    assert report.faults == {}
    assert report.ok
    assert report.deltas > report.answers > 0
    assert report.frames > 0
    assert report.cpu > 0
    assert report.late_p50_ms is not None


@pytest.mark.parametrize(("sessions", "seconds", "mode"), [(0, 5, "cheap"), (5, 0, "cheap"), (5, 5, "free")])
def test_a_plan_has_bounds(sessions: int, seconds: float, mode: str) -> None:
    with pytest.raises(UserError):
        EndpointPlan(sessions=sessions, seconds=seconds, mode=mode)


def test_the_report_says_what_a_session_costs() -> None:
    document = json.loads(REPORT.as_json())
    assert document["ok"] is True
    assert document["sessions_per_core"] == 500
    assert document["cpu_per_session"] == 0.002
    assert document["cpu_us_per_frame"] == 40
    text = render_endpoint(REPORT).plain
    assert "20.0% of a core, 0.200% per session" in text
    assert "40.0 µs for each frame of a caller" in text
    assert "one core would feed 500 such sessions" in text
    assert "mind that" not in text


def test_the_report_says_what_went_wrong() -> None:
    report = msgspec.structs.replace(REPORT, sessions_ok=97, faults={"gone": 3}, late_frames=25_000, answers=0)
    assert not report.ok
    text = render_endpoint(report).plain
    assert "97 of 100 sessions lived" in text
    assert "3 x gone" in text
    assert "late with 50.0% of the frames: mind that" in text


def test_a_report_of_nothing_has_no_rates() -> None:
    report = msgspec.structs.replace(REPORT, frames=0, cpu=0.0, late_p50_ms=None, late_p99_ms=None)
    assert json.loads(report.as_json())["cpu_us_per_frame"] is None
    assert report.sessions_per_core == 0
    assert "\n- for each frame" in render_endpoint(report).plain
    assert "late by none" in render_endpoint(report).plain


def test_every_mode_is_one_of_the_endpoint() -> None:
    assert MODES["usual"] == ()
    assert MODES["cheap"] == ("--cheap",)
