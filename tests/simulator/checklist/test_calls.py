"""Checklist lines 54 to 57: webhooks, the calls API, what only a call has, and MCP."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai
import pytest
import websockets
from openai import AsyncOpenAI, InvalidWebhookSignatureError

from orchestrator.simulator.phone.webhook import Delivery, WebhookSecret, deliver
from orchestrator.simulator.scenario import parse_scenario
from orchestrator.simulator.server import SimulatorServer
from tests.simulator.checklist.support import KEY, PATIENCE, Raw, joined, opened
from tests.simulator.rest.support import SECRET, Service, Simulator, ask, serving
from tests.simulator.support import TEXT_ONLY, UNIX_TIME, Driver, error_of, loud, of_type, only, quiet, types

Drive = Callable[..., Driver]
Letter = tuple[dict[str, str], bytes]

# --- 54: webhooks -----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def letterbox() -> AsyncIterator[tuple[str, asyncio.Queue[Letter]]]:
    """A URL that takes every request, and what came to it as it came."""
    letters: asyncio.Queue[Letter] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.lower().split(": ", 1) for line in head.rstrip().split("\r\n")[1:])
        sent = dict(line.split(": ", 1) for line in head.rstrip().split("\r\n")[1:])
        letters.put_nowait((sent, await reader.readexactly(int(headers["content-length"]))))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(take, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/hook", letters


async def test_54a_the_official_client_takes_the_webhook_and_no_altered_one(server: SimulatorServer) -> None:
    client = AsyncOpenAI(api_key="x")
    async with asyncio.timeout(PATIENCE), letterbox() as (url, letters):
        answer = await Simulator(server).ask("POST", "", {"webhook_url": url, "secret": SECRET})
        headers, body = await letters.get()
    event = client.webhooks.unwrap(body, headers, secret=SECRET)
    assert event.type == "realtime.call.incoming"
    assert event.data.call_id == answer.json()["call_id"]
    assert re.fullmatch(r"rtc_u1_[0-9a-f]{32}", event.data.call_id)
    assert event.id == {name.lower(): value for name, value in headers.items()}["webhook-id"]
    names = {name.lower(): name for name in headers}
    assert headers[names["user-agent"]] == "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)"
    later = str(int(headers[names["webhook-timestamp"]]) + 1)
    for altered, content in (
        (headers, body + b" "),
        ({**headers, names["webhook-timestamp"]: later}, body),
        ({**headers, names["webhook-id"]: "evt_other"}, body),
        ({**headers, names["webhook-signature"]: "v1,AAAA"}, body),
    ):
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(content, altered, secret=SECRET)
    with pytest.raises(InvalidWebhookSignatureError):
        client.webhooks.unwrap(body, headers, secret="whsec_b3RoZXIgc2VjcmV0")


@pytest.mark.parametrize(("age", "taken"), [(0, True), (290, True), (310, False), (-310, False)])
async def test_54b_nor_one_that_is_old(age: int, taken: bool) -> None:
    async with asyncio.timeout(PATIENCE), letterbox() as (url, letters):
        delivery = Delivery(url, "evt_1", b'{"type":"realtime.call.incoming"}', WebhookSecret(SECRET), 0)
        assert await deliver(delivery, lambda status, fault: None, clock=lambda: time.time() - age)
        headers, body = await letters.get()
    webhooks = AsyncOpenAI(api_key="x").webhooks
    if taken:
        webhooks.verify_signature(body, headers, secret=SECRET)
    else:
        with pytest.raises(InvalidWebhookSignatureError):
            webhooks.verify_signature(body, headers, secret=SECRET)


async def test_54c_it_is_tried_again_and_comes_twice_if_that_is_wanted(server: SimulatorServer) -> None:
    async with asyncio.timeout(PATIENCE), serving(Service([503])) as service:
        call_id = await Simulator(server).ring(service, duplicates=2, retries=1)
        assert await service.call() == call_id
        assert len(service.webhook_ids) == 3
        assert len(set(service.webhook_ids)) == 1


# --- 55: control ------------------------------------------------------------------------------------------------------


async def command(server: SimulatorServer, call_id: str, name: str, body: Any = None) -> tuple[int, Any]:
    """The status and the error code of a request about a call; the code is None where the answer is empty."""
    answer = await ask("POST", f"{server.rest_url}/realtime/calls/{call_id}/{name}", body, KEY)
    return answer.status, answer.json()["error"]["code"] if answer.body else None


async def left(raw: Raw) -> int | None:
    """The code with which a socket beside a call ends."""
    with contextlib.suppress(websockets.ConnectionClosedError):
        async for _ in raw.connection:
            pass
    return raw.connection.close_code


async def refusal(server: SimulatorServer, call_id: str) -> str:
    """Why nobody may sit beside this call."""
    async with opened(server, f"?call_id={call_id}") as raw:
        event = await raw.recv()
        assert event["type"] == "error"
        await left(raw)
    return str(event["error"]["code"])


ACCEPT = {"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief."}


@pytest.mark.parametrize(("name", "body"), [("hangup", None), ("refer", {"target_uri": "tel:+15550199"})])
async def test_55a_a_call_is_taken_joined_and_ended(server: SimulatorServer, name: str, body: Any) -> None:
    async with asyncio.timeout(PATIENCE), serving(Service()) as service:
        call_id = await Simulator(server).ring(service)
        assert await refusal(server, call_id)
        assert await command(server, call_id, "accept", ACCEPT) == (200, None)
        async with opened(server, f"?call_id={call_id}&model=no-such-model") as raw:
            created = await raw.recv()
            assert (created["type"], created["session"]["instructions"]) == ("session.created", "Be brief.")
            await raw.send("response.create")
            events = await raw.until("response.done")
            assert "response.output_audio.delta" not in types(events)
            assert joined(events, "response.output_audio_transcript.delta") == "Welcome to the test."
            status, code = await command(server, call_id, "accept", ACCEPT)
            assert status >= 400
            assert code
            assert await command(server, call_id, name, body) == (200, None)
            assert await left(raw) == 1000
        assert await command(server, call_id, "hangup") == (404, "call_id_not_found")
        assert await refusal(server, call_id)


async def test_55b_a_call_is_rejected(server: SimulatorServer) -> None:
    async with asyncio.timeout(PATIENCE), serving(Service()) as service:
        simulator = Simulator(server)
        for body, status in ((None, 603), ({"status_code": 486}, 486)):
            call_id = await simulator.ring(service)
            assert await command(server, call_id, "reject", body) == (200, None)
            assert (await simulator.show(call_id))["status_code"] == status
            assert await command(server, call_id, "accept", ACCEPT) == (404, "call_id_not_found")


@pytest.mark.parametrize(
    ("name", "body"), [("accept", ACCEPT), ("reject", {}), ("refer", {"target_uri": "tel:+1"}), ("hangup", None)]
)
async def test_55c_a_call_that_nobody_knows(server: SimulatorServer, name: str, body: Any) -> None:
    assert await command(server, "rtc_u1_nobody", name, body) == (404, "call_id_not_found")


async def test_55d_the_official_client_does_all_of_it(server: SimulatorServer) -> None:
    client = AsyncOpenAI(api_key="sk-test", base_url=server.rest_url, max_retries=0)
    async with asyncio.timeout(PATIENCE), serving(Service()) as service, client:
        call_id = await Simulator(server).ring(service)
        await client.realtime.calls.accept(call_id, type="realtime", model="gpt-realtime")
        async with client.realtime.connect(call_id=call_id) as connection:
            assert (await connection.recv()).type == "session.created"
        await client.realtime.calls.hangup(call_id)
        with pytest.raises(openai.NotFoundError):
            await client.realtime.calls.hangup(call_id)


# --- 56: what only a call has -----------------------------------------------------------------------------------------


def call_only(driver: Driver) -> list[str]:
    return [name for name in types(driver.events) if name.startswith("output_audio_buffer.") or "dtmf" in name]


def test_56a_a_call_tells_of_its_playback_and_of_keys(drive: Drive) -> None:
    driver = drive(in_call=True)
    driver.send("response.create")
    driver.run()
    names = types(driver.events)
    assert call_only(driver) == ["output_audio_buffer.started", "output_audio_buffer.stopped"]
    assert names.index("response.content_part.added") < names.index("output_audio_buffer.started")
    assert names.index("response.done") < names.index("output_audio_buffer.stopped")
    response_id = only(driver.events, "response.done")["response"]["id"]
    assert only(driver.events, "output_audio_buffer.started")["response_id"] == response_id
    (pressed,) = driver.dtmf("#")
    assert (pressed["type"], pressed["event"]) == ("input_audio_buffer.dtmf_event_received", "#")
    assert pressed["received_at"] == int(UNIX_TIME + driver.now)


def test_56b_an_interrupted_call_truncates_by_itself(drive: Drive) -> None:
    driver = drive(in_call=True)
    driver.say("first question")
    driver.send("response.create")
    driver.wait(0.6)
    events = driver.hear(loud(400))
    names = types(events)
    assert names[0] == "input_audio_buffer.speech_started"
    assert names.index("response.done") < names.index("conversation.item.truncated")
    assert "output_audio_buffer.cleared" in names
    # The first of it was played 0.3 s ago.
    assert only(events, "conversation.item.truncated")["audio_end_ms"] == pytest.approx(300, abs=10)


def test_56c_a_socket_tells_of_neither(driver: Driver) -> None:
    driver.send("response.create")
    driver.wait(0.9)
    driver.append(loud(400) + quiet(400))
    driver.run()
    assert error_of(driver.send("output_audio_buffer.clear"))["param"] == "type"
    assert "response.done" in types(driver.events)
    assert call_only(driver) == []
    assert of_type(driver.events, "conversation.item.truncated") == []


# --- 57: MCP ----------------------------------------------------------------------------------------------------------

MCP = parse_scenario(
    """
