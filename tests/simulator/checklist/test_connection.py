"""Checklist lines 1 to 12: how a session is opened, who is let in, what ends it, and how every frame looks."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import openai
import pytest
import websockets
from openai import AsyncOpenAI
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode
from websockets.sync.client import connect as connect_blocking
from websockets.typing import Subprotocol

from orchestrator.simulator.endpoint.admission import AccessRules, ApiForm
from orchestrator.simulator.endpoint.fault_desk import FaultDesk
from orchestrator.simulator.endpoint.fault_types import TranscriptionFault
from orchestrator.simulator.endpoint.model_session import ModelSession, SpeechDesk
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.session_machine import SessionMachine
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.scenario import parse_scenario
from orchestrator.simulator.server import LEG_OPTIONS, SimulatorServer
from orchestrator.testing import virtual_clock
from orchestrator.transports import memory_pair
from orchestrator.transports.opening import resume
from tests.simulator.checklist.conftest import Serve
from tests.simulator.checklist.support import (
    ANSWER,
    KEY,
    MODEL,
    PATIENCE,
    Clock,
    Raw,
    ToneSpeaker,
    joined,
    judged_by,
    opened,
    user,
)
from tests.simulator.rest.support import ask
from tests.simulator.support import (
    SCENARIO,
    TEXT_ONLY,
    UNIX_TIME,
    Driver,
    Recorder,
    as_base64,
    loud,
    of_type,
    only,
    quiet,
    types,
)
from tests.transports.support import RawPeer, frame
from tests.waiting import until as wait_until

ACCESS = AccessRules(keys=frozenset({"sk-right"}))
RIGHT = {"Authorization": "Bearer sk-right"}
BETA = {**RIGHT, "OpenAI-Beta": "realtime=v1"}
HOUR = "Your session hit the maximum duration of 60 minutes."
SUPPORTED = (
    "'session.update', 'session.close', 'input_audio_buffer.append', 'session.input_audio_buffer.append', "
    "'input_audio_buffer.commit', 'input_audio_buffer.clear', 'conversation.item.create', 'conversation.item.truncate', "
    "'conversation.item.delete', 'conversation.item.retrieve', 'response.create', and 'response.cancel'."
)
INVALID = "invalid_request_error"
Refused = tuple[dict[str, Any], int, str]


async def turned_away(server: SimulatorServer, query: str, headers: dict[str, str]) -> Refused:
    """What a client is told that gets a socket and no session: one error, then the close frame."""
    async with opened(server, query, additional_headers=headers) as raw:
        event = await raw.recv()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await raw.recv()
    assert event["type"] == "error"
    assert closed.value.rcvd is not None
    return event["error"], closed.value.rcvd.code, closed.value.rcvd.reason


# --- 1 to 5: who is let in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "headers", "code", "close"),
    [
        (MODEL, {}, None, (3000, INVALID)),
        (MODEL, {"Authorization": "Bearer sk-wrong"}, "invalid_api_key", (3000, f"{INVALID}.invalid_api_key")),
        ("", RIGHT, "missing_model", (4000, f"{INVALID}.missing_model")),
        ("?model=llama", RIGHT, "invalid_model", (4000, f"{INVALID}.invalid_model")),
        (MODEL, BETA, "beta_api_shape_disabled", (4000, f"{INVALID}.beta_api_shape_disabled")),
    ],
)
async def test_01a_faults_of_key_and_model_are_told_after_the_upgrade(
    serve: Serve, query: str, headers: dict[str, str], code: str | None, close: tuple[int, str]
) -> None:
    error, *closed = await turned_away(await serve(access=ACCESS), query, headers)
    assert tuple(closed) == close
    assert (error["type"], error["code"], error["param"]) == (INVALID, code, None)


async def test_01b_the_form_of_azure_refuses_at_the_handshake(serve: Serve) -> None:
    server = await serve(access=AccessRules(keys=frozenset({"sk-right"}), form=ApiForm.AZURE))
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(server.url + MODEL, additional_headers={"api-key": "sk-wrong"})
    assert refused.value.response.status_code == 401
    async with opened(server, additional_headers={"api-key": "sk-right"}) as raw:
        assert (await raw.recv())["type"] == "session.created"


@pytest.mark.parametrize(
    ("offered", "headers", "chosen"),
    [
        (None, RIGHT, None),
        (["realtime"], RIGHT, "realtime"),
        (["realtime", "openai-insecure-api-key.sk-right"], {}, "realtime"),
        (
            ["realtime", "openai-insecure-api-key.sk-right", "openai-organization.o", "openai-project.p", "sdk.1.2"],
            {},
            "realtime",
        ),
        (["sdk.1.2", "openai-insecure-api-key.sk-right", "realtime"], {}, "realtime"),
    ],
)
async def test_02_the_key_is_a_header_or_a_subprotocol_and_realtime_alone_is_chosen(
    serve: Serve, offered: list[str] | None, headers: dict[str, str], chosen: str | None
) -> None:
    server = await serve(access=ACCESS)
    subprotocols = None if offered is None else [Subprotocol(name) for name in offered]
    async with opened(server, additional_headers=headers, subprotocols=subprotocols) as raw:
        assert raw.connection.subprotocol == chosen
        assert (await raw.recv())["type"] == "session.created"


@pytest.mark.parametrize("way", ["base_url", "websocket_base_url", "environment"])
async def test_03a_the_official_client_finds_it_by_each_of_its_settings(
    server: SimulatorServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    settings: dict[str, Any] = {"base_url": {"base_url": server.rest_url}, "websocket_base_url": {way: server.base_url}}.get(
        way, {}
    )
    if way == "environment":
        monkeypatch.setenv("OPENAI_BASE_URL", server.rest_url)
    client = AsyncOpenAI(api_key="sk-test", **settings)
    async with asyncio.timeout(PATIENCE), client, client.realtime.connect(model="gpt-realtime") as connection:
        event = await connection.recv()
    assert event.type == "session.created"


async def test_03b_a_client_on_aiohttp_has_a_conversation(server: SimulatorServer) -> None:
    """As LiveKit connects: aiohttp, its own User-Agent, compression and heartbeat offered."""
    url = f"http://127.0.0.1:{server.port}/v1/realtime{MODEL}"
    async with (
        asyncio.timeout(PATIENCE),
        aiohttp.ClientSession(headers={**KEY, "User-Agent": "LiveKit Agents"}) as session,
        session.ws_connect(url, heartbeat=20, compress=15) as socket_,
    ):
        assert (await socket_.receive_json())["type"] == "session.created"
        await socket_.send_json({"type": "session.update", "session": TEXT_ONLY})
        await socket_.send_json({"type": "conversation.item.create", "item": user("first question")})
        await socket_.send_json({"type": "response.create"})
        events = [await socket_.receive_json()]
        while events[-1]["type"] != "response.done":
            events.append(await socket_.receive_json())
        await socket_.close()
        assert socket_.close_code == 1000
    assert joined(events, "response.output_text.delta") == ANSWER


async def test_03c_a_client_that_blocks_has_a_session(server: SimulatorServer) -> None:
    def converse() -> str:
        with connect_blocking(server.url + MODEL, additional_headers=KEY) as connection:
            return str(json.loads(connection.recv(PATIENCE))["type"])

    assert await asyncio.to_thread(converse) == "session.created"


def test_03d_the_official_libraries_are_judges_of_their_own() -> None:
    assert "test_the_client_without_asyncio" in judged_by("test_openai_client")
    assert "test_it_has_no_complaint" in judged_by("test_agents_python")
    assert "test_it_could_read_every_frame" in judged_by("test_agents_js")


@pytest.mark.parametrize(
    ("query", "kind", "model"),
    [
        ("?model=gpt-realtime&other=1&intent=", "realtime", "gpt-realtime"),
        ("?safety_identifier=x&model=gpt-realtime-mini", "realtime", "gpt-realtime-mini"),
        ("?intent=transcription", "transcription", None),
        ("?intent=transcription&other=1", "transcription", None),
    ],
)
async def test_04a_the_query_says_what_the_session_is(
    server: SimulatorServer, query: str, kind: str, model: str | None
) -> None:
    async with opened(server, query) as raw:
        session = (await raw.recv())["session"]
    assert (session["type"], session.get("model")) == (kind, model)


async def test_04b_without_a_model_a_call_and_an_intent_there_is_no_session(server: SimulatorServer) -> None:
    error, code, _ = await turned_away(server, "?other=1", KEY)
    example = "wss://api.openai.com/v1/realtime?model=gpt-realtime-1.5"
    assert error["message"] == f"You must provide a model parameter, for example {example}"
    assert (error["code"], code) == ("missing_model", 4000)


async def test_04c_a_call_needs_no_model(server: SimulatorServer) -> None:
    error, _, _ = await turned_away(server, "?call_id=rtc_nobody", KEY)
    assert error["code"] not in ("missing_model", "invalid_model")
    assert "rtc_nobody" in error["message"]


async def test_05_the_beta_is_over(server: SimulatorServer) -> None:
    error, code, reason = await turned_away(server, MODEL, {**KEY, "OpenAI-Beta": "realtime=v1"})
    assert error == {
        "type": INVALID,
        "code": "beta_api_shape_disabled",
        "message": "The Realtime Beta API is no longer supported. Please use /v1/realtime for the GA API.",
        "param": None,
        "event_id": None,
    }
    assert (code, reason) == (4000, f"{INVALID}.beta_api_shape_disabled")


# --- 6 to 8: the beginning, the quiet, the end ------------------------------------------------------------------------


async def test_06a_the_first_frame_is_the_session_and_there_is_no_second_one(server: SimulatorServer) -> None:
    async with opened(server) as raw:
        assert (await raw.recv())["type"] == "session.created"
        await raw.alone()


def test_06b_it_comes_at_once_and_nothing_follows_by_itself(driver: Driver) -> None:
    driver.wait(3599.0)
    assert types(driver.events) == ["session.created"]
    assert driver.times == [0.0]


def session_on_a_clock(recorder: Recorder, pool: ThreadPoolExecutor, options: ModelOptions | None = None) -> ModelSession:
    """A session for a leg on virtual time."""
    ids = IdSource(lambda: UNIX_TIME, 1)
    machine = SessionMachine(SCENARIO, options or ModelOptions(), ids, model="gpt-realtime", unix_time=UNIX_TIME)
    return ModelSession(machine, SpeechDesk(ToneSpeaker(), pool), recorder)


def test_07a_a_quiet_session_is_pinged_every_20_seconds_and_lives_to_its_age(recorder: Recorder) -> None:
    async def scene() -> tuple[list[float], list[Frame]]:
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            leg = await resume(ours, session_on_a_clock(recorder, pool), side="server", options=LEG_OPTIONS)
            peer = RawPeer(theirs, "client")
            pings: list[float] = []
            while not any(seen.opcode is Opcode.CLOSE for seen in peer.frames):
                known = len(peer.frames)
                new = (await peer.read_frames(lambda seen, known=known: len(seen) > known))[known:]  # type: ignore[misc]
                for ping in [seen for seen in new if seen.opcode is Opcode.PING]:
                    pings.append(loop.time())
                    await peer.send(frame(Opcode.PONG, bytes(ping.data)))
            assert loop.time() == 3600.0
            peer.close()
            await leg.wait_closed()
        return pings, peer.frames

    pings, frames = virtual_clock.run(scene())
    gaps = [later - earlier for earlier, later in zip([0.0, *pings], pings, strict=False)]
    assert len(pings) > 170
    assert all(19.0 < gap < 21.5 for gap in gaps)
    texts = [json.loads(bytes(seen.data))["type"] for seen in frames if seen.opcode is Opcode.TEXT]
    assert texts == ["session.created", "error"]


async def test_07b_pings_of_the_client_are_answered_and_a_close_is_echoed(server: SimulatorServer) -> None:
    async with opened(server) as raw:
        await raw.recv()
        await (await raw.connection.ping(b"four"))
        await raw.connection.close(1000)
        assert raw.connection.protocol.close_rcvd is not None
        assert raw.connection.protocol.close_rcvd.code == 1000


def test_08a_a_session_ends_after_an_hour_that_no_update_extends(driver: Driver) -> None:
    created = driver.events[0]["session"]
    assert created["expires_at"] == UNIX_TIME + 3600
    driver.wait(1800.0)
    assert only(driver.update(instructions="x"), "session.updated")["session"]["expires_at"] == created["expires_at"]
    driver.wait(1799.9)
    assert driver.closed is None
    (event,) = driver.wait(0.2)
    assert (event["error"]["type"], event["error"]["code"], event["error"]["message"]) == (INVALID, "session_expired", HOUR)
    assert driver.closed is not None
    assert (driver.closed.code, driver.closed.reason) == (1001, HOUR)
    assert driver.times[-1] == pytest.approx(3600.0)


async def test_08b_the_age_can_be_set_and_the_close_frame_says_the_same_sentence(serve: Serve) -> None:
    clock = Clock()
    server = await serve(model=ModelOptions(session_seconds=0.05), wall_clock=clock)
    async with opened(server) as raw:
        assert (await raw.recv())["session"]["expires_at"] == int(clock.now + 0.05)
        error = (await raw.recv())["error"]
        await raw.connection.wait_closed()
    assert (raw.connection.close_code, raw.connection.close_reason) == (1001, error["message"])


# --- 9 and 10: frames -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code", "param", "message"),
    [
        (b"\x00\x01", "invalid_event", None, "Expected a text WebSocket message; binary frames are not supported."),
        ("{no", "invalid_json", None, "Invalid event: failed to parse JSON value."),
        ('{"type":"nope"}', "invalid_value", "type", f"Invalid value: 'nope'. Supported values are: {SUPPORTED}"),
        (
            '{"type":"output_audio_buffer.clear"}',
            "invalid_value",
            "type",
            f"Invalid value: 'output_audio_buffer.clear'. Supported values are: {SUPPORTED}",
        ),
    ],
)
async def test_09_a_frame_that_is_none_is_an_error_and_no_end(
    server: SimulatorServer, sent: str | bytes, code: str, param: str | None, message: str
) -> None:
    async with opened(server) as raw:
        await raw.recv()
        await raw.connection.send(sent)
        event = await raw.recv()
        await raw.alone()
    error = event["error"]
    assert (error["type"], error["code"], error["param"]) == (INVALID, code, param)
    assert error["message"].startswith(message)


async def test_10_every_frame_is_compact_and_named_and_numbered(serve: Serve) -> None:
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    clock = Clock()
    server = await serve(wall_clock=clock)
    async with opened(server) as raw:
        events = await raw.until("session.created")
        await raw.send("input_audio_buffer.append", audio=as_base64(quiet(200) + loud(500) + quiet(400)))
        events += await raw.until("rate_limits.updated")
        clock.now += 62
        await raw.send("session.update", session={"type": "realtime", "tools": [{"type": "function", "name": "lookup"}]})
        await raw.send("conversation.item.create", item=user("look — «it» up"))
        await raw.send("response.create")
        events += await raw.until("rate_limits.updated")
        await raw.connection.send("{")
        events += await raw.until("error")
    assert len(events) > 30
    for text, event in zip(raw.frames, events, strict=True):
        assert text == json.dumps(event, separators=(",", ":"), ensure_ascii=False)
        assert list(event)[:2] == ["type", "event_id"]
    ids = [event["event_id"] for event in events]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"event_[0-9A-Za-z]{21}", name) for name in ids)
    seconds = [sum(digits.index(letter) * 62**place for place, letter in enumerate(reversed(name[6:11]))) for name in ids]
    assert seconds[0] == int(UNIX_TIME) - 1_576_800_000
    assert seconds[-1] == seconds[0] + 62
    called = only(events, "response.function_call_arguments.done")
    assert re.fullmatch(r"call_[0-9A-Za-z]{16}", called["call_id"])
    response = of_type(events, "response.created")[0]["response"]
    named = [events[0]["session"]["id"], response["id"], response["conversation_id"], called["item_id"]]
    for name, prefix in zip(named, ("sess", "resp", "conv", "item"), strict=True):
        assert re.fullmatch(prefix + r"_[0-9A-Za-z]{21}", name)


# --- 11: what can be made to fail -------------------------------------------------------------------------------------


async def fault(server: SimulatorServer, **members: Any) -> str:
    """Have something go wrong, as a test script would."""
    answer = await ask("POST", server.control_url + "/faults", members)
    assert answer.status == 201, answer.body
    return str(answer.json()["id"])


async def ending(raw: Raw) -> websockets.ConnectionClosed:
    """How a connection ends that sends nothing more."""
    with pytest.raises(websockets.ConnectionClosed) as closed:
        await raw.recv()
    return closed.value


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_11a_the_upgrade_is_refused(server: SimulatorServer, status: int) -> None:
    await fault(server, do="refuse", status=status, times=1)
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(server.url + MODEL, additional_headers=KEY)
    assert refused.value.response.status_code == status
    async with opened(server) as raw:
        assert (await raw.recv())["type"] == "session.created"


@pytest.mark.parametrize("code", [None, 1011, 1012])
async def test_11b_the_connection_is_dropped_or_closed(server: SimulatorServer, code: int | None) -> None:
    async with opened(server) as raw:
        await raw.recv()
        await fault(server, do="drop", **({} if code is None else {"code": code}))
        closed = await ending(raw)
    # Without a close frame a client reports 1006.
    assert (closed.rcvd.code if closed.rcvd is not None else None) == code
    assert raw.connection.close_code == (code or 1006)


async def test_11c_the_socket_stalls(server: SimulatorServer) -> None:
    async with opened(server) as raw:
        await raw.recv()
        name = await fault(server, do="stall")
        await raw.send("input_audio_buffer.clear")
        answer = asyncio.ensure_future(raw.recv())

        async def another_session() -> bool:
            async with opened(server, "?model=gpt-realtime-mini") as other:
                return bool((await other.recv())["type"] == "session.created")

        # By then the answer is long due.
        await wait_until(another_session)
        assert not answer.done()
        assert (await ask("DELETE", f"{server.control_url}/faults/{name}")).status == 200
        assert (await answer)["type"] == "input_audio_buffer.cleared"


def test_11d_transcripts_come_late_and_twice(recorder: Recorder) -> None:
    class Listener:
        def __init__(self) -> None:
            self.names: list[str] = []

        def on_text(self, data: bytes) -> None:
            self.names.append(json.loads(data)["type"])

        def on_binary(self, data: bytes) -> None:
            raise AssertionError(data)

        def on_closed(self, reason: object) -> None:
            self.names.append("closed")

    async def scene() -> list[str]:
        listener, desk = Listener(), FaultDesk([TranscriptionFault(seconds=60.0, copies=2)], 1)
        with ThreadPoolExecutor(1) as pool:
            session = desk.between(desk.visitor("gpt-realtime", "sk-test"), session_on_a_clock(recorder, pool))
            client, _ = memory_pair(listener, session)
            audio = {"input": {"transcription": {"model": "whisper-1"}}}
            for event in (
                {"type": "session.update", "session": {"type": "realtime", "audio": audio}},
                {"type": "input_audio_buffer.append", "audio": as_base64(loud(500) + quiet(400))},
            ):
                client.send_text(json.dumps(event).encode())
            await asyncio.sleep(120)
            client.close()
            await client.wait_closed()
            desk.clear()
        return listener.names

    names = virtual_clock.run(scene())
    done = "conversation.item.input_audio_transcription.completed"
    assert names.count(done) == 2
    assert names.index(done) > names.index("rate_limits.updated")


@pytest.mark.parametrize(
    "code",
    ["inference_rate_limit_exceeded", "rate_limit_exceeded", "insufficient_quota", "credit_balance_exhausted", "server_error"],
)
def test_11e_a_response_fails_by_scenario(recorder: Recorder, code: str) -> None:
    end = f"{{status: failed, code: {code}, message: Sorry., after: 1}}"
    driver = Driver(recorder, parse_scenario(f"name: x\ndefault: {{do: [{{say: Never said to its end.}}], end: {end}}}"))
    events = driver.ask("?")
    assert "error" not in types(events)
    response = only(events, "response.done")["response"]
    assert response["status"] == "failed"
    assert response["status_details"]["type"] == "failed"
    assert (response["status_details"]["error"]["code"], response["status_details"]["error"]["message"]) == (code, "Sorry.")


async def test_11f_a_response_fails_on_demand(serve: Serve) -> None:
    server = await serve(model=ModelOptions())
    await fault(server, do="fail", code="insufficient_quota", type="insufficient_quota")
    async with opened(server) as raw:
        await raw.send("response.create")
        done = (await raw.until("response.done"))[-1]["response"]
    assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", "insufficient_quota")


# --- 12: client secrets -----------------------------------------------------------------------------------------------


async def test_12a_a_client_secret_opens_sessions_until_it_expires(serve: Serve) -> None:
    clock = Clock()
    server = await serve(access=ACCESS, wall_clock=clock)
    async with AsyncOpenAI(api_key="sk-right", base_url=server.rest_url, max_retries=0) as client:
        session: Any = {"type": "realtime", "model": "gpt-realtime-mini", "instructions": "Be brief."}
        secret = await client.realtime.client_secrets.create(
            expires_after={"anchor": "created_at", "seconds": 10}, session=session
        )
    assert re.fullmatch(r"ek_[0-9a-f]{32}", secret.value)
    assert secret.expires_at == int(clock.now) + 10
    told: Any = secret.session
    assert (told.id[:5], told.object, told.expires_at) == ("sess_", "realtime.session", 0)
    assert told.audio.output.voice == "alloy"
    key = {"Authorization": f"Bearer {secret.value}"}
    clock.now += 9
    async with opened(server, "", additional_headers=key) as first, opened(server, additional_headers=key) as second:
        for raw in (first, second):
            created = (await raw.recv())["session"]
            assert created["instructions"] == "Be brief."
            assert created["expires_at"] == int(clock.now) + 3600
        clock.now += 2
        error, code, _ = await turned_away(server, MODEL, key)
        assert (error["code"], code) == ("invalid_api_key", 3000)
        # What is open outlives its key, and is not bound by what was preset.
        await first.send("session.update", session={"type": "realtime", "instructions": "Be long."})
        assert (await first.recv())["session"]["instructions"] == "Be long."


@pytest.mark.parametrize(("seconds", "allowed"), [(9, False), (10, True), (7200, True), (7201, False)])
async def test_12b_its_life_has_limits(serve: Serve, seconds: int, allowed: bool) -> None:
    clock = Clock()
    server = await serve(wall_clock=clock)
    async with AsyncOpenAI(api_key="sk-right", base_url=server.rest_url, max_retries=0) as client:
        create = client.realtime.client_secrets.create(expires_after={"anchor": "created_at", "seconds": seconds})
        if allowed:
            assert (await create).expires_at == int(clock.now) + seconds
            return
        with pytest.raises(openai.BadRequestError) as refused:
            await create
    assert refused.value.param == "expires_after.seconds"


async def test_12c_without_a_word_it_lives_for_ten_minutes(serve: Serve) -> None:
    clock = Clock()
    server = await serve(wall_clock=clock)
    answer = await ask("POST", f"{server.rest_url}/realtime/client_secrets", {}, KEY)
    assert answer.status == 200
    assert set(answer.json()) == {"value", "expires_at", "session"}
    assert answer.json()["expires_at"] == int(clock.now) + 600
