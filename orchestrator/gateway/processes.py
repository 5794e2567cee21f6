"""The processes of a node's session actors: when they are dead, and how to end one for certain.

A pid alone is no name of a process, since the next one may have it: each is held by a descriptor of its own (`pidfd_open(2)`),
which becomes readable when the process has ended and can never mean another one.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Processes"]


class Processes:
    """Watches processes from `watch` until they are dead. `on_gone` is told the name and the pid, once for each."""

    def __init__(self, on_gone: Callable[[str, int], None]) -> None:
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        # By name and pid.
        self._watched: dict[tuple[str, int], int] = {}

    def watch(self, name: str, pid: int) -> None:
        """Watch a process that has told us its pid just now. Tells soon that it is gone, where it is."""
        if (name, pid) in self._watched:
            return
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            self._loop.call_soon(self._on_gone, name, pid)
            return
        self._watched[name, pid] = descriptor
        self._loop.add_reader(descriptor, self._ended, name, pid)

    def kill(self, name: str, pid: int) -> None:
        """End a watched process at once; that it is gone is told when it is."""
        self._signal(name, pid, signal.SIGKILL)

    def ask_for_dump(self, name: str, pid: int) -> None:
        """Have a watched process write down where its threads are."""
        self._signal(name, pid, signal.SIGUSR1)

    def close(self) -> None:
        """Watch no more. Idempotent."""
        for descriptor in self._watched.values():
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
        self._watched.clear()

    def _signal(self, name: str, pid: int, number: signal.Signals) -> None:
        descriptor = self._watched.get((name, pid))
        if descriptor is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)

    def _ended(self, name: str, pid: int) -> None:
        descriptor = self._watched.pop((name, pid))
        self._loop.remove_reader(descriptor)
        os.close(descriptor)
        self._on_gone(name, pid)
