# ruff: noqa: T201 - a command for people
"""The long run: `python -m tests.survival --kills 3000 --random 300`. Prints a table; fails if any caller noticed anything."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import Counter

from tests.survival.run import Result, run


def _print(title: str, result: Result, seconds: float) -> None:
    print(f"\n{title}: {result.kills} owners killed, {result.held} callers held in all, {seconds:.0f} s")
    print(
        f"{'':10}{'calls':>7}{'echoes':>9}{'produced':>10}{'dropped':>9}{'deaths':>8}{'lost':>6}{'doubled':>9}{'faults':>8}{'gap':>8}"
    )
    for name, tally in (("direct", result.direct), ("chopped", result.chopped), ("short", result.short)):
        counts = f"{tally.connections:7}{tally.echoes:9}{tally.produced:10}{tally.dropped:9}"
        print(
            f"{name:10}{counts}{tally.deaths:8}{tally.lost:6}{tally.doubled:9}{tally.faults:8}{tally.largest_gap * 1000:6.0f}ms"
        )
    print("ends:", result.ends)
    if result.places:
        functions = Counter[str]()
        for place, count in result.places.items():
            functions[place.rpartition(" ")[0]] += count
        print(f"killed at {len(result.places)} lines of {len(functions)} functions:")
        for function, count in functions.most_common():
            print(f"  {count:5}  {function}")
    for note in result.notes:
        print("  !", note)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.survival", description=__doc__)
    parser.add_argument("--kills", type=int, default=2000, help="owners that kill themselves at a line of the code")
    parser.add_argument("--random", type=int, default=200, help="owners that are killed at a random moment")
    parser.add_argument("--callers", type=int, default=4, help="long calls, direct and chopped each")
    parser.add_argument("--seed", type=int, default=None)
    args = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if args.seed is None else args.seed
    print(f"seed {seed}")
    clean = True
    for title, kills, injected in (("random", args.random, False), ("injected", args.kills, True)):
        if kills:
            began = time.monotonic()
            result = asyncio.run(run(kills=kills, injected=injected, seed=seed, callers=args.callers))
            _print(title, result, time.monotonic() - began)
            clean = clean and result.clean
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
