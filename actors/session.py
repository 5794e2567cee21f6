"""The session actor: the node link on one side, the calls of `SessionHost` on the other."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress

import msgspec
import ray

from actors.node_link import NodeLinkClient
from actors.tool_pool import make_tool_pool
from orchestrator.agent_ref import load_agent, load_run_config
from orchestrator.channels.host import Given, Lost, SessionHost
from orchestrator.channels.journalling import Journals
from orchestrator.cluster.link_messages import (
    Adopt,
    Ended,
    EndSession,
    HeldSession,
    Hello,
    JournalAcknowledged,
    JournalEntries,
    JournalLost,
    JournalRefused,
    ListenerKept,
    Recover,
    Recovered,
    Refused,
    Release,
    Released,
    SessionHeld,
    SessionStateChanged,
    StateParcel,
    Telemetry,
    Up,
)
from orchestrator.errors import EndReason, PageError
from orchestrator.journal.entries import Entry
from orchestrator.journal.parcels import parcels, state_parcels
from orchestrator.journal.state import CallState
from orchestrator.journal.writers import WriterName
from orchestrator.settings import Settings
from orchestrator.telemetry.logs import bind, configure
from orchestrator.telemetry.metrics import DeltaMetrics
from orchestrator.tool_runner import collect_tools
from orchestrator.transports.session_page import SessionPage

__all__ = ["SessionActor"]

TELEMETRY_INTERVAL = 1.0
# More messages than this waiting for the gateway: counts stay here until it reads again.
LINK_BUSY = 64
JOURNAL_GRACE = 3.0


class SessionActor:
    """A Ray actor: `settings` is `Settings.to_json()`, `name` its own name, `link_path` the socket of its node's gateway.

    Its constructor raises UserError when the agent cannot be loaded. After a crash Ray runs the constructor again.
    """

    # Ray awaits an asynchronous constructor, here and after every restart.
    async def __init__(self, settings: bytes, name: str, link_path: str) -> None:  # type: ignore[misc]
        self._settings = Settings.from_json(settings)
        configure(self._settings.log_level)
        # The gateway asks for it when this loop stands still, before it ends the process.
        faulthandler.register(signal.SIGUSR1)
        self._name = name
        self._log = bind(actor=name, pid=os.getpid())
        agent = load_agent(self._settings.agent)
        tools = collect_tools(agent)
        self._tools = make_tool_pool(self._settings, tools)
        self._tools.start()
        self._metrics = DeltaMetrics()
        writer = WriterName(ray.get_runtime_context().get_node_id(), name, os.getpid())
        self._journals = Journals(
            str(writer), self._send_entries, self._end_call, sent=self._entries_sent, metrics=self._metrics
        )
        self._host = SessionHost(
            self._settings,
            agent,
            reporter=self,
            metrics=self._metrics,
            tool_runner=self._tools,
            run_config=load_run_config(self._settings.run_config),
            journals=self._journals,
        )
        # The gateway's listening socket: held, never touched.
        self._listener: socket.socket | None = None
        self._loop = asyncio.get_running_loop()
        self._link = NodeLinkClient(link_path, self._hello, self)
        self._link.start()
        self._timer = self._loop.call_later(TELEMETRY_INTERVAL, self._send_telemetry)

    async def describe(self, session_id: str) -> str | None:
        """Return the record of a running or recent call as JSON, or None."""
        record = self._host.describe(session_id)
        return None if record is None else record.decode()

    async def status(self) -> str:
        """Return JSON: name, pid, free seats and running sessions."""
        status = {"name": self._name, "pid": os.getpid(), "free": self._host.free_seats, "sessions": self._host.sessions()}
        return msgspec.json.encode(status).decode()

    async def end_all(self, reason: bytes) -> None:
        """End all calls with this `EndReason` (JSON) and wait for them. Drain the gateway first, or more may come."""
        await self._host.aclose(msgspec.json.decode(reason, type=EndReason))

    async def ping(self) -> int:
        """Return the pid."""
        return os.getpid()

    def on_adopt(self, sock: socket.socket, page: int, message: Adopt) -> None:
        """Take a caller's socket (called by the link)."""
        self._take(sock, page, message, None)

    def on_recover(self, sock: socket.socket, page: int, state: bytes, message: Recover) -> None:
        """Go on with a call that lost its owner (called by the link)."""
        try:
            known = msgspec.json.decode(state, type=CallState) if state else None
        except msgspec.MsgspecError as error:
            # It cannot be the state of any call. Without one the caller begins anew, which is better than silence.
            self._log.error("state_refused", session_id=message.session_id, error=type(error).__name__)
            known = None
        self._take(sock, page, message, Lost(known, message.cause, message.lost_at))

    def _take(self, sock: socket.socket, page: int, message: Adopt | Recover, lost: Lost | None) -> None:
        """Begin a call, or go on with one; the descriptors are the call's, or closed."""
        refusal: EndReason | None
        try:
            opened = SessionPage.open(page)
        except PageError as error:
            os.close(page)
            refusal = EndReason("bad_hand_over", error.message, error.code, "infrastructure")
        else:
            given = Given(message.session_id, message.channel, message.head, message.peer, message.accepted_at, lost)
            refusal = self._host.adopt(sock, opened, given)
            if refusal is not None:
                opened.close()
        if refusal is not None:
            sock.close()
            self._log.error("adopt_refused", session_id=message.session_id, code=refusal.code)
            self._link.send(Refused(message.session_id, refusal))

    def on_release(self, message: Release) -> None:
        """Let go of a call, which goes on with another owner (called by the link)."""
        if not self._host.release(message.session_id):
            self.released(message.session_id)

    def on_listener(self, sock: socket.socket) -> None:
        """Keep the gateway's listening socket (called by the link)."""
        self._drop_listener()
        self._listener = sock

    def on_end_session(self, message: EndSession) -> None:
        """End a session (called by the link)."""
        self._host.end(message.session_id, message.reason)

    def on_drain(self) -> None:
        """No more sessions will come; those that run end by themselves (called by the link)."""
        self._drop_listener()

    def on_link_up(self) -> None:
        """The gateway is there: give it what it needs to know and to hold of every call (called by the link).

        That is what another owner would need, and all that no gateway has acknowledged.
        """
        for held in self._host.held():
            given = held.given
            with suppress(OSError):
                message = SessionHeld(given.session_id, given.channel, given.head, given.peer, given.accepted_at)
                self._link.send(message, held.descriptors())
        if self._listener is not None:
            with suppress(OSError):
                self._link.send(ListenerKept(), (os.dup(self._listener.fileno()),))
        for session_id, state in self._journals.states():
            for data, more in state_parcels(state):
                self._link.send(StateParcel(session_id, data, more))
        self._journals.send_open()

    def on_journal(self, message: JournalAcknowledged | JournalRefused | JournalLost) -> None:
        """Learn what became of journal entries (called by the link)."""
        match message:
            case JournalAcknowledged():
                self._journals.acknowledged(message.session_id, message.writer, message.seq)
            case JournalRefused():
                self._journals.refused(message.session_id, message.writer)
            case JournalLost():
                self._journals.lost(message.session_id, message.writer, room=message.room)

    def on_link_lost(self, reason: EndReason) -> None:
        """The gateway is gone; the calls go on (called by the link)."""
        self._log.warning("link_lost", code=reason.code, cause=reason.cause)

    def up(self, session_id: str, accept_to_101_s: float) -> None:
        """Pass on that a caller was answered (called by the host)."""
        self._link.send(Up(session_id, accept_to_101_s))

    def recovered(self, session_id: str, epoch: int, gap_s: float) -> None:
        """Pass on that a call goes on here (called by the host)."""
        self._link.send(Recovered(session_id, epoch, gap_s))

    def released(self, session_id: str) -> None:
        """Pass on that a call is another's now (called by the host)."""
        self._link.send(Released(session_id))

    def state_changed(self, session_id: str, state: str) -> None:
        """Pass on a session's state (called by the host)."""
        self._link.send(SessionStateChanged(session_id, state))

    def ended(self, session_id: str, reason: EndReason) -> None:
        """Pass on that a session is over (called by the host)."""
        self._link.send(Ended(session_id, reason))

    def __ray_shutdown__(self) -> None:
        # Ray runs this before a graceful exit only, in the main thread, when it has stopped the loop and ended its thread.
        self._loop.run_until_complete(self._close())

    async def _close(self) -> None:
        self._timer.cancel()
        await self._host.aclose(EndReason("shutdown", "the session actor is being shut down"))
        self._send_telemetry(again=False)
        await self._settle_journals()
        self._link.close()
        self._drop_listener()
        await self._tools.aclose()

    def _drop_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _send_entries(self, entries: Sequence[Entry]) -> None:
        if self._link.connected:
            for data, more in parcels(entries):
                self._link.send(JournalEntries(data, more))

    def _entries_sent(self) -> bool:
        # What the link still queues would die with this process.
        return self._link.connected and not self._link.queued

    def _end_call(self, session_id: str, reason: EndReason) -> None:
        self._host.end(session_id, reason)

    async def _settle_journals(self) -> None:
        """Stay until the last entries are acknowledged: a gateway that is being replaced is back within a second or two."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(JOURNAL_GRACE):
                while len(self._journals):  # noqa: ASYNC110 - at the end of a process, nothing else is waiting for the loop
                    await asyncio.sleep(0.02)
        if len(self._journals):
            self._log.error("journals_unacknowledged", calls=len(self._journals))

    def _hello(self) -> Hello:
        held = tuple(HeldSession(*session) for session in self._host.sessions())
        return Hello(self._name, os.getpid(), self._settings.sessions_per_actor, held)

    def _send_telemetry(self, *, again: bool = True) -> None:
        if self._link.connected and self._link.queued < LINK_BUSY and (delta := self._metrics.drain()):
            self._link.offer(Telemetry(delta))
        if again:
            self._timer = self._loop.call_later(TELEMETRY_INTERVAL, self._send_telemetry)
