"""The carrier's XML."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from twilio.twiml.voice_response import Connect, Parameter, Reject, Stream, VoiceResponse

from orchestrator.gateway import twiml

TOKEN = "v1.1.a<b>&\"c'"


def canonical(document: bytes | str) -> str:
    return ET.canonicalize(document.decode() if isinstance(document, bytes) else document)


def test_the_stream_is_what_the_carriers_own_library_would_write() -> None:
    response, connect = VoiceResponse(), Connect()
    stream = Stream(url="wss://voice.example.com/twilio/media")
    stream.append(Parameter(name="token", value=TOKEN))
    connect.append(stream)
    response.append(connect)
    ours = twiml.connect_stream("wss://voice.example.com/twilio/media", TOKEN)
    assert ours.startswith(b"<?xml")
    assert canonical(ours) == canonical(str(response))


def test_the_carrier_may_say_something_first() -> None:
    response = VoiceResponse()
    response.say("One moment <please> & hold.")
    connect = Connect()
    connect.stream(url="wss://voice.example.com/media").parameter(name="token", value=TOKEN)
    response.append(connect)
    ours = twiml.connect_stream("wss://voice.example.com/media", TOKEN, say="One moment <please> & hold.")
    assert canonical(ours) == canonical(str(response))


def test_a_full_gateway_is_a_busy_line() -> None:
    response = VoiceResponse()
    response.append(Reject(reason="busy"))
    assert canonical(twiml.reject_busy()) == canonical(str(response))
