"""The simulated callers of a load test: 50 labelled frames a second up, labelled audio down, and nothing in between.

Leaner than `PhoneCall`: no speech, no waiting, one timer per caller. A Twilio caller still plays what it receives and echoes
marks, since the service's playback cursor lives on them.
"""

from __future__ import annotations

import abc
import asyncio
import base64
import random
import time

import msgspec

from orchestrator.errors import EndReason, LegConnectError
from orchestrator.loadtest.histogram import Histogram
from orchestrator.loadtest.tag import TAG_BYTES, Tag, make_tag, read_tag, read_tag_base64
from orchestrator.simulator.carrier.line import CallIdentity, CarrierLine
from orchestrator.simulator.carrier.phone_call import Connect
from orchestrator.simulator.carrier.playout import FRAME_BYTES, FRAME_SECONDS
from orchestrator.simulator.carrier.webhook import PhoneCallError, ask_what_to_do
from orchestrator.transports.base import Leg, LegListener, LegOptions
from orchestrator.transports.opening import connect

__all__ = ["Caller", "Downlink", "RealtimeCaller", "TwilioCaller"]

_QUIET = b"\xff" * (FRAME_BYTES - TAG_BYTES)
_QUIET_BASE64 = base64.b64encode(_QUIET)
_NUMBERS = {"From": "+15005550006", "To": "+15005550001", "Direction": "inbound", "ApiVersion": "2010-04-01"}
_OPTIONS = LegOptions(open_timeout=20.0, close_timeout=5.0)


