"""The carrier's webhook: signatures as Twilio's own validator wants them, TwiML as Twilio's own writer makes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import parse_qs

import pytest
from twilio.request_validator import RequestValidator
from twilio.twiml.voice_response import Connect, VoiceResponse

from orchestrator.simulator.carrier.webhook import PhoneCallError, ask_what_to_do, read_twiml, sign

TOKEN = "0123456789abcdef0123456789abcdef"
FORM = {"CallSid": "CA1", "From": "+15005550006", "To": "+15005550001"}
TWIML = b'<Response><Connect><Stream url="wss://h/p"><Parameter name="token" value="t&amp;1"/></Stream></Connect></Response>'

Answer = Callable[[bytes], Awaitable[bytes]]


@asynccontextmanager
async def web_server(answer: Answer) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        writer.write(await answer(head + await reader.readexactly(length)))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/twilio/voice"


def http(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\nContent-Type: text/xml\r\n\r\n%s" % (status.encode(), len(body), body)


def test_signs_as_twilio_validates() -> None:
    url = "https://voice.example.com/twilio/voice"
    assert RequestValidator(TOKEN).validate(url, FORM, sign(TOKEN, url, FORM))


@pytest.mark.parametrize(
    ("url", "signature"),
    [
        ("wss://voice.example.com/twilio/media", "3Wv0T80qzAY3OCARW9y1gnUJZtE="),
        ("wss://voice.example.com:443/twilio/media", "njB9LrB2K0cXMSmpQuCSQVNwT7E="),
    ],
)
def test_signs_an_upgrade(url: str, signature: str) -> None:
    assert sign(TOKEN, url) == signature


def test_signs_the_form_of_a_call() -> None:
    form = {
        "AccountSid": "AC00000000000000000000000000000001",
        "ApiVersion": "2010-04-01",
        "CallSid": "CA00000000000000000000000000000002",
        "CallStatus": "ringing",
        "Direction": "inbound",
        "From": "+15005550006",
        "To": "+15005550001",
    }
    url = "https://voice.example.com/twilio/voice"
    expected = RequestValidator(TOKEN).compute_signature(url, form)
    assert sign(TOKEN, url, form) == expected


def test_reads_what_twilios_own_library_writes() -> None:
    response = VoiceResponse()
    connect = Connect()
    connect.stream(url="wss://h.example/media", name="s").parameter(name="token", value='a"<b>&c')
    response.append(connect)
    target = read_twiml(str(response).encode())
    assert target.url == "wss://h.example/media"
    assert target.parameters == {"token": 'a"<b>&c'}


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        (b"hello", "not TwiML"),
        (b"<Response/>", "no stream"),
        (b"<Response><Say>All lines are busy.</Say></Response>", "All lines are busy"),
        (b"<Answer><Connect><Stream url='wss://h/p'/></Connect></Answer>", "no stream"),
        (b"<Response><Connect><Stream/></Connect></Response>", "31923"),
        (b"<Response><Connect><Stream url='https://h/p'/></Connect></Response>", "31923"),
        (b"<Response><Connect><Stream url='wss://h/p?token=1'/></Connect></Response>", "31920"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]><Response>&a;</Response>", "document type"),
        (b" " * 70_000, "64 KiB"),
    ],
)
def test_says_why_twiml_leads_to_no_stream(document: bytes, complaint: str) -> None:
    with pytest.raises(PhoneCallError, match=complaint):
        read_twiml(document)


async def test_posts_a_signed_form_and_reads_the_answer() -> None:
    requests: list[bytes] = []

    async def answer(request: bytes) -> bytes:
        requests.append(request)
        return http("200 OK", TWIML)

    async with web_server(answer) as url:
        target = await ask_what_to_do(url, FORM, TOKEN)
    assert target.url == "wss://h/p"
    assert target.parameters == {"token": "t&1"}
    head, _, body = requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /twilio/voice HTTP/1.1\r\n")
    assert f"x-twilio-signature: {sign(TOKEN, url, FORM)}".encode() in head.replace(
        b"X-Twilio-Signature", b"x-twilio-signature"
    )
    assert parse_qs(body.decode()) == {name: [value] for name, value in FORM.items()}


async def test_without_a_token_nothing_is_signed() -> None:
    requests: list[bytes] = []

    async def answer(request: bytes) -> bytes:
        requests.append(request)
        return http("200 OK", TWIML)

    async with web_server(answer) as url:
        await ask_what_to_do(url, FORM)
    assert b"signature" not in requests[0].lower()


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (http("403 Forbidden", b"the signature is wrong"), "403: the signature is wrong"),
        (http("200 OK", b"x" * 100_000), "longer than 64 KiB"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "HTTP"),
        (b"", "without an answer|HTTP"),
    ],
)
async def test_says_what_the_webhook_did_wrong(reply: bytes, complaint: str) -> None:
    async def answer(_: bytes) -> bytes:
        return reply

    async with web_server(answer) as url:
        with pytest.raises(PhoneCallError, match=complaint):
            await ask_what_to_do(url, FORM)


async def test_gives_up_at_the_deadline() -> None:
    never = asyncio.Event()

    async def answer(_: bytes) -> bytes:
        await never.wait()
        return b""

    async with web_server(answer) as url:
        with pytest.raises(PhoneCallError, match="no answer within"):
            await ask_what_to_do(url, FORM, timeout=0.05)
        never.set()


async def test_says_when_nobody_listens() -> None:
    with pytest.raises(PhoneCallError, match="cannot be reached"):
        await ask_what_to_do("http://127.0.0.1:1/twilio/voice", FORM)
