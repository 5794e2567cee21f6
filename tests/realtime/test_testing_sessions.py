"""A whole session on a scripted model, which it must await."""

import asyncio
from typing import Any

import pytest

from orchestrator import function_tool
from orchestrator.core.events import (
    RealtimeModelAudioInterruptedEvent,
    RealtimeModelConnectionStatusEvent,
    RealtimeModelEndOfStreamEvent,
    RealtimeModelEvent,
    RealtimeModelToolCallEvent,
    RealtimeModelTranscriptDeltaEvent,
    RealtimeModelTurnEndedEvent,
    RealtimeModelTurnStartedEvent,
)
from orchestrator.core.inputs import (
    RealtimeModelSendAudio,
    RealtimeModelSendInterrupt,
    RealtimeModelSendToolOutput,
    RealtimeModelSendUserInput,
)
from orchestrator.guardrail import GuardrailFunctionOutput, output_guardrail
from orchestrator.realtime import (
    RealtimeAgent,
    RealtimeError,
    RealtimeRunConfig,
    RealtimeRunner,
    RealtimeSession,
    RealtimeSessionEvent,
)
from orchestrator.realtime.testing import (
    RealtimeStep,
    ScriptedRealtimeModel,
    UnexpectedRealtimeSend,
)


class Reader:
    """Collects a session's events, but for the raw ones, in a task of its own."""

    def __init__(self, session: RealtimeSession) -> None:
        self.events: list[RealtimeSessionEvent] = []
        # What `settled` returned last, as events.
        self.last: list[RealtimeSessionEvent] = []
        self._task = asyncio.get_running_loop().create_task(self._read(session))

    async def _read(self, session: RealtimeSession) -> None:
        async for event in session:
            if event.type != "raw_model_event":
                self.events.append(event)

    async def settled(self) -> list[str]:
        """Wait until nothing happens any more; return what came since the last time."""
        await asyncio.sleep(1)
        types = [str(event.type) for event in self.events]
        self.last, self.events = self.events, []
        return types


def response(response_id: str, *events: RealtimeModelEvent) -> list[RealtimeModelEvent]:
    """A response from its start to its end."""
    return [
        RealtimeModelTurnStartedEvent(response_id=response_id),
        *events,
        RealtimeModelTurnEndedEvent(response_id=response_id, status="completed"),
    ]


def call(name: str, call_id: str, arguments: str, response_id: str) -> RealtimeModelToolCallEvent:
    return RealtimeModelToolCallEvent(name, call_id, arguments, id=f"item_{call_id}", response_id=response_id)


@function_tool
async def get_weather(city: str) -> str:
    return f"sunny in {city}"


@function_tool(needs_approval=True)
async def refund(order: int) -> str:
    return f"order {order} refunded"


@output_guardrail
def no_prices(context: Any, agent: Any, text: str) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(None, tripwire_triggered="$" in text)


BILLING: RealtimeAgent[Any] = RealtimeAgent(name="Billing", instructions="Bill.")
DESK: RealtimeAgent[Any] = RealtimeAgent(
    name="Desk",
    instructions="Help.",
    tools=[get_weather, refund],
    handoffs=[BILLING],
    output_guardrails=[no_prices],
)
WEATHER = call("get_weather", "call_1", '{"city":"Oslo"}', "r1")
REFUND = call("refund", "call_2", '{"order":7}', "r3")
TRANSFER = call("transfer_to_billing", "call_3", "{}", "r6")


