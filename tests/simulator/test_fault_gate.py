"""Faults over real sockets: what the official client runs into, and what can be told to the server while it runs."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import openai
import pytest
import websockets
from openai import AsyncOpenAI
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from websockets.asyncio.client import connect

from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.scenario import parse_scenario
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from orchestrator.simulator.speech import Speaker
from tests.simulator.support import Recorder, quiet
from tests.waiting import until

PATIENCE = 30.0
KEY = {"Authorization": "Bearer sk-test"}
STEADY = ModelOptions(timing=Timing(first_output=0.0, pace=20.0), transcription_delay=0.0)
SCENARIO = """
name: faulty
default: {do: [{say: "A sentence that is long enough for a few deltas, and then some more."}]}
"""
TEXT: Any = {"output_modalities": ["text"]}

Serve = Callable[..., Awaitable[SimulatorServer]]


class Remote:
    """The control side of a server: what a test script would do with curl."""

    def __init__(self, server: SimulatorServer) -> None:
        self._url = server.control_url

    async def request(
        self, method: str, path: str = "/faults", body: object = None, media_type: str = "application/json"
    ) -> tuple[int, Any]:
        """The status of the answer, and its document."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": media_type}, method=method)

        def ask() -> tuple[int, Any]:
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as refused:
                with refused:
                    return refused.code, json.load(refused)

        return await asyncio.to_thread(ask)

    async def add(self, do: str, **members: Any) -> str:
        status, answer = await self.request("POST", body={"do": do, **members})
        assert status == 201, answer
        fault_id: str = answer["id"]
        return fault_id

    async def faults(self) -> list[dict[str, Any]]:
        status, answer = await self.request("GET")
        assert status == 200
        faults: list[dict[str, Any]] = answer["faults"]
        return faults


@pytest.fixture
async def serve(recorder: Recorder, speaker: Speaker) -> AsyncIterator[Serve]:
    running: list[SimulatorServer] = []

    async def start(faults: str = "[]") -> SimulatorServer:
        scenario = parse_scenario(f"{SCENARIO}\nfaults: {faults}")
        server = SimulatorServer(SimulatorOptions(scenario, model=STEADY, on_frame=recorder, seed=1), speaker)
        await server.__aenter__()
        running.append(server)
        return server

    yield start
    for server in running:
        await server.__aexit__()


@pytest.fixture
async def server(serve: Serve) -> SimulatorServer:
    return await serve()


@pytest.fixture
def remote(server: SimulatorServer) -> Remote:
    return Remote(server)


def client(server: SimulatorServer) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="sk-test", websocket_base_url=server.base_url, base_url=server.rest_url, max_retries=0)


async def read(connection: AsyncRealtimeConnection, last: str) -> list[Any]:
    """All events up to the first of this type."""
    events: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        while not events or events[-1].type != last:
            events.append(await connection.recv())
    return events


async def read_to_the_end(connection: AsyncRealtimeConnection) -> tuple[list[Any], websockets.ConnectionClosed]:
    """All events that come, and how the connection ended."""
    events: list[Any] = []
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                events.append(await connection.recv())
            except websockets.ConnectionClosed as closed:
                return events, closed


# --- Drop -------------------------------------------------------------------------------------------------------------


async def test_a_connection_is_cut_in_the_middle_of_an_answer(serve: Serve) -> None:
    server = await serve("[{do: drop, at: nth_audio_delta, n: 2}]")
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await connection.response.create()
        events, closed = await read_to_the_end(connection)
    assert [event.type for event in events].count("response.output_audio.delta") == 2
    assert closed.rcvd is None, "no close frame came, which is what 1006 stands for"


@pytest.mark.parametrize("code", [1001, 1011, 1012, 1013])
async def test_a_connection_ends_with_the_close_code_that_was_asked_for(
    server: SimulatorServer, remote: Remote, code: int
) -> None:
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await read(connection, "session.created")
        await remote.add("drop", code=code, reason="on demand")
        _, closed = await read_to_the_end(connection)
    assert closed.rcvd is not None
    assert (closed.rcvd.code, closed.rcvd.reason) == (code, "on demand")


