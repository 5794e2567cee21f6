"""One call, from the caller's accepted socket to its end: a caller leg, a channel, a session, and the order in which they live.

One task runs a call. It waits only at the beginning (handshake, the caller's first words, the model's connection) and for the
end; everything between is callbacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
import time
from typing import Any

import msgspec

from orchestrator.channels.base import ChannelParts, FrameCounts
from orchestrator.channels.call_parts import CallParts, Holding, Lost
from orchestrator.channels.record import CallRecord
from orchestrator.channels.remembering import PageMemory
from orchestrator.channels.resumption import resumption_of
from orchestrator.core.conversation import cut_item
from orchestrator.core.items import AssistantMessageItem
from orchestrator.core.states import SESSION, Machine, SessionSignal, SessionState
from orchestrator.errors import (
    EndReason,
    InfrastructureFault,
    LegClosedError,
    ModelFault,
    ModelLostError,
    Refused,
    UserError,
)
from orchestrator.journal.state import CallState
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.carry_over import ModelMemory
from orchestrator.realtime.events import RealtimeAudio, RealtimeAudioInterrupted, RealtimeSessionEvent, RealtimeToolEnd
from orchestrator.realtime.model import RealtimeModelConfig
from orchestrator.realtime.openai_realtime import OpenAIRealtimeWebSocketModel
from orchestrator.realtime.resumption import Resumption, find_agent
from orchestrator.realtime.session import RealtimeSession
from orchestrator.telemetry import names
from orchestrator.telemetry.logs import get_logger
from orchestrator.transports.base import Leg
from orchestrator.transports.opening import accept, resume
from orchestrator.transports.websocket import WebSocketLeg

__all__ = ["Call"]

# What the caller's leg is closed with when we end the call; anything else is a normal close.
_CLOSE_CODES = {
    "model_lost": 1011,
    "model_unavailable": 1011,
    "internal_error": 1011,
    "shutdown": 1001,
    "drained": 1001,
    "cancelled": 1001,
    "caller_overflow": 1008,
    "start_timeout": 1008,
}
# Seconds that a call which is to be let go of may take to come to a pause, and between two looks whether it has.
QUIET_WITHIN = 4.0
LOOK_EVERY = 0.02
_OUTCOMES = {None: "ok", "tool_timeout": "timeout", "tool_lost": "lost", "outcome_unknown": "lost"}


class Call:
    """A call and everything it owns. It is the session's observer and the channel's control."""

    def __init__(self, parts: CallParts) -> None:
        self._parts = parts
        self._settings = parts.settings
        self._metrics = parts.metrics
        self._channel = parts.make_channel(ChannelParts(parts.session_id, parts.settings, self, parts.metrics))
        self._machine = Machine(SessionState.NEW, SESSION)
        self._log = get_logger().bind(session_id=parts.session_id, channel=self._channel.name)
        self._record = CallRecord(parts.session_id, self._channel.name, os.getpid(), parts.given.accepted_at)
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[EndReason] = loop.create_future()
        self._caller: asyncio.Future[dict[str, Any]] = loop.create_future()
        self._session: RealtimeSession | None = None
        self._model: OpenAIRealtimeWebSocketModel | None = None
        self._leg: Leg | None = None
        self._sock: socket.socket | None = None
        self._memory = None if parts.page is None else PageMemory(parts.page, parts.session_id)
        # What the model of a former owner knew.
        self._recalled: ModelMemory | None = None
        self._release_asked: asyncio.Future[None] = loop.create_future()
        # Whether the call was let go of: it is another owner's, and is not over.
        self.released = False
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

    @property
    def epoch(self) -> int:
        """How many owners the call has had, this one included."""
        return 1 if self._parts.journal is None else self._parts.journal.tail.epoch

    @property
    def holding(self) -> Holding | None:
        """What a gateway should hold of the call; None while its caller is not answered, or when there is no page."""
        page = self._parts.page
        if self._sock is None or page is None or not page.opened:
            return None
        return Holding(self._parts.given, self._sock, page)

    def beat(self) -> None:
        """Show in the page that this process's loop turns."""
        if self._parts.page is not None:
            self._parts.page.beat()

    def remember(self) -> None:
        """Save in the page what another owner would need (called by the channel)."""
        page, memory = self._parts.page, self._memory
        if page is None or memory is None or not page.opened:
            return
        model = None if self._model is None else self._model.memory()
        memory.save(self._channel.state(), model or self._recalled)

    def release(self) -> None:
        """Let go of the call as soon as it is quiet: it goes on with another owner. `run` then returns."""
        if not self._release_asked.done():
            self._release_asked.set_result(None)

    def describe(self) -> bytes:
        """Return the call's record as JSON."""
        if self._session is None or self.state is SessionState.ENDED:
            return self._record.to_json()
        return self._record.to_json(self._session.history)

    async def run(self, sock: socket.socket) -> EndReason:
        """Serve the call to its end and return why it ended. Takes the socket over, and the page.

        Cancelling it ends the call with the reason "cancelled"; once the call is ending, that has its own deadlines and is
        not cut short, or one of the two connections would be left open.
        """
        reason = EndReason("cancelled", "the call's task was cancelled")
        try:
            self._sock = sock
            refused = await (self._accept(sock) if self._resumed is None else self._resume(sock, self._resumed))
            reason = refused or await self._converse()
        except Exception as error:  # noqa: BLE001 - one call's fault must not reach another's
            self._log.error("call_failed", error=type(error).__name__, text=str(error))
            reason = EndReason("internal_error", "the call failed", getattr(error, "code", type(error).__name__))
        finally:
            await _whole(asyncio.ensure_future(self._finish(reason)))
            if self._leg is None:
                # Nobody came to own it.
                sock.close()
            if self._parts.page is not None:
                # Nothing is remembered any more. A leg that never opened may have its last callback before it.
                self._memory = None
                asyncio.get_running_loop().call_soon(self._parts.page.close)
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
        self.remember()
        if self._parts.journal is not None and self._session is not None:
            self._parts.journal.event(event, self._session)

    def on_first_audio(self, seconds: float) -> None:
        """The agent began to answer (called by the session)."""
        self._metrics.observe(names.FIRST_AUDIO_SECONDS, seconds)
        self._record.timings.first_audio_ms.append(round(seconds * 1000, 1))

    def on_speech(self, *, speaking: bool) -> None:
        """The caller began or stopped to speak (called by the session)."""
        self._speech_started_at = time.monotonic() if speaking else None
        self.remember()

    def on_renewing(self, cause: str) -> None:
        """The connection to the model is being made anew (called by the session)."""
        self._model_away = True
        self._log.warning("model_renewing", cause=cause)
        self.remember()
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

    @property
    def _resumed(self) -> Lost | None:
        """How the call lost the owner whose work is gone on with; None for one whose caller was never answered."""
        page, lost = self._parts.page, self._parts.given.lost
        return lost if page is not None and page.opened else None

    async def _resume(self, sock: socket.socket, lost: Lost) -> EndReason | None:
        """Go on with the caller of a former owner; returns why there is no call when the caller has left meanwhile."""
        page = self._parts.page
        if self._memory is not None:
            self._restore(self._memory)
        if lost.state is not None:
            self._prepare(lost.state)
        try:
            self._leg = await resume(sock, self._channel, side="server", options=self._channel.leg_options(), page=page)
        except LegClosedError as error:
            return EndReason("caller_lost", error.reason.text, error.reason.code, "caller")
        gap = time.monotonic() - lost.lost_at
        self._parts.reporter.recovered(self._parts.session_id, self.epoch, gap)
        self._log.warning("session_resumed", cause=lost.cause, epoch=self.epoch, gap_ms=round(gap * 1000, 1))
        if self._parts.journal is not None and lost.state is not None:
            self._parts.journal.leg("caller", "live", lost.cause)
        self._signal(SessionSignal.CONNECT)
        return None

    def _restore(self, memory: PageMemory) -> None:
        """Take up what the former owner remembered. What makes no sense is left out: the caller is still there."""
        channel, self._recalled = memory.find()
        if channel:
            try:
                self._channel.restore(channel)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._log.error("page_memory_refused", part="channel", error=type(error).__name__)

    def _resumption(self, state: CallState) -> Resumption:
        """Return where the session goes on. A response that was under way is cut at what its caller heard of it."""
        resumption = resumption_of(state, starting_agent=self._parts.agent)
        known = self._recalled
        if known is not None:
            # What is asked for in words of its own is asked for by the model, and answers what the caller has said.
            answered = bool(known.requests) and state.response_id is None
            unanswered = (resumption.unanswered or known.asked) and not answered
            resumption = msgspec.structs.replace(resumption, unanswered=unanswered)
        if state.response_id is None and state.cut_response is None:
            return resumption
        if known is not None and known.interrupted:
            resumption = msgspec.structs.replace(resumption, cut_response=None)
        cuts = {cut.item_id: cut for cut in self._channel.cut()}
        items = tuple(
            cut_item(item, cuts[item.item_id]) if isinstance(item, AssistantMessageItem) and item.item_id in cuts else item
            for item in resumption.items
        )
        return msgspec.structs.replace(resumption, items=items)

    def _prepare(self, state: CallState) -> None:
        """Make the conversation of a former owner, so that what its caller says is kept from now on."""
        self._model_away = True
        agent = self._parts.agent
        with contextlib.suppress(UserError):
            # One that is not there any more, as after an upgrade, leaves the call with the first.
            agent = find_agent(agent, state.agent)
        self._make_session(msgspec.json.decode(state.context), agent, state)
        if self._model is not None:
            self._channel.expect(self._model)

    async def _accept(self, sock: socket.socket) -> EndReason | None:
        """Answer the handshake; returns why there is no call when the caller sent no upgrade or left before."""
        try:
            self._leg = await accept(
                sock,
                self._parts.given.head,
                self._channel,
                options=self._channel.leg_options(),
                subprotocol=self._channel.subprotocol,
                page=self._parts.page,
            )
        except Refused as error:
            return EndReason(error.reason, error.message, error.code, "caller")
        except LegClosedError as error:
            return EndReason("caller_lost", error.reason.text, error.reason.code, "caller")
        seconds = time.monotonic() - self._parts.given.accepted_at
        self._record.timings.accept_to_101_ms = round(seconds * 1000, 3)
        self._parts.reporter.up(self._parts.session_id, seconds)
        self._log.info("session_started", peer=self._parts.given.peer, accept_to_101_ms=round(seconds * 1000, 3))
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
        both: set[asyncio.Future[Any]] = {self._ended, self._release_asked}
        await asyncio.wait(both, timeout=self._time_left, return_when=asyncio.FIRST_COMPLETED)
        if self._release_asked.done() and not self._ended.done():
            await self._let_go()
            if not self._ended.done():
                await asyncio.wait({self._ended}, timeout=self._time_left)
        return self._reason() or EndReason("max_duration", "the call reached the longest time that it may last")

    @property
    def _time_left(self) -> float:
        """Seconds that the call may still last: what it has lasted with its former owners counts."""
        most, given = self._settings.max_call_seconds, self._parts.given
        return most if given.lost is None else max(0.0, most - (time.monotonic() - given.accepted_at))

    async def _let_go(self) -> None:
        """Wait for a quiet moment, as far as there is time, and leave the call to its next owner."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + QUIET_WITHIN
        while not (self._ended.done() or self._is_quiet) and loop.time() < give_up_at:
            await asyncio.wait({self._ended}, timeout=LOOK_EVERY)
        if isinstance(self._leg, WebSocketLeg) and not self._ended.done():
            self.remember()
            try:
                self._leg.detach()
            except UserError:
                # It is being closed, or the caller does not read: whoever wants the call then takes it by force.
                self._log.warning("release_refused", state=self._leg.state.value)
                return
            if self._parts.page is not None:
                # The model goes on for a moment, and must not write into what is another owner's.
                self._memory = None
                self._parts.page.let_go()
            self.released = True
            self.end(EndReason("released", "the call goes on with another owner"))
            if self._parts.journal is not None:
                # From here on nothing of what this process does is the call's.
                self._parts.journal.leave()
            # Before the model is left, which may take a moment: the caller is waiting.
            self._parts.reporter.released(self._parts.session_id)

    @property
    def _is_quiet(self) -> bool:
        """Would nothing be cut if another owner went on from here?"""
        session = self._session
        return session is not None and session.is_quiet and self._speech_started_at is None

    async def _connect_model(self, caller: dict[str, Any]) -> None:
        if self._session is None:
            # What we know stands above what the caller's side says.
            context = {**caller, "session_id": self._parts.session_id, "channel": self._channel.name}
            if self._parts.journal is not None:
                agent, peer = self._parts.agent.name, self._parts.given.peer
                self._parts.journal.started(channel=self._channel.name, agent=agent, context=context, peer=peer)
            self._make_session(context, self._parts.agent, None)
        if self._session is None or self._model is None:
            raise AssertionError("a session was made just now")
        started = time.monotonic()
        await self._session.enter()
        # No event of the model can have come since: nothing was awaited after the connection was there. What the caller said
        # in the meantime is handed over and no longer remembered at once, or another owner would hand it over again.
        with self._as_one():
            self._channel.live(self._model)
            self.remember()
        seconds = time.monotonic() - started
        self._metrics.observe(names.MODEL_CONNECT_SECONDS, seconds)
        self._record.timings.model_connect_ms = round(seconds * 1000, 1)

    def _as_one(self) -> contextlib.AbstractContextManager[None]:
        return self._leg.as_one() if isinstance(self._leg, WebSocketLeg) else contextlib.nullcontext()

    def _make_session(self, context: Any, agent: RealtimeAgent[Any], state: CallState | None) -> None:
        """Make the session and its model, unconnected; with a `state` they go on where a former owner's were."""
        settings, renewal, page = self._settings, self._parts.renewal, self._parts.page
        if page is not None:
            renewal = dataclasses.replace(renewal, make_store=lambda: page.audio)
        memory = None
        if state is not None:
            memory = self._recalled or ModelMemory.empty()
        model = OpenAIRealtimeWebSocketModel(
            transport_config={"max_size": settings.model_max_message, "handshake_timeout": settings.model_open_timeout},
            playback=self._channel.playback,
            response_timeout=settings.response_timeout,
            metrics=self._metrics,
            dial=self._parts.dial,
            renewal=renewal,
            memory=memory,
        )
        run_settings = self._parts.run_config.get("model_settings") or {}
        config: RealtimeModelConfig = {
            # Where the model is, and by which key, is the affair of the renewal's endpoints.
            "initial_model_settings": _overlay(  # type: ignore[typeddict-item]
                run_settings, {**self._channel.model_settings(), "model_name": settings.model_name}
            ),
        }
        self._session = RealtimeSession(
            model,
            agent,
            context,
            config,
            self._parts.run_config,
            resumption=None if state is None else self._resumption(state),
            session_id=self._parts.session_id,
            tool_runner=self._parts.tool_runner,
            tool_timeout=settings.tool_timeout,
            observer=self,
            ledger=self._parts.journal,
        )
        self._model = model

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
            if self._leg is not None and not self.released:
                # First, so that the caller waits neither for a tool nor for a model that does not answer.
                self._channel.tell_failure(reason)
                self._leg.close(_CLOSE_CODES.get(reason.code, 1000), reason.text)
            if self._session is not None:
                await self._session.close()
            if self._leg is not None:
                await self._leg.wait_closed()
        finally:
            self._record.ended(reason, history, time.monotonic())
            if self._parts.journal is not None and self._parts.journal.tail.state.last_seq and not self.released:
                self._parts.journal.ended(reason, history)
            self._machine.signal(SessionSignal.END)
            if not self.released:
                self._parts.reporter.state_changed(self._parts.session_id, self.state.value)
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
