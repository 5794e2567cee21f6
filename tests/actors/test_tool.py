"""The threads of a tool actor: which of them outlived their call. Starts no Ray."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import msgspec
import pytest

from actors.tool import ToolThreads, _Call, _call, encode_reply
from orchestrator.tool_runner import ToolReply


@pytest.fixture
async def threads() -> AsyncIterator[ToolThreads]:
    executor = ToolThreads()
    asyncio.get_running_loop().set_default_executor(executor)
    yield executor
    executor.shutdown()


async def run_in_call(call: _Call, gate: threading.Event) -> None:
    _call.set(call)
    await asyncio.to_thread(gate.wait)


async def drained(executor: ToolThreads) -> None:
    while executor._busy:  # noqa: ASYNC110 - the end of a thread is told through the loop, to nobody else
        await asyncio.sleep(0)


async def test_a_thread_whose_call_goes_on_is_not_stuck(threads: ToolThreads) -> None:
    gate, call = threading.Event(), _Call()
    running = asyncio.create_task(run_in_call(call, gate))
    await asyncio.sleep(0)
    assert threads.stuck == 0
    gate.set()
    await running
    call.over = True
    await drained(threads)
    assert threads.stuck == 0


async def test_a_thread_that_runs_although_its_call_is_over_is_stuck_until_it_ends(threads: ToolThreads) -> None:
    gate = threading.Event()
    calls = [_Call() for _ in range(3)]
    running = [asyncio.create_task(run_in_call(call, gate)) for call in calls]
    await asyncio.sleep(0)
    for task, call in zip(running[:2], calls[:2], strict=True):
        task.cancel()
        call.over = True
    await asyncio.gather(*running[:2], return_exceptions=True)
    assert threads.stuck == 2
    gate.set()
    await running[2]
    await drained(threads)
    assert threads.stuck == 0


async def test_a_thread_that_belongs_to_no_call_is_not_counted(threads: ToolThreads) -> None:
    gate = threading.Event()
    running = asyncio.create_task(asyncio.to_thread(gate.wait))
    await asyncio.sleep(0)
    assert threads.stuck == 0
    gate.set()
    await running


def test_a_reply_that_no_encoder_takes_is_sent_without_what_cannot_be_expressed() -> None:
    reply = ToolReply(call_id="c", ok=True, output="file \udc80", pid=1, seconds=0.0, context={"seen": 1})
    sent = msgspec.json.decode(encode_reply(reply), type=ToolReply)
    assert sent == msgspec.structs.replace(reply, output="file ?")
    broken = msgspec.structs.replace(reply, context={"path": "\udc80"})
    assert msgspec.json.decode(encode_reply(broken), type=ToolReply).context is None
