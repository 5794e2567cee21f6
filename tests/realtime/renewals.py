"""A caller, a session that renews, and offline endpoints with a memory, under one clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any

import msgspec
import numpy as np

from orchestrator import function_tool
from orchestrator.core.endpoint_pool import Endpoint, EndpointPool
from orchestrator.core.items import AssistantAudio, AssistantMessageItem, InputAudio, RealtimeItem, RealtimeToolCallItem
from orchestrator.core.renewal import RenewalOptions
from orchestrator.realtime import OpenAIRealtimeWebSocketModel, RealtimeAgent, RealtimeSession
from orchestrator.realtime.renewing import ModelRenewal, Target
from orchestrator.simulator.endpoint.model_session import ModelSession, SpeechDesk
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.session_machine import SessionMachine
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.scenario import Scenario, parse_scenario
from orchestrator.simulator.speech import Speaker
from orchestrator.transports.base import LegListener, LegOptions
from orchestrator.transports.client_leg import ClientLeg
from orchestrator.transports.memory import MemoryPair, memory_pair
from orchestrator.wire import realtime_types as types

UNIX_TIME = 1_760_000_000
FRAME_MS = 20
TALK = parse_scenario(
    """
name: renewals
repeat: true
turns:
  - heard: Is order seven paid?
    match: paid
    do: [{call: invoice, arguments: {order: 7}}, {say: "{tool.output}"}]
  - heard: Thank you very much.
    match: thank
    do: [{say: "You are welcome. Is there anything else that I can do for you today?"}]
  - heard: Tell me more.
    match: more
    do: [{say: "There is a lot to be told about that, and it takes quite some time to say it all in one go."}]
default: {do: [{say: "Pardon me, but I did not get that?"}]}
"""
)


@function_tool
async def invoice(order: int) -> str:
    """Look an invoice up."""
    return f"Order {order} is paid."


class World:
    """Endpoints by host name, and what connects to them. Every connection is a new model session with a memory of its own."""

    def __init__(
        self, pool: Executor, *, scenario: Scenario = TALK, options: ModelOptions | None = None, connect_seconds: float = 0.0
    ) -> None:
        self._desk = SpeechDesk(Speaker(), pool)
        self.scenario = scenario
        self.options = options or ModelOptions()
        self.connect_seconds = connect_seconds
        self.machines: list[SessionMachine] = []
        self.pairs: list[MemoryPair] = []
        self.dialled: list[str] = []
        # Called for each dial; what it raises is the refusal.
        self.on_dial: Callable[[str], None] = lambda url: None
        # Called with each frame of the latest endpoint, once it is on its way; may cut the line.
        self.on_frame: Callable[[dict[str, Any]], None] = lambda event: None

    async def dial(
        self, url: str, listener: LegListener, *, headers: Mapping[str, str] | None = None, options: LegOptions
    ) -> ClientLeg:
        if self.connect_seconds:
            await asyncio.sleep(self.connect_seconds)
        self.dialled.append(url)
        self.on_dial(url)
        number = len(self.machines) + 1
        ids = IdSource(lambda: UNIX_TIME, number)
        machine = SessionMachine(self.scenario, self.options, ids, model="gpt-realtime-2.1", unix_time=UNIX_TIME)
        self.machines.append(machine)
        pair = memory_pair(listener, ModelSession(machine, self._desk, self._frame(number)), options=options)
        self.pairs.append(pair)
        return pair.client

    def _frame(self, number: int) -> Callable[[bytes], None]:
        def hear(data: bytes) -> None:
            if number == len(self.machines):
                self.on_frame(msgspec.json.decode(data))

        return hear

    def cut(self) -> None:
        """Break the latest connection, now."""
        self.pairs[-1].server_line.cut()

    def cut_soon(self, seconds: float = 0.0) -> None:
        """Break the latest connection: before the frame that is being sent has arrived, or so much later."""
        loop = asyncio.get_running_loop()
        number = len(self.machines)
        if seconds:
            loop.call_later(seconds, self._cut, number)
        else:
            loop.call_soon(self._cut, number)

    def _cut(self, number: int) -> None:
        self.pairs[number - 1].server_line.cut()

    def memory(self) -> list[types.Item]:
        """What the latest model session remembers."""
        return [memory.item for memory in self.machines[-1]._state.conversation]


def renewal(*names: str, **options: Any) -> ModelRenewal:
    """Return a renewal over endpoints of these names, with a pool that has no chance in it."""

    async def headers() -> Mapping[str, str]:
        return {}

    names = names or ("here",)
    endpoints = [Endpoint(name, priority=index) for index, name in enumerate(names)]
    pool = EndpointPool(endpoints, lambda: 0.5)
    targets = {name: Target(f"ws://{name}/v1/realtime", headers) for name in names}
    return ModelRenewal(pool, targets, RenewalOptions(**options), random=lambda: 0.5)


def session_of(
    world: World, renewing: ModelRenewal, agent: RealtimeAgent[Any] | None = None, **settings: Any
) -> RealtimeSession:
    """Return a session that renews over the world's endpoints."""
    model = OpenAIRealtimeWebSocketModel(dial=world.dial, renewal=renewing)
    detection = settings.pop("turn_detection", {"type": "server_vad", "create_response": True, "interrupt_response": True})
    initial = {"turn_detection": detection, **settings}
    config: Any = {"initial_model_settings": initial}
    run_config: dict[str, Any] = {"model_settings": {}}
    return RealtimeSession(
        model, agent or RealtimeAgent(name="Desk", instructions="Be kind.", tools=[invoice]), None, config, run_config
    )


