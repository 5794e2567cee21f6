"""One call, from the caller's accepted socket to its end: a caller leg, a channel, a session, and the order in which they live.

One task runs a call. It waits only at the beginning (handshake, the caller's first words, the model's connection) and for the
end; everything between is callbacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from orchestrator.channels.base import Channel, ChannelParts, FrameCounts
from orchestrator.channels.journalling import CallJournal
from orchestrator.channels.record import CallRecord
from orchestrator.core.states import SESSION, Machine, SessionSignal, SessionState
from orchestrator.errors import EndReason, InfrastructureFault, LegClosedError, ModelFault, ModelLostError, Refused
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.events import RealtimeAudio, RealtimeAudioInterrupted, RealtimeSessionEvent, RealtimeToolEnd
from orchestrator.realtime.model import RealtimeModelConfig
from orchestrator.realtime.openai_realtime import Dial, OpenAIRealtimeWebSocketModel
from orchestrator.realtime.renewing import ModelRenewal
from orchestrator.realtime.session import RealtimeSession
from orchestrator.settings import Settings
from orchestrator.telemetry import names
from orchestrator.telemetry.logs import get_logger
from orchestrator.telemetry.metrics import Metrics
from orchestrator.tool_runner import ToolRunner
from orchestrator.transports.base import Leg
from orchestrator.transports.opening import accept, connect

__all__ = ["Call", "CallParts", "CallReporter"]

ChannelFactory = Callable[[ChannelParts], Channel]

# What the caller's leg is closed with when we end the call; anything else is a normal close.
_CLOSE_CODES = {
    "model_lost": 1011,
    "model_unavailable": 1011,
    "internal_error": 1011,
    "shutdown": 1001,
    "cancelled": 1001,
    "caller_overflow": 1008,
    "start_timeout": 1008,
}
_OUTCOMES = {None: "ok", "tool_timeout": "timeout", "tool_lost": "lost", "outcome_unknown": "lost"}


class CallReporter(Protocol):
    """Hears what the node must know of a call."""

    def up(self, session_id: str, accept_to_101_s: float) -> None:
        """The caller was answered with 101."""

    def state_changed(self, session_id: str, state: str) -> None:
        """The session's state changed."""


class CallParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a call is made of. `accepted_at` is the monotonic clock, in seconds, when the caller's socket was accepted.

    `renewal` knows the model's endpoints; its pool is shared by the calls of the process.
    """

    session_id: str
    make_channel: ChannelFactory
    settings: Settings
    agent: RealtimeAgent[Any]
    run_config: dict[str, Any]
    tool_runner: ToolRunner | None
    metrics: Metrics
    renewal: ModelRenewal
    reporter: CallReporter
    peer: str
    accepted_at: float
    dial: Dial = connect
    journal: CallJournal | None = None


class Call:
    """A call and everything it owns. It is the session's observer and the channel's control."""

    def __init__(self, parts: CallParts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._metrics = parts.metrics
        self._channel = parts.make_channel(ChannelParts(parts.session_id, parts.settings, self, parts.metrics))
        self._machine = Machine(SessionState.NEW, SESSION)
        self._log = get_logger().bind(session_id=parts.session_id, channel=self._channel.name)
        self._record = CallRecord(parts.session_id, self._channel.name, os.getpid(), parts.accepted_at)
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[EndReason] = loop.create_future()
        self._caller: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._session: RealtimeSession | None = None
        self._model: OpenAIRealtimeWebSocketModel | None = None
        self._leg: Leg | None = None
        self._counted = FrameCounts()
        self._dropped = {"in": 0, "out": 0}
        self._speech_started_at: float | None = None
        # Was the model's connection lost, and is not there again?
        self._model_away = False

    @property
    def channel_name(self) -> str:
        """The kind of the caller."""
        return self._channel.name

    @property
    def state(self) -> SessionState:
        """Where the session is in its life."""
        return self._machine.state

    def describe(self) -> bytes:
        """Return the call's record as JSON."""
        if self._session is None or self.state is SessionState.ENDED:
            return self._record.to_json()
        return self._record.to_json(self._session.history)

    async def run(self, sock: socket.socket, head: bytes) -> EndReason:
        """Serve the call to its end and return why it ended. Takes the socket over; `head` is all that was read from it.

        Cancelling it ends the call with the reason "cancelled"; once the call is ending, that has its own deadlines and is
        not cut short, or one of the two connections would be left open.
        """
        reason = EndReason("cancelled", "the call's task was cancelled")
        try:
            refused = await self._accept(sock, head)
            reason = refused or await self._converse()
        except Exception as error:  # noqa: BLE001 - one call's fault must not reach another's
            self._log.error("call_failed", error=type(error).__name__, text=str(error))
            reason = EndReason("internal_error", "the call failed", getattr(error, "code", type(error).__name__))
        finally:
            await _whole(asyncio.ensure_future(self._finish(reason)))
        return reason

    def caller_ready(self, caller: dict[str, Any]) -> None:
        """The caller may talk to the agent (called by the channel)."""
        if not self._caller.done():
            self._caller.set_result(caller)

    def end(self, reason: EndReason) -> None:
        """End the call; the first reason counts."""
        if not self._ended.done():
            self._ended.set_result(reason)

    def count_frames(self) -> None:
        """Move the frames counted since the last time into the metrics. Called about once a second."""
        self._keep_journal()
        counts, before = self._channel.counts, self._counted
        late = 0 if self._model is None else self._model.frames_dropped
        slow = 0 if self._leg is None else self._leg.statistics().messages_dropped
        for direction, number in (("in", counts.received - before.received), ("out", counts.sent - before.sent)):
            if number:
                self._metrics.inc(names.AUDIO_FRAMES_TOTAL, number, direction=direction)
        dropped = (
            ("in", "model_not_ready", counts.early_dropped - before.early_dropped),
            ("in", "slow_model", late - self._dropped["in"]),
            ("out", "slow_caller", slow - self._dropped["out"]),
        )
        for direction, cause, number in dropped:
            if number > 0:
                self._metrics.inc(names.AUDIO_FRAMES_DROPPED_TOTAL, number, direction=direction, cause=cause)
        self._counted = msgspec.structs.replace(counts)
        self._dropped = {"in": max(late, self._dropped["in"]), "out": slow}

    def _keep_journal(self) -> None:
        """Write what the agent has said so far: its words come without events of their own."""
        journal = self._parts.journal
        if journal is not None and self._session is not None and self.state is not SessionState.ENDED:
            journal.history(self._session.history)

    def on_session_event(self, event: RealtimeSessionEvent) -> None:
        """Give an event of the session to the channel first, then to the books (called by the session)."""
        self._channel.on_session_event(event)
        if type(event) is RealtimeAudio:
            return  # Many a second, and nothing for the books: the channel counts its frames.
        if isinstance(event, RealtimeAudioInterrupted):
            self._on_interrupted()
        elif isinstance(event, RealtimeToolEnd):
            outcome = _OUTCOMES.get(event.error_code, "failed")
            self._metrics.inc(names.TOOL_CALLS_TOTAL, outcome=outcome)
            self._metrics.observe(names.TOOL_SECONDS, event.seconds, tool=event.tool.name, outcome=outcome)
            self._log.info("tool_ended", tool=event.tool.name, outcome=outcome, pid=event.pid, seconds=round(event.seconds, 4))
        self._record.event(event, time.monotonic())
        if self._parts.journal is not None and self._session is not None:
            self._parts.journal.event(event, self._session)

    def on_first_audio(self, seconds: float) -> None:
        """The agent began to answer (called by the session)."""
        self._metrics.observe(names.FIRST_AUDIO_SECONDS, seconds)
        self._record.timings.first_audio_ms.append(round(seconds * 1000, 1))

    def on_speech(self, *, speaking: bool) -> None:
        """The caller began or stopped to speak (called by the session)."""
        self._speech_started_at = time.monotonic() if speaking else None

    def on_renewing(self, cause: str) -> None:
        """The connection to the model is being made anew (called by the session)."""
        self._model_away = True
        self._log.warning("model_renewing", cause=cause)
        if self._parts.journal is not None:
            self._parts.journal.leg("model", "lost", cause)
        if self._machine.allows(SessionSignal.MODEL_LOST):
            self._signal(SessionSignal.MODEL_LOST)

    def on_renewed(self, seconds: float, cause: str) -> None:
        """The conversation goes on over a new connection (called by the session)."""
        noticed, self._model_away = self._model_away, False
        outcome = "renewed" if noticed else "swapped"
        self._log.info("model_renewed", cause=cause, outcome=outcome, seconds=round(seconds, 4))
        self._metrics.inc(names.MODEL_RENEWALS_TOTAL, cause=cause, outcome=outcome)
        if noticed:
            self._metrics.observe(names.MODEL_RENEWAL_SECONDS, seconds)
        if self._parts.journal is not None:
            self._parts.journal.leg("model", "live", cause)
        if self.state is SessionState.RENEWING:
            self._signal(SessionSignal.CONNECTED)

    def on_ended(self, exception: Exception | None) -> None:
        """The model is gone (called by the session)."""
        if isinstance(exception, ModelLostError):
            self._metrics.inc(names.MODEL_RENEWALS_TOTAL, cause=exception.reason.cause or "", outcome="failed")
            self.end(exception.reason)
            return
        cause = None if exception is None else getattr(exception, "code", type(exception).__name__)
        self.end(EndReason("model_lost", "the connection to the model ended", cause, "model"))

    def _on_interrupted(self) -> None:
        self._metrics.inc(names.INTERRUPTIONS_TOTAL)
        started, self._speech_started_at = self._speech_started_at, None
        if started is not None:
            seconds = time.monotonic() - started
            self._metrics.observe(names.BARGE_IN_SECONDS, seconds)
            self._record.timings.barge_in_to_clear_ms.append(round(seconds * 1000, 3))

    async def _accept(self, sock: socket.socket, head: bytes) -> EndReason | None:
        """Answer the handshake; returns why there is no call when the caller sent no upgrade or left before."""
        try:
            self._leg = await accept(
                sock,
                head,
                self._channel,
                options=self._channel.leg_options(),
                subprotocol=self._channel.subprotocol,
            )
        except Refused as error:
            return EndReason(error.reason, error.message, error.code, "caller")
        except LegClosedError as error:
            return EndReason("caller_lost", error.reason.text, error.reason.code, "caller")
        seconds = time.monotonic() - self._parts.accepted_at
        self._record.timings.accept_to_101_ms = round(seconds * 1000, 3)
        self._parts.reporter.up(self._parts.session_id, seconds)
        self._log.info("session_started", peer=self._parts.peer, accept_to_101_ms=round(seconds * 1000, 3))
        self._signal(SessionSignal.CONNECT)
        return None

    async def _converse(self) -> EndReason:
        """Wait for the caller, connect the model, and stay until the end."""
        if not await self._first_of(self._caller, self._channel.start_timeout):
            return self._reason() or EndReason("start_timeout", "the caller did not start in time", by="caller")
        connect = asyncio.ensure_future(self._connect_model(self._caller.result()))
        try:
            finished = await self._first_of(connect, None)
        finally:
            if not connect.done():
                connect.cancel()
                await asyncio.wait({connect})
        if not finished:
            if not connect.cancelled():
                connect.exception()  # The call is over, so a fault of the connection is nobody's any more.
            return self._reason() or EndReason("internal_error")
        try:
            connect.result()
        except (ModelFault, InfrastructureFault) as error:
            self._log.error("model_unavailable", code=error.code, text=error.message)
            return EndReason("model_unavailable", "the model cannot be reached", error.code, "model")
        self._signal(SessionSignal.CONNECTED)
        await asyncio.wait({self._ended}, timeout=self._settings.max_call_seconds)
        return self._reason() or EndReason("max_duration", "the call reached the longest time that it may last")

    async def _connect_model(self, caller: dict[str, Any]) -> None:
        settings = self._settings
        model = OpenAIRealtimeWebSocketModel(
            transport_config={"max_size": settings.model_max_message, "handshake_timeout": settings.model_open_timeout},
            playback=self._channel.playback,
            response_timeout=settings.response_timeout,
            metrics=self._metrics,
            dial=self._parts.dial,
            renewal=self._parts.renewal,
        )
        run_settings = self._parts.run_config.get("model_settings") or {}
        config: RealtimeModelConfig = {
            # Where the model is, and by which key, is the affair of the renewal's endpoints.
            "initial_model_settings": _overlay(  # type: ignore[typeddict-item]
                run_settings, {**self._channel.model_settings(), "model_name": settings.model_name}
            ),
        }
        # What we know stands above what the caller's side says.
        context = {**caller, "session_id": self._parts.session_id, "channel": self._channel.name}
        if self._parts.journal is not None:
            agent = self._parts.agent.name
            self._parts.journal.started(channel=self._channel.name, agent=agent, context=context, peer=self._parts.peer)
        session = RealtimeSession(
            model,
            self._parts.agent,
            context,
            config,
            self._parts.run_config,
            session_id=self._parts.session_id,
            tool_runner=self._parts.tool_runner,
            tool_timeout=settings.tool_timeout,
            observer=self,
            ledger=self._parts.journal,
        )
        started = time.monotonic()
        self._model, self._session = model, session
        await session.enter()
        # No event of the model can have come since: nothing was awaited after the connection was there.
        self._channel.live(model)
        seconds = time.monotonic() - started
        self._metrics.observe(names.MODEL_CONNECT_SECONDS, seconds)
        self._record.timings.model_connect_ms = round(seconds * 1000, 1)

    async def _first_of(self, wanted: asyncio.Future[Any], timeout: float | None) -> bool:
        """Wait for a future, the end of the call or the timeout (seconds); tell whether the future came in time."""
        await asyncio.wait({wanted, self._ended}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        return wanted.done() and not self._ended.done()

    def _reason(self) -> EndReason | None:
        return self._ended.result() if self._ended.done() else None

    async def _finish(self, reason: EndReason) -> None:
        """End both legs and settle the books."""
        history = [] if self._session is None else self._session.history
        self.end(reason)
        self.count_frames()
        try:
            if self._leg is not None:
                # First, so that the caller waits neither for a tool nor for a model that does not answer.
                self._channel.tell_failure(reason)
                self._leg.close(_CLOSE_CODES.get(reason.code, 1000), reason.text)
            if self._session is not None:
                await self._session.close()
            if self._leg is not None:
                await self._leg.wait_closed()
        finally:
            self._record.ended(reason, history, time.monotonic())
            if self._parts.journal is not None and self._parts.journal.tail.state.last_seq:
                self._parts.journal.ended(reason, history)
            self._signal(SessionSignal.END)
        self._log.info("session_ended", code=reason.code, text=reason.text, cause=reason.cause, by=reason.by)

    def _signal(self, signal: SessionSignal) -> None:
        state = self._machine.signal(signal)
        self._parts.reporter.state_changed(self._parts.session_id, state.value)


async def _whole(work: asyncio.Future[None]) -> None:
    """Wait for work that must be done whole, however often the waiter is cancelled; raises what the work raises."""
    while not work.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({work})
    work.result()


def _overlay(base: Any, over: dict[str, Any]) -> dict[str, Any]:
    """Lay settings over others, group by group, so that a channel's audio format leaves the program's voice alone."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _overlay(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged
