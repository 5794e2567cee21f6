"""One Media Streams connection as the carrier sees it: numbering, playout and a strict judge of what the service sends.

Pure: messages and times in, messages out. The JSON is written and checked here by hand and not with the product's own wire
types, so that a mistake in those types is found instead of shared. Like Twilio it ignores what it does not accept and
reports a warning: 31951 for a malformed message, 31950 for a binary one, 31931 for more than ten minutes of waiting audio.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from orchestrator.simulator.carrier.playout import BYTES_PER_MS, FRAME_BYTES, MarkEcho, Playout
from orchestrator.simulator.dtmf import are_keys

__all__ = ["CallIdentity", "CarrierLine", "Violation"]

_MALFORMED, _UNDECODABLE, _TOO_MUCH_AUDIO = 31951, 31950, 31931
# Enough to see what is wrong; a service that breaks the protocol with every frame must not fill the memory.
_VIOLATIONS_KEPT = 50
_ECHOES_KEPT = 1000


class CallIdentity(msgspec.Struct, frozen=True):
    """The three identifiers that the carrier gives a call and its stream."""

    account_sid: str
    call_sid: str
    stream_sid: str

    @classmethod
    def new(cls, account_sid: str | None = None) -> CallIdentity:
        """Make a fresh call, in a given account or in one made up."""
        return cls(account_sid or _sid("AC"), _sid("CA"), _sid("MZ"))


class Violation(msgspec.Struct, frozen=True):
    """Something that the service sent and the carrier ignored. `code` is Twilio's warning number, `at` a monotonic time."""

    code: int
    text: str
    at: float


