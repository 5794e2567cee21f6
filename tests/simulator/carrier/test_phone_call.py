"""Phone calls against a scripted service: on virtual time over a leg in memory, and once over real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from orchestrator.errors import EndReason, LegConnectError
from orchestrator.simulator.carrier.phone_call import CallOptions, PhoneCall, PhoneCallError
from orchestrator.simulator.carrier.webhook import sign
from orchestrator.testing import virtual_clock
from orchestrator.transports.base import Leg, LegListener, LegOptions
from orchestrator.transports.leg_server import serve
from orchestrator.transports.memory import MemoryPair, memory_pair
from orchestrator.transports.server_leg import Accept

VOICE = b"\x10"
URL = "ws://127.0.0.1/twilio/media"


class Service(LegListener):
    """The other side: keeps what the carrier sends, and sends what a test tells it to."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.leg: Leg | None = None
        self.pair: MemoryPair | None = None
        self.end: EndReason | None = None
        self.headers: Mapping[str, str] | None = None
        self.on_frame: Callable[[int], None] = lambda _: None

    async def connect(self, url: str, listener: LegListener, *, headers: Mapping[str, str] | None, options: LegOptions) -> Leg:
        assert url == URL
        self.headers = headers
        self.pair = memory_pair(listener, self, options=options)
        return self.pair.client

    def on_open(self, leg: Leg) -> None:
        self.leg = leg

    def on_text(self, data: bytes) -> None:
        message = json.loads(data)
        self.messages.append(message)
        self.times.append(asyncio.get_running_loop().time())
        if message["event"] == "media":
            self.on_frame(int(message["media"]["chunk"]))

    def on_binary(self, data: bytes) -> None:
        raise AssertionError("a carrier sends text only")

    def on_closed(self, reason: EndReason) -> None:
        self.end = reason

    def of(self, event: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["event"] == event]

    @property
    def frames(self) -> list[bytes]:
        return [base64.b64decode(message["media"]["payload"]) for message in self.of("media")]

    def send(self, event: str, **body: Any) -> None:
        assert self.leg is not None
        sid = self.of("start")[0]["streamSid"]
        self.leg.send_text(json.dumps({"event": event, "streamSid": sid, **body}).encode())

    def speak(self, milliseconds: int, byte: bytes = VOICE) -> None:
        self.send("media", media={"payload": base64.b64encode(byte * (8 * milliseconds)).decode()})

    def mark(self, name: str) -> None:
        self.send("mark", mark={"name": name})


def call_to(service: Service, **options: Any) -> PhoneCall:
    return PhoneCall(URL, CallOptions(**options), connect=service.connect)


def test_opens_the_stream_and_sends_a_frame_every_20_ms() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service, parameters={"token": "t"}, auth_token="secret")
        await call.dial()
        await asyncio.sleep(1.01)
        assert [message["event"] for message in service.messages[:3]] == ["connected", "start", "media"]
        assert service.messages[1]["start"]["customParameters"] == {"token": "t"}
        assert service.headers == {"X-Twilio-Signature": sign("secret", URL)}
        assert len(service.frames) == 50
        assert set(service.frames) == {b"\xff" * 160}
        times = service.times[2:]
        assert [round(at * 1000) for at in times] == [20 * number for number in range(1, 51)]
        reason = await call.hang_up()
        assert reason.code == "closed_normally"
        assert service.messages[-1]["event"] == "stop"
        assert not call.is_up

    virtual_clock.run(scene())


def test_frames_do_not_drift() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service)
        await call.dial()
        await asyncio.sleep(300.01)
        assert len(service.frames) == 15_000
        assert service.messages[-1]["media"]["timestamp"] == str(300_000 - 20)
        await call.hang_up()

    virtual_clock.run(scene())


def test_speaks_in_real_time_and_pads_the_last_frame() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service)
        await call.dial()
        await asyncio.sleep(0.1)
        speech = await call.say(VOICE * 1000)
        assert [frame for frame in service.frames if VOICE in frame] == [VOICE * 160] * 6 + [VOICE * 40 + b"\xff" * 120]
        assert speech.ended_at - speech.began_at == pytest.approx(0.14)
        assert call.speeches == [speech]
        await call.hang_up()

    virtual_clock.run(scene())


