"""Under a seed and a clock of the test, everything that a client hears, and when, repeats to the byte: checklist line 60.

The log in `golden/` was written by an earlier run, so it also holds from one process to the next. A change of it is a change
of behaviour and wants a reason. `GOLDEN=write` writes it anew.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from orchestrator.errors import EndReason
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.fault_desk import FaultDesk
from orchestrator.simulator.endpoint.fault_types import AnyFault, Delay, ErrorFault, Fail, Spread, TranscriptionFault
from orchestrator.simulator.endpoint.model_session import ModelSession, SpeechDesk
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.session_machine import SessionMachine
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.speech import Speaker, SpeechRequest, Utterance
from orchestrator.testing import virtual_clock
from orchestrator.transports import Leg, memory_pair
from tests.simulator.support import LOOKUP, SCENARIO, UNIX_TIME, Recorder, as_base64, loud, quiet

GOLDEN = Path(__file__).parent / "golden" / "session.jsonl"
FRAME_MS = 20
FAULTS: tuple[AnyFault, ...] = (
    Delay(seconds=Spread(uniform=(0.0, 0.03))),
    TranscriptionFault(seconds=Spread(uniform=(0.2, 0.6)), copies=2),
    ErrorFault(at="nth_event", n="each", probability=0.05),
    Fail(n=4),
)


class Hum(Speaker):
    """Speech without a synthesizer, whose samples differ from one build to the next."""

    def render(self, request: SpeechRequest) -> Utterance:
        size = 20 * len(request.text) * request.encoding.bytes_per_ms
        return Utterance(request.text, request.encoding, bytes(index % 251 for index in range(size)))


class Log:
    """Hears what a client hears: a line for each frame, with the time in milliseconds."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.types: list[str] = []
        self._waiting: list[tuple[str, asyncio.Event]] = []

    def on_text(self, data: bytes) -> None:
        milliseconds = asyncio.get_running_loop().time() * 1000
        self.lines.append(f"[{milliseconds:.3f},{data.decode()}]\n")
        kind = json.loads(data)["type"]
        self.types.append(kind)
        for wanted, arrived in self._waiting:
            if wanted == kind:
                arrived.set()

    def on_binary(self, data: bytes) -> None:
        raise AssertionError("the API sends no binary messages")

    def on_closed(self, reason: EndReason) -> None:
        self.lines.append(f'[{asyncio.get_running_loop().time() * 1000:.3f},"{reason.code}"]\n')

    async def until(self, kind: str) -> None:
        """Wait for the next event of this type."""
        arrived = asyncio.Event()
        self._waiting.append((kind, arrived))
        await arrived.wait()

    def text(self) -> str:
        return "".join(self.lines)


def send(leg: Leg, type_: str, **members: Any) -> None:
    leg.send_text(json.dumps({"type": type_, **members}).encode())


def form(encoding: Encoding) -> dict[str, str]:
    return {"type": encoding.value}


async def speak(leg: Leg, parts: Iterable[bytes]) -> None:
    """Speak at the pace of a phone, in µ-law."""
    audio = b"".join(parts)
    size = FRAME_MS * Encoding.MULAW.bytes_per_ms
    for start in range(0, len(audio), size):
        send(leg, "input_audio_buffer.append", audio=as_base64(audio[start : start + size]))
        await asyncio.sleep(FRAME_MS / 1000)


async def converse(leg: Leg, log: Log) -> None:
    """A session with all that is random or timed in it: speech both ways, a tool, a barge-in, text, an error, faults."""
    phone = form(Encoding.MULAW)
    transcription = {"model": "gpt-4o-transcribe"}
    audio = {"input": {"format": phone, "transcription": transcription}, "output": {"format": phone}}
    send(leg, "session.update", session={"type": "realtime", "audio": audio, "tools": [LOOKUP]})
    first = asyncio.ensure_future(log.until("response.done"))
    voice, silence = loud(500, Encoding.MULAW), quiet(600, Encoding.MULAW)
    await speak(leg, [silence, voice, silence])
    await first
    second = asyncio.ensure_future(log.until("response.done"))
    await speak(leg, [voice, silence])
    await second
    send(leg, "response.create")
    await log.until("response.created")
    await speak(leg, [voice, silence])
    await asyncio.sleep(2)
    aside = {"conversation": "none", "output_modalities": ["text"], "metadata": {"number": "1"}}
    send(leg, "response.create", response=aside)
    send(leg, "conversation.item.delete", item_id="item_gone", event_id="mine")
    await asyncio.sleep(30)


def run(seed: int, recorder: Recorder | None = None, faults: Iterable[AnyFault] = FAULTS) -> Log:
    """One session from its start to its end."""

    async def main() -> Log:
        log = Log()
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            ids = IdSource(lambda: UNIX_TIME + loop.time(), seed)
            options = ModelOptions(session_seconds=60)
            machine = SessionMachine(SCENARIO, options, ids, model="gpt-realtime", unix_time=UNIX_TIME)
            desk = FaultDesk(faults, seed)
            session = ModelSession(machine, SpeechDesk(Hum(), pool), recorder)
            client, _ = memory_pair(log, desk.between(desk.visitor("gpt-realtime", "sk-test"), session))
            await converse(client, log)
            await client.wait_closed()
            desk.clear()
        return log

    return virtual_clock.run(main())


def test_a_session_repeats_to_the_byte(recorder: Recorder) -> None:
    log = run(1, recorder)
    assert log.text() == run(1).text()
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.write_text(log.text())
    assert log.text() == GOLDEN.read_text()


def test_the_log_has_in_it_what_could_differ() -> None:
    *events, end = [json.loads(line)[1] for line in GOLDEN.read_text().splitlines()]
    kinds = [event["type"] for event in events]
    for kind in (
        "input_audio_buffer.speech_started",
        "conversation.item.input_audio_transcription.completed",
        "response.function_call_arguments.done",
        "response.output_audio.delta",
        "response.output_text.done",
        "error",
    ):
        assert kind in kinds
    statuses = {event["response"]["status"] for event in events if event["type"] == "response.done"}
    assert {"completed", "failed"} <= statuses
    assert end == "going_away"


def test_another_seed_gives_another_session() -> None:
    assert run(1).text() != run(2).text()


def test_the_times_of_a_session_without_faults_are_those_of_its_options() -> None:
    log = run(1, faults=())
    created = json.loads(log.lines[0])
    assert created[0] == 0
    assert created[1]["session"]["expires_at"] == UNIX_TIME + 60
    assert log.lines[-1] == '[60000.000,"going_away"]\n'
