"""Phone calls over Twilio Media Streams.

The model speaks and hears µ-law as the carrier does, so audio passes through as the base64 text that it came as. Marks drive
the playback cursor; those that a `clear` throws back do not (`core.marks`).

Source: Twilio's documentation of Media Streams, "WebSocket messages".
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import Any

import msgspec

from orchestrator.channels.base import ChannelParts, FrameCounts, LegHolder, caller_gone
from orchestrator.core.marks import PlaybackMarks
from orchestrator.core.playback import Cut, PlaybackCursor, PlaybackState
from orchestrator.errors import EndReason, WireError
from orchestrator.realtime.events import RealtimeAudio, RealtimeAudioEnd, RealtimeAudioInterrupted, RealtimeSessionEvent
from orchestrator.realtime.openai_realtime import OpenAIRealtimeWebSocketModel
from orchestrator.stream_token import StreamTokens
from orchestrator.telemetry.logs import get_logger
from orchestrator.telemetry.names import WIRE_ERRORS_TOTAL, WIRE_UNKNOWN_EVENTS_TOTAL
from orchestrator.transports.base import Leg, LegOptions
from orchestrator.wire import twilio as wire

__all__ = ["TwilioChannel"]

# Caller audio kept while the model is being connected: 10 s of 20 ms frames, and bytes enough for four times that.
EARLY_FRAMES = 500
EARLY_BYTES = 512 * 1024
# Of what is sent, so much at most is unknown to an owner that comes after a crash.
REMEMBER_EVERY_MS = 200.0


class _Remembered(msgspec.Struct, array_like=True):
    """What another owner of the call must know of the stream: whose it is, and how far it was played."""

    stream_sid: str
    caller: dict[str, Any]
    marks: tuple[int, float]
    playback: PlaybackState
    sent_since_clear: bool


_encoder = msgspec.json.Encoder()


class TwilioChannel(LegHolder):
    """One phone call."""

    name = "twilio"
    subprotocol: str | None = None

    def __init__(self, parts: ChannelParts, tokens: StreamTokens) -> None:
        self._parts = parts
        self._tokens = tokens
        self._log = get_logger().bind(session_id=parts.session_id, channel=self.name)
        self.counts = FrameCounts()
        self._cursor = PlaybackCursor()
        self._model: OpenAIRealtimeWebSocketModel | None = None
        self._early: deque[str] = deque()
        self._early_bytes = 0
        # Unknown until the carrier's `start`.
        self._stream_sid: str | None = None
        self._marks = PlaybackMarks()
        self._sent_since_clear = False
        self._caller: dict[str, Any] = {}
        self._remembered_ms = 0.0
        # Is there something to clear that a former owner had sent?
        self._cut = False

    @property
    def playback(self) -> PlaybackCursor:
        """The cursor that the carrier's marks anchor."""
        return self._cursor

    @property
    def start_timeout(self) -> float:
        """The carrier sends `start` right after its handshake."""
        return self._parts.settings.twilio_start_timeout

    def leg_options(self) -> LegOptions:
        """The carrier's messages are small."""
        return LegOptions(max_message=self._parts.settings.twilio_max_message)

    def model_settings(self) -> dict[str, Any]:
        """µ-law on both sides; the model's own voice activity detection decides about turns and interruptions."""
        detection = {"type": "server_vad", "create_response": True, "interrupt_response": True}
        return {
            "audio": {
                "input": {"format": "g711_ulaw", "turn_detection": detection},
                "output": {"format": "g711_ulaw"},
            }
        }

    def restore(self, data: bytes) -> None:
        """Go on with the stream of another owner, from what that remembered last."""
        known = msgspec.json.decode(data, type=_Remembered)
        self._stream_sid, self._caller = known.stream_sid, known.caller
        self._marks.restore(known.marks)
        self._cursor.restore(known.playback)
        # It may have sent more since: then there is something to clear.
        self._sent_since_clear = True
        self._parts.control.caller_ready(self._caller)

    def state(self) -> bytes:
        """Whose stream it is, and how far it was played."""
        if self._stream_sid is None:
            return b""
        self._remembered_ms = self._cursor.sent_ms
        known = _Remembered(self._stream_sid, self._caller, self._marks.state(), self._cursor.state(), self._sent_since_clear)
        return _encoder.encode(known)

    def cut(self) -> list[Cut]:
        """Stop what is being played, and say how much of it was."""
        self._cut = True
        return self._cursor.interrupt(self._now())

    def on_open(self, leg: Leg) -> None:
        """Take the leg."""
        super().on_open(leg)
        if self._cut:
            self._cut = False
            self._clear()

    def expect(self, model: OpenAIRealtimeWebSocketModel) -> None:
        """All that the carrier sends that matters to a model is audio."""
        self.live(model)

    def live(self, model: OpenAIRealtimeWebSocketModel) -> None:
        """Send on what the caller said in the meantime, and everything from now on as it comes."""
        for payload in self._early:
            model.append_payload(payload)
        self._early.clear()
        self._model = model

    def on_text(self, data: bytes) -> None:
        """Take in a message of the carrier."""
        try:
            event = wire.decode_inbound(data)
        except WireError as error:
            self._violation(1007, error.wire_code, error.message)
            return
        if type(event) is wire.Media:
            self._on_media(event)
        elif isinstance(event, wire.UnknownEvent):
            self._parts.metrics.inc(WIRE_UNKNOWN_EVENTS_TOTAL, side="caller")
            self._log.info("unknown_carrier_event", event_type=event.type[:64])
        elif isinstance(event, wire.Start):
            self._on_start(event)
        elif isinstance(event, wire.Mark):
            self._on_mark(event)
        elif isinstance(event, wire.Dtmf):
            self._log.info("dtmf")
        elif isinstance(event, wire.Stop):
            self._parts.control.end(EndReason("caller_hung_up", "the carrier stopped the stream", by="caller"))

    def on_binary(self, data: bytes) -> None:
        """The carrier sends text only."""
        del data
        self._violation(1003, "binary_frame", "Media Streams messages are text")

    def on_closed(self, reason: EndReason) -> None:
        """The carrier's connection ended."""
        self._parts.control.end(caller_gone(reason))

    def on_session_event(self, event: RealtimeSessionEvent) -> None:
        """Play what the agent says; stop when it is interrupted."""
        if type(event) is RealtimeAudio:
            self._play(event.audio.payload)
        elif isinstance(event, RealtimeAudioInterrupted):
            self._clear()
        elif isinstance(event, RealtimeAudioEnd):
            self._send_mark(self._marks.at(self._cursor.sent_ms))

    def tell_failure(self, reason: EndReason) -> None:
        """The protocol has no words for it: the close of the stream lets the carrier's next instruction run."""

    def _on_media(self, event: wire.Media) -> None:
        if event.stream_sid != self._stream_sid:
            self._violation(1008, "wrong_stream", "media of another stream, or before its start")
            return
        self.counts.received += 1
        if self._model is not None:
            self._model.append_payload(event.media.payload)
        else:
            self._keep(event.media.payload)

    def _keep(self, payload: str) -> None:
        self._early.append(payload)
        self._early_bytes += len(payload)
        while len(self._early) > EARLY_FRAMES or self._early_bytes > EARLY_BYTES:
            self._early_bytes -= len(self._early.popleft())
            self.counts.early_dropped += 1

    def _on_start(self, event: wire.Start) -> None:
        if self._stream_sid is not None:
            self._violation(1008, "second_start", "the stream has started already")
            return
        form = event.start.media_format
        if (form.encoding, form.sample_rate, form.channels) != ("audio/x-mulaw", 8000, 1):
            self._violation(1003, "media_format", "only audio/x-mulaw at 8000 Hz with one channel is spoken here")
            return
        token = event.start.custom_parameters.get("token", "")
        if not self._tokens.redeem(token, event.start.call_sid, time.time()):
            self._violation(1008, "stream_token", "the stream was not announced by our answer to the call's webhook")
            return
        self._stream_sid = event.stream_sid
        self._log.info("stream_started", call_sid=event.start.call_sid, stream_sid=event.stream_sid)
        given = {key: value for key, value in event.start.custom_parameters.items() if key != "token"}
        self._caller = {**given, "call_sid": event.start.call_sid}
        self._parts.control.remember()
        self._parts.control.caller_ready(self._caller)

    def _on_mark(self, event: wire.Mark) -> None:
        position = self._marks.position(event.mark.name)
        if position is not None:
            self._cursor.reached(position, self._now())
            self._parts.control.remember()

    def _play(self, payload: str) -> None:
        if self.leg is None or self._stream_sid is None:
            return
        self.leg.send_audio(wire.media_frame(self._stream_sid, payload))
        self.counts.sent += 1
        self._sent_since_clear = True
        self._send_mark(self._marks.due(self._cursor.sent_ms))
        if self._cursor.sent_ms - self._remembered_ms >= REMEMBER_EVERY_MS:
            self._parts.control.remember()

    def _send_mark(self, name: str | None) -> None:
        """Ask to hear when everything sent so far has been played."""
        if name is not None and self.leg is not None and self._stream_sid is not None:
            self.leg.send_text(wire.encode(wire.OutMark(stream_sid=self._stream_sid, mark=wire.MarkDetails(name=name))))

    def _clear(self) -> None:
        if self.leg is None or self._stream_sid is None or not self._sent_since_clear:
            return
        # First void the marks that are out: the carrier will echo them as soon as it reads the clear.
        with self.as_one():
            self._marks.void(self._cursor.sent_ms)
            self._sent_since_clear = False
            self.leg.clear_audio()
            self.leg.send_text(wire.encode(wire.OutClear(stream_sid=self._stream_sid)))
            self._parts.control.remember()

    def _violation(self, close_code: int, code: str, text: str) -> None:
        """Refuse what is against the protocol: the stream is closed, the reason logged and counted."""
        self._parts.metrics.inc(WIRE_ERRORS_TOTAL, side="caller", code=code)
        self._log.warning("caller_protocol_error", code=code, text=text)
        if self.leg is not None:
            self.leg.close(close_code, text)
        self._parts.control.end(EndReason("caller_protocol_error", text, code, "caller"))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
