"""The owner of a call is gone from one moment to the next, and another host goes on with page, socket and journal."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from orchestrator.channels.host import Given, Lost
from orchestrator.errors import EndReason
from orchestrator.journal.state import replay
from orchestrator.settings import Settings
from orchestrator.transports.session_page import SessionPage
from orchestrator.transports.surviving_leg import SurvivingLeg
from orchestrator.wire import realtime_client
from tests.channels.conftest import Caller, Endpoint, World
from tests.channels.test_twilio import CALL_SID, media, start

SESSION = "sess_line"
TEXT = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "how are you?"}]}
CREATE = {"type": "conversation.item.create", "item": TEXT | {"id": "mine"}}
STARTED = {"type": "input_audio_buffer.speech_started"}


class Line:
    """A caller's connection, and what a gateway holds of it while owners come and go."""

    def __init__(self, settings: Settings, channel: str) -> None:
        self.settings = settings
        self.channel = channel
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._theirs = socket.create_connection(listener.getsockname())
            self._kept, _ = listener.accept()
        for sock in (self._theirs, self._kept):
            # As the gateway does; virtual time does not wait for a delayed acknowledgement.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._kept.setblocking(False)
        self._theirs.setblocking(False)
        self._page = SessionPage.create(
            max_message=16 << 20, outbound_bytes=1 << 20, audio_bytes=1 << 20, snapshot_bytes=64 * 1024
        )
        key = base64.b64encode(bytes(16)).decode()
        self.head = (
            f"GET /x HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
        ).encode()
        self.caller = Caller()
        self.accepted_at = time.monotonic()
        self.owners: list[World] = []
        self.pages: list[SessionPage] = []

    @property
    def owner(self) -> World:
        return self.owners[-1]

    @property
    def endpoint(self) -> Endpoint:
        return self.owner.endpoint

    async def begin(self, *, dial_delay: float = 0.0) -> None:
        """Call, and be answered by the first owner."""
        self._own(None, dial_delay)
        await self.caller.open(self._theirs)
        if self.channel == "twilio":
            self.caller.send(start(self.owner.tokens.issue(CALL_SID, time.time())))
        await self.settle()

    async def die(self) -> None:
        """Leave the owner as a kill would: nothing of what it still does reaches anybody."""
        owner = self.owner
        owner.hold = True
        for call, _ in owner.host._calls.values():
            call._memory = None
            self.pages[-1].let_go()
            assert isinstance(call._leg, SurvivingLeg)
            call._leg._surviving_writer.release()
        await owner.host.aclose(EndReason("killed"))

    async def go_on(self, *, dial_delay: float = 0.0, state: bool = True) -> None:
        """Give the call to another host."""
        entries = self.owner.store.read(SESSION)
        known = replay(SESSION, entries) if state else None
        self._own(Lost(known, "actor_died", time.monotonic()), dial_delay)
        await self.settle()

    async def change_owner(self) -> None:
        await self.die()
        await self.go_on()

    async def settle(self) -> None:
        for _ in range(10):
            await self.owner.settle()

    def garble(self, data: bytes) -> None:
        """Leave in the page what no owner has written."""
        page = SessionPage.open(os.dup(self._page.fileno()))
        page.save(data)
        page.close()

    def appended(self) -> list[str]:
        return [event["audio"] for event in self.endpoint.received if event["type"] == "input_audio_buffer.append"]

    async def close(self) -> None:
        for owner in self.owners:
            await owner.host.aclose(EndReason("test_over"))
        await asyncio.sleep(0)
        self.caller.leg.abort(EndReason("test_over"))
        await self.caller.leg.wait_closed()
        assert [page.fileno() for page in self.pages] == [-1] * len(self.pages)
        self._page.close()
        self._kept.close()

    def _own(self, lost: Lost | None, dial_delay: float) -> None:
        world = World(self.settings, Endpoint(output_format="audio/pcmu" if self.channel == "twilio" else "audio/pcm"))
        world.dial_delay = dial_delay
        if self.owners:
            world.store = self.owner.store
            world.journals._writer = f"node/actor/{len(self.owners) + 1}"
        self.owners.append(world)
        page = SessionPage.open(os.dup(self._page.fileno()))
        self.pages.append(page)
        given = Given(SESSION, self.channel, self.head, "127.0.0.1:1", self.accepted_at, lost)
        sock = self._kept.dup()
        sock.setblocking(False)
        assert world.host.adopt(sock, page, given) is None


