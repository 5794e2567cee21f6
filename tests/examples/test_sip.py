"""The SIP example: calls as its README shows them, and its webhook against a provider that may repeat, refuse and lie."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from examples._serving import listen, origin_of, serving
from examples.sip.agent import reception, run_config
from examples.sip.server import WEBHOOK, SipDesk
from orchestrator.errors import LegConnectError
from orchestrator.realtime.calls import RealtimeCalls
from orchestrator.realtime.webhooks import sign
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from tests.examples import stranger
from tests.examples.stranger import AtTerminal
from tests.waiting import until

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
GREETING = "Reception: Good evening, this is the reception. What can I do for you?"

# --- As a stranger would ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outputs() -> dict[str, tuple[int, str, str]]:
    """The README's commands, both at once."""
    words = ("examples.sip", "--offline", "--port", "0")
    started = {
        "goodbye": stranger.start(*words),
        "person": stranger.start(*words, "--scenario", "examples/sip/person.yaml", "--calls", "2"),
    }
    return {name: stranger.finish(process) for name, process in started.items()}


def lines_of(output: str, name: str) -> list[str]:
    return [line.removeprefix(f"[{name}] ") for line in output.splitlines() if line.startswith(f"[{name}]")]


def test_a_phone_rings_and_the_agent_hangs_up_after_its_goodbye(outputs: dict[str, tuple[int, str, str]]) -> None:
    status, output, errors = outputs["goodbye"]
    assert (status, errors) == (0, "")
    assert output.startswith("Talking to the offline endpoint at ws://127.0.0.1:")
    assert lines_of(output, "call 1") == [
        "rings: sip:+15550100001@carrier.invalid",
        GREETING,
        "caller: Do you have a room for tonight?",
        '  [tool free_rooms {"day":"tonight"} -> 2 rooms are free tonight.]',
        "Reception: 2 rooms are free tonight. Would you like one?",
        "caller: No, thank you, goodbye.",
        "  [tool end_call {} -> Say goodbye in one short sentence. The call ends after it.]",
        "Reception: Good night!",
        "  [hang_up]",
        "over",
    ]
    (heard,) = lines_of(output, "phone 1")
    assert heard.endswith(" s of the agent; hung_up")


def test_two_callers_at_once_are_sent_to_a_person(outputs: dict[str, tuple[int, str, str]]) -> None:
    status, output, errors = outputs["person"]
    assert (status, errors) == (0, "")
    for number in (1, 2):
        said = lines_of(output, f"call {number}")
        assert said[1:3] == [GREETING, "caller: Can I speak with somebody real?"]
        assert said[-3:] == ["Reception: One moment, I connect you with a colleague.", "  [connect_person]", "over"]
        (heard,) = lines_of(output, f"phone {number}")
        assert heard.endswith("; referred to tel:+15550199")


def test_ctrl_c_in_the_middle_of_a_call_ends_the_server_and_not_the_call() -> None:
    with AtTerminal("examples.sip", "--offline", "--port", "0") as terminal:
        terminal.expect("What can I do for you?")
        terminal.press_ctrl_c()
        terminal.expect("1 call goes on without us")
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.seen


@pytest.mark.parametrize(
    ("environment", "explanation"),
    [({}, "--offline"), ({"OPENAI_API_KEY": "sk-none"}, "OPENAI_WEBHOOK_SECRET")],
)
def test_what_it_lacks_it_explains(environment: dict[str, str], explanation: str) -> None:
    status, _, errors = stranger.run("examples.sip", "--port", "0", env=stranger.environment(**environment))
    assert status == 2
    assert explanation in errors
    assert "Traceback" not in errors


# --- In detail --------------------------------------------------------------------------------------------------------