async def test_only_the_nth_session_is_dropped(serve: Serve) -> None:
    server = await serve("[{do: drop, at: session_created, nth_session: 2}]")
    for number in (1, 2, 3):
        async with client(server).realtime.connect(model="gpt-realtime") as connection:
            await read(connection, "session.created")
            if number == 2:
                await read_to_the_end(connection)
            else:
                await connection.input_audio_buffer.clear()
                await read(connection, "input_audio_buffer.cleared")


# --- Stall ------------------------------------------------------------------------------------------------------------


async def test_a_stalled_connection_is_silent_and_goes_on_where_it_was(server: SimulatorServer, remote: Remote) -> None:
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await read(connection, "session.created")
        fault_id = await remote.add("stall")
        await connection.input_audio_buffer.clear()
        # Another session is asked in between: what this one has to say is long due.
        async with client(server).realtime.connect(model="gpt-realtime") as other:
            await read(other, "session.created")
        waiting = asyncio.ensure_future(connection.recv())
        assert (await asyncio.wait([waiting], timeout=0.2))[0] == set()
        assert await remote.request("DELETE", f"/faults/{fault_id}") == (200, {"removed": [fault_id]})
        async with asyncio.timeout(PATIENCE):
            assert (await waiting).type == "input_audio_buffer.cleared"


async def test_a_slow_first_byte(serve: Serve) -> None:
    server = await serve("[{do: stall, at: nth_response, seconds: 0.4}]")
    loop = asyncio.get_running_loop()
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await connection.response.create(response=TEXT)
        await read(connection, "response.created")
        began = loop.time()
        await read(connection, "response.output_text.delta")
        assert loop.time() - began > 0.3, "later than asked for is the machine's affair, earlier would be ours"


async def test_the_answer_to_the_upgrade_waits(server: SimulatorServer, remote: Remote) -> None:
    fault_id = await remote.add("stall", at="connect")
    opening = asyncio.ensure_future(connect(f"{server.url}?model=gpt-realtime", additional_headers=KEY).__aenter__())

    async def fired() -> bool:
        return [fault["fired"] for fault in await remote.faults()] == [1]

    async with asyncio.timeout(PATIENCE):
        await until(fired)
        assert not opening.done()
        await remote.request("DELETE", f"/faults/{fault_id}")
        raw = await opening
        assert json.loads(await raw.recv())["type"] == "session.created"
    await raw.close()


