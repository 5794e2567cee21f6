"""A session as OpenTelemetry spans: session, turns, responses, tool calls, handoffs, guardrails.

A turn begins with the end of the user's speech or with a message, and ends with the response that calls no more tools. Tool
calls, handoffs and guardrails are children of their turn and not of the response, which is over before most of them run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from orchestrator.core.events import (
    RealtimeModelAudioInterruptedEvent,
    RealtimeModelErrorEvent,
    RealtimeModelEvent,
    RealtimeModelInputAudioTranscriptionCompletedEvent,
    RealtimeModelOutputTextDeltaEvent,
    RealtimeModelSpeechStoppedEvent,
    RealtimeModelToolCallEvent,
    RealtimeModelTranscriptDeltaEvent,
    RealtimeModelTurnEndedEvent,
    RealtimeModelTurnStartedEvent,
    RealtimeModelUsageEvent,
)
from orchestrator.core.tool_calls import ToolCall
from orchestrator.core.turn import FirstAudio
from orchestrator.realtime.tracing import Spans, Step
from orchestrator.telemetry import span_names as names
from orchestrator.usage import Usage

__all__ = ["OtelSpans", "find_tracer"]

# Responses whose turn is remembered, for tools and guardrails that come after their end.
MAX_REMEMBERED = 64


def find_tracer(provider: Any = None) -> Tracer | None:
    """Return the tracer of the given provider, else of the program's own; None when it has set up none."""
    provider = provider or trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    return trace.get_tracer(names.SCOPE, tracer_provider=provider)


@dataclass(slots=True, eq=False)
class _Turn:
    span: Span
    context: Context
    # Responses under way, and whether there was any.
    active: int = 0
    answered: bool = False
    # The item whose transcript is the user's part, as far as speech began the turn.
    item_id: str | None = None


@dataclass(slots=True, eq=False)
class _Response:
    span: Span
    turn: _Turn
    began: float
    calls_tools: bool = False
    over: bool = False
    output_type: str | None = None
    words: list[str] = field(default_factory=list)


class _OtelStep(Step):
    def __init__(self, span: Span, *, with_content: bool) -> None:
        self._span = span
        self._with_content = with_content
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, trace.set_span_in_context(span))
        self.traceparent = carrier.get("traceparent")

    def finished(self, *, error: str | None = None, **about: Any) -> None:
        for name, value in about.items():
            key = _ABOUT[name]
            if value is not None and (self._with_content or key not in names.CONTENT):
                self._span.set_attribute(key, value)
        if error is not None:
            _failed(self._span, error)


# What a step may say of its end.
_ABOUT = {"result": names.TOOL_RESULT, "target": names.HANDOFF_TO, "tripped": names.GUARDRAIL_TRIPPED}


