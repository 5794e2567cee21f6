"""A session on an in-memory leg under a virtual clock: how a test of something else can have a model without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orchestrator.errors import EndReason, UserError
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.model_session import ModelSession, SpeechDesk
from orchestrator.simulator.endpoint.session_machine import ModelOptions, SessionMachine
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.recognition import RecognitionDesk
from orchestrator.simulator.speech import Speaker, SpeechRequest, Utterance
from orchestrator.testing import virtual_clock
from orchestrator.transports import Leg, memory_pair
from tests.simulator.support import SCENARIO, UNIX_TIME, Recorder, as_base64, loud, of_type, quiet

ASK = b'{"type":"response.create"}'


class Client:
    """Hears what a session sends, and when."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.closed: EndReason | None = None
        self.done = asyncio.Event()

    def on_text(self, data: bytes) -> None:
        self.events.append(json.loads(data))
        self.times.append(asyncio.get_running_loop().time())
        if self.events[-1]["type"] == "rate_limits.updated":
            self.done.set()

    def on_binary(self, data: bytes) -> None:
        raise AssertionError("the API sends no binary messages")

    def on_closed(self, reason: EndReason) -> None:
        self.closed = reason


def play(
    scene: Callable[[Leg, Client], Any], recorder: Recorder, speaker: Speaker, options: ModelOptions | None = None
) -> Client:
    """Run a scene between a client and a session, on a virtual clock."""

    async def main() -> Client:
        client = Client()
        with ThreadPoolExecutor(1) as pool:
            ids = IdSource(lambda: UNIX_TIME, 1)
            machine = SessionMachine(SCENARIO, options or ModelOptions(), ids, model="gpt-realtime", unix_time=UNIX_TIME)
            session = ModelSession(machine, SpeechDesk(speaker, pool), recorder)
            pair = memory_pair(client, session)
            await scene(pair.client, client)
            pair.client.close()
            await pair.client.wait_closed()
        return client

    return virtual_clock.run(main())


def test_an_answer_comes_at_its_pace_in_virtual_time(recorder: Recorder, speaker: Speaker) -> None:
    async def scene(leg: Leg, client: Client) -> None:
        leg.send_text(ASK)
        await client.done.wait()

    client = play(scene, recorder, speaker)
    pairs = zip(client.events, client.times, strict=True)
    audio = [time for event, time in pairs if event["type"] == "response.output_audio.delta"]
    assert audio[0] == pytest.approx(0.3)
    assert audio[-1] == pytest.approx(0.3 + 0.04 * (len(audio) - 1))
    assert client.closed is not None
    assert client.closed.code == "closed_normally"


def test_a_session_ends_by_itself_after_an_hour(recorder: Recorder, speaker: Speaker) -> None:
    async def scene(leg: Leg, client: Client) -> None:
        await leg.wait_closed()
        assert asyncio.get_running_loop().time() == pytest.approx(3600, abs=1)

    client = play(scene, recorder, speaker)
    assert client.events[-1]["error"]["code"] == "session_expired"
    assert client.closed is not None
    assert client.closed.code == "going_away"


def test_a_client_that_goes_in_the_middle_of_an_answer_leaves_no_timer(recorder: Recorder, speaker: Speaker) -> None:
    async def scene(leg: Leg, client: Client) -> None:
        leg.send_text(ASK)
        await asyncio.sleep(0.5)
        leg.abort(EndReason("test"))
        await leg.wait_closed()
        heard = len(client.events)
        await asyncio.sleep(10)
        assert len(client.events) == heard

    play(scene, recorder, speaker)


def test_speech_that_cannot_be_made_fails_the_response_and_nothing_else(recorder: Recorder) -> None:
    class Mute(Speaker):
        def render(self, request: SpeechRequest) -> Utterance:
            raise UserError("no voices")

    async def scene(leg: Leg, client: Client) -> None:
        leg.send_text(ASK)
        await client.done.wait()

    client = play(scene, recorder, Mute())
    assert client.events[-2]["response"]["status"] == "failed"


