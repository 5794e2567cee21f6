"""The part of a model that lets its conversation outlive its connection.

`Renewer` makes connections, `CarryOver` knows what a new one must be told, `ModelSession` goes on over all of them; this puts
the three together and decides what of a connection's traffic the session and the caller see.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

import msgspec

from orchestrator.core.caller_audio import CallerAudio
from orchestrator.core.commands import Emit, ModelCommand, Rewrite
from orchestrator.core.endpoint_pool import Endpoint, EndpointPool
from orchestrator.core.events import (
    RealtimeModelEvent,
    RealtimeModelItemDeletedEvent,
    RealtimeModelRenewedEvent,
    RealtimeModelRenewingEvent,
    RealtimeModelResponseLostEvent,
)
from orchestrator.core.items import RealtimeItem
from orchestrator.core.model_session import ModelSession
from orchestrator.core.renewal import RenewalState
from orchestrator.core.renewal_faults import is_fatal
from orchestrator.core.unanswered import Wish
from orchestrator.errors import EndReason, UserError
from orchestrator.realtime.carry_over import SETTINGS_AGAIN, CarryOver
from orchestrator.realtime.connection import ConnectionOwner, ModelConnection
from orchestrator.realtime.renewing import ModelRenewal, Renewer, Target
from orchestrator.wire import realtime as wire
from orchestrator.wire import realtime_client as client
from orchestrator.wire import realtime_server as server

__all__ = ["LinkHost", "RenewedLink", "Seen", "new_item_id", "only_endpoint"]

_EXPIRED = "session_expired"
_ONLY = "model"
RECOVERED = "recovered"


class Seen(Enum):
    """Who sees an event of the server."""

    BY_ALL = "by all"
    # The answer to something that a new connection was told: the session and the books, not the caller.
    BY_US = "by us"
    BY_NOBODY = "by nobody"


class LinkHost(ConnectionOwner, Protocol):
    """The model."""

    async def dial_target(self, target: Target, connection: ModelConnection) -> None:
        """Open a leg for the connection."""

    def use(self, connection: ModelConnection | None) -> None:
        """Send over this connection from now on; over none while there is none."""

    def emit(self, event: RealtimeModelEvent) -> None:
        """Report an event to the listeners."""

    def perform(self, commands: list[ModelCommand]) -> None:
        """Perform commands of the session."""

    def report(self, event: server.ServerEvent) -> None:
        """Tell the caller what no server tells it."""

    def response_lost(self) -> None:
        """Tell the caller, if it speaks the same protocol, that the response under way is over."""

    def gone(self, code: str) -> None:
        """There will be no connection any more."""


def new_item_id() -> str:
    """Return an id for an item, as an endpoint would name it."""
    return f"item_{secrets.token_hex(12)}"


def only_endpoint(target: Target) -> ModelRenewal:
    """Return the renewal of a program that names one endpoint and has no pool."""
    return ModelRenewal(EndpointPool([Endpoint(_ONLY)], lambda: secrets.randbelow(1 << 20) / (1 << 20)), {_ONLY: target})


class RenewedLink:
    """One conversation over many connections. Belongs to the loop of its model."""

    def __init__(
        self,
        host: LinkHost,
        renewal: ModelRenewal,
        session: ModelSession,
        history: Callable[[], Sequence[RealtimeItem]],
        audio: CallerAudio,
    ) -> None:
        self.carry = CarryOver(audio, history)
        self.renewer = Renewer(renewal, self)
        # Frames that earlier connections did not take in time.
        self.dropped_before = 0
        self._host = host
        self._targets = renewal.targets
        self._session = session
        self._history = history
        self._connection: ModelConnection | None = None
        self._lost_at = 0.0
        self._update_ids = 0

    @property
    def model_name(self) -> str | None:
        """What the endpoint in use calls the model, where it is known."""
        return None if self._connection is None else self._targets[self._connection.endpoint].model

    @property
    def going_on(self) -> bool:
        """Is there a connection, or will there be one?"""
        return self.renewer.state not in (RenewalState.FAILED, RenewalState.CLOSED)

    async def open(self) -> ModelConnection:
        """Open the first connection; raises what `Renewer.first` raises."""
        connection = await self.renewer.first()
        self.renewer.in_use(connection)
        self._use(connection)
        return connection

    async def open_again(self) -> None:
        """Open a connection for a conversation that began in another process, and tell it of everything.

        A caller waits who was in the conversation already, so it is tried as long as for a connection that was lost. Raises as
        `open`.
        """
        self._lost_at = self._now()
        self.take(await self.renewer.first(again=True), RECOVERED)

    def renew(self, cause: str) -> None:
        """Replace the connection at the next quiet moment."""
        self.renewer.demand(cause)

    async def aclose(self) -> None:
        """Give the connection back, and make no more."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self.renewer.ended(connection)
        await self.renewer.aclose()

    # --- What goes out and what comes in ------------------------------------------------------------------------------

    def sending(self, event: client.ClientEvent) -> client.ClientEvent:
        """Take note of a client event that is about to be sent, or would be; returns it with the id that it needs."""
        if isinstance(event, client.SessionUpdate):
            if not isinstance(event.event_id, str):
                self._update_ids += 1
                event = msgspec.structs.replace(event, event_id=f"orchestrator_update_{self._update_ids}")
            self._note_update()
        self.carry.sent(event)
        if isinstance(event, client.SessionUpdate | client.InputAudioBufferCommit):
            self._session.answers_turns = self.carry.rules.answers
        return event

    def settings_sent(self, event_id: str, session: Mapping[str, Any]) -> None:
        """Take note of settings that are about to be sent, or would be."""
        self._note_update()
        self.carry.settings_sent(event_id, session)
        self._session.answers_turns = self.carry.rules.answers

    def refuse_when_full(self) -> None:
        """Raise UserError while there is no connection and no room for what waits for one."""
        if self._connection is None and self.carry.unanswered.full:
            raise UserError("the model is being reconnected and too much waits for it: send this again later")

    def screen(self, connection: ModelConnection, event: Any) -> Seen:
        """Take note of an event of the connection in use, and say who sees it."""
        kind = type(event)
        if kind is server.SessionUpdated:
            private = bool(connection.updates) and connection.updates.popleft()
            if not private:
                self.carry.settings.confirm_oldest()
            return Seen.BY_US if private else Seen.BY_ALL
        if kind is server.ResponseDone:
            details = event.response.status_details
            code = getattr(getattr(details, "error", None), "code", None)
            if is_fatal(code if isinstance(code, str) else None):
                self._drop(connection, code)
                return Seen.BY_NOBODY
            return Seen.BY_ALL
        if kind not in self.carry.concerns:
            return Seen.BY_ALL
        if kind is server.ErrorEvent and self._ends(connection, event):
            return Seen.BY_NOBODY
        private = self._session.is_private(event)
        self.carry.received(event)
        return Seen.BY_US if private else Seen.BY_ALL

    def as_the_caller_counts(self, event: Any) -> Any:
        """Return an event with positions on the line of all the caller's audio, not of this connection's."""
        offset = self.carry.offset_ms
        match event:
            case server.InputAudioBufferSpeechStarted(audio_start_ms=start):
                return msgspec.structs.replace(event, audio_start_ms=start + offset)
            case server.InputAudioBufferSpeechStopped(audio_end_ms=end):
                return msgspec.structs.replace(event, audio_end_ms=end + offset)
            case server.InputAudioBufferTimeoutTriggered(audio_start_ms=start, audio_end_ms=end):
                return msgspec.structs.replace(event, audio_start_ms=start + offset, audio_end_ms=end + offset)
            case _:
                return event

    def rewrite(self, command: Rewrite) -> None:
        """Tell the model anew of an item that it was told of."""
        connection = self._connection
        if connection is not None:
            body = self.carry.body_of(command.item_id)
            for event in connection.replica.rewrite(command.item_id, body):
                if connection.leg is not None:
                    connection.leg.send_text(msgspec.json.encode(event))
            if body is None:
                self._host.emit(RealtimeModelItemDeletedEvent(command.item_id))
        self._host.report(
            server.ConversationItemTruncated(
                item_id=command.item_id, content_index=command.content_index, audio_end_ms=command.audio_end_ms
            )
        )

    def lost(self, connection: ModelConnection) -> None:
        """The connection in use has ended; another one is made."""
        now = self._now()
        self._lost_at = now
        self._count_dropped(connection)
        self.renewer.ended(connection)
        self._connection = None
        self._host.use(None)
        fault = connection.fault
        # Before anybody is told: who hears of it may end the session.
        self.renewer.lost(fault)
        self._suspend(now)
        self._host.emit(RealtimeModelRenewingEvent(fault.code))

    # --- RenewingOwner ------------------------------------------------------------------------------------------------

    def new_connection(self, endpoint: str) -> ModelConnection:
        """Make the listener of a connection."""
        return ModelConnection(self._host, endpoint)

    async def dial_target(self, target: Target, connection: ModelConnection) -> None:
        """Open a leg for the connection."""
        await self._host.dial_target(target, connection)

    def prepare(self, connection: ModelConnection) -> None:
        """Tell a connection that will be taken later what is known by now."""
        self.carry.tell(connection)

    def is_quiet(self) -> bool:
        """Would nobody notice if another connection were taken now?"""
        carry = self.carry
        busy = carry.audio.speaking or carry.audio.unheard or carry.transcribing is not None
        return not busy and self._session.is_quiet(self._now())

    def take(self, connection: ModelConnection, cause: str) -> None:
        """Use this connection from now on, and let go of the one before it."""
        now = self._now()
        old = self._connection
        if old is not None:
            quiet = self.is_quiet()
            old.in_use = False
            self._count_dropped(old)
            self.renewer.retire(old)
            self._suspend(now)
            if not quiet:
                self._host.emit(RealtimeModelRenewingEvent(cause))
        seconds = 0.0 if old is not None else now - self._lost_at
        self.renewer.in_use(connection)
        self._use(connection)
        carry = self.carry
        bodies = carry.tell(connection)
        known = {body["id"] for body in bodies}
        settled = carry.go_on(connection, known)
        carry.transcribing = None
        commands = self._session.resume(connection.replica, bodies, now)
        for data in connection.kept:
            self._host.on_message(connection, data)
        self._host.emit(RealtimeModelRenewedEvent(seconds, cause, tuple(known)))
        self._answer(settled)
        self._host.perform(commands)

    def lose(self, code: str) -> None:
        """There will be no connection any more."""
        self._host.gone(code)

    # --- Inside -------------------------------------------------------------------------------------------------------

    def _use(self, connection: ModelConnection) -> None:
        self._connection = connection
        connection.in_use = True
        self._host.use(connection)

    def _suspend(self, now: float) -> None:
        """Bring the conversation to a state that a new connection can go on from."""
        self._host.response_lost()
        self.carry.audio.lost()
        commands = self._session.lost(now)
        self._host.perform(commands)
        begun: tuple[str, ...] = ()
        for command in commands:
            if isinstance(command, Emit) and isinstance(command.event, RealtimeModelResponseLostEvent):
                begun = command.event.item_ids
        if begun:
            left = {item.item_id for item in self._history()}
            for item_id in begun:
                if item_id not in left:
                    self._host.report(server.ConversationItemDeleted(item_id=item_id))

    def _answer(self, settled: Sequence[Wish]) -> None:
        """Give the answers that are known without asking the new connection."""
        for _ in range(self.carry.take_clears()):
            self._host.report(server.InputAudioBufferCleared())
        for wish in settled:
            match wish:
                case client.ConversationItemTruncate(item_id=item_id, content_index=index, audio_end_ms=end):
                    self._host.report(server.ConversationItemTruncated(item_id=item_id, content_index=index, audio_end_ms=end))
                case client.ConversationItemDelete(item_id=item_id):
                    self._host.emit(RealtimeModelItemDeletedEvent(item_id))
                    self._host.report(server.ConversationItemDeleted(item_id=item_id))
                case _:
                    pass

    def _ends(self, connection: ModelConnection, event: wire.ErrorEvent) -> bool:
        """Does the server say that it will end the connection, or that it is of no use?"""
        code, event_id = event.error.code, event.error.event_id
        if event_id == SETTINGS_AGAIN:
            code = "settings_refused"
        elif event_id is not None and any(event_id == known for known, _ in self.carry.settings.waiting):
            if False in connection.updates:
                connection.updates.remove(False)
            return False
        connection.error_code = code
        if is_fatal(code):
            self._drop(connection, code)
            return True
        return code == _EXPIRED

    def _drop(self, connection: ModelConnection, code: str | None) -> None:
        """Go on elsewhere, without waiting for the server to end it."""
        connection.error_code = code
        connection.in_use = False
        if connection.leg is not None:
            connection.leg.abort(EndReason("model_fault", "the endpoint is of no use to this session", code, "model"))
        self.lost(connection)

    def _note_update(self) -> None:
        if self._connection is not None:
            self._connection.updates.append(False)

    def _count_dropped(self, connection: ModelConnection) -> None:
        if connection.leg is not None:
            self.dropped_before += connection.leg.statistics().messages_dropped

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
