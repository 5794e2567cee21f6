"""The calls API over a real socket, with the official client and our own as judges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import websockets
from openai import AsyncOpenAI
from websockets.asyncio.client import connect

from orchestrator.errors import CallControlError
from orchestrator.realtime.calls import RealtimeCalls
from orchestrator.simulator.endpoint.admission import AccessRules
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.phone.exchange import CallRules
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from orchestrator.simulator.speech import Speaker
from tests.simulator.rest.support import PATIENCE, Service, Simulator, ask, serving
from tests.simulator.support import SCENARIO, Recorder

KEY = "sk-right"
FAST = ModelOptions(timing=Timing(first_output=0.0, pace=10.0, text_interval=0.0), transcription_delay=0.0)
FORMAT: Any = {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}


@pytest.fixture
async def server(recorder: Recorder, speaker: Speaker) -> AsyncIterator[SimulatorServer]:
    access = AccessRules(keys=frozenset({KEY}))
    options = SimulatorOptions(SCENARIO, model=FAST, on_frame=recorder, access=access)
    async with SimulatorServer(options, speaker) as running:
        yield running


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving(Service()) as running:
        yield running


@pytest.fixture
def simulator(server: SimulatorServer) -> Simulator:
    return Simulator(server)


@pytest.fixture
async def client(server: SimulatorServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key=KEY, base_url=server.rest_url, max_retries=0) as official:
        yield official


def code_of(error: openai.APIStatusError) -> tuple[int, str | None]:
    return error.status_code, error.code


# --- A call from the webhook to the end -------------------------------------------------------------------------------


async def test_a_call_is_announced_accepted_joined_and_hung_up(
    client: AsyncOpenAI, service: Service, simulator: Simulator
) -> None:
    call_id = await simulator.ring(service)
    await client.realtime.calls.accept(call_id, type="realtime", model="gpt-realtime", instructions="Be brief.", audio=FORMAT)
    assert (await simulator.show(call_id))["state"] == "connected"
    async with asyncio.timeout(PATIENCE), client.realtime.connect(call_id=call_id) as connection:
        created = await connection.recv()
        assert created.type == "session.created"
        assert created.session.type == "realtime"
        assert created.session.instructions == "Be brief."
        await connection.response.create()
        seen: list[str] = []
        while not seen or seen[-1] != "output_audio_buffer.stopped":
            seen.append((await connection.recv()).type)
        assert "output_audio_buffer.started" in seen
        assert "response.output_audio_transcript.done" in seen
        assert "response.output_audio.delta" not in seen
        await client.realtime.calls.hangup(call_id)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await connection.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000
    report = await simulator.show(call_id)
    assert (report["state"], report["end"]["code"]) == ("ended", "hung_up")
    assert [item["transcript"] for item in report["heard"]] == ["Welcome to the test."]
    assert report["heard_ms"] == report["heard"][0]["ms"] > 300


async def test_the_caller_speaks_is_heard_and_hangs_up(client: AsyncOpenAI, service: Service, simulator: Simulator) -> None:
    hang_up = {"hang_up": True, "after_seconds": 0}
    call_id = await simulator.ring(service, {"text": "first question", "after_seconds": 0}, {"dtmf": "1"}, hang_up)
    await client.realtime.calls.accept(call_id, type="realtime", model="gpt-realtime")
    async with asyncio.timeout(PATIENCE), client.realtime.connect(call_id=call_id) as connection:
        seen = [event.type async for event in connection]
    assert seen.count("input_audio_buffer.committed") >= 1
    assert seen.count("input_audio_buffer.dtmf_event_received") == 1
    report = await simulator.until(call_id, "ended")
    assert report["end"]["code"] == "caller_hung_up"
    assert report["heard"][0]["transcript"].startswith("The first answer")
    assert report["steps_left"] == 0


async def test_a_call_is_rejected_with_603_unless_told_otherwise(
    client: AsyncOpenAI, service: Service, simulator: Simulator
) -> None:
    for given, status_code in ((openai.omit, 603), (486, 486)):
        call_id = await simulator.ring(service)
        await client.realtime.calls.reject(call_id, status_code=given)
        report = await simulator.show(call_id)
        assert (report["state"], report["status_code"]) == ("rejected", status_code)


async def test_a_caller_is_referred_to_somebody_else(client: AsyncOpenAI, service: Service, simulator: Simulator) -> None:
    call_id = await simulator.ring(service)
    await client.realtime.calls.accept(call_id, type="realtime", model="gpt-realtime")
    async with client.realtime.connect(call_id=call_id) as connection:
        await connection.recv()
        await client.realtime.calls.refer(call_id, target_uri="tel:+15550199")
        with pytest.raises(websockets.ConnectionClosed):
            await connection.recv()
    report = await simulator.show(call_id)
    assert (report["state"], report["target_uri"]) == ("referred", "tel:+15550199")


async def test_every_answer_is_200_and_empty(server: SimulatorServer, service: Service, simulator: Simulator) -> None:
    call_id = await simulator.ring(service)
    base = f"{server.rest_url}/realtime/calls/{call_id}"
    for path, body in (("accept", {"type": "realtime"}), ("hangup", None)):
        answer = await ask("POST", f"{base}/{path}", body, {"Authorization": f"Bearer {KEY}"})
        assert (answer.status, answer.body) == (200, b"")


async def test_our_own_client_speaks_the_same(server: SimulatorServer, service: Service, simulator: Simulator) -> None:
    calls = RealtimeCalls(KEY, base_url=server.rest_url)
    accepted = await simulator.ring(service)
    await calls.accept(accepted, {"type": "realtime", "model": "gpt-realtime"})
    await calls.refer(accepted, "sip:desk@example.com")
    rejected = await simulator.ring(service)
    await calls.reject(rejected, 480)
    hung_up = await simulator.ring(service)
    await calls.hang_up(hung_up)
    await calls.hang_up(hung_up)
    states = {call["call_id"]: call["state"] for call in (await simulator.ask("GET")).json()["calls"]}
    assert states == {accepted: "referred", rejected: "rejected", hung_up: "ended"}
    with pytest.raises(CallControlError) as refused:
        await calls.accept("rtc_gone", {"type": "realtime"})
    assert refused.value.status == 404
    assert "call_id_not_found" in str(refused.value)


# --- What is refused --------------------------------------------------------------------------------------------------


async def test_a_second_accept_is_an_error_and_harms_nothing(
    client: AsyncOpenAI, service: Service, simulator: Simulator
) -> None:
    call_id = await simulator.ring(service)
    await client.realtime.calls.accept(call_id, type="realtime", model="gpt-realtime")
    with pytest.raises(openai.BadRequestError) as refused:
        await client.realtime.calls.accept(call_id, type="realtime", model="gpt-realtime")
    assert code_of(refused.value) == (400, "call_already_accepted")
    with pytest.raises(openai.BadRequestError):
        await client.realtime.calls.reject(call_id)
    assert (await simulator.show(call_id))["state"] == "connected"


async def test_a_call_that_is_not_there_or_is_over_is_not_found(
    client: AsyncOpenAI, service: Service, simulator: Simulator
) -> None:
    over = await simulator.ring(service)
    await client.realtime.calls.hangup(over)
    for call_id in (over, "rtc_u1_nobody"):
        for attempt in (
            client.realtime.calls.accept(call_id, type="realtime"),
            client.realtime.calls.reject(call_id),
            client.realtime.calls.refer(call_id, target_uri="tel:+1"),
            client.realtime.calls.hangup(call_id),
        ):
            with pytest.raises(openai.NotFoundError) as refused:
                await attempt
            assert code_of(refused.value) == (404, "call_id_not_found")


async def test_a_call_must_be_taken_before_it_can_be_referred(
    client: AsyncOpenAI, service: Service, simulator: Simulator
) -> None:
    call_id = await simulator.ring(service)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.realtime.calls.refer(call_id, target_uri="tel:+1")
    assert code_of(refused.value) == (400, "call_not_accepted")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "missing_required_parameter", "type"),
        ({"type": "transcription"}, "invalid_value", "type"),
        ({"type": "realtime", "voice": "alloy"}, "unknown_parameter", "voice"),
        ({"type": "realtime", "model": "llama"}, "invalid_model", "model"),
        ({"type": "realtime", "audio": {"output": {"voice": "nobody"}}}, "invalid_value", "audio.output.voice"),
        ({"type": "realtime", "tools": "none"}, "invalid_type", "tools"),
        ([], "invalid_event", None),
    ],
)
async def test_a_bad_accept_is_refused_and_the_call_rings_on(
    client: AsyncOpenAI, service: Service, simulator: Simulator, body: Any, code: str, param: str | None
) -> None:
    call_id = await simulator.ring(service)
    with pytest.raises(openai.BadRequestError) as refused:
        await client.post(f"/realtime/calls/{call_id}/accept", body=body, cast_to=object)
    assert (refused.value.code, refused.value.param) == (code, param)
    assert "session." not in refused.value.message
    assert (await simulator.show(call_id))["state"] == "ringing"


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("reject", {"status_code": 200}),
        ("reject", {"status_code": "603"}),
        ("reject", {"code": 603}),
        ("refer", {}),
        ("refer", {"target_uri": "http://example.com"}),
        ("refer", {"target_uri": "tel:+1\r\nX: y"}),
    ],
)
async def test_other_bad_bodies_are_refused_too(
    client: AsyncOpenAI, service: Service, simulator: Simulator, action: str, body: Any
) -> None:
    call_id = await simulator.ring(service)
    if action == "refer":
        await client.realtime.calls.accept(call_id, type="realtime")
    with pytest.raises(openai.BadRequestError):
        await client.post(f"/realtime/calls/{call_id}/{action}", body=body, cast_to=object)
    assert (await simulator.show(call_id))["end"] is None


async def test_it_takes_a_key_to_control_a_call(server: SimulatorServer, service: Service, simulator: Simulator) -> None:
    call_id = await simulator.ring(service)
    async with AsyncOpenAI(api_key="sk-wrong", base_url=server.rest_url, max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            await stranger.realtime.calls.hangup(call_id)
    assert refused.value.code == "invalid_api_key"
    assert (await simulator.show(call_id))["state"] == "ringing"


async def test_webrtc_is_not_offered(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no WebRTC"):
        await client.realtime.calls.create(sdp="v=0")


@pytest.mark.parametrize("state", ["unknown", "ringing", "over"])
async def test_a_socket_beside_no_call_is_told_so_in_band(
    server: SimulatorServer, client: AsyncOpenAI, service: Service, simulator: Simulator, state: str
) -> None:
    call_id = "rtc_u1_nobody" if state == "unknown" else await simulator.ring(service)
    if state == "over":
        await client.realtime.calls.hangup(call_id)
    url = f"{server.url}?call_id={call_id}"
    async with asyncio.timeout(PATIENCE), connect(url, additional_headers={"Authorization": f"Bearer {KEY}"}) as raw:
        assert json.loads(await raw.recv())["error"]["code"] == "call_id_not_found"
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await raw.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4004, "invalid_request_error.call_id_not_found")


async def test_a_call_that_nobody_takes_is_dropped(recorder: Recorder, speaker: Speaker, service: Service) -> None:
    options = SimulatorOptions(SCENARIO, model=FAST, on_frame=recorder, calls=CallRules(ring_seconds=0.2))
    async with SimulatorServer(options, speaker) as running:
        simulator = Simulator(running)
        report = await simulator.until(await simulator.ring(service), "ended")
    assert report["end"]["code"] == "no_answer"
