"""Runs an example as somebody would who has just found it: a process of its own, fed and read from outside."""

from __future__ import annotations

import os
import pty
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parent.parent.parent
END_OF_INPUT = "\x04"


def environment(**more: str) -> dict[str, str]:
    """Return ours without what would let an example reach an account."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OPENAI_")} | more


def start(*words: str, typed: str = "", env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Start `python -m ...` with all of its input in a pipe; see `finish`."""
    theirs, ours = os.pipe()
    os.write(ours, typed.encode())  # A pipe holds far more than that.
    os.close(ours)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=env or environment(),
        )
    finally:
        os.close(theirs)


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Wait for its end; return its status, output and errors."""
    with process:
        try:
            output, errors = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            raise
    return process.returncode, output, errors


def run(*words: str, typed: str = "", env: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run `python -m ...` to its end."""
    return finish(start(*words, typed=typed, env=env))


class AtTerminal:
    """`with AtTerminal("module", ...) as it:` runs `python -m module ...` on a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", *words]
        self._process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env=environment(), start_new_session=True
        )
        os.close(theirs)
        self._unread = ""
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def expect(self, text: str, within: float = 30.0) -> str:
        """Wait until the text has appeared after what was expected before; return all up to its end."""
        deadline = time.monotonic() + within
        while text not in self._unread:
            assert self._read(deadline), f"{text!r} did not appear in:\n{self.seen}"
        before, _, self._unread = self._unread.partition(text)
        return before + text

    def type(self, text: str) -> None:
        """Type; a line ends with a newline."""
        os.write(self._ours, text.encode())

    def press_ctrl_c(self) -> None:
        """Do to the process what the terminal does on Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def wait(self, within: float = 15.0) -> int:
        """Wait for the end; return the status."""
        deadline = time.monotonic() + within
        while self._read(deadline):
            pass
        return self._process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self._ours, selectors.EVENT_READ)
            if not selector.select(max(0.0, deadline - time.monotonic())):
                return False
        try:
            piece = os.read(self._ours, 4096).decode(errors="replace")
        except OSError:
            return False  # Linux says so when the last process has left the terminal.
        self._unread += piece
        self.seen += piece
        return bool(piece)
