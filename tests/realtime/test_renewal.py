"""A model's connection that is lost, refused, replaced or given up, and what becomes of the conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from orchestrator import function_tool
from orchestrator.core.items import AssistantAudio, AssistantMessageItem
from orchestrator.errors import LegClosedError, LegConnectError, ModelLostError, UserError
from orchestrator.realtime import OpenAIRealtimeWebSocketModel, RealtimeAgent, RealtimeSession
from orchestrator.realtime.handoffs import realtime_handoff
from orchestrator.simulator.endpoint.options import ModelOptions, Timing
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from orchestrator.wire import realtime_types as types
from tests.realtime.reading import Reader, until
from tests.realtime.renewals import SILENCE, VOICE, World, check_memory, renewal, say, session_of, shown

SLOW_VOICE = ModelOptions(timing=Timing(pace=1.0))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with ThreadPoolExecutor(1) as pool:
        yield World(pool, options=SLOW_VOICE, connect_seconds=0.05)


def once(world: World, event_type: str, act: Callable[[], object]) -> None:
    """Do something when the endpoint first sends an event of this type."""

    def on_frame(event: dict[str, Any]) -> None:
        if event["type"] == event_type:
            world.on_frame = lambda event: None
            act()

    world.on_frame = on_frame


def signs(reader: Reader) -> list[str]:
    """What the model said about its connection."""
    kinds = [event.data.type for event in reader.of("raw_model_event")]
    return [kind for kind in kinds if kind in ("renewing", "renewed")]


async def test_without_renewal_a_lost_connection_ends_the_session(
    make_session: Callable[..., RealtimeSession], endpoint: ScriptedEndpoint
) -> None:
    async with make_session() as session:
        reader = Reader(session)
        with pytest.raises(UserError, match="renew"):
            await session.renew_model()
        endpoint.cut()
        await reader.ended()
    assert isinstance(reader.error, LegClosedError)


async def test_a_program_asks_for_renewal_by_a_word(world: World) -> None:
    model = OpenAIRealtimeWebSocketModel(dial=world.dial, transport_config={"renew": True})
    config: Any = {"headers": {}}
    async with RealtimeSession(model, RealtimeAgent(name="Desk"), None, config) as session:
        reader = Reader(session)
        await session.send_message("thank you")
        await asyncio.sleep(10)
        world.cut()
        await asyncio.sleep(1)
        assert signs(reader) == ["renewing", "renewed"]
        check_memory(world, session)


async def test_an_answer_that_is_cut_keeps_what_was_heard_and_is_asked_for_again(world: World) -> None:
    async with session_of(world, renewal()) as session:
        reader = Reader(session)
        await session.send_message("tell me more")
        await until(lambda: len(reader.of("audio")) > 8)
        world.cut()
        await asyncio.sleep(15)
        question, cut, answer = session.history
        assert isinstance(cut, AssistantMessageItem)
        assert isinstance(answer, AssistantMessageItem)
        assert (cut.status, answer.status) == ("incomplete", "completed")
        part = cut.content[0]
        assert isinstance(part, AssistantAudio)
        assert part.heard_ms is not None
        assert 0 < part.heard_ms <= part.audio_ms
        assert "There is a lot to be told".startswith((part.transcript or "")[:10])
        assert [event.item_id for event in reader.of("audio_interrupted")] == [cut.item_id]
        assert shown([question]) == [("user", "tell me more")]
        check_memory(world, session)


async def test_an_answer_of_which_nothing_was_heard_leaves_nothing(world: World) -> None:
    once(world, "response.content_part.added", lambda: world.cut_soon(0.001))
    async with session_of(world, renewal()) as session:
        await session.send_message("thank you")
        await asyncio.sleep(15)
        assert [who for who, _ in shown(session.history)] == ["user", "assistant"]
        check_memory(world, session)


async def test_a_tool_that_ends_while_there_is_no_connection_is_answered_once(world: World) -> None:
    ended = asyncio.Event()
    calls = 0

    @function_tool(name_override="invoice")
    async def slow_invoice(order: int) -> str:
        nonlocal calls
        calls += 1
        await asyncio.sleep(1.0)
        ended.set()
        return f"Order {order} is paid."

    agent: RealtimeAgent[Any] = RealtimeAgent(name="Desk", tools=[slow_invoice])
    once(world, "response.function_call_arguments.done", lambda: world.cut_soon(0.01))
    async with session_of(world, renewal(), agent) as session:
        await session.send_message("is it paid")
        await until(lambda: calls == 1)
        # Nobody is there until the tool is done.
        world.on_dial = _refuse_until(ended)
        await asyncio.sleep(20)
        assert shown(session.history)[1:] == [
            ("function_call", 'invoice({"order":7}) = Order 7 is paid.'),
            ("assistant", "Order 7 is paid."),
        ]
        assert calls == 1
        check_memory(world, session)


def _refuse_until(event: asyncio.Event) -> Callable[[str], None]:
    def on_dial(url: str) -> None:
        if not event.is_set():
            raise LegConnectError(f"cannot connect to {url}")

    return on_dial


async def test_what_is_sent_while_there_is_no_connection_is_sent_later_and_in_order(world: World) -> None:
    async with session_of(world, renewal()) as session:
        reader = Reader(session)
        away = asyncio.Event()
        world.on_dial = _refuse_until(away)
        world.cut()
        await asyncio.sleep(0.1)
        await say(session, (300, SILENCE), (900, VOICE), (900, SILENCE))
        await session.send_message("thank you")
        away.set()
        await asyncio.sleep(30)
        said = [who for who, _ in shown(session.history)]
        assert said[:2] == ["user", "user"]
        assert ("user", "thank you") in shown(session.history)
        assert "assistant" in said
        assert [event.error for event in reader.of("error")] == []
        check_memory(world, session)


async def test_a_connection_that_breaks_while_it_is_told_of_the_conversation_is_replaced(world: World) -> None:
    async with session_of(world, renewal()) as session:
        await session.send_message("thank you")
        await asyncio.sleep(12)
        once(world, "conversation.item.added", world.cut_soon)
        world.cut()
        await asyncio.sleep(5)
        assert len(world.machines) == 3
        check_memory(world, session)


async def test_another_endpoint_takes_over_when_one_is_away(world: World) -> None:
    renewing = renewal("north", "south")
    async with session_of(world, renewing) as session:
        reader = Reader(session)
        await session.send_message("thank you")
        await asyncio.sleep(12)

        def north_is_down(url: str) -> None:
            if "north" in url:
                raise LegConnectError(f"cannot connect to {url}", 503)

        world.on_dial = north_is_down
        before = asyncio.get_running_loop().time()
        world.cut()
        await until(lambda: signs(reader) == ["renewing", "renewed"])
        assert [url.split("/")[2] for url in world.dialled] == ["north", "north", "south"]
        # The second endpoint costs its connect time, and no pause.
        assert asyncio.get_running_loop().time() - before < 0.2
        check_memory(world, session)
        assert (renewing.pool.sessions("north"), renewing.pool.sessions("south")) == (0, 1)
    assert renewing.pool.sessions("south") == 0


async def test_an_endpoint_that_asks_for_patience_gets_it(world: World) -> None:
    async with session_of(world, renewal()) as session:
        reader = Reader(session)
        refusals = iter([LegConnectError("refused", 429, retry_after=7.0)])

        def limited(url: str) -> None:
            refusal = next(refusals, None)
            if refusal is not None:
                raise refusal

        world.on_dial = limited
        before = asyncio.get_running_loop().time()
        world.cut()
        await until(lambda: "renewed" in signs(reader))
        assert 7.0 <= asyncio.get_running_loop().time() - before < 9.5
        assert len(world.dialled) == 3


async def test_a_key_that_is_refused_ends_the_session_when_no_other_endpoint_is_left(world: World) -> None:
    renewing = renewal("north", "south")
    session = session_of(world, renewing)
    async with session:
        reader = Reader(session)

        def refuse(url: str) -> None:
            raise LegConnectError("refused", 401)

        world.on_dial = refuse
        before = asyncio.get_running_loop().time()
        world.cut()
        await reader.ended()
        assert isinstance(reader.error, ModelLostError)
        assert reader.error.reason.cause == "invalid_api_key"
        # Each was asked once: no further try would change that.
        assert len(world.dialled) == 3
        assert asyncio.get_running_loop().time() - before < 1
    assert (renewing.pool.sessions("north"), renewing.pool.sessions("south")) == (0, 0)


async def test_a_quota_that_ends_in_an_answer_moves_the_conversation_and_the_answer(world: World) -> None:
    renewing = renewal("north", "south")
    async with session_of(world, renewing) as session:
        reader = Reader(session)
        machine = world.machines[-1]
        error = types.ResponseError(type="insufficient_quota", code="insufficient_quota", message="No money.")

        def fail() -> None:
            now = asyncio.get_running_loop().time()
            world.pairs[0].server._listener._runner.perform(machine.fail_response(error, now))  # type: ignore[attr-defined]

        once(world, "response.created", lambda: asyncio.get_running_loop().call_later(0.1, fail))
        await session.send_message("thank you")
        await asyncio.sleep(15)
        assert [url.split("/")[2] for url in world.dialled] == ["north", "south"]
        assert reader.of("error") == []
        assert [who for who, _ in shown(session.history)] == ["user", "assistant"]
        check_memory(world, session)


async def test_a_budget_of_time_ends_the_tries(world: World) -> None:
    async with session_of(world, renewal(timeout=20.0)) as session:
        reader = Reader(session)
        world.on_dial = _refuse_until(asyncio.Event())
        before = asyncio.get_running_loop().time()
        world.cut()
        await until(lambda: reader._task.done())
        assert isinstance(reader.error, ModelLostError)
        assert reader.error.reason.cause == "unreachable"
        # It ends when the next try would come too late, if not before.
        assert 5 < asyncio.get_running_loop().time() - before <= 20.1


async def test_on_demand_the_connection_is_replaced_at_a_quiet_moment(world: World) -> None:
    async with session_of(world, renewal()) as session:
        reader = Reader(session)
        await session.send_message("tell me more")
        await until(lambda: len(reader.of("audio")) > 2)
        await session.renew_model("test")
        await asyncio.sleep(1)
        # The next one is there, and waits.
        assert len(world.machines) == 2
        assert signs(reader) == []
        await asyncio.sleep(15)
        assert signs(reader) == ["renewed"]
        assert reader.of("audio_interrupted") == []
        assert world.pairs[0].client.close_code == 1000
        check_memory(world, session)
        await session.send_message("thank you")
        await asyncio.sleep(12)
        assert [who for who, _ in shown(session.history)] == ["user", "assistant"] * 2
        check_memory(world, session)


async def test_an_answer_that_is_cut_after_the_swap_is_told_as_it_was_heard(world: World) -> None:
    world.options = ModelOptions(timing=Timing(pace=0.0))
    async with session_of(world, renewal()) as session:
        await session.send_message("tell me more")
        await asyncio.sleep(1.5)
        # All of it is there by now, and still being played.
        world.cut()
        await asyncio.sleep(0.5)
        assert isinstance(world.memory()[-1], types.MessageItem)
        await session.interrupt()
        await asyncio.sleep(1)
        _, answer = session.history
        assert isinstance(answer, AssistantMessageItem)
        assert answer.status == "incomplete"
        (part,) = answer.content
        assert part.heard_ms is not None  # type: ignore[union-attr]
        memory = world.memory()[-1]
        assert isinstance(memory, types.MessageItem)
        assert memory.id == answer.item_id
        check_memory(world, session)


async def test_the_agent_that_speaks_now_speaks_on_over_the_next_connection(world: World) -> None:
    billing: RealtimeAgent[Any] = RealtimeAgent(name="Billing", instructions="You bill.")
    desk: RealtimeAgent[Any] = RealtimeAgent(name="Desk", instructions="You greet.", handoffs=[realtime_handoff(billing)])
    async with session_of(world, renewal(), desk) as session:
        await session.update_agent(billing)
        await asyncio.sleep(0.1)
        world.cut()
        await asyncio.sleep(0.5)
        config = world.machines[-1].session
        assert isinstance(config, types.RealtimeSessionConfig)
        assert config.instructions == "You bill."
        assert config.tools == []


@pytest.mark.parametrize("moment", ["dialling", "waiting", "ready"])
async def test_a_session_that_is_closed_in_the_middle_of_a_renewal_leaves_nothing(world: World, moment: str) -> None:
    renewing = renewal()
    session = session_of(world, renewing)
    async with session:
        if moment == "ready":
            await session.send_message("tell me more")
            await asyncio.sleep(1)
            await session.renew_model()
            await asyncio.sleep(0.5)
        else:
            world.on_dial = _refuse_until(asyncio.Event()) if moment == "waiting" else world.on_dial
            world.connect_seconds = 5.0 if moment == "dialling" else 0.05
            world.cut()
            await asyncio.sleep(0.3)
    await asyncio.sleep(0.01)
    assert renewing.pool.sessions("here") == 0
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    assert all(pair.client.close_code is not None for pair in world.pairs)


async def test_an_endpoint_that_opens_and_never_greets_costs_one_try_and_no_more(world: World) -> None:
    renewing = renewal("north", "south", attempt=4.0)

    async def dial(url: str, *arguments: Any, **options: Any) -> Any:
        leg = await world.dial(url, *arguments, **options)
        if "north" in url:
            world.pairs[-1].client_line.drop()
        return leg

    model = OpenAIRealtimeWebSocketModel(dial=dial, renewal=renewing)
    before = asyncio.get_running_loop().time()
    async with RealtimeSession(model, RealtimeAgent(name="Desk"), None, {}):
        assert asyncio.get_running_loop().time() - before == pytest.approx(4.0, abs=0.2)
        assert (renewing.pool.sessions("north"), renewing.pool.sessions("south")) == (0, 1)
    # Who does not greet does not say goodbye either.
    await asyncio.sleep(10)
