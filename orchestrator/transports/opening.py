"""The three ways to get a leg: dial, take over an accepted socket, or go on with a connection that is open already.

Each returns an open leg. What the peer has sent by then may have reached the listener before the call returns, so a listener
that needs its leg takes it from `on_open`. When one of these raises, the listener has heard nothing and never will; only if
it is cancelled in the very moment in which the leg opens does the listener hear `on_open`, and then `on_closed`.
"""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Literal

from websockets.datastructures import Headers
from websockets.exceptions import InvalidHeader, InvalidURI
from websockets.uri import WebSocketURI, parse_uri

from orchestrator.errors import EndReason, LegClosedError, LegConnectError, UserError
from orchestrator.transports.base import DEFAULT_OPTIONS, LegListener, LegOptions
from orchestrator.transports.client_leg import ClientLeg
from orchestrator.transports.receive_buffer import ReceiveBuffer
from orchestrator.transports.server_leg import Accept, ServerLeg
from orchestrator.transports.session_page import SessionPage
from orchestrator.transports.surviving_leg import SurvivingLeg
from orchestrator.transports.websocket import WebSocketLeg

__all__ = ["accept", "connect", "resume"]


async def connect(
    url: str,
    listener: LegListener,
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: Sequence[str] = (),
    options: LegOptions = DEFAULT_OPTIONS,
    ssl_context: ssl.SSLContext | None = None,
    buffer: ReceiveBuffer | None = None,
) -> ClientLeg:
    """Dial `ws://` or `wss://` and upgrade, all within `open_timeout`.

    `wss://` verifies the endpoint against the system's authorities unless `ssl_context` says otherwise. Addresses are
    tried in the order of the resolver. Redirects are not followed, and proxies are not supported: the environment's proxy
    settings are ignored.

    Raises LegConnectError: with the HTTP status and the beginning of the body if the endpoint refused, without them if it
    could not be reached, did not speak WebSocket or took too long. Raises UserError for a URL or header that cannot be
    sent. Messages never hold the URL's path, query or a header. Cancelling closes the connection.
    """
    uri = _checked(url, headers or {})
    if uri.secure:
        ssl_context = ssl_context or _default_ssl_context()
    elif ssl_context is not None:
        raise UserError("ssl_context is given for a ws:// URL; use wss://")
    loop = asyncio.get_running_loop()
    leg: ClientLeg | None = None
    done = False
    where = f"{uri.host}:{uri.port}"
    try:
        async with asyncio.timeout(options.open_timeout):
            sock = await _open_socket(loop, uri.host, uri.port)
            leg = ClientLeg(
                listener,
                options=options,
                loop=loop,
                sock=sock,
                buffer=buffer,
                uri=uri,
                headers=headers,
                subprotocols=subprotocols,
            )
            await _connect_transport(loop, leg, sock, ssl_context, uri.host)
            await asyncio.shield(leg.opened)
        done = True
    except TimeoutError:
        status = None if leg is None else leg.status
        raise LegConnectError(f"no upgrade at {where} in {options.open_timeout} s", status or None) from None
    except (OSError, UnicodeError, LegClosedError) as exc:
        raise LegConnectError(f"cannot connect to {where}: {exc}") from exc
    finally:
        if leg is not None and not done:
            leg.abort(EndReason("upgrade_failed", "the upgrade was given up"))
    return leg


async def accept(
    sock: socket.socket,
    head: bytes,
    listener: LegListener,
    *,
    options: LegOptions = DEFAULT_OPTIONS,
    subprotocol: str | None = None,
    response_headers: Sequence[tuple[str, str]] = (),
    buffer: ReceiveBuffer | None = None,
    page: SessionPage | None = None,
) -> ServerLeg:
    """Answer the upgrade on an accepted socket, which the leg owns from now on, whatever happens.

    `head` is all that was read from the socket already: a part of the request head, all of it, or more. `subprotocol` is
    chosen only if the client offers it; `response_headers` are added to the 101.

    With a `page` the leg survives its process: who takes socket and page over asks `page.opened`, and calls `resume` if it is
    set. If it is not, no byte of an answer was ever written, and `accept` begins anew: what was received is in the page, so the
    `head` counts only the first time. The page replaces `buffer`, and its `outbound_bytes` bound what may wait, as
    `queue_limit` does. An upgrade that an earlier owner had refused ends with LegClosedError. Raises PageError if the page
    belongs to another connection or the connection is not one that the kernel counts.

    Raises Refused after the client has been sent a plain HTTP error: 400 or what the protocol finds fit for a request
    that is no upgrade, 408 if its head is not complete in `open_timeout`, 431 if it has more than 16 KiB. Raises
    LegClosedError if the connection ends before. Cancelling closes the connection.
    """
    loop = asyncio.get_running_loop()
    decision = Accept(listener, subprotocol, tuple(response_headers))
    leg: ServerLeg
    try:
        if page is None:
            leg = ServerLeg(lambda _: decision, options=options, loop=loop, sock=sock, buffer=buffer)
            leg.read_ahead(head)
        else:
            _check_page(page, buffer, opened=False)
            leg = SurvivingLeg(page, decision, options=options, loop=loop, sock=sock, head=head)
    except BaseException:
        sock.close()
        raise
    await _adopt(loop, leg, sock)
    return leg


