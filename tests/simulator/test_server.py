"""The server over a real socket, with the official client as the judge, and raw sockets where that client is too polite."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import websockets
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from orchestrator.errors import UserError
from orchestrator.simulator.audio import Encoding, decode
from orchestrator.simulator.endpoint.admission import AccessRules
from orchestrator.simulator.endpoint.options import Timing
from orchestrator.simulator.endpoint.session_machine import ModelOptions
from orchestrator.simulator.scenario import load_scenario, parse_scenario
from orchestrator.simulator.server import LEG_OPTIONS, SimulatorOptions, SimulatorServer
from orchestrator.simulator.speech import Speaker, SpeechRequest, Utterance
from tests.simulator.support import SCENARIO, Recorder, loud, quiet

PATIENCE = 30.0
KEYS_PAGE = "https://platform.openai.com/account/api-keys"
KEY = {"Authorization": "Bearer sk-test"}
QUESTION = "Where is my order four seven one one?"
LOOKUP_ORDER: Any = {"type": "function", "name": "lookup_order", "parameters": {"type": "object", "properties": {}}}
# Nothing is gained by waiting in a test; a little spread keeps an answer interruptible.
HASTY = ModelOptions(timing=Timing(first_output=0.0, pace=100.0, text_interval=0.0), transcription_delay=0.0)
STEADY = ModelOptions(timing=Timing(first_output=0.0, pace=5.0), transcription_delay=0.0)


def options(recorder: Recorder, scenario: str = "order_desk", model: ModelOptions = HASTY, **more: Any) -> SimulatorOptions:
    return SimulatorOptions(load_scenario(scenario), model=model, on_frame=recorder, **more)


@pytest.fixture
async def server(recorder: Recorder, speaker: Speaker) -> AsyncIterator[SimulatorServer]:
    async with SimulatorServer(options(recorder), speaker) as running:
        yield running


@pytest.fixture
async def steady(recorder: Recorder, speaker: Speaker) -> AsyncIterator[SimulatorServer]:
    """As `server`, but an answer takes a while."""
    async with SimulatorServer(options(recorder, model=STEADY), speaker) as running:
        yield running


def client(server: SimulatorServer, **more: Any) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="sk-test", websocket_base_url=server.base_url, **more)


async def until(connection: AsyncRealtimeConnection, last: str) -> list[Any]:
    """All events up to the first of this type."""
    events: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        while not events or events[-1].type != last:
            events.append(await connection.recv())
    return events


def pick(events: list[Any], type_: str) -> list[Any]:
    return [event for event in events if event.type == type_]


def user(text: str) -> Any:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


async def append(connection: AsyncRealtimeConnection, audio: bytes, step: int = 4800) -> None:
    for start in range(0, len(audio), step):
        await connection.input_audio_buffer.append(audio=base64.b64encode(audio[start : start + step]).decode())


# --- The official client ----------------------------------------------------------------------------------------------


async def test_a_session_starts_and_is_updated(server: SimulatorServer) -> None:
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        (created,) = await until(connection, "session.created")
        assert created.session.model == "gpt-realtime"
        assert created.session.audio.output.voice == "alloy"
        await connection.session.update(session={"type": "realtime", "instructions": "Be brief."})
        (updated,) = await until(connection, "session.updated")
        assert updated.session.instructions == "Be brief."


async def test_the_base_url_alone_is_enough(server: SimulatorServer) -> None:
    official = AsyncOpenAI(api_key="sk-test", base_url=f"http://127.0.0.1:{server.port}/v1")
    async with official.realtime.connect(model="gpt-realtime") as connection:
        await until(connection, "session.created")


async def test_a_text_turn(server: SimulatorServer) -> None:
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        await connection.conversation.item.create(item=user("thanks"))
        await connection.response.create()
        events = await until(connection, "response.done")
        text = "".join(event.delta for event in pick(events, "response.output_text.delta"))
        assert text == events[-1].response.output[0].content[0].text == "You are welcome. Goodbye!"
        assert events[-1].response.usage.total_tokens > 0


def assert_intelligible(audio: bytes, encoding: Encoding, text: str) -> None:
    """It has the length and the loudness that speech of this text has."""
    seconds = len(audio) / encoding.bytes_per_ms / 1000
    assert len(text) / 22 < seconds < len(text) / 9
    samples = decode(audio, encoding).astype(np.float64)
    assert np.sqrt((samples**2).mean()) > 800
    frames = samples[: len(samples) // 50 * 50].reshape(50, -1)
    assert (np.sqrt((frames**2).mean(axis=1)) > 300).mean() > 0.6


@pytest.mark.parametrize("encoding", list(Encoding))
async def test_a_spoken_turn_with_a_function_call(server: SimulatorServer, speaker: Speaker, encoding: Encoding) -> None:
    question = speaker.render(SpeechRequest(QUESTION, "echo", encoding=encoding)).audio + quiet(600, encoding)
    form: Any = {"type": encoding.value, **({"rate": 24000} if encoding is Encoding.PCM16 else {})}
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await connection.session.update(
            session={
                "type": "realtime",
                "tools": [LOOKUP_ORDER],
                "audio": {"input": {"format": form, "transcription": {"model": "whisper-1"}}, "output": {"format": form}},
            }
        )
        await append(connection, question, encoding.bytes_per_ms * 20)
        events = await until(connection, "response.done")
        (started,) = pick(events, "input_audio_buffer.speech_started")
        (committed,) = pick(events, "input_audio_buffer.committed")
        assert started.item_id == committed.item_id
        (call,) = pick(events, "response.function_call_arguments.done")
        assert (call.name, json.loads(call.arguments)) == ("lookup_order", {"order_id": "4711"})
        (heard,) = pick(events, "conversation.item.input_audio_transcription.completed")
        assert heard.transcript == QUESTION

        output = json.dumps({"status": "on its way", "eta": "tomorrow"})
        await connection.conversation.item.create(
            item={"type": "function_call_output", "call_id": call.call_id, "output": output}
        )
        await connection.response.create()
        events = await until(connection, "response.done")
        (transcript,) = (event.transcript for event in pick(events, "response.output_audio_transcript.done"))
        assert "It is on its way." in transcript
        assert "tomorrow" in transcript
        spoken = b"".join(base64.b64decode(event.delta) for event in pick(events, "response.output_audio.delta"))
        assert_intelligible(spoken, encoding, transcript)


async def test_a_turn_without_vad(server: SimulatorServer) -> None:
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await connection.session.update(
            session={"type": "realtime", "output_modalities": ["text"], "audio": {"input": {"turn_detection": None}}}
        )
        await append(connection, loud(300))
        await connection.input_audio_buffer.commit()
        events = await until(connection, "conversation.item.done")
        assert not pick(events, "input_audio_buffer.speech_started")
        await connection.response.create()
        await until(connection, "response.done")


async def test_cancel(steady: SimulatorServer) -> None:
    async with client(steady).realtime.connect(model="gpt-realtime") as connection:
        await connection.conversation.item.create(item=user("What can you do?"))
        await connection.response.create()
        await until(connection, "response.output_audio.delta")
        await connection.response.cancel()
        done = (await until(connection, "response.done"))[-1].response
        assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")
        await connection.response.cancel(event_id="late")
        error = (await until(connection, "error"))[-1].error
        assert (error.code, error.event_id) == ("response_cancel_not_active", "late")


async def test_a_response_while_one_is_active_is_refused(steady: SimulatorServer) -> None:
    async with client(steady).realtime.connect(model="gpt-realtime") as connection:
        await connection.conversation.item.create(item=user("What can you do?"))
        await connection.response.create()
        await connection.response.create(event_id="second")
        events = await until(connection, "response.done")
        (error,) = (event.error for event in pick(events, "error"))
        assert (error.code, error.event_id) == ("conversation_already_has_active_response", "second")
        assert events[-1].response.id in error.message
        assert len(pick(events, "response.created")) == 1


async def test_a_caller_talks_into_the_answer_and_the_client_truncates(steady: SimulatorServer) -> None:
    async with client(steady).realtime.connect(model="gpt-realtime") as connection:
        await connection.conversation.item.create(item=user("What can you do?"))
        await connection.response.create()
        await until(connection, "response.output_audio.delta")
        await append(connection, loud(400))
        events = await until(connection, "response.done")
        names = [event.type for event in events]
        assert names.index("input_audio_buffer.speech_started") < names.index("response.output_audio.done")
        assert events[-1].response.status_details.reason == "turn_detected"
        item = events[-1].response.output[0]
        assert item.status == "incomplete"
        await connection.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=120)
        await connection.conversation.item.retrieve(item_id=item.id)
        truncated, retrieved = (await until(connection, "conversation.item.retrieved"))[-2:]
        assert (truncated.type, truncated.audio_end_ms) == ("conversation.item.truncated", 120)
        (part,) = retrieved.item.content
        assert len(base64.b64decode(part.audio)) == 120 * 48
        assert not part.transcript


async def test_truncate_and_its_three_errors(server: SimulatorServer) -> None:
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        typed: Any = {**user("thanks"), "id": "item_typed"}
        await connection.conversation.item.create(item=typed)
        await connection.response.create()
        item = (await until(connection, "response.done"))[-1].response.output[0]

        async def truncate(item_id: str, audio_end_ms: int) -> Any:
            await connection.conversation.item.truncate(item_id=item_id, content_index=0, audio_end_ms=audio_end_ms)
            return (await until(connection, "error"))[-1].error

        beyond = await truncate(item.id, 60_000)
        assert beyond.code == "invalid_value"
        assert beyond.message.endswith("ms is already shorter than 60000ms")
        wrong_kind = await truncate("item_typed", 100)
        assert wrong_kind.code == "unsupported_content_type"
        assert wrong_kind.message == "Only model output audio messages can be truncated"
        unknown = await truncate("item_gone", 100)
        assert unknown.code == "item_truncate_invalid_item_id"
        assert unknown.message == "Error truncating item: the item with id 'item_gone' does not exist."
        await connection.conversation.item.truncate(item_id=item.id, content_index=0, audio_end_ms=500)
        await until(connection, "conversation.item.truncated")


async def test_a_response_out_of_band(server: SimulatorServer) -> None:
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await connection.response.create(
            response={"conversation": "none", "input": [user("bye")], "metadata": {"n": "1"}, "output_modalities": ["text"]}
        )
        events = await until(connection, "response.done")
        assert events[-1].response.conversation_id is None
        assert events[-1].response.metadata == {"n": "1"}
        assert not [event for event in events if event.type.startswith("conversation.item")]


# --- Who may come in --------------------------------------------------------------------------------------------------


async def refused(url: str, **more: Any) -> tuple[dict[str, Any], int, str]:
    """The error and the close frame of a session that never begins."""
    async with asyncio.timeout(PATIENCE), connect(url, **more) as raw:
        event = json.loads(await raw.recv())
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await raw.recv()
    assert event["type"] == "error"
    assert closed.value.rcvd is not None
    return event["error"], closed.value.rcvd.code, closed.value.rcvd.reason


@pytest.mark.parametrize(
    ("query", "headers", "code", "message", "close"),
    [
        ("?model=gpt-realtime", {}, None, "Missing bearer or basic authentication in header", (3000, "invalid_request_error")),
        (
            "?model=gpt-realtime",
            {"Authorization": "Bearer sk-wrong-key-12345"},
            "invalid_api_key",
            f"Incorrect API key provided: sk-********2345. You can find your API key at {KEYS_PAGE}.",
            (3000, "invalid_request_error.invalid_api_key"),
        ),
        (
            "",
            {"Authorization": "Bearer right"},
            "missing_model",
            "You must provide a model parameter, for example wss://api.openai.com/v1/realtime?model=gpt-realtime-1.5",
            (4000, "invalid_request_error.missing_model"),
        ),
        (
            "?model=llama",
            {"Authorization": "Bearer right"},
            "invalid_model",
            'Model "llama" is not supported in realtime mode.',
            (4000, "invalid_request_error.invalid_model"),
        ),
        (
            "?model=gpt-realtime",
            {"Authorization": "Bearer right", "OpenAI-Beta": "realtime=v1"},
            "beta_api_shape_disabled",
            "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API.",
            (4000, "invalid_request_error.beta_api_shape_disabled"),
        ),
    ],
)
async def test_a_refusal_is_an_event_on_an_open_socket(
    recorder: Recorder,
    speaker: Speaker,
    query: str,
    headers: dict[str, str],
    code: str | None,
    message: str,
    close: tuple[int, str],
) -> None:
    access = AccessRules(keys=frozenset({"right"}))
    async with SimulatorServer(options(recorder, access=access), speaker) as running:
        error, *closed = await refused(running.url + query, additional_headers=headers)
    assert error == {"type": "invalid_request_error", "code": code, "message": message, "param": None, "event_id": None}
    assert tuple(closed) == close


async def test_a_model_can_be_made_known_and_a_key_demanded(recorder: Recorder, speaker: Speaker) -> None:
    access = AccessRules(keys=frozenset({"one", "two"}), models=frozenset({"llama"}))
    key = {"Authorization": "bearer two"}
    async with (
        SimulatorServer(options(recorder, access=access), speaker) as running,
        connect(f"{running.url}?model=llama", additional_headers=key) as raw,
    ):
        assert json.loads(await raw.recv())["session"]["model"] == "llama"


async def test_a_browser_gives_its_key_as_a_subprotocol(server: SimulatorServer) -> None:
    offered = [Subprotocol("realtime"), Subprotocol("openai-insecure-api-key.sk-browser")]
    async with connect(f"{server.url}?model=gpt-realtime", subprotocols=offered) as raw:
        assert raw.subprotocol == "realtime"
        assert json.loads(await raw.recv())["type"] == "session.created"


async def test_without_an_offer_no_subprotocol_is_chosen(server: SimulatorServer) -> None:
    async with connect(f"{server.url}/?model=gpt-realtime&other=1", additional_headers=KEY) as raw:
        assert raw.subprotocol is None
        assert json.loads(await raw.recv())["type"] == "session.created"


@pytest.mark.parametrize(("path", "status"), [("/v1/models", b"404"), ("/v1/realtime?model=gpt-realtime", b"426")])
async def test_what_is_no_session_gets_a_plain_answer(server: SimulatorServer, path: str, status: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    assert answer.split()[1] == status


async def test_more_sessions_than_allowed_are_refused(recorder: Recorder, speaker: Speaker) -> None:
    async with SimulatorServer(options(recorder, max_sessions=1), speaker) as running:
        url = f"{running.url}?model=gpt-realtime"
        async with connect(url, additional_headers=KEY) as raw:
            await raw.recv()
            with pytest.raises(websockets.InvalidStatus, match="503"):
                await connect(url, additional_headers=KEY)


# --- The socket -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def raw(server: SimulatorServer) -> AsyncIterator[ClientConnection]:
    async with connect(f"{server.url}?model=gpt-realtime", additional_headers=KEY, max_size=None) as connection:
        assert json.loads(await connection.recv())["type"] == "session.created"
        yield connection


@pytest.mark.parametrize(
    ("frame", "code"),
    [(b"\0\1", "invalid_event"), ("{", "invalid_json"), ('{"type":"nope"}', "invalid_value"), ("[]", "invalid_event")],
)
async def test_a_faulty_frame_is_answered_and_the_session_lives(raw: ClientConnection, frame: bytes | str, code: str) -> None:
    await raw.send(frame)
    error = json.loads(await raw.recv())["error"]
    assert error["code"] == code
    await raw.send('{"type":"input_audio_buffer.clear"}')
    assert json.loads(await raw.recv())["type"] == "input_audio_buffer.cleared"


async def test_a_close_is_echoed(raw: ClientConnection) -> None:
    await raw.close(1000)
    assert raw.close_code == 1000


async def test_a_ping_of_the_client_is_answered(raw: ClientConnection) -> None:
    async with asyncio.timeout(PATIENCE):
        await (await raw.ping())


def test_the_server_pings_as_often_as_the_live_one() -> None:
    assert LEG_OPTIONS.ping_interval == pytest.approx(20, abs=0.5)


async def test_an_append_may_be_large(raw: ClientConnection) -> None:
    audio = base64.b64encode(quiet(60_000)).decode()
    await raw.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
    await raw.send('{"type":"input_audio_buffer.clear"}')
    assert json.loads(await raw.recv())["type"] == "input_audio_buffer.cleared"


async def test_leaving_ends_the_sessions(recorder: Recorder, speaker: Speaker) -> None:
    async with SimulatorServer(options(recorder), speaker) as running:
        raw = await connect(f"{running.url}?model=gpt-realtime", additional_headers=KEY)
        await raw.recv()
    await raw.wait_closed()
    assert raw.close_code == 1001


async def test_a_client_that_vanishes_in_the_middle_harms_nobody(steady: SimulatorServer) -> None:
    ask = [
        '{"type":"conversation.item.create","item":{"type":"message","role":"user","content":[{"type":"input_text","text":"?"}]}}',
        '{"type":"response.create"}',
    ]
    for _ in range(3):
        raw = await connect(f"{steady.url}?model=gpt-realtime", additional_headers=KEY)
        for event in ask:
            await raw.send(event)
        await raw.recv()
        raw.transport.abort()
    async with client(steady).realtime.connect(model="gpt-realtime") as connection:
        await until(connection, "session.created")


async def test_a_session_ends_at_its_age_with_the_reason_in_the_close_frame(recorder: Recorder, speaker: Speaker) -> None:
    short = ModelOptions(session_seconds=0.05)
    async with (
        asyncio.timeout(PATIENCE),
        SimulatorServer(options(recorder, model=short), speaker) as running,
        connect(f"{running.url}?model=gpt-realtime", additional_headers=KEY) as raw,
    ):
        assert json.loads(await raw.recv())["type"] == "session.created"
        assert json.loads(await raw.recv())["error"]["code"] == "session_expired"
        await raw.wait_closed()
    assert raw.close_code == 1001
    assert str(raw.close_reason).startswith("Your session hit the maximum duration")


async def test_speech_that_many_wait_for_is_made_once(recorder: Recorder) -> None:
    made: list[SpeechRequest] = []

    class Counting(Speaker):
        def render(self, request: SpeechRequest) -> Utterance:
            made.append(request)
            return super().render(request)

    scenario = parse_scenario("name: x\ndefault: {do: [{say: Everybody hears the same sentence.}]}")
    chosen = SimulatorOptions(scenario, model=HASTY, on_frame=recorder)
    async with SimulatorServer(chosen, Counting()) as running:

        async def ask() -> str:
            async with client(running).realtime.connect(model="gpt-realtime") as connection:
                await connection.response.create()
                done = (await until(connection, "response.done"))[-1]
                return str(done.response.output[0].content[0].transcript)

        answers = await asyncio.gather(*(ask() for _ in range(8)))
    assert set(answers) == {"Everybody hears the same sentence."}
    assert [request.text for request in made].count("Everybody hears the same sentence.") == 1


async def test_ids_repeat_under_a_seed(recorder: Recorder, speaker: Speaker) -> None:
    seen = []
    for _ in range(2):
        async with (
            SimulatorServer(options(recorder, seed=5), speaker) as running,
            client(running).realtime.connect(model="gpt-realtime") as connection,
        ):
            seen.append((await until(connection, "session.created"))[0].session.id)
    # The first characters count seconds.
    assert seen[0][len("sess_") + 5 :] == seen[1][len("sess_") + 5 :]


async def test_without_speech_the_server_does_not_start(recorder: Recorder) -> None:
    class Mute(Speaker):
        def render(self, request: SpeechRequest) -> Utterance:
            raise UserError("speech needs espeak-ng")

    with pytest.raises(UserError, match="espeak-ng"):
        async with SimulatorServer(options(recorder), Mute()):
            pytest.fail("it started")


async def test_a_taken_port_is_an_os_error(server: SimulatorServer, recorder: Recorder, speaker: Speaker) -> None:
    with pytest.raises(OSError, match="in use"):
        async with SimulatorServer(options(recorder, port=server.port), speaker):
            pytest.fail("it started")


async def test_half_a_request_is_no_session(server: SimulatorServer) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_connection(("127.0.0.1", server.port)) as half:
        half.setblocking(False)
        await loop.sock_sendall(half, b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\n")
        async with client(server).realtime.connect(model="gpt-realtime") as connection:
            await until(connection, "session.created")


async def test_the_scenario_in_support_works_over_a_socket_too(recorder: Recorder, speaker: Speaker) -> None:
    chosen = SimulatorOptions(SCENARIO, model=HASTY, on_frame=recorder)
    async with (
        SimulatorServer(chosen, speaker) as running,
        client(running).realtime.connect(model="gpt-realtime") as connection,
    ):
        await connection.response.create()
        done = (await until(connection, "response.done"))[-1].response
        assert done.output[0].content[0].transcript == "Welcome to the test."
