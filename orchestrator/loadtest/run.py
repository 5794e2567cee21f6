"""The course of a load test: connect everybody, measure for a while, let the line run dry, count, hang up."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import msgspec

from orchestrator.errors import UserError
from orchestrator.loadtest.callers import Caller, Downlink, RealtimeCaller, TwilioCaller
from orchestrator.loadtest.histogram import Histogram
from orchestrator.loadtest.model_process import ModelProcess
from orchestrator.loadtest.model_stub import StubCounts
from orchestrator.loadtest.report import Direction, LoadReport
from orchestrator.loadtest.usage import ProcessUsage, UsageMeter

__all__ = ["CHANNELS", "MAX_SECONDS", "MAX_SESSIONS", "LoadPlan", "Progress", "caller_url", "run_load"]

MAX_SESSIONS = 2000
MAX_SECONDS = 3600.0
CHANNELS = ("twilio", "openai")

# As many handshakes at once as a busy minute brings; all at once would measure the listen queue.
_CONNECTS_AT_ONCE = 16
_WARM_UP_SECONDS = 1.0
_RUN_DRY_SECONDS = 5.0
_POLL_SECONDS = 0.1

Progress = Callable[[str, float], None]
"""Told what is done now, and the share of it that is done (0 to 1)."""


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. `seconds` is the measured time, without connecting and hanging up. Raises UserError beyond the bounds."""

    sessions: int
    seconds: float
    channel: str = "twilio"
    sessions_per_actor: int | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.sessions <= MAX_SESSIONS:
            raise UserError(f"the number of sessions must be from 1 to {MAX_SESSIONS}, not {self.sessions}")
        if not 1 <= self.seconds <= MAX_SECONDS:
            raise UserError(f"the time must be from 1 to {MAX_SECONDS:g} seconds, not {self.seconds:g}")
        if self.channel not in CHANNELS:
            raise UserError(f"the channel must be one of {', '.join(CHANNELS)}, not {self.channel!r}")
        if self.sessions_per_actor is not None and self.sessions_per_actor < 1:
            raise UserError("an actor must hold at least one session")


def caller_url(channel: str, url: str) -> str:
    """Complete the address of a service: a bare ws://host:port becomes what callers of that channel dial.

    Raises UserError when the URL is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss", "http", "https") or not parts.hostname:
        raise UserError(f"{url!r} is no URL of a service: write ws://host:port")
    secure = "s" if parts.scheme in ("wss", "https") else ""
    if parts.path not in ("", "/"):
        return url
    if channel == "twilio":
        return f"http{secure}://{parts.netloc}/twilio/voice"
    return f"ws{secure}://{parts.netloc}/v1/realtime?model=load-test"


async def run_load(
    plan: LoadPlan,
    url: str,
    model: ModelProcess,
    *,
    session_pids: Iterable[int] = (),
    gateway_pids: Iterable[int] = (),
    progress: Progress = lambda _what, _share: None,
) -> LoadReport:
    """Run one load test against a service whose model endpoint is `model`, and report.

    A session that fails is part of the report, not an error. Cancelling drops all calls.
    """
    downlink = Downlink()
    callers = [_make_caller(plan, number, url, downlink) for number in range(1, plan.sessions + 1)]
    actors, gateway = UsageMeter(session_pids), UsageMeter(gateway_pids)
    generator = UsageMeter([os.getpid(), model.pid])
    try:
        connecting_since = time.monotonic()
        await _connect_all(callers, progress)
        connect_seconds = time.monotonic() - connecting_since
        await asyncio.sleep(_WARM_UP_SECONDS)
        meters = (actors, gateway, generator)
        for meter in meters:
            meter.begin()
        await model.command("measure")
        downlink.measure_from_ns = time.monotonic_ns()
        await _pass_time(plan.seconds, progress)
        await model.command("hold")
        downlink.measure_from_ns = None
        usages = [meter.end() for meter in meters]
        counts = await _run_dry(callers, downlink, model)
        alive = sum(caller.fault is None for caller in callers)
    finally:
        progress("hanging up", 0.0)
        await asyncio.gather(*(caller.hang_up() for caller in callers))
    return _report(plan, url, callers, downlink, counts, usages, alive=alive, connect_seconds=connect_seconds)


def _make_caller(plan: LoadPlan, number: int, url: str, downlink: Downlink) -> Caller:
    if plan.channel == "twilio":
        return TwilioCaller(number, url, downlink)
    return RealtimeCaller(number, url, downlink, key=plan.key)


async def _connect_all(callers: list[Caller], progress: Progress) -> None:
    gate = asyncio.Semaphore(_CONNECTS_AT_ONCE)
    connected = 0

    async def connect(caller: Caller) -> None:
        nonlocal connected
        async with gate:
            await caller.connect()
        connected += 1
        progress("connecting", connected / len(callers))

    async with asyncio.TaskGroup() as group:
        for caller in callers:
            group.create_task(connect(caller))


async def _pass_time(seconds: float, progress: Progress) -> None:
    began_at = time.monotonic()
    while (passed := time.monotonic() - began_at) < seconds:
        progress("measuring", passed / seconds)
        await asyncio.sleep(min(0.25, seconds - passed))


async def _run_dry(callers: list[Caller], downlink: Downlink, model: ModelProcess) -> StubCounts:
    """Stop both sources, and wait until all that is under way has arrived, but not for ever: the rest is lost."""
    for caller in callers:
        caller.fall_silent()
    counts = await model.command("quiet")
    deadline = time.monotonic() + _RUN_DRY_SECONDS
    sent = sum(caller.frames_sent for caller in callers)
    while time.monotonic() < deadline and (counts.frames_received < sent or downlink.payloads < counts.deltas_sent):
        await asyncio.sleep(_POLL_SECONDS)
        counts = await model.command("count")
    return counts


def _report(
    plan: LoadPlan,
    url: str,
    callers: list[Caller],
    downlink: Downlink,
    counts: StubCounts,
    usages: list[ProcessUsage],
    *,
    alive: int,
    connect_seconds: float,
) -> LoadReport:
    actors, gateway, generator = usages
    upward = Histogram()
    upward.merge(counts.latency)
    faults = Counter(caller.fault for caller in callers if caller.fault is not None)
    return LoadReport(
        channel=plan.channel,
        url=url,
        sessions=plan.sessions,
        sessions_per_actor=plan.sessions_per_actor,
        seconds=plan.seconds,
        connect_seconds=connect_seconds,
        sessions_ok=min(alive, counts.open_sessions),
        faults=dict(faults.most_common(5)),
        uplink=Direction(
            sent=sum(caller.frames_sent for caller in callers),
            received=counts.frames_received,
            unsent=sum(caller.unsent() for caller in callers),
            samples=upward.count,
            p50_ms=upward.quantile_ms(0.5),
            p99_ms=upward.quantile_ms(0.99),
        ),
        downlink=Direction(
            sent=counts.deltas_sent,
            received=downlink.payloads,
            unsent=counts.deltas_unsent,
            samples=downlink.latency.count,
            p50_ms=downlink.latency.quantile_ms(0.5),
            p99_ms=downlink.latency.quantile_ms(0.99),
        ),
        session_actors=actors if actors.processes else None,
        gateway=gateway if gateway.processes else None,
        load_generator=generator,
        late_frames=sum(caller.late_frames for caller in callers),
    )
