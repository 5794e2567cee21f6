"""What the offline endpoint itself costs: callers that talk to it directly, and its processor time per session.

The endpoint must never be what a benchmark measures, so this says how many sessions one of its processes can feed. Each caller
sends 50 frames of µ-law a second, asks something aloud, and listens; the answers fill half of the time.
"""

from __future__ import annotations

import asyncio
import base64
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from rich.text import Text

from orchestrator.child_process import ChildProcess
from orchestrator.errors import UserError
from orchestrator.loadtest.callers import Caller, Downlink
from orchestrator.loadtest.endpoint_modes import MODES
from orchestrator.loadtest.histogram import Histogram
from orchestrator.loadtest.run import MAX_SECONDS, MAX_SESSIONS
from orchestrator.loadtest.usage import UsageMeter
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.carrier.playout import FRAME_BYTES, FRAME_SECONDS
from orchestrator.simulator.speech import SpeechRequest, synthesize
from orchestrator.transports.base import Leg, LegOptions
from orchestrator.wire.realtime import base64_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.loadtest.tag import Tag

__all__ = ["EndpointPlan", "EndpointReport", "render_endpoint", "run_endpoint_load"]

_QUESTION = "What can you tell me?"
_ANSWER = "This is what I have to say, at an even pace and for some seconds, so that one of us speaks for half of the time."
_PACE = 5.0
_START_SECONDS = 60.0
_WARM_UP_SECONDS = 1.0
_CONNECTS_AT_ONCE = 16
_GOLDEN_RATIO = 0.618034
_OPTIONS = LegOptions(open_timeout=20.0, close_timeout=5.0)
_DELTA = b'"delta":"'
_HEAD, _TAIL = b'{"type":"input_audio_buffer.append","audio":"', b'"}'
_SESSION = msgspec.json.encode(
    {
        "type": "session.update",
        "session": {
            "type": "realtime",
            "audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}},
        },
    }
)


class EndpointPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure: `mode` is one of MODES, `seconds` the measured time. Raises UserError beyond the bounds."""

    sessions: int
    seconds: float
    mode: str = "usual"

    def __post_init__(self) -> None:
        if not 1 <= self.sessions <= MAX_SESSIONS:
            raise UserError(f"the number of sessions must be from 1 to {MAX_SESSIONS}, not {self.sessions}")
        if not 1 <= self.seconds <= MAX_SECONDS:
            raise UserError(f"the time must be from 1 to {MAX_SECONDS:g} seconds, not {self.seconds:g}")
        if self.mode not in MODES:
            raise UserError(f"the mode must be one of {', '.join(MODES)}, not {self.mode!r}")


class EndpointReport(msgspec.Struct, frozen=True, kw_only=True):
    """What came out. `cpu` is that of the endpoint's process, in cores; lateness is that of audio deltas against their pace.

    `late_frames` are those that the callers sent a whole frame too late: with many of them, the machine was too busy to tell.
    """

    sessions: int
    seconds: float
    mode: str
    sessions_ok: int
    faults: dict[str, int]
    frames: int
    deltas: int
    answers: int
    cpu: float
    uss_mb: float
    caller_cpu: float
    late_frames: int
    late_p50_ms: float | None
    late_p99_ms: float | None

    @property
    def ok(self) -> bool:
        """Whether all sessions lived and the endpoint answered."""
        return self.sessions_ok == self.sessions and self.answers > 0

    @property
    def sessions_per_core(self) -> float:
        """How many such sessions would fill a core."""
        return self.sessions / self.cpu if self.cpu else 0.0

    @property
    def cpu_us_per_frame(self) -> float | None:
        """Microseconds of the processor for each frame of a caller, answers included; None without frames."""
        return self.cpu * self.seconds / self.frames * 1e6 if self.frames else None

    def as_json(self) -> bytes:
        """One JSON object, with what is derived written out."""
        derived = {
            "cpu_per_session": self.cpu / self.sessions,
            "sessions_per_core": self.sessions_per_core,
            "cpu_us_per_frame": self.cpu_us_per_frame,
        }
        return msgspec.json.encode({"ok": self.ok, **msgspec.structs.asdict(self), **derived})


class _EndpointCaller(Caller):
    """Asks its question, then is silent until the answer must be over, and as long again."""

    def __init__(self, number: int, url: str, question: Sequence[bytes], silence: bytes, turn: int) -> None:
        super().__init__(number, url, Downlink())
        self.deltas = self.answers = 0
        self.lateness = Histogram()
        self._question = question
        self._silence = silence
        self._turn = turn
        # Spread evenly over a turn, however many callers there are.
        self._offset = int((number - 1) * _GOLDEN_RATIO % 1 * turn)
        self._expected_at: float | None = None

    async def _open(self) -> Leg:
        leg = await self._dial(self._url, self, headers={"Authorization": "Bearer load-test"}, options=_OPTIONS)
        leg.send_text(_SESSION)
        return leg

    def _send_frame(self, tag: Tag, now: float) -> None:
        del now
        assert self._leg is not None  # noqa: S101 - the clock starts after the leg is open
        place = (tag.sequence + self._offset) % self._turn
        self._leg.send_audio(self._question[place] if place < len(self._question) else self._silence)

    def _take(self, data: bytes) -> None:
        if data.startswith(b'{"type":"response.output_audio.delta"'):
            now = asyncio.get_running_loop().time()
            self.deltas += 1
            expected_at = now if self._expected_at is None else self._expected_at
            self.lateness.add(round((now - expected_at) * 1e6))
            start = data.find(_DELTA) + len(_DELTA)
            size = base64_length(data[start : data.find(b'"', start)].decode("ascii"))
            self._expected_at = expected_at + size / Encoding.MULAW.bytes_per_ms / 1000 / _PACE
        elif data.startswith(b'{"type":"response.done"'):
            self.answers += 1
            self._expected_at = None
        elif data.startswith(b'{"type":"error"') and self.fault is None:
            self.fault = f"the endpoint sent an error: {msgspec.json.decode(data)['error'].get('message')}"


class _Ready(msgspec.Struct):
    url: str


async def run_endpoint_load(plan: EndpointPlan) -> EndpointReport:
    """Run the endpoint as a process of its own, and the callers in this one.

    Raises InfrastructureFault when it does not start within a minute. Cancelling drops the callers and ends the endpoint.
    """
    voice = SpeechRequest(_QUESTION, "echo", encoding=Encoding.MULAW)
    question, answer = await asyncio.to_thread(lambda: (synthesize(voice), synthesize(SpeechRequest(_ANSWER))))
    with tempfile.TemporaryDirectory(prefix="orchestrator-endpoint-") as folder:
        scenario = Path(folder) / "scenario.yaml"
        document = {"name": "load", "default": {"do": [{"say": _ANSWER}]}}
        scenario.write_bytes(msgspec.json.encode(document))  # which is YAML as well
        words = ["simulate", "--port", "0", "--scenario", str(scenario), "--max-sessions", str(plan.sessions)]
        words += ["--pace", str(_PACE), *MODES[plan.mode]]
        with ChildProcess("orchestrator", words, log=Path(folder) / "log") as child:
            ready = msgspec.json.decode(await asyncio.to_thread(child.read_line, _START_SECONDS), type=_Ready)
            frames = [_append(part) for part in _frames(question.audio)]
            turn = len(frames) + round(2 * answer.duration_ms / 1000 / FRAME_SECONDS)
            silence = _append(Encoding.MULAW.silence * FRAME_BYTES)
            callers = [
                _EndpointCaller(number, f"{ready.url}?model=gpt-realtime", frames, silence, turn)
                for number in range(1, plan.sessions + 1)
            ]
            return await _measure(plan, callers, child.pid)


async def _measure(plan: EndpointPlan, callers: list[_EndpointCaller], pid: int) -> EndpointReport:
    endpoint, generator = UsageMeter([pid]), UsageMeter([os.getpid()])
    gate = asyncio.Semaphore(_CONNECTS_AT_ONCE)

    async def connect(caller: Caller) -> None:
        async with gate:
            await caller.connect()

    try:
        async with asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(connect(caller))
        await asyncio.sleep(_WARM_UP_SECONDS)
        endpoint.begin()
        generator.begin()
        began_at, before, late = time.monotonic(), sum(caller.frames_sent for caller in callers), _late(callers)
        await asyncio.sleep(plan.seconds)
        used, own, seconds = endpoint.end(), generator.end(), time.monotonic() - began_at
        frames, late = sum(caller.frames_sent for caller in callers) - before, _late(callers) - late
        alive = sum(caller.fault is None for caller in callers)
    finally:
        await asyncio.gather(*(caller.hang_up() for caller in callers))
    lateness = Histogram()
    for caller in callers:
        lateness.merge(caller.lateness.pairs())
    return EndpointReport(
        sessions=plan.sessions,
        seconds=seconds,
        mode=plan.mode,
        sessions_ok=alive,
        faults=dict(Counter(caller.fault for caller in callers if caller.fault is not None).most_common(5)),
        frames=frames,
        deltas=sum(caller.deltas for caller in callers),
        answers=sum(caller.answers for caller in callers),
        cpu=used.cpu,
        uss_mb=used.uss_mb,
        caller_cpu=own.cpu,
        late_frames=late,
        late_p50_ms=lateness.quantile_ms(0.5),
        late_p99_ms=lateness.quantile_ms(0.99),
    )


def _late(callers: list[_EndpointCaller]) -> int:
    return sum(caller.late_frames for caller in callers)


def render_endpoint(report: EndpointReport) -> Text:
    """Lay the report out for a terminal."""
    late = "none" if report.late_p50_ms is None else f"{report.late_p50_ms:.1f} ms (p50), {report.late_p99_ms:.1f} ms (p99)"
    per_frame = "-" if report.cpu_us_per_frame is None else f"{report.cpu_us_per_frame:.1f} µs"
    lines = [
        f"{report.sessions} sessions ({report.mode}) for {report.seconds:.0f} s",
        f"{report.frames} frames in, {report.deltas} deltas of {report.answers} answers out",
        f"the endpoint took {report.cpu:.1%} of a core, {report.cpu / report.sessions:.3%} per session, {report.uss_mb:.0f} MB",
        f"{per_frame} for each frame of a caller and its share of the answers",
        f"one core would feed {report.sessions_per_core:.0f} such sessions",
        f"audio deltas were late by {late}",
        f"{report.sessions_ok} of {report.sessions} sessions lived to the end",
        *(f"{count} x {fault}" for fault, count in report.faults.items()),
    ]
    if report.late_frames:
        lines.append(f"The callers were late with {report.late_frames / max(1, report.frames):.1%} of the frames: mind that.")
    return Text("\n".join(lines))


def _frames(audio: bytes) -> list[bytes]:
    return [audio[start : start + FRAME_BYTES] for start in range(0, len(audio), FRAME_BYTES)]


def _append(audio: bytes) -> bytes:
    return _HEAD + base64.b64encode(audio) + _TAIL
