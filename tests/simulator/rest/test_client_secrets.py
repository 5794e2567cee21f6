"""Client secrets: what is given out, what it presets, and until when; then with the official client, as browsers use them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.realtime import ClientSecretCreateResponse, RealtimeSessionCreateRequest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from orchestrator.errors import WireError
from orchestrator.http_server.answers import Refusal, Response
from orchestrator.simulator.endpoint.admission import AccessRules, ApiForm
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.rest.client_secrets import ClientSecrets
from orchestrator.simulator.rest.routes import RestRequest
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from orchestrator.simulator.speech import Speaker
from orchestrator.wire.realtime import RealtimeSessionConfig
from tests.simulator.rest.support import PATIENCE, ask
from tests.simulator.support import SCENARIO, Recorder

START = 1_800_000_000.5


class Desk:
    """Secrets at a time that the test sets."""

    def __init__(self, **more: Any) -> None:
        self.now = START
        rules = more.pop("rules", AccessRules(keys=frozenset({"sk-right"})))
        self.secrets = ClientSecrets(rules, lambda: IdSource(lambda: START, 1), clock=lambda: self.now, **more)
        (self.route,) = self.secrets.routes()

    def ask(self, body: Any = None, *headers: tuple[str, str]) -> Response | Refusal:
        data = b"" if body is None else json.dumps(body).encode()
        sent = headers or (("authorization", "Bearer sk-right"),)
        return self.route.handler(
            RestRequest(method="POST", path=self.route.pattern, parameters={}, query=(), headers=sent, body=data)
        )

    def create(self, body: Any = None) -> dict[str, Any]:
        answer = self.ask(body)
        assert isinstance(answer, Response)
        assert answer.status == 200
        ClientSecretCreateResponse.model_validate_json(answer.body, strict=True)
        found: dict[str, Any] = json.loads(answer.body)
        return found

    def refusal(self, *arguments: Any) -> Refusal:
        answer = self.ask(*arguments)
        assert isinstance(answer, Refusal)
        return answer


def test_without_a_body_it_presets_the_defaults_for_ten_minutes() -> None:
    created = Desk().create()
    assert created["value"].startswith("ek_")
    assert len(created["value"]) == 35
    assert created["expires_at"] == int(START) + 600
    session = created["session"]
    assert (session["type"], session["object"], session["expires_at"]) == ("realtime", "realtime.session", 0)
    assert session["id"].startswith("sess_")
    assert session["audio"]["input"]["turn_detection"]["type"] == "server_vad"


def test_the_session_is_shown_as_it_will_be() -> None:
    desk = Desk()
    wanted = {
        "type": "realtime",
        "model": "gpt-realtime-2",
        "instructions": "Be brief.",
        "audio": {"output": {"voice": "marin"}},
    }
    created = desk.create({"session": wanted})
    assert created["session"]["model"] == "gpt-realtime-2"
    assert created["session"]["instructions"] == "Be brief."
    assert created["session"]["audio"]["output"]["voice"] == "marin"
    preset = desk.secrets.preset(created["value"])
    assert preset is not None
    assert (preset.model, preset.kind) == ("gpt-realtime-2", "realtime")
    assert isinstance(preset.session, RealtimeSessionConfig)
    assert preset.session.instructions == "Be brief."


def test_a_transcription_session_too() -> None:
    desk = Desk()
    created = desk.create({"session": {"type": "transcription"}})
    assert created["session"]["object"] == "realtime.transcription_session"
    preset = desk.secrets.preset(created["value"])
    assert preset is not None
    assert (preset.model, preset.kind) == (None, "transcription")


@pytest.mark.parametrize("seconds", [10, 7200])
def test_a_key_is_good_until_it_expires_and_not_after(seconds: int) -> None:
    desk = Desk()
    created = desk.create({"expires_after": {"anchor": "created_at", "seconds": seconds}})
    assert created["expires_at"] == int(START) + seconds
    for _ in range(2):
        assert desk.secrets.preset(created["value"]) is not None
    desk.now = created["expires_at"] - 0.001
    assert desk.secrets.preset(created["value"]) is not None
    desk.now = created["expires_at"]
    assert desk.secrets.preset(created["value"]) is None
    assert desk.secrets.preset("ek_" + "0" * 32) is None


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"expires_after": {"seconds": 9}}, "integer_below_min_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": 7201}}, "integer_above_max_value", "expires_after.seconds"),
        ({"expires_after": {"seconds": "60"}}, "invalid_type", "expires_after.seconds"),
        ({"expires_after": {"anchor": "now"}}, "invalid_value", "expires_after.anchor"),
        ({"session": {}}, "missing_required_parameter", "session.type"),
        ({"session": {"type": "realtime", "voice": "alloy"}}, "unknown_parameter", "session.voice"),
        ({"session": {"type": "realtime", "audio": {"output": {"voice": "x"}}}}, "invalid_value", "session.audio.output.voice"),
        ({"session": {"type": "realtime", "model": "llama"}}, "invalid_model", "session.model"),
        ({"seconds": 60}, "unknown_parameter", "seconds"),
    ],
)
def test_a_bad_body_is_refused_with_the_place_of_the_fault(body: Any, code: str, param: str) -> None:
    desk = Desk()
    with pytest.raises(WireError) as refused:
        desk.ask(body)
    assert (refused.value.wire_code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (("x", "y"), "missing_api_key"),
        (("authorization", "Bearer sk-wrong"), "invalid_api_key"),
        (("authorization", "Basic sk-right"), "missing_api_key"),
        (("api-key", "sk-right"), "missing_api_key"),
    ],
)
def test_it_takes_a_key_to_get_one(header: tuple[str, str], code: str) -> None:
    refusal = Desk().refusal(None, header)
    assert (refusal.status, refusal.code) == (401, code)
    assert "sk-wrong" not in refusal.message


def test_a_key_of_a_client_gets_no_other_one() -> None:
    desk = Desk(rules=AccessRules())
    created = desk.create()
    refusal = desk.refusal(None, ("authorization", f"Bearer {created['value']}"))
    assert (refusal.status, refusal.code) == (401, "invalid_api_key")


def test_in_azures_form_the_key_may_come_by_its_own_name() -> None:
    desk = Desk(rules=AccessRules(keys=frozenset({"sk-right"}), form=ApiForm.AZURE))
    assert desk.route.pattern == "/openai/v1/realtime/client_secrets"
    assert isinstance(desk.ask(None, ("api-key", "sk-right")), Response)


def test_there_is_an_end_to_them_until_some_expire() -> None:
    desk = Desk(most=2)
    desk.create({"expires_after": {"seconds": 10}})
    kept = desk.create({"expires_after": {"seconds": 100}})
    refusal = desk.refusal()
    assert (refusal.status, refusal.code) == (429, "rate_limit_exceeded")
    desk.now += 50
    desk.create()
    assert desk.secrets.preset(kept["value"]) is not None


# --- With a server, as browsers use them ------------------------------------------------------------------------------


@pytest.fixture
async def server(recorder: Recorder, speaker: Speaker) -> AsyncIterator[SimulatorServer]:
    options = SimulatorOptions(SCENARIO, on_frame=recorder, access=AccessRules(keys=frozenset({"sk-right"})))
    async with SimulatorServer(options, speaker) as running:
        yield running


@pytest.fixture
async def backend(server: SimulatorServer) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(api_key="sk-right", base_url=server.rest_url, max_retries=0) as client:
        yield client


async def test_a_key_opens_sessions_with_what_it_presets(server: SimulatorServer, backend: AsyncOpenAI) -> None:
    created = await backend.realtime.client_secrets.create(
        session={"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief.", "output_modalities": ["text"]}
    )
    async with AsyncOpenAI(api_key=created.value, base_url=server.rest_url) as browser:
        for model in ("gpt-realtime", "gpt-realtime-2"):
            async with asyncio.timeout(PATIENCE), browser.realtime.connect(model=model) as connection:
                event = await connection.recv()
                assert event.type == "session.created"
                assert isinstance(event.session, RealtimeSessionCreateRequest)
                assert event.session.instructions == "Be brief."
                assert event.session.output_modalities == ["text"]
                assert event.session.model == model
                await connection.session.update(session={"type": "realtime", "instructions": "Be kind."})
                changed = await connection.recv()
                assert changed.type == "session.updated"
                assert isinstance(changed.session, RealtimeSessionCreateRequest)
                assert changed.session.instructions == "Be kind."


async def test_a_browser_offers_its_key_as_a_subprotocol_and_needs_no_model(
    server: SimulatorServer, backend: AsyncOpenAI
) -> None:
    created = await backend.realtime.client_secrets.create(session={"type": "realtime", "model": "gpt-realtime-mini"})
    offered = [Subprotocol("realtime"), Subprotocol(f"openai-insecure-api-key.{created.value}")]
    async with asyncio.timeout(PATIENCE), connect(server.url, subprotocols=offered) as raw:
        assert raw.subprotocol == "realtime"
        assert json.loads(await raw.recv())["session"]["model"] == "gpt-realtime-mini"


async def test_a_transcription_key_opens_a_transcription_session(server: SimulatorServer, backend: AsyncOpenAI) -> None:
    created = await backend.realtime.client_secrets.create(session={"type": "transcription"})
    key = {"Authorization": f"Bearer {created.value}"}
    async with asyncio.timeout(PATIENCE), connect(server.url, additional_headers=key) as raw:
        assert json.loads(await raw.recv())["session"]["type"] == "transcription"


async def test_settings_that_do_not_go_with_the_model_that_is_asked_for_are_refused_in_band(
    server: SimulatorServer, backend: AsyncOpenAI
) -> None:
    session: Any = {"type": "realtime", "model": "gpt-realtime-2", "reasoning": {"effort": "low"}}
    secret = await backend.realtime.client_secrets.create(session=session)
    key = {"Authorization": f"Bearer {secret.value}"}
    async with connect(f"{server.url}?model=gpt-realtime", additional_headers=key) as raw:
        assert json.loads(await raw.recv())["error"]["code"] == "invalid_value"
        await raw.wait_closed()
        assert (raw.close_code, raw.close_reason) == (4000, "invalid_request_error.invalid_value")
    async with connect(server.url, additional_headers=key) as raw:
        assert json.loads(await raw.recv())["session"]["reasoning"] == {"effort": "low"}


async def test_the_intent_alone_opens_one_too(server: SimulatorServer) -> None:
    key = {"Authorization": "Bearer sk-right"}
    async with asyncio.timeout(PATIENCE), connect(f"{server.url}?intent=transcription", additional_headers=key) as raw:
        assert json.loads(await raw.recv())["session"]["object"] == "realtime.transcription_session"


async def test_a_key_that_was_never_given_out_is_refused_in_band(server: SimulatorServer) -> None:
    key = {"Authorization": "Bearer ek_" + "0" * 32}
    async with asyncio.timeout(PATIENCE), connect(f"{server.url}?model=gpt-realtime", additional_headers=key) as raw:
        error = json.loads(await raw.recv())["error"]
        await raw.wait_closed()
    assert error["code"] == "invalid_api_key"
    assert "ek_000" not in error["message"]
    assert (raw.close_code, raw.close_reason) == (3000, "invalid_request_error.invalid_api_key")


@pytest.mark.parametrize("seconds", [9, 7201])
async def test_the_official_client_gets_the_refusal_as_an_error(backend: AsyncOpenAI, seconds: int) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await backend.realtime.client_secrets.create(expires_after={"anchor": "created_at", "seconds": seconds})
    assert refused.value.param == "expires_after.seconds"


async def test_a_page_may_ask_for_a_key_and_read_it(server: SimulatorServer) -> None:
    url = f"{server.rest_url}/realtime/client_secrets"
    page = {"Origin": "http://localhost:3000"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    first = await ask("OPTIONS", url, None, {**page, **asked})
    assert first.status == 200
    assert first.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
    second = await ask("POST", url, {}, {**page, "Authorization": "Bearer sk-right"})
    assert second.status == 200
    assert second.headers["Access-Control-Allow-Origin"] == "*"
