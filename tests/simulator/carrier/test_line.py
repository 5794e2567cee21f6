"""What the offline carrier sends, and how strictly it judges what it receives."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.carrier.line import CallIdentity, CarrierLine

IDENTITY = CallIdentity("AC1", "CA1", "MZ1")


def make_line() -> CarrierLine:
    return CarrierLine(IDENTITY, {"token": "secret"})


def sent(message: Any) -> bytes:
    return json.dumps(message).encode()


def media(payload: str, sid: str = "MZ1") -> bytes:
    return sent({"event": "media", "streamSid": sid, "media": {"payload": payload}})


def mark(name: str) -> bytes:
    return sent({"event": "mark", "streamSid": "MZ1", "mark": {"name": name}})


CLEAR = sent({"event": "clear", "streamSid": "MZ1"})
AUDIO = base64.b64encode(b"\x10" * 320).decode()


def test_opens_as_twilio_does() -> None:
    connected, start = [json.loads(message) for message in make_line().open()]
    assert connected == {"event": "connected", "protocol": "Call", "version": "1.0.0"}
    assert start == {
        "event": "start",
        "sequenceNumber": "1",
        "start": {
            "accountSid": "AC1",
            "streamSid": "MZ1",
            "callSid": "CA1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"token": "secret"},
        },
        "streamSid": "MZ1",
    }


def test_numbers_every_message_and_stamps_frames_by_their_audio() -> None:
    line = make_line()
    line.open()
    first, second = json.loads(line.frame(b"\xff" * 160)), json.loads(line.frame(bytes(range(160))))
    assert first["sequenceNumber"] == "2"
    assert first["media"]["timestamp"] == "0"
    assert second == {
        "event": "media",
        "sequenceNumber": "3",
        "streamSid": "MZ1",
        "media": {
            "track": "inbound",
            "chunk": "2",
            "timestamp": "20",
            "payload": base64.b64encode(bytes(range(160))).decode(),
        },
    }
    digit = json.loads(line.digit("5"))
    assert digit == {
        "event": "dtmf",
        "sequenceNumber": "4",
        "streamSid": "MZ1",
        "dtmf": {"track": "inbound_track", "digit": "5"},
    }
    stop = json.loads(line.stop())
    assert stop == {
        "event": "stop",
        "sequenceNumber": "5",
        "streamSid": "MZ1",
        "stop": {"accountSid": "AC1", "callSid": "CA1"},
    }


def test_refuses_to_send_what_no_carrier_sends() -> None:
    line = make_line()
    with pytest.raises(ValueError, match="160 bytes"):
        line.frame(b"short")
    with pytest.raises(ValueError, match="no key"):
        line.digit("X")


def test_two_calls_never_share_an_identifier() -> None:
    one, other = CallIdentity.new(), CallIdentity.new()
    assert one.call_sid != other.call_sid
    assert one.stream_sid != other.stream_sid
    assert one.stream_sid.startswith("MZ")
    assert len(one.stream_sid) == 34
    assert CallIdentity.new("AC9").account_sid == "AC9"


def test_plays_audio_and_echoes_marks() -> None:
    line = make_line()
    assert line.receive_text(media(AUDIO), 1.0) == []
    assert line.receive_text(mark("a"), 1.0) == []
    (echo,) = [json.loads(message) for message in line.advance(1.04)]
    assert echo == {"event": "mark", "sequenceNumber": "1", "streamSid": "MZ1", "mark": {"name": "a"}}
    assert line.playout.heard_ms == 40
    assert line.first_media_at == line.last_media_at == 1.0
    assert line.media_received == 1
    assert not line.violations


def test_clear_empties_the_buffer_and_echoes_at_once() -> None:
    line = make_line()
    line.receive_text(media(AUDIO), 1.0)
    line.receive_text(mark("a"), 1.0)
    line.receive_text(mark("b"), 1.0)
    names = [json.loads(message)["mark"]["name"] for message in line.receive_text(CLEAR, 1.01)]
    assert names == ["a", "b"]
    assert line.playout.waiting_ms == 0
    assert [echo.cleared for echo in line.echoes] == [True, True]


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "no event"),
        (b"3", "no event"),
        (sent({"event": "hello"}), "no event"),
        (sent({"event": ["media"]}), "no event"),
        (media(AUDIO, sid="MZ2"), "streamSid"),
        (sent({"event": "media", "media": {"payload": AUDIO}}), "keys"),
        (sent({"event": "media", "streamSid": "MZ1", "sequenceNumber": "1", "media": {"payload": AUDIO}}), "keys"),
        (sent({"event": "media", "streamSid": "MZ1", "media": {"payload": AUDIO, "track": "outbound"}}), "nothing else"),
        (sent({"event": "media", "streamSid": "MZ1", "media": {}}), "nothing else"),
        (sent({"event": "media", "streamSid": "MZ1", "media": AUDIO}), "nothing else"),
        (media("not base64!"), "not base64"),
        (media("ü"), "not base64"),
        (media(""), "must be a text"),
        (sent({"event": "media", "streamSid": "MZ1", "media": {"payload": 5}}), "must be a text"),
        (sent({"event": "mark", "streamSid": "MZ1", "mark": {"name": ""}}), "must be a text"),
        (sent({"event": "mark", "streamSid": "MZ1"}), "keys"),
        (sent({"event": "clear", "streamSid": "MZ1", "clear": {}}), "keys"),
    ],
)
def test_ignores_a_malformed_message_with_warning_31951(message: bytes, complaint: str) -> None:
    line = make_line()
    assert line.receive_text(message, 7.0) == []
    (violation,) = line.violations
    assert (violation.code, violation.at) == (31951, 7.0)
    assert complaint in violation.text
    assert line.playout.received_bytes == 0
    assert line.playout.clearings == []


def test_warns_of_binary_messages_once() -> None:
    line = make_line()
    line.receive_binary(1.0)
    line.receive_binary(2.0)
    assert [violation.code for violation in line.violations] == [31950]


def test_warns_when_more_than_ten_minutes_wait() -> None:
    line = make_line()
    line.receive_text(media(base64.b64encode(b"\xff" * 4_801_000).decode()), 1.0)
    assert [violation.code for violation in line.violations] == [31931]


def test_keeps_only_the_first_violations_but_counts_all() -> None:
    line = make_line()
    for _ in range(1000):
        line.receive_text(b"", 1.0)
    assert line.violation_count == 1000
    assert len(line.violations) == 50


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), lambda inner: st.dictionaries(st.text(), inner)).map(sent))
def test_no_message_breaks_the_judge(message: bytes) -> None:
    line = make_line()
    line.receive_text(message, 1.0)
    assert line.violation_count == 1
