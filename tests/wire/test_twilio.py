"""Twilio Media Streams: the messages of the documentation, and what breaks them."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import WireError
from orchestrator.wire import twilio

SID = "MZ18ad3ab5a668481ce02b83e7395059f0"
PAYLOAD = base64.b64encode(b"\xff" * 160).decode()
START: dict[str, Any] = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "AC1",
        "streamSid": SID,
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"tok": "t0k3n"},
    },
    "streamSid": SID,
}
MEDIA: dict[str, Any] = {
    "event": "media",
    "sequenceNumber": "3",
    "media": {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": PAYLOAD},
    "streamSid": SID,
}


def decode(message: Any) -> Any:
    return twilio.decode_inbound(json.dumps(message).encode())


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            {"event": "connected", "protocol": "Call", "version": "1.0.0"},
            twilio.Connected(protocol="Call", version="1.0.0"),
        ),
        (
            START,
            twilio.Start(
                sequence_number=1,
                stream_sid=SID,
                start=twilio.StartDetails(
                    stream_sid=SID,
                    account_sid="AC1",
                    call_sid="CA1",
                    tracks=("inbound",),
                    media_format=twilio.MediaFormat(encoding="audio/x-mulaw", sample_rate=8000, channels=1),
                    custom_parameters={"tok": "t0k3n"},
                ),
            ),
        ),
        (
            MEDIA,
            twilio.Media(
                sequence_number=3,
                stream_sid=SID,
                media=twilio.MediaDetails(track="inbound", chunk=1, timestamp=5, payload=PAYLOAD),
            ),
        ),
        (
            {"event": "dtmf", "streamSid": SID, "sequenceNumber": "5", "dtmf": {"track": "inbound_track", "digit": "5"}},
            twilio.Dtmf(sequence_number=5, stream_sid=SID, dtmf=twilio.DtmfDetails(track="inbound_track", digit="5")),
        ),
        (
            {"event": "mark", "sequenceNumber": "4", "streamSid": SID, "mark": {"name": "m1"}},
            twilio.Mark(sequence_number=4, stream_sid=SID, mark=twilio.MarkDetails(name="m1")),
        ),
        (
            {"event": "stop", "sequenceNumber": "5", "streamSid": SID, "stop": {"accountSid": "AC1", "callSid": "CA1"}},
            twilio.Stop(sequence_number=5, stream_sid=SID, stop=twilio.StopDetails(account_sid="AC1", call_sid="CA1")),
        ),
    ],
    ids=lambda value: value["event"] if isinstance(value, dict) else "",
)
def test_each_inbound_message_decodes(message: dict[str, Any], expected: Any) -> None:
    assert decode(message) == expected
    assert message["event"] in twilio.INBOUND_EVENTS


def test_numbers_may_also_come_as_numbers() -> None:
    message = {**MEDIA, "sequenceNumber": 3, "media": {**MEDIA["media"], "chunk": 1, "timestamp": 5}}
    assert decode(message) == decode(MEDIA)


def test_unknown_members_are_dropped_and_an_unknown_event_is_kept_raw() -> None:
    assert decode({**MEDIA, "new": {"a": [1]}}) == decode(MEDIA)
    raw = b'{"event":"recording","x":1}'
    assert twilio.decode_inbound(raw) == twilio.UnknownEvent("recording", raw)


@pytest.mark.parametrize(
    ("data", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b'{"event":"media"', "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b'{"event":"media","x":' + b"[" * 100_000, "invalid_json", None),
        (b"[]", "invalid_event", None),
        (b"{}", "missing_required_parameter", "event"),
        (b'{"event":5}', "invalid_type", "event"),
        (b'{"event":"media","streamSid":"MZ1"}', "missing_required_parameter", "media"),
        (b'{"event":"media","streamSid":"MZ1","media":{}}', "missing_required_parameter", "media.payload"),
        (b'{"event":"media","streamSid":"MZ1","media":{"payload":"","timestamp":"x"}}', "invalid_type", "media.timestamp"),
        (b'{"event":"start","streamSid":"MZ1","start":{"streamSid":"MZ1"}}', "missing_required_parameter", "start.callSid"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_malformed_message_is_refused(data: bytes, code: str, param: str | None) -> None:
    with pytest.raises(WireError) as caught:
        twilio.decode_inbound(data)
    assert (caught.value.wire_code, caught.value.param) == (code, param)


def test_an_outbound_message_has_exactly_the_documented_members() -> None:
    media = twilio.OutMedia(stream_sid=SID, media=twilio.OutMediaDetails(payload=PAYLOAD))
    assert json.loads(twilio.encode(media)) == {"event": "media", "streamSid": SID, "media": {"payload": PAYLOAD}}
    mark = twilio.OutMark(stream_sid=SID, mark=twilio.MarkDetails(name="m1"))
    assert json.loads(twilio.encode(mark)) == {"event": "mark", "streamSid": SID, "mark": {"name": "m1"}}
    assert json.loads(twilio.encode(twilio.OutClear(stream_sid=SID))) == {"event": "clear", "streamSid": SID}


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary(max_size=400))
def test_a_media_frame_equals_the_encoded_message(sid: str, audio: bytes) -> None:
    payload = base64.b64encode(audio).decode()
    message = twilio.OutMedia(stream_sid=sid, media=twilio.OutMediaDetails(payload=payload))
    assert twilio.media_frame(sid, payload) == twilio.encode(message)
