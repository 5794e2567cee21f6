"""Where tool calls go and what becomes of them, on places in memory and on virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import pytest

from orchestrator.cluster.tool_dispatch import GRACE, NOT_STARTED, WAIT_FOR_PLACE, PlaceLost, ToolDispatcher
from orchestrator.testing import virtual_clock
from orchestrator.tool import FunctionTool
from orchestrator.tool_runner import ToolReply, ToolRequest


class Place:
    """A place in memory: `answer` does the work, `alive` says whether pings are answered."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.alive = True
        self.received: list[ToolRequest] = []
        self.cancelled = 0
        self.answer: Callable[[ToolRequest], Awaitable[ToolReply]] = self.succeed

    async def run(self, request: str) -> str:
        decoded = msgspec.json.decode(request, type=ToolRequest)
        self.received.append(decoded)
        try:
            return msgspec.json.encode(await self.answer(decoded)).decode()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def ping(self) -> int:
        if not self.alive:
            raise PlaceLost("dead")
        return self.pid

    async def succeed(self, request: ToolRequest) -> ToolReply:
        return ToolReply(call_id=request.call_id, ok=True, output=self.name, pid=self.pid, seconds=0.0)

    async def refuse(self, request: ToolRequest) -> ToolReply:
        return ToolReply(call_id=request.call_id, ok=False, output="", error_code=NOT_STARTED, pid=self.pid, seconds=0.0)

    async def die(self, request: ToolRequest) -> ToolReply:
        self.alive = False
        raise PlaceLost("died")

    async def hang(self, request: ToolRequest) -> ToolReply:
        await asyncio.Event().wait()
        raise AssertionError("never set")


def tool(name: str = "t", **options: Any) -> FunctionTool:
    async def invoke(_context: Any, _arguments: str) -> Any:
        raise AssertionError("a dispatcher runs nothing itself")

    return FunctionTool(name=name, description="", params_json_schema={}, on_invoke_tool=invoke, **options)


def make(places: list[Place], *tools: FunctionTool, **options: Any) -> ToolDispatcher:
    known = {("a", entry.name): entry for entry in tools or (tool(),)}
    return ToolDispatcher(known, {"default": places}, lots=random.Random(1), **options)


def request(name: str = "t", *, timeout_s: float | None = None) -> ToolRequest:
    return ToolRequest(call_id="c", session_id="s", agent="a", tool=name, arguments="{}", timeout_s=timeout_s)


