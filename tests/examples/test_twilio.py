"""The Twilio example: a call as its README shows it, and what a carrier may do to it, right and wrong."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from twilio.request_validator import RequestValidator
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from examples._serving import listen, origin_of, serving
from examples.twilio.agent import run_config, workshop
from examples.twilio.server import INCOMING_CALL, MEDIA_STREAM, PhoneDesk
from orchestrator.gateway.authentication import CarrierDoor
from orchestrator.realtime import OpenAIRealtimeWebSocketModel, RealtimeRunner
from orchestrator.settings import Secret
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from tests.examples import stranger
from tests.examples.stranger import AtTerminal
from tests.waiting import until

TOKEN = "0123456789abcdef0123456789abcdef"
CALL_SID = "CA00000000000000000000000000000001"
FORM = {"CallSid": CALL_SID, "From": "+15005550006", "To": "+15005550001", "CallStatus": "ringing"}
# So much audio that no stall of a busy machine ever plays it to its end.
LONG_MS = 60_000

# --- As a stranger would ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calls() -> dict[str, tuple[int, str, str]]:
    """The README's command, and the same with an account's token, so that every request is signed. Both at once."""
    environments = {"open": stranger.environment(), "signed": stranger.environment(TWILIO_AUTH_TOKEN=TOKEN)}
    words = ("examples.twilio", "--offline", "--call", "--port", "0")
    started = {name: stranger.start(*words, env=environment) for name, environment in environments.items()}
    return {name: stranger.finish(process) for name, process in started.items()}


@pytest.mark.parametrize("name", ["open", "signed"])
def test_a_call_from_the_first_ring_to_the_end(calls: dict[str, tuple[int, str, str]], name: str) -> None:
    status, output, errors = calls[name]
    assert (status, errors) == (0, "")
    assert output.startswith("Talking to the offline endpoint at ws://127.0.0.1:")
    assert "/incoming-call. Ctrl-C ends it.\n" in output
    said = [line.removeprefix("[call 1] ") for line in output.splitlines() if line.startswith("[call 1]")]
    answer, interruption = said.pop(4), said.pop(4)
    assert said == [
        "begins",
        "Workshop: Hello, this is the bicycle workshop. What can I do for you?",
        "caller: Is the bicycle one two three ready?",
        '  [tool repair_status {"ticket":"123"} -> Bicycle 123 is ready, and costs 42 euros.]',
        "caller: Thank you, goodbye.",
        "Workshop: Goodbye, and a safe ride!",
        "ended by the caller",
    ]
    assert answer.startswith("Workshop: Bicycle 123 is ready")
    assert interruption.startswith("  [interrupted after ")
    # What the phone had played by then, whether or not the model had said more already.
    heard = interruption if answer.endswith("until seven.") else answer
    assert "Bicycle 123 is ready" in heard
    assert "until seven" not in heard


@pytest.mark.parametrize("name", ["open", "signed"])
def test_the_carrier_has_nothing_to_complain_of(calls: dict[str, tuple[int, str, str]], name: str) -> None:
    phone = [line for line in calls[name][1].splitlines() if line.startswith("[phone]")]
    assert len(phone) == 1
    assert "cleared unheard" in phone[0]


def test_ctrl_c_ends_the_server() -> None:
    with AtTerminal("examples.twilio", "--offline", "--port", "0") as terminal:
        terminal.expect("Ctrl-C ends it.")
        terminal.press_ctrl_c()
        assert terminal.wait() == 130
        assert "Traceback" not in terminal.seen


@pytest.mark.parametrize(
    ("words", "explanation"),
    [
        ((), "--offline"),
        (("--offline", "--public-url", "https://voice.example.com"), "TWILIO_AUTH_TOKEN"),
        (("--offline", "--host", "0.0.0.0"), "TWILIO_AUTH_TOKEN"),
    ],
)
def test_what_it_will_not_do_it_explains(words: tuple[str, ...], explanation: str) -> None:
    status, _, errors = stranger.run("examples.twilio", *words)
    assert status == 2
    assert explanation in errors
    assert "Traceback" not in errors


# --- In detail --------------------------------------------------------------------------------------------------------


class Office:
    """The desk on a port of its own, and the model's side of every call."""

    def __init__(self, desk: PhoneDesk, url: str, endpoints: list[ScriptedEndpoint], lines: list[str]) -> None:
        self.desk = desk
        self.url = url
        self.endpoints = endpoints
        self.lines = lines
        self.stack = AsyncExitStack()

    async def ring(self, method: str = "POST", call_sid: str = CALL_SID, **headers: str) -> tuple[int, str]:
        """Ask the webhook; return the status and the body of its answer."""
        form = urlencode(FORM | {"CallSid": call_sid})
        query = f"?{form}" if method == "GET" else ""
        data = None if method == "GET" else form.encode()
        return await asyncio.to_thread(_request, f"{self.url}{INCOMING_CALL}{query}", data, headers)

    async def token(self, call_sid: str = CALL_SID) -> str:
        status, body = await self.ring(call_sid=call_sid)
        assert status == 200
        found = ElementTree.fromstring(body).find("./Connect/Stream/Parameter[@name='token']")
        assert found is not None
        return found.get("value", "")

    async def open(self, token: str | None = None, *, call_sid: str = CALL_SID, **headers: str) -> Phone:
        """Open a stream, and start it unless the token is empty."""
        token = await self.token(call_sid) if token is None else token
        url = f"ws{self.url.removeprefix('http')}{MEDIA_STREAM}"
        socket = await self.stack.enter_async_context(connect(url, additional_headers=headers, compression=None, max_size=None))
        phone = Phone(socket, f"MZ{len(self.endpoints)}")
        await phone.send("connected", protocol="Call", version="1.0.0")
        if token:
            await phone.start(token, call_sid)
        return phone

    async def call(self) -> tuple[Phone, ScriptedEndpoint]:
        """Place a call and wait until the agent was asked to greet."""
        before = len(self.endpoints)
        phone = await self.open(call_sid=f"CA_{before}")
        await until(lambda: _is(len(self.endpoints) > before and "response.create" in self.endpoints[-1].types()))
        return phone, self.endpoints[-1]


