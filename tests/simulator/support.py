"""What the simulator's tests share: a recorder that judges every frame, and a driver for a session under a made-up clock."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from orchestrator.simulator.audio import Encoding, encode
from orchestrator.simulator.endpoint.session_machine import (
    Close,
    ModelOptions,
    Output,
    RecognitionRequest,
    Recognize,
    Render,
    SessionMachine,
)
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.scenario import Scenario, parse_scenario
from orchestrator.simulator.speech import SpeechRequest, Utterance
from orchestrator.wire.realtime import SessionConfig
from orchestrator.wire.realtime import encode as encode_event
from tests.judges.frame_judge import FrameJudge

JUDGE = FrameJudge()
UNIX_TIME = 1_800_000_000.0
TEXT_ONLY = {"type": "realtime", "output_modalities": ["text"]}
LOOKUP = {"type": "function", "name": "lookup", "parameters": {"type": "object", "properties": {}}}

SCENARIO = parse_scenario(
    """
name: test
greeting: {do: [{say: "Welcome to the test."}]}
turns:
  - heard: first question
    do: [{say: "The first answer has quite a few words in it."}]
  - heard: look it up
    match: look
    do:
      - call: lookup
        arguments: {key: "{heard}"}
      - say: "It is {tool.output.value}."
  - heard: the third question
    do: [{say: "Third."}, {say: "Two messages."}]
default: {do: [{say: "I do not know."}]}
"""
)


class Recorder:
    """Hears every frame that a simulator sends, and says whether the official types agree."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []

    def __call__(self, frame: bytes) -> None:
        self.frames.append(frame)

    def judge(self) -> None:
        """Raise if a frame is not what the API sends."""
        for frame in self.frames:
            complaint = JUDGE.complaint(frame)
            assert complaint is None, f"{complaint}\n  in {frame.decode()}"


def tone(request: SpeechRequest) -> Utterance:
    """Audio whose length follows the text: 50 ms per character. Speech itself is tested elsewhere, and is slower."""
    encoding = request.encoding
    count = max(1, len(request.text)) * 50 * encoding.rate // 1000
    samples = (6000 * np.sin(np.arange(count) * 2 * np.pi * 440 / encoding.rate)).astype(np.int16)
    return Utterance(request.text, encoding, encode(samples, encoding))


def loud(milliseconds: int, encoding: Encoding = Encoding.PCM16) -> bytes:
    """Something that is heard as speech."""
    count = milliseconds * encoding.rate // 1000
    return encode((8000 * np.sin(np.arange(count) * 0.2)).astype(np.int16), encoding)


