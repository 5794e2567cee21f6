"""A judge: an official client in a process of its own, in conversations with endpoints of this process."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.admission import AccessRules
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.scenario import load_scenario
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from orchestrator.simulator.speech import Speaker, SpeechRequest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
KEY = "sk-judge"
SPOKEN = "Hello, can you hear me?"
PATIENCE = 100.0
# Nothing is gained by waiting in a test; `STEADY` leaves time to talk into an answer.
QUICK = ModelOptions(timing=Timing(first_output=0.0, pace=100.0, text_interval=0.0), transcription_delay=0.0)
STEADY = ModelOptions(timing=Timing(first_output=0.0, pace=5.0), transcription_delay=0.0)

Event = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What a client saw: its events by case, in order, and what it and its runtime complained of. `frames` is what was sent."""

    status: int
    complaints: str
    events: Mapping[str, Sequence[Event]]
    frames: Sequence[Event] = field(repr=False)

    def labels(self, case: str) -> list[str]:
        return [event["event"] for event in self.events.get(case, ())]

    def of(self, case: str, label: str) -> list[Event]:
        return [event for event in self.events.get(case, ()) if event["event"] == label]

    def one(self, case: str, label: str) -> Event:
        found = self.of(case, label)
        assert len(found) == 1, f"{len(found)} of {label} in {self.labels(case)}"
        return found[0]

    def statuses(self, case: str) -> list[str]:
        """How the responses of a case ended."""
        return [event["status"] for event in self.of(case, "server:response.done")]

    def history(self, case: str) -> list[Event]:
        """What the client held for the conversation in the end."""
        held: list[Event] = self.of(case, "history_updated")[-1]["history"]
        return held

    def told(self, case: str) -> list[tuple[str, str]]:
        """The conversation in words: who, and what. A call is told by its output."""
        return [
            (item["name"], item["output"])
            if item["type"] == "function_call"
            else (item["role"], "".join(part.get("text") or part.get("transcript") or "" for part in item["content"]))
            for item in self.history(case)
        ]

    def heard_ms(self, case: str) -> list[float]:
        """The length of the audio of each answer that the client handed on, in milliseconds."""
        lengths = [0.0]
        for event in self.events.get(case, ()):
            if event["event"] == "server:response.done":
                lengths.append(0.0)
            elif event["event"] == "audio":
                lengths[-1] += event["bytes"] / Encoding.PCM16.bytes_per_ms
        return lengths[:-1]


def speech() -> bytes:
    """A question as a person would say it, with the silence that ends a turn; 24 kHz PCM16."""
    pause = Encoding.PCM16.silence * (Encoding.PCM16.rate * 8 // 10)
    return pause + Speaker().render(SpeechRequest(SPOKEN, "echo")).audio + pause


async def judge(command: Sequence[str], folder: Path) -> Verdict:
    """Run the client against a quick endpoint and one that takes its time, both on the judges' scenario."""
    audio = folder / "speech.pcm"
    audio.write_bytes(speech())
    words = {"speech": str(audio)}
    frames: list[bytes] = []
    access = AccessRules(keys=frozenset({KEY}))
    scenario = load_scenario(str(HERE / "scenario.yaml"))
    async with AsyncExitStack() as stack:
        for name, model in (("quick", QUICK), ("steady", STEADY)):
            options = SimulatorOptions(scenario, access=access, model=model, on_frame=frames.append)
            server = await stack.enter_async_context(SimulatorServer(options))
            words[name] = f"{server.url}?model=gpt-realtime"
        status, output, complaints = await _run([*command, json.dumps(words)])
    events: dict[str, list[Event]] = {}
    for line in output.splitlines():
        event = json.loads(line)
        events.setdefault(event["case"], []).append(event)
    return Verdict(status, complaints, events, [json.loads(frame) for frame in frames])


async def _run(command: Sequence[str]) -> tuple[int, str, str]:
    # No key and no proxy of the surroundings: the client has only what it is told.
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "PATH", "TMPDIR"}}
    # Without this the Python library would send records of what it does to its maker.
    silent = {"OPENAI_AGENTS_DISABLE_TRACING": "1"}
    # And so that a frame that it cannot read is shown.
    telling = {"OPENAI_AGENTS_DONT_LOG_MODEL_DATA": "0", "OPENAI_AGENTS_DONT_LOG_TOOL_DATA": "0"}
    environment = {**kept, **silent, **telling}
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
    )
    try:
        async with asyncio.timeout(PATIENCE):
            output, complaints = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, output.decode(), complaints.decode()


# --- What must hold for every client ----------------------------------------------------------------------------------


def assert_without_complaint(verdict: Verdict, cases: Sequence[str]) -> None:
    """Every case ran to its end; neither side had anything to object to."""
    assert verdict.complaints == ""
    assert verdict.status == 0
    ends = {case: events[-1] for case, events in verdict.events.items()}
    assert ends == {case: {"case": case, "event": "finished"} for case in cases}
    assert [event for events in verdict.events.values() for event in events if event["event"].endswith("error")] == []
    # The other direction: nothing that the client sent was refused.
    assert [frame for frame in verdict.frames if frame["type"] == "error"] == []


def assert_spoken(verdict: Verdict, case: str, *answers: str) -> None:
    """The answers came as speech of a length that fits the words, and their transcripts are right."""
    transcripts = verdict.of(case, "server:response.output_audio_transcript.done")
    assert [event["transcript"] for event in transcripts] == list(answers)
    lengths = [length for length in verdict.heard_ms(case) if length]
    assert len(lengths) == len(answers)
    for length, answer in zip(lengths, answers, strict=True):
        assert len(answer) / 22 < length / 1000 < len(answer) / 9


def assert_cut_short(verdict: Verdict, case: str) -> Event:
    """The first answer was broken off, and the second one was not; returns how the first one was truncated."""
    assert verdict.statuses(case) == ["cancelled", "completed"]
    assert "audio_interrupted" in verdict.labels(case)
    truncated = verdict.one(case, "server:conversation.item.truncated")
    assert 0 <= truncated["audio_end_ms"] <= verdict.heard_ms(case)[0]
    return truncated


def assert_silent_at_once(verdict: Verdict, case: str) -> None:
    """Once the endpoint had heard somebody speak, it sent no more of the answer; the client was silent as well."""
    labels = verdict.labels(case)
    tail = labels[labels.index("server:input_audio_buffer.speech_started") : labels.index("server:response.done")]
    assert "server:response.output_audio.delta" not in tail
    assert "audio" not in tail
    assert "audio_interrupted" in tail