SILENCE = bytes(FRAME_MS * 48)
VOICE = (np.sin(np.arange(FRAME_MS * 24) * 0.2) * 12000).astype("<i2").tobytes()


def frames(milliseconds: int, frame: bytes) -> list[bytes]:
    return [frame] * (milliseconds // FRAME_MS)


async def say(session: RealtimeSession, *pieces: tuple[int, bytes]) -> None:
    """Send audio of the caller at the speed of speech: (milliseconds, frame)."""
    for milliseconds, frame in pieces:
        for one in frames(milliseconds, frame):
            await session.send_audio(one)
            await asyncio.sleep(FRAME_MS / 1000)


def words(item: RealtimeItem) -> str:
    if isinstance(item, RealtimeToolCallItem):
        return f"{item.name}({item.arguments}) = {item.output}"
    spoken = (InputAudio, AssistantAudio)
    parts = [part.transcript if isinstance(part, spoken) else getattr(part, "text", "") for part in item.content]
    return " ".join(text or "" for text in parts)


def shown(items: Sequence[RealtimeItem]) -> list[tuple[str, str]]:
    """What a history says: who, and what."""
    return [(item.type if isinstance(item, RealtimeToolCallItem) else item.role, words(item)) for item in items]


def remembered(items: Sequence[RealtimeItem]) -> list[str]:
    """The ids that a model which knows this history remembers, in order."""
    ids: list[str] = []
    for item in items:
        ids.append(item.item_id)
        if isinstance(item, RealtimeToolCallItem) and item.output is not None:
            ids.append(f"out_{item.call_id}")
    return ids


def check_memory(world: World, session: RealtimeSession) -> None:
    """The latest model session remembers our history, in order, with the words that the caller heard."""
    memory = world.memory()
    history = session.history
    assert [item.id for item in memory] == remembered(history)
    assert len({item.item_id for item in history}) == len(history)
    told = {item.id: item for item in memory}
    for item in history:
        if not isinstance(item, AssistantMessageItem):
            continue
        body = told[item.item_id]
        assert isinstance(body, types.MessageItem)
        for part, ours in zip(body.content, item.content, strict=True):
            if isinstance(part, types.OutputTextPart):
                assert part.text == words(item)
            elif isinstance(part, types.OutputAudioPart) and isinstance(part.transcript, str):
                assert part.transcript == getattr(ours, "transcript", None)
