"""The calls of one process: whatever a call holds, its seat comes back and the gateway hears of it."""

import asyncio
from typing import Any

import msgspec

from orchestrator.channels import host as module
from orchestrator.channels.host import Given
from orchestrator.errors import EndReason


async def test_a_record_that_cannot_be_written_holds_no_seat(world: Any) -> None:
    session_id, caller = await world.call("openai")
    await world.settle()
    world.endpoint.call_tools(("call_1", "broken_text", "{}"))
    await asyncio.sleep(0.1)
    assert world.endpoint.types()[-1] == "response.create"
    caller.leg.close(1000)
    await world.over(session_id)
    assert world.host.free_seats == 4
    record = msgspec.json.decode(world.host.describe(session_id))
    assert [entry["kind"] for entry in record["entries"]][-2:] == ["tool", "end"]


async def test_records_are_kept_within_bounds(world: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "MAX_RECORD_BYTES", 1000)
    ended = []
    for _ in range(12):
        session_id, caller = await world.call("openai")
        await world.settle()
        caller.leg.close(1000)
        await world.over(session_id)
        ended.append(session_id)
    kept = [session_id for session_id in ended if world.host.describe(session_id) is not None]
    assert kept == ended[-len(kept) :]
    assert sum(len(world.host.describe(session_id)) for session_id in kept) <= 1000


async def test_nobody_is_taken_once_the_host_is_closing(world: Any) -> None:
    await world.host.aclose(EndReason("shutdown"))
    refusal = world.host.adopt(None, None, Given("s", "openai", b"", "", 0.0))
    assert refusal is not None
    assert refusal.code == "shutdown"
