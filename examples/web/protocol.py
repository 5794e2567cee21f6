"""What the page and the server say to each other over the WebSocket, as types and as JSON.

From the page come the messages below, as JSON text; a binary frame is audio (16-bit PCM, little-endian, 24 kHz, mono). To the
page goes every event of the session, and `client_info`, which confirms what the page has sent. README.md has the tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from orchestrator.core.items import RealtimeItem
from orchestrator.errors import CallerFault, OrchestratorError
from orchestrator.realtime import RealtimeSessionEvent
from orchestrator.realtime import events as session_events
from orchestrator.tool_runner import tool_output_text

__all__ = [
    "MAX_MESSAGE",
    "Audio",
    "BadMessage",
    "ClientMessage",
    "CommitAudio",
    "Image",
    "ImageChunk",
    "ImageEnd",
    "ImageStart",
    "Interrupt",
    "Message",
    "Playback",
    "ToolApprovalDecision",
    "TurnDetection",
    "audio_of",
    "client_info",
    "decode",
    "encode",
    "error_message",
    "event_message",
]

MAX_MESSAGE = 16 * 1024 * 1024
MAX_TEXT = 8_000
SAMPLE_RATE = 24_000
# One message of audio is a piece of a stream, not a recording.
MAX_SECONDS = 10
BYTES_PER_SAMPLE = 2

Sample: TypeAlias = Annotated[int, Meta(ge=-32768, le=32767)]
Identifier: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]


class BadMessage(CallerFault):
    """What the page sent cannot be done. `about` is the type of its message, where that can be told."""

    code = "invalid_message"

    def __init__(self, message: str, about: str | None = None) -> None:
        super().__init__(message)
        self.about = about


class _FromPage(msgspec.Struct, frozen=True, tag_field="type", forbid_unknown_fields=True):
    """A member that we do not know is a mistake of the page: ignored, it would go unnoticed."""


class Audio(_FromPage, frozen=True, tag="audio"):
    """What the microphone hears: samples of 16 bits at 24 kHz."""

    data: Annotated[list[Sample], Meta(min_length=1, max_length=MAX_SECONDS * SAMPLE_RATE)]


class CommitAudio(_FromPage, frozen=True, tag="commit_audio"):
    """The user's turn ends here; `respond` also asks for the answer, which turn detection would otherwise do."""

    respond: bool = False


class TurnDetection(_FromPage, frozen=True, tag="turn_detection"):
    """Who says when the user's turn ends: the model, by listening, or the page, by `commit_audio`."""

    mode: Literal["server", "manual"]


class Interrupt(_FromPage, frozen=True, tag="interrupt"):
    """Stop the agent."""


class Message(_FromPage, frozen=True, tag="message"):
    """What the user types."""

    text: Text


class Image(_FromPage, frozen=True, tag="image"):
    """A picture, whole."""

    data_url: str
    text: Text | None = None


class ImageStart(_FromPage, frozen=True, tag="image_start"):
    """A picture begins, to come in chunks of its data URL."""

    id: Identifier
    text: Text | None = None


class ImageChunk(_FromPage, frozen=True, tag="image_chunk"):
    """The next piece of a picture's data URL."""

    id: Identifier
    chunk: str


class ImageEnd(_FromPage, frozen=True, tag="image_end"):
    """The picture is complete."""

    id: Identifier


class ToolApprovalDecision(_FromPage, frozen=True, tag="tool_approval_decision"):
    """What the user decided about a tool call that waits; `always` for all further calls of the tool too."""

    call_id: Identifier
    approve: bool
    always: bool = False


class Playback(_FromPage, frozen=True, tag="playback"):
    """The page has played an item's audio up to here, in milliseconds from its beginning."""

    item_id: Identifier
    content_index: Annotated[int, Meta(ge=0, le=1000)]
    ms: Annotated[float, Meta(ge=0, le=86_400_000)]


ClientMessage: TypeAlias = (
    Audio
    | CommitAudio
    | Image
    | ImageChunk
    | ImageEnd
    | ImageStart
    | Interrupt
    | Message
    | Playback
    | ToolApprovalDecision
    | TurnDetection
)

_decode: Callable[[str], ClientMessage] = msgspec.json.Decoder(ClientMessage).decode
_encode = msgspec.json.Encoder().encode


class _Tag(msgspec.Struct):
    type: str | None = None


_decode_tag = msgspec.json.Decoder(_Tag).decode


