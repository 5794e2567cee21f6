"""One call from its socket to its end: whatever fails or leaves first, both legs end and the reason is the right one."""

import asyncio
import gc
import socket
from typing import Any

import pytest
from structlog.testing import capture_logs

from orchestrator.channels.host import Given
from orchestrator.errors import EndReason, LegConnectError, UserError


async def enter(world: Any) -> tuple[str, Any]:
    session_id, caller = await world.call("openai")
    await world.settle()
    return session_id, caller


def task_of(session_id: str) -> asyncio.Task[Any]:
    return next(task for task in asyncio.all_tasks() if task.get_name() == f"call {session_id}")


async def test_a_request_that_is_no_upgrade_is_refused_and_not_a_fault_of_ours(world: Any) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with capture_logs() as logs:
        refusal = world.host.adopt(ours, None, Given("sess_x", "openai", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", 0.0))
        assert refusal is None
        reason = await world.over("sess_x")
    assert (reason.code, reason.by) == ("bad_upgrade", "caller")
    assert not [line for line in logs if line["log_level"] == "error"]
    assert (await asyncio.get_running_loop().sock_recv(theirs, 100)).startswith(b"HTTP/1.1 4")
    assert world.reporter.ups == []
    theirs.close()


async def test_a_caller_that_leaves_while_the_model_is_being_connected_has_hung_up(world: Any) -> None:
    world.dial_delay = 5.0
    session_id, caller = await enter(world)
    caller.leg.close(1000)
    assert (await world.over(session_id)).code == "caller_hung_up"
    assert world.endpoint.url == ""


async def test_a_model_that_refuses_in_the_moment_in_which_the_caller_leaves_is_nobodys_surprise(world: Any) -> None:
    loop = asyncio.get_running_loop()
    raised: list[Any] = []
    loop.set_exception_handler(lambda _, context: raised.append(context))
    world.refuse_dial = LegConnectError("cannot connect")
    world.when_refused = lambda: world.host.end("sess_1", EndReason("caller_hung_up", by="caller"))
    session_id, _ = await enter(world)
    assert (await world.over(session_id)).code == "caller_hung_up"
    gc.collect()
    assert raised == []


async def test_a_program_that_is_wrong_is_not_a_model_that_is_away(world: Any) -> None:
    world.refuse_dial = UserError("Duplicate Realtime tool name found: 'x'")
    session_id, caller = await enter(world)
    reason = await world.over(session_id)
    assert (reason.code, reason.cause, reason.by) == ("internal_error", "user_error", "us")
    assert caller.leg.close_code == 1011


async def test_a_model_that_closes_and_takes_nobody_back_ends_the_call_as_lost(world: Any) -> None:
    session_id, caller = await enter(world)
    world.refuse_dial = LegConnectError("refused", 401)
    world.endpoint.close(1000)
    reason = await world.over(session_id)
    assert (reason.code, reason.cause, reason.by) == ("model_lost", "invalid_api_key", "model")
    assert caller.of("error")[-1]["error"]["code"] == "model_lost"
    assert caller.leg.close_code == 1011


async def test_the_caller_does_not_wait_for_a_model_that_does_not_close(world: Any) -> None:
    session_id, caller = await enter(world)
    world.endpoint.stall()
    world.host.end(session_id, EndReason("shutdown", "the service is being shut down"))
    await world.settle()
    assert caller.closed is not None
    assert caller.leg.close_code == 1001
    assert session_id not in world.reporter.ends
    assert (await world.over(session_id)).code == "shutdown"


@pytest.mark.parametrize("moment", ["handshake", "connecting", "live", "closing"])
async def test_a_call_that_is_cancelled_leaves_nothing_behind(world: Any, moment: str) -> None:
    world.dial_delay = 5.0 if moment == "connecting" else 0.0
    session_id, caller = await enter(world)
    if moment == "closing":
        world.endpoint.stall()
        world.host.end(session_id, EndReason("shutdown"))
        await world.settle()
    task_of(session_id).cancel()
    reason = await world.over(session_id)
    assert reason.code == ("shutdown" if moment == "closing" else "cancelled")
    await world.settle()
    assert caller.closed is not None
    assert world.reporter.states[-1] == (session_id, "ended")
    if moment in ("live", "closing"):
        world.endpoint.cut()
        assert world.endpoint.closed is not None or moment == "closing"


async def test_a_fault_of_ours_in_a_callers_message_is_not_laid_at_the_callers_door(world: Any) -> None:
    session_id, caller = await enter(world)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    caller_side = next(call for call, _ in world.host._calls.values())
    caller_side._channel._model = object()
    caller.send({"type": "input_audio_buffer.commit"})
    reason = await world.over(session_id)
    assert (reason.code, reason.cause, reason.by) == ("internal_error", "listener_error", "us")