class Phone:
    """The carrier's side of one stream, which does only what a test says."""

    def __init__(self, socket: ClientConnection, stream_sid: str) -> None:
        self.socket = socket
        self.stream_sid = stream_sid
        self.received: list[dict[str, Any]] = []

    async def send(self, event: str, **body: Any) -> None:
        with suppress(ConnectionClosed):  # Why it was closed is seen at its end.
            await self.socket.send(json.dumps({"event": event, "streamSid": self.stream_sid, **body}))

    async def start(self, token: str, call_sid: str = CALL_SID, encoding: str = "audio/x-mulaw") -> None:
        details = {
            "streamSid": self.stream_sid,
            "callSid": call_sid,
            "mediaFormat": {"encoding": encoding, "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": token},
        }
        await self.send("start", start=details)

    async def echo(self, name: str) -> None:
        await self.send("mark", mark={"name": name})

    async def until(self, event: str, number: int = 1) -> list[dict[str, Any]]:
        """Read until so many messages of a kind have come; return all of that kind."""
        while len(found := [message for message in self.received if message["event"] == event]) < number:
            self.received.append(json.loads(await self.socket.recv()))
        return found

    async def end(self) -> int | None:
        """Read to the end; return the code of the close."""
        try:
            while True:
                self.received.append(json.loads(await self.socket.recv()))
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None


def _request(url: str, data: bytes | None, headers: dict[str, str]) -> tuple[int, str]:
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


async def _is(condition: bool) -> bool:
    return condition


@asynccontextmanager
async def office_of(auth_token: str = "", max_calls: int = 5) -> AsyncIterator[Office]:
    endpoints: list[ScriptedEndpoint] = []

    async def dial(*args: Any, **options: Any) -> Any:
        endpoints.append(ScriptedEndpoint(output_format="audio/pcmu"))
        return await endpoints[-1].dial(*args, **options)

    runner = RealtimeRunner(workshop, model=lambda: OpenAIRealtimeWebSocketModel(dial=dial), config=run_config)
    lines: list[str] = []
    listener = listen("127.0.0.1", 0)
    url = origin_of(listener)
    door = CarrierDoor(Secret(auth_token), [url], open_without_token=not auth_token)
    desk = PhoneDesk(runner, {"headers": {}}, door=door, public_url=url, max_calls=max_calls, write=lines.append)
    async with serving(desk.app(), listener):
        office = Office(desk, url, endpoints, lines)
        async with office.stack:
            yield office


@pytest.fixture
async def office() -> AsyncIterator[Office]:
    async with office_of() as made:
        yield made


@pytest.fixture
async def signed_office() -> AsyncIterator[Office]:
    async with office_of(TOKEN) as made:
        yield made


