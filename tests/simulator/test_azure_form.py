"""The endpoint in the form of Azure: its paths, its header, and refusals at the handshake."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
import websockets
from openai import AsyncOpenAI
from websockets.asyncio.client import connect

from orchestrator.simulator.endpoint.admission import AccessRules, ApiForm
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from orchestrator.simulator.speech import Speaker
from tests.simulator.rest.support import PATIENCE, Service, Simulator, serving
from tests.simulator.support import SCENARIO, Recorder


@pytest.fixture
async def server(recorder: Recorder, speaker: Speaker) -> AsyncIterator[SimulatorServer]:
    access = AccessRules(keys=frozenset({"right"}), form=ApiForm.AZURE)
    async with SimulatorServer(SimulatorOptions(SCENARIO, on_frame=recorder, access=access), speaker) as running:
        yield running


async def test_a_session_opens_under_azures_path_with_its_header(server: SimulatorServer) -> None:
    assert server.url.endswith("/openai/v1/realtime")
    async with asyncio.timeout(PATIENCE):
        async with connect(f"{server.url}?model=gpt-realtime", additional_headers={"api-key": "right"}) as raw:
            assert json.loads(await raw.recv())["type"] == "session.created"
        official = AsyncOpenAI(api_key="right", base_url=server.rest_url)
        async with official, official.realtime.connect(model="gpt-realtime") as connection:
            assert (await connection.recv()).type == "session.created"


@pytest.mark.parametrize("headers", [{}, {"api-key": "wrong"}, {"Authorization": "Bearer wrong"}])
async def test_a_wrong_key_fails_the_handshake(server: SimulatorServer, headers: dict[str, str]) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        await connect(f"{server.url}?model=gpt-realtime", additional_headers=headers)
    assert refused.value.response.status_code == 401
    assert "error" in json.loads(refused.value.response.body)


async def test_openais_path_is_not_there(server: SimulatorServer) -> None:
    with pytest.raises(websockets.InvalidStatus, match="404"):
        await connect(f"ws://127.0.0.1:{server.port}/v1/realtime?model=gpt-realtime", additional_headers={"api-key": "right"})


async def test_calls_and_client_secrets_are_under_the_same_path(server: SimulatorServer) -> None:
    async with serving(Service()) as service, AsyncOpenAI(api_key="right", base_url=server.rest_url) as official:
        simulator = Simulator(server)
        call_id = await simulator.ring(service)
        await official.realtime.calls.accept(call_id, type="realtime")
        await official.realtime.calls.hangup(call_id)
        assert (await simulator.show(call_id))["end"]["code"] == "hung_up"
        created = await official.realtime.client_secrets.create()
        async with asyncio.timeout(PATIENCE), connect(server.url, additional_headers={"api-key": created.value}) as raw:
            assert json.loads(await raw.recv())["type"] == "session.created"
