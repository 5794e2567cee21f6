"""The offline Realtime API as a child process of the demo."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from orchestrator.child_process import ChildProcess

__all__ = ["offline_endpoint"]

_START_SECONDS = 30.0


class _Ready(msgspec.Struct):
    url: str


@contextmanager
def offline_endpoint(scenario: str, log: Path) -> Iterator[str]:
    """Run the endpoint with a scenario on any free port and yield its URL; it ends with the block.

    Its errors go to the file `log`. Raises InfrastructureFault when it does not start within 30 s.
    """
    # Voices by their level alone: what is shown and measured is the service, which needs the processor for itself.
    arguments = ("simulate", "--port", "0", "--scenario", scenario, "--vad", "energy")
    with ChildProcess("orchestrator", arguments, log=log) as child:
        yield msgspec.json.decode(child.read_line(_START_SECONDS), type=_Ready).url