class CarrierLine:
    """The carrier's side of one stream.

    `open`, `frame`, `digit` and `stop` make the messages that go to the service; `receive_text`, `receive_binary` and
    `advance` return the messages to send back (mark echoes). `on_frame` hears every 20 ms frame that leaves for the phone,
    `on_audio` every piece of audio as it arrives.
    """

    def __init__(
        self,
        identity: CallIdentity,
        parameters: Mapping[str, str] | None = None,
        on_frame: Callable[[bytes, float], None] | None = None,
        on_audio: Callable[[bytes], None] | None = None,
    ) -> None:
        self.identity = identity
        self.playout = Playout(on_frame)
        self.violations: list[Violation] = []
        self.violation_count = 0
        self.echoes: deque[MarkEcho] = deque(maxlen=_ECHOES_KEPT)
        self.media_received = 0
        self.first_media_at: float | None = None
        self.last_media_at: float | None = None
        self._on_audio = on_audio
        self._parameters = dict(parameters or {})
        self._sequence = 0
        self._chunk = 0
        self._before_media = f'"streamSid":"{identity.stream_sid}","media":{{"track":"inbound","chunk":"'.encode()

    @property
    def frames_sent(self) -> int:
        """Audio frames made so far."""
        return self._chunk

    def open(self) -> list[bytes]:
        """Make `connected` and `start`."""
        connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        start = {
            "event": "start",
            "sequenceNumber": self._next_number(),
            "start": {
                "accountSid": self.identity.account_sid,
                "streamSid": self.identity.stream_sid,
                "callSid": self.identity.call_sid,
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": self._parameters,
            },
            "streamSid": self.identity.stream_sid,
        }
        return [msgspec.json.encode(connected), msgspec.json.encode(start)]

    def frame(self, audio: bytes) -> bytes:
        """Make the next `media` message of 160 bytes of µ-law. Its timestamp counts audio, so it never drifts."""
        if len(audio) != FRAME_BYTES:
            raise ValueError(f"a frame has {FRAME_BYTES} bytes, not {len(audio)}")
        self._sequence += 1
        self._chunk += 1
        # Spliced, because a load test makes thousands of these a second.
        return b"".join(
            (
                b'{"event":"media","sequenceNumber":"%d",' % self._sequence,
                self._before_media,
                b'%d","timestamp":"%d","payload":"' % (self._chunk, (self._chunk - 1) * FRAME_BYTES // BYTES_PER_MS),
                binascii.b2a_base64(audio, newline=False),
                b'"}}',
            )
        )

    def digit(self, digit: str) -> bytes:
        """Make `dtmf` for one pressed key."""
        if len(digit) != 1 or not are_keys(digit):
            raise ValueError(f"{digit!r} is no key of a telephone")
        dtmf = {"track": "inbound_track", "digit": digit}
        return self._message("dtmf", dtmf=dtmf)

    def stop(self) -> bytes:
        """Make `stop`, the last message of a stream."""
        return self._message("stop", stop={"accountSid": self.identity.account_sid, "callSid": self.identity.call_sid})

    def advance(self, now: float) -> list[bytes]:
        """Play what is due by `now`."""
        return self._echo(self.playout.advance(now))

    def receive_binary(self, now: float) -> None:
        """Note a binary message; Twilio warns once per stream."""
        if not any(violation.code == _UNDECODABLE for violation in self.violations):
            self._warn(_UNDECODABLE, "a binary message; only text is understood", now)

    def receive_text(self, data: bytes, now: float) -> list[bytes]:
        """Judge a message and act on it."""
        try:
            return self._accept(msgspec.json.decode(data), now)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self._warn(_MALFORMED, "not JSON", now)
        except _Rejected as reason:
            self._warn(_MALFORMED, str(reason), now)
        return []

    def _accept(self, message: Any, now: float) -> list[bytes]:
        event = message.get("event") if isinstance(message, dict) else None
        if event == "media":
            payload = self._body(message, "media", "payload")
            try:
                audio = base64.b64decode(payload, validate=True)
            except (binascii.Error, ValueError):
                raise _Rejected("media.payload is not base64") from None
            if not audio:
                raise _Rejected("media.payload is empty")
            return self._take_audio(audio, now)
        if event == "mark":
            return self._echo(self.playout.receive_mark(self._body(message, "mark", "name"), now))
        if event == "clear":
            self._check_keys(message, {"event", "streamSid"})
            return self._echo(self.playout.clear(now))
        raise _Rejected("no event that a service may send")

    def _take_audio(self, audio: bytes, now: float) -> list[bytes]:
        self.media_received += 1
        if self._on_audio is not None:
            self._on_audio(audio)
        if self.first_media_at is None:
            self.first_media_at = now
        self.last_media_at = now
        before = self.playout.discarded_bytes
        echoes = self._echo(self.playout.receive_audio(audio, now))
        if self.playout.discarded_bytes > before:
            self._warn(_TOO_MUCH_AUDIO, "more than ten minutes of audio wait; the rest is discarded", now)
        return echoes

    def _body(self, message: dict[str, Any], name: str, field: str) -> str:
        self._check_keys(message, {"event", "streamSid", name})
        body = message[name]
        if not isinstance(body, dict) or body.keys() != {field}:
            raise _Rejected(f"{name} must have {field} and nothing else")
        value = body[field]
        if not isinstance(value, str) or not value:
            raise _Rejected(f"{name}.{field} must be a text")
        return value

    def _check_keys(self, message: dict[str, Any], keys: set[str]) -> None:
        if message.keys() != keys:
            raise _Rejected(f"the keys are {sorted(message)}, not {sorted(keys)}")
        if message["streamSid"] != self.identity.stream_sid:
            raise _Rejected("streamSid is not that of this stream")

    def _echo(self, echoes: list[MarkEcho]) -> list[bytes]:
        self.echoes += echoes
        return [self._message("mark", mark={"name": echo.name}) for echo in echoes]

    def _message(self, event: str, **body: dict[str, str]) -> bytes:
        number = self._next_number()
        return msgspec.json.encode({"event": event, "sequenceNumber": number, "streamSid": self.identity.stream_sid, **body})

    def _next_number(self) -> str:
        self._sequence += 1
        return str(self._sequence)

    def _warn(self, code: int, text: str, now: float) -> None:
        self.violation_count += 1
        if len(self.violations) < _VIOLATIONS_KEPT:
            self.violations.append(Violation(code, text, now))


class _Rejected(Exception):
    """A message that the carrier does not accept, and why."""


def _sid(prefix: str) -> str:
    return prefix + secrets.token_hex(16)
