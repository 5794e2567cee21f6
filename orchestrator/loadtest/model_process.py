"""The model stub as a child process, and the way to talk to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from orchestrator.child_process import ChildProcess
from orchestrator.loadtest.model_stub import StubCounts

__all__ = ["ModelProcess", "model_process"]

_START_SECONDS = 30.0
_ANSWER_SECONDS = 20.0


class _Ready(msgspec.Struct):
    port: int


class ModelProcess:
    """A running stub."""

    def __init__(self, child: ChildProcess, port: int) -> None:
        self._child = child
        self.port = port

    @property
    def url(self) -> str:
        """What a service has to use as its model endpoint."""
        return f"ws://127.0.0.1:{self.port}/v1/realtime"

    @property
    def pid(self) -> int:
        """The stub's process."""
        return self._child.pid

    async def command(self, word: str) -> StubCounts:
        """Send a command of `ModelStub.command` and return its counts. Raises InfrastructureFault when the stub is gone.

        One at a time. Cancelling waits for the answer all the same, in a thread.
        """
        answer = await asyncio.to_thread(self._child.ask, word.encode(), _ANSWER_SECONDS)
        return msgspec.json.decode(answer, type=StubCounts)


@contextmanager
def model_process(log: Path, port: int = 0) -> Iterator[ModelProcess]:
    """Run the stub; it ends with the block. `port` 0 takes any free one. Its errors go to the file `log`.

    Raises InfrastructureFault when it does not start within 30 s.
    """
    with ChildProcess("orchestrator.loadtest.model_stub", ("--port", str(port)), log=log) as child:
        yield ModelProcess(child, msgspec.json.decode(child.read_line(_START_SECONDS), type=_Ready).port)
