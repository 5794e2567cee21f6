"""Run many schedules: `python -m tests.simulation --schedules 100000 --seed 1 --jobs 2`.

Prints how fast it was, what was reached and how often, and each failure with the shortest schedule found. Exits with 1 if
there is one. What was never reached shows as 0, so that a check that cannot fail is seen.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import partial

import structlog

from orchestrator.telemetry.logs import configure
from tests.simulation.schedule import REACHED, Outcome, report, run

CHUNK = 250


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Schedules of faults, in virtual time.")
    parser.add_argument("--schedules", type=int, default=20_000, help="how many (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the first one's seed (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default %(default)s)")
    options = parser.parse_args(arguments)
    began = time.perf_counter()
    steps, seen, failed = 0, Counter[str](), list[int]()
    for chunk_steps, chunk_seen, chunk_failed in _chunks(options.seed, options.schedules, options.jobs):
        steps += chunk_steps
        seen += chunk_seen
        failed += chunk_failed
        _say(f"\r{steps:,} steps, {len(failed)} failed", end="")
    took = time.perf_counter() - began
    count = options.schedules
    _say(f"\r{count:,} schedules from seed {options.seed}, {steps:,} steps in {took:.0f} s: {count / took:.0f} schedules/s")
    for name in sorted({*seen, *REACHED}):
        _say(f"{seen[name]:10,}  {name}{'   <- never reached' if not seen[name] else ''}")
    for seed in failed[:3]:
        _say(report(run(seed)))
    if failed:
        _say(f"{len(failed)} of {count:,} schedules failed: seeds {', '.join(map(str, failed[:20]))}")
    return 1 if failed else 0


def _chunks(seed: int, count: int, jobs: int) -> Iterator[tuple[int, Counter[str], list[int]]]:
    starts = range(seed, seed + count, CHUNK)
    work = partial(run_chunk, end=seed + count)
    with ExitStack() as stack:
        if jobs == 1:
            yield from map(work, starts)
        else:
            yield from stack.enter_context(ProcessPoolExecutor(jobs)).map(work, starts)


def run_chunk(start: int, end: int) -> tuple[int, Counter[str], list[int]]:
    """Run the schedules of these seeds, in silence."""
    before = structlog.get_config()
    configure("critical")
    try:
        return _run_chunk(start, end)
    finally:
        structlog.configure(**before)


def _run_chunk(start: int, end: int) -> tuple[int, Counter[str], list[int]]:
    """Run some schedules: the steps that they took, what was seen, and the seeds of those that failed."""
    outcomes: list[Outcome] = []
    seen = Counter[str]()
    for seed in range(start, min(start + CHUNK, end)):
        outcome = run(seed)
        seen += outcome.seen
        outcomes.append(outcome)
    failed = [outcome.seed for outcome in outcomes if outcome.violation is not None]
    return sum(outcome.steps for outcome in outcomes), seen, failed


def _say(text: str, end: str = "\n") -> None:
    sys.stdout.write(text + end)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
