"""A Python module of ours as a child process that speaks in lines: a ready line first, then one line for each question."""

from __future__ import annotations

import contextlib
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, cast

from orchestrator.errors import InfrastructureFault

__all__ = ["ChildProcess"]

_PIECE = 64 * 1024


class ChildProcess:
    """`with ChildProcess("module", arguments, log=path) as child:` runs `python -m module`; it ends with the block.

    Its standard error goes to the file `log`, and the last line of that is part of the fault when it ends too soon. The
    methods block; times are seconds.
    """

    def __init__(self, module: str, arguments: Sequence[str] = (), *, log: Path, stop_within: float = 5.0) -> None:
        self._module = module
        self._arguments = tuple(arguments)
        self._log = log
        self._stop_within = stop_within
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    @property
    def pid(self) -> int:
        """The process, inside the block."""
        return self._running.pid

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", self._module, *self._arguments]
        with self._log.open("ab") as errors:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors)  # noqa: S603 - our own module
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        process = self._running
        process.terminate()
        try:
            process.wait(self._stop_within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                # A line that the child did not live to read is still in the buffer, and close() would write it.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def ask(self, line: bytes, within: float) -> bytes:
        """Send a line and return the answer. Raises as `read_line`."""
        stdin = cast(BinaryIO, self._running.stdin)
        try:
            stdin.write(line + b"\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self.read_line(within)

    def read_line(self, within: float) -> bytes:
        """Return the next line, without its end. Raises InfrastructureFault when it does not come in time, or never."""
        output = cast(BinaryIO, self._running.stdout)
        deadline = time.monotonic() + within
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while b"\n" not in self._unread:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise InfrastructureFault(f"{self._module} gave no answer within {within:g} s")
                piece = output.read1(_PIECE)  # type: ignore[attr-defined]  # it is buffered, which BinaryIO does not say
                if not piece:
                    raise self._ended()
                self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise AssertionError("used outside of its block")
        return self._process

    def _ended(self) -> InfrastructureFault:
        said = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return InfrastructureFault(f"{self._module} ended: {said[-1] if said else 'it gave no reason'}")
