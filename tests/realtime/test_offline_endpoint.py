"""Sessions against the offline endpoint, in memory and on virtual time: what only a server with a memory can show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from orchestrator import function_tool
from orchestrator.handoffs import HandoffInputData
from orchestrator.realtime import OpenAIRealtimeWebSocketModel, RealtimeAgent, RealtimeSession
from orchestrator.realtime.handoffs import realtime_handoff
from orchestrator.realtime.items import RealtimeItem, RealtimeToolCallItem
from orchestrator.realtime.resumption import CallStage, PendingCall, Resumption
from orchestrator.simulator.endpoint.model_session import ModelSession, SpeechDesk
from orchestrator.simulator.endpoint.session_machine import ModelOptions, SessionMachine
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.scenario import parse_scenario
from orchestrator.simulator.speech import Speaker
from orchestrator.transports.base import LegListener, LegOptions
from orchestrator.transports.client_leg import ClientLeg
from orchestrator.transports.memory import memory_pair
from tests.realtime.reading import Reader, until

SCENARIO = parse_scenario(
    """
name: seeding
turns:
  - match: paid
    do:
      - call: invoice
        arguments: {order: 7}
      - say: "{tool.output}"
  - match: billing
    do: [{call: transfer_to_billing, arguments: {}}, {say: "Billing here."}]
default: {do: [{say: "Pardon?"}]}
"""
)
UNIX_TIME = 1_760_000_000


class Offline:
    """An endpoint for one session after the other; `machine` is the latest one's."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._desk = SpeechDesk(Speaker(), pool)
        self._number = 0
        self.machine: SessionMachine | None = None

    async def dial(
        self, url: str, listener: LegListener, *, headers: Mapping[str, str] | None = None, options: LegOptions
    ) -> ClientLeg:
        self._number += 1
        ids = IdSource(lambda: UNIX_TIME, self._number)
        self.machine = SessionMachine(SCENARIO, ModelOptions(), ids, model="gpt-realtime-2.1", unix_time=UNIX_TIME)
        return memory_pair(listener, ModelSession(self.machine, self._desk), options=options).client

    def session(
        self,
        agent: RealtimeAgent[Any],
        history: list[RealtimeItem] | None = None,
        resumption: Resumption | None = None,
        **settings: Any,
    ) -> RealtimeSession:
        model = OpenAIRealtimeWebSocketModel(dial=self.dial)
        config: Any = {"headers": {}, "initial_model_settings": settings}
        return RealtimeSession(model, agent, None, config, history=history or [], resumption=resumption)


@pytest.fixture
async def offline() -> AsyncIterator[Offline]:
    with ThreadPoolExecutor(1) as pool:
        yield Offline(pool)


@function_tool
async def invoice(order: int) -> str:
    return f"Order {order} is paid."


def desk(**options: Any) -> RealtimeAgent[Any]:
    return RealtimeAgent(name="Desk", tools=[invoice], handoffs=[realtime_handoff(RealtimeAgent(name="Billing"), **options)])


async def ask(session: RealtimeSession, reader: Reader, text: str, *, responses: int) -> None:
    """Say something and wait for the end of so many responses."""
    before = len(reader.of("agent_end"))
    await session.send_message(text)
    await until(lambda: len(reader.of("agent_end")) == before + responses)
    await asyncio.sleep(1)


def types(history: list[RealtimeItem]) -> list[str]:
    return [item.type if isinstance(item, RealtimeToolCallItem) else item.role for item in history]


async def test_a_caller_who_says_nothing_for_a_while_is_spoken_to(offline: Offline) -> None:
    detection = {"type": "server_vad", "idle_timeout_ms": 6000}
    async with offline.session(desk(), turn_detection=detection) as session:
        reader = Reader(session)
        await ask(session, reader, "hello", responses=1)
        # The time runs from the end of what the agent said.
        await until(lambda: bool(reader.of("input_audio_timeout_triggered")))
        await until(lambda: len(reader.of("agent_end")) == 2)
        assert reader.of("error") == []
        kinds = reader.types("history_added", "history_updated", "transcript_delta", "audio", "audio_end")
        assert kinds == ["agent_start", "agent_end", "input_audio_timeout_triggered", "agent_start", "agent_end"]
        # The silence is a turn of the user's, without words.
        assert types(session.history) == ["user", "assistant", "user", "assistant"]


async def test_a_call_that_was_cut_is_finished_at_another_endpoint(offline: Offline) -> None:
    async with offline.session(desk()) as session:
        reader = Reader(session)
        await ask(session, reader, "is it paid?", responses=2)
        asked, call, _ = session.history
    assert isinstance(call, RealtimeToolCallItem)
    cut = msgspec.structs.replace(call, output=None, status="in_progress")
    pending = PendingCall(
        call_id=str(cut.call_id),
        item_id=cut.item_id,
        name=cut.name,
        arguments=cut.arguments,
        response_id="resp_before",
        stage=CallStage.RUNNING,
        idempotent=True,
    )
    async with offline.session(desk(), resumption=Resumption(items=(asked, cut), calls=(pending,))) as session:
        reader = Reader(session)
        await until(lambda: len(reader.of("agent_end")) == 1)
        await asyncio.sleep(1)
        assert reader.of("error") == []
        assert types(session.history) == ["user", "function_call", "assistant"]
        assert [item.item_id for item in session.history[:2]] == [asked.item_id, cut.item_id]
        again = session.history[1]
        assert isinstance(again, RealtimeToolCallItem)
        assert again.output == call.output
        assert len(reader.of("agent_start")) == 1


async def test_a_conversation_goes_on_at_another_endpoint(offline: Offline) -> None:
    async with offline.session(desk()) as session:
        reader = Reader(session)
        await ask(session, reader, "is it paid?", responses=2)
        history = session.history
    assert types(history) == ["user", "function_call", "assistant"]
    async with offline.session(desk(), history) as session:
        reader = Reader(session)
        await asyncio.sleep(1)
        assert reader.of("error") == []
        assert types(session.history) == types(history)
        assert [item.item_id for item in session.history] == [item.item_id for item in history]
        await ask(session, reader, "is it paid?", responses=2)
        assert types(session.history) == types(history) * 2
        assert reader.of("error") == []


async def test_a_filter_leaves_neither_calls_nor_outputs_behind(offline: Offline) -> None:
    def forget_tools(data: HandoffInputData) -> HandoffInputData:
        return data.clone(input_history=tuple(i for i in data.input_history if not isinstance(i, RealtimeToolCallItem)))

    async with offline.session(desk()) as session:
        reader = Reader(session)
        await ask(session, reader, "is it paid?", responses=2)
        history = session.history
    async with offline.session(desk(input_filter=forget_tools), history) as session:
        reader = Reader(session)
        await ask(session, reader, "billing please", responses=2)
        assert session.current_agent.name == "Billing"
        assert reader.of("error") == []
        assert types(session.history) == ["user", "assistant", "user", "function_call", "assistant"]
