"""Webhooks as the official client checks them, and a service that stumbles."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from orchestrator.errors import WireError
from orchestrator.simulator.phone.webhook import (
    Delivery,
    WebhookSecret,
    check_target,
    deliver,
    retry_delays,
    sign,
    webhook_body,
)

SECRET_TEXT = "whsec_" + base64.b64encode(b"a secret of some length").decode()
SECRET = WebhookSecret(SECRET_TEXT)
HEADERS = [{"name": "From", "value": "sip:+1@a"}, {"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}]
BODY = webhook_body("evt_1", "rtc_1", HEADERS, 1_800_000_000)


def delivery(url: str = "http://127.0.0.1:1/", retries: int = 0) -> Delivery:
    return Delivery(url, "evt_1", BODY, SECRET, retries)


# --- The signature ----------------------------------------------------------------------------------------------------


def test_the_official_client_takes_it() -> None:
    event = OpenAI(api_key="x").webhooks.unwrap(BODY.decode(), sign(delivery(), int(time.time())), secret=SECRET_TEXT)
    assert event.type == "realtime.call.incoming"
    assert event.data.call_id == "rtc_1"
    assert [(header.name, header.value) for header in event.data.sip_headers] == [tuple(it.values()) for it in HEADERS]
    assert (event.id, event.object, event.created_at) == ("evt_1", "event", 1_800_000_000)


@pytest.mark.parametrize("age", [-310, 310])
def test_the_official_client_refuses_an_old_or_a_future_one(age: int) -> None:
    with pytest.raises(InvalidWebhookSignatureError):
        OpenAI(api_key="x").webhooks.unwrap(BODY, sign(delivery(), int(time.time()) + age), secret=SECRET_TEXT)


@pytest.mark.parametrize(
    "alter",
    [
        lambda body, headers: (body.replace(b"rtc_1", b"rtc_2"), headers),
        lambda body, headers: (body, {**headers, "webhook-id": "evt_2"}),
        lambda body, headers: (body, {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) - 1)}),
        lambda body, headers: (body, {**headers, "webhook-signature": "v1,AAAA"}),
    ],
)
def test_the_official_client_refuses_an_altered_one(
    alter: Callable[[bytes, dict[str, str]], tuple[bytes, dict[str, str]]],
) -> None:
    body, headers = alter(BODY, sign(delivery(), int(time.time())))
    with pytest.raises(InvalidWebhookSignatureError):
        OpenAI(api_key="x").webhooks.unwrap(body, headers, secret=SECRET_TEXT)


def test_another_secret_gives_another_signature() -> None:
    other = WebhookSecret("whsec_" + base64.b64encode(b"a different secret").decode())
    assert other.sign(b"x") != SECRET.sign(b"x")


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_AAAA", "whsec_not base64", "sk-" + SECRET_TEXT, SECRET_TEXT + "="])
def test_what_is_no_secret_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(WireError) as refused:
        WebhookSecret(text)
    assert not text or text not in str(refused.value) or text == "whsec_"


def test_a_secret_shows_itself_nowhere() -> None:
    assert SECRET_TEXT.removeprefix("whsec_") not in repr(delivery())


# --- Where to ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "https://127.9.9.9:8443/a?b=c", "http://localhost:1/hook", "http://[::1]:80/"]
)
def test_this_machine_is_always_allowed(url: str) -> None:
    check_target(url, anywhere=False)


@pytest.mark.parametrize(
    "url", ["http://192.168.0.1/", "https://example.com/", "http://localhost.example.com/", "http://0.0.0.0/"]
)
def test_other_machines_only_where_that_is_wanted(url: str) -> None:
    with pytest.raises(WireError) as refused:
        check_target(url, anywhere=False)
    assert refused.value.param == "webhook_url"
    check_target(url, anywhere=True)


@pytest.mark.parametrize(
    "url",
    [
        *("", "ftp://localhost/", "localhost/hook", "file:///etc/passwd", "http://", "http://localhost:0/"),
        *("http://localhost:x/", "http://[::1/", "http://localhost/\r\nX: y", "http://localhost/ b", "http://locälhost/"),
    ],
)
def test_what_is_no_web_address_is_refused_anywhere(url: str) -> None:
    for anywhere in (False, True):
        with pytest.raises(WireError):
            check_target(url, anywhere=anywhere)


# --- Delivery ---------------------------------------------------------------------------------------------------------


class Service:
    """Answers each request with the next status; keeps what it was sent."""

    def __init__(self, *statuses: str) -> None:
        self.statuses = list(statuses)
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.rstrip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        self.requests.append((first, headers, await reader.readexactly(int(headers["content-length"]))))
        writer.write(self.statuses.pop(0).encode())
        writer.close()


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[str]:
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook?a=1"


def http(status: int) -> str:
    return f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"


class Attempts(list[tuple[int, str]]):
    def __call__(self, status: int, fault: str) -> None:
        self.append((status, fault))


async def test_it_arrives_signed_and_is_done() -> None:
    service, attempts = Service(http(204)), Attempts()
    async with running(service) as url:
        assert await deliver(delivery(url, retries=5), attempts)
    ((first, headers, body),) = service.requests
    assert first == "POST /hook?a=1 HTTP/1.1"
    assert headers["user-agent"].startswith("OpenAI/1.0 ")
    assert headers["content-type"] == "application/json"
    OpenAI(api_key="x").webhooks.unwrap(body, headers, secret=SECRET_TEXT)
    assert attempts == [(204, "")]


async def test_it_is_tried_again_with_the_same_id_and_a_new_time() -> None:
    times = iter([1000.0, 2000.0, 3000.0])
    service, attempts = Service(http(500), http(302), http(200)), Attempts()
    async with running(service) as url:
        assert await deliver(delivery(url, retries=2), attempts, clock=lambda: next(times), first_delay=0.0)
    assert attempts == [(500, "answered with 500"), (302, "answered with 302"), (200, "")]
    seen = [headers for _, headers, _ in service.requests]
    assert [headers["webhook-timestamp"] for headers in seen] == ["1000", "2000", "3000"]
    assert {headers["webhook-id"] for headers in seen} == {"evt_1"}
    assert len({headers["webhook-signature"] for headers in seen}) == 3


@pytest.mark.parametrize(
    ("answer", "fault"), [("", "no answer|not HTTP"), ("SSH-2.0\r\n\r\n", "not HTTP"), (http(404), "answered with 404")]
)
async def test_it_gives_up_when_no_attempt_is_left(answer: str, fault: str) -> None:
    service, attempts = Service(answer), Attempts()
    async with running(service) as url:
        assert not await deliver(delivery(url), attempts)
    ((_, why),) = attempts
    assert any(part in why for part in fault.split("|"))


async def test_nobody_there_is_a_failed_attempt() -> None:
    attempts = Attempts()
    assert not await deliver(delivery(), attempts)
    assert attempts[0][0] == 0
    assert "cannot be reached" in attempts[0][1]


async def test_a_service_that_never_answers_is_not_waited_for_forever() -> None:
    attempts, never = Attempts(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await never.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        assert not await deliver(delivery(url), attempts, timeout=0.05)
        never.set()
    assert attempts == [(0, "no answer in 0.05 s")]


def test_the_pauses_grow_and_have_an_end() -> None:
    assert retry_delays(9) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert retry_delays(0) == []


def test_the_body_is_what_the_api_sends() -> None:
    event = json.loads(BODY)
    assert list(event) == ["object", "id", "type", "created_at", "data"]
    assert list(event["data"]) == ["call_id", "sip_headers", "sip_media_security"]
