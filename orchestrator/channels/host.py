"""The calls of one process: takes sockets over, runs a call for each, ends them."""

from __future__ import annotations

import asyncio
import socket
from collections import OrderedDict
from typing import Any, Protocol

import msgspec

from orchestrator.channels.call import Call
from orchestrator.channels.call_parts import CallParts, CallReporter, ChannelFactory, Given, Holding, Lost
from orchestrator.channels.journalling import CallJournal, Journals
from orchestrator.channels.model_endpoints import model_renewal
from orchestrator.channels.openai import OpenAIChannel
from orchestrator.channels.twilio import TwilioChannel
from orchestrator.errors import EndReason
from orchestrator.journal.state import CallState
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.openai_realtime import Dial
from orchestrator.settings import Settings
from orchestrator.stream_token import StreamTokens
from orchestrator.telemetry.logs import get_logger
from orchestrator.telemetry.metrics import Metrics
from orchestrator.tool_runner import ToolRunner
from orchestrator.transports.opening import connect
from orchestrator.transports.session_page import SessionPage

__all__ = ["Given", "HostReporter", "Lost", "SessionHost"]

MAX_RECORDS = 256
MAX_RECORD_BYTES = 32 * 1024 * 1024
COUNT_EVERY = 1.0
# How often a loop that turns says so, seconds; who has not for many times as long is taken for frozen.
BEAT_EVERY = 0.25
_log = get_logger()


class HostReporter(CallReporter, Protocol):
    """Hears of the calls of a process."""

    def ended(self, session_id: str, reason: EndReason) -> None:
        """A call is over and its socket is closed."""


class SessionHost:
    """Runs up to `sessions_per_actor` calls. All of it belongs to one event loop.

    Owns one task for each call and two timers, which settle the frame counts and beat; `aclose` ends them all.
    """

    def __init__(
        self,
        settings: Settings,
        agent: RealtimeAgent[Any],
        *,
        reporter: HostReporter,
        metrics: Metrics,
        tool_runner: ToolRunner | None = None,
        run_config: dict[str, Any] | None = None,
        dial: Dial = connect,
        journals: Journals | None = None,
    ) -> None:
        self._settings = settings
        self._journals = journals
        self._agent = agent
        self._reporter = reporter
        self._metrics = metrics
        self._tool_runner = tool_runner
        self._run_config = run_config or {}
        self._dial = dial
        self._renewal = model_renewal(settings, metrics)
        self._calls: dict[str, tuple[Call, asyncio.Task[None]]] = {}
        # The records of calls that are over, the latest ones.
        self._records: OrderedDict[str, bytes] = OrderedDict()
        self._record_bytes = 0
        self._closing: EndReason | None = None
        tokens = StreamTokens(settings.token_secret)
        self._channels: dict[str, ChannelFactory] = {
            "openai": OpenAIChannel,
            "twilio": lambda parts: TwilioChannel(parts, tokens),
        }
        self._timer = asyncio.get_running_loop().call_later(COUNT_EVERY, self._count)
        self._beats = asyncio.get_running_loop().call_later(BEAT_EVERY, self._beat)

    @property
    def free_seats(self) -> int:
        """How many more calls may come."""
        return max(0, self._settings.sessions_per_actor - len(self._calls))

    def sessions(self) -> list[tuple[str, str, str, int]]:
        """Return id, channel, state and epoch of the running calls."""
        return [(session_id, call.channel_name, call.state.value, call.epoch) for session_id, (call, _) in self._calls.items()]

    def held(self) -> list[Holding]:
        """Return what a gateway should hold of each running call that has a caller."""
        return [holding for call, _ in self._calls.values() if (holding := call.holding) is not None]

    def adopt(self, sock: socket.socket, page: SessionPage | None, given: Given) -> EndReason | None:
        """Take a caller's socket over. Returns why not, in which case socket and page are still the giver's."""
        if self._closing is not None:
            return self._closing
        make_channel = self._channels.get(given.channel)
        if make_channel is None:
            return EndReason("unknown_channel", f"no channel is called {given.channel}")
        if given.session_id in self._calls:
            return EndReason("session_busy", "the session is running here already")
        if not self.free_seats:
            return EndReason("no_seat", "all seats of this actor are taken")
        call = Call(
            CallParts(
                given=given,
                make_channel=make_channel,
                settings=self._settings,
                agent=self._agent,
                run_config=self._run_config,
                tool_runner=self._tool_runner,
                metrics=self._metrics,
                renewal=self._renewal,
                reporter=self._reporter,
                dial=self._dial,
                journal=self._journal(given),
                page=page,
            )
        )
        task = asyncio.get_running_loop().create_task(self._run(given.session_id, call, sock), name=f"call {given.session_id}")
        self._calls[given.session_id] = (call, task)
        return None

    def release(self, session_id: str) -> bool:
        """Let go of a call without ending it, as soon as it is quiet; False when it is not here."""
        entry = self._calls.get(session_id)
        if entry is not None:
            entry[0].release()
        return entry is not None

    def end(self, session_id: str, reason: EndReason) -> bool:
        """End a call; False when it is not here."""
        entry = self._calls.get(session_id)
        if entry is not None:
            entry[0].end(reason)
        return entry is not None

    def describe(self, session_id: str) -> bytes | None:
        """Return the record of a running or recent call as JSON, or None."""
        entry = self._calls.get(session_id)
        return self._records.get(session_id) if entry is None else entry[0].describe()

    async def aclose(self, reason: EndReason) -> None:
        """End all calls with this reason, take no more, and wait for them. Cancelling it leaves the calls ending."""
        self._closing = reason
        self._timer.cancel()
        self._beats.cancel()
        tasks = [task for _, task in self._calls.values()]
        for call, _ in self._calls.values():
            call.end(reason)
        if tasks:
            await asyncio.wait(tasks)

    def _journal(self, given: Given) -> CallJournal | None:
        if self._journals is None:
            return None
        if given.lost is None or given.lost.state is None:
            return self._journals.open(given.session_id)
        # The journal's own goes on from here; the call has to know how things stood before.
        state = msgspec.json.decode(given.lost.state.to_json(), type=CallState)
        return self._journals.resume(given.session_id, state, given.lost.cause)

    async def _run(self, session_id: str, call: Call, sock: socket.socket) -> None:
        reason = EndReason("cancelled")
        try:
            reason = await call.run(sock)
        finally:
            del self._calls[session_id]
            if self._journals is not None:
                self._journals.abandon(session_id)
            # Before the record: whatever is in that, the seat must come back.
            if not call.released:
                self._reporter.ended(session_id, reason)
            self._remember(session_id, call.describe())

    def _remember(self, session_id: str, record: bytes) -> None:
        self._records[session_id] = record
        self._record_bytes += len(record)
        while len(self._records) > MAX_RECORDS or self._record_bytes > MAX_RECORD_BYTES:
            _, forgotten = self._records.popitem(last=False)
            self._record_bytes -= len(forgotten)

    def _count(self) -> None:
        for call, _ in self._calls.values():
            call.count_frames()
        self._timer = asyncio.get_running_loop().call_later(COUNT_EVERY, self._count)

    def _beat(self) -> None:
        """Show in every page that this loop turns."""
        for call, _ in self._calls.values():
            call.beat()
        self._beats = asyncio.get_running_loop().call_later(BEAT_EVERY, self._beat)
