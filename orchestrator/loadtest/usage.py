"""CPU and memory of processes of this machine, by pid, over the measured time."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

import msgspec
import psutil

__all__ = ["ProcessUsage", "UsageMeter"]


class ProcessUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What a group of processes used: seconds of CPU per second of time (1.0 is a whole core), and memory of their own.

    `uss_mb` is memory that would be free if they ended, in megabytes; `uss_growth_mb` what of it came after `UsageMeter`
    was made, that is with the calls.
    """

    processes: int
    cpu: float
    uss_mb: float
    uss_growth_mb: float


class UsageMeter:
    """Reads the counters of one group of processes. Make it while the service is idle, `begin` when measuring starts."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._processes = [psutil.Process(pid) for pid in sorted(set(pids)) if psutil.pid_exists(pid)]
        self._idle_uss = self._uss()
        self._began_at = 0.0
        self._began_cpu: dict[int, float] = {}

    def begin(self) -> None:
        """Start to measure."""
        self._began_at, self._began_cpu = time.monotonic(), self._cpu()

    def end(self) -> ProcessUsage:
        """Read what was used since `begin`. A process that died meanwhile counts as none at all."""
        seconds = time.monotonic() - self._began_at
        uss = self._uss()
        used = {pid: cpu - self._began_cpu[pid] for pid, cpu in self._cpu().items() if pid in self._began_cpu}
        return ProcessUsage(
            processes=len(used),
            cpu=sum(used.values()) / seconds,
            uss_mb=uss / 1e6,
            uss_growth_mb=(uss - self._idle_uss) / 1e6,
        )

    def _cpu(self) -> dict[int, float]:
        seconds = {}
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                seconds[process.pid] = times.user + times.system
        return seconds

    def _uss(self) -> int:
        total = 0
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().uss
        return total