class OtelSpans(Spans):
    """The spans of one session. All of it belongs to the session's event loop."""

    def __init__(self, tracer: Tracer, session_id: str, *, with_content: bool) -> None:
        self._tracer = tracer
        self._session_id = session_id
        self._with_content = with_content
        self._session: Span | None = None
        self._context: Context | None = None
        self._common: dict[str, str] = {}
        self._model = ""
        # The turn that the next response belongs to.
        self._turn: _Turn | None = None
        self._open: list[_Turn] = []
        self._responses: dict[str | None, _Response] = {}
        self._usage = Usage()

    def session_began(self, *, agent: str, model: str | None, provider: str | None) -> None:
        """Open the session's span, as a child of what the program is doing."""
        about = {names.CONVERSATION_ID: self._session_id, names.PROVIDER: provider, names.REQUEST_MODEL: model}
        self._common = {name: value for name, value in about.items() if value}
        self._model = model or ""
        attributes = self._common | {names.OPERATION: names.INVOKE_AGENT, names.AGENT_NAME: agent}
        self._session = self._tracer.start_span(f"{names.INVOKE_AGENT} {agent}", attributes=attributes)
        self._context = trace.set_span_in_context(self._session)

    def session_ended(self, exception: BaseException | None = None) -> None:
        """Close all that is open."""
        session, self._session = self._session, None
        if session is None:
            return
        for response in self._responses.values():
            if not response.over:
                response.span.end()
        for turn in self._open:
            turn.span.end()
        self._responses.clear()
        self._open.clear()
        self._turn = None
        session.set_attributes(_usage_attributes(self._usage))
        if exception is not None:
            _failed(session, _error_type(exception))
        session.end()

    def model_lost(self, exception: Exception | None) -> None:
        """Mark the session as failed, if it was no end in good order."""
        if self._session is not None and exception is not None:
            _failed(self._session, _error_type(exception))

    def watch(self, event: RealtimeModelEvent, *, agent: str, now: float) -> None:
        """Take in a model event."""
        if self._session is None:
            return
        match event:
            case RealtimeModelTranscriptDeltaEvent(_, delta, response_id):
                self._on_words(response_id, delta, spoken=True)
            case RealtimeModelOutputTextDeltaEvent(_, delta, response_id):
                self._on_words(response_id, delta, spoken=False)
            case RealtimeModelSpeechStoppedEvent(item_id):
                self._begin_turn("speech").item_id = item_id
            case RealtimeModelTurnStartedEvent():
                self._on_started(event.response_id, agent, now)
            case RealtimeModelTurnEndedEvent():
                self._on_ended(event.response_id, event.status)
            case RealtimeModelUsageEvent():
                self._on_usage(event)
            case RealtimeModelToolCallEvent():
                response = self._responses.get(event.response_id)
                if response is not None:
                    response.calls_tools = True
            case RealtimeModelAudioInterruptedEvent(_, _, cut):
                self._note(names.INTERRUPTED, {} if cut is None else {names.HEARD_MS: cut.heard_ms})
            case RealtimeModelErrorEvent(error):
                self._note(names.ERROR, {names.ERROR_TYPE: _error_type(error)})
            case RealtimeModelInputAudioTranscriptionCompletedEvent(item_id, transcript):
                self._on_transcript(item_id, transcript)

    def user_said(self, text: str | None) -> None:
        """Begin a turn."""
        if self._session is None:
            return
        turn = self._begin_turn("message" if text is not None else "commit")
        if text is not None and self._with_content:
            turn.span.set_attribute(names.INPUT_MESSAGES, _message("user", text))

    def first_audio(self, first: FirstAudio, *, response_id: str, now: float) -> None:
        """Mark the moment at which the caller begins to hear the answer."""
        response = self._responses.get(response_id)
        if response is None or response.over:
            return
        seconds = first.seconds_after_speech
        response.turn.span.add_event(names.FIRST_AUDIO, {} if seconds is None else {names.SECONDS_AFTER_SPEECH: seconds})
        response.span.set_attribute(names.TIME_TO_FIRST_CHUNK, now - response.began)

    def approval_required(self, call: ToolCall) -> None:
        """Mark the moment at which the wait for a person begins."""
        about = {names.TOOL_NAME: call.name, names.TOOL_CALL_ID: call.call_id}
        self._note(names.TOOL_APPROVAL_REQUIRED, about, call.response_id)

    @contextmanager
    def tool(self, call: ToolCall, *, agent: str) -> Iterator[Step]:
        """Span the run of a tool, here or elsewhere."""
        attributes = {
            names.OPERATION: names.EXECUTE_TOOL,
            names.TOOL_NAME: call.name,
            names.TOOL_CALL_ID: call.call_id,
            names.TOOL_TYPE: "function",
            names.AGENT_NAME: agent,
        }
        if self._with_content:
            attributes[names.TOOL_ARGUMENTS] = call.arguments
        with self._step(f"{names.EXECUTE_TOOL} {call.name}", call.response_id, attributes) as step:
            yield step

    @contextmanager
    def handoff(self, call: ToolCall, *, source: str) -> Iterator[Step]:
        """Span a handoff from the model's call to the switch."""
        attributes = {names.HANDOFF_FROM: source, names.TOOL_CALL_ID: call.call_id}
        with self._step(names.HANDOFF, call.response_id, attributes) as step:
            yield step

    @contextmanager
    def guardrails(self, names_: list[str], *, stage: str, response_id: str | None) -> Iterator[Step]:
        """Span one look of the guardrails at a text."""
        attributes = {names.GUARDRAIL_NAMES: names_, names.GUARDRAIL_STAGE: stage}
        with self._step(names.GUARDRAIL, response_id, attributes) as step:
            yield step

    @contextmanager
    def _step(self, name: str, response_id: str | None, attributes: Any) -> Iterator[Step]:
        turn = self._turn_of(response_id)
        parent = self._context if turn is None else turn.context
        span = self._tracer.start_span(name, context=parent, attributes=self._common | attributes)
        # What the program raises is its own affair: its text may hold what was said.
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield _OtelStep(span, with_content=self._with_content)
            except BaseException as error:
                _failed(span, _error_type(error))
                raise

    def _begin_turn(self, trigger: str) -> _Turn:
        turn = self._turn
        if turn is not None and not turn.answered:
            # It goes on: nobody has answered what was said so far.
            turn.span.add_event(names.INPUT, {names.TURN_TRIGGER: trigger})
            return turn
        if turn is not None and not turn.active:
            self._end_turn(turn)
        return self._new_turn(trigger)

    def _new_turn(self, trigger: str) -> _Turn:
        attributes = self._common | {names.TURN_TRIGGER: trigger}
        span = self._tracer.start_span(names.TURN, context=self._context, attributes=attributes)
        turn = self._turn = _Turn(span, trace.set_span_in_context(span))
        self._open.append(turn)
        return turn

    def _end_turn(self, turn: _Turn) -> None:
        if turn in self._open:
            self._open.remove(turn)
            turn.span.end()
        if self._turn is turn:
            self._turn = None

    def _turn_of(self, response_id: str | None) -> _Turn | None:
        response = self._responses.get(response_id)
        return self._turn if response is None else response.turn

    def _on_started(self, response_id: str | None, agent: str, now: float) -> None:
        self._on_ended(response_id, None)  # A model without ids has all its responses under one.
        turn = self._turn or self._new_turn("agent")
        attributes: dict[str, Any] = self._common | {names.OPERATION: names.GENERATE, names.AGENT_NAME: agent}
        if response_id is not None:
            attributes[names.RESPONSE_ID] = response_id
        name = f"{names.GENERATE} {self._model}".strip()
        span = self._tracer.start_span(name, context=turn.context, kind=SpanKind.CLIENT, attributes=attributes)
        turn.active += 1
        turn.answered = True
        self._responses[response_id] = _Response(span, turn, now)
        if len(self._responses) > MAX_REMEMBERED:
            oldest = next(iter(self._responses))
            self._on_ended(oldest, None)
            del self._responses[oldest]

    def _on_words(self, response_id: str, delta: str, *, spoken: bool) -> None:
        response = self._responses.get(response_id)
        if response is None:
            return
        response.output_type = "speech" if spoken else response.output_type or "text"
        if self._with_content:
            response.words.append(delta)

    def _on_usage(self, event: RealtimeModelUsageEvent) -> None:
        usage = Usage(event.usage.requests, event.usage.input_tokens, event.usage.output_tokens, event.usage.total_tokens)
        if event.input_tokens_details is not None:
            usage.input_tokens_details = event.input_tokens_details
        if event.output_tokens_details is not None:
            usage.output_tokens_details = event.output_tokens_details
        self._usage.add(usage)
        response = self._responses.get(event.response_id)
        if response is not None and not response.over:
            response.span.set_attributes(_usage_attributes(usage))

    def _on_ended(self, response_id: str | None, status: str | None) -> None:
        response = self._responses.get(response_id)
        if response is None or response.over:
            return
        response.over = True
        if status is not None:
            response.span.set_attribute(names.FINISH_REASONS, [status])
        if response.output_type is not None:
            response.span.set_attribute(names.OUTPUT_TYPE, response.output_type)
        if response.words:
            response.span.set_attribute(names.OUTPUT_MESSAGES, _message("assistant", "".join(response.words), status))
        if status == "failed":
            _failed(response.span, "response_failed")
        response.span.end()
        turn = response.turn
        turn.active -= 1
        # A response that called tools is followed by one that uses their outputs, unless the user has gone on meanwhile.
        waits = response.calls_tools and status == "completed" and turn is self._turn
        if not turn.active and not waits:
            self._end_turn(turn)

    def _on_transcript(self, item_id: str, transcript: str) -> None:
        for turn in self._open:
            if turn.item_id == item_id and self._with_content:
                turn.span.set_attribute(names.INPUT_MESSAGES, _message("user", transcript))

    def _note(self, name: str, attributes: dict[str, Any], response_id: str | None = None) -> None:
        """Add an event to the turn, or to the session when there is none."""
        turn = self._turn_of(response_id)
        if turn is None or turn not in self._open:
            turn = self._open[-1] if self._open else None
        span = self._session if turn is None else turn.span
        if span is not None:
            span.add_event(name, attributes)