name: mcp
mcp:
  house:
    tools:
      - {name: find, description: Finds it., output: {shelf: "A-{tool.arguments.id}"}, seconds: 0.1}
      - {name: burn, error: {message: It does not burn.}}
      - {name: weigh, error: {type: protocol_error, code: -32000, message: No scales.}}
      - {name: post, error: {type: http_error, code: 502, message: Bad gateway.}}
  ruin: {fails: true}
turns:
  - {heard: find it, do: [{call: find, server: house, arguments: {id: "7"}}, {say: "On {tool.output.shelf|no shelf}."}]}
  - {heard: burn it, do: [{call: burn, server: house}, {say: "No."}]}
  - {heard: weigh it, do: [{call: weigh, server: house}, {say: "No."}]}
  - {heard: post it, do: [{call: post, server: house}, {say: "No."}]}
default: {do: [{say: I cannot.}]}
"""
)


def with_server(drive: Drive, label: str = "house", approval: str = "never") -> Driver:
    driver = drive(MCP)
    tool = {"type": "mcp", "server_label": label, "server_url": "https://mcp.invalid", "require_approval": approval}
    driver.send("session.update", session={**TEXT_ONLY, "tools": [tool]})
    driver.wait(1.0)
    return driver


def call_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The item of the call that a response made."""
    found: dict[str, Any] = next(
        event["item"] for event in of_type(events, "response.output_item.done") if event["item"]["type"] == "mcp_call"
    )
    return found


