"""A live conversation: the shell that performs what the session core decides.

The shell owns the tasks (one per running tool, one sender where the model is asynchronous) and the streams of its iterators.
Agent audio passes through in the callback that brings it.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from typing import Any, Protocol, assert_never

from orchestrator.core.commands import (
    AnswerTool,
    AudioCut,
    AudioEnded,
    Ended,
    Fault,
    HistoryChanged,
    ItemAdded,
    SessionCommand,
    SpeechBegan,
    SpeechEnded,
    StartTool,
    TimedOut,
    TurnBegan,
    TurnEnded,
    Used,
)
from orchestrator.core.events import RealtimeModelAudioEvent, RealtimeModelEvent
from orchestrator.core.inputs import (
    RealtimeModelSendAudio,
    RealtimeModelSendEvent,
    RealtimeModelSendInterrupt,
    RealtimeModelSendToolOutput,
    RealtimeModelSendUserInput,
)
from orchestrator.core.items import RealtimeItem
from orchestrator.core.session import SessionCore
from orchestrator.core.tool_calls import Answer, ToolCall
from orchestrator.errors import UserError
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.event_stream import EventIterator, EventStream
from orchestrator.realtime.events import (
    RealtimeAgentEndEvent,
    RealtimeAgentStartEvent,
    RealtimeAudio,
    RealtimeAudioEnd,
    RealtimeAudioInterrupted,
    RealtimeError,
    RealtimeEventInfo,
    RealtimeHistoryAdded,
    RealtimeHistoryUpdated,
    RealtimeInputAudioTimeoutTriggered,
    RealtimeRawModelEvent,
    RealtimeSessionEvent,
    RealtimeToolEnd,
    RealtimeToolStart,
)
from orchestrator.realtime.model import DirectModel, RealtimeModel, RealtimeModelConfig, RealtimeModelListener
from orchestrator.realtime.sender import Sender
from orchestrator.run_context import RunContextWrapper
from orchestrator.tool import FunctionTool
from orchestrator.tool_context import ToolContext
from orchestrator.tool_runner import ToolReply, ToolRequest, ToolRunner, apply_context, pack_context, run_tool
from orchestrator.usage import Usage

__all__ = ["RealtimeSession", "SessionObserver"]

CLOSE_GRACE = 1.0


class SessionObserver(Protocol):
    """Hears a session in the very call that changes it; the way of a channel, which must not wait for a queue."""

    def on_session_event(self, event: RealtimeSessionEvent) -> None:
        """Take in an event. It must neither block nor raise."""

    def on_first_audio(self, seconds: float) -> None:
        """The agent's first audio came so long after the caller's turn ended."""

    def on_speech(self, *, speaking: bool) -> None:
        """The caller began or stopped to speak."""

    def on_ended(self, exception: Exception | None) -> None:
        """The model is gone."""


class RealtimeSession(RealtimeModelListener):
    """One conversation. Use it as `async with session:`, iterate over its events, send to it.

    All of it belongs to one event loop. `tool_runner` runs the tools that are not bound to the session's own process; without
    one all run here.
    """

    def __init__(
        self,
        model: RealtimeModel,
        agent: RealtimeAgent[Any],
        context: Any = None,
        model_config: RealtimeModelConfig | None = None,
        run_config: Any = None,
        *,
        session_id: str = "",
        tool_runner: ToolRunner | None = None,
        tool_timeout: float | None = None,
        observer: SessionObserver | None = None,
    ) -> None:
        self._model = model
        self._agent = agent
        self._context = RunContextWrapper(context)
        self._info = RealtimeEventInfo(self._context)
        self._model_config = model_config or {}
        self._run_config = run_config or {}
        self._session_id = session_id
        self._tool_runner = tool_runner
        self._tool_timeout = tool_timeout
        self._observer = observer
        self._core = SessionCore(agent.name)
        self._agents = {agent.name: agent}
        self._tools: dict[str, FunctionTool] = {}
        self._streams: list[EventStream] = []
        # What happened while nobody iterated: before the first loop, or between two. The next loop takes it over.
        self._backlog: EventStream | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sender: Sender | None = None
        self._entered = False
        self._closed = False
        self._ended: Ended | None = None

    @property
    def model(self) -> RealtimeModel:
        """The transport, for listeners and raw messages."""
        return self._model

    @property
    def history(self) -> list[RealtimeItem]:
        """The conversation so far; a snapshot."""
        return self._core.conversation.items

    @property
    def current_agent(self) -> RealtimeAgent[Any]:
        """The agent that speaks now."""
        return self._agent

    @property
    def usage(self) -> Usage:
        """Tokens used so far."""
        return self._context.usage

    @property
    def wants_raw(self) -> bool:
        """Does anybody read this session's events? Tells the model whether to report the server's raw ones."""
        return bool(self._streams)

    async def __aenter__(self) -> RealtimeSession:
        await self.enter()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def enter(self) -> RealtimeSession:
        """Connect to the model with the agent's settings. `close` is then the caller's duty.

        Raises what the model's `connect` raises, and UserError for a second call.
        """
        if self._entered:
            raise UserError("the session was entered before: a session is one conversation, so make a new one")
        self._entered = True
        settings = await self._settings()
        if not isinstance(self._model, DirectModel):
            self._sender = Sender(self._model, self._fault)
        if self._observer is None:
            self._backlog = EventStream()
            self._streams.append(self._backlog)
        self._model.add_listener(self)
        config: RealtimeModelConfig = {**self._model_config, "initial_model_settings": settings}  # type: ignore[typeddict-item]
        try:
            await self._model.connect(config)
        except BaseException:
            self._model.remove_listener(self)
            raise
        self._emit(RealtimeHistoryUpdated(self.history, self._info))
        return self

    async def close(self) -> None:
        """End the conversation: running tools are cancelled, the connection is closed, iterators end. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._model.remove_listener(self)
        self._core.tool_calls.drop_all()
        current = asyncio.current_task()
        tasks = {task for task in self._tasks if task is not current}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CLOSE_GRACE)
        try:
            if self._sender is not None:
                await self._sender.aclose()
            await self._model.close()
        finally:
            self._end_streams(None)

    def __aiter__(self) -> AsyncIterator[RealtimeSessionEvent]:
        """Iterate over the events. The first loop also sees what came before it, and a loop that follows another goes on
        where that one was left; loops that run at the same time each see every event.
        """
        stream, self._backlog = self._backlog, None
        if stream is None:
            stream = EventStream()
            if self._closed:
                stream.close()
            elif self._ended is not None:
                stream.close(self._ended.exception)
            else:
                self._streams.append(stream)
        return EventIterator(stream, self._take_back)

    def _take_back(self, stream: EventStream) -> None:
        if self._backlog is None:
            self._backlog = stream
        elif stream in self._streams:
            self._streams.remove(stream)

    async def send_message(self, message: Any) -> None:
        """Send a user message, text or structured, and ask for the answer."""
        await self._send(RealtimeModelSendUserInput(message))

    async def send_audio(self, audio: bytes, *, commit: bool = False) -> None:
        """Send caller audio in the input format; `commit` ends the turn where turn detection is off."""
        await self._send(RealtimeModelSendAudio(audio, commit))

    async def interrupt(self) -> None:
        """Stop what the agent is saying, and cut the conversation at what was heard."""
        await self._send(RealtimeModelSendInterrupt())

    async def on_event(self, event: RealtimeModelEvent) -> None:
        """Take in a model event from a model that awaits its listeners."""
        self.receive_nowait(event)

    def receive_nowait(self, event: RealtimeModelEvent) -> None:
        """Take in a model event."""
        if self._closed:
            return
        if self._streams:
            self._emit_to_streams(RealtimeRawModelEvent(event, self._info))
        now = asyncio.get_running_loop().time()
        if type(event) is RealtimeModelAudioEvent:
            seconds = self._core.audio(event, now)
            self._emit(RealtimeAudio(event, event.item_id, event.content_index, self._info))
            if seconds is not None and self._observer is not None:
                self._observer.on_first_audio(seconds)
            return
        self._perform(self._core.receive(event, now))

    def _perform(self, commands: list[SessionCommand]) -> None:
        for command in commands:
            match command:
                case ItemAdded(item):
                    self._emit(RealtimeHistoryAdded(item, self._info))
                case HistoryChanged():
                    if self._streams or self._observer is not None:
                        self._emit(RealtimeHistoryUpdated(self.history, self._info))
                case TurnBegan(agent):
                    self._emit(RealtimeAgentStartEvent(self._agents[agent], self._info))
                case TurnEnded(agent, _):
                    self._emit(RealtimeAgentEndEvent(self._agents[agent], self._info))
                case AudioCut(item_id, content_index, cut):
                    self._emit(RealtimeAudioInterrupted(self._info, item_id, content_index, cut))
                case AudioEnded(item_id, content_index):
                    self._emit(RealtimeAudioEnd(self._info, item_id, content_index))
                case SpeechBegan() | SpeechEnded():
                    if self._observer is not None:
                        self._observer.on_speech(speaking=isinstance(command, SpeechBegan))
                case StartTool(call):
                    self._start_tool(call)
                case AnswerTool(answer):
                    self._answer_tool(answer)
                case Used(usage):
                    self._context.usage.add(usage)
                case Fault(error):
                    self._fault(error)
                case TimedOut():
                    self._emit(RealtimeInputAudioTimeoutTriggered(self._info))
                case Ended(exception):
                    self._ended = command
                    self._end_streams(exception)
                    if self._observer is not None:
                        self._observer.on_ended(exception)
                case _:
                    assert_never(command)

    def _start_tool(self, call: ToolCall) -> None:
        tool = self._tools.get(call.name)
        if tool is None:
            self._perform(self._core.tool_finished(call.call_id, f"Tool {call.name} not found"))
            self._fault({"message": f"Tool {call.name} not found"})
            return
        self._core.tool_started(call.call_id)
        task = asyncio.get_running_loop().create_task(self._run_tool(tool, call), name=f"tool {call.name} {call.call_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _answer_tool(self, answer: Answer) -> None:
        self._submit(RealtimeModelSendToolOutput(answer.call, answer.output, answer.start_response))

    async def _run_tool(self, tool: FunctionTool, call: ToolCall) -> None:
        agent = self._agent
        self._emit(RealtimeToolStart(agent, tool, call.arguments, self._info, call.call_id))
        started = time.monotonic()
        if self._tool_runner is None or tool.run_on == "session":
            context = ToolContext(self._context.context, self._context.usage, call.name, call.call_id, call.arguments, agent)
            outcome = await run_tool(tool, context, call.arguments, self._tool_timeout)
            value = outcome.value
            reply = ToolReply(
                call_id=call.call_id,
                ok=outcome.ok,
                output=outcome.text,
                error_code=outcome.error_code,
                pid=os.getpid(),
                seconds=time.monotonic() - started,
            )
        else:
            reply = await self._run_remotely(self._tool_runner, agent.name, call)
            value = reply.output
            if reply.context:
                self._apply(reply.context)
        if self._closed:
            return
        self._perform(self._core.tool_finished(call.call_id, reply.output))
        self._emit(
            RealtimeToolEnd(
                agent,
                tool,
                call.arguments,
                value,
                self._info,
                call.call_id,
                ok=reply.ok,
                error_code=reply.error_code,
                pid=reply.pid,
                seconds=reply.seconds,
            )
        )

    async def _run_remotely(self, runner: ToolRunner, agent: str, call: ToolCall) -> ToolReply:
        try:
            context, context_type = pack_context(self._context.context)
        except UserError as error:
            text = f"The tool could not run: {error.message}"
            return ToolReply(call_id=call.call_id, ok=False, output=text, error_code=error.code, pid=os.getpid(), seconds=0.0)
        request = ToolRequest(
            call_id=call.call_id,
            session_id=self._session_id,
            agent=agent,
            tool=call.name,
            arguments=call.arguments,
            context=context,
            context_type=context_type,
            timeout_s=self._tool_timeout,
            idempotency_key=f"{self._session_id}:{call.call_id}",
        )
        return await runner.run(request)

    def _apply(self, changes: dict[str, Any]) -> None:
        try:
            apply_context(self._context.context, changes)
        except (AttributeError, TypeError, ValueError) as error:
            self._fault({"message": f"a tool's change of the context cannot be applied: {error}"})

    async def _settings(self) -> dict[str, Any]:
        """Return the run's settings, with the agent's instructions and tools, below what the caller set for the connection."""
        initial = self._model_config.get("initial_model_settings") or {}
        settings: dict[str, Any] = {**(self._run_config.get("model_settings") or {}), **initial}
        prompt, tools = await asyncio.gather(
            self._agent.get_system_prompt(self._context), self._agent.get_all_tools(self._context)
        )
        settings |= {"instructions": prompt or "", "tools": tools}
        if self._agent.prompt is not None:
            settings["prompt"] = self._agent.prompt
        settings |= initial
        self._tools = {tool.name: tool for tool in settings["tools"]}
        if len(self._tools) != len(settings["tools"]):
            names = sorted(tool.name for tool in settings["tools"])
            doubled = sorted({name for name in names if names.count(name) > 1})
            raise UserError(f"Duplicate Realtime tool name found: {', '.join(map(repr, doubled))}")
        return settings

    async def _send(self, event: RealtimeModelSendEvent) -> None:
        if self._closed or not self._entered:
            raise UserError("the session is not open: send inside `async with session`")
        if self._sender is None:
            self._submit(event)
        else:
            await self._model.send_event(event)

    def _submit(self, event: RealtimeModelSendEvent) -> None:
        if self._sender is not None:
            self._sender.put(event)
        elif isinstance(self._model, DirectModel) and self._ended is None:
            self._model.send_nowait(event)

    def _fault(self, error: Any) -> None:
        self._emit(RealtimeError(error, self._info))

    def _emit(self, event: RealtimeSessionEvent) -> None:
        self._emit_to_streams(event)
        if self._observer is not None:
            self._observer.on_session_event(event)

    def _emit_to_streams(self, event: RealtimeSessionEvent) -> None:
        for stream in self._streams:
            stream.put(event)

    def _end_streams(self, exception: Exception | None) -> None:
        for stream in self._streams:
            stream.close(exception)
        self._streams.clear()
