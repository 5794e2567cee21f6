"""The OpenAI Realtime protocol (GA): bytes to events and back. The protocol's types are imported from here too.

A server's event is read leniently, since servers grow: unknown members are dropped, an unknown kind of item, content part,
tool or setting becomes an `UnknownObject` in its place, and what still does not fit is returned whole as an `UnknownEvent`.
A client's event is read strictly, and refused with the code, message and path that the API itself would answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, get_args

import msgspec

from orchestrator.errors import WireError
from orchestrator.wire import realtime_client, realtime_server, realtime_types
from orchestrator.wire.payload import base64_length
from orchestrator.wire.realtime_client import *  # noqa: F403 - this module is the facade of the three
from orchestrator.wire.realtime_client import ClientEvent
from orchestrator.wire.realtime_rules import check_client_event, supported_values
from orchestrator.wire.realtime_server import *  # noqa: F403
from orchestrator.wire.realtime_server import ServerEvent
from orchestrator.wire.realtime_types import *  # noqa: F403
from orchestrator.wire.unknown import UNKNOWN_TAG, UnknownBody, UnknownEvent, UnknownObject
from orchestrator.wire.validation import invalid_json, read_tag, split_path, too_deep, wire_error

__all__ = [
    "CLIENT_EVENTS",
    "SERVER_EVENTS",
    "RealtimeEvent",
    "UnknownEvent",
    "UnknownObject",
    "append_frame",
    "base64_length",
    "decode_client_event",
    "decode_server_event",
    "encode",
    "event_type",
]
__all__ += realtime_client.__all__
__all__ += realtime_server.__all__
__all__ += realtime_types.__all__

RealtimeEvent: TypeAlias = ClientEvent | ServerEvent | UnknownEvent

# Each wire type and its class.
CLIENT_EVENTS: Mapping[str, type[ClientEvent]] = {cls.__struct_config__.tag: cls for cls in get_args(ClientEvent)}
SERVER_EVENTS: Mapping[str, type[ServerEvent]] = {cls.__struct_config__.tag: cls for cls in get_args(ServerEvent)}

_decode_client: Callable[[bytes], ClientEvent] = msgspec.json.Decoder(ClientEvent).decode
_decode_server: Callable[[bytes], ServerEvent] = msgspec.json.Decoder(ServerEvent).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

# The places of a server's event that may hold an UnknownObject. All of them are members of these four.
_PLACE = re.compile(
    r"\$\.(?:(?:item|response\.output\[\d+\])(?:\.content\[\d+\])?|part|usage"
    r"|session\.(?:tools\[\d+\]|tool_choice|truncation|audio\.input\.turn_detection))(?=[.\[]|$)"
)
_ROOTS = {"item", "part", "response", "session", "usage"}
_HOLDERS = frozenset(cls for cls in (*get_args(ClientEvent), *get_args(ServerEvent)) if _ROOTS & set(cls.__struct_fields__))
_MARK = f'{{"type":"{UNKNOWN_TAG}",'.encode()
_PATH_KEY = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
# Each repair converts the event anew, so a hostile one must not ask for many.
_MAX_REPAIRS = 64


def event_type(event: RealtimeEvent) -> str:
    """Return the wire type of an event, such as "response.done"."""
    if isinstance(event, UnknownEvent):
        return event.type
    return str(event.__struct_config__.tag)


def decode_server_event(data: bytes) -> ServerEvent | UnknownEvent:
    """Read an event of a server.

    Raises WireError only for what is no event at all: broken JSON (also JSON nested beyond the decoder's limit), something
    other than an object, no `type`.
    """
    try:
        return _decode_server(data)
    except msgspec.ValidationError:
        return _repair_server_event(data)
    except (ValueError, RecursionError) as error:
        raise invalid_json(error) from None


def decode_client_event(data: bytes, *, forbid_unknown: bool = False) -> ClientEvent | UnknownEvent:
    """Read an event of a client. A type that is not one of the 11 gives an `UnknownEvent`.

    Raises WireError with the API's code (invalid_json, invalid_event, invalid_type, invalid_value,
    missing_required_parameter, or one of those for ranges and lengths in `realtime_rules`) and the path of the member at
    fault. `forbid_unknown` adds unknown_parameter for a member that the API does not have, as the API does; it costs a second
    reading. Whether audio is base64, and everything that depends on the session, is for the receiver to judge.
    """
    try:
        event = _decode_client(data)
    except msgspec.ValidationError as error:
        name = read_tag(data, "type")
        if name not in CLIENT_EVENTS:
            return UnknownEvent(name, bytes(data))
        raise wire_error(error, supported_values) from None
    except (ValueError, RecursionError) as error:
        raise invalid_json(error) from None
    check_client_event(event)
    if forbid_unknown:
        _refuse_unknown(data, event)
    return event


def encode(event: RealtimeEvent) -> bytes:
    """Write an event as compact JSON: `type` first, then `event_id`; members that are UNSET are left out.

    Raises nothing for what a client sent or for text of any kind: half a surrogate pair, which UTF-8 cannot express, becomes
    U+FFFD. RecursionError if a free-form member made by a program or a server is nested beyond the interpreter's limit.
    """
    if isinstance(event, UnknownEvent):
        return event.raw
    try:
        data = _encode(event)
    except UnicodeEncodeError:
        return _encode(_plain(event))
    # Looking for the mark takes longer than encoding, hence only where it can be.
    if type(event) in _HOLDERS and _MARK in data:
        return _encode(_plain(event))
    return data


def append_frame(payload: str) -> bytes:
    """Return the encoded `input_audio_buffer.append` of a payload that is known to be base64.

    A third of the cost of making and encoding the event. A payload that is not base64 gives broken JSON or raises ValueError.
    """
    return b'{"type":"input_audio_buffer.append","audio":"%b"}' % payload.encode("ascii")


def _repair_server_event(data: bytes) -> ServerEvent | UnknownEvent:
    """Read an event whose type is new or whose members do not all fit, keeping as much of it as makes sense.

    Without this a `response.done` that lists one item of a new kind would be lost, and its response would never end.
    """
    name = read_tag(data, "type")
    if name not in SERVER_EVENTS:
        return UnknownEvent(name, bytes(data))
    detail = "too many members do not fit"
    try:
        body = _decode_any(data)
        if too_deep(body):
            return UnknownEvent(name, bytes(data), "nested too deep to be repaired")
        for _ in range(_MAX_REPAIRS):
            try:
                return msgspec.convert(body, SERVER_EVENTS[name])
            except msgspec.ValidationError as error:
                if not _set_aside(body, error):
                    detail = wire_error(error).message
                    break
    except msgspec.ValidationError as error:
        detail = wire_error(error).message
    except (ValueError, RecursionError) as error:
        raise invalid_json(error) from None
    return UnknownEvent(name, bytes(data), detail)


def _set_aside(body: Any, error: msgspec.ValidationError) -> bool:
    """Put the innermost object around the fault aside as an `UnknownObject`; False if it is in no place that may hold one."""
    place = _PLACE.match(split_path(error)[1] or "")
    if place is None:
        return False
    *parents, last = (int(index) if index else name for name, index in _PATH_KEY.findall(place[0]))
    holder = body
    for key in parents:
        holder = holder[key]
    found = holder[last]
    if not isinstance(found, dict) or _is_aside(found):
        return False
    parts = found.get("content")
    if isinstance(parts, list):
        # The item takes its parts with it as they came, also one that was set aside before.
        found["content"] = [part["body"] if _is_aside(part) else part for part in parts]
    holder[last] = {"type": UNKNOWN_TAG, "body": UnknownBody(found)}
    return True


def _is_aside(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("body"), UnknownBody)


def _refuse_unknown(data: bytes, event: ClientEvent) -> None:
    """Raise WireError for the first member of the message that the event does not have.

    Decoding drops unknown members and nothing else, so a member that the event's own form lacks is one.
    """
    try:
        message = _decode_any(data)
    except (ValueError, RecursionError) as error:
        # What is dropped is not looked into by the first reading, so its faults show only now.
        raise invalid_json(error) from None
    waiting: list[tuple[Any, Any, str]] = [(message, msgspec.to_builtins(event), "")]
    while waiting:
        sent, known, at = waiting.pop()
        if isinstance(sent, dict):
            for key, value in sent.items():
                param = f"{at}.{key}" if at else key
                if key not in known:
                    raise WireError("unknown_parameter", f"Unknown parameter: '{param[:200]}'.", param[:200])
                waiting.append((value, known[key], param))
        elif isinstance(sent, list):
            waiting.extend((value, known[index], f"{at}[{index}]") for index, value in enumerate(sent))


def _plain(value: Any) -> Any:
    """Turn an event into objects for the encoder, with each `UnknownObject` as it came and each text fit for UTF-8."""
    if isinstance(value, UnknownObject):
        return _plain(value.body)
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, msgspec.Struct):
        config = value.__struct_config__
        members = {} if config.tag_field is None else {config.tag_field: config.tag}
        for name, written in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            member = getattr(value, name)
            if member is not msgspec.UNSET:
                members[written] = _plain(member)
        return members
    if isinstance(value, Mapping):
        return {_plain(key): _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    return value
