"""The tool pool on real tool actors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import ray

from actors import _options
from actors.tool import MAX_STUCK, ToolActor
from actors.tool_pool import make_tool_pool, pools_of
from orchestrator.agent_ref import load_agent
from orchestrator.cluster.reconcile import tool_name
from orchestrator.cluster.tool_dispatch import ToolDispatcher
from orchestrator.settings import Settings
from orchestrator.tool_runner import ToolReply, ToolRequest, collect_tools, pack_context
from tests.agents import tools as clumsy
from tests.waiting import until

pytestmark = pytest.mark.cluster

AGENT = "tests.agents.tools:agent"


@pytest.fixture
def settings(namespace: str) -> Settings:
    return Settings(agent=AGENT, namespace=namespace, tool_actors=2)


@pytest.fixture
async def pool(settings: Settings) -> AsyncIterator[ToolDispatcher]:
    for index in range(settings.tool_actors):
        _options.create(ToolActor, settings.namespace, tool_name("default", index), settings.to_json())
    dispatcher = make_tool_pool(settings, collect_tools(load_agent(AGENT)))
    yield dispatcher
    await dispatcher.aclose()


def request(tool: str, /, context: Any = None, **arguments: Any) -> ToolRequest:
    value, context_type = pack_context(context)
    return ToolRequest(
        call_id="call_1",
        session_id="sess_1",
        agent="clumsy",
        tool=tool,
        arguments=msgspec.json.encode(arguments).decode(),
        context=value,
        context_type=context_type,
    )


async def actor_pids(settings: Settings) -> set[int]:
    """Return the processes of those actors that answer; one that is being restarted refuses."""
    handles = [_options.find(settings.namespace, tool_name("default", index)) for index in range(settings.tool_actors)]
    answers = await asyncio.gather(*(ask(handle) for handle in handles))
    return {pid for pid in answers if pid}


async def ask(handle: Any) -> int:
    try:
        return int(await handle.pid.remote())
    except ray.exceptions.RayError:
        return 0


def runs(note: Path) -> int:
    return len(note.read_text().splitlines())


def make_fifo(path: Path) -> str:
    os.mkfifo(path)
    return str(path)


async def test_a_tool_runs_in_a_tool_actor_and_not_here(pool: ToolDispatcher, settings: Settings) -> None:
    reply = await pool.run(request("add", a=2, b=3))
    assert (reply.ok, reply.output, reply.call_id) == (True, "5", "call_1")
    assert reply.pid in await actor_pids(settings)
    assert reply.pid != os.getpid()


async def test_calls_at_once_are_spread_over_the_actors(pool: ToolDispatcher, tmp_path: Path, settings: Settings) -> None:
    await pool.run(request("pid"))
    await until_all_trusted(pool, settings)
    fifos = [make_fifo(tmp_path / f"fifo{index}") for index in range(2)]
    calls = [asyncio.ensure_future(pool.run(request("wait_for_line", fifo=fifo))) for fifo in fifos]
    for fifo in fifos:
        await asyncio.to_thread(Path(fifo).write_text, "go\n")
    replies = await asyncio.gather(*calls)
    assert {reply.pid for reply in replies} == await actor_pids(settings)


async def until_all_trusted(pool: ToolDispatcher, settings: Settings) -> None:
    seen: set[int] = set()

    async def all_seen() -> bool:
        seen.add((await pool.run(request("pid"))).pid)
        return len(seen) == settings.tool_actors

    await until(all_seen)


async def test_a_tool_that_raises_and_one_that_takes_too_long_are_error_results(pool: ToolDispatcher) -> None:
    failed = await pool.run(request("fail"))
    assert (failed.ok, failed.error_code) == (False, "tool_failed")
    assert "secret" not in failed.output
    late = await pool.run(request("never"))
    assert (late.ok, late.error_code) == (False, "tool_timeout")
    assert (await pool.run(request("add", a=1, b=1))).ok


async def test_a_tool_whose_actor_dies_is_lost_and_never_run_twice(
    pool: ToolDispatcher, tmp_path: Path, settings: Settings
) -> None:
    note = tmp_path / "note"
    lost = await pool.run(request("die", note=str(note)))
    assert (lost.ok, lost.error_code) == (False, "tool_lost")
    assert "unknown" in lost.output
    assert (await pool.run(request("add", a=1, b=1))).ok
    await until_all_trusted(pool, settings)
    assert runs(note) == 1


async def test_an_idempotent_tool_whose_actor_dies_is_run_again_elsewhere(pool: ToolDispatcher, tmp_path: Path) -> None:
    note = tmp_path / "note"
    reply = await pool.run(request("die_once", note=str(note)))
    assert (reply.ok, reply.output) == (True, "done")
    first, second = note.read_text().split()
    assert first != second


async def test_after_a_kill_the_next_call_succeeds_and_the_actor_comes_back(pool: ToolDispatcher, settings: Settings) -> None:
    victim = (await pool.run(request("pid"))).pid
    os.kill(victim, 9)
    replies = [await pool.run(request("add", a=1, b=1)) for _ in range(4)]
    # The first may have been given to the dead one before anybody could know; it is told apart, not repeated.
    assert sum(reply.ok for reply in replies) >= 3
    assert {reply.error_code for reply in replies} <= {None, "tool_lost"}

    async def back() -> bool:
        return victim not in (pids := await actor_pids(settings)) and len(pids) == 2

    await until(back)
    await until_all_trusted(pool, settings)


async def test_an_actor_that_was_removed_and_created_anew_is_found_by_its_name(
    pool: ToolDispatcher, settings: Settings
) -> None:
    before = await actor_pids(settings)
    for index in range(settings.tool_actors):
        _options.remove(settings.namespace, tool_name("default", index))
        _options.create(ToolActor, settings.namespace, tool_name("default", index), settings.to_json())
    replies: list[ToolReply] = []

    async def works() -> bool:
        replies.append(await pool.run(request("pid")))
        return replies[-1].ok

    await until(works)
    assert replies[-1].pid not in before


async def test_cancelling_a_call_cancels_it_on_the_actor(pool: ToolDispatcher, tmp_path: Path) -> None:
    fifo, note = make_fifo(tmp_path / "fifo"), tmp_path / "note"
    call = asyncio.ensure_future(pool.run(request("cancelled", note=str(note), fifo=fifo)))
    assert await asyncio.to_thread(Path(fifo).read_text) == "begun\n"
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    async def told() -> bool:
        return note.exists()

    await until(told)
    assert pool.outstanding == 0


async def test_the_context_travels_as_a_copy_and_its_changes_come_back(pool: ToolDispatcher) -> None:
    reply = await pool.run(request("deposit", clumsy.Account(balance=10), amount=5))
    assert (reply.output, reply.context) == ("Ada has 15", {"balance": 15})


async def test_an_actor_with_too_many_stuck_threads_answers_what_is_in_flight_and_starts_anew(
    namespace: str, tmp_path: Path
) -> None:
    settings = Settings(agent=AGENT, namespace=namespace, tool_actors=1)
    handle = _options.create(ToolActor, namespace, tool_name("default", 0), settings.to_json())
    pool = make_tool_pool(settings, collect_tools(load_agent(AGENT)))
    first = (await pool.run(request("pid"))).pid
    held = make_fifo(tmp_path / "held")
    in_flight = asyncio.ensure_future(pool.run(request("wait_for_line", fifo=held)))
    stuck = make_fifo(tmp_path / "stuck")
    late = await asyncio.gather(*(pool.run(request("blocked", fifo=stuck)) for _ in range(MAX_STUCK)))
    assert {reply.error_code for reply in late} == {"tool_timeout"}

    async def leaving() -> bool:
        return bool(msgspec.json.decode(await handle.status.remote())["leaving"])

    await until(leaving)
    # Not started on the actor that is leaving, though it still lives: it waits for the next one.
    waiting = asyncio.ensure_future(pool.run(request("pid")))
    await asyncio.to_thread(Path(held).write_text, "held\n")
    assert (await in_flight).output == "held"
    reply = await waiting
    assert reply.ok
    assert reply.pid != first
    await pool.aclose()


async def test_an_agent_that_cannot_be_imported_says_so_when_the_actor_is_asked_for(namespace: str) -> None:
    settings = Settings(agent="no_such_module:agent", namespace=namespace)
    handle = _options.create(ToolActor, namespace, tool_name("default", 0), settings.to_json())
    with pytest.raises(ray.exceptions.ActorDiedError, match="no_such_module"):
        await handle.ping.remote()


def test_a_pool_is_made_for_each_name_that_the_tools_use() -> None:
    assert pools_of(collect_tools(clumsy.agent)) == ("default", "other")