def quiet(milliseconds: int, encoding: Encoding = Encoding.PCM16) -> bytes:
    """Digital silence."""
    return encoding.silence * (milliseconds * encoding.rate // 1000)


def as_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Driver:
    """A client and a clock for one session machine. Events are what goes over the wire, decoded again."""

    def __init__(
        self,
        recorder: Callable[[bytes], None],
        scenario: Scenario = SCENARIO,
        options: ModelOptions | None = None,
        *,
        model: str = "gpt-realtime",
        speech: Callable[[SpeechRequest], Utterance | None] = tone,
        hold_speech: bool = False,
        kind: Literal["realtime", "transcription"] = "realtime",
        preset: SessionConfig | None = None,
        in_call: bool = False,
    ) -> None:
        self._recorder = recorder
        self._speech = speech
        self._hold_speech = hold_speech
        self.held: list[SpeechRequest] = []
        self.unheard: list[RecognitionRequest] = []
        self.now = 0.0
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.closed: Close | None = None
        ids = IdSource(lambda: UNIX_TIME, seed=1)
        self.machine = SessionMachine(
            scenario,
            options or ModelOptions(),
            ids,
            model=model,
            unix_time=UNIX_TIME,
            kind=kind,
            preset=preset,
            in_call=in_call,
        )
        self._take(self.machine.start(0.0))

    # --- What a client does -------------------------------------------------------------------------------------------

    def send(self, type_: str, **members: Any) -> list[dict[str, Any]]:
        """Send one event; returns what comes back at once."""
        return self.send_raw(json.dumps({"type": type_, **members}).encode())

    def send_raw(self, data: bytes) -> list[dict[str, Any]]:
        return self._take(self.machine.receive_text(data, self.now))

    def send_binary(self) -> list[dict[str, Any]]:
        return self._take(self.machine.receive_binary(self.now))

    def update(self, **session: Any) -> list[dict[str, Any]]:
        return self.send("session.update", session={"type": "realtime", **session})

    def append(self, data: bytes) -> list[dict[str, Any]]:
        return self.send("input_audio_buffer.append", audio=as_base64(data))

    def speak(self, milliseconds: int = 600, encoding: Encoding = Encoding.PCM16) -> list[dict[str, Any]]:
        """A whole spoken turn: voice, then the silence that ends it."""
        return self.append(quiet(100, encoding) + loud(milliseconds, encoding) + quiet(400, encoding))

    def say(self, text: str, item_id: str | None = None) -> list[dict[str, Any]]:
        """A typed turn, without asking for a response."""
        item: dict[str, Any] = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        return self.send("conversation.item.create", item={**item, **({"id": item_id} if item_id else {})})

    def ask(self, text: str, **response: Any) -> list[dict[str, Any]]:
        """A typed turn and its response, to the end."""
        self.say(text)
        start = len(self.events)
        self.send("response.create", **({"response": response} if response else {}))
        self.run()
        return self.events[start:]

    # --- What a call brings -------------------------------------------------------------------------------------------

    def hear(self, data: bytes) -> list[dict[str, Any]]:
        """Audio of the phone."""
        return self._take(self.machine.hear(data, self.now))

    def dtmf(self, key: str) -> list[dict[str, Any]]:
        return self._take(self.machine.dtmf(key, self.now))

    def attach(self) -> list[dict[str, Any]]:
        return self._take(self.machine.attach(self.now))

    def end(self) -> list[dict[str, Any]]:
        return self._take(self.machine.end(self.now))

    # --- Time ---------------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> list[dict[str, Any]]:
        """Let time pass."""
        start, until = len(self.events), self.now + seconds
        while self.machine.due is not None and self.machine.due <= until:
            self.now = max(self.now, self.machine.due)
            self._take(self.machine.advance(self.now))
        self.now = until
        return self.events[start:]

    def run(self) -> list[dict[str, Any]]:
        """Let time pass until all that goes on is over. The end of the session is an hour away, and no part of that."""
        return self.wait(120.0)

    def provide(self) -> list[dict[str, Any]]:
        """Hand over the speech that was held back."""
        request = self.held.pop(0)
        return self._take(self.machine.provide(request, self._speech(request), self.now))

    def recognize(self, text: str | None, which: int = 0) -> list[dict[str, Any]]:
        """Say what was heard in a spoken turn that waits for that."""
        return self._take(self.machine.recognized(self.unheard.pop(which), text, self.now))

    def _take(self, outputs: Iterable[Output]) -> list[dict[str, Any]]:
        start = len(self.events)
        waiting = list(outputs)
        while waiting:
            output = waiting.pop(0)
            if isinstance(output, Render):
                if self._hold_speech:
                    self.held.append(output.request)
                else:
                    waiting += self.machine.provide(output.request, self._speech(output.request), self.now)
            elif isinstance(output, Recognize):
                self.unheard.append(output.request)
            elif isinstance(output, Close):
                self.closed = output
            else:
                frame = encode_event(output)
                self._recorder(frame)
                self.events.append(json.loads(frame))
                self.times.append(self.now)
        return self.events[start:]


# --- Reading what came ------------------------------------------------------------------------------------------------


def types(events: Sequence[Mapping[str, Any]]) -> list[str]:
    return [event["type"] for event in events]


def of_type(events: Sequence[Mapping[str, Any]], type_: str) -> list[Mapping[str, Any]]:
    return [event for event in events if event["type"] == type_]


def only(events: Sequence[Mapping[str, Any]], type_: str) -> Mapping[str, Any]:
    found = of_type(events, type_)
    assert len(found) == 1, f"{len(found)} of {type_} in {types(events)}"
    return found[0]


def error_of(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The single error that came; everything else would be part of a partial effect."""
    assert types(events) == ["error"], types(events)
    error: dict[str, Any] = events[0]["error"]
    assert error["type"] == "invalid_request_error"
    return error
