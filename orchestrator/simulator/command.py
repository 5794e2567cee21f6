"""The body of `orchestrator simulate`.

Imports nothing that only the `offline` extra installs before it is run, so that the command line works without it and can say
what is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import signal
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from orchestrator.errors import UserError, WireError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from orchestrator.simulator.phone.exchange import CallRules
    from orchestrator.simulator.server import SimulatorOptions

__all__ = ["DESCRIPTION", "add_arguments", "run_simulator"]

DESCRIPTION = (
    "Run the offline Realtime API: an endpoint on this machine that speaks the protocol, for trying, testing and load. "
    "It understands nothing and answers what a scenario file says. It never stands in for a real endpoint: a service talks "
    "to it only where its URL is configured."
)
LOCALHOST = "127.0.0.1"
COLLECTIONS = (20_000, 20, 20)
"""Thresholds of the garbage collector. Sessions make little that it alone can free, and with hundreds of them one full look
takes many milliseconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--host", default=LOCALHOST, help="address to listen on (default: %(default)s, this machine only)")
    parser.add_argument("--port", type=int, default=8090, help="port to listen on, 0 for a free one (default: %(default)s)")
    parser.add_argument(
        "--scenario",
        default="order_desk",
        help="name of a scenario that comes with it, or path of a YAML file (default: %(default)s)",
    )
    parser.add_argument("--list", action="store_true", help="say which scenarios come with it, and end")
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
    parser.add_argument(
        "--delta-ms", type=int, default=None, help="length of one audio delta (default: 200 ms, with --cheap 400 ms)"
    )
    parser.add_argument(
        "--first-output", type=float, default=0.3, metavar="SECONDS", help="time before an answer starts (default: %(default)s)"
    )
    parser.add_argument(
        "--session-seconds", type=float, default=3600.0, help="how long a session may last (default: %(default)s)"
    )
    parser.add_argument("--max-sessions", type=int, default=1024, help="refuse more sessions than this (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="make the ids repeat from run to run")
    parser.add_argument(
        "--api-form",
        choices=["openai", "azure"],
        default="openai",
        help="whose endpoint this looks like; azure: paths under /openai/v1, the header api-key, HTTP 401 for a wrong key "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--cheap",
        action="store_true",
        help="spend as little as possible on a session, for load: what clients send is read and heard up to 0.1 s later, in "
        "larger pieces",
    )
    _add_hearing_arguments(parser)
    _add_call_arguments(parser)
    parser.add_argument(
        "--record",
        type=Path,
        default=None,
        metavar="FILE",
        help="add every frame that is sent to this file, a line each, without the audio (default: what SIMULATOR_RECORD names)",
    )


def _add_hearing_arguments(parser: argparse.ArgumentParser) -> None:
    hearing = parser.add_argument_group("hearing", "what becomes of a caller's audio")
    hearing.add_argument(
        "--vad",
        choices=["silero", "energy", "coarse"],
        default=None,
        help="what finds speech: a model that knows voices from other sounds (45 ms of a processor for each second of audio), "
        "the level alone, which costs next to nothing, or that in steps of 0.1 s (default: silero; --cheap: coarse)",
    )
    hearing.add_argument(
        "--real-time", action="store_true", help="listen no faster than the audio plays (default: as fast as it is sent)"
    )
    hearing.add_argument(
        "--recognition",
        action="store_true",
        help="understand which phrase of the scenario was said (extra 'recognition'); without it the scenario says so",
    )


def _add_call_arguments(parser: argparse.ArgumentParser) -> None:
    calls = parser.add_argument_group("phone calls", "POST /simulator/calls makes a phone ring at a webhook URL")
    calls.add_argument(
        "--webhook-secret",
        metavar="whsec_…",
        default=None,
        help="sign the webhooks of calls that bring no secret of their own with this one",
    )
    calls.add_argument(
        "--webhooks-anywhere", action="store_true", help="deliver webhooks to other hosts too (default: to this machine only)"
    )
    calls.add_argument(
        "--ring-seconds", type=float, default=30.0, help="drop a call that nobody accepts in time (default: %(default)s)"
    )
    calls.add_argument(
        "--call-end-code",
        type=int,
        default=1000,
        metavar="CODE",
        help="close the sockets beside a call that is over with this WebSocket code (default: %(default)s)",
    )


def run_simulator(options: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status. With `--list`, print the shipped scenarios instead.

    When it listens, it prints one line of JSON on standard output: `event` ("simulator_ready"), `url`, `rest_url`, `port`.
    Raises UserError for a bad option or scenario, and where the extra `offline` is not installed.
    """
    if options.list:
        sys.stdout.write(_read_list())
        return 0
    chosen = _read_options(options)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(chosen))
    except OSError as error:
        raise UserError(f"cannot listen on {chosen.host}:{chosen.port}: {error.strerror or error}") from None
    return 0


@contextmanager
def _from_the_extra() -> Iterator[None]:
    """Around imports of what needs the extra: numpy and PyYAML come with it, and only this command needs them."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("numpy", "yaml"):
            raise
        raise UserError(f"the offline Realtime API needs {error.name}: pip install 'realtime-orchestrator[offline]'") from None


def _read_list() -> str:
    """A line for each scenario that comes with the package."""
    with _from_the_extra():
        from orchestrator.simulator.scenario import load_scenario, shipped_scenarios
    names = shipped_scenarios()
    width = max(len(name) for name in names)
    return "".join(f"{name:{width}}  {load_scenario(name).description}\n" for name in names)


def _read_options(options: argparse.Namespace) -> SimulatorOptions:
    with _from_the_extra():
        from orchestrator.simulator.endpoint.admission import AccessRules, ApiForm
        from orchestrator.simulator.endpoint.options import Timing
        from orchestrator.simulator.endpoint.session_machine import ModelOptions
        from orchestrator.simulator.frame_record import record_path
        from orchestrator.simulator.scenario import load_scenario
        from orchestrator.simulator.server import SimulatorOptions
    if options.pace < 0 or options.first_output < 0:
        raise UserError("--pace and --first-output cannot be negative")
    delta_ms = options.delta_ms if options.delta_ms is not None else (400 if options.cheap else 200)
    if delta_ms < 1 or options.session_seconds <= 0 or options.max_sessions < 1:
        raise UserError("--delta-ms, --session-seconds and --max-sessions must be more than 0")
    timing = Timing(first_output=options.first_output, pace=options.pace, delta_ms=delta_ms)
    return SimulatorOptions(
        scenario=load_scenario(options.scenario),
        host=options.host,
        port=options.port,
        access=AccessRules(
            keys=frozenset(options.api_key), models=frozenset(options.model), form=ApiForm[options.api_form.upper()]
        ),
        model=ModelOptions(
            timing=timing,
            vad=options.vad or ("coarse" if options.cheap else "silero"),
            real_time=options.real_time,
            session_seconds=options.session_seconds,
            recognition=options.recognition,
            call_end_code=options.call_end_code,
        ),
        calls=_read_call_rules(options),
        seed=options.seed,
        cheap=options.cheap,
        max_sessions=options.max_sessions,
        record=options.record or record_path(),
    )


def _read_call_rules(options: argparse.Namespace) -> CallRules:
    from orchestrator.simulator.phone.exchange import CallRules  # see _read_options
    from orchestrator.simulator.phone.webhook import WebhookSecret

    if options.ring_seconds <= 0:
        raise UserError("--ring-seconds must be more than 0")
    if options.call_end_code not in (1000, 1001) and not 3000 <= options.call_end_code < 5000:
        raise UserError("--call-end-code must be 1000, 1001 or between 3000 and 4999")
    try:
        secret = None if options.webhook_secret is None else WebhookSecret(options.webhook_secret)
    except WireError as error:
        raise UserError(f"--webhook-secret: {error.message}") from None
    return CallRules(ring_seconds=options.ring_seconds, webhook_secret=secret, webhooks_anywhere=options.webhooks_anywhere)


async def _serve(options: SimulatorOptions) -> None:
    from orchestrator.simulator.server import SimulatorServer  # see _read_options

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with SimulatorServer(options) as server:
        _spare_the_collector()
        ready = {"event": "simulator_ready", "url": server.url, "rest_url": server.rest_url, "port": server.port}
        sys.stdout.write(json.dumps(ready, separators=(",", ":")) + "\n")
        sys.stdout.flush()
        await stopped.wait()


def _spare_the_collector() -> None:
    """Have the garbage collector look less often, and never at what was there before the first session."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTIONS)
