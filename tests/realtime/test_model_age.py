"""Conversations that last longer than a model session may."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orchestrator.core.endpoint_pool import CircuitState
from orchestrator.core.inputs import RealtimeModelSendAudio
from orchestrator.errors import LegConnectError
from orchestrator.realtime import OpenAIRealtimeWebSocketModel, RealtimeAgent, RealtimeSession
from orchestrator.realtime.renewing import ModelRenewal, Target
from orchestrator.simulator.endpoint.admission import AccessRules
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.simulator.server import SimulatorOptions, SimulatorServer
from tests.realtime.reading import Reader, until
from tests.realtime.renewals import (
    FRAME_MS,
    SILENCE,
    TALK,
    VOICE,
    World,
    check_memory,
    frames,
    invoice,
    renewal,
    say,
    session_of,
    shown,
)

HOUR = 3600.0
ROUND = [
    ("user", "Is order seven paid?"),
    ("function_call", 'invoice({"order":7}) = Order 7 is paid.'),
    ("assistant", "Order 7 is paid."),
    ("user", "Thank you very much."),
    ("assistant", "You are welcome. Is there anything else that I can do for you today?"),
    ("user", "Tell me more."),
    ("assistant", "There is a lot to be told about that, and it takes quite some time to say it all in one go."),
]


async def test_a_conversation_of_sixty_one_minutes_loses_no_turn_and_nobody_notices() -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        world = World(pool, connect_seconds=0.3)
        assert world.options.session_seconds == HOUR
        async with session_of(world, renewal()) as session:
            reader = Reader(session)
            turns = 0
            while loop.time() < 61 * 60:
                turns += 1
                await say(session, (300, SILENCE), (900, VOICE), (900, SILENCE))
                # Nobody speaks, and nothing is sent, as from a caller who waits.
                await asyncio.sleep(20)
            said = shown(session.history)
            expected = [item for index in range(turns) for item in (ROUND[:3], ROUND[3:5], ROUND[5:])[index % 3]]
            assert said == expected
            assert len(world.machines) == 2
            assert reader.of("error") == []
            assert reader.of("audio_interrupted") == []
            assert reader.error is None
            check_memory(world, session)


async def test_a_session_that_never_falls_silent_is_swapped_before_its_end_all_the_same() -> None:
    with ThreadPoolExecutor(1) as pool:
        # The renewal is due while this is said, and forced before the model session's end.
        world = World(pool, options=ModelOptions(session_seconds=60.0, timing=Timing(pace=1.0)))
        async with session_of(world, renewal(renew_after=50.0, max_age=60.0), turn_detection=None) as session:
            reader = Reader(session)
            for _ in range(62):
                # Nobody ever commits, so there is a turn in progress all the time.
                for frame in frames(1000, VOICE):
                    await session.send_audio(frame)
                await asyncio.sleep(1)
            assert len(world.machines) == 2
            assert reader.of("error") == []
            await session.model.send_event(RealtimeModelSendAudio(b"", commit=True))
            await asyncio.sleep(2)
            (item,) = world.machines[-1]._state.conversation
            # All of the turn, from before the swap and after it.
            assert item.audio is not None
            assert item.audio.milliseconds == 62_000


async def test_an_endpoint_that_ends_a_session_for_its_age_is_only_left() -> None:
    with ThreadPoolExecutor(1) as pool:
        world = World(pool, options=ModelOptions(session_seconds=30.0))
        async with session_of(world, renewal()) as session:
            reader = Reader(session)
            await session.send_message("is it paid")
            await asyncio.sleep(40)
            assert len(world.machines) == 2
            assert reader.of("error") == []
            await session.send_message("thank you")
            await asyncio.sleep(10)
            assert shown(session.history)[1:] == [*ROUND[1:3], ("user", "thank you"), ROUND[4]]
            check_memory(world, session)


def test_the_same_in_real_time_over_real_sockets_with_an_age_of_three_seconds() -> None:
    asyncio.run(_cross_the_age_in_real_time())


async def _cross_the_age_in_real_time() -> None:
    # The machine may be slow, so nothing here is a matter of milliseconds: the model thinks and speaks at once.
    timing = Timing(first_output=0.02, pace=0.0)
    options = SimulatorOptions(
        scenario=TALK, seed=1, model=ModelOptions(timing=timing, transcription_delay=0.02, session_seconds=3.0)
    )
    async with SimulatorServer(options) as server:
        renewing = _over(server.url + "?model=gpt-realtime-2.1")
        model = OpenAIRealtimeWebSocketModel(renewal=renewing)
        agent: RealtimeAgent[Any] = RealtimeAgent(name="Desk", tools=[invoice])
        config: Any = {"initial_model_settings": {"turn_detection": {"type": "server_vad"}}}
        async with RealtimeSession(model, agent, None, config) as session:
            reader = Reader(session)
            started = asyncio.get_running_loop().time()
            rounds = 0
            while asyncio.get_running_loop().time() < started + 7.5:
                rounds += 1
                before = len(reader.of("agent_end"))
                await session.send_message("thank you")
                await until(lambda before=before: len(reader.of("agent_end")) > before)  # type: ignore[misc]
                for frame in frames(200, SILENCE):
                    await session.send_audio(frame)
                    await asyncio.sleep(FRAME_MS / 1000)
            assert shown(session.history) == [("user", "thank you"), ROUND[4]] * rounds
            assert reader.of("error") == []
            assert reader.error is None
            renewed = [event for event in reader.of("raw_model_event") if event.data.type == "renewed"]
            assert len(renewed) >= 2


def test_a_key_that_is_refused_after_the_upgrade_leads_to_the_next_endpoint() -> None:
    asyncio.run(_connect_with_a_wrong_key_first())


async def _connect_with_a_wrong_key_first() -> None:
    access = AccessRules(keys=frozenset({"right"}))
    async with SimulatorServer(SimulatorOptions(scenario=TALK, seed=1, access=access)) as server:
        made = renewal("wrong", "right")

        def target(key: str) -> Target:
            async def headers() -> dict[str, str]:
                return {"Authorization": f"Bearer {key}"}

            return Target(server.url + "?model=gpt-realtime-2.1", headers)

        renewing = ModelRenewal(made.pool, {key: target(key) for key in ("wrong", "right")}, made.options)
        agent: RealtimeAgent[Any] = RealtimeAgent(name="Desk")
        async with RealtimeSession(OpenAIRealtimeWebSocketModel(renewal=renewing), agent, None, {}):
            assert (made.pool.sessions("wrong"), made.pool.sessions("right")) == (0, 1)
            assert made.pool.state("wrong") is CircuitState.OPEN
        only = ModelRenewal(renewal("wrong").pool, {"wrong": target("wrong")}, made.options)
        with pytest.raises(LegConnectError, match="invalid_api_key"):
            await RealtimeSession(OpenAIRealtimeWebSocketModel(renewal=only), agent, None, {}).enter()


def _over(url: str) -> ModelRenewal:
    made = renewal(renew_after=2.2, max_age=3.0)
    target = made.targets["here"]

    async def headers() -> dict[str, str]:
        return {"Authorization": "Bearer k"}

    return ModelRenewal(made.pool, {"here": type(target)(url, headers)}, made.options)
