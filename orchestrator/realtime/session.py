"""A live conversation: the shell that performs what the session core decides.

Its parts share `Inside`: `EventHub` delivers events, `ToolCalling` runs tools, `Guarding` checks what is said, `HooksCaller`
calls the program's hooks. Agent audio passes through in the callback that brings it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, assert_never

from orchestrator.core.commands import (
    AnswerTool,
    AudioCut,
    AudioEnded,
    Ended,
    Fault,
    HistoryChanged,
    ItemAdded,
    Renewed,
    Renewing,
    SessionCommand,
    SpeechBegan,
    SpeechEnded,
    StartTool,
    TimedOut,
    TurnBegan,
    TurnEnded,
    Used,
)
from orchestrator.core.events import (
    RealtimeModelAudioEvent,
    RealtimeModelEvent,
    RealtimeModelOutputTextDeltaEvent,
    RealtimeModelTranscriptDeltaEvent,
)
from orchestrator.core.inputs import (
    RealtimeModelSendAudio,
    RealtimeModelSendEvent,
    RealtimeModelSendInterrupt,
    RealtimeModelSendUserInput,
)
from orchestrator.core.items import RealtimeItem
from orchestrator.core.states import ToolCallState
from orchestrator.core.turn import FirstAudio
from orchestrator.errors import SettingsRefusedError, UserError
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.agent_switch import AgentSwitch
from orchestrator.realtime.dispatch import agent_settings
from orchestrator.realtime.event_hub import EventHub, SessionObserver
from orchestrator.realtime.events import (
    RealtimeAgentEndEvent,
    RealtimeAgentStartEvent,
    RealtimeAudio,
    RealtimeAudioEnd,
    RealtimeAudioInterrupted,
    RealtimeHistoryAdded,
    RealtimeHistoryUpdated,
    RealtimeInputAudioTimeoutTriggered,
    RealtimeRawModelEvent,
    RealtimeSessionEvent,
    RealtimeTranscriptDelta,
)
from orchestrator.realtime.guarding import Guarding
from orchestrator.realtime.handing_off import HandingOff
from orchestrator.realtime.hooks_caller import HooksCaller
from orchestrator.realtime.inside import Inside
from orchestrator.realtime.model import (
    DirectModel,
    RealtimeModel,
    RealtimeModelConfig,
    RealtimeModelListener,
    RenewableModel,
)
from orchestrator.realtime.resuming import answer_known, resume_calls
from orchestrator.realtime.resumption import REJECTION_MESSAGE, Resumption, plan_resumption
from orchestrator.realtime.seeding import plan_seed
from orchestrator.realtime.sender import Sender
from orchestrator.realtime.tool_calling import ToolCalling
from orchestrator.realtime.tool_ledger import ToolLedger
from orchestrator.realtime.user_input import text_of
from orchestrator.tool_runner import ToolRunner
from orchestrator.usage import Usage

__all__ = ["REJECTION_MESSAGE", "RealtimeSession", "SessionObserver"]

CLOSE_GRACE = 1.0


class RealtimeSession(RealtimeModelListener):
    """One conversation. Use it as `async with session:`, iterate over its events, send to it.

    All of it belongs to one event loop. `history` begins the conversation with the items of an earlier one; `resumption` goes
    on where an earlier session was left, with its open tool calls, and `agent` is then the one that spoke (raises UserError for
    both, and for two items with one id). `tool_runner` runs the tools that are not bound to the session's own process; without
    one all run here. `ledger` hears of every step of a tool call before it has any effect.
    """

    def __init__(
        self,
        model: RealtimeModel,
        agent: RealtimeAgent[Any],
        context: Any = None,
        model_config: RealtimeModelConfig | None = None,
        run_config: Any = None,
        *,
        history: Iterable[RealtimeItem] = (),
        resumption: Resumption | None = None,
        session_id: str = "",
        tool_runner: ToolRunner | None = None,
        tool_timeout: float | None = None,
        observer: SessionObserver | None = None,
        ledger: ToolLedger | None = None,
    ) -> None:
        self._model = model
        # Found out once: the check looks at every method, and caller audio comes fifty times a second.
        self._direct = model if isinstance(model, DirectModel) else None
        self._model_config: RealtimeModelConfig = model_config or {}
        history = tuple(history)
        if history and resumption is not None:
            raise UserError("a session goes on with a history or with a resumption, which has one itself: give one of the two")
        self._resumption = resumption
        self._plan = None if resumption is None else plan_resumption(resumption)
        self._seed = plan_seed(history) if self._plan is None else self._plan.seed
        self._hub = EventHub(observer)
        self._inside = Inside(
            agent,
            context,
            run_config or {},
            session_id,
            self._hub,
            self._perform,
            self._submit,
            self._send_inside,
            hold_answers=self._direct is None,
            ledger=ledger,
        )
        self._inside.core.conversation.seed(self._seed.items)
        if resumption is not None:
            self._inside.context.usage.add(resumption.usage)
        self._hooks = HooksCaller(self._inside)
        self._switch = AgentSwitch(self._inside)
        handing_off = HandingOff(self._inside, self._hooks, self._switch)
        self._tools = ToolCalling(self._inside, self._hooks, handing_off, tool_runner, tool_timeout)
        self._guarding = Guarding(self._inside)
        self._sender: Sender | None = None
        self._entered = False
        # The end under way, or the last try to end; done without an error when the model has been left for good.
        self._closing: asyncio.Task[None] | None = None
        self._ended = False

    @property
    def model(self) -> RealtimeModel:
        """The transport, for listeners and raw messages."""
        return self._model

    @property
    def history(self) -> list[RealtimeItem]:
        """The conversation so far; a snapshot."""
        return self._inside.core.conversation.items

    @property
    def current_agent(self) -> RealtimeAgent[Any]:
        """The agent that speaks now."""
        return self._inside.agent

    @property
    def active_response(self) -> str | None:
        """The id of the response under way, or None."""
        return self._inside.core.active_response

    @property
    def usage(self) -> Usage:
        """Tokens used so far."""
        return self._inside.context.usage

    @property
    def is_quiet(self) -> bool:
        """Is nothing under way that would be lost with this process: no response, and no tool call but those that wait for a
        person? What the caller says meanwhile is another matter."""
        core = self._inside.core
        waits = all(call.state is ToolCallState.AWAITING_APPROVAL for call in core.tool_calls.open)
        return core.active_response is None and waits

    @property
    def wants_raw(self) -> bool:
        """Does anybody read this session's events? Tells the model whether to report the server's raw ones."""
        return self._hub.has_readers

    async def __aenter__(self) -> RealtimeSession:
        await self.enter()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def enter(self) -> RealtimeSession:
        """Connect to the model with the agent's settings. `close` is then the caller's duty.

        Raises what the model's `connect` raises, and UserError for a second call or two tools of one name.
        """
        if self._entered:
            raise UserError("the session was entered before: a session is one conversation, so make a new one")
        self._entered = True
        inside = self._inside
        if self._plan is not None:
            answer_known(inside, self._plan)
        initial = self._model_config.get("initial_model_settings") or {}
        inside.base_settings = {**(inside.run_config.get("model_settings") or {}), **initial}
        settings, table = await agent_settings(inside.agent, inside.context, inside.base_settings, initial)
        if inside.run_config.get("tracing_disabled"):
            settings["tracing"] = None
        inside.table = table
        if self._direct is None:
            self._sender = Sender(self._model, inside.fault)
        self._hub.open()
        if isinstance(self._model, RenewableModel):
            self._model.follow(lambda: self._inside.core.conversation.items)
        self._model.add_listener(self)
        config: RealtimeModelConfig = {**self._model_config, "initial_model_settings": settings}  # type: ignore[typeddict-item]
        # The model of a call that is joined was chosen by who accepted it.
        name = settings.get("model_name") or (None if "call_id" in config else getattr(self._model, "model", None))
        provider = getattr(self._model, "provider_name", None)
        inside.spans.session_began(agent=inside.agent.name, model=name, provider=provider)
        try:
            await self._model.connect(config)
        except BaseException as error:
            inside.spans.session_ended(error)
            self._model.remove_listener(self)
            if self._sender is not None:
                await self._sender.aclose()
            raise
        try:
            await self._seed_model()
        except BaseException:
            await self.close()
            raise
        self._hub.emit(RealtimeHistoryUpdated(self.history, inside.info))
        if self._resumption is not None and self._plan is not None:
            resume_calls(inside, self._tools, self._resumption, self._plan)
        return self

    async def _seed_model(self) -> None:
        told = isinstance(self._model, RenewableModel) and self._model.tells_history
        for message in () if told else self._seed.messages:
            if self._sender is None:
                self._submit(message)
            else:
                await self._sender.queue(message)
        if self._inside.closed:
            # A model that cannot stop in the middle of connecting is connected now.
            await self._model.close()
            raise UserError("the session was closed while it was entered")

    async def close(self) -> None:
        """End the conversation: loops end, running tools are cancelled, queued hooks are called, the connection is closed.

        The end is one task that all who close share: cancelling a call of this leaves it under way. Idempotent. Raises what the
        model's `close` raises; a further call then tries again. A tool, guardrail or hook that calls this is cancelled by it.
        """
        closing = self._closing
        if closing is None or (closing.done() and (closing.cancelled() or closing.exception() is not None)):
            self._inside.closed = True
            self._model.remove_listener(self)
            self._inside.core.tool_calls.drop_all()
            self._hub.close()
            closing = self._closing = asyncio.get_running_loop().create_task(self._end(), name="session end")
        if closing is not asyncio.current_task():
            await asyncio.wait({closing})
            closing.result()

    async def _end(self) -> None:
        await asyncio.gather(self._inside.tasks.aclose(CLOSE_GRACE), self._hooks.aclose(CLOSE_GRACE))
        if self._sender is not None:
            await self._sender.aclose()
        await self._model.close()
        self._inside.spans.session_ended()

    def __aiter__(self) -> AsyncIterator[RealtimeSessionEvent]:
        """Iterate over the events. The first loop also sees what came before it, and a loop that follows another goes on
        where that one was left; loops that run at the same time each see every event.
        """
        return self._hub.iterate()

    async def send_message(self, message: Any) -> None:
        """Send a user message, text or structured, and ask for the answer."""
        text = text_of(message)
        self._inside.spans.user_said(text)
        await self._send(RealtimeModelSendUserInput(message))
        self._guarding.check_input(text)

    async def send_audio(self, audio: bytes, *, commit: bool = False) -> None:
        """Send caller audio in the input format; `commit` ends the turn where turn detection is off."""
        if commit:
            self._inside.spans.user_said(None)
        await self._send(RealtimeModelSendAudio(audio, commit))

    async def interrupt(self) -> None:
        """Stop what the agent is saying, and cut the conversation at what was heard."""
        await self._send(RealtimeModelSendInterrupt())

    async def update_agent(self, agent: RealtimeAgent[Any]) -> None:
        """Let another agent take over, with its instructions, tools and handoffs.

        Raises what the agent's own functions raise; the old agent then stays. So it does when the endpoint refuses the new
        settings, which it says later: an `error` event then brings a SettingsRefusedError.
        """
        prepared = await self._switch.prepare(agent)
        self._refuse_closed()
        await self._switch.make(prepared)

    async def renew_model(self, cause: str = "demanded") -> None:
        """Replace the connection to the model at the next quiet moment: another is opened and told of the conversation first.

        Returns at once, and the program notices nothing more. `cause` is a short code for metrics. Raises UserError where the
        model cannot do this: it must have been made with `renewal`, or with `transport_config={"renew": True}`.
        """
        self._refuse_closed()
        if not isinstance(self._model, RenewableModel):
            raise UserError("this model cannot renew its connection")
        self._model.renew(cause)

    async def approve_tool_call(self, call_id: str, *, always: bool = False) -> None:
        """Let a tool call that waits run; `always` does so for all further calls of this tool by this agent.

        Nothing happens when no such call waits.
        """
        self._tools.approve(call_id, always=always)

    async def reject_tool_call(self, call_id: str, *, always: bool = False, rejection_message: str | None = None) -> None:
        """Answer a tool call that waits without running it; `always` does so for all further calls too.

        The model is told `rejection_message`, else what the run's `tool_error_formatter` says, else `REJECTION_MESSAGE`.
        """
        await self._tools.reject(call_id, always=always, message=rejection_message)

    async def on_event(self, event: RealtimeModelEvent) -> None:
        """Take in a model event from a model that awaits its listeners."""
        self.receive_nowait(event)

    def receive_nowait(self, event: RealtimeModelEvent) -> None:
        """Take in a model event."""
        inside = self._inside
        if inside.closed:
            return
        if self._hub.has_readers:
            self._hub.emit_to_readers(RealtimeRawModelEvent(event, inside.info))
        now = asyncio.get_running_loop().time()
        if type(event) is RealtimeModelAudioEvent:
            first = inside.core.audio(event, now)
            self._hub.emit(RealtimeAudio(event, event.item_id, event.content_index, inside.info))
            if first is not None:
                self._on_first_audio(first, event, now)
            return
        inside.spans.watch(event, agent=inside.agent.name, now=now)
        self._perform(inside.core.receive(event, now))
        if isinstance(event, RealtimeModelTranscriptDeltaEvent | RealtimeModelOutputTextDeltaEvent) and self._hub.has_readers:
            self._hub.emit_to_readers(RealtimeTranscriptDelta(event.item_id, event.content_index, event.delta, inside.info))
        self._guarding.watch(event)

    def _on_first_audio(self, first: FirstAudio, event: RealtimeModelAudioEvent, now: float) -> None:
        self._inside.spans.first_audio(first, response_id=event.response_id, now=now)
        if first.seconds_after_speech is not None and self._hub.observer is not None:
            self._hub.observer.on_first_audio(first.seconds_after_speech)

    def _perform(self, commands: list[SessionCommand]) -> None:
        inside, emit = self._inside, self._hub.emit
        for command in commands:
            match command:
                case ItemAdded(item):
                    emit(RealtimeHistoryAdded(item, inside.info))
                case HistoryChanged():
                    emit(RealtimeHistoryUpdated(self.history, inside.info))
                case TurnBegan():
                    inside.speaking = inside.table
                    emit(RealtimeAgentStartEvent(inside.speaking.agent, inside.info))
                    self._hooks.agent_started(inside.speaking.agent)
                case TurnEnded():
                    emit(RealtimeAgentEndEvent(inside.speaking.agent, inside.info))
                    self._hooks.agent_ended(inside.speaking.agent, self.history[-1] if self.history else None)
                case AudioCut(item_id, content_index, cut):
                    emit(RealtimeAudioInterrupted(inside.info, item_id, content_index, cut))
                case AudioEnded(item_id, content_index):
                    emit(RealtimeAudioEnd(inside.info, item_id, content_index))
                case SpeechBegan() | SpeechEnded():
                    if self._hub.observer is not None:
                        self._hub.observer.on_speech(speaking=isinstance(command, SpeechBegan))
                case StartTool(call):
                    self._tools.start(call)
                case AnswerTool(answer):
                    self._tools.answer(answer)
                case Used(usage):
                    inside.context.usage.add(usage)
                case Fault(error):
                    if isinstance(error, SettingsRefusedError):
                        self._switch.refused(error)
                    inside.fault(error)
                case TimedOut():
                    emit(RealtimeInputAudioTimeoutTriggered(inside.info))
                case Renewing(cause):
                    if self._hub.observer is not None:
                        self._hub.observer.on_renewing(cause)
                case Renewed(seconds, cause):
                    if self._hub.observer is not None:
                        self._hub.observer.on_renewed(seconds, cause)
                case Ended(exception):
                    self._ended = True
                    inside.spans.model_lost(exception)
                    self._hub.close(exception)
                    if self._hub.observer is not None:
                        self._hub.observer.on_ended(exception)
                case _:
                    assert_never(command)

    async def _send(self, event: RealtimeModelSendEvent) -> None:
        self._refuse_closed()
        await self._send_inside(event)

    def _refuse_closed(self) -> None:
        if self._inside.closed or not self._entered:
            raise UserError("the session is not open: send inside `async with session`")

    async def _send_inside(self, event: RealtimeModelSendEvent) -> None:
        if self._sender is None:
            self._submit(event)
        else:
            await self._sender.send(event)

    def _submit(self, event: RealtimeModelSendEvent, sent: Callable[[], None] | None = None) -> None:
        """Send from a place that must not wait."""
        if self._sender is not None:
            self._sender.put(event, sent)
        elif self._direct is not None and not self._ended:
            self._direct.send_nowait(event)
            if sent is not None:
                sent()