def test_a_bug_of_ours_ends_the_session_and_is_reported(recorder: Recorder) -> None:
    reported: list[dict[str, Any]] = []

    class Broken(Speaker):
        def cached(self, request: SpeechRequest) -> Utterance | None:
            return Utterance(request.text, request.encoding, b"not even audio" * 1000, _deltas=None)  # type: ignore[arg-type]

    async def scene(leg: Leg, client: Client) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        leg.send_text(ASK)
        await leg.wait_closed()

    client = play(scene, recorder, Broken())
    assert client.closed is not None
    assert client.closed.code == "internal_error"
    assert len(reported) == 1


def test_audio_that_is_held_back_is_heard_though_the_client_says_nothing_more(recorder: Recorder, speaker: Speaker) -> None:
    async def scene(leg: Leg, client: Client) -> None:
        audio = as_base64(quiet(100) + loud(600) + quiet(400))
        leg.send_text(json.dumps({"type": "input_audio_buffer.append", "audio": audio}).encode())
        await client.done.wait()

    client = play(scene, recorder, speaker, ModelOptions(real_time=True))
    heard = dict(zip([event["type"] for event in client.events], client.times, strict=True))
    assert heard["input_audio_buffer.speech_stopped"] == pytest.approx(0.9, abs=0.03)


class OneWord:
    """Understands the same in everything; or nothing, where there is no word."""

    def __init__(self, word: str | None) -> None:
        self._word = word

    def recognize(self, audio: bytes, encoding: Encoding) -> str | None:
        if self._word == "":
            raise UserError("no ears")
        return self._word


@pytest.mark.parametrize(
    ("recognizer", "transcript"),
    [
        (OneWord("look it up"), "look it up"),
        (OneWord(None), "first question"),
        (OneWord(""), "first question"),
        (None, "first question"),
    ],
)
def test_what_the_caller_said_is_understood_or_else_the_scenario_says_it(
    recorder: Recorder, speaker: Speaker, recognizer: OneWord | None, transcript: str
) -> None:
    async def main() -> list[dict[str, Any]]:
        client = Client()
        with ThreadPoolExecutor(1) as pool:
            ids = IdSource(lambda: UNIX_TIME, 1)
            options = ModelOptions(recognition=True)
            machine = SessionMachine(SCENARIO, options, ids, model="gpt-realtime", unix_time=UNIX_TIME)
            recognition = None if recognizer is None else RecognitionDesk(recognizer, pool)
            pair = memory_pair(client, ModelSession(machine, SpeechDesk(speaker, pool, recognition), recorder))
            audio = {"input": {"transcription": {"model": "whisper-1"}}}
            for event in (
                {"type": "session.update", "session": {"type": "realtime", "audio": audio}},
                {"type": "input_audio_buffer.append", "audio": as_base64(quiet(100) + loud(600) + quiet(800))},
            ):
                pair.client.send_text(json.dumps(event).encode())
            await client.done.wait()
            pair.client.close()
            await pair.client.wait_closed()
        return client.events

    (heard,) = of_type(virtual_clock.run(main()), "conversation.item.input_audio_transcription.completed")
    assert heard["transcript"] == transcript


async def test_a_session_that_fails_keeps_nobody_else_from_its_speech(speaker: Speaker) -> None:
    loop = asyncio.get_running_loop()
    delivered: asyncio.Future[Utterance | None] = loop.create_future()
    reported: list[BaseException] = []
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def fail(_: Utterance | None) -> None:
        raise RuntimeError("a bug")

    with ThreadPoolExecutor(1) as pool:
        desk = SpeechDesk(speaker, pool)
        request = SpeechRequest("Something that nobody has said before.")
        desk.order(request, fail)
        desk.order(request, delivered.set_result)
        assert (await delivered) is not None
    assert [str(error) for error in reported] == ["a bug"]
