"""The model of a chaos run, as a process of its own: the offline endpoint with labelled speech, and ears for labelled audio.

`python -m tests.chaos.endpoint --port PORT --hearings FILE` prints one line of JSON when it listens. What each of its sessions
has heard is added to the file when the session ends; a process that is killed leaves out its last sessions.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import msgspec
import uvloop

from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint import session_machine
from orchestrator.simulator.endpoint.director import Director, FollowUp
from orchestrator.simulator.endpoint.model_session import ModelSession
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.scenario import load_scenario
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from orchestrator.simulator.speech import Speaker, SpeechRequest, Utterance
from tests.chaos.labels import FRAME_MS, SENTENCE_FRAMES, Hearing, Label, frames_of, make_label, read_label, turn_of

if TYPE_CHECKING:
    from orchestrator.errors import EndReason

SCENARIO = Path(__file__).parent / "scenario.yaml"
_APPEND = b'"type":"input_audio_buffer.append"'


class LabelSpeaker(Speaker):
    """Says every sentence in labelled frames, as many as any other; costs nothing."""

    def cached(self, request: SpeechRequest) -> Utterance | None:
        """The utterance, always at hand."""
        turn, encoding = turn_of(request.text), request.encoding
        size = FRAME_MS * encoding.bytes_per_ms
        filler = encoding.silence * (size // encoding.width)
        audio = bytearray()
        for number in range(SENTENCE_FRAMES):
            label = make_label(Label(turn, number))
            audio += label + filler[len(label) :]
        return Utterance(request.text, encoding, bytes(audio))

    def render(self, request: SpeechRequest) -> Utterance:
        """The utterance."""
        made = self.cached(request)
        assert made is not None
        return made


@dataclass
class PersistentDirector(Director):
    """Answers the same turn again when it is asked again, as a model does. The endpoint's own has nothing to say then."""

    _again: FollowUp | None = None

    def recall_answer(self) -> None:
        """An answer that was told may have been cut: if one is asked for all the same, it is that of the same turn."""
        answered = next((call.follow_up for call in self._calls.values() if call.answered), None)
        self._again = self._pending or answered or self._again
        super().recall_answer()

    def _next(self) -> FollowUp:
        if self._pending is None and self._again is not None and not any(call.answered for call in self._calls.values()):
            return self._again
        self._again = super()._next()
        return self._again


class _Ears:
    """A model session whose caller's audio is looked at on its way in."""

    def __init__(self, session: ModelSession, log: Path) -> None:
        self._session = session
        self._log = log
        self._hearing: Hearing | None = None
        self.inject = session.inject
        self.on_open = session.on_open
        self.on_binary = session.on_binary

    def on_text(self, data: bytes) -> None:
        if _APPEND in bytes(data[:200]):
            audio = msgspec.json.decode(data)["audio"]
            for frame in frames_of(base64.b64decode(audio), Encoding.MULAW):
                label = read_label(frame)
                if label is not None:
                    self._hear(label)
        self._session.on_text(data)

    def on_closed(self, reason: EndReason) -> None:
        if self._hearing is not None:
            with self._log.open("ab") as file:
                file.write(msgspec.json.encode(self._hearing) + b"\n")
        self._session.on_closed(reason)

    def _hear(self, label: Label) -> None:
        if self._hearing is None:
            self._hearing = Hearing(label.source, label.number, label.number - 1)
        self._hearing.hear(label.number)


class _Server(SimulatorServer):
    """The offline endpoint, whose sessions have such ears."""

    def __init__(self, options: SimulatorOptions, log: Path) -> None:
        super().__init__(options, LabelSpeaker())
        self._log = log

    def _session(self, *arguments: Any) -> Any:
        return _Ears(super()._session(*arguments), self._log)


async def _serve(port: int, log: Path) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    # An answer takes long enough for faults to meet it.
    timing = Timing(first_output=0.08, pace=3.0, delta_ms=100)
    model = ModelOptions(timing=timing, vad="energy")
    # What a killed process leaves of a record is no evidence of anything.
    options = SimulatorOptions(load_scenario(str(SCENARIO)), port=port, model=model, record=None)
    with mock.patch.object(session_machine, "Director", PersistentDirector):
        await _listen(options, log, stopped)


async def _listen(options: SimulatorOptions, log: Path, stopped: asyncio.Event) -> None:
    async with _Server(options, log) as server:
        sys.stdout.buffer.write(msgspec.json.encode({"url": server.url, "control_url": server.control_url}) + b"\n")
        sys.stdout.buffer.flush()
        await stopped.wait()


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.endpoint", description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--hearings", type=Path, required=True)
    options = parser.parse_args()
    uvloop.run(_serve(options.port, options.hearings))


if __name__ == "__main__":
    main()
