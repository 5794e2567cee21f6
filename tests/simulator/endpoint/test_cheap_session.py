"""A session for load, beside an ordinary one: what the client says and hears is the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import AsyncOpenAI

from orchestrator.errors import EndReason
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.cheap_session import CheapSession
from orchestrator.simulator.endpoint.fault_desk import FaultDesk
from orchestrator.simulator.endpoint.fault_types import (
    AnyFault,
    Delay,
    Drop,
    ErrorFault,
    Expire,
    Fail,
    Spread,
    Stall,
    TranscriptionFault,
)
from orchestrator.simulator.endpoint.model_session import ModelSession, SpeechDesk
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.session_machine import SessionMachine
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from orchestrator.simulator.speech import Speaker, SpeechRequest, Utterance
from orchestrator.testing import virtual_clock
from orchestrator.transports import LegOptions, SharedReader, memory_pair
from orchestrator.transports.websocket import WebSocketLeg
from tests.simulator.support import SCENARIO, UNIX_TIME, Recorder, as_base64, loud, quiet, tone

PHONE = {"type": "audio/pcmu"}
FRAME = 20 * Encoding.MULAW.bytes_per_ms
IN_ONE_READ = 5


class Toner(Speaker):
    def render(self, request: SpeechRequest) -> Utterance:
        return tone(request)


class Client:
    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def on_text(self, data: bytes) -> None:
        self.events.append(json.loads(data))

    def on_binary(self, data: bytes) -> None:
        raise AssertionError("the API sends no binary messages")

    def on_closed(self, reason: EndReason) -> None:
        pass


def append(audio: bytes) -> bytes:
    return b'{"type":"input_audio_buffer.append","audio":"' + as_base64(audio).encode() + b'"}'


def spoken() -> list[bytes]:
    """A spoken turn, a frame of 20 ms at a time, and not a whole number of pieces."""
    mulaw = Encoding.MULAW
    audio = quiet(300, mulaw) + loud(500, mulaw) + quiet(460, mulaw)
    return [append(audio[start : start + FRAME]) for start in range(0, len(audio), FRAME)]


def hold(
    kind: type[ModelSession],
    messages: list[bytes],
    recorder: Recorder,
    detection: Any = None,
    faults: Sequence[AnyFault] = (),
    ends: list[str] | None = None,
) -> list[dict[str, Any]]:
    """What a session of this kind says to these messages, 20 ms apart. The code of the client's end is added to `ends`."""

    async def main() -> list[dict[str, Any]]:
        client = Client()
        with ThreadPoolExecutor(1) as pool:
            ids = IdSource(lambda: UNIX_TIME, 1)
            machine = SessionMachine(SCENARIO, ModelOptions(vad="energy"), ids, model="gpt-realtime", unix_time=UNIX_TIME)
            session = kind(machine, SpeechDesk(Toner(), pool), recorder)
            options = LegOptions(reader=SharedReader(0.1) if kind is CheapSession else None)
            desk = FaultDesk(faults, seed=1)
            leg, _ = memory_pair(client, desk.between(desk.visitor("gpt-realtime", ""), session), server_options=options)
            audio: dict[str, Any] = {"input": {"format": PHONE, **(detection or {})}, "output": {"format": PHONE}}
            leg.send_text(json.dumps({"type": "session.update", "session": {"type": "realtime", "audio": audio}}).encode())
            for message in messages:
                leg.send_text(message)
                await asyncio.sleep(0.02)
            await asyncio.sleep(10)
            leg.close()
            reason = await leg.wait_closed()
            if ends is not None:
                ends.append(f"{reason.code} {leg.close_code}")
            desk.clear()
        return client.events

    return virtual_clock.run(main())


def test_a_spoken_turn_has_the_same_events_and_the_same_places(recorder: Recorder) -> None:
    usual, cheap = (hold(kind, spoken(), recorder) for kind in (ModelSession, CheapSession))
    assert [event["type"] for event in cheap] == [event["type"] for event in usual]
    assert cheap == usual, "ids come from one seed, and audio has its own clock"


def test_a_commit_finds_all_audio_before_it(recorder: Recorder) -> None:
    messages = [
        *spoken()[: IN_ONE_READ + 2],
        b'{"type":"input_audio_buffer.commit"}',
        b'{"type":"input_audio_buffer.commit"}',
    ]
    by_hand = {"turn_detection": None}
    events = hold(CheapSession, messages, recorder, by_hand)
    assert [event["type"] for event in events][-4:-1] == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
    ]
    assert "0.00ms" in events[-1]["error"]["message"]


