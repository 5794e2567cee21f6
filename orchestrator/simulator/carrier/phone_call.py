"""A phone call placed from outside, as a carrier would place it: the webhook, the stream, a mouth and an ear.

The thin shell around `CarrierLine`: it owns the connection, the 20 ms clock and the waiting. It is what the demo, the load
test and end-to-end tests use as a caller, and it shares no code with the service beyond the WebSocket leg.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Protocol, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from orchestrator.errors import EndReason, LegConnectError
from orchestrator.simulator.carrier.line import CallIdentity, CarrierLine
from orchestrator.simulator.carrier.playout import BYTES_PER_MS, FRAME_BYTES, FRAME_SECONDS, SILENCE, Ear, is_loud
from orchestrator.simulator.carrier.webhook import PhoneCallError, StreamTarget, ask_what_to_do, sign
from orchestrator.transports.base import Leg, LegListener, LegOptions
from orchestrator.transports.opening import connect

__all__ = ["CallOptions", "Connect", "FrameSink", "PhoneCall", "PhoneCallError", "Speech"]

T = TypeVar("T")

# The loop may run a timer early by the resolution of its clock.
_EARLY = 1e-6
_NAMES = frozenset({"127.0.0.1", "::1", "localhost"})


class Connect(Protocol):
    """Opens a WebSocket client leg, as `orchestrator.transports.connect` does."""

    def __call__(
        self, url: str, listener: LegListener, *, headers: Mapping[str, str] | None, options: LegOptions
    ) -> Awaitable[Leg]:
        """Return the open leg, or raise LegConnectError."""
        ...


class FrameSink(Protocol):
    """Takes both directions of a call for a recording: 20 ms of µ-law and the loop time at which it sounds."""

    def said(self, frame: bytes, at: float) -> None:
        """Take a frame that the caller spoke."""
        ...

    def heard(self, frame: bytes, at: float) -> None:
        """Take a frame that the caller heard."""
        ...


class CallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to place a call. Durations are seconds.

    With an `auth_token` the form and the upgrade are signed. `parameters` are those of the `start` message where a stream
    URL is dialled directly; otherwise TwiML names them.
    """

    caller: str = "+15005550006"
    called: str = "+15005550001"
    account_sid: str | None = None
    auth_token: str | None = None
    parameters: dict[str, str] = {}
    answer_timeout: float = 10.0
    close_timeout: float = 5.0


class Speech(msgspec.Struct, frozen=True):
    """One utterance of the caller: loop times of its first frame and of its last audible one."""

    began_at: float
    ended_at: float


