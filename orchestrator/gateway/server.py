"""The gateway without Ray: listens, reads request heads, decides, and hands sockets to session actors.

Everything happens in callbacks of one loop. A connection is the gateway's from accept to the answer or the hand-over; from
then on it is known only by what the node link says about its session. No other process is asked before a caller is answered.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import string
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from orchestrator.cluster.link_messages import (
    Adopt,
    Drain,
    Ended,
    EndSession,
    FromActor,
    GatewaySnapshot,
    Hello,
    JournalEntries,
    Refused,
    SessionStateChanged,
    Telemetry,
    Up,
)
from orchestrator.errors import EndReason, SettingsError, WireError
from orchestrator.gateway import twiml
from orchestrator.gateway.admission import Admission
from orchestrator.gateway.authentication import CarrierDoor, FrontDoor
from orchestrator.gateway.hand_over import ANSWER_WITHIN, HandOvers
from orchestrator.gateway.journal_desk import JournalDesk
from orchestrator.gateway.links import ActorLink
from orchestrator.gateway.request_body import MAX_BODY, parse_form
from orchestrator.gateway.roster import Actor, Roster, Session
from orchestrator.gateway.routes import Destination, Route, find_route
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

__all__ = ["GatewayServer", "new_session_id"]

# Connections that the gateway still has in its hands. Beyond it the oldest goes: one that means well is done in milliseconds,
# so those that have waited longest are the ones that hold connections open on purpose.
MAX_CONNECTIONS: Final = 512
RETRY_AFTER: Final = 5

_BASE62: Final = string.digits + string.ascii_letters
_CALL_SID = re.compile(r"[A-Za-z0-9_-]{1,64}")

_log = get_logger()


def new_session_id() -> str:
    """Return an id that cannot be guessed: 21 characters of base62 are 125 bits."""
    number, characters = secrets.randbelow(62**21), []
    for _ in range(21):
        number, digit = divmod(number, 62)
        characters.append(_BASE62[digit])
    return "sess_" + "".join(characters)


class GatewayServer:
    """Listens from `start` until `close`; is the listener of its node's links.

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
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._metrics = metrics
        self._node = node
        self._max_connections = max_connections
        self._clock = clock
        self._admission = Admission(settings.max_sessions)
        self._roster = Roster()
        self._hand_overs = HandOvers(self._on_silence, answer_within)
        self._connections: dict[Connection, None] = {}  # in the order of arrival
        self._front_door = FrontDoor(settings.front_door_keys)
        self._tokens = StreamTokens(with_token_secret(settings).token_secret)
        self._acceptor: Acceptor | None = None
        self._address = ("", 0)
        self._carrier_door: CarrierDoor
        self._stream_url = ""
        self._counts = {"starts": 0, "ends": 0, "refusals": 0}
        self._incarnation = time.time_ns()
        self._reports = 0
        self._states_shown: set[str] = set()
        self.failure: EndReason | None = None

    # Lifecycle.

    async def start(self) -> None:
        """Listen. Raises SettingsError when the address cannot be had or `public_url` is malformed."""
        settings = self._settings
        try:
            sock = await listen(settings.host, settings.port)
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; choose another host or port"
            ) from None
        try:
            self._address = (settings.host, sock.getsockname()[1])
            origins = self._origins()
            self._stream_url = re.sub("^http", "ws", origins[0]) + "/twilio/media"
            self._carrier_door = CarrierDoor(settings.twilio_auth_token, origins, open_without_token=settings.host in LOOPBACK)
            self._acceptor = Acceptor(sock, self._on_accept, self._on_accept_failure)
        except BaseException:
            sock.close()
            raise
        _log.info("gateway_listening", host=self._address[0], port=self._address[1], node=self._node)

    @property
    def address(self) -> tuple[str, int]:
        """The host as configured and the port that is listened on."""
        return self._address

    @property
    def ready(self) -> bool:
        """Whether a caller may be sent here."""
        return any(not actor.silent for actor in self._roster.actors) and not self._admission.draining and self.failure is None

    def drain(self) -> None:
        """Admit nobody any more and tell the actors so; sessions go on. Idempotent."""
        if self._admission.draining:
            return
        self._admission.draining = True
        _log.info("gateway_draining", sessions=len(self._roster))
        for actor in list(self._roster.actors):
            actor.link.send(Drain())

    def close(self) -> None:
        """Stop listening and drop the connections that are still the gateway's; sessions are not touched. Idempotent."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        for connection in list(self._connections):
            connection.abort()
        self._hand_overs.close()

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
            starts=self._counts["starts"],
            ends=self._counts["ends"],
            refusals=self._counts["refusals"],
            sessions=self._roster.session_snapshots(),
            actors=self._roster.actor_snapshots(),
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
            self._refresh_gauges()
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
        self._counts["refusals"] += 1
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
            or self._hand_over(connection, channel)
        )
        self._refuse(connection, refusal)

    def _session_named(self, head: RequestHead) -> Refusal | None:
        """Refuse a request for a session by name: it is either not there, or has a caller."""
        session_id = head.query_value("session_id")
        if session_id is None:
            return None
        if self._roster.session(session_id) is None:
            return Refusal(status=404, code="session_not_found", message="there is no session with this id", param="session_id")
        return Refusal(status=409, code="session_busy", message="this session has a caller already", param="session_id")

    def _no_room(self) -> Refusal | None:
        if self._admission.draining:
            code, message = "draining", "this gateway is being shut down"
        elif self._admission.is_full:
            code, message = "capacity", "all session slots are taken"
        elif self._roster.choose() is None:
            code, message = "no_session_actor", "no session actor is free"
        else:
            return None
        return _try_later(code, message)

    def _hand_over(self, connection: Connection, channel: str) -> Refusal | None:
        """Give the socket and all bytes read from it to an actor. On a refusal the connection is still the gateway's."""
        try:
            duplicate = connection.duplicate()
        except OSError:
            return _try_later("out_of_descriptors", "too many connections are open")
        session_id = new_session_id()
        message = Adopt(session_id, channel, connection.received, connection.peer, connection.accepted_at)
        self._admission.reserve(session_id)
        connection.pause()
        tried: list[Actor] = []
        try:
            while (actor := self._roster.choose(tried)) is not None:
                if actor.link.offer(message, connection.fileno()):
                    connection.release()
                    self._hand_overs.begin(session_id, duplicate)
                    self._roster.give(session_id, channel, actor, connection.peer, self._clock())
                    _log.info(
                        "session_given", session_id=session_id, channel=channel, actor_id=actor.actor_id, peer=connection.peer
                    )
                    return None
                tried.append(actor)
            refusal = _try_later("no_session_actor", "no session actor takes sessions")
        except WireError:
            refusal = Refusal(status=431, code="head_too_large", message="the request head is too large")
        duplicate.close()
        self._admission.release(session_id)
        connection.resume()
        return refusal

    def _on_silence(self, session_id: str) -> None:
        """Turn away a caller whose actor did not answer in time, and give that actor no others until it says something."""
        session = self._roster.session(session_id)
        if session is None:
            self._hand_overs.settle(session_id)
            return
        session.actor.silent = True
        # Should it wake up, it finds the caller gone; where its link takes no more, it finds out by itself.
        session.actor.link.offer(EndSession(session_id, _ACTOR_SILENT))
        self._roster.end(session)
        self._hand_overs.refuse(session_id, _try_later(_ACTOR_SILENT.code, _ACTOR_SILENT.text))
        self._on_session_end(session, _ACTOR_SILENT)

    # What the node links say: GatewayLinkListener.

    def on_link_message(self, link: ActorLink, message: FromActor) -> None:
        """Take a message from a session actor."""
        sender = self._roster.actor_of(link)
        if sender is not None:
            sender.silent = False
        match message:
            case Hello():
                self._on_hello(link, message)
            case JournalEntries():
                if self._journal is not None:
                    self._journal.take(link, message)
            case Telemetry():
                if sender is not None:
                    self._metrics.merge(message.delta, source=sender.actor_id)
            case Up() | SessionStateChanged() | Ended() | Refused():
                session = self._roster.session_at(link, message.session_id)
                if session is not None:
                    self._on_session_message(session, message)
                else:
                    # Such as the end of a session that was counted as lost before.
                    _log.debug("message_of_unknown_session", session_id=message.session_id, kind=type(message).__name__)

    def _on_session_message(self, session: Session, message: Up | SessionStateChanged | Ended | Refused) -> None:
        match message:
            case Up() if not session.started:
                session.started = True
                self._hand_overs.settle(session.session_id)
                self._admission.bind(session.session_id)
                self._counts["starts"] += 1
                self._metrics.inc(names.SESSION_STARTS_TOTAL, channel=session.channel)
                self._metrics.observe(names.ACCEPT_SECONDS, message.accept_to_101_s)
            case Up():
                pass
            case SessionStateChanged():
                session.state = message.state
            case Ended() | Refused():
                if isinstance(message, Refused):
                    # The actor has only closed its descriptor.
                    self._hand_overs.refuse(session.session_id, _try_later(message.reason.code, "the session was not taken"))
                self._roster.end(session)
                self._on_session_end(session, message.reason)

    def on_link_lost(self, link: ActorLink, reason: EndReason) -> None:
        """Take the end of a link for the end of the actor, and so of its sessions."""
        if self._journal is not None:
            self._journal.link_lost(link)
        actor = self._roster.leave(link)
        if actor is None:
            return
        self._metrics.forget(actor.actor_id)
        _log.warning(
            "actor_lost", actor_id=actor.actor_id, actor_pid=actor.pid, sessions=len(actor.sessions), reason=reason.code
        )
        for session in actor.sessions.values():
            self._on_session_end(session, _ACTOR_DIED)

    def _on_hello(self, link: ActorLink, hello: Hello) -> None:
        lost = self._roster.join(link, hello, self._clock())
        for held in hello.sessions:
            self._admission.restore(held.session_id)
            self._hand_overs.settle(held.session_id)
        for session in lost:
            self._on_session_end(session, _ACTOR_DIED)
        _log.info("actor_linked", actor_id=hello.actor_id, actor_pid=hello.pid, seats=hello.seats, sessions=len(hello.sessions))
        if self._admission.draining:
            link.send(Drain())

    def _on_session_end(self, session: Session, reason: EndReason) -> None:
        """Count and log a session that is in the roster no more. One that never started was refused, not ended."""
        self._admission.release(session.session_id)
        self._hand_overs.settle(session.session_id)
        if session.started:
            self._counts["ends"] += 1
            self._metrics.inc(names.SESSION_ENDS_TOTAL, channel=session.channel, reason=reason.code)
        else:
            self._counts["refusals"] += 1
            self._metrics.inc(names.REFUSALS_TOTAL, reason=reason.code)
        _log.info(
            "session_ended" if session.started else "session_refused",
            session_id=session.session_id,
            channel=session.channel,
            actor_id=session.actor.actor_id,
            peer=session.peer,
            reason=reason.code,
            detail=reason.text,
            cause=reason.cause,
            by=reason.by,
        )

    def _refresh_gauges(self) -> None:
        if self._journal is not None:
            self._journal.refresh_gauges()
        states = self._roster.states()
        for state in {*states, *self._states_shown}:
            self._metrics.set(names.SESSIONS, states[state], state=state)
        self._states_shown = set(states)
        busy = self._roster.busy_actors()
        self._metrics.set(names.SESSION_ACTORS, busy, state="busy")
        self._metrics.set(names.SESSION_ACTORS, len(list(self._roster.actors)) - busy, state="free")


_ACTOR_SILENT: Final = EndReason("actor_silent", "the session actor did not answer in time", by="infrastructure")
_ACTOR_DIED: Final = EndReason("actor_died", "the session actor's process ended", by="infrastructure")


def _try_later(code: str, message: str) -> Refusal:
    return Refusal(status=503, code=code, message=f"{message}; try again later", retry_after=RETRY_AFTER)
