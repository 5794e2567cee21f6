"""Children that speak in lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.child_process import ChildProcess
from orchestrator.errors import InfrastructureFault


def test_asks_and_answers(tmp_path: Path) -> None:
    with ChildProcess("json.tool", ("--json-lines", "--compact"), log=tmp_path / "log") as child:
        assert child.pid > 0
        with pytest.raises(InfrastructureFault, match=r"json\.tool gave no answer within"):
            child.read_line(0.0)


def test_says_why_a_child_ended(tmp_path: Path) -> None:
    with (
        ChildProcess("no_such_module_here", log=tmp_path / "log") as child,
        pytest.raises(InfrastructureFault, match=r"no_such_module_here ended: .*No module named"),
    ):
        child.read_line(30.0)


def test_a_dead_child_answers_nothing(tmp_path: Path) -> None:
    with ChildProcess("this", log=tmp_path / "log") as child:
        assert child.read_line(30.0).startswith(b"The Zen")
        with pytest.raises(InfrastructureFault, match="this ended: it gave no reason"):
            ask_until_it_ends(child)


def test_a_line_that_a_dead_child_left_unread_does_no_harm(tmp_path: Path) -> None:
    child = ChildProcess("this", log=tmp_path / "log")
    with child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(InfrastructureFault, match="this ended"):
            child.ask(b"more", 30.0)


def ask_until_it_ends(child: ChildProcess) -> None:
    while True:
        child.ask(b"more", 30.0)


def test_is_used_in_its_block(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="outside of its block"):
        _ = ChildProcess("this", log=tmp_path / "log").pid