class Downlink:
    """What all callers together received: labelled payloads, bytes, and their latency while it is measured."""

    def __init__(self) -> None:
        self.payloads = 0
        self.latency = Histogram()
        self.measure_from_ns: int | None = None

    def received(self, tag: Tag | None) -> None:
        """Note one payload by its label. One without is the rest of a delta that the service cut in pieces."""
        if tag is None:
            return
        self.payloads += 1
        if self.measure_from_ns is not None and tag.sent_ns >= self.measure_from_ns:
            self.latency.add((time.monotonic_ns() - tag.sent_ns) // 1000)


class Caller(LegListener, abc.ABC):
    """One simulated caller: the clock, the leg and the counters that both kinds share.

    `fault` says what went wrong first, or is None. `late_frames` counts frames that left a whole frame too late.
    """

    def __init__(self, number: int, url: str, downlink: Downlink, dial: Connect = connect) -> None:
        self.frames_sent = 0
        self.late_frames = 0
        self.fault: str | None = None
        self._number = number
        self._url = url
        self._downlink = downlink
        self._dial = dial
        self._leg: Leg | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._clock_began_at = 0.0
        self._hung_up = False

    async def connect(self) -> None:
        """Open the connection and start to send; on failure set `fault`."""
        try:
            self._leg = await self._open()
        except (PhoneCallError, LegConnectError) as error:
            self.fault = error.message
            return
        loop = asyncio.get_running_loop()
        # Each caller has a phase of its own; else all frames of all callers would come at the same moment.
        self._clock_began_at = loop.time() + random.uniform(0, FRAME_SECONDS)
        self._timer = loop.call_at(self._clock_began_at, self._tick)

    def fall_silent(self) -> None:
        """Stop sending frames and stay on the line."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def hang_up(self) -> None:
        """End the call as its protocol wants it, and wait until it is closed."""
        self.fall_silent()
        self._hung_up = True
        if self._leg is None:
            return
        self._say_goodbye(self._leg)
        self._leg.close(1000)
        await self._leg.wait_closed()

    def unsent(self) -> int:
        """Frames that the own leg threw away because the service did not read."""
        return 0 if self._leg is None else self._leg.statistics().messages_dropped

    def on_text(self, data: bytes) -> None:
        """Take one message of the service."""
        self._take(bytes(data))

    def on_binary(self, data: bytes) -> None:
        """Note what no service should send."""
        self.fault = self.fault or f"a binary message of {len(data)} bytes"

    def on_closed(self, reason: EndReason) -> None:
        """Note an end that we did not ask for."""
        self.fall_silent()
        if not self._hung_up:
            self.fault = self.fault or f"the service ended the call: {reason.code} {reason.text}".rstrip()

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        due = self._clock_began_at + self.frames_sent * FRAME_SECONDS
        # A generator that is late itself measures nothing: the report says so.
        if now - due > FRAME_SECONDS:
            self.late_frames += 1
        self.frames_sent += 1
        self._send_frame(Tag(self._number, self.frames_sent, time.monotonic_ns()), now)
        self._timer = loop.call_at(due + FRAME_SECONDS, self._tick)

    @abc.abstractmethod
    async def _open(self) -> Leg: ...

    @abc.abstractmethod
    def _send_frame(self, tag: Tag, now: float) -> None: ...

    @abc.abstractmethod
    def _take(self, data: bytes) -> None: ...

    def _say_goodbye(self, leg: Leg) -> None:
        del leg


class TwilioCaller(Caller):
    """A phone call. `url` is the voice webhook, or the media stream itself where no webhook is to be asked."""

    async def _open(self) -> Leg:
        identity = CallIdentity.new()
        url, parameters = self._url, {}
        if url.startswith("http"):
            form = {
                "AccountSid": identity.account_sid,
                "CallSid": identity.call_sid,
                "From": "+15005550006",
                "To": "+15005550001",
            }
            target = await ask_what_to_do(url, {**form, "CallStatus": "ringing", "Direction": "inbound"}, timeout=20.0)
            url, parameters = target.url, target.parameters
        self._line = CarrierLine(identity, parameters, on_audio=lambda audio: self._downlink.received(read_tag(audio)))
        leg = await self._dial(url, self, headers=None, options=_OPTIONS)
        for message in self._line.open():
            leg.send_text(message)
        return leg

    def _send_frame(self, tag: Tag, now: float) -> None:
        assert self._leg is not None  # noqa: S101 - the clock starts after the leg is open
        self._leg.send_audio(self._line.frame(make_tag(tag) + _QUIET))
        self._answer(self._line.advance(now))

    def _take(self, data: bytes) -> None:
        self._answer(self._line.receive_text(data, asyncio.get_running_loop().time()))
        if self._line.violations and self.fault is None:
            violation = self._line.violations[0]
            self.fault = f"{violation.code}: {violation.text}"

    def _answer(self, messages: list[bytes]) -> None:
        if self._leg is not None:
            for message in messages:
                self._leg.send_text(message)

    def _say_goodbye(self, leg: Leg) -> None:
        leg.send_text(self._line.stop())


class RealtimeCaller(Caller):
    """A client of the Realtime API at the front door, with µ-law both ways."""

    _DELTA = b'"delta":"'
    _SESSION = msgspec.json.encode(
        {
            "type": "session.update",
            "session": {
                "type": "realtime",
                "audio": {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}},
            },
        }
    )

    def __init__(self, number: int, url: str, downlink: Downlink, dial: Connect = connect, *, key: str | None = None) -> None:
        super().__init__(number, url, downlink, dial)
        self._key = key

    async def _open(self) -> Leg:
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else None
        leg = await self._dial(self._url, self, headers=headers, options=_OPTIONS)
        leg.send_text(self._SESSION)
        return leg

    def _send_frame(self, tag: Tag, now: float) -> None:
        del now
        assert self._leg is not None  # noqa: S101 - the clock starts after the leg is open
        audio = base64.b64encode(make_tag(tag)) + _QUIET_BASE64
        self._leg.send_audio(b'{"type":"input_audio_buffer.append","audio":"' + audio + b'"}')

    def _take(self, data: bytes) -> None:
        if data.startswith(b'{"type":"response.output_audio.delta"'):
            start = data.find(self._DELTA)
            self._downlink.received(read_tag_base64(data[start + len(self._DELTA) :]))
        elif data.startswith(b'{"type":"error"') and self.fault is None:
            self.fault = f"the service sent an error: {msgspec.json.decode(data)['error'].get('message')}"
