"""How a session ends: once, whole, and whoever asks for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import function_tool
from orchestrator.errors import UserError
from orchestrator.realtime import RealtimeAgent, RealtimeRunHooks, RealtimeSession
from orchestrator.realtime.model import RealtimeModel, RealtimeModelConfig, RealtimeModelListener
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from tests.realtime.reading import Reader, until

MakeSession = Callable[..., RealtimeSession]


class SlowModel(RealtimeModel):
    """A model whose close takes its time, and may fail."""

    def __init__(self, *failures: Exception) -> None:
        self.release = asyncio.Event()
        self.closing = 0
        self.closed = 0
        self._failures = list(failures)

    async def connect(self, options: RealtimeModelConfig) -> None:
        pass

    def add_listener(self, listener: RealtimeModelListener) -> None:
        pass

    def remove_listener(self, listener: RealtimeModelListener) -> None:
        pass

    async def send_event(self, event: Any) -> None:
        pass

    async def close(self) -> None:
        self.closing += 1
        await self.release.wait()
        if self._failures:
            raise self._failures.pop(0)
        self.closed += 1


def session_on(model: RealtimeModel) -> RealtimeSession:
    return RealtimeSession(model, RealtimeAgent(name="A"))


async def test_a_close_that_is_cancelled_still_closes() -> None:
    model = SlowModel()
    session = session_on(model)
    await session.enter()
    closing = asyncio.ensure_future(session.close())
    await until(lambda: model.closing == 1)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert model.closed == 0
    model.release.set()
    await until(lambda: model.closed == 1)
    await session.close()
    assert model.closing == 1
    assert len(asyncio.all_tasks()) == 1


async def test_all_who_close_wait_for_one_end() -> None:
    model = SlowModel()
    session = session_on(model)
    await session.enter()
    closers = [asyncio.ensure_future(session.close()) for _ in range(3)]
    await until(lambda: model.closing == 1)
    closers[0].cancel()
    model.release.set()
    results = await asyncio.gather(*closers, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError, type(None), type(None)]
    assert (model.closing, model.closed) == (1, 1)


async def test_a_close_that_failed_is_tried_again_by_the_next_one() -> None:
    model = SlowModel(OSError("no"))
    model.release.set()
    session = session_on(model)
    await session.enter()
    with pytest.raises(OSError, match="no"):
        await session.close()
    with pytest.raises(UserError, match="not open"):
        await session.send_message("too late")
    await session.close()
    await session.close()
    assert (model.closing, model.closed) == (2, 1)


async def test_loops_end_as_soon_as_closing_begins() -> None:
    model = SlowModel()
    session = session_on(model)
    await session.enter()
    reader = Reader(session)
    closing = asyncio.ensure_future(session.close())
    await reader.ended()
    assert model.closed == 0
    model.release.set()
    await closing


async def test_a_tool_may_close_its_own_session(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    ends: list[str] = []

    @function_tool
    async def hang_up() -> str:
        try:
            await session.close()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        return "never"

    session = make_session(RealtimeAgent(name="A", tools=[hang_up]))
    async with session:
        endpoint.call_tools(("call_1", "hang_up", "{}"))
        await until(lambda: endpoint.closed is not None)
    # It is a task of the session, which cannot end while it waits for the end.
    assert ends == ["cancelled"]
    assert len(asyncio.all_tasks()) == 1


class Notes(RealtimeRunHooks[Any]):
    def __init__(self, seconds: float = 0.0) -> None:
        self.notes: list[str] = []
        self._seconds = seconds

    async def on_agent_start(self, context: Any, agent: Any) -> None:
        await asyncio.sleep(self._seconds)
        self.notes.append("start")

    async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
        await asyncio.sleep(self._seconds)
        self.notes.append("end")


async def test_hooks_that_are_queued_are_called_before_the_end(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    hooks = Notes(0.1)
    async with make_session(run_config={"hooks": hooks}):
        endpoint.start_response()
        endpoint.end_response()
        await endpoint.settle()
        assert hooks.notes == []
    assert hooks.notes == ["start", "end"]
    assert len(asyncio.all_tasks()) == 1


async def test_a_hook_that_never_ends_does_not_keep_the_session(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    hooks = Notes(10_000)
    async with make_session(run_config={"hooks": hooks}):
        endpoint.start_response()
        await endpoint.settle()
    assert hooks.notes == []
    assert endpoint.closed is not None
    assert len(asyncio.all_tasks()) == 1


async def test_a_hook_may_close_its_own_session(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    class HangUp(RealtimeRunHooks[Any]):
        async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
            await session.close()

    session = make_session(run_config={"hooks": HangUp()})
    async with session:
        endpoint.start_response()
        endpoint.end_response()
        await until(lambda: endpoint.closed is not None)
    assert len(asyncio.all_tasks()) == 1


async def test_the_hooks_of_a_lost_conversation_are_called_too(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    hooks = Notes(0.1)
    async with make_session(run_config={"hooks": hooks}) as session:
        reader = Reader(session)
        endpoint.start_response()
        endpoint.end_response()
        await endpoint.settle()
        endpoint.cut()
        await reader.ended()
    assert hooks.notes == ["start", "end"]
