"""CPU and memory of processes."""

from __future__ import annotations

import os
import subprocess
import sys

from orchestrator.loadtest.usage import UsageMeter


def test_measures_this_process() -> None:
    meter = UsageMeter([os.getpid(), os.getpid()])
    meter.begin()
    sum(range(100_000))
    usage = meter.end()
    assert usage.processes == 1
    assert usage.cpu >= 0
    assert usage.uss_mb > 1


def test_a_process_that_died_counts_as_none() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        meter = UsageMeter([process.pid])
        meter.begin()
    usage = meter.end()
    assert (usage.processes, usage.cpu, usage.uss_mb) == (0, 0.0, 0.0)


def test_no_process_is_no_usage() -> None:
    meter = UsageMeter([])
    meter.begin()
    assert meter.end().processes == 0