@pytest.fixture
async def door(settings: Settings) -> AsyncIterator[Line]:
    line = Line(settings, "openai")
    yield line
    await line.close()


@pytest.fixture
async def phone(settings: Settings) -> AsyncIterator[Line]:
    line = Line(settings, "twilio")
    yield line
    await line.close()


def items(line: Line) -> list[str]:
    return [event["item"]["id"] for event in line.endpoint.received if event["type"] == "conversation.item.create"]


def confirm(line: Line, item_id: str, **item: Any) -> None:
    for kind in ("added", "done"):
        line.endpoint.send(f"conversation.item.{kind}", previous_item_id=None, item=TEXT | {"id": item_id} | item)


def user_spoke(line: Line) -> None:
    """The caller has said something, which the model is to answer of its own accord."""
    confirm(line, "item_user")


async def test_a_caller_at_the_door_hears_the_end_of_the_response_that_was_lost_once(door: Line) -> None:
    await door.begin()
    user_spoke(door)
    door.endpoint.start_response()
    door.endpoint.speak("one moment", 400)
    await door.settle()
    await door.change_owner()
    assert [done["response"]["status"] for done in door.caller.of("response.done")] == ["cancelled"]
    assert door.owner.reporter.recoveries == [(SESSION, 2)]
    assert door.endpoint.types().count("response.create") == 1
    await door.change_owner()
    assert len(door.caller.of("response.done")) == 1
    assert door.endpoint.types().count("response.create") == 1
    assert door.caller.types().count("session.created") == 1


async def test_on_the_phone_the_response_that_was_lost_is_cleared_and_asked_for_again(phone: Line) -> None:
    await phone.begin()
    user_spoke(phone)
    phone.endpoint.start_response()
    phone.endpoint.speak("one moment", 400)
    await phone.settle()
    await phone.change_owner()
    assert phone.caller.types()[-1] == "clear"
    assert phone.endpoint.types().count("response.create") == 1
    phone.endpoint.start_response("resp_2")
    phone.endpoint.speak("here you are", 400, response_id="resp_2", item_id="item_b")
    await phone.settle()
    assert phone.caller.of("mark")[-1]["mark"]["name"].startswith("1:")


async def test_what_the_phone_still_plays_of_a_response_that_is_whole_is_played_on(phone: Line) -> None:
    await phone.begin()
    phone.endpoint.start_response()
    phone.endpoint.speak("a long story", 4000)
    phone.endpoint.end_response()
    await phone.settle()
    await phone.change_owner()
    assert not phone.caller.of("clear")
    assert "response.create" not in phone.endpoint.types()


async def test_a_response_that_the_caller_has_cancelled_is_not_given_again(door: Line) -> None:
    await door.begin()
    user_spoke(door)
    door.endpoint.start_response()
    door.endpoint.speak("one moment", 400)
    await door.settle()
    door.caller.send({"type": "response.cancel"})
    await door.settle()
    await door.change_owner()
    assert "response.create" not in door.endpoint.types()
    assert len(door.caller.of("response.done")) == 1


@pytest.mark.parametrize("channel", ["openai", "twilio"])
async def test_a_turn_that_is_being_spoken_is_told_to_the_next_model(settings: Settings, channel: str) -> None:
    line = Line(settings, channel)
    await line.begin()
    payloads = [base64.b64encode(bytes([number] * 960)).decode() for number in range(20)]

    def say(payload: str) -> None:
        line.caller.send(media(payload) if channel == "twilio" else {"type": "input_audio_buffer.append", "audio": payload})

    for payload in payloads[:10]:
        say(payload)
    await line.settle()
    line.endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_turn")
    await line.settle()
    await line.die()
    for payload in payloads[10:]:
        say(payload)
    await line.go_on(dial_delay=5.0)
    await asyncio.sleep(5.1)
    await line.settle()
    heard = b"".join(base64.b64decode(payload) for payload in line.appended())
    assert heard == b"".join(bytes([number] * 960) for number in range(20))
    await line.close()


async def test_an_open_tool_call_is_answered_by_the_next_owner(door: Line) -> None:
    await door.begin()
    user_spoke(door)
    # The gateway has the request, and nothing of what followed.
    door.endpoint.start_response()
    item = {
        "id": "item_c1",
        "type": "function_call",
        "status": "completed",
        "name": "lookup_order",
        "call_id": "c1",
        "arguments": '{"order_id": "7"}',
    }
    door.endpoint.send("response.output_item.done", response_id="resp_1", output_index=0, item=item)
    await door.settle()
    await door.change_owner()
    outputs = [event["item"] for event in door.endpoint.received if event["type"] == "conversation.item.create"]
    assert [one.get("output") for one in outputs if one["type"] == "function_call_output"] == ["order 7 is on its way"]
    assert door.endpoint.types().count("response.create") == 1