class PhoneCall(LegListener):
    """One simulated phone call to `url`, a voice webhook (http, https) or directly a media stream (ws, wss).

    Every wait has a deadline in seconds and raises PhoneCallError when it passes or when the service ends the call before.
    All waits may be cancelled; the call goes on. Times are those of the running loop's clock.
    """

    def __init__(
        self, url: str, options: CallOptions | None = None, *, connect: Connect = connect, recording: FrameSink | None = None
    ) -> None:
        self.url = url
        self.options = options or CallOptions()
        self.ear = Ear()
        self.line = CarrierLine(CallIdentity.new(self.options.account_sid))
        self.dialled_at: float | None = None
        self.answered_at: float | None = None
        self.end: EndReason | None = None
        self.speeches: list[Speech] = []
        self._connect = connect
        self._recording = recording
        self._leg: Leg | None = None
        self._mouth = bytearray()
        self._spoken_bytes = 0
        self._voice_sent_at: float | None = None
        self._clock: asyncio.TimerHandle | None = None
        self._clock_began_at = 0.0
        self._echo_timer: asyncio.TimerHandle | None = None
        self._waits: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    async def __aenter__(self) -> Self:
        await self.dial()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            await self.hang_up()
        else:
            self.drop()

    @property
    def heard_ms(self) -> float:
        """Milliseconds of the agent's audio that the caller has heard so far, silence included."""
        return self.line.playout.heard_ms

    @property
    def is_up(self) -> bool:
        """Whether the stream is open."""
        return self.answered_at is not None and self.end is None

    async def dial(self) -> None:
        """Ask the webhook, open the stream and start to send frames. Raises PhoneCallError."""
        if self.dialled_at is not None:
            raise PhoneCallError("a PhoneCall is dialled once; make a new one")
        loop = asyncio.get_running_loop()
        self.dialled_at = loop.time()
        target = await self._stream_target()
        self.line = CarrierLine(self.line.identity, target.parameters, self._hear)
        token = self.options.auth_token
        headers = None if token is None else {"X-Twilio-Signature": sign(token, target.url)}
        options = LegOptions(open_timeout=self.options.answer_timeout, close_timeout=self.options.close_timeout)
        try:
            self._leg = await self._connect(target.url, self, headers=headers, options=options)
        except LegConnectError as error:
            number = 31901 if error.status is None else 31920
            text = f"{number}: the stream was not answered: {error.message} {error.body}"
            raise PhoneCallError(text.rstrip()) from error
        self.answered_at = self._clock_began_at = loop.time()
        for message in self.line.open():
            self._leg.send_text(message)
        self._clock = loop.call_at(self._clock_began_at + FRAME_SECONDS, self._tick)

    async def say(self, audio: bytes) -> Speech:
        """Speak µ-law audio in real time and return when its last frame was sent.

        Several calls queue up behind each other. When cancelled, what was not spoken yet is still spoken.
        """
        self._require_up("speaking")
        self._mouth += audio + SILENCE * (-len(audio) % FRAME_BYTES)
        goal = self._spoken_bytes + len(self._mouth)
        self._voice_sent_at = None
        began_at = asyncio.get_running_loop().time()
        await self._until(lambda: self._spoken_bytes >= goal, len(self._mouth) / BYTES_PER_MS / 1000 + 5, "the end of speaking")
        ended_at = self._voice_sent_at or asyncio.get_running_loop().time()
        self.ear.await_voice(ended_at)
        speech = Speech(began_at, ended_at)
        self.speeches.append(speech)
        return speech

    def press(self, digit: str) -> None:
        """Press one key of the telephone."""
        self._require_up("pressing a key")
        self._send_control([self.line.digit(digit)])

    async def wait_for_speech(self, timeout: float = 15.0) -> float:
        """Wait until the agent's voice is heard after the caller's last speech; return when it began, as loop time."""
        await self._until(lambda: self.ear.first_voice_at is not None, timeout, "voice of the agent")
        assert self.ear.first_voice_at is not None  # noqa: S101 - the wait above is for just that
        return self.ear.first_voice_at

    async def wait_until_heard(self, total_ms: float, timeout: float = 30.0) -> None:
        """Wait until the caller has heard that much of the agent since the call began."""
        await self._until(lambda: self.heard_ms >= total_ms, timeout, f"{total_ms:.0f} ms of heard audio")

    async def wait_for_clear(self, number: int = 1, timeout: float = 10.0) -> None:
        """Wait until the service has sent that many `clear` messages since the call began."""
        await self._until(lambda: len(self.line.playout.clearings) >= number, timeout, "`clear`")

    async def wait_for_quiet(self, quiet: float = 1.0, timeout: float = 60.0) -> None:
        """Wait until nothing is left to play and no voice was heard for `quiet` seconds."""
        loop = asyncio.get_running_loop()
        entered_at = loop.time()

        def is_quiet() -> bool:
            last = max(self.ear.voice_last_at or entered_at, self.line.last_media_at or entered_at)
            return self.line.playout.is_silent(loop.time()) and loop.time() - last >= quiet

        await self._until(is_quiet, timeout, "quiet line")

    async def wait_for_end(self, timeout: float = 10.0) -> EndReason:
        """Wait until the stream is closed, by whichever side."""
        await self._until(lambda: self.end is not None, timeout, "end of the call", needs_line=False)
        assert self.end is not None  # noqa: S101 - the wait above is for just that
        return self.end

    async def hang_up(self) -> EndReason:
        """Send `stop`, close the stream, and return how it ended. Does nothing more when it has ended already."""
        if self._leg is None:
            raise PhoneCallError("the call was never answered")
        if self.end is None:
            self._stop_clock()
            self._leg.send_text(self.line.stop())
            self._leg.close(1000)
        try:
            return await self.wait_for_end(self.options.close_timeout + 1)
        except PhoneCallError:
            self.drop()
            raise

    def drop(self) -> None:
        """Cut the connection at once, as a carrier that loses the call."""
        self._stop_clock()
        if self._leg is not None and self.end is None:
            self._leg.abort(EndReason("dropped", "the caller's line went dead", by="us"))

    def on_text(self, data: bytes) -> None:
        """Judge, play and answer one message of the service."""
        self._send_control(self.line.receive_text(bytes(data), self._now()))
        self._settle()

    def on_binary(self, data: bytes) -> None:
        """Note a message of a kind that the carrier does not know."""
        del data
        self.line.receive_binary(self._now())

    def on_closed(self, reason: EndReason) -> None:
        """Note the end, and tell those who wait for something else."""
        self.end = reason
        self._stop_clock()
        self._settle()

    async def _stream_target(self) -> StreamTarget:
        options, identity = self.options, self.line.identity
        target = StreamTarget(self.url, options.parameters)
        if urlsplit(self.url).scheme in ("http", "https"):
            form = {
                "AccountSid": identity.account_sid,
                "ApiVersion": "2010-04-01",
                "CallSid": identity.call_sid,
                "CallStatus": "ringing",
                "Direction": "inbound",
                "From": options.caller,
                "To": options.called,
            }
            target = await ask_what_to_do(self.url, form, options.auth_token, timeout=options.answer_timeout)
        parts = urlsplit(target.url)
        if parts.scheme == "ws" and parts.hostname not in _NAMES:
            raise PhoneCallError("31922: a carrier opens wss URLs only; ws is for this machine alone")
        return target

    def _tick(self) -> None:
        """Send every frame that is due. After a stall they go out in one burst: a carrier loses no audio either."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._frame_due() <= now + _EARLY:
            self._speak_frame(now)
        self._clock = loop.call_at(self._frame_due(), self._tick)
        self._send_control(self.line.advance(now))
        self._settle()

    def _frame_due(self) -> float:
        # A frame holds the 20 ms before it is sent, so the first one is due 20 ms after the answer.
        return self._clock_began_at + (self.line.frames_sent + 1) * FRAME_SECONDS

    def _speak_frame(self, now: float) -> None:
        assert self._leg is not None  # noqa: S101 - the clock runs only while the leg is open
        due = self._frame_due()
        frame = SILENCE * FRAME_BYTES
        if self._mouth:
            frame = bytes(self._mouth[:FRAME_BYTES])
            del self._mouth[:FRAME_BYTES]
            self._spoken_bytes += len(frame)
            if is_loud(frame):
                self._voice_sent_at = now
        if self._recording is not None:
            self._recording.said(frame, due - FRAME_SECONDS)
        self._leg.send_audio(self.line.frame(frame))

    def _hear(self, frame: bytes, at: float) -> None:
        self.ear.hear(frame, at)
        if self._recording is not None:
            self._recording.heard(frame, at)

    def _send_control(self, messages: list[bytes]) -> None:
        if self._leg is not None:
            for message in messages:
                self._leg.send_text(message)

    def _settle(self) -> None:
        """Wake the waits that have come true, fail those that no longer can, and arm the timer of the next mark."""
        for condition, future in self._waits:
            if not future.done() and (self.end is not None or condition()):
                future.set_result(None)
        if self._echo_timer is not None:
            self._echo_timer.cancel()
            self._echo_timer = None
        due = self.line.playout.next_echo_at()
        if due is not None and self.end is None:
            self._echo_timer = asyncio.get_running_loop().call_at(due, self._echo_marks)

    def _echo_marks(self) -> None:
        self._echo_timer = None
        self._send_control(self.line.advance(self._now() + _EARLY))
        self._settle()

    async def _until(self, condition: Callable[[], bool], timeout: float, what: str, *, needs_line: bool = True) -> None:
        if condition():
            return
        if needs_line:
            self._require_up(f"waiting for {what}")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        wait = (condition, future)
        self._waits.append(wait)
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise PhoneCallError(f"no {what} within {timeout:g} s") from None
        finally:
            self._waits.remove(wait)
        if not condition():
            self._require_up(f"waiting for {what}")

    def _require_up(self, doing: str) -> None:
        if self._leg is None:
            raise PhoneCallError(f"the call is not answered yet ({doing})")
        if self.end is not None:
            raise PhoneCallError(f"the call ended while {doing}: {self.end.code} {self.end.text}".rstrip())

    def _stop_clock(self) -> None:
        for timer in (self._clock, self._echo_timer):
            if timer is not None:
                timer.cancel()
        self._clock = self._echo_timer = None

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
