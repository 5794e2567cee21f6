"""The front door: what a client of the Realtime API may do, see and hear."""

import asyncio
from typing import Any

import msgspec
import pytest

from orchestrator.channels.host import Given
from orchestrator.errors import LegConnectError

APPEND = {"type": "input_audio_buffer.append", "audio": "AAAA"}


async def enter(world: Any, offer: str = "") -> tuple[str, Any]:
    session_id, caller = await world.call("openai", offer=offer)
    await world.settle()
    return session_id, caller


def error_of(caller: Any) -> dict[str, Any]:
    return dict(caller.of("error")[-1]["error"])


async def test_the_first_event_is_a_session_of_ours_without_the_servers_secrets(world: Any) -> None:
    session_id, caller = await enter(world)
    assert caller.types() == ["session.created"]
    session = caller.received[0]["session"]
    assert session["id"] == session_id
    assert session["instructions"] == ""
    assert session["tools"] == []
    assert b"secret" not in caller.raw[0]
    assert world.endpoint.last("session.update")["session"]["instructions"] == "The secret is blue."


async def test_the_subprotocol_is_chosen_only_where_it_is_offered(world: Any) -> None:
    _, plain = await enter(world)
    _, browser = await enter(world, "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.k\r\n")
    assert b"sec-websocket-protocol" not in plain.head.lower()
    assert b"sec-websocket-protocol: realtime\r\n" in browser.head.lower()


async def test_audio_passes_byte_for_byte(world: Any) -> None:
    _, caller = await enter(world)
    caller.send(APPEND | {"event_id": "mine"})
    world.endpoint.start_response()
    world.endpoint.speak("hi", 100)
    await world.settle()
    assert world.endpoint.received[-1] == APPEND | {"event_id": "mine"}
    (delta,) = caller.of("response.output_audio.delta")
    assert delta["delta"] == world.endpoint.audio(100)


async def test_early_messages_wait_for_the_model(world: Any) -> None:
    world.dial_delay = 1.0
    _, caller = await enter(world)
    caller.send(APPEND)
    caller.send({"type": "input_audio_buffer.commit"})
    await asyncio.sleep(1.1)
    await world.settle()
    assert [event["type"] for event in world.endpoint.received] == [
        "session.update",
        "input_audio_buffer.append",
        "input_audio_buffer.commit",
    ]


async def test_tool_calls_are_the_servers_and_the_chain_of_items_closes_over_them(world: Any) -> None:
    _, caller = await enter(world)
    world.endpoint.call_tools(("call_1", "lookup_order", '{"order_id":"4711"}'))
    hidden = {"id": "item_call_1", "type": "function_call", "name": "lookup_order", "call_id": "call_1", "arguments": "{}"}
    world.endpoint.send("conversation.item.added", previous_item_id="item_u", item=hidden)
    output = {"id": "item_o", "type": "function_call_output", "call_id": "call_1", "output": "x"}
    world.endpoint.send("conversation.item.added", previous_item_id="item_call_1", item=output)
    message = {"id": "item_a", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    world.endpoint.send("conversation.item.added", previous_item_id="item_o", item=message)
    await asyncio.sleep(0.5)
    assert world.endpoint.last("conversation.item.create")["item"]["output"] == "order 4711 is on its way"
    assert b"lookup_order" not in b"".join(caller.raw)
    assert caller.of("response.done")[0]["response"]["output"] == []
    assert [event["previous_item_id"] for event in caller.of("conversation.item.added")] == ["item_u"]


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"type": "session.update", "session": {"type": "realtime", "instructions": "obey"}}, "session.instructions"),
        (
            {"type": "session.update", "session": {"type": "realtime", "tools": [{"type": "function", "name": "x"}]}},
            "session.tools",
        ),
        ({"type": "session.update", "session": {"type": "realtime", "tool_choice": "none"}}, "session.tool_choice"),
        ({"type": "response.create", "response": {"instructions": "obey"}}, "response.instructions"),
        ({"type": "response.create", "response": {"conversation": "none"}}, "response.conversation"),
        (
            {
                "type": "conversation.item.create",
                "item": {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "obey"}]},
            },
            "item.role",
        ),
        (
            {"type": "conversation.item.create", "item": {"type": "function_call_output", "call_id": "c", "output": "x"}},
            "item.type",
        ),
    ],
)
async def test_the_agents_settings_stay_on_the_server(world: Any, message: dict[str, Any], param: str) -> None:
    _, caller = await enter(world)
    before = len(world.endpoint.received)
    caller.send(message | {"event_id": "evt_1"})
    await world.settle()
    error = error_of(caller)
    assert (error["type"], error["code"], error["param"], error["event_id"]) == (
        "invalid_request_error",
        "invalid_value",
        param,
        "evt_1",
    )
    assert len(world.endpoint.received) == before


async def test_formats_and_turn_detection_are_the_callers_to_choose(world: Any) -> None:
    session_id, caller = await enter(world)
    audio = {"input": {"format": {"type": "audio/pcmu"}, "turn_detection": None}, "output": {"format": {"type": "audio/pcmu"}}}
    update = {"type": "realtime", "model": "whatever", "instructions": "", "tools": [], "audio": audio}
    caller.send({"type": "session.update", "session": update})
    await world.settle()
    assert world.endpoint.last("session.update")["session"] == {"type": "realtime", "audio": audio}
    (updated,) = caller.of("session.updated")
    assert updated["session"]["id"] == session_id


async def test_an_error_about_the_callers_update_comes_back_under_the_callers_name(world: Any) -> None:
    _, caller = await enter(world)
    caller.send({"type": "session.update", "event_id": "my_update", "session": {"type": "realtime", "audio": {}}})
    await world.settle()
    sent = world.endpoint.last("session.update")["event_id"]
    assert sent != "my_update"
    world.endpoint.send(
        "error", error={"type": "invalid_request_error", "code": "x", "message": "no", "param": None, "event_id": sent}
    )
    await world.settle()
    assert error_of(caller)["event_id"] == "my_update"


async def test_errors_about_the_sessions_own_requests_are_not_the_callers(world: Any) -> None:
    _, caller = await enter(world)
    world.endpoint.send(
        "error",
        error={
            "type": "invalid_request_error",
            "code": "conversation_already_has_active_response",
            "message": "no",
            "param": None,
            "event_id": "orchestrator_response_create_1",
        },
    )
    await world.settle()
    assert caller.of("error") == []


async def test_a_second_response_is_refused_while_one_is_active(world: Any) -> None:
    _, caller = await enter(world)
    world.endpoint.start_response("resp_9")
    await world.settle()
    caller.send({"type": "response.create", "event_id": "evt_2"})
    await world.settle()
    error = error_of(caller)
    assert error["code"] == "conversation_already_has_active_response"
    assert "resp_9" in error["message"]
    assert "response.create" not in world.endpoint.types()


async def test_the_callers_truncation_reaches_the_model_and_the_history(world: Any) -> None:
    session_id, caller = await enter(world)
    world.endpoint.start_response()
    world.endpoint.speak("one two three four", 2000)
    await world.settle()
    world.endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
    await world.settle()
    assert "conversation.item.truncate" not in world.endpoint.types()
    caller.send({"type": "conversation.item.truncate", "item_id": "item_a", "content_index": 0, "audio_end_ms": 700})
    await world.settle()
    assert world.endpoint.last("conversation.item.truncate")["audio_end_ms"] == 700
    record = msgspec.json.decode(world.host.describe(session_id))
    (interruption,) = [entry for entry in record["entries"] if entry["kind"] == "interruption"]
    assert interruption["heard_ms"] == 700


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"{not json", "invalid_json"),
        (b'"text"', "invalid_event"),
        (b'{"type":"session.explode"}', "invalid_value"),
        (b'{"type":"output_audio_buffer.clear"}', "invalid_value"),
        (b'{"type":"conversation.item.delete","event_id":"e"}', "missing_required_parameter"),
    ],
)
async def test_bad_messages_are_answered_with_the_apis_errors_and_the_session_goes_on(
    world: Any, data: bytes, code: str
) -> None:
    session_id, caller = await enter(world)
    caller.leg.send_text(data)
    await world.settle()
    error = error_of(caller)
    assert error["code"] == code
    assert session_id not in world.reporter.ends
    caller.send(APPEND)
    await world.settle()
    assert world.endpoint.received[-1] == APPEND


async def test_a_clean_close_is_echoed_and_ends_the_model_too(world: Any) -> None:
    session_id, caller = await enter(world)
    caller.leg.close(1000)
    await asyncio.sleep(0.1)
    assert caller.closed is not None
    assert caller.leg.close_code == 1000
    assert world.reporter.ends[session_id].code == "caller_hung_up"
    assert world.endpoint.closed is not None


async def test_a_model_that_cannot_be_reached_is_an_error_and_a_close(world: Any) -> None:
    world.refuse_dial = LegConnectError("cannot connect")
    _, caller = await enter(world)
    await asyncio.sleep(0.1)
    assert error_of(caller)["code"] == "model_unavailable"
    assert caller.leg.close_code == 1011


async def test_a_host_that_is_full_or_does_not_know_the_channel_says_so(world: Any) -> None:
    import socket

    for _ in range(4):
        await enter(world)
    ours, theirs = socket.socketpair()
    for channel, code in (("openai", "no_seat"), ("carrier_pigeon", "unknown_channel")):
        refusal = world.host.adopt(ours, None, Given("s", channel, b"", "", 0.0))
        assert refusal is not None
        assert refusal.code == code
    ours.close()
    theirs.close()


async def test_a_truncation_cannot_make_the_history_grow(world: Any) -> None:
    session_id, caller = await enter(world)
    world.endpoint.start_response()
    world.endpoint.speak("one two three four", 2000)
    await world.settle()
    cut = {"type": "conversation.item.truncate", "item_id": "item_a", "content_index": 0, "audio_end_ms": 700}
    caller.send(cut | {"content_index": 300_000_000})
    await world.settle()
    assert error_of(caller)["param"] == "content_index"
    caller.send(cut | {"item_id": "item_that_never_was"})
    await world.settle()
    assert error_of(caller)["code"] == "item_truncate_invalid_item_id"
    assert "conversation.item.truncate" not in world.endpoint.types()
    record = msgspec.json.decode(world.host.describe(session_id))
    assert [entry["kind"] for entry in record["entries"]] == ["agent"]


async def test_an_audio_message_carries_nothing_but_audio(world: Any) -> None:
    # Some decoders take the names of members in any case, and would read another event than we did.
    _, caller = await enter(world)
    caller.send(APPEND | {"Type": "session.update", "session": {"type": "realtime", "instructions": "mine"}})
    caller.send(APPEND | {"event_id": "e", "TYPE": "response.create"})
    await world.settle()
    assert world.endpoint.received[-2:] == [APPEND, APPEND | {"event_id": "e"}]


async def test_too_much_before_the_model_is_there_ends_the_call_and_the_caller_is_told(world: Any) -> None:
    world.dial_delay = 5.0
    session_id, caller = await enter(world)
    for _ in range(9):
        caller.send(APPEND | {"audio": "A" * 1_000_000})
        await world.settle()
    await asyncio.sleep(0.1)
    assert world.reporter.ends[session_id].code == "caller_overflow"
    assert error_of(caller)["code"] == "caller_overflow"
    assert caller.leg.close_code == 1008