class Provider:
    """The provider's side: its calls API, and the session of every call that is joined."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any]] = []
        self.endpoints: dict[str, ScriptedEndpoint] = {}
        self.status = 200
        self.refuse_joining = False

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/realtime/calls/{call_id}/{action}", self.control, methods=["POST"])])

    async def control(self, request: Request) -> Response:
        body = await request.body()
        self.requests.append((request.path_params["action"], request.path_params["call_id"], json.loads(body or b"null")))
        return Response(status_code=self.status)

    async def dial(self, url: str, *args: Any, **options: Any) -> Any:
        if self.refuse_joining:
            raise LegConnectError("the endpoint answered 404", 404)
        endpoint = self.endpoints[url.partition("call_id=")[2]] = ScriptedEndpoint()
        return await endpoint.dial(url, *args, **options)

    def did(self, action: str) -> list[str]:
        """The calls with which something was done."""
        return [call_id for name, call_id, _ in self.requests if name == action]


class Desk:
    """The desk on a port of its own, and what its provider sees of it."""

    def __init__(self, desk: SipDesk, url: str, provider: Provider, lines: list[str]) -> None:
        self.desk = desk
        self.url = url
        self.provider = provider
        self.lines = lines

    async def post(self, body: bytes, headers: dict[str, str]) -> int:
        return await asyncio.to_thread(_post, f"{self.url}{WEBHOOK}", body, headers)

    async def ring(self, call_id: str = "rtc_1", webhook_id: str | None = None) -> int:
        body = incoming(call_id)
        return await self.post(body, signed(body, webhook_id or f"wh_{call_id}"))

    async def call(self, call_id: str = "rtc_1") -> ScriptedEndpoint:
        """Let a phone ring, and wait until the agent was asked to greet."""
        assert await self.ring(call_id) == 200
        await until(lambda: _is("response.create" in self._types(call_id)))
        return self.provider.endpoints[call_id]

    def _types(self, call_id: str) -> list[str]:
        endpoint = self.provider.endpoints.get(call_id)
        return [] if endpoint is None else endpoint.types()


def incoming(call_id: str = "rtc_1", caller: str = "sip:+15005550006@example.com") -> bytes:
    headers = [{"name": "From", "value": caller}]
    data = {"call_id": call_id, "sip_headers": headers}
    return json.dumps({"object": "event", "id": "evt_1", "type": "realtime.call.incoming", "data": data}).encode()


def signed(body: bytes, webhook_id: str = "wh_1", *, age: float = 0, secret: str = SECRET) -> dict[str, str]:
    at = int(time.time() - age)
    return {"webhook-id": webhook_id, "webhook-timestamp": str(at), "webhook-signature": sign(body, webhook_id, at, secret)}


def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            told = error.read().decode()
        assert SECRET not in told
        return error.code


async def _is(condition: bool) -> bool:
    return condition


@asynccontextmanager
async def desk_of(max_calls: int = 5) -> AsyncIterator[Desk]:
    provider, lines = Provider(), list[str]()
    theirs, ours = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
    calls = RealtimeCalls("sk-test", base_url=f"{origin_of(theirs)}/v1")
    desk = SipDesk(
        *(reception, run_config, calls),
        secret=SECRET,
        api_key="sk-test",
        model="gpt-realtime",
        person="tel:+15550199",
        max_calls=max_calls,
        write=lines.append,
        dial=provider.dial,
    )
    async with serving(provider.app(), theirs):
        async with serving(desk.app(), ours):
            yield Desk(desk, origin_of(ours), provider, lines)
        await desk.aclose()
    assert desk.calls == 0


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with desk_of() as made:
        yield made


async def test_a_call_is_accepted_with_the_agents_settings_joined_and_greeted(desk: Desk) -> None:
    endpoint = await desk.call("rtc_Ab1")
    ((action, call_id, settings),) = desk.provider.requests
    assert (action, call_id) == ("accept", "rtc_Ab1")
    assert (settings["type"], settings["model"], settings["instructions"]) == (
        *("realtime", "gpt-realtime"),
        reception.instructions,
    )
    assert [tool["name"] for tool in settings["tools"]] == ["free_rooms", "end_call", "transfer_to_person"]
    assert endpoint.url == "wss://api.openai.com/v1/realtime?call_id=rtc_Ab1"
    assert endpoint.headers == {"Authorization": "Bearer sk-test"}
    assert desk.lines == ["[call 1] rings: sip:+15005550006@example.com"]


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (incoming(), {}),
        (incoming(), signed(incoming(), secret="whsec_AAAAAAAAAAAAAAAA")),
        (incoming("rtc_2"), signed(incoming())),
        (incoming(), signed(incoming(), age=400)),
        (incoming(), signed(incoming(), age=-86_400)),
        (incoming(), signed(incoming()) | {"webhook-timestamp": "soon"}),
        (b"{", signed(b"{")),
    ],
    ids=["unsigned", "other secret", "other body", "too old", "too new", "no time", "no JSON"],
)
async def test_what_is_not_genuine_is_refused_and_rings_nothing(desk: Desk, body: bytes, headers: dict[str, str]) -> None:
    assert await desk.post(body, headers) == 400
    assert await desk.ring("rtc_good") == 200
    await until(lambda: _is(bool(desk.provider.requests)))
    assert desk.provider.did("accept") == ["rtc_good"]


async def test_a_body_that_is_too_large_is_not_read(desk: Desk) -> None:
    assert await desk.post(b" " * 70_000, {}) == 413


@pytest.mark.parametrize("name", ["live.transport.incoming", "response.completed"])
async def test_other_events_are_acknowledged_and_no_more(desk: Desk, name: str) -> None:
    body = json.dumps({"type": name, "id": "evt_1", "data": {"call_id": "rtc_1", "type": "sip"}}).encode()
    assert await desk.post(body, signed(body)) == 200
    await desk.call("rtc_2")
    assert desk.provider.did("accept") == ["rtc_2"]


async def test_a_call_that_is_announced_again_is_taken_once(desk: Desk) -> None:
    statuses = await asyncio.gather(*(desk.ring("rtc_1") for _ in range(5)), desk.ring("rtc_1", "wh_another"))
    assert set(statuses) == {200}
    endpoint = await desk.call("rtc_2")
    assert sorted(desk.provider.did("accept")) == ["rtc_1", "rtc_2"]
    # Also when it is over.
    endpoint.cut()
    await until(lambda: _is(desk.desk.calls == 1))
    assert await desk.ring("rtc_2") == 200
    await desk.call("rtc_3")
    assert sorted(desk.provider.did("accept")) == ["rtc_1", "rtc_2", "rtc_3"]


async def test_what_a_caller_claims_to_be_is_shown_and_does_nothing_else(desk: Desk) -> None:
    body = incoming(caller="\x1b[2Jsip:\r\n[call 9] over")
    assert await desk.post(body, signed(body)) == 200
    await until(lambda: _is(bool(desk.lines)))
    assert desk.lines == ["[call 1] rings: ?[2Jsip:??[call 9] over"]


async def test_many_calls_at_once_are_nothing_to_each_other(desk: Desk) -> None:
    endpoints = await asyncio.gather(*(desk.call(f"rtc_{number}") for number in range(5)))
    assert desk.desk.calls == 5
    endpoints[2].cut()
    await until(lambda: _is(desk.desk.calls == 4))
    assert [endpoint.closed is None for endpoint in endpoints] == [True, True, False, True, True]
    assert desk.lines[-1].endswith(" over")
    assert desk.provider.did("hangup") == []


async def test_a_tool_hangs_up_after_the_goodbye(desk: Desk) -> None:
    endpoint = await desk.call()
    endpoint.call_tools(("call_1", "end_call", "{}"))
    await until(lambda: _is(endpoint.types().count("response.create") == 2))
    endpoint.start_response("resp_2")
    endpoint.end_response("resp_2")
    assert desk.provider.did("hangup") == []
    endpoint.send("output_audio_buffer.stopped", response_id="resp_2")
    await until(lambda: _is(desk.provider.did("hangup") == ["rtc_1"]))


async def test_a_tool_sends_the_caller_to_a_person(desk: Desk) -> None:
    endpoint = await desk.call()
    endpoint.call_tools(("call_1", "transfer_to_person", "{}"))
    await until(lambda: _is(endpoint.types().count("response.create") == 2))
    endpoint.start_response("resp_2")
    endpoint.send("output_audio_buffer.stopped", response_id="resp_2")
    await until(lambda: _is(len(desk.provider.requests) == 2))
    assert desk.provider.requests[-1] == ("refer", "rtc_1", {"target_uri": "tel:+15550199"})


async def test_when_all_lines_are_taken_the_next_caller_hears_a_busy_signal() -> None:
    async with desk_of(max_calls=1) as desk:
        await desk.call("rtc_1")
        assert await desk.ring("rtc_2") == 200
        await until(lambda: _is(desk.provider.did("reject") == ["rtc_2"]))
        assert desk.provider.requests[-1][2] == {"status_code": 486}
        assert desk.provider.did("accept") == ["rtc_1"]


@pytest.mark.parametrize(
    ("status", "note"), [(404, "the caller had gone"), (500, "not accepted: accept was refused with 500: ")]
)
async def test_a_call_that_cannot_be_accepted_is_let_go(desk: Desk, status: int, note: str) -> None:
    desk.provider.status = status
    assert await desk.ring() == 200
    await until(lambda: _is(desk.lines[-1:] == [f"[call 1] {note}"]))
    await until(lambda: _is(desk.desk.calls == 0))
    assert desk.provider.endpoints == {}


async def test_an_accepted_call_that_cannot_be_joined_is_not_left_in_silence(desk: Desk) -> None:
    desk.provider.refuse_joining = True
    assert await desk.ring() == 200
    await until(lambda: _is(desk.provider.did("hangup") == ["rtc_1"]))
    await until(lambda: _is(desk.desk.calls == 0))


@pytest.mark.parametrize("hang_up", [False, True])
async def test_leaving_hangs_up_nobody_unless_asked(desk: Desk, hang_up: bool) -> None:
    endpoints = [await desk.call(f"rtc_{number}") for number in range(2)]
    await desk.desk.aclose(hang_up=hang_up)
    assert desk.desk.calls == 0
    assert all(endpoint.closed is not None for endpoint in endpoints)
    assert sorted(desk.provider.did("hangup")) == (["rtc_0", "rtc_1"] if hang_up else [])
    assert ("2 calls go on without us" in desk.lines) == (not hang_up)


async def test_it_says_that_it_is_there(desk: Desk) -> None:
    def read() -> bytes:
        with urllib.request.urlopen(desk.url) as answer:
            body: bytes = answer.read()
        return body

    assert json.loads(await asyncio.to_thread(read)) == {"status": "ok"}
