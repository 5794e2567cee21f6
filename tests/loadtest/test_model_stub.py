"""Load callers and the model stub, face to face on virtual time: what the one sends the other counts."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any

import openai.types.realtime
import pydantic
import pytest

from orchestrator.errors import EndReason, LegConnectError
from orchestrator.loadtest.callers import Downlink, RealtimeCaller, TwilioCaller
from orchestrator.loadtest.model_stub import DELTAS_PER_RESPONSE, ModelStub
from orchestrator.loadtest.tag import Tag, make_tag
from orchestrator.testing import virtual_clock
from orchestrator.transports.base import Leg, LegListener, LegOptions
from orchestrator.transports.memory import memory_pair
from orchestrator.transports.server_leg import Accept

URL = "ws://127.0.0.1/v1/realtime"


class Line:
    """Dials the stub through memory."""

    def __init__(self) -> None:
        self.stub = ModelStub()

    async def dial(self, url: str, listener: LegListener, *, headers: Mapping[str, str] | None, options: LegOptions) -> Leg:
        assert url == URL
        answer = self.stub.accept(None)  # type: ignore[arg-type]  # it looks at no request
        assert isinstance(answer, Accept)
        return memory_pair(listener, answer.listener, options=options).client


class Client(LegListener):
    """Speaks to the stub by hand."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def on_text(self, data: bytes) -> None:
        self.events.append(json.loads(data))

    def on_binary(self, data: bytes) -> None:
        raise AssertionError("the stub sends text only")

    def on_closed(self, reason: EndReason) -> None:
        del reason

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


def test_callers_and_stub_count_the_same_frames_both_ways() -> None:
    async def scene() -> None:
        line, downlink = Line(), Downlink()
        callers = [RealtimeCaller(number, URL, downlink, line.dial) for number in (1, 2, 3)]
        for caller in callers:
            await caller.connect()
        line.stub.command("measure")
        downlink.measure_from_ns = 0
        await asyncio.sleep(60.0)
        for caller in callers:
            caller.fall_silent()
        line.stub.command("quiet")
        await asyncio.sleep(1.0)
        counts = line.stub.command("count")
        assert counts.sessions == counts.open_sessions == 3
        assert counts.frames_received == sum(caller.frames_sent for caller in callers)
        assert 3 * 2999 <= counts.frames_received <= 3 * 3001
        assert counts.deltas_sent == downlink.payloads
        # Half of the time, 9 a second, for each of the three.
        assert 600 < counts.deltas_sent < 1000
        assert counts.unlabelled == 0
        assert sum(times for _, times in counts.latency) == counts.frames_received
        assert downlink.latency.count == downlink.payloads
        line.stub.command("hold")
        assert [caller.fault for caller in callers] == [None] * 3
        await asyncio.gather(*(caller.hang_up() for caller in callers))
        assert line.stub.command("count").open_sessions == 0

    virtual_clock.run(scene())


def test_a_caller_notes_why_it_failed() -> None:
    async def refuse(url: str, listener: LegListener, *, headers: Mapping[str, str] | None, options: LegOptions) -> Leg:
        raise LegConnectError("the endpoint refused the upgrade (HTTP 503)", 503)

    async def scene() -> None:
        caller = RealtimeCaller(1, URL, Downlink(), refuse)
        await caller.connect()
        assert caller.fault == "the endpoint refused the upgrade (HTTP 503)"
        assert caller.unsent() == 0
        await caller.hang_up()

    virtual_clock.run(scene())


def test_a_caller_notes_an_end_that_it_did_not_ask_for() -> None:
    async def scene() -> None:
        line = Line()
        caller = RealtimeCaller(1, URL, Downlink(), line.dial)
        await caller.connect()
        (session,) = line.stub._sessions
        assert session._leg is not None
        session._leg.close(1011, "gone")
        await asyncio.sleep(1.0)
        assert caller.fault == "the service ended the call: internal_error gone"
        sent = caller.frames_sent
        await asyncio.sleep(1.0)
        assert caller.frames_sent == sent
        await caller.hang_up()

    virtual_clock.run(scene())


