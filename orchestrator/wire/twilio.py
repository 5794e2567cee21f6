"""Twilio Media Streams: the messages of a phone call's audio, 8 kHz µ-law as base64.

The carrier's validator ignores a message of ours with a member too many or too few, so the outbound types have exactly the
documented ones. Inbound, unknown members are dropped; numbers, which come as text in most places, become integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias, get_args

import msgspec

from orchestrator.wire.payload import base64_length
from orchestrator.wire.unknown import UnknownEvent
from orchestrator.wire.validation import invalid_json, read_tag, wire_error

__all__ = [
    "INBOUND_EVENTS",
    "Connected",
    "Dtmf",
    "DtmfDetails",
    "Inbound",
    "Mark",
    "MarkDetails",
    "Media",
    "MediaDetails",
    "MediaFormat",
    "OutClear",
    "OutMark",
    "OutMedia",
    "OutMediaDetails",
    "Outbound",
    "Start",
    "StartDetails",
    "Stop",
    "StopDetails",
    "UnknownEvent",
    "base64_length",
    "decode_inbound",
    "encode",
    "media_frame",
]

# --- From the carrier -------------------------------------------------------------------------------------------------


class Connected(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="connected"):
    """The first message."""

    protocol: str = ""
    version: str = ""


class MediaFormat(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    encoding: str
    sample_rate: int
    channels: int


class StartDetails(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`custom_parameters` are the `<Parameter>` elements of our own TwiML, the only safe way to know which call this is."""

    stream_sid: str
    account_sid: str = ""
    call_sid: str
    tracks: tuple[str, ...] = ()
    media_format: MediaFormat
    custom_parameters: Mapping[str, str] = {}


class Start(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="start", rename="camel"):
    """The second message."""

    sequence_number: int = 0
    stream_sid: str
    start: StartDetails


# Without the collector's header: it holds only text and numbers, and 50 of these come per second and call.
class MediaDetails(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """`timestamp` is in ms since the start of the stream, `payload` usually 160 bytes, 20 ms."""

    track: str = "inbound"
    chunk: int = 0
    timestamp: int = 0
    payload: str


class Media(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="event", tag="media", rename="camel"):
    sequence_number: int = 0
    stream_sid: str
    media: MediaDetails


class DtmfDetails(msgspec.Struct, frozen=True, kw_only=True):
    track: str = "inbound_track"
    digit: str


class Dtmf(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="dtmf", rename="camel"):
    """The caller pressed a key."""

    sequence_number: int = 0
    stream_sid: str
    dtmf: DtmfDetails


class MarkDetails(msgspec.Struct, frozen=True, kw_only=True):
    name: str


class Mark(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="mark", rename="camel"):
    """Everything before the mark was played, or was cleared: the two look the same."""

    sequence_number: int = 0
    stream_sid: str
    mark: MarkDetails


class StopDetails(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    account_sid: str = ""
    call_sid: str = ""


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="stop", rename="camel"):
    """The last message: the call or its stream has ended."""

    sequence_number: int = 0
    stream_sid: str
    stop: StopDetails = StopDetails()


Inbound: TypeAlias = Connected | Start | Media | Dtmf | Mark | Stop
INBOUND_EVENTS: Mapping[str, type[Inbound]] = {cls.__struct_config__.tag: cls for cls in get_args(Inbound)}

# --- To the carrier ---------------------------------------------------------------------------------------------------


class OutMediaDetails(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    payload: str


class OutMedia(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="event", tag="media", rename="camel"):
    """Audio to play after all that was sent before; any length, also faster than real time."""

    stream_sid: str
    media: OutMediaDetails


class OutMark(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="mark", rename="camel"):
    """Asks for a `Mark` when everything before it was played."""

    stream_sid: str
    mark: MarkDetails


class OutClear(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag="clear", rename="camel"):
    """Drops what is not played yet. All pending marks come back at once."""

    stream_sid: str


Outbound: TypeAlias = OutMedia | OutMark | OutClear

# Not strict: that is what turns the carrier's "5" into 5.
_decode: Callable[[bytes], Inbound] = msgspec.json.Decoder(Inbound, strict=False).decode
_encode = msgspec.json.Encoder().encode


def decode_inbound(data: bytes) -> Inbound | UnknownEvent:
    """Read a message of the carrier. One whose `event` is new to us gives an `UnknownEvent`.

    Raises WireError (invalid_json, invalid_event, invalid_type, invalid_value, missing_required_parameter) for anything
    that is not JSON, not an object, or lacks what the event needs.
    """
    try:
        return _decode(data)
    except msgspec.ValidationError as error:
        name = read_tag(data, "event")
        if name not in INBOUND_EVENTS:
            return UnknownEvent(name, bytes(data))
        raise wire_error(error) from None
    except (ValueError, RecursionError) as error:
        raise invalid_json(error) from None


def encode(message: Outbound) -> bytes:
    """Write a message to the carrier as compact JSON."""
    return _encode(message)


def media_frame(stream_sid: str, payload: str) -> bytes:
    """Return the encoded `OutMedia` of a payload that is known to be base64.

    Cheaper than making and encoding the message. A payload that is not base64 gives broken JSON or raises ValueError. The
    stream's id comes from the carrier and is quoted properly, whatever it holds.
    """
    return b'{"event":"media","streamSid":%b,"media":{"payload":"%b"}}' % (_encode(stream_sid), payload.encode("ascii"))
