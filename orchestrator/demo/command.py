"""The body of `orchestrator demo`: start everything, place one call, tell it, and check that every step was seen."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.console import Console
from rich.text import Text

from orchestrator.demo.endpoint import offline_endpoint
from orchestrator.demo.record import CallerView, CallRecord, DemoResult
from orchestrator.demo.recording import Recording
from orchestrator.demo.report import render
from orchestrator.demo.scene import Lines, play, speak_lines
from orchestrator.demo.steps import check
from orchestrator.errors import InfrastructureFault, UserError
from orchestrator.service import running_service, sigterm_as_interrupt
from orchestrator.settings import Secret, Settings, from_environment
from orchestrator.simulator.carrier.phone_call import CallOptions, PhoneCall

if TYPE_CHECKING:
    from actors.launch import Cluster

__all__ = ["add_arguments", "run_demo"]

LIVE_URL = "wss://api.openai.com/v1/realtime"
_AGENT = "orchestrator.demo.agent:agent"
_SCENARIO = "order_desk"
# The directory is filled from the gateway's report, once a second.
_LOOK_EVERY = 0.2
_END_WITHIN = 5.0

Tell = Callable[[str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output instead of the report")
    parser.add_argument(
        "--live", action="store_true", help=f"ask the real model at {LIVE_URL}; needs OPENAI_API_KEY, and costs money"
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs of all processes and a recording of the call")


def run_demo(options: argparse.Namespace) -> int:
    """Run the demo; returns 0 if every step was seen, else 1. Raises OrchestratorError when it cannot even start.

    The folder of the logs is kept, and named, when a step is missing or `--keep` was given.
    """
    console = Console(stderr=True)
    folder = Path(tempfile.mkdtemp(prefix="orchestrator-demo-"))
    kept = False
    try:
        with (
            sigterm_as_interrupt(),
            _progress(console) as tell,
            _endpoint(live=options.live, folder=folder, tell=tell) as settings,
        ):
            result = _place_call(settings, folder, keep=options.keep, tell=tell)
        kept = options.keep or not result.ok
    finally:
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        sys.stdout.buffer.write(result.as_json() + b"\n")
        sys.stdout.flush()
    else:
        Console().print(render(result))
    if kept:
        console.print(f"Logs and recording: {folder}", highlight=False, markup=False)
    return 0 if result.ok else 1


@contextmanager
def _progress(console: Console) -> Iterator[Tell]:
    """Show what happens: one line each, and on a terminal the last one beside something that moves."""
    began_at = time.monotonic()
    with console.status("starting") as status:

        def tell(text: str) -> None:
            line = Text(f"{time.monotonic() - began_at:5.1f} s  ", style="dim").append(text, style="not dim")
            console.print(line, highlight=False)
            status.update(Text(text))

        yield tell


@contextmanager
def _endpoint(*, live: bool, folder: Path, tell: Tell) -> Iterator[Settings]:
    """Yield settings for the real endpoint, or run the offline one; never the one in place of the other."""
    if live:
        # The key and the name of the model come from where a service has them; its other settings do not fit a demo.
        given = from_environment()
        if not given.model_api_key:
            raise UserError("--live asks the real model, and needs OPENAI_API_KEY; without --live the demo needs no account")
        yield _settings(LIVE_URL, given.model_name, given.model_api_key, folder)
        return
    tell("starting the offline Realtime API")
    with offline_endpoint(_SCENARIO, folder / "endpoint.log") as url:
        yield _settings(url, "gpt-realtime", Secret("offline"), folder)


def _settings(model_url: str, model_name: str, key: Secret, folder: Path) -> Settings:
    return Settings(
        agent=_AGENT,
        port=0,
        model_url=model_url,
        model_name=model_name,
        model_api_key=key,
        # Signed calls only, as in earnest.
        twilio_auth_token=Secret(secrets.token_hex(16)),
        session_actors=2,
        tool_actors=1,
        namespace=f"demo-{secrets.token_hex(4)}",
        # What was said in a demo is nobody's record.
        state_directory=str(folder),
    )


def _place_call(settings: Settings, folder: Path, *, keep: bool, tell: Tell) -> DemoResult:
    lines = speak_lines()
    with running_service(settings, on_progress=tell) as cluster:
        recording = Recording()
        host, port = cluster.gateway_address
        options = CallOptions(auth_token=settings.twilio_auth_token.reveal())
        call = PhoneCall(f"http://{host}:{port}/twilio/voice", options, recording=recording)
        caller, record, gateway_pid = asyncio.run(_talk(call, lines, cluster, tell))
        result = DemoResult(
            endpoint=LIVE_URL if settings.model_url == LIVE_URL else "offline, by a scenario",
            steps=check(caller, record),
            record=record,
            caller=caller,
            gateway_pid=gateway_pid,
            log=str(folder),
        )
        if keep or not result.ok:
            _keep_logs(cluster.log_directory, folder / "actors")
            recording.write(folder / "call.wav")
        tell("ending the service")
    return result


async def _talk(
    call: PhoneCall, lines: Lines, cluster: Cluster, tell: Tell
) -> tuple[CallerView, CallRecord | None, int | None]:
    """Place the call, and meanwhile find out which session it became; return both views of it."""
    finding = asyncio.create_task(_find_session(cluster), name="find the session")
    try:
        caller = await play(call, lines, tell)
        if not caller.answered:
            return caller, None, None
        async with asyncio.timeout(_END_WITHIN):
            session_id, gateway_pid = await finding
        return caller, await _final_record(cluster, session_id), gateway_pid
    except TimeoutError:
        return caller, None, None
    finally:
        finding.cancel()


async def _find_session(cluster: Cluster) -> tuple[str, int]:
    """Wait until the supervisor knows of the call; return its session and the gateway's pid."""
    while True:
        with suppress(InfrastructureFault):
            view = await asyncio.to_thread(cluster.snapshot)
            if view["sessions"]:
                return view["sessions"][0]["session"]["session_id"], view["gateways"][0]["pid"]
        await asyncio.sleep(_LOOK_EVERY)


async def _final_record(cluster: Cluster, session_id: str) -> CallRecord | None:
    """Return the record once the end is in it, or as it is after some seconds."""
    deadline = time.monotonic() + _END_WITHIN
    record: CallRecord | None = None
    while time.monotonic() < deadline:
        found = await asyncio.to_thread(cluster.describe, session_id)
        record = None if found is None else msgspec.convert(found, CallRecord)
        if record is not None and record.of_kind("end"):
            break
        await asyncio.sleep(_LOOK_EVERY)
    return record


def _keep_logs(source: Path, target: Path) -> None:
    """Copy what the actors wrote, since its place goes away with the cluster."""
    target.mkdir(exist_ok=True)
    for path in source.glob("worker-*"):
        if path.is_file() and path.stat().st_size:
            shutil.copy(path, target)
