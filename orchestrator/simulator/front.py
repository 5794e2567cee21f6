"""The port of the offline endpoint: plain requests go to their handlers, upgrades become legs.

A plain request costs no task. An upgrade has one until its leg is open; from then on the leg runs on callbacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from orchestrator.errors import EndReason, LegClosedError, Refused
from orchestrator.http_server.acceptor import Acceptor
from orchestrator.http_server.answers import Refusal, Response
from orchestrator.http_server.connection import Connection, Stage
from orchestrator.http_server.request_body import body_length
from orchestrator.simulator.rest.routes import Match, RouteTable
from orchestrator.transports import LegListener, LegOptions, LegState, accept

if TYPE_CHECKING:
    from orchestrator.http_server.request_head import RequestHead
    from orchestrator.transports.server_leg import ServerLeg

__all__ = ["MAX_BODY", "Decision", "Front", "HangUp", "SocketOffer"]

HEAD_LIMIT: Final = 16 * 1024
# A session's settings with many tools are some ten kilobytes.
MAX_BODY: Final = 1024 * 1024
REQUEST_TIMEOUT: Final = 10.0
# Connections without a complete request. Beyond it the oldest goes: one that means well is done in milliseconds.
MAX_PENDING: Final = 512
_GOING_AWAY: Final = EndReason("going_away", "the server is going away")


class SocketOffer(msgspec.Struct, frozen=True):
    """Who takes an upgraded connection, and the subprotocol for it, if the client offers that.

    The upgrade is answered when `ready` is done, if that is given.
    """

    listener: LegListener
    subprotocol: str | None = None
    ready: Callable[[], Awaitable[None]] | None = None


class HangUp(msgspec.Struct, frozen=True):
    """The connection is closed without an answer."""


Decision: TypeAlias = SocketOffer | Refusal | HangUp | None
"""What becomes of a request whose head is known; None: it is a plain one, for the routes."""


class Front:
    """Owns the listening socket, the connections and the legs, until `aclose`.

    `upgrade` says what becomes of a request, by its head. Above `max_sessions` legs it is not asked about sockets: they are
    refused with 503. A failure of the listening socket that does not pass goes to the loop's exception handler.
    """

    def __init__(
        self,
        listener: socket.socket,
        routes: RouteTable,
        upgrade: Callable[[RequestHead], Decision],
        *,
        options: LegOptions,
        max_sessions: int,
    ) -> None:
        self._routes = routes
        self._upgrade = upgrade
        self._options = options
        self._max_sessions = max_sessions
        self._loop = asyncio.get_running_loop()
        self._connections: dict[Connection, None] = {}  # in the order of arrival
        self._matches: dict[Connection, Match] = {}
        self._opening: set[asyncio.Task[None]] = set()
        self._legs: set[ServerLeg] = set()
        self.port: int = listener.getsockname()[1]
        self._acceptor = Acceptor(listener, self._on_accept, self._on_accept_failure)

    @property
    def sessions(self) -> int:
        """How many sockets there are, unfinished upgrades included."""
        return len(self._opening) + len(self._legs)

    async def aclose(self) -> None:
        """Stop listening, drop plain connections, close every leg with 1001, and wait until all have ended.

        Takes a second longer than the legs' `close_timeout` at most.
        """
        self._acceptor.close()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # cancelled before its first step, a task would leave its socket open
        opening = list(self._opening)
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.close_timeout + 1):
                while legs := list(self._legs):
                    for leg in legs:
                        if leg.state is LegState.OPEN:
                            leg.close(1001, _GOING_AWAY.text)
                    await asyncio.gather(*(leg.wait_closed() for leg in legs))

    # --- ConnectionOwner ----------------------------------------------------------------------------------------------

    def on_head(self, connection: Connection, head: RequestHead) -> None:
        """Open a socket, answer at once, or read the body first."""
        offer = self._ask(head)
        if isinstance(offer, SocketOffer):
            self._open(connection, offer)
            return
        if isinstance(offer, HangUp):
            connection.abort()
            return
        found = offer.response() if isinstance(offer, Refusal) else self._routes.find(head)
        if isinstance(found, Response):
            connection.answer(found)
            return
        length = body_length(head, MAX_BODY, required=False)
        if isinstance(length, Refusal):
            connection.answer(length.response())
        elif length:
            self._matches[connection] = found
            connection.read_body(head, length)
        else:
            self._answer(connection, found, head, b"")

    def on_body(self, connection: Connection, head: RequestHead, body: bytes) -> None:
        """Answer a request that is complete."""
        self._answer(connection, self._matches[connection], head, body)

    def on_bad_request(self, connection: Connection, refusal: Refusal) -> None:
        """Answer a connection from which no complete request came."""
        connection.answer(refusal.response())

    def on_connection_gone(self, connection: Connection) -> None:
        """Forget a connection that is answered, upgraded or lost."""
        self._connections.pop(connection, None)
        self._matches.pop(connection, None)

    # --- Connections --------------------------------------------------------------------------------------------------

    def _on_accept(self, sock: socket.socket, address: Any) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            return
        if len(self._connections) >= MAX_PENDING:
            next(iter(self._connections)).abort()
        peer = f"{address[0]}:{address[1]}"
        connection = Connection(sock, peer, time.monotonic(), self, head_limit=HEAD_LIMIT, timeout=REQUEST_TIMEOUT)
        self._connections[connection] = None

    def _on_accept_failure(self, error: OSError) -> None:
        self._loop.call_exception_handler({"message": "the offline endpoint cannot accept any more", "exception": error})

    def _ask(self, head: RequestHead) -> Decision:
        if self.sessions >= self._max_sessions and head.wants_websocket:
            return Refusal(status=503, code="too_many_sessions", message="too many sessions are open", retry_after=1)
        return self._upgrade(head)

    def _answer(self, connection: Connection, match: Match, head: RequestHead, body: bytes) -> None:
        try:
            response = match.answer(head, body)
        except Exception as error:  # noqa: BLE001 - a fault in a handler is ours, and one client's; the server goes on
            self._loop.call_exception_handler({"message": "the handler of a request raised", "exception": error})
            response = Refusal(status=500, code="internal_error", message="internal error").response()
        if connection.stage is not Stage.GONE:
            connection.answer(response)

    # --- Legs ---------------------------------------------------------------------------------------------------------

    def _open(self, connection: Connection, offer: SocketOffer) -> None:
        received = connection.received
        opening = self._accept(connection.take(), received, offer)
        task = self._loop.create_task(opening, name="simulator upgrade")
        self._opening.add(task)
        task.add_done_callback(self._opened)

    async def _accept(self, sock: socket.socket, received: bytes, offer: SocketOffer) -> None:
        if offer.ready is not None:
            await self._wait(sock, offer.ready)
        try:
            leg = await accept(sock, received, offer.listener, options=self._options, subprotocol=offer.subprotocol)
        except (Refused, LegClosedError):
            return  # the client has its answer, or is gone
        self._legs.add(leg)
        # Counted once: the task itself is over only in a later turn of the loop.
        if (task := asyncio.current_task()) is not None:
            self._opening.discard(task)
        leg.when_closed(partial(self._legs.discard, leg))

    async def _wait(self, sock: socket.socket, ready: Callable[[], Awaitable[None]]) -> None:
        """Wait until the upgrade may be answered. A client that goes meanwhile ends its own upgrade."""
        task = asyncio.current_task()

        def look() -> None:
            try:
                gone = not sock.recv(1, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                gone = True
            # A client that does not wait for its answer before it sends is not looked after any more.
            self._loop.remove_reader(sock.fileno())
            if gone and task is not None:
                task.cancel()

        self._loop.add_reader(sock.fileno(), look)
        try:
            await ready()
        except BaseException:
            self._loop.remove_reader(sock.fileno())
            sock.close()
            raise
        self._loop.remove_reader(sock.fileno())

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "an upgrade failed", "exception": error, "task": task})
