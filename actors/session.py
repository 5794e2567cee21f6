"""The session actor: the node link on one side, the calls of `SessionHost` on the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence

import msgspec
import ray

from actors.node_link import NodeLinkClient
from actors.tool_pool import make_tool_pool
from orchestrator.agent_ref import load_agent, load_run_config
from orchestrator.channels.host import SessionHost
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
    Refused,
    SessionStateChanged,
    Telemetry,
    Up,
)
from orchestrator.errors import EndReason
from orchestrator.journal.entries import Entry
from orchestrator.journal.parcels import parcels
from orchestrator.journal.writers import WriterName
from orchestrator.settings import Settings
from orchestrator.telemetry.logs import bind, configure
from orchestrator.telemetry.metrics import DeltaMetrics
from orchestrator.tool_runner import collect_tools

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

    def on_adopt(self, sock: socket.socket, message: Adopt) -> None:
        """Take a caller's socket (called by the link)."""
        refusal = self._host.adopt(
            sock,
            session_id=message.session_id,
            channel=message.channel,
            head=message.head,
            peer=message.peer,
            accepted_at=message.accepted_at,
        )
        if refusal is not None:
            sock.close()
            self._log.error("adopt_refused", session_id=message.session_id, code=refusal.code)
            self._link.send(Refused(message.session_id, refusal))

    def on_end_session(self, message: EndSession) -> None:
        """End a session (called by the link)."""
        self._host.end(message.session_id, message.reason)

    def on_drain(self) -> None:
        """No more sessions will come; those that run end by themselves (called by the link)."""

    def on_link_up(self) -> None:
        """The gateway is there: what no gateway has acknowledged is for this one (called by the link)."""
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
        await self._tools.aclose()

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
