"""The command line: what it offers, what it refuses, and what it does not import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from orchestrator import cli
from orchestrator.errors import UserError

COMMANDS = ("serve", "sessions", "replay", "simulate", "demo", "loadtest", "version")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: orchestrator {command}" in text
    assert len(text) > 80


def test_the_overview_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert f"\n    {command} " in text


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["dance"],
        ["loadtest", "--sessions", "many", "--seconds", "1"],
        ["serve"],
        ["version", "x"],
        ["sessions"],
        ["sessions", "dance"],
        ["sessions", "list", "--limit", "0"],
        ["sessions", "list", "--limit", "many"],
        ["sessions", "show"],
        ["sessions", "prune"],
        ["sessions", "prune", "--older-than", "30"],
        ["sessions", "prune", "--older-than", "-1d"],
        ["replay"],
    ],
)
def test_wrong_usage_is_status_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "usage: orchestrator" in capsys.readouterr().err


def test_prints_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out.startswith("realtime-orchestrator ")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["loadtest", "--sessions", "2001", "--seconds", "1"], "from 1 to 2000"),
        (["loadtest", "--sessions", "1", "--seconds", "3601"], "from 1 to 3600"),
        (["loadtest", "--sessions", "1", "--seconds", "1", "--url", "ws://127.0.0.1:1"], "--model-port"),
        (["serve", "nobody:there"], "cannot be imported"),
        (["serve", "--host", "0.0.0.0", "orchestrator.demo.agent:agent"], "without authentication"),
        (["simulate", "--scenario", "no-such-scenario"], "no-such-scenario"),
    ],
)
def test_a_fault_is_one_line_and_status_2(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert complaint in error
    assert error.endswith("]")


def test_the_live_demo_needs_a_key_and_never_falls_back(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "ORCHESTRATOR_MODEL_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["demo", "--live", "--json"]) == 2
    captured = capsys.readouterr()
    assert "OPENAI_API_KEY" in captured.err
    assert captured.out == ""


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupt)
    assert cli.main(["version"]) == 130


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> tuple[cli.AddArguments, cli.Run]:
        raise ModuleNotFoundError("No module named 'numpy'", name="numpy")

    with pytest.raises(UserError, match=r"needs numpy: pip install 'realtime-orchestrator\[offline\]'"):
        cli._load(cli._Command("", "", load))


def test_a_module_of_our_own_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    def load() -> tuple[cli.AddArguments, cli.Run]:
        raise ModuleNotFoundError("No module named 'orchestrator.gone'", name="orchestrator.gone")

    with pytest.raises(ModuleNotFoundError):
        cli._load(cli._Command("", "", load))


def test_parsing_imports_nothing_heavy() -> None:
    code = (
        "import sys, json\n"
        "from orchestrator import cli\n"
        f"for command in {COMMANDS!r}:\n"
        "    try: cli.main([command, '--help'])\n"
        "    except SystemExit: pass\n"
        "heavy = ('ray', 'actors', 'numpy', 'sqlalchemy', 'alembic', 'psycopg')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert json.loads(ran.stdout.splitlines()[-1]) == []
