"""The body of `orchestrator simulate`.

Imports nothing that only the `offline` extra installs before it is run, so that the command line works without it and can say
what is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING

import uvloop

from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.simulator.server import SimulatorOptions

__all__ = ["DESCRIPTION", "add_arguments", "run_simulator"]

DESCRIPTION = (
    "Run the offline Realtime API: an endpoint on this machine that speaks the protocol, for trying, testing and load. "
    "It understands nothing and answers what a scenario file says. It never stands in for a real endpoint: a service talks "
    "to it only where its URL is configured."
)
LOCALHOST = "127.0.0.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--host", default=LOCALHOST, help="address to listen on (default: %(default)s, this machine only)")
    parser.add_argument("--port", type=int, default=8090, help="port to listen on, 0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--scenario",
        default="order_desk",
        help="name of a scenario that comes with it, or path of a YAML file (default: %(default)s)",
    )
    parser.add_argument(
        "--api-key", action="append", default=[], metavar="KEY", help="accept only this key; repeat for more (default: any)"
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="know this model too, beside the usual names; repeatable"
    )
    parser.add_argument(
        "--pace",
        type=float,
        default=5.0,
        help="send audio so many times faster than it plays, 0: at once (default: %(default)s)",
    )
    parser.add_argument("--delta-ms", type=int, default=200, help="length of one audio delta (default: %(default)s ms)")
    parser.add_argument(
        "--first-output", type=float, default=0.3, metavar="SECONDS", help="time before an answer starts (default: %(default)s)"
    )
    parser.add_argument(
        "--session-seconds", type=float, default=3600.0, help="how long a session may last (default: %(default)s)"
    )
    parser.add_argument("--max-sessions", type=int, default=1024, help="refuse more sessions than this (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="make the ids repeat from run to run")


def run_simulator(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status.

    When it listens, it prints one line of JSON on standard output: `event` ("simulator_ready"), `url`, `port`. Raises
    UserError for a bad option or scenario, and where the extra `offline` is not installed.
    """
    chosen = _read_options(options)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(chosen))
    except OSError as error:
        raise UserError(f"cannot listen on {chosen.host}:{chosen.port}: {error.strerror or error}") from None
    return 0


def _read_options(options: argparse.Namespace) -> SimulatorOptions:
    # Imported here: numpy, PyYAML and espeak-ng come with the extra, and only this command needs them.
    try:
        from orchestrator.simulator.endpoint.admission import AccessRules
        from orchestrator.simulator.endpoint.responses import Timing
        from orchestrator.simulator.endpoint.session_machine import ModelOptions
        from orchestrator.simulator.scenario import load_scenario
        from orchestrator.simulator.server import SimulatorOptions
    except ModuleNotFoundError as error:
        if error.name not in ("numpy", "yaml"):
            raise
        raise UserError(f"the offline Realtime API needs {error.name}: pip install 'realtime-orchestrator[offline]'") from None
    if options.pace < 0 or options.first_output < 0:
        raise UserError("--pace and --first-output cannot be negative")
    if options.delta_ms < 1 or options.session_seconds <= 0 or options.max_sessions < 1:
        raise UserError("--delta-ms, --session-seconds and --max-sessions must be more than 0")
    timing = Timing(first_output=options.first_output, pace=options.pace, delta_ms=options.delta_ms)
    return SimulatorOptions(
        scenario=load_scenario(options.scenario),
        host=options.host,
        port=options.port,
        access=AccessRules(keys=frozenset(options.api_key), models=frozenset(options.model)),
        model=ModelOptions(timing=timing, session_seconds=options.session_seconds),
        seed=options.seed,
        max_sessions=options.max_sessions,
    )


async def _serve(options: SimulatorOptions) -> None:
    from orchestrator.simulator.server import SimulatorServer  # see _read_options

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with SimulatorServer(options) as server:
        ready = {"event": "simulator_ready", "url": server.url, "port": server.port}
        sys.stdout.write(json.dumps(ready, separators=(",", ":")) + "\n")
        sys.stdout.flush()
        await stopped.wait()
