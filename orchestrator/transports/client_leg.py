"""The client's side of the upgrade."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.http11 import Response
from websockets.protocol import CONNECTING, OPEN, State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from orchestrator.errors import EndReason, LegConnectError
from orchestrator.transports.base import LegListener, LegOptions
from orchestrator.transports.receive_buffer import ReceiveBuffer
from orchestrator.transports.websocket import PROTOCOL_LOGGER, WebSocketLeg

__all__ = ["ClientLeg"]

# Answers of real endpoints have 1 to 3 KiB of headers.
_HEAD_LIMIT: Final = 16 * 1024

# A refusal's body is read to tell people what was wrong; nobody needs more of it.
_BODY_LIMIT: Final = 64 * 1024
_BODY_EXCERPT: Final = 500

_NOWHERE: Final = WebSocketURI(secure=False, host="localhost", port=80, path="/", query="")


class ClientLeg(WebSocketLeg):
    """A leg that we opened, or, with `resumed`, that an earlier owner opened."""

    def __init__(
        self,
        listener: LegListener,
        *,
        options: LegOptions,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket | None,
        buffer: ReceiveBuffer | None = None,
        uri: WebSocketURI = _NOWHERE,
        headers: Mapping[str, str] | None = None,
        subprotocols: Sequence[str] = (),
        resumed: bool = False,
    ) -> None:
        self._client = ClientProtocol(
            uri,
            subprotocols=[Subprotocol(name) for name in subprotocols] or None,
            state=OPEN if resumed else CONNECTING,
            max_size=options.max_message,
            logger=PROTOCOL_LOGGER,
        )
        super().__init__(self._client, listener, options=options, loop=loop, sock=sock, buffer=buffer)
        self._request = self._client.connect()
        for name, value in (headers or {}).items():
            # Headers of the upgrade itself are replaced, not doubled.
            if name in self._request.headers:
                del self._request.headers[name]
            self._request.headers[name] = value
        self.status: int | None = None  # of the endpoint's answer, once its head is there; 0 if that is no HTTP
        self._body_read = 0

    def _start_upgrade(self) -> None:
        self._client.send_request(self._request)
        self._flush()

    def _receive_upgrade(self) -> bool:
        buffer = self._buffer
        if self.status is None:
            head = buffer.peek(_HEAD_LIMIT)
            length = head.find(b"\r\n\r\n") + 4
            if length < 4:
                if len(head) >= _HEAD_LIMIT:
                    self._refuse("the answer has no end of headers in its first 16 KiB")
                return False
            part = head[:length]
            self.status = _status_of(part)
        else:
            part = buffer.peek(_BODY_LIMIT)
            self._body_read += len(part)
        buffer.consume(buffer.start + len(part))
        self._client.receive_data(part)
        if self._client.state is State.OPEN:
            self._client.events_received()
            self._open()
            return True
        self._look_at_answer()
        if self._failure is None and self._body_read >= _BODY_LIMIT:
            self._refuse("the endpoint refused the upgrade")
        return bool(buffer)

    def _upgrade_eof(self) -> None:
        self._look_at_answer()
        if self._failure is None:
            self._refuse("the endpoint ended the connection before the upgrade was done")

    def _look_at_answer(self) -> None:
        """Give up if the protocol has found the answer to be something else than an upgrade."""
        exc = self._client.handshake_exc
        if exc is None:
            return
        if isinstance(exc, InvalidStatus):
            answers = [event for event in self._client.events_received() if isinstance(event, Response)]
            after = _seconds(answers[0].headers.get("Retry-After", "")) if answers else None
            self._refuse("the endpoint refused the upgrade", bytes(answers[0].body) if answers else b"", after)
        else:
            self._refuse(f"the endpoint's answer is no WebSocket upgrade: {exc}")

    def _refuse(self, text: str, body: bytes = b"", retry_after: float | None = None) -> None:
        status = f" (HTTP {self.status})" if self.status else ""
        excerpt = body[:_BODY_EXCERPT].decode(errors="replace")
        self._fail_upgrade(LegConnectError(text + status, self.status or None, excerpt, retry_after=retry_after))
        self.abort(EndReason("upgrade_failed", text))


def _seconds(field: str) -> float | None:
    """Read `Retry-After` where it is a number of seconds; the other form, a date, needs a clock that agrees with theirs."""
    return float(field) if field.isascii() and field.isdigit() and len(field) < 7 else None


def _status_of(head: bytes) -> int:
    """Read the status of an HTTP/1.1 answer; 0 if the line is malformed, which the protocol will say in its own way."""
    field = head[9:12]
    return int(field) if head.startswith(b"HTTP/1.") and field.isdigit() else 0
