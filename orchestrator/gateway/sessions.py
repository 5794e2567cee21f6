"""The sessions that this gateway gave away: who has them, what is held of their callers, and what the node links say of them.

A connection becomes a session in `give`. From then on the gateway touches no byte of it; it keeps what another actor needs to
go on with it, and hears of it over the node links.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import string
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final

from orchestrator.cluster.link_messages import (
    Adopt,
    Drain,
    Ended,
    EndSession,
    FromActor,
    Hello,
    JournalEntries,
    ListenerKept,
    Recover,
    Recovered,
    Refused,
    Released,
    SessionHeld,
    SessionStateChanged,
    StateParcel,
    Telemetry,
    Up,
)
from orchestrator.cluster.link_messages import Release as ReleaseSession
from orchestrator.errors import EndReason, PageError, WireError
from orchestrator.gateway.admission import Admission
from orchestrator.gateway.callers import Caller, Callers
from orchestrator.gateway.freezing import AskDump, FreezeCommand, FreezeDetector, KillFrozen, Suspect, Trust
from orchestrator.gateway.hand_over import HandOvers
from orchestrator.gateway.journal_desk import JournalDesk
from orchestrator.gateway.links import ActorLink
from orchestrator.gateway.processes import Processes
from orchestrator.gateway.recovery import Recovery, Stage
from orchestrator.gateway.recovery_commands import (
    Claim,
    EndCaller,
    Forget,
    Hold,
    Kill,
    Offer,
    RecoveryCommand,
    RecoveryLimits,
    Release,
)
from orchestrator.gateway.roster import Actor, Roster, Session
from orchestrator.http_server.answers import Refusal
from orchestrator.http_server.connection import Connection
from orchestrator.journal.parcels import state_parcels
from orchestrator.journal.state import CallState
from orchestrator.settings import Settings
from orchestrator.telemetry import names
from orchestrator.telemetry.logs import get_logger
from orchestrator.telemetry.metrics import RegistryMetrics
from orchestrator.transports.session_page import SessionPage

__all__ = ["Sessions", "new_session_id", "try_later"]

RETRY_AFTER: Final = 5
# Of a session's page, bytes: what a caller that does not read may leave waiting, what it said since its last turn (30 s of
# the largest format), and what its channel must remember. Only what is used costs memory.
OUTBOUND_BYTES: Final = 1024 * 1024
AUDIO_BYTES: Final = 2 * 1024 * 1024
SNAPSHOT_BYTES: Final = 256 * 1024
# Seconds between two looks at the heartbeats of the session actors.
LOOK_EVERY: Final = 0.25

_BASE62: Final = string.digits + string.ascii_letters
_ACTOR_SILENT: Final = EndReason("actor_silent", "the session actor did not answer in time", by="infrastructure")

_log = get_logger()


def new_session_id() -> str:
    """Return an id that cannot be guessed: 21 characters of base62 are 125 bits."""
    number, characters = secrets.randbelow(62**21), []
    for _ in range(21):
        number, digit = divmod(number, 62)
        characters.append(_BASE62[digit])
    return "sess_" + "".join(characters)


def try_later(code: str, message: str) -> Refusal:
    """Return a refusal that may be another answer in a few seconds."""
    return Refusal(status=503, code=code, message=f"{message}; try again later", retry_after=RETRY_AFTER)


class Sessions:
    """The listener of the node links. `on_listener` is given a listening socket that an actor kept for a former gateway."""

    def __init__(
        self,
        settings: Settings,
        metrics: RegistryMetrics,
        admission: Admission,
        *,
        journal: JournalDesk | None,
        clock: Callable[[], float],
        answer_within: float,
        on_listener: Callable[[socket.socket], None],
        limits: RecoveryLimits | None = None,
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._admission = admission
        self._journal = journal
        self._clock = clock
        self._on_listener = on_listener
        self.roster = Roster()
        self._callers = Callers()
        self._hand_overs = HandOvers(self._on_silence, answer_within)
        self._recovery = Recovery(limits)
        self._freezes = FreezeDetector()
        self._processes = Processes(self._on_gone)
        self._loop = asyncio.get_running_loop()
        self._look = self._loop.call_later(LOOK_EVERY, self._look_at_beats)
        self._due: asyncio.TimerHandle | None = None
        # When the owners of sessions that are being recovered were found to be gone.
        self._lost_at: dict[str, float] = {}
        # The listening socket, for actors that come later.
        self._listener: socket.socket | None = None
        self._states_shown: set[str] = set()
        self.starts = 0
        self.ends = 0
        self.refusals = 0

    @property
    def any_actor_answers(self) -> bool:
        """Whether a caller can be given to an actor that is known to work."""
        return any(not actor.silent for actor in self.roster.actors)

    def keep_listener(self, listener: socket.socket) -> None:
        """Let every actor hold the listening socket too, so that the port outlives this process."""
        self._listener = listener
        for actor in self.roster.actors:
            self._give_listener(actor.link)

    def drain(self) -> None:
        """Tell the actors that no more sessions will come."""
        self._listener = None
        for actor in list(self.roster.actors):
            actor.link.send(Drain())

    def close(self) -> None:
        """Leave all sessions to their actors. Idempotent."""
        self._look.cancel()
        if self._due is not None:
            self._due.cancel()
        self._processes.close()
        self._hand_overs.close()
        self._callers.close()

    def give(self, connection: Connection, channel: str) -> Refusal | None:
        """Give the socket and all bytes read from it to an actor. On a refusal the connection is still the gateway's."""
        session_id = new_session_id()
        message = Adopt(session_id, channel, connection.received, connection.peer, connection.accepted_at)
        try:
            page = self._new_page(channel)
            try:
                caller = Caller(message, connection.duplicate(), page)
            except OSError:
                page.close()
                raise
        except (OSError, PageError):
            return try_later("out_of_descriptors", "too many connections are open")
        self._admission.reserve(session_id)
        connection.pause()
        tried: list[Actor] = []
        try:
            while (actor := self.roster.choose(tried)) is not None:
                if _offer(actor.link, message, connection.fileno(), caller.page):
                    connection.release()
                    self._callers.keep(caller)
                    self._hand_overs.begin(session_id)
                    self.roster.give(session_id, channel, actor, connection.peer, self._clock())
                    self._perform(self._recovery.given(session_id, actor.actor_id, Hold.SOCKET, self._loop.time()))
                    _log.info(
                        "session_given", session_id=session_id, channel=channel, actor_id=actor.actor_id, peer=connection.peer
                    )
                    return None
                tried.append(actor)
            refusal = try_later("no_session_actor", "no session actor takes sessions")
        except WireError:
            refusal = Refusal(status=431, code="head_too_large", message="the request head is too large")
        except OSError:
            refusal = try_later("out_of_descriptors", "too many connections are open")
        caller.close()
        self._admission.release(session_id)
        connection.resume()
        return refusal

    def _new_page(self, channel: str) -> SessionPage:
        """Make the page of a new session. Raises PageError."""
        settings = self._settings
        most = settings.twilio_max_message if channel == "twilio" else settings.caller_max_message
        return SessionPage.create(
            max_message=most, outbound_bytes=OUTBOUND_BYTES, audio_bytes=AUDIO_BYTES, snapshot_bytes=SNAPSHOT_BYTES
        )

    def _on_silence(self, session_id: str) -> None:
        """Turn away a caller whose actor did not answer in time, and give that actor no others until it says something."""
        session = self.roster.session(session_id)
        if session is None:
            return
        session.actor.silent = True
        # Should it wake up, it finds the caller gone; where its link takes no more, it finds out by itself.
        session.actor.link.offer(EndSession(session_id, _ACTOR_SILENT))
        self._callers.refuse(session_id, try_later(_ACTOR_SILENT.code, _ACTOR_SILENT.text))
        self._end(session, _ACTOR_SILENT)

    # What the node links say: GatewayLinkListener.

    def on_link_message(self, link: ActorLink, message: FromActor) -> None:
        """Take a message from a session actor."""
        sender = self.roster.actor_of(link)
        if sender is not None:
            sender.silent = False
        match message:
            case Hello():
                self._on_hello(link, message)
            case JournalEntries():
                if self._journal is not None:
                    self._journal.take(link, message)
            case StateParcel():
                if self._journal is not None:
                    self._journal.take_state(link, message)
            case Telemetry():
                if sender is not None:
                    self._metrics.merge(message.delta, source=sender.actor_id)
            case Up() | SessionStateChanged() | Recovered() | Released() | Ended() | Refused():
                session = self.roster.session_at(link, message.session_id)
                if session is not None:
                    self._on_session_message(session, message)
                elif sender is not None and isinstance(message, Released):
                    # Another's meanwhile, or nobody's: the actor may be offered it again.
                    self._perform(self._recovery.released(message.session_id, sender.actor_id, self._loop.time()))
                else:
                    # Such as the end of a session that was counted as lost before.
                    _log.debug("message_of_unknown_session", session_id=message.session_id, kind=type(message).__name__)
            case SessionHeld() | ListenerKept():
                pass  # They come with descriptors, by ways of their own.

    def _on_session_message(
        self, session: Session, message: Up | SessionStateChanged | Recovered | Released | Ended | Refused
    ) -> None:
        session_id, actor_id, now = session.session_id, session.actor.actor_id, self._loop.time()
        match message:
            case Up():
                self._recovery.up(session_id, actor_id)
                self._hand_overs.settle(session_id)
                if not session.started:
                    session.started = True
                    self._admission.bind(session_id)
                    self.starts += 1
                    self._metrics.inc(names.SESSION_STARTS_TOTAL, channel=session.channel)
                    self._metrics.observe(names.ACCEPT_SECONDS, message.accept_to_101_s)
                if self._recovery.stage(session_id) is Stage.OFFERED:
                    # It was answered anew, by another than the first.
                    self._perform(self._recovery.recovered(session_id, actor_id, session.epoch, now))
            case SessionStateChanged():
                session.state = message.state
            case Recovered():
                session.epoch = message.epoch
                self._on_recovered(session, message.gap_s)
                self._perform(self._recovery.recovered(session_id, actor_id, message.epoch, now))
            case Released():
                self._lost_at[session_id] = time.monotonic()
                self._perform(self._recovery.released(session_id, actor_id, now))
            case Ended():
                self._end(session, message.reason)
            case Refused():
                self._on_refused(session, message.reason, now)

    def _on_refused(self, session: Session, reason: EndReason, now: float) -> None:
        """An actor has only closed what it was given."""
        if self._recovery.stage(session.session_id) not in (None, Stage.OWNED):
            self._perform(self._recovery.refused(session.session_id, session.actor.actor_id, reason, now))
            return
        self._callers.refuse(session.session_id, try_later(reason.code, "the session was not taken"))
        self._end(session, reason)

    def _on_recovered(self, session: Session, gap_s: float) -> None:
        self._lost_at.pop(session.session_id, None)
        self._hand_overs.settle(session.session_id)
        self._metrics.inc(names.RECOVERIES_TOTAL, cause=session.cause)
        self._metrics.observe(names.RECOVERY_SECONDS, gap_s, cause=session.cause)
        _log.warning(
            "session_recovered",
            session_id=session.session_id,
            actor_id=session.actor.actor_id,
            epoch=session.epoch,
            cause=session.cause,
            gap_ms=round(gap_s * 1000, 1),
        )

    def on_session_held(self, link: ActorLink, message: SessionHeld, sock: socket.socket, page: int) -> None:
        """Take back what the gateway before this one held of a caller."""
        try:
            held = SessionPage.open(page)
        except PageError as error:
            sock.close()
            os.close(page)
            _log.error("page_refused", session_id=message.session_id, detail=error.message)
            return
        adopt = Adopt(message.session_id, message.channel, message.head, message.peer, message.accepted_at)
        caller = Caller(adopt, sock, held)
        session = self.roster.session_at(link, message.session_id)
        if session is None:
            caller.close()
            return
        session.peer = session.peer or message.peer
        self._callers.keep(caller)

    def on_listener(self, link: ActorLink, sock: socket.socket) -> None:
        """Take back the listening socket of the gateway before this one."""
        del link
        self._on_listener(sock)

    def on_link_lost(self, link: ActorLink, reason: EndReason) -> None:
        """A link has ended, and nearly always its actor with it: its sessions go on with others once that is known."""
        if self._journal is not None:
            self._journal.link_lost(link)
        actor = self.roster.leave(link)
        if actor is None:
            return
        self._freezes.forget(actor.actor_id)
        self._metrics.forget(actor.actor_id)
        _log.warning(
            "actor_lost", actor_id=actor.actor_id, actor_pid=actor.pid, sessions=len(actor.sessions), reason=reason.code
        )
        self._lose(actor)
        self._perform(self._recovery.link_lost(actor.actor_id, actor.pid, self._loop.time()))

    def _lose(self, actor: Actor) -> None:
        now = time.monotonic()
        for session in actor.sessions.values():
            self._lost_at.setdefault(session.session_id, now)
            session.state = "recovering"

    def _on_gone(self, actor_id: str, pid: int) -> None:
        """A session actor's process is dead."""
        self._perform(self._recovery.gone(actor_id, pid, self._loop.time()))

    def _on_hello(self, link: ActorLink, hello: Hello) -> None:
        now = self._loop.time()
        previous = self.roster.actor_named(hello.actor_id)
        if previous is not None and previous.pid != hello.pid:
            self._lose(previous)
        self.roster.join(link, hello, self._clock())
        for held in hello.sessions:
            self._admission.restore(held.session_id)
            self._hand_overs.settle(held.session_id)
        _log.info("actor_linked", actor_id=hello.actor_id, actor_pid=hello.pid, seats=hello.seats, sessions=len(hello.sessions))
        if self._admission.draining:
            link.send(Drain())
        else:
            self._give_listener(link)
        self._processes.watch(hello.actor_id, hello.pid)
        self._freezes.watch(hello.actor_id, now)
        claims = [Claim(held.session_id, held.epoch, Hold.SOCKET) for held in hello.sessions]
        commands = self._recovery.hello(hello.actor_id, hello.pid, hello.seats, claims, now)
        for held in hello.sessions:
            self._give_back(held.session_id)
        self._perform(commands)

    def _give_back(self, session_id: str) -> None:
        """Of two actors that claim a session the one that recovery takes for its owner has it, whoever said so last."""
        session, owner = self.roster.session(session_id), self._recovery.owner(session_id)
        actor = None if owner is None else self.roster.actor_named(owner)
        if session is not None and actor is not None and session.actor is not actor:
            self.roster.move(session, actor)
            session.epoch = self._recovery.epoch(session_id)

    # What recovery wants done.

    def _perform(self, commands: Iterable[RecoveryCommand]) -> None:
        for command in commands:
            match command:
                case Offer():
                    self._perform(self._offer(command))
                case Kill(actor_id, pid):
                    _log.error("actor_killed", actor_id=actor_id, actor_pid=pid)
                    self._processes.kill(actor_id, pid)
                case Release(actor_id, session_id):
                    actor = self.roster.actor_named(actor_id)
                    if actor is not None:
                        actor.link.send(ReleaseSession(session_id))
                case EndCaller(session_id, reason):
                    session = self.roster.session(session_id)
                    self._callers.refuse(session_id, try_later(reason.code, reason.text))
                    if session is not None:
                        self._settle(session, reason)
                case Forget(session_id):
                    self._callers.drop(session_id)
        self._arm()

    def _offer(self, offer: Offer) -> list[RecoveryCommand]:
        """Give an actor a session that has no owner, with its caller and all that is known of it."""
        session, caller = self.roster.session(offer.session_id), self._callers.get(offer.session_id)
        state = None if session is None else self._state(session)
        if session is not None and state is not None and state.end is not None:
            # Its owner has ended it and could not say so any more.
            self._callers.end(session.session_id)
            commands = self._recovery.ended(session.session_id, offer.actor_id, self._loop.time())
            self._settle(session, state.end)
            return commands
        actor = self.roster.actor_named(offer.actor_id)
        taken = session is not None and caller is not None and actor is not None and self._hand(session, caller, actor, offer)
        if taken:
            return []
        reason = EndReason("not_offered", "what is held of the caller could not be given away", by="infrastructure")
        return self._recovery.refused(offer.session_id, offer.actor_id, reason, self._loop.time())

    def _hand(self, session: Session, caller: Caller, actor: Actor, offer: Offer) -> bool:
        session.cause = offer.cause
        message: Adopt | Recover = caller.adopt
        if caller.page.opened:
            message = caller.recover(offer.cause, self._lost_at.get(session.session_id, time.monotonic()))
            state = self._state(session)
            for data, more in () if state is None else state_parcels(state.to_json()):
                actor.link.send(StateParcel(session.session_id, data, more))
        try:
            sock, page = caller.descriptors()
        except OSError:
            return False
        if not actor.link.offer(message, (sock, page)):
            os.close(sock)
            os.close(page)
            return False
        self.roster.move(session, actor)
        _log.info(
            "session_offered", session_id=session.session_id, actor_id=actor.actor_id, cause=offer.cause, begun=offer.begun
        )
        return True

    def _state(self, session: Session) -> CallState | None:
        return None if self._journal is None else self._journal.copies.state(session.session_id)

    def _arm(self) -> None:
        """Keep one timer at the time when recovery has something to do."""
        due = self._recovery.due
        if self._due is not None:
            self._due.cancel()
        self._due = None if due is None else self._loop.call_at(due, self._tick)

    def _tick(self) -> None:
        self._due = None
        self._perform(self._recovery.tick(self._loop.time()))

    def _look_at_beats(self) -> None:
        """Look whether every actor's loop still turns."""
        self._look = self._loop.call_later(LOOK_EVERY, self._look_at_beats)
        now = time.monotonic()
        for actor in self.roster.actors:
            beats = [caller.page.last_beat for name in actor.sessions if (caller := self._callers.get(name)) is not None]
            # One without a caller has no page to beat in, and keeps nobody waiting.
            self._freezes.beat(actor.actor_id, max(beats, default=now))
        for command in self._freezes.look(now):
            self._on_freeze(command)

    def _on_freeze(self, command: FreezeCommand) -> None:
        actor = self.roster.actor_named(command.actor_id)
        if actor is None:
            return
        now = self._loop.time()
        match command:
            case Suspect() | Trust():
                actor.silent = isinstance(command, Suspect)
                self._perform(self._recovery.suspect(actor.actor_id, suspected=actor.silent, now=now))
            case AskDump():
                _log.error("actor_stands_still", actor_id=actor.actor_id, actor_pid=actor.pid, sessions=len(actor.sessions))
                self._processes.ask_for_dump(actor.actor_id, actor.pid)
            case KillFrozen():
                self._perform(self._recovery.frozen(actor.actor_id, now))

    def _give_listener(self, link: ActorLink) -> None:
        if self._listener is None:
            return
        with suppress(OSError):
            duplicate = os.dup(self._listener.fileno())
            if not link.offer(ListenerKept(), (duplicate,)):
                os.close(duplicate)

    def _end(self, session: Session, reason: EndReason) -> None:
        """A session is over, or never was one."""
        self._perform(self._recovery.ended(session.session_id, session.actor.actor_id, self._loop.time()))
        self._settle(session, reason)

    def _settle(self, session: Session, reason: EndReason) -> None:
        """Forget, count and log a session. One that never started was refused, not ended."""
        self.roster.end(session)
        self._admission.release(session.session_id)
        self._hand_overs.settle(session.session_id)
        self._callers.drop(session.session_id)
        self._lost_at.pop(session.session_id, None)
        if self._journal is not None:
            self._journal.copies.forget(session.session_id)
        if session.started:
            self.ends += 1
            self._metrics.inc(names.SESSION_ENDS_TOTAL, channel=session.channel, reason=reason.code)
        else:
            self.refusals += 1
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

    def refresh_gauges(self) -> None:
        """Bring the gauges of sessions and actors up to date."""
        states = self.roster.states()
        for state in {*states, *self._states_shown}:
            self._metrics.set(names.SESSIONS, states[state], state=state)
        self._states_shown = set(states)
        busy = self.roster.busy_actors()
        self._metrics.set(names.SESSION_ACTORS, busy, state="busy")
        self._metrics.set(names.SESSION_ACTORS, len(list(self.roster.actors)) - busy, state="free")


def _offer(link: ActorLink, message: Adopt | Recover, sock: int, page: SessionPage) -> bool:
    """Offer a session to an actor; on True the link owns the socket's descriptor. Raises OSError, WireError."""
    shared = os.dup(page.fileno())
    try:
        taken = link.offer(message, (sock, shared))
    except WireError:
        os.close(shared)
        raise
    if not taken:
        os.close(shared)
    return taken
