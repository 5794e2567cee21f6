"""The error events of the Realtime API that an endpoint answers with, in the wording of the API."""

from __future__ import annotations

import msgspec

from orchestrator.errors import WireError
from orchestrator.wire.realtime import ErrorDetails, ErrorEvent

__all__ = [
    "active_response",
    "append_too_long",
    "binary_message",
    "client_event_id",
    "error_event",
    "no_active_response",
    "no_responses",
    "session_expired",
    "unknown_type",
]

INVALID_REQUEST = "invalid_request_error"
CLIENT_TYPES = (
    "session.update",
    "session.close",
    "input_audio_buffer.append",
    "session.input_audio_buffer.append",
    "input_audio_buffer.commit",
    "input_audio_buffer.clear",
    "conversation.item.create",
    "conversation.item.truncate",
    "conversation.item.delete",
    "conversation.item.retrieve",
    "response.create",
    "response.cancel",
)
_SHOWN = 64


class _Head(msgspec.Struct):
    event_id: str | None = None


_decode_head = msgspec.json.Decoder(_Head).decode


def client_event_id(data: bytes) -> str | None:
    """The id that the client gave an event, if it can be made out at all."""
    try:
        return _decode_head(data).event_id
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def error_event(error: WireError, event_id: str | None) -> ErrorEvent:
    """The event for a fault of a client. `event_id` is that of the client's event."""
    details = ErrorDetails(
        type=INVALID_REQUEST, code=error.wire_code, message=error.message, param=error.param, event_id=event_id
    )
    return ErrorEvent(error=details)


def binary_message() -> WireError:
    """A binary frame came."""
    return WireError("invalid_event", "Expected a text WebSocket message; binary frames are not supported.")


def unknown_type(name: str) -> WireError:
    """An event of a type came that is not for a WebSocket client."""
    known = ", ".join(f"'{name}'" for name in CLIENT_TYPES[:-1])
    return WireError(
        "invalid_value", f"Invalid value: '{name[:_SHOWN]}'. Supported values are: {known}, and '{CLIENT_TYPES[-1]}'.", "type"
    )


def active_response(response_id: str) -> WireError:
    """A response was asked for while another one runs."""
    return WireError(
        "conversation_already_has_active_response",
        f"Conversation already has an active response in progress: {response_id}. Wait until the response is finished before "
        "creating a new one.",
    )


def no_active_response() -> WireError:
    """A cancel came and there is nothing to cancel."""
    return WireError("response_cancel_not_active", "Cancellation failed: no active response found")


def no_responses(event_type: str) -> WireError:
    """A response was meant in a session that has none."""
    return WireError("invalid_value", f"Invalid value: '{event_type}'. A transcription session has no responses.", "type")


def append_too_long(length: int, limit: int) -> WireError:
    """More audio came in one event than is taken."""
    return WireError(
        "string_above_max_length",
        f"Invalid 'audio': string too long. Expected a string with maximum length {limit}, but got a string with length "
        f"{length} instead.",
        "audio",
    )


def session_expired(seconds: float) -> WireError:
    """The session has reached its greatest age."""
    return WireError("session_expired", f"Your session hit the maximum duration of {round(seconds / 60)} minutes.")