def decode(text: str) -> ClientMessage:
    """Read a message of the page. Raises BadMessage, which says what is wrong with it and where."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
        raise BadMessage(f"this message is not understood: {error}", _type_of(text)) from None


def audio_of(data: bytes) -> bytes:
    """Check a binary frame, and return it. Raises BadMessage."""
    if not data or len(data) % BYTES_PER_SAMPLE or len(data) > MAX_SECONDS * SAMPLE_RATE * BYTES_PER_SAMPLE:
        raise BadMessage(f"a binary frame is whole 16-bit samples at 24 kHz, at most {MAX_SECONDS} seconds of them", "audio")
    return data


def encode(message: dict[str, Any]) -> str:
    """Write a message for the page."""
    return _encode(message).decode()


def client_info(info: str, **more: Any) -> dict[str, Any]:
    """Return the message that confirms something to the page."""
    return {"type": "client_info", "info": info, **more}


def error_message(error: Any) -> dict[str, Any]:
    """Return an error as a message: of ours, of the model, or of the program, whose own words are not for the page."""
    match error:
        case BadMessage():
            return {"type": "error", "error": error.message, "code": error.code, "about": error.about}
        case OrchestratorError():
            return {"type": "error", "error": error.message, "code": error.code}
        case Exception():
            return {"type": "error", "error": f"The program failed ({type(error).__name__}).", "code": "program_failed"}
        case dict():
            return {"type": "error", "error": str(error.get("message", "unknown")), "code": error.get("code")}
        case _:
            text = getattr(error, "message", None) or "The model reported a failure."
            return {"type": "error", "error": str(text), "code": getattr(error, "code", None)}


def event_message(event: RealtimeSessionEvent) -> dict[str, Any]:
    """Return an event of the session as a message."""
    return {"type": event.type, **_body(event)}


def _body(event: RealtimeSessionEvent) -> dict[str, Any]:
    match event:
        case session_events.RealtimeAgentStartEvent() | session_events.RealtimeAgentEndEvent():
            return {"agent": event.agent.name}
        case session_events.RealtimeHandoffEvent():
            return {"from": event.from_agent.name, "to": event.to_agent.name}
        case session_events.RealtimeHistoryAdded():
            return {"item": _item(event.item)}
        case session_events.RealtimeHistoryUpdated():
            return {"history": [_item(item) for item in event.history]}
        case session_events.RealtimeGuardrailTripped():
            return {"guardrail_results": [{"name": result.guardrail.get_name()} for result in event.guardrail_results]}
        case session_events.RealtimeRawModelEvent():
            return {"raw_model_event": {"type": event.data.type}}
        case session_events.RealtimeError():
            return error_message(event.error)
        case session_events.RealtimeInputAudioTimeoutTriggered():
            return {}
        case session_events.RealtimeToolStart() | session_events.RealtimeToolEnd():
            return _tool_body(event)
        case session_events.RealtimeToolApprovalRequired():
            names = {"tool": event.tool.name, "agent": event.agent.name}
            return {**names, "call_id": event.call_id, "arguments": event.arguments}
        case _:
            return _speech_body(event)


def _tool_body(event: session_events.RealtimeToolStart | session_events.RealtimeToolEnd) -> dict[str, Any]:
    names = {"tool": event.tool.name, "agent": event.agent.name}
    body: dict[str, Any] = {**names, "call_id": event.call_id, "arguments": event.arguments}
    if isinstance(event, session_events.RealtimeToolEnd):
        body |= {"output": tool_output_text(event.output), "ok": event.ok, "error_code": event.error_code}
    return body


def _speech_body(
    event: session_events.RealtimeAudio
    | session_events.RealtimeAudioEnd
    | session_events.RealtimeAudioInterrupted
    | session_events.RealtimeTranscriptDelta,
) -> dict[str, Any]:
    body: dict[str, Any] = {"item_id": event.item_id, "content_index": event.content_index}
    if isinstance(event, session_events.RealtimeAudio):
        body["audio"] = event.audio.payload
    elif isinstance(event, session_events.RealtimeTranscriptDelta):
        body["delta"] = event.delta
    elif isinstance(event, session_events.RealtimeAudioInterrupted):
        cut = event.cut
        body |= {"heard_ms": None, "sent_ms": None} if cut is None else {"heard_ms": cut.heard_ms, "sent_ms": cut.sent_ms}
    return body


def _item(item: RealtimeItem) -> dict[str, Any]:
    """Return an item without audio and pictures: the page has played and sent them itself, and a history comes often."""
    body: dict[str, Any] = msgspec.to_builtins(item)
    for part in body.get("content", ()):
        part.pop("audio", None)
        if part["type"] == "input_image":
            part["image_url"] = None
    return body


def _type_of(text: str) -> str | None:
    try:
        return _decode_tag(text).type
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
