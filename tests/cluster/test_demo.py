"""The main job on real input: the demo as its user runs it, on a Ray of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

STEPS = [
    "answered",
    "session_actor",
    "question_heard",
    "tool_called",
    "answer_heard",
    "barge_in",
    "history_cut",
    "goodbye_heard",
    "ended",
    "clean_protocol",
]


@pytest.mark.cluster
@pytest.mark.timeout(240)
def test_one_call_shows_every_step() -> None:
    # Settings of the surroundings must not change what the demo shows, and it needs no account.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ORCHESTRATOR_", "OPENAI_"))}
    ran = subprocess.run(
        [sys.executable, "-m", "orchestrator", "demo", "--json"], capture_output=True, env=environment, check=False, timeout=220
    )
    assert ran.stdout, ran.stderr.decode()
    result = json.loads(ran.stdout)
    assert result["missing"] == [], result["steps"]
    assert ran.returncode == 0
    assert [step["name"] for step in result["steps"]] == STEPS
    assert result["ok"] is True
    pids = {result["record"]["session_actor_pid"], result["gateway_pid"]}
    (tool,) = [entry for entry in result["record"]["entries"] if entry["kind"] == "tool"]
    assert len(pids | {tool["pid"]}) == 3
    assert result["record"]["timings"]["first_audio_ms"]
    assert result["record"]["timings"]["barge_in_to_clear_ms"]