async def test_a_whole_conversation_runs_against_a_script_step_by_step() -> None:
    model = ScriptedRealtimeModel(
        [
            RealtimeStep(RealtimeModelSendUserInput("Weather?"), emit=response("r1", WEATHER)),
            RealtimeStep(
                RealtimeModelSendToolOutput(WEATHER, "sunny in Oslo", start_response=True),
                emit=response("r2", RealtimeModelTranscriptDeltaEvent("item_a", "It is sunny.", "r2")),
            ),
            RealtimeStep(RealtimeModelSendUserInput("My money back!"), emit=response("r3", REFUND)),
            RealtimeStep(
                RealtimeModelSendToolOutput(REFUND, "order 7 refunded", start_response=True),
                emit=[
                    RealtimeModelTurnStartedEvent(response_id="r4"),
                    RealtimeModelTranscriptDeltaEvent("item_b", "You get $ 12.", "r4"),
                ],
            ),
            RealtimeStep(
                RealtimeModelSendInterrupt(force_response_cancel=True, response_id="r4"),
                emit=[
                    RealtimeModelAudioInterruptedEvent("item_b", 0),
                    RealtimeModelTurnEndedEvent(response_id="r4", status="cancelled"),
                ],
            ),
            RealtimeStep(RealtimeModelSendUserInput("guardrail triggered: no_prices"), emit=response("r5")),
            RealtimeStep(RealtimeModelSendUserInput("Who bills me?"), emit=response("r6", TRANSFER)),
            RealtimeStep(lambda sent: sent.session_settings["instructions"] == "Bill."),
            RealtimeStep(
                RealtimeModelSendToolOutput(TRANSFER, '{"assistant":"Billing"}', start_response=True), emit=response("r7")
            ),
        ]
    )
    config: RealtimeRunConfig = {"guardrails_settings": {"debounce_text_length": 5}}
    session = await RealtimeRunner(DESK, model=model, config=config).run(model_config={"api_key": "sk-secret"})
    async with session:
        assert model.listeners == (session,)
        (connected_with,) = model.connect_calls
        assert connected_with.initial_model_settings["instructions"] == "Help."
        assert connected_with.initial_model_settings["tools"] == [get_weather, refund]
        reader = Reader(session)
        assert await reader.settled() == ["history_updated"]

        await session.send_message("Weather?")
        assert await reader.settled() == [
            *("agent_start", "agent_end", "tool_start"),
            # The output is sent when all that it led to is delivered.
            *("agent_start", "history_added", "transcript_delta", "agent_end"),
            "tool_end",
        ]
        assert len(model.remaining_steps) == 7

        await session.send_message("My money back!")
        assert await reader.settled() == ["agent_start", "agent_end", "tool_approval_required"]
        assert len(model.remaining_steps) == 6
        await session.approve_tool_call("call_2")
        assert await reader.settled() == [
            *("tool_start", "agent_start", "history_added", "transcript_delta", "tool_end", "guardrail_tripped"),
            *("history_updated", "audio_interrupted", "agent_end"),
            *("agent_start", "agent_end"),
        ]
        assert len(model.remaining_steps) == 3

        await session.send_message("Who bills me?")
        assert await reader.settled() == ["agent_start", "agent_end", "handoff", "agent_start", "agent_end"]
        assert [event.agent.name for event in reader.last if event.type == "agent_start"] == ["Desk", "Billing"]
        assert session.current_agent is BILLING
        model.assert_complete()
    assert (model.closed, model.close_calls, model.listeners) == (True, 1, ())
    assert await reader.settled() == []
    assert len(asyncio.all_tasks()) == 1


async def test_a_rejected_call_is_answered_with_the_words_of_who_rejected_it() -> None:
    model = ScriptedRealtimeModel(
        [
            RealtimeStep(RealtimeModelSendUserInput, emit=response("r3", REFUND)),
            RealtimeStep(RealtimeModelSendToolOutput(REFUND, "Not today.", start_response=True)),
        ]
    )
    async with RealtimeSession(model, DESK) as session:
        reader = Reader(session)
        await session.send_message("My money back!")
        await reader.settled()
        await session.reject_tool_call("call_2", rejection_message="Not today.")
        assert await reader.settled() == ["tool_end"]
    model.assert_complete()


async def test_a_mismatch_reaches_whoever_sent_or_the_sessions_events() -> None:
    model = ScriptedRealtimeModel([RealtimeStep(RealtimeModelSendUserInput("hello"), emit=response("r1", WEATHER))])
    async with RealtimeSession(model, DESK) as session:
        reader = Reader(session)
        with pytest.raises(UnexpectedRealtimeSend, match=r"'bye'.*expects RealtimeModelSendUserInput\(user_input='hello'\)"):
            await session.send_message("bye")
        await session.send_message("hello")
        # What was not sent has not ended.
        assert (await reader.settled())[-2:] == ["tool_start", "error"]
        error = reader.last[-1]
        assert isinstance(error, RealtimeError)
        assert isinstance(error.error, UnexpectedRealtimeSend)
        assert isinstance(error.error.actual, RealtimeModelSendToolOutput)
        assert error.error.expected is None


async def test_a_steps_error_reaches_whoever_sent_or_the_sessions_events() -> None:
    model = ScriptedRealtimeModel(
        [
            RealtimeStep(RealtimeModelSendAudio(b"ab", commit=True), error=OSError("first")),
            RealtimeStep(RealtimeModelSendUserInput, emit=response("r1", WEATHER)),
            RealtimeStep(RealtimeModelSendToolOutput, error=OSError("second")),
            RealtimeStep(RealtimeModelSendInterrupt()),
        ]
    )
    async with RealtimeSession(model, DESK) as session:
        reader = Reader(session)
        with pytest.raises(OSError, match="first"):
            await session.send_audio(b"ab", commit=True)
        await session.send_message("Weather?")
        await reader.settled()
        (error,) = [event.error for event in reader.last if isinstance(event, RealtimeError)]
        assert str(error) == "second"
        await session.interrupt()
    model.assert_complete()


async def test_a_model_that_cannot_be_connected_leaves_nothing_behind() -> None:
    model = ScriptedRealtimeModel(connect_error=OSError("no route"))
    with pytest.raises(OSError, match="no route"):
        await RealtimeSession(model, DESK).enter()
    assert model.listeners == ()
    assert len(asyncio.all_tasks()) == 1


async def test_what_the_model_reports_unasked_reaches_the_session() -> None:
    model = ScriptedRealtimeModel(connect_events=[RealtimeModelConnectionStatusEvent("connected")])
    async with RealtimeSession(model, DESK) as session:
        await model.emit(*response("r1"), RealtimeModelEndOfStreamEvent())
        assert [event.type async for event in session if event.type != "raw_model_event"] == [
            "history_updated",
            "agent_start",
            "agent_end",
        ]
