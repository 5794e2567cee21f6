"""Spans of a session, as an OpenTelemetry SDK sees them."""

from __future__ import annotations

import asyncio
import contextvars
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from orchestrator import function_tool
from orchestrator.decorators import input_guardrail, output_guardrail
from orchestrator.errors import LegClosedError
from orchestrator.guardrail import GuardrailFunctionOutput
from orchestrator.realtime import RealtimeAgent, RealtimeSession
from orchestrator.realtime.tracing import Spans, open_spans
from orchestrator.telemetry import span_names as names
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from orchestrator.tool_runner import InProcessToolRunner, ToolReply, ToolRequest, collect_tools
from tests.realtime.reading import Reader, until

MakeSession = Callable[..., RealtimeSession]


class Traces:
    """The spans of one test."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def config(self, **more: Any) -> dict[str, Any]:
        return {"tracer_provider": self.provider} | more

    @property
    def finished(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.finished if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    def tree(self) -> dict[str, Any]:
        """Names of spans and, inside, of their children, in the order in which they began."""
        spans = sorted(self.finished, key=lambda span: span.start_time or 0)

        def below(parent_id: int | None) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for span in spans:
                if (span.parent.span_id if span.parent else None) == parent_id:
                    name = span.name
                    while name in found:
                        name += "'"
                    found[name] = below(span.context.span_id)
            return found

        return below(None)


@pytest.fixture
def traces() -> Traces:
    return Traces()


def about(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


@function_tool
async def get_weather(city: str) -> str:
    with trace.get_tracer("tool").start_as_current_span("unseen"):
        return f"sunny in {city}"


def desk(*tools: Any, **options: Any) -> RealtimeAgent[Any]:
    return RealtimeAgent(name="Desk", tools=list(tools), **options)


async def test_a_turn_holds_its_responses_and_tools(
    make_session: MakeSession, endpoint: ScriptedEndpoint, traces: Traces
) -> None:
    async with make_session(desk(get_weather), run_config=traces.config(), session_id="s-1") as session:
        await session.send_message("What is the weather?")
        await endpoint.settle()
        endpoint.call_tools(("call_1", "get_weather", '{"city":"Oslo"}'))
        await endpoint.settle()
        endpoint.start_response("resp_2")
        endpoint.speak("Sunny.", 200, response_id="resp_2")
        endpoint.end_response("resp_2")
        await endpoint.settle()
        assert [span.name for span in traces.finished][-1] == "turn"
    model = "chat gpt-realtime-2.1"
    assert traces.tree() == {
        "invoke_agent Desk": {"turn": {model: {}, "execute_tool get_weather": {}, f"{model}'": {}}},
    }
    session_span = traces.one("invoke_agent Desk")
    assert about(session_span)[names.CONVERSATION_ID] == "s-1"
    assert about(session_span)[names.PROVIDER] == "openai"
    assert about(session_span)[names.REQUEST_MODEL] == "gpt-realtime-2.1"
    assert about(session_span)[names.INPUT_TOKENS] == 20
    first, second = traces.named(model)
    assert first.kind is SpanKind.CLIENT
    assert about(first)[names.RESPONSE_ID] == "resp_1"
    assert about(first)[names.FINISH_REASONS] == ("completed",)
    assert about(second)[names.OUTPUT_TYPE] == "speech"
    assert (about(second)[names.INPUT_TOKENS], about(second)[names.OUTPUT_TOKENS]) == (10, 20)
    tool = traces.one("execute_tool get_weather")
    assert about(tool)[names.TOOL_CALL_ID] == "call_1"
    assert about(tool)[names.AGENT_NAME] == "Desk"
    turn = traces.one("turn")
    assert about(turn)[names.TURN_TRIGGER] == "message"
    assert [event.name for event in turn.events] == [names.FIRST_AUDIO]
    assert all(span.status.status_code is not StatusCode.ERROR for span in traces.finished)


async def test_speech_begins_a_turn_and_the_first_audio_is_timed(
    make_session: MakeSession, endpoint: ScriptedEndpoint, traces: Traces
) -> None:
    async with make_session(run_config=traces.config()):
        endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
        await asyncio.sleep(1)
        endpoint.send("input_audio_buffer.speech_stopped", audio_end_ms=900, item_id="item_u")
        await asyncio.sleep(0.25)
        endpoint.start_response()
        await asyncio.sleep(0.5)
        endpoint.speak("one two three", 2000)
        await asyncio.sleep(0.5)
        endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_v")
        endpoint.end_response(status="cancelled")
        await endpoint.settle()
    turn = traces.one("turn")
    assert about(turn)[names.TURN_TRIGGER] == "speech"
    first, interrupted = turn.events
    assert first.name == names.FIRST_AUDIO
    assert (first.attributes or {})[names.SECONDS_AFTER_SPEECH] == pytest.approx(0.75, abs=0.02)
    assert interrupted.name == names.INTERRUPTED
    assert (interrupted.attributes or {})[names.HEARD_MS] == pytest.approx(500, abs=20)
    (response,) = [span for span in traces.finished if span.name.startswith("chat")]
    assert about(response)[names.FINISH_REASONS] == ("cancelled",)
    assert about(response)[names.TIME_TO_FIRST_CHUNK] == pytest.approx(0.5, abs=0.02)


async def test_each_turn_has_a_span_of_its_own(make_session: MakeSession, endpoint: ScriptedEndpoint, traces: Traces) -> None:
    async with make_session(run_config=traces.config()) as session:
        endpoint.start_response("greeting")
        endpoint.end_response("greeting")
        await endpoint.settle()
        await session.send_message("one")
        await endpoint.settle()
        endpoint.start_response("resp_1")
        await endpoint.settle()
        # While the first is answered, the user goes on: the answer to that is another turn's.
        await session.send_message("two")
        await session.send_message("three")
        endpoint.end_response("resp_1")
        endpoint.start_response("resp_2")
        endpoint.end_response("resp_2")
        await endpoint.settle()
        await session.send_audio(b"\x00\x00", commit=True)
        await endpoint.settle()
    turns = sorted(traces.named("turn"), key=lambda span: span.start_time or 0)
    assert [about(turn)[names.TURN_TRIGGER] for turn in turns] == ["agent", "message", "message", "commit"]
    assert [event.name for event in turns[2].events] == [names.INPUT]
    by_id = {span.context.span_id: index for index, span in enumerate(turns)}
    responses = [span for span in traces.finished if span.name.startswith("chat")]
    homes = {about(span)[names.RESPONSE_ID]: by_id[span.parent.span_id] for span in responses if span.parent}
    assert homes == {"greeting": 0, "resp_1": 1, "resp_2": 2}


async def test_nothing_that_was_said_is_in_a_span_unless_it_is_asked_for(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    secret = "hunter2"

    @function_tool
    async def remember(word: str) -> str:
        return f"remembered {word}"

    async def talk(traces: Traces, **config: Any) -> str:
        @output_guardrail
        async def allow(context: Any, agent: Any, text: str) -> GuardrailFunctionOutput:
            return GuardrailFunctionOutput(None, tripwire_triggered=False)

        agent = desk(remember, output_guardrails=[allow])
        async with make_session(agent, run_config=traces.config(**config)) as session:
            await session.send_message(f"my word is {secret}")
            endpoint.call_tools(("call_1", "remember", f'{{"word":"{secret}"}}'))
            await endpoint.settle()
            endpoint.start_response("resp_2")
            endpoint.speak(f"your word is {secret}", 100, response_id="resp_2")
            endpoint.end_response("resp_2")
            endpoint.send("error", error={"type": "x", "code": "bad", "message": secret, "param": None})
            endpoint.send("input_audio_buffer.speech_stopped", audio_end_ms=0, item_id="item_u")
            told = {"item_id": "item_u", "content_index": 0, "transcript": f"and {secret}"}
            endpoint.send("conversation.item.input_audio_transcription.completed", **told)
            await endpoint.settle()
        return "".join(span.to_json() for span in traces.finished)

    assert secret not in await talk(Traces())
    spoken = Traces()
    assert secret in await talk(spoken, trace_include_content=True)
    tool = about(spoken.one("execute_tool remember"))
    assert (tool[names.TOOL_ARGUMENTS], tool[names.TOOL_RESULT]) == (f'{{"word":"{secret}"}}', f"remembered {secret}")
    inputs = [about(turn)[names.INPUT_MESSAGES] for turn in spoken.named("turn")]
    texts = [msgspec.json.decode(text)[0]["parts"][0]["content"] for text in inputs]
    assert texts == [f"my word is {secret}", f"and {secret}"]
    (answer,) = [about(span)[names.OUTPUT_MESSAGES] for span in spoken.finished if names.OUTPUT_MESSAGES in about(span)]
    assert msgspec.json.decode(answer) == [
        {"role": "assistant", "parts": [{"type": "text", "content": f"your word is {secret}"}], "finish_reason": "completed"}
    ]


@pytest.mark.parametrize("remote", [False, True])
async def test_spans_of_a_tool_are_children_of_its_call(
    make_session: MakeSession, endpoint: ScriptedEndpoint, traces: Traces, remote: bool
) -> None:
    @function_tool
    async def query() -> str:
        with traces.tracer.start_as_current_span("database"):
            return "found"

    @function_tool
    def query_in_a_thread() -> str:
        with traces.tracer.start_as_current_span("file"):
            return "found"

    class Wire:
        """A place that gets and gives nothing but JSON, in a context of its own."""

        async def run(self, request: ToolRequest) -> ToolReply:
            received = msgspec.json.decode(msgspec.json.encode(request), type=ToolRequest)
            work = asyncio.create_task(InProcessToolRunner(collect_tools(agent)).run(received), context=contextvars.Context())
            return await work

    agent = desk(query, query_in_a_thread)
    runner = {"tool_runner": Wire()} if remote else {}
    async with make_session(agent, run_config=traces.config(), **runner) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "query", "{}"), ("call_2", "query_in_a_thread", "{}"))
        await until(lambda: len(reader.of("tool_end")) == 2)
    for name, parent in (("database", "execute_tool query"), ("file", "execute_tool query_in_a_thread")):
        span, over = traces.one(name), traces.one(parent)
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == (over.context.trace_id, over.context.span_id)


async def test_a_session_is_part_of_what_the_program_does(
    make_session: MakeSession, endpoint: ScriptedEndpoint, traces: Traces
) -> None:
    with traces.tracer.start_as_current_span("request"):
        session = await make_session(run_config=traces.config()).enter()
    endpoint.start_response()
    endpoint.end_response()
    await endpoint.settle()
    await session.close()
    assert traces.tree() == {"request": {"invoke_agent Assistant": {"turn": {"chat gpt-realtime-2.1": {}}}}}


async def test_failures_are_told_by_their_kind(make_session: MakeSession, endpoint: ScriptedEndpoint, traces: Traces) -> None:
    @function_tool
    async def broken() -> str:
        raise RuntimeError("hunter2")

    @function_tool
    async def endless() -> str:
        await asyncio.sleep(10_000)
        return ""

    async with make_session(desk(broken, endless), run_config=traces.config()) as session:
        reader = Reader(session)
        endpoint.call_tools(("call_1", "broken", "{}"), ("call_2", "endless", "{}"))
        endpoint.start_response("resp_2")
        endpoint.end_response("resp_2", status="failed")
        await endpoint.settle()
        endpoint.cut()
        await reader.ended()
        assert isinstance(reader.error, LegClosedError)
    kinds = {
        span.name: about(span).get(names.ERROR_TYPE) for span in traces.finished if span.status.status_code is StatusCode.ERROR
    }
    assert kinds == {
        "execute_tool broken": "tool_failed",
        "execute_tool endless": "CancelledError",
        "chat gpt-realtime-2.1": "response_failed",
        "invoke_agent Desk": "leg_closed",
    }
    assert "hunter2" not in "".join(span.to_json() for span in traces.finished)


async def test_handoffs_approvals_and_guardrails_are_seen(
    make_session: MakeSession, endpoint: ScriptedEndpoint, traces: Traces
) -> None:
    @output_guardrail(name="prices")
    async def prices(context: Any, agent: Any, text: str) -> GuardrailFunctionOutput:
        with traces.tracer.start_as_current_span("judge"):
            return GuardrailFunctionOutput(None, tripwire_triggered="$" in text)

    @input_guardrail(name="manners")
    async def manners(context: Any, agent: Any, text: str) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(None, tripwire_triggered=False)

    @function_tool(needs_approval=True)
    async def refund() -> str:
        return "done"

    agent = desk(refund, handoffs=[RealtimeAgent(name="Billing")], output_guardrails=[prices], input_guardrails=[manners])
    async with make_session(agent, run_config=traces.config()) as session:
        await session.send_message("hello")
        endpoint.call_tools(("call_1", "refund", "{}"), ("call_2", "transfer_to_billing", "{}"))
        await endpoint.settle()
        await session.approve_tool_call("call_1")
        await endpoint.settle()
        await session.update_agent(agent)
        endpoint.start_response("resp_2")
        endpoint.speak("It is $ 5.", 100, response_id="resp_2")
        endpoint.end_response("resp_2")
        await endpoint.settle()
    handoff = traces.one("handoff")
    assert (about(handoff)[names.HANDOFF_FROM], about(handoff)[names.HANDOFF_TO]) == ("Desk", "Billing")
    checks = {about(span)[names.GUARDRAIL_NAMES]: span for span in traces.named("guardrail")}
    assert about(checks["manners",])[names.GUARDRAIL_STAGE] == "input"
    assert about(checks["prices",])[names.GUARDRAIL_TRIPPED] is True
    judge = traces.one("judge")
    assert judge.parent is not None
    assert judge.parent.span_id == checks["prices",].context.span_id
    turn = next(span for span in traces.named("turn") if about(span)[names.TURN_TRIGGER] == "message")
    assert names.TOOL_APPROVAL_REQUIRED in [event.name for event in turn.events]
    for child in (handoff, checks["prices",], traces.one("execute_tool refund")):
        assert child.parent is not None
        assert child.parent.span_id == turn.context.span_id


async def test_a_session_that_cannot_connect_is_seen(
    make_session: MakeSession, endpoint: ScriptedEndpoint, traces: Traces
) -> None:
    async def fail(*arguments: Any, **options: Any) -> Any:
        raise OSError("hunter2")

    session = make_session(run_config=traces.config())
    session.model._dial = fail  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="hunter2"):
        await session.enter()
    span = traces.one("invoke_agent Assistant")
    assert about(span)[names.ERROR_TYPE] == "OSError"
    assert span.status.description is None


async def test_all_spans_end_with_the_session(make_session: MakeSession, endpoint: ScriptedEndpoint, traces: Traces) -> None:
    session = make_session(run_config=traces.config())
    async with session:
        await session.send_message("hello")
        endpoint.start_response()
        await endpoint.settle()
    assert len(traces.finished) == 3
    spans = session._inside.spans
    spans.session_ended()
    spans.user_said("late")
    assert len(traces.finished) == 3


def test_nobody_listens_unless_somebody_wants_to(traces: Traces) -> None:
    assert type(open_spans({}, "")) is Spans
    assert type(open_spans(traces.config(tracing_disabled=True), "")) is Spans
    assert type(open_spans(traces.config(), "")) is not Spans


def test_the_package_may_be_missing() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None
from orchestrator.realtime import RealtimeAgent, RealtimeRunner
from orchestrator.realtime.tracing import Spans, open_spans
from orchestrator.telemetry.trace_context import remote_parent
assert type(open_spans({}, "")) is Spans
with remote_parent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"):
    pass
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_steps_that_nobody_hears_of_are_free_of_consequences() -> None:
    spans = Spans()
    with spans.tool(None, agent="A") as step:  # type: ignore[arg-type]
        step.finished(error="x", result="y")
        assert step.traceparent is None