def test_what_the_stub_sends_is_what_the_official_client_expects() -> None:
    async def scene() -> None:
        line, client = Line(), Client()
        leg = await line.dial(URL, client, headers=None, options=LegOptions())
        update = {"type": "realtime", "audio": {"output": {"voice": "cedar"}}, "tools": [{"type": "function", "name": "f"}]}
        leg.send_text(json.dumps({"type": "session.update", "session": update}).encode())
        await asyncio.sleep(30.0)
        leg.send_text(b'{"type":"response.create"}')
        await asyncio.sleep(0.5)
        truncate = {"type": "conversation.item.truncate", "item_id": "item_1_1", "content_index": 0, "audio_end_ms": 5}
        leg.send_text(json.dumps(truncate).encode())
        leg.send_text(b'{"type":"response.cancel"}')
        leg.send_text(b'{"type":"no.such.event"}')
        await asyncio.sleep(0.1)
        assert client.types[:2] == ["session.created", "session.updated"]
        assert client.events[1]["session"]["audio"]["output"]["voice"] == "cedar"
        assert client.events[1]["session"]["audio"]["input"] == {"format": {"type": "audio/pcmu"}}
        # At 30 s it was either talking, which the cancel ended, or was made to.
        assert "conversation.item.truncated" in client.types
        assert client.events[-1]["response"]["status"] == "cancelled"
        first_response = client.types.index("response.created")
        deltas = client.types[first_response : client.types.index("response.done")].count("response.output_audio.delta")
        assert deltas == DELTAS_PER_RESPONSE
        validator = pydantic.TypeAdapter(openai.types.realtime.RealtimeServerEvent)
        for event in client.events:
            validator.validate_python(event)
        leg.close()
        await leg.wait_closed()

    virtual_clock.run(scene())


def test_the_stub_refuses_a_word_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="no such command"):
        ModelStub().command("dance")


def test_a_phone_caller_counts_labels_echoes_marks_and_reports_violations() -> None:
    class Carrier(LegListener):
        """The service at the far end of a media stream."""

        def __init__(self) -> None:
            self.messages: list[dict[str, Any]] = []
            self.leg: Leg | None = None

        async def dial(self, url: str, listener: LegListener, *, headers: Mapping[str, str] | None, options: LegOptions) -> Leg:
            return memory_pair(listener, self, options=options).client

        def on_open(self, leg: Leg) -> None:
            self.leg = leg

        def on_text(self, data: bytes) -> None:
            self.messages.append(json.loads(data))

        def on_binary(self, data: bytes) -> None:
            raise AssertionError("a carrier sends text only")

        def on_closed(self, reason: EndReason) -> None:
            del reason

        def send(self, event: str, **body: Any) -> None:
            assert self.leg is not None
            self.leg.send_text(json.dumps({"event": event, "streamSid": self.messages[1]["streamSid"], **body}).encode())

    async def scene() -> None:
        service, downlink = Carrier(), Downlink()
        caller = TwilioCaller(1, URL, downlink, service.dial)
        await caller.connect()
        await asyncio.sleep(0.1)
        service.send("media", media={"payload": base64.b64encode(make_tag(Tag(1, 1, 1))).decode()})
        service.send("media", media={"payload": "/////w=="})
        service.send("mark", mark={"name": "m"})
        await asyncio.sleep(0.2)
        assert downlink.payloads == 1
        assert [message["mark"]["name"] for message in service.messages if message["event"] == "mark"] == ["m"]
        assert caller.fault is None
        service.send("media", media={})
        await asyncio.sleep(0.1)
        assert caller.fault == "31951: media must have payload and nothing else"
        await caller.hang_up()
        await asyncio.sleep(0.1)
        assert service.messages[-1]["event"] == "stop"

    virtual_clock.run(scene())