def test_the_end_of_speech_is_its_last_audible_frame() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service)
        await call.dial()
        speech = await call.say(VOICE * 800 + b"\xff" * 8000)
        assert speech.ended_at == pytest.approx(0.1)
        assert asyncio.get_running_loop().time() == pytest.approx(1.1)
        await call.hang_up()

    virtual_clock.run(scene())


def test_hears_echoes_marks_and_notes_a_clear() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service)
        await call.dial()
        spoken = await call.say(VOICE * 800)
        service.speak(100, byte=b"\xff")
        service.speak(1000)
        service.mark("a")
        service.speak(1000)
        service.mark("b")
        began = await call.wait_for_speech()
        assert began == pytest.approx(spoken.ended_at + 0.1)
        await call.wait_until_heard(1500)
        assert [message["mark"]["name"] for message in service.of("mark")] == ["a"]
        # Sent through the loop as a timer of its own: on the very moment when everything before it had sounded.
        assert call.line.echoes[0].at == pytest.approx(spoken.ended_at + 1.1)
        service.send("clear")
        await call.wait_for_clear()
        (clearing,) = call.line.playout.clearings
        assert clearing.heard_ms + clearing.dropped_ms == 2100
        assert clearing.heard_ms == pytest.approx(1500, abs=20)
        await call.wait_for_quiet(0.5)
        assert call.heard_ms == clearing.heard_ms
        assert [message["mark"]["name"] for message in service.of("mark")] == ["a", "b"]
        assert call.line.violations == []
        await call.hang_up()

    virtual_clock.run(scene())


def test_a_mark_is_echoed_when_its_audio_has_sounded_and_not_at_the_next_frame() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service)
        await call.dial()
        await asyncio.sleep(0.105)
        service.speak(40)
        service.mark("a")
        await asyncio.sleep(0.5)
        index = service.messages.index(service.of("mark")[0])
        assert service.times[index] == pytest.approx(0.145)
        await call.hang_up()

    virtual_clock.run(scene())


def test_presses_keys() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service)
        await call.dial()
        call.press("5")
        await asyncio.sleep(0)
        await call.hang_up()
        assert [message["dtmf"]["digit"] for message in service.of("dtmf")] == ["5"]

    virtual_clock.run(scene())


def test_keeps_what_the_service_did_wrong() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service)
        await call.dial()
        await asyncio.sleep(0.1)
        assert service.leg is not None
        service.send("media", media={"payload": "AAAA", "track": "outbound"})
        await asyncio.sleep(0.1)
        assert [violation.code for violation in call.line.violations] == [31951]
        await call.hang_up()

    virtual_clock.run(scene())


def test_after_a_stall_no_frame_is_missing() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service)
        await call.dial()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, virtual_clock.VirtualClockLoop)
        # The loop does nothing for half a second: time passes, and no timer runs.
        loop._now += 0.5
        await asyncio.sleep(0.11)
        assert [message["media"]["chunk"] for message in service.of("media")] == [str(number) for number in range(1, 31)]
        await call.hang_up()

    virtual_clock.run(scene())


def test_every_wait_has_a_deadline_and_says_what_it_waited_for() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service)
        await call.dial()
        for wait, what in (
            (call.wait_for_speech(3.0), "no voice of the agent within 3 s"),
            (call.wait_until_heard(100, 3.0), "no 100 ms of heard audio"),
            (call.wait_for_clear(1, 3.0), "no `clear` within"),
            (call.wait_for_end(3.0), "no end of the call within"),
        ):
            with pytest.raises(PhoneCallError, match=what):
                await wait
        service.on_frame = lambda _: service.speak(20)
        with pytest.raises(PhoneCallError, match="no quiet line within 3 s"):
            await call.wait_for_quiet(1.0, 3.0)
        await call.hang_up()

    virtual_clock.run(scene())


def test_a_wait_ends_when_the_service_ends_the_call() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service)
        await call.dial()
        assert service.leg is not None
        service.leg.close(1011, "no model")
        with pytest.raises(PhoneCallError, match="ended while waiting for voice of the agent: internal_error no model"):
            await call.wait_for_speech(30.0)
        assert asyncio.get_running_loop().time() < 1.0
        with pytest.raises(PhoneCallError, match="ended while speaking"):
            await call.say(VOICE)
        assert (await call.wait_for_end()).code == "internal_error"
        # Hanging up a call that is over is no fault.
        assert (await call.hang_up()).code == "internal_error"

    virtual_clock.run(scene())