async def test_audio_goes_both_ways_in_the_carriers_own_codec(office: Office) -> None:
    phone, endpoint = await office.call()
    audio = endpoint.last("session.update")["session"]["audio"]
    assert audio["input"]["format"] == audio["output"]["format"] == {"type": "audio/pcmu"}
    await phone.send("media", media={"track": "inbound", "payload": "AAEC/w=="})
    await until(lambda: _is("input_audio_buffer.append" in [event["type"] for event in endpoint.received]))
    assert endpoint.last("input_audio_buffer.append")["audio"] == "AAEC/w=="
    endpoint.start_response()
    endpoint.speak("hello", 100)
    assert await phone.until("media") == [
        {"event": "media", "streamSid": phone.stream_sid, "media": {"payload": endpoint.audio(100)}}
    ]


async def test_a_barge_in_clears_and_truncates_where_the_marks_say(office: Office) -> None:
    phone, endpoint = await office.call()
    endpoint.start_response()
    endpoint.speak("one two", LONG_MS)
    endpoint.speak(" three four", LONG_MS)
    first, second = [message["mark"]["name"] for message in await phone.until("mark", 2)]
    # So much cannot have been played since: only the mark can say so.
    await phone.echo(first)
    await phone.send("media", media={"track": "inbound", "payload": "AAAA"})
    await until(lambda: _is("input_audio_buffer.append" in [event["type"] for event in endpoint.received]))
    endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
    await phone.until("clear")
    await until(lambda: _is("conversation.item.truncate" in endpoint.types()))
    truncate = endpoint.last("conversation.item.truncate")
    assert LONG_MS <= truncate["audio_end_ms"] < 2 * LONG_MS
    endpoint.end_response(status="cancelled")
    # What the carrier threw away comes back as if it had been played; the next answer is cut where it is all the same.
    await phone.echo(second)
    endpoint.start_response("resp_2")
    endpoint.speak("five", LONG_MS, response_id="resp_2", item_id="item_b")
    await phone.until("mark", 3)
    await phone.echo(second)
    await phone.send("media", media={"track": "inbound", "payload": "BBBB"})
    await until(lambda: _is(endpoint.last("input_audio_buffer.append")["audio"] == "BBBB"))
    endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_v")
    await phone.until("clear", 2)
    await until(lambda: _is(endpoint.last("conversation.item.truncate")["item_id"] == "item_b"))
    assert endpoint.last("conversation.item.truncate")["audio_end_ms"] < LONG_MS


async def test_the_end_of_an_answer_is_marked_though_it_is_short(office: Office) -> None:
    phone, endpoint = await office.call()
    endpoint.start_response()
    endpoint.speak("yes", 60)
    endpoint.send("response.output_audio.done", response_id="resp_1", item_id="item_a", output_index=0, content_index=0)
    assert [message["mark"]["name"] for message in await phone.until("mark")] == ["0:60"]


@pytest.mark.parametrize("how", ["stop", "close", "vanish"])
async def test_when_the_caller_hangs_up_the_session_is_closed(office: Office, how: str) -> None:
    phone, endpoint = await office.call()
    if how == "stop":
        await phone.send("stop", stop={"callSid": CALL_SID})
        assert await phone.end() == 1000
    elif how == "close":
        await phone.socket.close()
    else:
        phone.socket.transport.abort()
    await until(lambda: _is(endpoint.closed is not None and office.desk.calls == 0))
    assert office.lines[-1] == "[call 1] ended by the caller"


@pytest.mark.parametrize(("how", "code"), [("close", 1000), ("cut", 1011)])
async def test_when_the_model_goes_the_call_ends(office: Office, how: str, code: int) -> None:
    phone, endpoint = await office.call()
    getattr(endpoint, how)()
    assert await phone.end() == code
    await until(lambda: _is(office.desk.calls == 0))


async def test_two_calls_at_once_hear_their_own_agent(office: Office) -> None:
    (first, first_model), (second, second_model) = [await office.call() for _ in range(2)]
    for model, words in ((first_model, "one"), (second_model, "two")):
        model.start_response()
        model.speak(words, 100 * len(words))
    first_model.speak("more", 40)
    assert len(await first.until("media", 2)) == 2
    assert len(await second.until("media")) == 1
    first_model.cut()
    assert await first.end() == 1011
    assert second_model.closed is None
    await second.send("media", media={"payload": "AAAA"})
    await until(lambda: _is("input_audio_buffer.append" in [event["type"] for event in second_model.received]))
    assert office.desk.calls == 1


async def test_a_stream_is_announced_by_the_webhook_and_taken_once(office: Office) -> None:
    token = await office.token()
    await office.open(token)
    await until(lambda: _is(office.desk.calls == 1))
    for wrong in (await office.open(token), await office.open("forged"), await office.open(token, call_sid="CA_2")):
        assert await wrong.end() == 1008
    assert office.desk.calls == 1


