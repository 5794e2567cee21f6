"""The server's side of the upgrade: one request head, one decision, one answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Final

import msgspec
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import CONNECTING, OPEN, SEND_EOF
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from orchestrator.errors import EndReason, Refused
from orchestrator.transports.base import LegListener, LegOptions
from orchestrator.transports.outbound import FrameWriter, Kind
from orchestrator.transports.receive_buffer import ReceiveBuffer
from orchestrator.transports.websocket import PROTOCOL_LOGGER, WebSocketLeg

__all__ = ["HEAD_LIMIT", "Accept", "Refuse", "Route", "ServerLeg"]

# The most that a request head may have, its empty line included.
HEAD_LIMIT: Final = 16 * 1024


class Accept(msgspec.Struct, frozen=True):
    """The answer to a request that becomes a leg.

    `subprotocol` is chosen if the client offered it, and passed over otherwise. `headers` are added to the 101.
    """

    listener: LegListener
    subprotocol: str | None = None
    headers: tuple[tuple[str, str], ...] = ()


class Refuse(msgspec.Struct, frozen=True):
    """The answer to any other request: a plain HTTP response, after which the connection ends."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


Route = Callable[[Request], Accept | Refuse]
"""Decides about a request by its path and headers. Must not block; if it raises, the client gets a 500."""


class _Nobody:
    """Listens until the route has named the listener."""

    def on_text(self, data: bytes) -> None: ...

    def on_binary(self, data: bytes) -> None: ...

    def on_closed(self, reason: EndReason) -> None: ...


class ServerLeg(WebSocketLeg):
    """A leg that a client opened, or, with `resumed`, opened to an earlier owner."""

    def __init__(
        self,
        route: Route,
        *,
        options: LegOptions,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket | None,
        buffer: ReceiveBuffer | None = None,
        writer: FrameWriter | None = None,
        resumed: bool = False,
        listener: LegListener | None = None,
    ) -> None:
        self._server = ServerProtocol(
            # A function, for the protocol binds what it gets to itself: a bound method would miss its first argument.
            select_subprotocol=lambda _, offered: self._select_subprotocol(offered),
            state=OPEN if resumed else CONNECTING,
            max_size=options.max_message,
            logger=PROTOCOL_LOGGER,
        )
        super().__init__(
            self._server, listener or _Nobody(), options=options, loop=loop, sock=sock, buffer=buffer, writer=writer
        )
        self._route = route
        self._wanted_subprotocol: str | None = None

    def read_ahead(self, data: bytes) -> None:
        """Take bytes that somebody else has read from the socket; call it before the leg is connected.

        Raises UserError if they are more than the receive buffer holds.
        """
        self._buffer.append(data)

    def _start_upgrade(self) -> None:
        self._deadline = self._loop.call_later(self._options.open_timeout, self._upgrade_timed_out)

    def _receive_upgrade(self) -> bool:
        head = self._buffer.peek(HEAD_LIMIT)
        length = head.find(b"\r\n\r\n") + 4
        if length < 4:
            if len(head) >= HEAD_LIMIT:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request head has more than 16 KiB")
            return False
        self._buffer.consume(self._buffer.start + length)
        self._server.receive_data(head[:length])
        requests = [event for event in self._server.events_received() if isinstance(event, Request)]
        if requests:
            self._decide(requests[0])
        else:
            self._answer_malformed()
        return True

    def _upgrade_eof(self) -> None:
        reason = EndReason("connection_lost", "the peer ended the connection before the upgrade was done", None, "network")
        self._begin_closing(reason)

    def _upgrade_timed_out(self) -> None:
        self._deadline = None
        text = f"no complete request head in {self._options.open_timeout} s"
        self._refuse(HTTPStatus.REQUEST_TIMEOUT, text, reason="request_timeout")

    def _decide(self, request: Request) -> None:
        try:
            decision = self._route(request)
            headers = Headers(decision.headers)
            status = HTTPStatus(decision.status) if isinstance(decision, Refuse) else HTTPStatus.SWITCHING_PROTOCOLS
        except Exception as exc:  # noqa: BLE001 - a fault in the route is ours, and one client's; the server goes on
            self._loop.call_exception_handler({"message": "the route of a server raised", "exception": exc})
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error")
            return
        if isinstance(decision, Refuse):
            self._send_refusal(status, headers, decision.body)
            return
        self._wanted_subprotocol = decision.subprotocol
        response = self._server.accept(request)
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self._server.send_response(response)
            self._flush()
            self._fail_upgrade(Refused(response.status_code, "bad_upgrade", _text_of(response)))
            return
        response.headers.update(headers)
        self._listener = decision.listener
        self._server.send_response(response)
        self._flush()
        self._open()

    def _send_refusal(self, status: HTTPStatus, headers: Headers, body: bytes) -> None:
        headers.update({"Connection": "close", "Content-Length": str(len(body))})
        self._write_and_finish(Response(status.value, status.phrase, headers, body))
        self._fail_upgrade(Refused(status.value, "refused", f"the route answered {status.value}"))

    def _answer_malformed(self) -> None:
        """Answer a head that the protocol could not read: it has answered itself, or has only ended the stream."""
        frames = [frame for frame in self._server.data_to_send() if frame != SEND_EOF]
        if not frames:
            self._refuse(HTTPStatus.BAD_REQUEST, "not a valid HTTP/1.1 request head")
            return
        for frame in frames:
            self._writer.write(frame, Kind.CONTROL_FRAME)
        self._writer.finish()
        status = HTTPStatus(int(frames[0].split(b" ", 2)[1]))
        self._fail_upgrade(Refused(status.value, "bad_upgrade", status.phrase))

    def _refuse(self, status: HTTPStatus, text: str, reason: str = "bad_upgrade") -> None:
        self._write_and_finish(self._server.reject(status, text + "\n"))
        self._fail_upgrade(Refused(status.value, reason, text))

    def _write_and_finish(self, response: Response) -> None:
        """Send an answer that is no upgrade, past the protocol, which may have given up already."""
        self._writer.write(response.serialize(), Kind.CONTROL_FRAME)
        self._writer.finish()

    def _select_subprotocol(self, offered: Sequence[Subprotocol]) -> Subprotocol | None:
        return next((name for name in offered if name == self._wanted_subprotocol), None)


def _text_of(response: Response) -> str:
    return bytes(response.body).decode(errors="replace").strip()