async def resume(
    sock: socket.socket,
    listener: LegListener,
    *,
    side: Literal["client", "server"],
    options: LegOptions = DEFAULT_OPTIONS,
    buffer: ReceiveBuffer | None = None,
    page: SessionPage | None = None,
) -> WebSocketLeg:
    """Go on with a connection whose upgrade is done and which has no owner any more; the leg owns the socket from now on.

    `side` is our side of the connection. `buffer` holds what the earlier owner received and did not handle: bytes that
    start where a message starts. Without it, the next byte on the socket must be the first of a message.

    With a `page`, of a leg that was accepted with it and is `opened`, the earlier owner may have stopped anywhere: each message
    that it did not finish is heard again, what it had committed to send is sent, and nothing else is lost or doubled. The
    earlier owner must be gone: its process dead, or its leg detached. A leg that had begun to close goes on closing: the
    listener gets it from `on_open` as such, and then hears `on_closed`.

    Raises LegClosedError if the connection has ended, PageError as `accept` does. Cancelling closes the connection.
    """
    loop = asyncio.get_running_loop()
    leg: WebSocketLeg
    try:
        if page is not None:
            _check_page(page, buffer, opened=True, side=side)
            leg = SurvivingLeg(page, Accept(listener), options=options, loop=loop, sock=sock)
        elif side == "client":
            leg = ClientLeg(listener, options=options, loop=loop, sock=sock, buffer=buffer, resumed=True)
        else:
            decision = Accept(listener)
            leg = ServerLeg(
                lambda _: decision, options=options, loop=loop, sock=sock, buffer=buffer, resumed=True, listener=listener
            )
    except BaseException:
        sock.close()
        raise
    await _adopt(loop, leg, sock)
    return leg


def _check_page(page: SessionPage, buffer: ReceiveBuffer | None, *, opened: bool, side: str = "server") -> None:
    if side == "client":
        raise UserError("a page holds the leg of a caller, where our side is the server")
    if buffer is not None:
        raise UserError("a page has its own receive buffer; give one or the other")
    if page.opened is not opened:
        raise UserError(f"the leg of this page is {'not ' * opened}open; use {'accept' if opened else 'resume'}")


def _checked(url: str, headers: Mapping[str, str]) -> WebSocketURI:
    """Parse the URL, and check that the headers can be sent, without repeating either in an error: both may hold keys."""
    try:
        uri = parse_uri(url)
    except (InvalidURI, ValueError):
        raise UserError("not a ws:// or wss:// URL with a host") from None
    for name, value in headers.items():
        try:
            Headers()[name] = value
        except InvalidHeader:
            raise UserError(f"the value of the header {name!r} has characters that a header may not have") from None
    return uri


@functools.cache
def _default_ssl_context() -> ssl.SSLContext:
    # Loading the authorities takes tens of milliseconds of the loop's time: once per process is enough.
    return ssl.create_default_context()


async def _open_socket(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    """Connect to the first address of the host that answers; raise the last OSError if none does."""
    failure = OSError("the host has no address")
    for family, kind, proto, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as exc:
            sock.close()
            failure = exc
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


async def _connect_transport(
    loop: asyncio.AbstractEventLoop, leg: WebSocketLeg, sock: socket.socket, ssl_context: ssl.SSLContext | None, host: str
) -> None:
    try:
        await loop.create_connection(
            lambda: leg, sock=sock, ssl=ssl_context, server_hostname=host if ssl_context is not None else None
        )
    except BaseException:
        sock.close()
        raise


async def _adopt(loop: asyncio.AbstractEventLoop, leg: WebSocketLeg, sock: socket.socket) -> None:
    try:
        await loop.connect_accepted_socket(lambda: leg, sock)
    except OSError as exc:
        sock.close()
        raise LegClosedError(EndReason("connection_lost", "the socket was dead", type(exc).__name__, "network")) from exc
    except BaseException:
        sock.close()
        raise
    try:
        await asyncio.shield(leg.opened)
    except asyncio.CancelledError:
        leg.abort(EndReason("upgrade_failed", "the upgrade was given up"))
        raise