def on_virtual_time(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        virtual_clock.run(scenario())

    test.__name__ = scenario.__name__
    return test


def now() -> float:
    return asyncio.get_running_loop().time()


@on_virtual_time
async def test_a_call_is_answered_by_a_place() -> None:
    place = Place("p", 7)
    dispatcher = make([place])
    reply = await dispatcher.run(request())
    assert (reply.ok, reply.output, reply.pid) == (True, "p", 7)
    assert dispatcher.outstanding == 0
    await dispatcher.aclose()


@on_virtual_time
async def test_calls_go_to_the_place_with_the_fewest_out() -> None:
    places = [Place("p", 1), Place("q", 2), Place("r", 3)]
    for place in places:
        place.answer = place.hang
    dispatcher = make(places)
    calls = [asyncio.create_task(dispatcher.run(request())) for _ in range(7)]
    await asyncio.sleep(1.0)
    assert sorted(len(place.received) for place in places) == [2, 2, 3]
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    await dispatcher.aclose()


@on_virtual_time
async def test_cancelling_a_call_cancels_it_where_it_runs_and_frees_its_seat() -> None:
    place = Place("p", 1)
    place.answer = place.hang
    dispatcher = make([place])
    call = asyncio.create_task(dispatcher.run(request()))
    await asyncio.sleep(0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert place.cancelled == 1
    assert dispatcher.outstanding == 0
    place.answer = place.succeed
    assert (await dispatcher.run(request())).ok
    await dispatcher.aclose()


@on_virtual_time
async def test_a_call_whose_place_dies_is_lost_and_never_repeated() -> None:
    dying, other = Place("p", 1), Place("q", 2)
    dying.answer = dying.die
    other.answer = other.die
    dispatcher = make([dying, other])
    reply = await dispatcher.run(request())
    assert (reply.ok, reply.error_code) == (False, "tool_lost")
    assert "unknown" in reply.output
    assert reply.pid in (1, 2)
    assert len(dying.received) + len(other.received) == 1
    await dispatcher.aclose()


@on_virtual_time
async def test_an_idempotent_call_is_tried_again_as_often_as_it_may_be() -> None:
    places = [Place(name, index) for index, name in enumerate("pqrs", start=1)]
    for place in places:
        place.answer = place.die
    dispatcher = make(places, tool(idempotent=True, retries=2))
    reply = await dispatcher.run(request())
    assert reply.error_code == "tool_lost"
    assert "safe to try it again" in reply.output
    assert sum(len(place.received) for place in places) == 3
    survivor = next(place for place in places if place.alive)
    survivor.answer = survivor.succeed
    assert (await dispatcher.run(request())).output == survivor.name
    await dispatcher.aclose()


@on_virtual_time
async def test_a_place_that_does_not_answer_is_given_up_after_the_timeout_and_its_grace() -> None:
    place = Place("p", 1)
    place.answer = place.hang
    dispatcher = make([place])
    started = now()
    reply = await dispatcher.run(request(timeout_s=5.0))
    assert reply.error_code == "tool_lost"
    assert now() - started == pytest.approx(5.0 + GRACE)
    assert place.cancelled == 1
    await dispatcher.aclose()


@on_virtual_time
async def test_a_tools_own_timeout_comes_before_the_requests_and_the_default_holds_for_neither() -> None:
    place = Place("p", 1)
    place.answer = place.hang
    dispatcher = make([place], tool("own", timeout_seconds=2.0), tool("none"), default_timeout=7.0)
    started = now()
    await dispatcher.run(request("own", timeout_s=50.0))
    assert now() - started == pytest.approx(2.0 + GRACE)
    started = now()
    await dispatcher.run(request("none"))
    assert now() - started == pytest.approx(7.0 + GRACE)
    assert [received.timeout_s for received in place.received] == [50.0, 7.0]
    await dispatcher.aclose()


@on_virtual_time
async def test_a_lost_place_gets_no_call_until_it_has_answered_a_ping() -> None:
    place = Place("p", 1)
    place.answer = place.die
    dispatcher = make([place])
    await dispatcher.run(request())
    place.answer = place.succeed
    call = asyncio.create_task(dispatcher.run(request()))
    await asyncio.sleep(3.0)
    assert len(place.received) == 1
    place.alive = True
    assert (await call).ok
    assert len(place.received) == 2
    await dispatcher.aclose()


@on_virtual_time
async def test_without_any_place_a_call_is_answered_in_bounded_time_and_was_not_started() -> None:
    place = Place("p", 1)
    place.alive = False
    dispatcher = make([place])
    started = now()
    reply = await dispatcher.run(request())
    assert (reply.ok, reply.error_code) == (False, "tool_unavailable")
    assert now() - started == pytest.approx(WAIT_FOR_PLACE)
    assert place.received == []
    assert "not started" in reply.output
    await dispatcher.aclose()


@on_virtual_time
async def test_a_short_tool_does_not_wait_longer_for_a_place_than_it_may_take() -> None:
    place = Place("p", 1)
    place.alive = False
    dispatcher = make([place], tool(timeout_seconds=1.0))
    started = now()
    await dispatcher.run(request())
    assert now() - started == pytest.approx(1.0 + GRACE)
    await dispatcher.aclose()


@on_virtual_time
async def test_a_place_that_takes_no_calls_any_more_hands_them_to_another_even_if_they_may_not_be_repeated() -> None:
    leaving, other = Place("p", 1), Place("q", 2)
    leaving.answer = leaving.refuse
    dispatcher = make([leaving, other])
    replies = []
    for _ in range(8):
        replies.append(await dispatcher.run(request()))
        leaving.alive = False
    assert {reply.output for reply in replies} == {"q"}
    assert len(leaving.received) <= 1
    await dispatcher.aclose()


@on_virtual_time
async def test_a_full_pool_answers_that_it_is_busy() -> None:
    place = Place("p", 1)
    place.answer = place.hang
    dispatcher = make([place], max_outstanding=2)
    calls = [asyncio.create_task(dispatcher.run(request())) for _ in range(2)]
    await asyncio.sleep(0.1)
    reply = await dispatcher.run(request())
    assert (reply.ok, reply.error_code) == (False, "tool_busy")
    assert len(place.received) == 2
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    place.answer = place.succeed
    assert (await dispatcher.run(request())).ok
    await dispatcher.aclose()


@on_virtual_time
async def test_an_unknown_tool_and_a_pool_without_places_are_errors_at_once() -> None:
    dispatcher = make([Place("p", 1)], tool("lonely", pool="nowhere"))
    assert (await dispatcher.run(request("no_such"))).error_code == "tool_not_found"
    started = now()
    assert (await dispatcher.run(request("lonely"))).error_code == "tool_unavailable"
    assert now() == started
    await dispatcher.aclose()


@on_virtual_time
async def test_an_answer_that_is_no_reply_is_a_lost_call() -> None:
    class Babbling(Place):
        async def run(self, request: str) -> str:
            return "babble"

    dispatcher = make([Babbling("p", 1)])
    assert (await dispatcher.run(request())).error_code == "tool_lost"
    await dispatcher.aclose()


@on_virtual_time
async def test_a_closed_dispatcher_leaves_no_task_behind_and_starts_no_call() -> None:
    place = Place("p", 1)
    place.alive = False
    dispatcher = make([place])
    dispatcher.start()
    await asyncio.sleep(1.0)
    await dispatcher.aclose()
    await dispatcher.aclose()
    assert (await dispatcher.run(request())).error_code == "tool_unavailable"
    assert asyncio.all_tasks() == {asyncio.current_task()}


@on_virtual_time
async def test_a_request_that_cannot_be_sent_is_answered_and_no_place_is_blamed() -> None:
    place = Place("p", 1)
    dispatcher = make([place])
    reply = await dispatcher.run(msgspec.structs.replace(request(), context={"language": "\ud800"}))
    assert (reply.ok, reply.error_code) == (False, "user_error")
    assert place.received == []
    assert (await dispatcher.run(request())).ok
    await dispatcher.aclose()
