"""`orchestrator simulate`: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from typing import Any

import pytest
from websockets.asyncio.client import connect

from orchestrator.errors import UserError
from orchestrator.simulator import command

PATIENCE = 60.0
PROGRAM = """
import argparse, sys
from orchestrator.simulator import command
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


@pytest.mark.parametrize("words", [["--pace", "-1"], ["--delta-ms", "0"], ["--session-seconds", "0"], ["--scenario", "none"]])
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
