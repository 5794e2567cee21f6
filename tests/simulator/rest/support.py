"""A service that is called by phone: it takes webhooks as the official client does."""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from openai import AsyncOpenAI

from orchestrator.simulator.server import SimulatorServer

PATIENCE = 30.0
SECRET = "whsec_" + base64.b64encode(b"what only the two of us know").decode()


@dataclass(frozen=True)
class Answer:
    """What came back to a plain request."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


async def ask(method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
    """Send a request, its body as JSON, and take any answer."""
    data = None if body is None else json.dumps(body).encode()
    sent = {**({"Content-Type": "application/json"} if body is not None else {}), **(headers or {})}
    request = urllib.request.Request(url, data, sent, method=method)

    def exchange() -> Answer:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read())

    return await asyncio.to_thread(exchange)


class Service:
    """Answers webhooks with the next of `statuses`, then with 200. `events` holds what the official client made of them."""

    def __init__(self, statuses: Iterable[int] = ()) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.webhook_ids: list[str] = []
        self.url = ""
        self._statuses = list(statuses)
        self._client = AsyncOpenAI(api_key="x")

    async def call(self) -> str:
        """The id of the next call that was announced."""
        async with asyncio.timeout(PATIENCE):
            event = await self.events.get()
        assert event.type == "realtime.call.incoming"
        return str(event.data.call_id)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.rstrip().split("\r\n")[1:])
        headers = {name.lower(): value for name, value in headers.items()}
        body = await reader.readexactly(int(headers["content-length"]))
        self.webhook_ids.append(headers["webhook-id"])
        status = self._statuses.pop(0) if self._statuses else 200
        if status == 200:
            self.events.put_nowait(self._client.webhooks.unwrap(body, headers, secret=SECRET))
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()


@asynccontextmanager
async def serving(service: Service) -> AsyncIterator[Service]:
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    async with server:
        service.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield service


class Simulator:
    """Drives the phones of a server from outside, by plain HTTP."""

    def __init__(self, server: SimulatorServer) -> None:
        self._url = server.control_url + "/calls"

    async def ask(self, method: str, path: str = "", body: Any = None) -> Answer:
        return await ask(method, self._url + path, body)

    async def ring(self, service: Service, *says: dict[str, Any], **more: Any) -> str:
        """Make a phone ring, and return the id of the call once the service knows of it."""
        answer = await self.ask("POST", "", {"webhook_url": service.url, "secret": SECRET, "says": says, **more})
        assert answer.status == 201, answer.body
        created = answer.json()
        assert created["state"] == "ringing"
        assert await service.call() == created["call_id"]
        return str(created["call_id"])

    async def show(self, call_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.ask("GET", f"/{call_id}")).json()
        return found

    async def until(self, call_id: str, event: str) -> dict[str, Any]:
        """The call as soon as this has happened to it."""
        async with asyncio.timeout(PATIENCE):
            while True:
                report = await self.show(call_id)
                if event in [happened["event"] for happened in report["events"]]:
                    return report
                await asyncio.sleep(0.02)