def test_57a_tools_are_listed(drive: Drive) -> None:
    driver = with_server(drive)
    assert types(driver.events)[1:] == [
        "session.updated",
        "conversation.item.added",
        "mcp_list_tools.in_progress",
        "mcp_list_tools.completed",
        "conversation.item.done",
    ]
    item = only(driver.events, "conversation.item.done")["item"]
    assert (item["type"], item["server_label"]) == ("mcp_list_tools", "house")
    assert [tool["name"] for tool in item["tools"]] == ["find", "burn", "weigh", "post"]
    assert {event.get("item_id", item["id"]) for event in driver.events} == {item["id"]}


def test_57b_or_cannot_be(drive: Drive) -> None:
    driver = with_server(drive, "ruin")
    assert types(driver.events)[3:] == ["mcp_list_tools.in_progress", "mcp_list_tools.failed", "conversation.item.done"]


def test_57c_a_call_is_made_by_the_endpoint(drive: Drive) -> None:
    driver = with_server(drive)
    events = driver.ask("find it")
    names = types(events)
    course = [
        "response.output_item.added",
        "response.mcp_call_arguments.delta",
        "response.mcp_call_arguments.done",
        "response.mcp_call.in_progress",
        "response.mcp_call.completed",
        "response.output_item.done",
        "response.done",
        "response.created",
    ]
    places = [names.index(name) for name in course[:-1]]
    assert places == sorted(places)
    assert "response.created" in names[places[-1] :], "the model goes on in a response of its own"
    deltas = of_type(events, "response.mcp_call_arguments.delta")
    assert all(11 <= len(event["obfuscation"]) <= 14 for event in deltas)
    item = call_of(events)
    assert joined(events, "response.mcp_call_arguments.delta") == item["arguments"] == '{"id":"7"}'
    assert (item["output"], item["error"]) == ('{"shelf":"A-7"}', None)
    for name in ("in_progress", "completed"):
        assert set(only(events, f"response.mcp_call.{name}")) == {"type", "event_id", "item_id", "output_index"}
    assert joined(events, "response.output_text.delta") == "On A-7."


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ("burn it", {"type": "tool_execution_error", "message": "It does not burn."}),
        ("weigh it", {"type": "protocol_error", "code": -32000, "message": "No scales."}),
        ("post it", {"type": "http_error", "code": 502, "message": "Bad gateway."}),
    ],
)
def test_57d_a_call_fails_in_each_of_three_ways(drive: Drive, asked: str, error: dict[str, Any]) -> None:
    events = with_server(drive).ask(asked)
    assert only(events, "response.mcp_call.failed")["item_id"] == call_of(events)["id"]
    assert (call_of(events)["error"], call_of(events)["output"]) == (error, None)
    assert of_type(events, "response.mcp_call.completed") == []


@pytest.mark.parametrize("approve", [True, False])
def test_57e_a_call_is_asked_about(drive: Drive, approve: bool) -> None:
    driver = with_server(drive, approval="always")
    events = driver.ask("find it")
    (request,) = only(events, "response.done")["response"]["output"]
    assert (request["type"], request["server_label"], request["name"]) == ("mcp_approval_request", "house", "find")
    assert request["arguments"] == '{"id":"7"}'
    assert driver.run() == []
    item = {"type": "mcp_approval_response", "approval_request_id": request["id"], "approve": approve, "reason": "x"}
    driver.send("conversation.item.create", item=item)
    start = len(driver.events)
    driver.send("response.create")
    driver.run()
    events = driver.events[start:]
    assert joined(events, "response.output_text.delta") == ("On A-7." if approve else "On no shelf.")
    assert ("response.mcp_call.completed" in types(events)) is approve
    if approve:
        assert call_of(events)["approval_request_id"] == request["id"]