async def test_a_client_that_gives_up_waiting_for_the_upgrade_is_forgotten(server: SimulatorServer, remote: Remote) -> None:
    await remote.add("stall", at="connect")
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    # A name of a protocol in capitals is the same protocol.
    writer.write(b"GET /v1/realtime?model=gpt-realtime HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n")
    writer.write(b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer x\r\n\r\n")
    assert server._front is not None
    front = server._front

    async def sessions(number: int) -> bool:
        return front.sessions == number

    await until(partial(sessions, 1))
    writer.close()
    await until(partial(sessions, 0))


async def test_leaving_ends_what_stalls(serve: Serve) -> None:
    server = await serve("[{do: stall, at: session_created}, {do: stall, at: connect, nth_session: 2}]")
    raw = await connect(f"{server.url}?model=gpt-realtime", additional_headers=KEY)
    await raw.recv()
    held = asyncio.ensure_future(connect(f"{server.url}?model=gpt-realtime", additional_headers=KEY).__aenter__())
    control = Remote(server)

    async def both() -> bool:
        return [fault["fired"] for fault in await control.faults()] == [1, 1]

    async with asyncio.timeout(PATIENCE):
        await until(both)
        await server.__aexit__()
        await raw.wait_closed()
        assert raw.close_code == 1001
        # Let in at the last moment or not at all: it ends either way.
        for late in await asyncio.gather(held, return_exceptions=True):
            if not isinstance(late, BaseException):
                await late.wait_closed()


# --- Refuse -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_connection_is_refused_by_status(serve: Serve, status: int) -> None:
    server = await serve(f"[{{do: refuse, status: {status}, retry_after: 7, times: 1}}]")
    with pytest.raises(websockets.InvalidStatus) as refused:
        await client(server).realtime.connect(model="gpt-realtime").enter()
    assert refused.value.response.status_code == status
    assert refused.value.response.headers["Retry-After"] == "7"
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await read(connection, "session.created")


async def test_a_rate_limit_says_so(serve: Serve) -> None:
    server = await serve("[{do: refuse, status: 429}]")
    with pytest.raises(websockets.InvalidStatus) as refused:
        await client(server).realtime.connect(model="gpt-realtime").enter()
    assert json.loads(refused.value.response.body)["error"]["code"] == "rate_limit_exceeded"


async def test_a_connection_is_refused_without_an_answer(serve: Serve) -> None:
    server = await serve("[{do: refuse, model: gpt-realtime-2}]")
    with pytest.raises((websockets.InvalidMessage, ConnectionError)):
        await client(server).realtime.connect(model="gpt-realtime-2").enter()
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await read(connection, "session.created")


async def test_a_key_can_be_refused(serve: Serve) -> None:
    server = await serve("[{do: refuse, status: 503, key: sk-other}]")
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await read(connection, "session.created")
    with pytest.raises(websockets.InvalidStatus, match="503"):
        await connect(f"{server.url}?model=gpt-realtime", additional_headers={"Authorization": "Bearer sk-other"})


# --- A region ---------------------------------------------------------------------------------------------------------


async def test_a_region_goes_down_and_comes_back(server: SimulatorServer, remote: Remote) -> None:
    official = client(server)
    async with (
        official.realtime.connect(model="gpt-realtime") as first,
        official.realtime.connect(model="gpt-realtime") as second,
    ):
        await asyncio.gather(read(first, "session.created"), read(second, "session.created"))
        fault_id = await remote.add("region_down")
        for _, closed in await asyncio.gather(read_to_the_end(first), read_to_the_end(second)):
            assert closed.rcvd is None
    with pytest.raises((websockets.InvalidMessage, ConnectionError)):
        await official.realtime.connect(model="gpt-realtime").enter()
    with pytest.raises(openai.APIConnectionError):
        await official.realtime.client_secrets.create()
    (fault,) = await remote.faults()
    assert (fault["id"], fault["fired"], fault["active"], fault["fault"]["do"]) == (fault_id, 4, True, "region_down")
    await remote.request("DELETE")
    async with official.realtime.connect(model="gpt-realtime") as connection:
        await read(connection, "session.created")


# --- What the session says --------------------------------------------------------------------------------------------


async def test_a_session_expires_early(server: SimulatorServer, remote: Remote) -> None:
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await read(connection, "session.created")
        await remote.add("expire")
        events, closed = await read_to_the_end(connection)
    assert [event.error.code for event in events] == ["session_expired"]
    assert closed.rcvd is not None
    assert (closed.rcvd.code, closed.rcvd.reason) == (1001, events[0].error.message)


@pytest.mark.parametrize(
    "code",
    [
        "inference_rate_limit_exceeded",
        "rate_limit_exceeded",
        "insufficient_quota",
        "credit_balance_exhausted",
        "server_error",
    ],
)
async def test_the_second_response_fails_and_the_third_does_not(serve: Serve, code: str) -> None:
    server = await serve(f"[{{do: fail, n: 2, code: {code}, message: m}}]")
    statuses = []
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        for _ in range(3):
            await connection.response.create(response=TEXT)
            statuses.append((await read(connection, "response.done"))[-1].response)
    assert [response.status for response in statuses] == ["completed", "failed", "completed"]
    error = statuses[1].status_details.error
    assert (error.code, error.type) == (code, "server_error")


async def test_a_response_that_takes_no_time_fails_as_well(recorder: Recorder, speaker: Speaker) -> None:
    scenario = parse_scenario(f"{SCENARIO}\nfaults: [{{do: fail}}]")
    at_once = ModelOptions(timing=Timing(first_output=0.0, pace=0.0, text_interval=0.0))
    async with SimulatorServer(SimulatorOptions(scenario, model=at_once, on_frame=recorder), speaker) as server:
        # In the second session the speech is at hand.
        for _ in range(2):
            async with client(server).realtime.connect(model="gpt-realtime") as connection:
                await connection.response.create()
                assert (await read(connection, "response.done"))[-1].response.status == "failed"


async def test_a_response_fails_in_the_middle(serve: Serve) -> None:
    server = await serve("[{do: fail, at: nth_audio_delta, n: 2}]")
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await connection.response.create()
        events = await read(connection, "response.done")
    assert [event.type for event in events].count("response.output_audio.delta") == 2
    assert events[-1].response.output[0].status == "incomplete"
    assert events[-1].response.status_details.type == "failed"


async def test_an_error_out_of_the_blue_harms_nothing(serve: Serve) -> None:
    server = await serve("[{do: error, code: server_error, message: Sorry.}]")
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await connection.response.create(response=TEXT)
        events = await read(connection, "response.done")
    (error,) = (event.error for event in events if event.type == "error")
    assert (error.type, error.code, error.message, error.event_id) == ("server_error", "server_error", "Sorry.", None)
    assert events[-1].response.status == "completed"


async def test_a_transcription_comes_late_and_twice(serve: Serve) -> None:
    server = await serve("[{do: transcription, seconds: 0.1, copies: 2}]")
    session: Any = {"type": "realtime", "audio": {"input": {"turn_detection": None, "transcription": {"model": "whisper-1"}}}}
    async with client(server).realtime.connect(model="gpt-realtime") as connection:
        await connection.session.update(session=session)
        await connection.input_audio_buffer.append(audio=base64.b64encode(quiet(300)).decode())
        await connection.input_audio_buffer.commit()
        first = (await read(connection, "conversation.item.input_audio_transcription.completed"))[-1]
        second = (await read(connection, "conversation.item.input_audio_transcription.completed"))[-1]
    assert first.event_id != second.event_id
    assert first.model_copy(update={"event_id": second.event_id}) == second


# --- The list ---------------------------------------------------------------------------------------------------------


async def test_faults_are_listed_with_how_often_they_happened(serve: Serve) -> None:
    server = await serve("[{do: error, at: session_created, n: each, key: sk-test}]")
    remote = Remote(server)
    for _ in range(3):
        async with client(server).realtime.connect(model="gpt-realtime") as connection:
            await read(connection, "error")
    later = await remote.add("drop", after_seconds=3600)
    first, second = await remote.faults()
    assert (first["fired"], first["active"]) == (3, True)
    assert (second["id"], second["fired"], second["active"]) == (later, 0, False)
    assert "sk-test" not in json.dumps([first, second])
    assert await remote.request("DELETE") == (200, {"removed": [first["id"], later]})
    assert await remote.faults() == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "do"),
        ({"do": "explode"}, "do"),
        ({"do": "drop", "probability": 2}, None),
        ({"do": "drop", "when": "now"}, "when"),
        ({"do": "stall", "at": "later"}, "at"),
    ],
)
async def test_what_is_no_fault_is_refused(remote: Remote, body: dict[str, Any], param: str | None) -> None:
    status, answer = await remote.request("POST", body=body)
    assert status == 400
    assert answer["error"]["param"] == param
    assert await remote.faults() == []


async def test_a_fault_that_is_not_there_cannot_be_removed(remote: Remote) -> None:
    assert (await remote.request("DELETE", "/faults/fault_9"))[0] == 404


async def test_a_page_in_a_browser_cannot_add_one(remote: Remote) -> None:
    assert (await remote.request("POST", body={"do": "drop"}, media_type="text/plain"))[0] == 415
