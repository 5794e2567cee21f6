"""The body of `orchestrator loadtest`: options, a service to test, a progress bar, the report."""

from __future__ import annotations

import argparse
import math
import resource
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from orchestrator.errors import UserError
from orchestrator.loadtest.endpoint_modes import MODES
from orchestrator.loadtest.model_process import ModelProcess, model_process
from orchestrator.loadtest.report import LoadReport, render
from orchestrator.loadtest.run import CHANNELS, MAX_SECONDS, MAX_SESSIONS, LoadPlan, caller_url, run_load
from orchestrator.service import running_service, sigterm_as_interrupt
from orchestrator.settings import Secret, Settings

if TYPE_CHECKING:
    from actors.launch import Cluster
    from orchestrator.loadtest.run import Progress as Tell

__all__ = ["add_arguments", "run_loadtest"]

_AGENT = "orchestrator.demo.agent:agent"
_FILES_PER_SESSION = 4
_DIRECT_SECONDS = 5.0
# Gateways report once a second.
_REPORT_SECONDS = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--sessions", type=int, required=True, metavar="N", help=f"calls at once, at most {MAX_SESSIONS}")
    parser.add_argument(
        "--seconds", type=float, required=True, metavar="S", help=f"how long to measure, at most {MAX_SECONDS:g}"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output instead of the report")
    parser.add_argument(
        "--channel", choices=CHANNELS, default="twilio", help="what kind of callers to simulate (default: %(default)s)"
    )
    parser.add_argument(
        "--sessions-per-actor", type=int, default=1, metavar="K", help="calls that one session actor holds (default: 1)"
    )
    parser.add_argument(
        "--url",
        help="test the service at this address (ws://host:port) instead of starting one; its model endpoint must be the stub "
        "of this command, at the port of --model-port on this machine",
    )
    parser.add_argument("--model-port", type=int, default=0, metavar="PORT", help="port of the stub that plays the model")
    parser.add_argument(
        "--endpoint",
        choices=sorted(MODES),
        help="measure the offline endpoint itself (orchestrator simulate) and no service: what a session costs it as it comes, "
        "with --vad energy, or with --cheap",
    )
    parser.add_argument("--key", help="key for the front door of the service at --url")


def run_loadtest(options: argparse.Namespace) -> int:
    """Run one load test; returns 0 if nothing was lost, else 1. Raises UserError for what it cannot do."""
    if options.endpoint:
        return _test_endpoint(options)
    plan = LoadPlan(
        sessions=options.sessions,
        seconds=options.seconds,
        channel=options.channel,
        sessions_per_actor=None if options.url else options.sessions_per_actor,
        key=options.key,
    )
    if options.url and not options.model_port:
        raise UserError("--url needs --model-port: the service must have been started with ORCHESTRATOR_MODEL_URL at that port")
    _allow_files(plan.sessions * _FILES_PER_SESSION + 256)
    console = Console(stderr=True)
    with (
        sigterm_as_interrupt(),
        tempfile.TemporaryDirectory(prefix="orchestrator-loadtest-") as folder,
        _progress(console) as tell,
    ):
        log = Path(folder) / "model.log"
        direct = _test_without_service(plan, log, tell)
        with model_process(log, options.model_port) as model:
            if options.url:
                url = caller_url(plan.channel, options.url)
                report = uvloop.run(run_load(plan, url, model, progress=tell))
            else:
                report = _test_own_service(plan, model, Path(folder), tell)
    report = msgspec.structs.replace(report, direct_uplink=direct.uplink, direct_downlink=direct.downlink)
    if options.json:
        sys.stdout.buffer.write(report.as_json() + b"\n")
        sys.stdout.flush()
    else:
        Console().print(render(report))
    return 0 if report.ok else 1


def _test_endpoint(options: argparse.Namespace) -> int:
    # Only here: it renders speech, and needs what comes with that.
    from orchestrator.loadtest.endpoint import EndpointPlan, render_endpoint, run_endpoint_load

    plan = EndpointPlan(sessions=options.sessions, seconds=options.seconds, mode=options.endpoint)
    _allow_files(plan.sessions * _FILES_PER_SESSION + 256)
    with sigterm_as_interrupt():
        report = uvloop.run(run_endpoint_load(plan))
    if options.json:
        sys.stdout.buffer.write(report.as_json() + b"\n")
        sys.stdout.flush()
    else:
        Console().print(render_endpoint(report))
    return 0 if report.ok else 1


def _test_without_service(plan: LoadPlan, log: Path, tell: Tell) -> LoadReport:
    """Let the callers talk to the model stub directly: what they measure then is the machine and the load generator."""
    plan = msgspec.structs.replace(plan, channel="openai", seconds=min(plan.seconds, _DIRECT_SECONDS), key=None)
    with model_process(log) as model:
        return uvloop.run(
            run_load(plan, model.url, model, progress=lambda what, share: tell(f"without a service: {what}", share))
        )


def _test_own_service(plan: LoadPlan, model: ModelProcess, folder: Path, tell: Tell) -> LoadReport:
    per_actor = plan.sessions_per_actor or 1
    settings = Settings(
        agent=_AGENT,
        port=0,
        max_sessions=plan.sessions,
        model_url=model.url,
        model_api_key=Secret("load-test"),
        session_actors=math.ceil(plan.sessions / per_actor),
        sessions_per_actor=per_actor,
        tool_actors=1,
        namespace=f"loadtest-{secrets.token_hex(4)}",
        log_level="warning",
        state_directory=str(folder),
    )
    with running_service(settings, on_progress=lambda text: tell(text, 0.0)) as cluster:
        host, port = cluster.gateway_address
        url = caller_url(plan.channel, f"ws://{host}:{port}")
        return uvloop.run(
            run_load(
                plan,
                url,
                model,
                session_pids=cluster.session_actor_pids().values(),
                gateway_pids=_gateway_pids(cluster),
                progress=tell,
            )
        )


def _gateway_pids(cluster: Cluster) -> list[int]:
    """Return the processes of the gateways, once each has made its first report."""
    deadline = time.monotonic() + _REPORT_SECONDS
    while not (gateways := cluster.snapshot()["gateways"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [gateway["pid"] for gateway in gateways]


@contextmanager
def _progress(console: Console) -> Iterator[Tell]:
    """Show a progress bar on a terminal, and nothing elsewhere."""
    columns = (TextColumn("{task.description:30}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=1.0)

        def tell(what: str, share: float) -> None:
            bar.update(task, description=what, completed=share)

        yield tell


def _allow_files(wanted: int) -> None:
    """Raise the limit of open files, which this process and all that it starts will need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise UserError(f"so many sessions need {wanted} open files, and this user may open {hard}: raise `ulimit -n`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