@pytest.mark.parametrize(
    "message",
    [
        b"\x00\x01",
        "{not json",
        '{"event":"start"}',
        '{"event":"media","streamSid":"MZ0","media":{"payload":"AAAA"}}',
        '{"event":"mark","streamSid":"MZ0","mark":{"name":"0:1"}}',
    ],
)
async def test_what_breaks_the_protocol_ends_that_call_alone(office: Office, message: str | bytes) -> None:
    good, endpoint = await office.call()
    bad = await office.open("")
    await bad.socket.send(message)
    assert await bad.end() == 1007
    endpoint.start_response()
    endpoint.speak("still here", 100)
    assert await good.until("media")


async def test_audio_that_is_none_ends_the_call(office: Office) -> None:
    phone, _ = await office.call()
    await phone.send("media", media={"payload": "no base64!"})
    assert await phone.end() == 1007


async def test_another_codec_is_refused(office: Office) -> None:
    phone = await office.open("")
    await phone.start("any", encoding="audio/l16")
    assert await phone.end() == 1007


async def test_what_is_new_or_of_no_matter_is_passed_over(office: Office) -> None:
    phone, endpoint = await office.call()
    await phone.send("brand_new", detail=1)
    await phone.send("dtmf", dtmf={"digit": "5"})
    await phone.echo("not ours")
    endpoint.start_response()
    endpoint.speak("hello", 100)
    assert await phone.until("media")
    await until(lambda: _is("[call 1]   [key 5]" in office.lines))


async def test_when_all_lines_are_taken_the_next_caller_hears_a_busy_signal() -> None:
    async with office_of(max_calls=1) as office:
        spare = await office.token()
        await office.call()
        _, body = await office.ring()
        assert 'Reject reason="busy"' in body
        assert await (await office.open(spare)).end() == 1013


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_webhook_answers_a_signed_request_only(signed_office: Office, method: str) -> None:
    office, url = signed_office, f"{signed_office.url}{INCOMING_CALL}"
    judge = RequestValidator(TOKEN)
    query = f"?{urlencode(FORM)}" if method == "GET" else ""
    form = {} if method == "GET" else FORM
    good = judge.compute_signature(url + query, form)
    wrong = [
        RequestValidator("another token").compute_signature(url + query, form),
        judge.compute_signature(f"{url}x{query}", form),
        judge.compute_signature(url + query, {**form, "From": "+15005550007"}),
        ("B" if good[0] == "A" else "A") + good[1:],
        "",
        "\u00e9",
    ]
    for signature in wrong:
        status, body = await office.ring(method, **{"X-Twilio-Signature": signature.encode().decode("latin-1")})
        assert (status, TOKEN in body) == (403, False)
    assert (await office.ring(method))[0] == 403
    status, body = await office.ring(method, **{"X-Twilio-Signature": good})
    stream = ElementTree.fromstring(body).find("./Connect/Stream")
    assert status == 200
    assert stream is not None
    assert stream.get("url") == f"ws{office.url.removeprefix('http')}{MEDIA_STREAM}"
    assert "<Say>" in body


async def test_the_stream_opens_to_a_signed_request_only(signed_office: Office) -> None:
    stream_url = f"ws{signed_office.url.removeprefix('http')}{MEDIA_STREAM}"
    good = RequestValidator(TOKEN).compute_signature(stream_url, {})
    for headers in ({}, {"X-Twilio-Signature": good[:-2] + "A="}):
        with pytest.raises(InvalidStatus) as refused:
            await signed_office.open("", **headers)
        assert refused.value.response.status_code == 403
    phone = await signed_office.open("", **{"X-Twilio-Signature": good})
    await phone.start("forged")
    assert await phone.end() == 1008


@pytest.mark.parametrize(("origin", "status"), [("https://elsewhere.example.com", 403), ("http://localhost:3000", 200)])
async def test_without_a_token_a_page_from_elsewhere_is_kept_out(office: Office, origin: str, status: int) -> None:
    assert (await office.ring(Origin=origin))[0] == status


async def test_a_webhook_without_a_call_is_refused(office: Office) -> None:
    url = f"{office.url}{INCOMING_CALL}"
    assert (await asyncio.to_thread(_request, url, None, {}))[0] == 400
    assert (await asyncio.to_thread(_request, url, b"{}", {"Content-Type": "application/json"}))[0] == 415
    assert (await asyncio.to_thread(_request, url, b"a" * 70_000, {}))[0] == 413
