"""Break everything beneath live calls, and see whether anybody notices: `python -m tests.chaos`, or `make chaos`."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from pathlib import Path

import msgspec

from orchestrator.service import sigterm_as_interrupt
from tests.chaos.deployment import Shape, deployed
from tests.chaos.faults import KINDS
from tests.chaos.report import show
from tests.chaos.run import PATHS, Orders, run

# Seconds that a run takes beside the time in which things break: starting, the last turns, reading the journal.
OVERHEAD = 50.0
NIGHT_MINUTES = 60.0
MINUTES = 4.0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    night = bool(os.environ.get("NIGHT"))
    parser.add_argument("--minutes", type=float, default=NIGHT_MINUTES if night else MINUTES, help="all in all (NIGHT=1: 60)")
    parser.add_argument("--seed", type=int, default=None, help="the order of faults and the callers' pauses")
    parser.add_argument(
        "--only", "--kind", action="append", default=[], choices=sorted(KINDS), metavar="KIND", help="repeatable"
    )
    parser.add_argument(
        "--kills", type=int, default=None, help="break until so many processes were killed, however long it takes"
    )
    parser.add_argument("--sessions", type=int, default=9, help="calls at once (default: %(default)s)")
    parser.add_argument("--sessions-per-actor", type=int, default=1, metavar="N")
    parser.add_argument("--spare-actors", type=int, default=4, metavar="N", help="session actors more than the calls need")
    parser.add_argument("--path", choices=(*PATHS, "both"), default="both", help="callers' connections")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds after which an unanswered call counts as lost")
    parser.add_argument("--postgres", action="store_true", help="the journal in a real PostgreSQL server, which is broken too")
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="leave journal and logs of the run there")
    return parser


def main() -> int:
    """Return 0 if nobody was harmed and every kind of fault was injected, else 1."""
    options = _parser().parse_args()
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    began = time.monotonic()

    def tell(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:6.1f}  {text}\n")
        sys.stdout.flush()

    tell(f"seed {seed}")
    shape = Shape(
        sessions=options.sessions,
        sessions_per_actor=options.sessions_per_actor,
        spare_actors=options.spare_actors,
        postgres=options.postgres,
    )
    orders = Orders(
        seed=seed,
        shape=shape,
        seconds=max(10.0, options.minutes * 60.0 - OVERHEAD),
        kinds=tuple(options.only) or (("session-actor",) if options.kills is not None else ()),
        kills=options.kills,
        paths=PATHS if options.path == "both" else (options.path,),
        patience=options.patience,
        rest=1.0 if options.kills is None else 0.2,
    )
    with sigterm_as_interrupt(), deployed(shape, keep=options.keep, tell=tell) as deployment:
        outcome = asyncio.run(run(deployment, orders, tell=tell))
    show(outcome)
    if options.keep is not None:
        (options.keep / "outcome.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcome)))
    return 0 if outcome.ok else 1


if __name__ == "__main__":
    sys.exit(main())
