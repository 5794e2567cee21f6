"""Call control, beside the official client: both must send the same requests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import AsyncOpenAI

from orchestrator.errors import CallControlError, UserError
from orchestrator.realtime.calls import RealtimeCalls

SESSION: Any = {"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief."}


class CallsApi:
    """Notes requests, and answers with an empty 200 or with what the test wants."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        line, *rest = head.split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (header.partition(":") for header in rest)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((line, headers, json.loads(body) if body else None))
        writer.write(self.answer)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def api() -> AsyncIterator[CallsApi]:
    calls = CallsApi()
    server = await asyncio.start_server(calls.serve, "127.0.0.1", 0)
    calls.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with server:
        yield calls


async def test_requests_are_those_of_the_official_client(api: CallsApi) -> None:
    ours = RealtimeCalls("sk-test", base_url=api.url)
    await ours.accept("rtc_1", SESSION)
    await ours.reject("rtc_1", 486)
    await ours.reject("rtc_1")
    await ours.refer("rtc_1", "tel:+15005550006")
    await ours.hang_up("rtc_1")
    mine, api.requests = api.requests, []
    async with AsyncOpenAI(api_key="sk-test", base_url=api.url, max_retries=0) as official:
        await official.realtime.calls.accept("rtc_1", **SESSION)
        await official.realtime.calls.reject("rtc_1", status_code=486)
        await official.realtime.calls.reject("rtc_1")
        await official.realtime.calls.refer("rtc_1", target_uri="tel:+15005550006")
        await official.realtime.calls.hangup("rtc_1")

    def essence(request: tuple[str, dict[str, str], Any]) -> tuple[str, str, Any]:
        line, headers, body = request
        return line, headers["authorization"], body or None

    assert [essence(request) for request in mine] == [essence(request) for request in api.requests]


async def test_a_refusal_says_why_and_an_ended_call_is_no_error_to_hang_up(api: CallsApi) -> None:
    body = b'{"error":{"code":"call_id_not_found"}}'
    api.answer = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    calls = RealtimeCalls("sk-secret", base_url=api.url)
    await calls.hang_up("rtc_gone")
    with pytest.raises(CallControlError, match="call_id_not_found") as refused:
        await calls.accept("rtc_gone", SESSION)
    assert refused.value.status == 404
    assert "sk-secret" not in str(refused.value)


async def test_a_server_that_is_not_there_or_makes_no_sense_is_an_error(api: CallsApi) -> None:
    api.answer = b"nonsense\r\n\r\n"
    with pytest.raises(CallControlError, match="could not be sent"):
        await RealtimeCalls("sk", base_url=api.url).refer("rtc_1", "tel:+1")
    with pytest.raises(CallControlError, match="could not be sent"):
        await RealtimeCalls("sk", base_url="http://127.0.0.1:1/v1").hang_up("rtc_1")


async def test_ids_are_opaque_and_cannot_lead_elsewhere(api: CallsApi) -> None:
    await RealtimeCalls("sk", base_url=api.url).hang_up("../../models?x=1")
    assert api.requests[0][0] == "POST /v1/realtime/calls/..%2F..%2Fmodels%3Fx%3D1/hangup HTTP/1.1"


async def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UserError, match="API key is required"):
        await RealtimeCalls().hang_up("rtc_1")
    with pytest.raises(UserError, match="it is empty"):
        await RealtimeCalls("sk").hang_up("")
    with pytest.raises(UserError, match="https://"):
        RealtimeCalls("sk", base_url="file:///etc")
