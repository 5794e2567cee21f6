"""Sessions on a model that must be awaited."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestrator.core.inputs import RealtimeModelSendEvent
from orchestrator.errors import UserError
from orchestrator.guardrail import GuardrailFunctionOutput, input_guardrail
from orchestrator.realtime import RealtimeAgent, RealtimeModel, RealtimeModelConfig, RealtimeSession
from orchestrator.realtime.items import InputText, UserMessageItem
from orchestrator.realtime.sender import LIMIT, Sender


class SlowModel(RealtimeModel):
    """Takes a second for each input."""

    def __init__(self) -> None:
        self.taken: list[RealtimeModelSendEvent] = []
        self.listeners: list[Any] = []
        self.fail: BaseException | None = None
        self.closes = 0
        self.fail_close = False

    async def connect(self, options: RealtimeModelConfig) -> None:
        pass

    def add_listener(self, listener: Any) -> None:
        self.listeners.append(listener)

    def remove_listener(self, listener: Any) -> None:
        self.listeners = [known for known in self.listeners if known is not listener]

    async def send_event(self, event: RealtimeModelSendEvent) -> None:
        await asyncio.sleep(1)
        if self.fail is not None:
            failure, self.fail = self.fail, None
            raise failure
        self.taken.append(event)

    async def close(self) -> None:
        self.closes += 1
        if self.fail_close:
            raise OSError("cannot close")


def session_on(model: SlowModel, **options: Any) -> RealtimeSession:
    return RealtimeSession(model, RealtimeAgent(name="A"), **options)


async def test_nothing_overtakes_what_was_sent_before() -> None:
    model = SlowModel()
    history = [UserMessageItem(item_id="u1", content=(InputText(text="earlier"),))]
    async with session_on(model, history=history) as session:
        await session.send_message("now")
        assert [type(event).__name__ for event in model.taken] == ["RealtimeModelSendRawMessage", "RealtimeModelSendUserInput"]


async def test_what_the_model_raises_goes_to_whoever_sent() -> None:
    model = SlowModel()
    async with session_on(model) as session:
        model.fail = ValueError("too loud")
        with pytest.raises(ValueError, match="too loud"):
            await session.send_message("HELLO")
        model.fail = asyncio.CancelledError()
        with pytest.raises(asyncio.CancelledError):
            await session.send_message("hello")
        await session.send_message("still there?")
        assert len(model.taken) == 1


async def test_who_waits_when_the_session_closes_is_told() -> None:
    model = SlowModel()
    session = session_on(model)
    await session.enter()
    sending = [asyncio.ensure_future(session.send_message(text)) for text in ("one", "two")]
    await asyncio.sleep(0.5)
    await session.close()
    first, second = await asyncio.gather(*sending, return_exceptions=True)
    assert isinstance(first, UserError)
    assert isinstance(second, UserError)
    assert (model.closes, len(asyncio.all_tasks())) == (1, 1)


async def test_a_close_that_failed_can_be_tried_again() -> None:
    model = SlowModel()
    session = session_on(model)
    await session.enter()
    model.fail_close = True
    with pytest.raises(OSError, match="cannot close"):
        await session.close()
    model.fail_close = False
    await session.close()
    await session.close()
    assert model.closes == 2


async def test_a_full_queue_is_reported_where_nobody_waits() -> None:
    faults: list[Exception] = []
    sender = Sender(SlowModel(), faults.append)
    for _ in range(LIMIT + 1):
        sender.put(object())  # type: ignore[arg-type]
    assert [type(fault) for fault in faults] == [UserError]
    await sender.aclose()


async def test_who_waits_for_a_place_in_the_queue_is_told_too() -> None:
    model = SlowModel()
    session = await session_on(model).enter()
    sends = [asyncio.create_task(session.interrupt()) for _ in range(LIMIT + 3)]
    await asyncio.sleep(0.1)
    await session.close()
    done, pending = await asyncio.wait(sends, timeout=5)
    assert not pending
    assert all(isinstance(send.exception(), UserError) for send in done)


async def test_a_long_history_is_sent_in_full() -> None:
    model = SlowModel()
    history = [UserMessageItem(item_id=f"u{index}", content=(InputText(text="x"),)) for index in range(LIMIT + 5)]
    async with session_on(model, history=history) as session:
        await session.send_message("now")
        assert len(model.taken) == LIMIT + 6


async def test_what_is_said_while_the_session_closes_starts_no_check() -> None:
    model = SlowModel()
    checked: list[str] = []

    @input_guardrail
    async def check(context: Any, agent: Any, text: str) -> GuardrailFunctionOutput:
        checked.append(text)
        return GuardrailFunctionOutput(None, tripwire_triggered=True)

    session = RealtimeSession(model, RealtimeAgent(name="A", input_guardrails=[check]))
    await session.enter()
    session._inside.closed = True
    await session._inside.tasks.aclose(1)
    session._guarding.check_input("late")
    await asyncio.sleep(1)
    assert checked == []
    await session.close()


async def test_closing_while_a_long_history_is_sent_ends_the_entering() -> None:
    model = SlowModel()
    history = [UserMessageItem(item_id=f"u{index}", content=(InputText(text="x"),)) for index in range(3 * LIMIT)]
    session = session_on(model, history=history)
    entering = asyncio.create_task(session.enter())
    await asyncio.sleep(5.5)
    await session.close()
    with pytest.raises(UserError, match="closed"):
        await asyncio.wait_for(entering, 5)
    assert len(asyncio.all_tasks()) == 1