def _usage_attributes(usage: Usage) -> dict[str, int]:
    counts: dict[str, int | None] = {
        names.INPUT_TOKENS: usage.input_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.CACHED_TOKENS: usage.input_tokens_details.cached_tokens,
    }
    for direction, details in (("input", usage.input_tokens_details), ("output", usage.output_tokens_details)):
        for kind in ("text_tokens", "audio_tokens", "image_tokens"):
            counts[f"{names.USAGE_BY_MODALITY}.{direction}.{kind}"] = getattr(details, kind, None)
    return {name: count for name, count in counts.items() if count is not None}


def _message(role: str, text: str, finish_reason: str | None = None) -> str:
    """Return one message in the conventions' JSON form."""
    message: dict[str, Any] = {"role": role, "parts": [{"type": "text", "content": text}]}
    if finish_reason is not None:
        message["finish_reason"] = finish_reason
    return msgspec.json.encode([message]).decode()


def _failed(span: Span, error_type: str) -> None:
    span.set_attribute(names.ERROR_TYPE, error_type)
    span.set_status(Status(StatusCode.ERROR))


def _error_type(error: Any) -> str:
    """Return what kind of error it is, never its text."""
    code = error.get("code") if isinstance(error, dict) else getattr(error, "code", None)
    return code if isinstance(code, str) and code else type(error).__name__