def test_a_service_that_answers_no_close_is_dropped() -> None:
    async def scene() -> None:
        service = Service()
        call = call_to(service, close_timeout=2.0)
        await call.dial()
        assert service.pair is not None
        service.pair.server_line.stall()
        await call.hang_up()
        assert not call.is_up
        assert asyncio.get_running_loop().time() <= 3.0

    virtual_clock.run(scene())


def test_dropping_leaves_no_timer_behind() -> None:
    async def scene() -> None:
        service = Service()
        async with call_to(service) as call:
            await asyncio.sleep(0.1)
            service.speak(500)
            service.mark("a")
            await asyncio.sleep(0.1)
            call.drop()
            await call.wait_for_end()
        count = len(service.messages)
        await asyncio.sleep(5.0)
        assert len(service.messages) == count
        assert service.end is not None

    virtual_clock.run(scene())


def test_an_error_in_the_block_drops_the_call() -> None:
    async def scene() -> None:
        service = Service()
        with pytest.raises(RuntimeError, match="of the test"):
            async with call_to(service):
                raise RuntimeError("of the test")
        await asyncio.sleep(0.1)
        assert service.end is not None

    virtual_clock.run(scene())


def test_says_why_a_stream_was_not_answered() -> None:
    async def refuse(url: str, listener: LegListener, *, headers: Mapping[str, str] | None, options: LegOptions) -> Leg:
        raise LegConnectError("the endpoint refused the upgrade (HTTP 403)", 403, "no token")

    async def scene() -> None:
        call = PhoneCall(URL, connect=refuse)
        with pytest.raises(PhoneCallError, match=r"31920.*HTTP 403.*no token"):
            await call.dial()
        with pytest.raises(PhoneCallError, match="dialled once"):
            await call.dial()
        with pytest.raises(PhoneCallError, match="not answered yet"):
            call.press("1")
        with pytest.raises(PhoneCallError, match="never answered"):
            await call.hang_up()
        call.drop()

    virtual_clock.run(scene())


def test_opens_unencrypted_streams_on_this_machine_only() -> None:
    async def scene() -> None:
        with pytest.raises(PhoneCallError, match="31922"):
            await PhoneCall("ws://voice.example.com/media").dial()

    virtual_clock.run(scene())


def test_records_both_directions() -> None:
    class Recording:
        def __init__(self) -> None:
            self.both: list[tuple[str, bytes, float]] = []

        def said(self, frame: bytes, at: float) -> None:
            self.both.append(("said", frame, at))

        def heard(self, frame: bytes, at: float) -> None:
            self.both.append(("heard", frame, at))

    async def scene() -> None:
        service, recording = Service(), Recording()
        call = PhoneCall(URL, connect=service.connect, recording=recording)
        await call.dial()
        service_spoke = asyncio.get_running_loop().call_later(0.1, service.speak, 40)
        await call.say(VOICE * 160)
        await asyncio.sleep(0.2)
        assert service_spoke.when() == pytest.approx(0.1)
        assert recording.both[0][:2] == ("said", VOICE * 160)
        assert recording.both[0][2] == pytest.approx(0.0)
        heard = [at for kind, _, at in recording.both if kind == "heard"]
        assert heard == [pytest.approx(0.1), pytest.approx(0.12)]
        await call.hang_up()

    virtual_clock.run(scene())


async def test_places_a_whole_call_over_real_sockets() -> None:
    service = Service()
    async with serve(lambda _: Accept(service)) as stream_server:
        twiml = (
            f'<Response><Connect><Stream url="ws://127.0.0.1:{stream_server.port}/twilio/media">'
            '<Parameter name="token" value="once"/></Stream></Connect></Response>'
        ).encode()

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(twiml), twiml))
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as webhook:
            port = webhook.sockets[0].getsockname()[1]
            service.on_frame = lambda number: service.speak(40) if number == 2 else None
            async with PhoneCall(f"http://127.0.0.1:{port}/twilio/voice") as call:
                call.ear.await_voice(0.0)
                await call.wait_for_speech()
                await call.wait_until_heard(40)
                assert call.end is None
            ended: EndReason | None = call.end
            assert ended is not None
            assert ended.code == "closed_normally"
    assert service.messages[1]["start"]["customParameters"] == {"token": "once"}
    assert service.messages[-1]["event"] == "stop"