async def test_an_item_that_was_not_confirmed_is_created_by_the_next_owner_once(door: Line) -> None:
    await door.begin()
    door.caller.send(CREATE)
    door.caller.send({"type": "response.create", "response": {"metadata": {"why": "short"}}})
    await door.settle()
    await door.change_owner()
    assert items(door) == ["mine"]
    created = [event for event in door.endpoint.received if event["type"] == "response.create"]
    assert [event["response"]["metadata"] for event in created] == [{"why": "short"}]
    confirm(door, "mine")
    door.endpoint.start_response()
    await door.settle()
    assert door.caller.types().count("conversation.item.added") == 1
    await door.change_owner()
    assert items(door) == ["mine"]


async def test_a_response_that_was_asked_for_is_asked_for_again(door: Line) -> None:
    await door.begin()
    door.caller.send({"type": "response.create"})
    await door.settle()
    await door.change_owner()
    assert door.endpoint.types().count("response.create") == 1


async def test_what_a_caller_sends_while_the_model_connects_outlives_two_owners(door: Line) -> None:
    await door.begin(dial_delay=5.0)
    door.caller.send(CREATE)
    await door.settle()
    await door.die()
    await door.go_on(dial_delay=5.0)
    door.caller.send({"type": "input_audio_buffer.append", "audio": "AAAA"})
    door.caller.send({"type": "response.create"})
    await door.settle()
    await door.change_owner()
    assert [kind for kind in door.endpoint.types() if kind != "session.update"] == [
        "conversation.item.create",
        "response.create",
    ]
    assert door.appended() == ["AAAA"]
    assert door.caller.types() == ["session.created"]


async def test_a_phone_call_whose_model_was_being_connected_goes_on(phone: Line) -> None:
    await phone.begin(dial_delay=5.0)
    await phone.change_owner()
    phone.caller.send(media("AAEC"))
    await phone.settle()
    assert "AAEC" in phone.appended()
    assert phone.owner.reporter.states[-1] == (SESSION, "live")


@pytest.mark.parametrize("garbage", [b"\xff\xfe", b"{}", b'[{"a": 1}, 7]', b"[[1,2,3,4],[1]]", b"[null]"])
async def test_a_page_that_cannot_be_read_costs_what_was_in_it_and_not_the_call(door: Line, garbage: bytes) -> None:
    await door.begin()
    await door.die()
    door.garble(garbage)
    await door.go_on()
    assert door.owner.reporter.states[-1] == (SESSION, "live")
    door.caller.send({"type": "input_audio_buffer.append", "audio": "AAAA"})
    await door.settle()
    assert door.appended() == ["AAAA"]


async def test_a_phone_call_whose_stream_is_not_known_any_more_ends_with_a_reason(phone: Line) -> None:
    await phone.begin()
    await phone.die()
    phone.garble(b"{}")
    await phone.go_on(state=False)
    phone.caller.send(media())
    await phone.settle()
    reason = await phone.owner.over(SESSION)
    assert reason.code == "caller_protocol_error"
    assert phone.caller.closed is not None


async def test_a_memory_larger_than_the_page_leaves_the_models_part_out(phone: Line) -> None:
    await phone.begin()
    (call, _), *_ = phone.owner.host._calls.values()
    assert call._model is not None
    call._model.send_client_event(
        msgspec.convert({"session": {"type": "realtime", "instructions": "x" * 70_000}}, type=realtime_client.SessionUpdate)
    )
    await phone.settle()
    user_spoke(phone)
    await phone.settle()
    await phone.change_owner()
    phone.caller.send(media("AAEC"))
    await phone.settle()
    assert phone.appended()[-1:] == ["AAEC"]
    assert phone.endpoint.last("session.update")["session"]["instructions"] == "The secret is blue."


async def test_the_longest_time_counts_from_the_beginning_of_the_call(settings: Settings) -> None:
    line = Line(msgspec.structs.replace(settings, max_call_seconds=3600.0), "openai")
    await line.begin()
    await line.die()
    line.accepted_at -= 3590.0
    await line.go_on()
    assert not line.owner.reporter.ends
    await asyncio.sleep(15.0)
    assert line.owner.reporter.ends[SESSION].code == "max_duration"
    await line.close()