@pytest.mark.parametrize(
    "strange",
    [
        b'{"type":"input_audio_buffer.append","audio":"!!!"}',
        b'{"type":"input_audio_buffer.append","audio":""}',
        b'{"type":"input_audio_buffer.append","audio":"AAAA","event_id":"mine"}',
        b'{"type":"input_audio_buffer.append","audio":"////","event_id":"mine","more":"x"}',
        b'{"type":"input_audio_buffer.append","audio":"AA=="',
        b'{ "audio": "AAAA", "type": "input_audio_buffer.append" }',
    ],
)
def test_a_strange_append_is_judged_as_ever_and_the_audio_around_it_is_not_lost(recorder: Recorder, strange: bytes) -> None:
    audio = spoken()
    messages = [*audio[:7], strange, *audio[7:]]
    usual, cheap = (hold(kind, messages, recorder) for kind in (ModelSession, CheapSession))
    assert sorted(event["type"] for event in cheap) == sorted(event["type"] for event in usual)
    assert "input_audio_buffer.committed" in [event["type"] for event in cheap]


@pytest.mark.parametrize(
    "fault",
    [
        Drop(at="nth_audio_delta", n=2),
        Drop(at="nth_response", code=1012, reason="restart"),
        Drop(at="nth_event", n=7, code=1000),
        Stall(at="nth_response", seconds=1.5),
        Delay(seconds=Spread(uniform=(0.0, 0.3))),
        TranscriptionFault(seconds=0.5, copies=2),
        Fail(at="nth_response"),
        Fail(at="nth_audio_delta", n="each"),
        ErrorFault(at="nth_event", n="each", times=9),
        Expire(at="nth_audio_delta"),
    ],
    ids=lambda fault: f"{type(fault).__name__} at {getattr(fault, 'at', 'any time')}",
)
def test_a_fault_happens_at_the_same_event_and_leaves_the_same(recorder: Recorder, fault: AnyFault) -> None:
    ends: list[str] = []
    usual, cheap = (hold(kind, spoken(), recorder, faults=[fault], ends=ends) for kind in (ModelSession, CheapSession))
    assert cheap == usual
    assert ends[0] == ends[1]


def test_events_that_are_there_at_once_go_out_in_one_write(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    send = WebSocketLeg.send_texts

    def note(leg: WebSocketLeg, messages: Sequence[bytes]) -> None:
        runs.append(len(messages))
        send(leg, messages)

    monkeypatch.setattr(WebSocketLeg, "send_texts", note)
    events = hold(CheapSession, spoken(), recorder)
    assert sum(runs) == len(events)
    assert max(runs) >= 5
    assert len(runs) < len(events) / 2


def test_what_was_said_before_the_client_fell_silent_is_heard(recorder: Recorder) -> None:
    mulaw = Encoding.MULAW
    # The turn is over with its very last frame, and nothing comes after it.
    audio = quiet(300, mulaw) + loud(500, mulaw) + quiet(200, mulaw)
    for extra in range(IN_ONE_READ):
        messages = [append(audio[start : start + FRAME]) for start in range(0, len(audio), FRAME)]
        messages = [append(quiet(20, mulaw))] * extra + messages
        usual, cheap = (hold(kind, messages, recorder) for kind in (ModelSession, CheapSession))
        assert cheap == usual
        assert "response.done" in [event["type"] for event in cheap]


def test_a_client_that_goes_in_the_middle_leaves_nothing(recorder: Recorder) -> None:
    events = hold(CheapSession, spoken()[: IN_ONE_READ - 1], recorder)
    assert [event["type"] for event in events] == ["session.created", "session.updated"]


def test_a_binary_message_is_refused(recorder: Recorder) -> None:
    async def main() -> list[dict[str, Any]]:
        client = Client()
        with ThreadPoolExecutor(1) as pool:
            ids = IdSource(lambda: UNIX_TIME, 1)
            machine = SessionMachine(SCENARIO, ModelOptions(vad="energy"), ids, model="gpt-realtime", unix_time=UNIX_TIME)
            session = CheapSession(machine, SpeechDesk(Toner(), pool), recorder)
            memory_pair(client, session)
            session.on_binary(b"\0")
            await asyncio.sleep(1)
        return client.events

    assert virtual_clock.run(main())[-1]["error"]["code"] == "invalid_event"


async def test_the_official_client_has_a_spoken_turn_with_a_cheap_endpoint(recorder: Recorder, speaker: Speaker) -> None:
    chosen = SimulatorOptions(SCENARIO, model=ModelOptions(vad="energy"), cheap=True, on_frame=recorder)
    session: Any = {"type": "realtime", "output_modalities": ["text"], "audio": {"input": {"format": PHONE}}}
    async with asyncio.timeout(30), SimulatorServer(chosen, speaker) as server:
        official = AsyncOpenAI(api_key="sk-test", websocket_base_url=server.base_url)
        async with official.realtime.connect(model="gpt-realtime") as connection:
            await connection.session.update(session=session)
            for message in spoken():
                await connection.input_audio_buffer.append(audio=json.loads(message)["audio"])
            statuses: list[Any] = []
            while not statuses:
                event = await connection.recv()
                if event.type == "response.done":
                    statuses.append(event.response.status)
            assert statuses == ["completed"]
