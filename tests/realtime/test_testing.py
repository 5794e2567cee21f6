"""The scripted model by itself; `test_testing_sessions` has it beneath a whole session."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from orchestrator.core.events import (
    RealtimeModelConnectionStatusEvent,
    RealtimeModelEvent,
    RealtimeModelSpeechStartedEvent,
    RealtimeModelToolCallEvent,
)
from orchestrator.core.inputs import (
    RealtimeModelSendAudio,
    RealtimeModelSendInterrupt,
    RealtimeModelSendSessionUpdate,
    RealtimeModelSendToolOutput,
    RealtimeModelSendUserInput,
)
from orchestrator.core.tool_calls import ToolCall
from orchestrator.realtime.model import DirectModel, RealtimeModelConfig, RealtimeModelListener, RealtimePlaybackTracker
from orchestrator.realtime.testing import (
    RealtimeConnectCall,
    RealtimeScriptError,
    RealtimeStep,
    ScriptedRealtimeModel,
    UnconsumedRealtimeSteps,
    UnexpectedRealtimeSend,
)

HELLO = RealtimeModelSendUserInput("hello")
BYE = RealtimeModelSendUserInput("bye")


def started(item_id: str) -> RealtimeModelSpeechStartedEvent:
    return RealtimeModelSpeechStartedEvent(item_id)


class Heard(RealtimeModelListener):
    """Notes the item ids of what it hears, and then does what the test wants."""

    def __init__(self, then: Callable[[Any], Awaitable[None]] | None = None) -> None:
        self.ids: list[str] = []
        self._then = then

    async def on_event(self, event: RealtimeModelEvent) -> None:
        self.ids.append(getattr(event, "item_id", event.type))
        if self._then is not None:
            await self._then(event)


async def connected(*steps: RealtimeStep, **options: Any) -> ScriptedRealtimeModel:
    model = ScriptedRealtimeModel(steps, **options)
    await model.connect({})
    return model


@pytest.mark.parametrize(
    "expect",
    [HELLO, RealtimeModelSendUserInput, object, lambda event: event.user_input == "hello"],
    ids=["an equal event", "its class", "a base of its class", "a function that says yes"],
)
async def test_a_send_that_fits_is_recorded_and_answered(expect: Any) -> None:
    model = await connected(RealtimeStep(expect, emit=[started("a"), started("b")]), RealtimeStep(BYE))
    heard = Heard()
    model.add_listener(heard)
    await model.send_event(RealtimeModelSendUserInput("hello"))
    assert heard.ids == ["a", "b"]
    assert model.sent_events == (HELLO,)
    assert model.remaining_steps == (RealtimeStep(BYE),)


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        (BYE, "expects RealtimeModelSendUserInput\\(user_input='bye'\\) next"),
        (RealtimeModelSendAudio, "expects any RealtimeModelSendAudio next"),
        (lambda event: False, "expects what .*lambda.* accepts \\(.*test_testing.py:\\d+\\) next"),
    ],
)
async def test_a_send_that_does_not_fit_is_refused_and_changes_nothing(expect: Any, words: str) -> None:
    step = RealtimeStep(expect, emit=[started("a")])
    model = await connected(step)
    heard = Heard()
    model.add_listener(heard)
    with pytest.raises(UnexpectedRealtimeSend, match=f"sent .*user_input='hello'.*, but the script {words}") as caught:
        await model.send_event(HELLO)
    assert (caught.value.actual, caught.value.expected) == (HELLO, expect)
    assert (model.sent_events, model.remaining_steps, heard.ids) == ((), (step,), [])


async def test_a_send_after_the_end_of_the_script_is_refused() -> None:
    model = await connected(RealtimeStep(HELLO))
    await model.send_event(HELLO)
    with pytest.raises(UnexpectedRealtimeSend, match="the script has come to its end") as caught:
        await model.send_event(BYE)
    assert (caught.value.actual, caught.value.expected) == (BYE, None)
    assert model.sent_events == (HELLO,)
    model.assert_complete()


async def test_a_lenient_script_records_what_does_not_fit_and_keeps_its_step() -> None:
    model = await connected(RealtimeStep(BYE), strict=False)
    for event in (HELLO, BYE, HELLO):
        await model.send_event(event)
    assert model.sent_events == (HELLO, BYE, HELLO)
    model.assert_complete()


async def test_a_function_that_raises_or_is_asynchronous_consumes_nothing() -> None:
    async def asynchronous(event: Any) -> bool:
        return True

    def raising(event: Any) -> bool:
        raise AssertionError("the greeting is too short")

    steps: list[RealtimeStep] = [RealtimeStep(raising), RealtimeStep(asynchronous)]  # type: ignore[arg-type]
    for step, words in zip(steps, ["the greeting is too short", "must be a plain one"], strict=True):
        model = await connected(step)
        with pytest.raises((AssertionError, TypeError), match=words):
            await model.send_event(HELLO)
        assert (model.sent_events, model.remaining_steps) == ((), (step,))


async def test_what_was_not_reached_is_listed_with_what_was_refused() -> None:
    model = await connected(RealtimeStep(HELLO), RealtimeStep(RealtimeModelSendAudio), RealtimeStep(BYE))
    await model.send_event(HELLO)
    with pytest.raises(UnexpectedRealtimeSend):
        await model.send_event(RealtimeModelSendInterrupt())
    with pytest.raises(UnconsumedRealtimeSteps) as caught:
        model.assert_complete()
    assert caught.value.remaining_steps == (RealtimeStep(RealtimeModelSendAudio), RealtimeStep(BYE))
    assert str(caught.value).splitlines() == [
        "2 step(s) of the script were not reached:",
        "  any RealtimeModelSendAudio",
        "  RealtimeModelSendUserInput(user_input='bye')",
    ]
    (note,) = caught.value.__notes__
    assert note.startswith("refused: the session sent RealtimeModelSendInterrupt(")


async def test_an_error_of_a_step_is_raised_by_the_send_that_fits_it() -> None:
    model = await connected(RealtimeStep(HELLO, error=OSError("the line is dead")))
    with pytest.raises(OSError, match="the line is dead"):
        await model.send_event(HELLO)
    assert model.sent_events == (HELLO,)
    model.assert_complete()


def test_contradictions_are_refused_when_they_are_written() -> None:
    with pytest.raises(ValueError, match="not both"):
        RealtimeStep(HELLO, emit=[started("a")], error=OSError())
    with pytest.raises(ValueError, match="not both"):
        ScriptedRealtimeModel(connect_events=[started("a")], connect_error=OSError())
    with pytest.raises(TypeError, match="not str"):
        RealtimeStep("hello")  # type: ignore[arg-type]


@pytest.mark.parametrize("closed", [False, True])
async def test_nothing_is_sent_or_emitted_while_disconnected(closed: bool) -> None:
    model = ScriptedRealtimeModel([RealtimeStep(HELLO)])
    if closed:
        await model.connect({})
        await model.close()
    for action in (model.send_event(HELLO), model.send_event_if(HELLO, lambda: True), model.emit(started("a"))):
        with pytest.raises(RealtimeScriptError, match="not connected"):
            await action
    assert (model.connected, model.closed, model.sent_events) == (False, closed, ())


async def test_a_conditional_send_asks_in_the_moment_of_sending() -> None:
    model = await connected(RealtimeStep(HELLO))
    assert not await model.send_event_if(HELLO, lambda: False)
    assert not model.sent_events
    assert await model.send_event_if(HELLO, lambda: not model.sent_events)
    # Whoever asks the same at the same time is late.
    assert not await model.send_event_if(HELLO, lambda: not model.sent_events)
    assert model.sent_events == (HELLO,)


async def test_what_was_sent_is_kept_as_it_was_then() -> None:
    tool = object()
    content: list[Any] = [{"type": "input_text", "text": "hello"}]
    update = RealtimeModelSendSessionUpdate({"voice": "ash", "tools": [tool]})
    model = await connected(strict=False)
    await model.send_event(RealtimeModelSendUserInput({"type": "message", "role": "user", "content": content}))
    await model.send_event(update)
    content.clear()
    update.session_settings["tools"].append("more")
    for record in model.sent_events:  # A reader changes no record either.
        getattr(record, "user_input", getattr(record, "session_settings", {})).clear()
    message, settings = model.sent_events
    assert isinstance(message, RealtimeModelSendUserInput)
    assert isinstance(message.user_input, dict)
    assert message.user_input["content"] == [{"type": "input_text", "text": "hello"}]
    assert isinstance(settings, RealtimeModelSendSessionUpdate)
    assert settings.session_settings == {"voice": "ash", "tools": [tool]}


async def test_a_tools_output_is_recorded_with_the_call_as_it_was_reported() -> None:
    reported = RealtimeModelToolCallEvent("tool", "call_1", "{}", previous_item_id="item_0")
    expected = RealtimeModelSendToolOutput(reported, "done", start_response=True)
    model = await connected(RealtimeStep(expected), RealtimeStep(RealtimeModelSendToolOutput))
    await model.emit(reported)
    await model.send_event(RealtimeModelSendToolOutput(ToolCall("call_1", "call_1", "tool", "{}", None), "done"))
    await model.send_event(RealtimeModelSendToolOutput(ToolCall("call_2", "item_2", "tool", "{}", "resp_1"), "done"))
    first, second = model.sent_events
    assert first == expected
    assert isinstance(second, RealtimeModelSendToolOutput)
    assert second.tool_call == RealtimeModelToolCallEvent("tool", "call_2", "{}", id="item_2", response_id="resp_1")


async def test_a_send_from_inside_a_listener_is_answered_after_what_is_under_way() -> None:
    model = ScriptedRealtimeModel(
        [RealtimeStep(HELLO, emit=[started("a"), started("b")]), RealtimeStep(BYE, emit=[started("c")])]
    )
    order: list[str] = []

    async def answer(event: Any) -> None:
        if event.item_id == "a":
            # In a task of its own, for which the listener waits: the delivery must wait for neither.
            await asyncio.create_task(model.send_event(BYE))
            order.append("the nested send returned")
            assert model.sent_events == (HELLO, BYE)

    first, second = Heard(answer), Heard()
    model.add_listener(first)
    model.add_listener(second)
    await model.connect({})
    await model.send_event(HELLO)
    # The outer send waits for what it led to.
    assert first.ids == second.ids == ["a", "b", "c"]
    assert order == ["the nested send returned"]
    assert len(asyncio.all_tasks()) == 1


async def test_an_error_in_a_nested_broadcast_reaches_the_outer_send() -> None:
    model = await connected(RealtimeStep(HELLO, emit=[started("a")]), RealtimeStep(BYE, emit=[started("c")]))

    async def answer(event: Any) -> None:
        if event.item_id == "a":
            await model.send_event(BYE)
        else:
            raise LookupError("no c")

    model.add_listener(Heard(answer))
    with pytest.raises(LookupError, match="no c"):
        await model.send_event(HELLO)


async def test_a_task_that_a_listener_left_behind_waits_for_its_own_events() -> None:
    model = await connected(RealtimeStep(HELLO, emit=[started("a")]), RealtimeStep(BYE, emit=[started("c")]))
    left_behind: list[asyncio.Task[None]] = []

    async def later() -> None:
        await asyncio.sleep(1)
        await model.send_event(BYE)
        assert heard.ids == ["a", "c"]

    async def answer(event: Any) -> None:
        if event.item_id == "a":
            left_behind.append(asyncio.create_task(later()))

    heard = Heard(answer)
    model.add_listener(heard)
    await model.send_event(HELLO)
    await left_behind[0]


async def test_sends_at_the_same_time_are_answered_one_after_the_other() -> None:
    model = await connected(
        RealtimeStep(HELLO, emit=[started("a"), started("b")]), RealtimeStep(BYE, emit=[started("c"), started("d")])
    )

    async def slowly(event: Any) -> None:
        await asyncio.sleep(1)

    heard = Heard(slowly)
    model.add_listener(heard)
    await asyncio.gather(model.send_event(HELLO), model.send_event(BYE))
    assert heard.ids == ["a", "b", "c", "d"]


async def test_listeners_come_and_go_between_two_events() -> None:
    model = await connected()
    late = Heard()

    async def swap(event: Any) -> None:
        model.add_listener(late)
        model.add_listener(late)
        model.remove_listener(early)
        model.remove_listener(early)

    early = Heard(swap)
    model.add_listener(early)
    assert model.listeners == (early,)
    await model.emit(started("a"), started("b"))
    assert (early.ids, late.ids) == (["a"], ["b"])
    assert model.listeners == (late,)


async def test_a_listener_that_raises_stops_its_broadcast_and_no_other() -> None:
    model = await connected(RealtimeStep(HELLO, emit=[started("a"), started("b")]), RealtimeStep(BYE, emit=[started("c")]))

    async def refuse(event: Any) -> None:
        if event.item_id == "a":
            pytest.fail("a is not wanted")

    heard = Heard(refuse)
    model.add_listener(heard)
    with pytest.raises(pytest.fail.Exception, match="a is not wanted"):
        await model.send_event(HELLO)
    await model.send_event(BYE)
    assert heard.ids == ["a", "c"]


async def test_cancelling_a_send_does_not_stop_its_delivery() -> None:
    model = await connected(RealtimeStep(HELLO, emit=[started("a"), started("b")]))

    async def slowly(event: Any) -> None:
        await asyncio.sleep(1)

    heard = Heard(slowly)
    model.add_listener(heard)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(model.send_event(HELLO), 0.5)
    assert heard.ids == ["a"]
    await asyncio.sleep(2)
    assert heard.ids == ["a", "b"]
    assert len(asyncio.all_tasks()) == 1


async def test_a_connection_is_recorded_without_its_secrets() -> None:
    tracker = RealtimePlaybackTracker()
    settings: Any = {"voice": "ash", "turn_detection": {"type": "server_vad"}}
    model = ScriptedRealtimeModel()
    options: RealtimeModelConfig = {
        "api_key": "sk-secret",
        "headers": {"authorization": "Bearer sk-secret"},
        "url": "wss://me:sk-secret@example.com:8443/v1/realtime?model=m&api-key=sk-secret#sk-secret",
        "initial_model_settings": settings,
        "playback_tracker": tracker,
        "call_id": "rtc_1",
    }
    await model.connect(options)
    settings["turn_detection"]["type"] = "semantic_vad"
    assert model.connect_calls == (
        RealtimeConnectCall(
            api_key_provided=True,
            headers_provided=True,
            url="wss://example.com:8443/v1/realtime",
            initial_model_settings={"voice": "ash", "turn_detection": {"type": "server_vad"}},
            playback_tracker=tracker,
            call_id="rtc_1",
        ),
    )
    assert "sk-secret" not in repr(vars(model)) + repr(model.connect_calls)


@pytest.mark.parametrize(("url", "kept"), [("wss://[::1", "(malformed)"), ("wss://example.com", "wss://example.com")])
async def test_an_odd_address_is_no_obstacle(url: str, kept: str) -> None:
    model = ScriptedRealtimeModel()
    await model.connect({"url": url})
    assert model.connect_calls == (RealtimeConnectCall(False, False, kept, {}, None, None),)


async def test_connecting_reports_its_events_and_may_be_done_once_at_a_time() -> None:
    model = ScriptedRealtimeModel(connect_events=[RealtimeModelConnectionStatusEvent("connected"), started("a")])
    heard = Heard()
    model.add_listener(heard)
    await model.connect({})
    assert heard.ids == ["connection_status", "a"]
    with pytest.raises(AssertionError, match="Already connected"):
        await model.connect({})
    assert len(model.connect_calls) == 1
    await model.close()
    await model.connect({})
    assert heard.ids == ["connection_status", "a"] * 2
    assert (model.connected, model.closed, len(model.connect_calls)) == (True, False, 2)


async def test_a_connection_that_fails_is_recorded_and_is_none() -> None:
    model = ScriptedRealtimeModel(connect_error=OSError("no route"))
    with pytest.raises(OSError, match="no route"):
        await model.connect({})
    assert (model.connected, model.closed, len(model.connect_calls)) == (False, False, 1)


async def test_a_listener_that_raises_while_connecting_leaves_no_connection() -> None:
    async def refuse(event: Any) -> None:
        raise LookupError("not that")

    model = ScriptedRealtimeModel(connect_events=[started("a")])
    model.add_listener(Heard(refuse))
    with pytest.raises(LookupError, match="not that"):
        await model.connect({})
    assert not model.connected


async def test_closing_is_counted_and_harmless_when_repeated() -> None:
    model = await connected()
    await model.close()
    await model.close()
    assert (model.close_calls, model.connected, model.closed) == (2, False, True)


async def test_a_close_that_fails_may_be_tried_again() -> None:
    model = await connected(close_error=OSError("busy"))
    with pytest.raises(OSError, match="busy"):
        await model.close()
    assert (model.connected, model.closed) == (True, False)
    await model.close()
    assert (model.close_calls, model.connected, model.closed) == (2, False, True)


async def test_closing_voids_what_is_not_delivered_and_leaves_nobody_waiting() -> None:
    model = await connected(RealtimeStep(HELLO, emit=[started("a"), started("b")]), RealtimeStep(BYE, emit=[started("c")]))

    async def close(event: Any) -> None:
        await asyncio.sleep(1)
        await model.close()

    heard = Heard(close)
    model.add_listener(heard)
    await asyncio.gather(model.send_event(HELLO), model.send_event(BYE))
    assert heard.ids == ["a"]
    assert len(asyncio.all_tasks()) == 1


def test_it_is_a_model_that_sessions_await() -> None:
    assert not isinstance(ScriptedRealtimeModel(), DirectModel)
