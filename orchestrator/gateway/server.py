"""The gateway without Ray: listens, reads request heads, decides, and hands sockets to session actors.

Everything happens in callbacks of one loop. A connection is the gateway's from accept to the answer or the hand-over; from
then on it is known only by what the node link says about its session. No other process is asked before a caller is answered.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from orchestrator.cluster.link_messages import GatewaySnapshot
from orchestrator.errors import EndReason, SettingsError
from orchestrator.gateway import twiml
from orchestrator.gateway.admission import Admission
from orchestrator.gateway.authentication import CarrierDoor, FrontDoor
from orchestrator.gateway.hand_over import ANSWER_WITHIN
from orchestrator.gateway.journal_desk import JournalDesk
from orchestrator.gateway.recovery_commands import RecoveryLimits
from orchestrator.gateway.request_body import MAX_BODY, parse_form
from orchestrator.gateway.routes import Destination, Route, find_route
from orchestrator.gateway.sessions import Sessions, try_later
from orchestrator.http_server.acceptor import Acceptor, listen
from orchestrator.http_server.answers import Refusal, Response
from orchestrator.http_server.connection import Connection, Stage
from orchestrator.http_server.request_body import body_length
from orchestrator.http_server.request_head import RequestHead
from orchestrator.settings import LOOPBACK, Settings
from orchestrator.stream_token import StreamTokens, with_token_secret
from orchestrator.telemetry import names
from orchestrator.telemetry.logs import get_logger
from orchestrator.telemetry.metrics import CONTENT_TYPE, RegistryMetrics

__all__ = ["GatewayServer"]

# Connections that the gateway still has in its hands. Beyond it the oldest goes: one that means well is done in milliseconds,
# so those that have waited longest are the ones that hold connections open on purpose.
MAX_CONNECTIONS: Final = 512  # Seconds that a new gateway tries to get an address that somebody has.
ADDRESS_WITHIN: Final = 10.0

_CALL_SID = re.compile(r"[A-Za-z0-9_-]{1,64}")

_log = get_logger()


class GatewayServer:
    """Listens from `start` until `close`. `sessions` is the listener of its node's links.

    `node` names the node in reports. `clock` gives Unix seconds. `answer_within` is how long (seconds) an actor may leave a
    caller that it was given without any answer. Without a `journal` nothing is kept of a call.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: RegistryMetrics,
        *,
        node: str = "local",
        max_connections: int = MAX_CONNECTIONS,
        clock: Callable[[], float] = time.time,
        answer_within: float = ANSWER_WITHIN,
        journal: JournalDesk | None = None,
        limits: RecoveryLimits | None = None,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._metrics = metrics
        self._node = node
        self._max_connections = max_connections
        self._clock = clock
        self._admission = Admission(settings.max_sessions)
        self.sessions = Sessions(
            settings,
            metrics,
            self._admission,
            journal=journal,
            clock=clock,
            answer_within=answer_within,
            on_listener=self._on_listener,
            limits=limits,
        )
        self._connections: dict[Connection, None] = {}  # in the order of arrival
        self._front_door = FrontDoor(settings.front_door_keys)
        self._tokens = StreamTokens(with_token_secret(settings).token_secret)
        self._acceptor: Acceptor | None = None
        self._address = ("", 0)
        self._carrier_door: CarrierDoor
        self._stream_url = ""
        self._refusals = 0
        self._incarnation = time.time_ns()
        self._reports = 0
        # A listening socket that an actor has kept, once it came.
        self._kept: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()
        self.failure: EndReason | None = None

    # Lifecycle.

    async def start(self, *, listener_within: float = 0.0) -> None:
        """Listen. Raises SettingsError when the address cannot be had or `public_url` is malformed.

        For `listener_within` seconds it waits for the listening socket of the gateway before it, which the session actors keep;
        that one is taken also later, as long as the address is taken.
        """
        settings = self._settings
        sock = await self._listening_socket(listener_within)
        try:
            self._address = (settings.host, sock.getsockname()[1])
            origins = self._origins()
            self._stream_url = re.sub("^http", "ws", origins[0]) + "/twilio/media"
            self._carrier_door = CarrierDoor(settings.twilio_auth_token, origins, open_without_token=settings.host in LOOPBACK)
            self._acceptor = Acceptor(sock, self._on_accept, self._on_accept_failure)
        except BaseException:
            sock.close()
            raise
        self.sessions.keep_listener(sock)
        _log.info("gateway_listening", host=self._address[0], port=self._address[1], node=self._node)

    async def _listening_socket(self, within: float) -> socket.socket:
        settings = self._settings
        await asyncio.wait({self._kept}, timeout=within)
        deadline = time.monotonic() + ADDRESS_WITHIN
        while not self._kept.done():
            try:
                return await listen(settings.host, settings.port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE or not within or time.monotonic() > deadline:
                    where = f"{settings.host}:{settings.port}"
                    raise SettingsError(
                        f"cannot listen on {where}: {error.strerror or error}; choose another host or port"
                    ) from None
            # An actor that is still to link to us holds it.
            await asyncio.wait({self._kept}, timeout=0.1)
        return self._kept.result()

    def _on_listener(self, sock: socket.socket) -> None:
        """Take the listening socket that an actor has kept, if there is none yet."""
        if self._kept.done() or self._acceptor is not None:
            sock.close()
        else:
            self._kept.set_result(sock)

    @property
    def address(self) -> tuple[str, int]:
        """The host as configured and the port that is listened on."""
        return self._address

    @property
    def ready(self) -> bool:
        """Whether a caller may be sent here."""
        return self.sessions.any_actor_answers and not self._admission.draining and self.failure is None

    def drain(self) -> None:
        """Admit nobody any more and tell the actors so; sessions go on. Idempotent."""
        if self._admission.draining:
            return
        self._admission.draining = True
        _log.info("gateway_draining", sessions=len(self.sessions.roster))
        self.sessions.drain()

    def close(self) -> None:
        """Stop listening and drop the connections that are still the gateway's; sessions are not touched. Idempotent."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        for connection in list(self._connections):
            connection.abort()
        self.sessions.close()
        self._kept.cancel()
        if self._kept.done() and not self._kept.cancelled():
            self._kept.result().close()

    def snapshot(self) -> GatewaySnapshot:
        """Describe the gateway for the supervisor."""
        self._reports += 1
        return GatewaySnapshot(
            node=self._node,
            incarnation=self._incarnation,
            sequence=self._reports,
            pid=os.getpid(),
            host=self._address[0],
            port=self._address[1],
            ready=self.ready,
            draining=self._admission.draining,
            max_sessions=self._admission.limit,
            handshakes=self._admission.handshakes,
            pending_heads=len(self._connections),
            starts=self.sessions.starts,
            ends=self.sessions.ends,
            refusals=self._refusals + self.sessions.refusals,
            sessions=self.sessions.roster.session_snapshots(),
            actors=self.sessions.roster.actor_snapshots(),
        )

    def _origins(self) -> tuple[str, ...]:
        """Return the public addresses of this gateway, the one to be told to others first."""
        host, port = self._address
        if self._settings.public_url is None:
            hosts = (host, *(other for other in ("127.0.0.1", "localhost") if host in LOOPBACK and other != host))
            return tuple(f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}" for name in hosts)
        try:
            parts = urlsplit(self._settings.public_url)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query
        except ValueError:
            valid = False
        if not valid:
            raise SettingsError("public_url must be an http(s) URL without query, such as https://voice.example.com")
        return (self._settings.public_url.rstrip("/"),)

    # The listening socket and the connections: ConnectionOwner.

    def _on_accept(self, sock: socket.socket, address: Any) -> None:
        accepted_at = time.monotonic()
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            return
        if len(self._connections) >= self._max_connections:
            self._evict(next(iter(self._connections)))
        connection = Connection(
            sock,
            f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}",
            accepted_at,
            self,
            head_limit=self._settings.request_head_limit,
            timeout=self._settings.request_head_timeout,
        )
        self._connections[connection] = None

    def _on_accept_failure(self, error: OSError) -> None:
        self.failure = EndReason("accept_failed", error.strerror or str(error), type(error).__name__, "infrastructure")

    def _evict(self, connection: Connection) -> None:
        # One that is answered already is counted already.
        if connection.stage in (Stage.HEAD, Stage.BODY):
            refusal = Refusal(status=503, code="too_many_pending", message="too many unfinished requests")
            self._count_refusal(connection, refusal)
        connection.abort()

    def on_connection_gone(self, connection: Connection) -> None:
        """Forget a connection that is answered, handed over or lost."""
        self._connections.pop(connection, None)

    def on_bad_request(self, connection: Connection, refusal: Refusal) -> None:
        """Answer a connection from which no complete request came."""
        self._refuse(connection, refusal)

    def on_head(self, connection: Connection, head: RequestHead) -> None:
        """Route a request whose head is complete."""
        route = find_route(head)
        if isinstance(route, Refusal):
            self._refuse(connection, route)
        elif route.takes_body:
            length = body_length(head, MAX_BODY)
            if isinstance(length, Refusal):
                self._refuse(connection, length)
            else:
                connection.read_body(head, length)
        elif route.channel is not None:
            self._admit(connection, head, route, route.channel)
        else:
            connection.answer(self._document(route.destination))

    def on_body(self, connection: Connection, head: RequestHead, body: bytes) -> None:
        """Answer the carrier, whose webhook is the only route with a body."""
        form = parse_form(head, body)
        refusal = form if isinstance(form, Refusal) else self._carrier_door.check_form(head, form)
        if isinstance(form, Refusal) or refusal is not None:
            self._refuse(connection, refusal)
            return
        call_sid = next((value for name, value in form if name == "CallSid"), "")
        if not _CALL_SID.fullmatch(call_sid):
            self._refuse(connection, Refusal(status=400, code="bad_form", message="the form has no CallSid", param="CallSid"))
            return
        full = self._no_room()
        if full is not None:
            self._count_refusal(connection, full)
            connection.answer(Response(body=twiml.reject_busy(), content_type=twiml.CONTENT_TYPE))
            return
        _log.info("call_announced", call_sid=call_sid, peer=connection.peer)
        document = twiml.connect_stream(self._stream_url, self._tokens.issue(call_sid, self._clock()))
        connection.answer(Response(body=document, content_type=twiml.CONTENT_TYPE))

    def _document(self, destination: Destination) -> Response:
        if destination is Destination.METRICS:
            self.sessions.refresh_gauges()
            if self._journal is not None:
                self._journal.refresh_gauges()
            return Response(body=self._metrics.render(), content_type=CONTENT_TYPE)
        if destination is Destination.READINESS and not self.ready:
            state = "draining" if self._admission.draining else "no session actor answers"
            return Response(status=503, body=f"{self.failure.code if self.failure else state}\n".encode())
        return Response(body=b"ok\n")

    def _refuse(self, connection: Connection, refusal: Refusal | None) -> None:
        if refusal is not None:
            self._count_refusal(connection, refusal)
            connection.answer(refusal.response())

    def _count_refusal(self, connection: Connection, refusal: Refusal) -> None:
        self._refusals += 1
        self._metrics.inc(names.REFUSALS_TOTAL, reason=refusal.code)
        head = connection.head
        # Without the query: it may hold what is meant for us alone.
        request = {} if head is None else {"method": head.method[:20], "path": head.path[:200]}
        _log.warning(
            "request_refused",
            reason=refusal.code,
            status=refusal.status,
            peer=connection.peer,
            detail=refusal.message,
            **request,
        )

    # Admission and hand-over.

    def _admit(self, connection: Connection, head: RequestHead, route: Route, channel: str) -> None:
        carrier = route.destination is Destination.TWILIO_MEDIA
        refusal = (
            (self._carrier_door.check_upgrade(head) if carrier else self._front_door.check(head))
            or (None if carrier else self._session_named(head))
            or self._no_room()
            or self.sessions.give(connection, channel)
        )
        self._refuse(connection, refusal)

    def _session_named(self, head: RequestHead) -> Refusal | None:
        """Refuse a request for a session by name: it is either not there, or has a caller."""
        session_id = head.query_value("session_id")
        if session_id is None:
            return None
        if self.sessions.roster.session(session_id) is None:
            return Refusal(status=404, code="session_not_found", message="there is no session with this id", param="session_id")
        return Refusal(status=409, code="session_busy", message="this session has a caller already", param="session_id")

    def _no_room(self) -> Refusal | None:
        if self._admission.draining:
            code, message = "draining", "this gateway is being shut down"
        elif self._admission.is_full:
            code, message = "capacity", "all session slots are taken"
        elif self.sessions.roster.choose() is None:
            code, message = "no_session_actor", "no session actor is free"
        else:
            return None
        return try_later(code, message)
