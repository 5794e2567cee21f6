"""A conversation that goes on from an earlier one: what the model is told, and what the history then is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator import function_tool
from orchestrator.errors import UserError
from orchestrator.handoffs import HandoffInputData
from orchestrator.realtime import RealtimeAgent, RealtimeSession
from orchestrator.realtime.handoffs import realtime_handoff
from orchestrator.realtime.items import (
    AssistantAudio,
    AssistantMessageItem,
    InputAudio,
    InputImage,
    InputText,
    RealtimeItem,
    RealtimeToolCallItem,
    SystemMessageItem,
    UserMessageItem,
)
from orchestrator.realtime.model_inputs import RealtimeModelSendRawMessage
from orchestrator.realtime.seeding import plan_seed
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from tests.realtime.reading import until

MakeSession = Callable[..., RealtimeSession]
PNG = "data:image/png;base64,AA=="


@function_tool
async def invoice(order: int) -> str:
    return f"order {order} is paid"


def earlier() -> list[RealtimeItem]:
    """A conversation with all that one can hold."""
    return [
        SystemMessageItem(item_id="s1", content=(InputText(text="The caller is a member."),)),
        UserMessageItem(item_id="u1", previous_item_id="s1", content=(InputAudio(transcript="is it paid?"), InputAudio())),
        RealtimeToolCallItem(
            item_id="f1", call_id="call_1", name="invoice", arguments='{"order":7}', output="yes", status="completed"
        ),
        AssistantMessageItem(
            item_id="a1",
            previous_item_id="f1",
            status="incomplete",
            content=(AssistantAudio(transcript="It is", audio_ms=900.0, heard_ms=300.0),),
        ),
        UserMessageItem(item_id="u2", content=(InputText(text="and this one?"), InputImage(image_url=PNG, detail="low"))),
        UserMessageItem(item_id="u3", content=(InputAudio(),)),
    ]


def echo(endpoint: ScriptedEndpoint) -> None:
    """Answer every created item as the API does."""
    previous = None
    for number, event in enumerate(list(endpoint.received)):
        if event["type"] == "conversation.item.create":
            item = {"id": f"made_{number}", "status": "completed"} | event["item"]
            for kind in ("added", "done"):
                endpoint.send(f"conversation.item.{kind}", previous_item_id=previous, item=item)
            previous = item["id"]


def created(endpoint: ScriptedEndpoint) -> list[dict[str, Any]]:
    return [event["item"] for event in endpoint.received if event["type"] == "conversation.item.create"]


async def test_the_history_is_that_of_the_earlier_conversation_with_its_tool_calls_and_results(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    async with make_session(history=earlier()) as session:
        await endpoint.settle()
        before = session.history
        echo(endpoint)
        await endpoint.settle()
        # Nothing that the model confirms makes the history poorer: speech stays speech, cut where it was cut.
        assert session.history == before
    assert [item.item_id for item in before] == ["s1", "u1", "f1", "a1", "u2"]
    call = before[2]
    assert isinstance(call, RealtimeToolCallItem)
    assert (call.name, call.output, call.status) == ("invoice", "yes", "completed")
    answer = before[3]
    assert isinstance(answer, AssistantMessageItem)
    assert answer.content == (AssistantAudio(transcript="It is", audio_ms=900.0, heard_ms=300.0),)


async def test_a_conversation_can_be_handed_on_again_and_again(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    async with make_session(history=earlier()) as session:
        await endpoint.settle()
        echo(endpoint)
        await endpoint.settle()
        first = created(endpoint)
        second = [message.message["item"] for message in plan_seed(session.history).messages]
    assert second == first


async def test_a_live_tool_call_goes_into_the_next_conversation_with_its_result(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    async with make_session(RealtimeAgent(name="Desk", tools=[invoice])) as session:
        endpoint.call_tools(("call_1", "invoice", '{"order":7}'))
        await endpoint.settle()
        echo(endpoint)
        await endpoint.settle()
        bodies = [message.message["item"] for message in plan_seed(session.history).messages]
    assert [(body["type"], body["call_id"]) for body in bodies] == [
        ("function_call", "call_1"),
        ("function_call_output", "call_1"),
    ]
    assert bodies[1]["output"] == "order 7 is paid"


async def test_a_filter_sees_seeded_tool_calls_and_what_it_removes_is_removed_whole(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    seen: list[str] = []

    def forget_tools(data: HandoffInputData) -> HandoffInputData:
        seen.extend(item.item_id for item in data.input_history)
        return data.clone(input_history=tuple(i for i in data.input_history if not isinstance(i, RealtimeToolCallItem)))

    desk: RealtimeAgent[Any] = RealtimeAgent(
        name="Desk", handoffs=[realtime_handoff(RealtimeAgent(name="Billing"), input_filter=forget_tools)]
    )
    async with make_session(desk, history=earlier()) as session:
        await endpoint.settle()
        echo(endpoint)
        endpoint.call_tools(("call_2", "transfer_to_billing", "{}"))
        await until(lambda: "conversation.item.delete" in endpoint.types())
        output_id = next(item["id"] for item in created(endpoint) if item["type"] == "function_call_output")
        # The result first: it must not stand in the model's memory without the call that it answers.
        deleted = [event["item_id"] for event in endpoint.received if event["type"] == "conversation.item.delete"]
        assert deleted == [output_id, "f1"]
        for item_id in deleted:
            endpoint.send("conversation.item.deleted", item_id=item_id)
        await endpoint.settle()
        assert seen == ["s1", "u1", "f1", "a1", "u2"]
        assert [item.item_id for item in session.history] == ["s1", "u1", "a1", "u2", "item_call_2"]


async def test_a_filter_never_removes_a_call_that_still_runs(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    def forget_all(data: HandoffInputData) -> HandoffInputData:
        return data.clone(input_history=())

    @function_tool(needs_approval=True)
    async def refund() -> str:
        return "refunded"

    desk: RealtimeAgent[Any] = RealtimeAgent(
        name="Desk",
        tools=[refund],
        handoffs=[realtime_handoff(RealtimeAgent(name="Billing"), input_filter=forget_all)],
    )
    async with make_session(desk, history=earlier()) as session:
        endpoint.call_tools(("call_2", "refund", "{}"), ("call_3", "transfer_to_billing", "{}"))
        await until(lambda: "function_call_output" in [item["type"] for item in created(endpoint)[6:]])
        deleted = [event["item_id"] for event in endpoint.received if event["type"] == "conversation.item.delete"]
        # Its output would have no call to belong to.
        assert "item_call_2" not in deleted
        assert "u1" in deleted
        await session.approve_tool_call("call_2")
        await endpoint.settle()
        assert created(endpoint)[-1]["output"] == "refunded"


async def test_a_call_that_was_never_answered_is_told_of_as_unknown(
    make_session: MakeSession, endpoint: ScriptedEndpoint
) -> None:
    lost = RealtimeToolCallItem(item_id="f2", call_id="call_2", name="refund", arguments="{}")
    async with make_session(history=[lost]) as session:
        await endpoint.settle()
        call, output = created(endpoint)
        assert (call["type"], call["call_id"]) == ("function_call", "call_2")
        # Left out, a payment that was made would be made again.
        assert "unknown" in output["output"]
        (item,) = session.history
        assert isinstance(item, RealtimeToolCallItem)
        assert (item.status, item.output) == ("completed", output["output"])


def test_a_call_whose_tool_still_runs_is_carried_over_open() -> None:
    running = RealtimeToolCallItem(item_id="f2", call_id="call_2", name="refund", arguments="{}")
    seed = plan_seed([running], pending={"call_2"})
    assert [message.message["item"]["type"] for message in seed.messages] == ["function_call"]
    assert seed.items == [running]


def test_names_that_the_api_would_refuse_are_made_short_in_both_places() -> None:
    long_id, long_call = "item_" + "x" * 40, "call_" + "y" * 40
    items: list[RealtimeItem] = [
        UserMessageItem(item_id=long_id, content=(InputText(text="hello"),)),
        RealtimeToolCallItem(item_id="f1", call_id=long_call, name="t", arguments="{}", output="x"),
    ]
    seed = plan_seed(items)
    message, call, output = (message.message["item"] for message in seed.messages)
    assert max(len(message["id"]), len(call["call_id"]), len(output["id"])) <= 32
    assert call["call_id"] == output["call_id"]
    assert [item.item_id for item in seed.items] == [message["id"], "f1"]
    assert plan_seed(items) == seed


def test_one_id_for_two_items_is_refused() -> None:
    with pytest.raises(UserError, match="u1"):
        plan_seed([UserMessageItem(item_id="u1", content=(InputText(text=text),)) for text in ("a", "b")])


async def test_items_that_others_create_enter_the_history(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    """The program by raw messages, or another socket on the same call."""
    async with make_session() as session:
        message = {"id": "u1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        call = {"id": "f1", "type": "function_call", "call_id": "c1", "name": "t", "arguments": "{}", "status": "completed"}
        output = {"id": "o1", "type": "function_call_output", "call_id": "c1", "output": "42", "status": "completed"}
        late = {"id": "u2", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "late"}]}
        last = {"id": "u3", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "last"}]}
        for item, previous in ((message, None), (call, "u1"), (output, "f1"), (last, "o1"), (late, "o1")):
            endpoint.send("conversation.item.added", previous_item_id=previous, item=item)
        await endpoint.settle()
        # The output is part of its call, and yet what follows it stands after it.
        assert [item.item_id for item in session.history] == ["u1", "f1", "u2", "u3"]
        known = session.history[1]
        assert isinstance(known, RealtimeToolCallItem)
        assert (known.output, known.status) == ("42", "completed")
        endpoint.send("conversation.item.deleted", item_id="o1")
        await endpoint.settle()
        known = session.history[1]
        assert isinstance(known, RealtimeToolCallItem)
        assert known.output is None


async def test_deleting_a_call_by_hand_deletes_its_output_too(make_session: MakeSession, endpoint: ScriptedEndpoint) -> None:
    async with make_session(RealtimeAgent(name="Desk", tools=[invoice])) as session:
        endpoint.call_tools(("call_1", "invoice", '{"order":7}'))
        await endpoint.settle()
        await session.model.send_event(
            RealtimeModelSendRawMessage({"type": "conversation.item.delete", "other_data": {"item_id": "item_call_1"}})
        )
        await endpoint.settle()
        deleted = [event["item_id"] for event in endpoint.received if event["type"] == "conversation.item.delete"]
        assert deleted == [created(endpoint)[0]["id"], "item_call_1"]
