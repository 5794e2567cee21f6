"""The commands as their users run them, each with a Ray of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.request

import pytest

COMMAND = [sys.executable, "-m", "orchestrator"]


@pytest.mark.cluster
@pytest.mark.timeout(180)
def test_serve_says_when_it_is_ready_and_ends_on_sigterm() -> None:
    arguments = ["serve", "orchestrator.demo.agent:agent", "--port", "0", "--model-url", "ws://127.0.0.1:1/v1/realtime"]
    few = ["--session-actors", "1", "--tool-actors", "1"]
    with subprocess.Popen([*COMMAND, *arguments, *few], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as service:
        assert service.stdout is not None
        line = service.stdout.readline()
        try:
            ready = json.loads(line)
            with urllib.request.urlopen(f"http://127.0.0.1:{ready['port']}/readyz") as answer:
                assert answer.status == 200
        finally:
            service.send_signal(signal.SIGTERM)
        rest, progress = service.communicate()
    assert ready["event"] == "service_ready"
    assert rest == b""
    assert service.returncode == 0, progress.decode()


@pytest.mark.cluster
@pytest.mark.timeout(180)
@pytest.mark.parametrize("channel", ["twilio", "openai"])
def test_a_small_load_loses_no_frame(channel: str) -> None:
    arguments = ["loadtest", "--sessions", "6", "--seconds", "3", "--sessions-per-actor", "6", "--channel", channel, "--json"]
    ran = subprocess.run([*COMMAND, *arguments], capture_output=True, check=False)
    assert ran.stdout, ran.stderr.decode()
    report = json.loads(ran.stdout)
    assert report["sessions_ok"] == 6, report["faults"]
    assert report["uplink"]["sent"] == report["uplink"]["received"] > 6 * 150
    assert report["downlink"]["sent"] == report["downlink"]["received"] > 0
    assert report["session_actors"]["processes"] == 1
    assert report["ok"] is True
    assert ran.returncode == 0
