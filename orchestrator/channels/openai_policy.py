"""What a caller at the front door may ask of the model, and what of the model's events it may see.

The agent's instructions and tools are the server's: a caller can neither read nor change them, and never sees a tool call.
What is refused is refused with the error object of the Realtime API, so that any client understands it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from orchestrator.errors import WireError
from orchestrator.wire import realtime_client as client
from orchestrator.wire import realtime_server as server
from orchestrator.wire import realtime_types as types

__all__ = [
    "PASSED_THROUGH",
    "check_item",
    "check_response",
    "check_session",
    "check_truncation",
    "is_hidden",
    "visible_session",
]

# The server's events that go to the caller byte for byte. The others are made anew, rewritten or kept back.
PASSED_THROUGH = frozenset(
    {
        server.ConversationItemDeleted,
        server.ConversationItemInputAudioTranscriptionCompleted,
        server.ConversationItemInputAudioTranscriptionDelta,
        server.ConversationItemInputAudioTranscriptionFailed,
        server.ConversationItemRetrieved,
        server.ConversationItemTruncated,
        server.InputAudioBufferCleared,
        server.InputAudioBufferSpeechStarted,
        server.InputAudioBufferSpeechStopped,
        server.InputAudioBufferTimeoutTriggered,
        server.RateLimitsUpdated,
        server.ResponseContentPartAdded,
        server.ResponseContentPartDone,
        server.ResponseOutputAudioDone,
        server.ResponseOutputAudioTranscriptDelta,
        server.ResponseOutputAudioTranscriptDone,
        server.ResponseOutputTextDelta,
        server.ResponseOutputTextDone,
    }
)

_SESSION_FIELDS = {"audio", "output_modalities", "include", "max_output_tokens"}
_MAY_BE_EMPTY = {"instructions", "tools"}
_RESPONSE_FIELDS = {"audio", "output_modalities", "max_output_tokens", "metadata", "conversation"}
MAX_PARTS = 64
_SERVER_SIDE = "the agent's settings stay on the server, so a caller cannot set '{}'"


def _refuse(param: str) -> WireError:
    return WireError("invalid_value", f"Invalid value: {_SERVER_SIDE.format(param)}.", param)


def _given(value: msgspec.Struct) -> set[str]:
    return {name for name in value.__struct_fields__ if getattr(value, name) is not UNSET}


def check_session(session: types.SessionConfig) -> types.SessionConfig:
    """Return what the caller may change of its session. Raises WireError when it touches what is the server's.

    The model's name, and empty instructions and tools, are dropped rather than refused: many clients always send them.
    """
    if not isinstance(session, types.RealtimeSessionConfig):
        raise _refuse("session.type")
    for name in sorted(_given(session) - _SESSION_FIELDS - {"model"}):
        if name not in _MAY_BE_EMPTY or getattr(session, name):
            raise _refuse(f"session.{name}")
    kept = {name: getattr(session, name) for name in _given(session) & _SESSION_FIELDS}
    return types.RealtimeSessionConfig(**kept)


def check_response(event: client.ResponseCreate) -> None:
    """Raise WireError when a response is asked for with other instructions, tools or input than the agent's."""
    body = event.response
    if not isinstance(body, types.ResponseCreateParams):
        return
    for name in sorted(_given(body) - _RESPONSE_FIELDS):
        raise _refuse(f"response.{name}")
    if body.conversation == "none":
        raise _refuse("response.conversation")


def check_item(event: client.ConversationItemCreate) -> None:
    """Raise WireError for an item that a caller may not put into the conversation: only its own messages are."""
    item = event.item
    if not isinstance(item, types.MessageItem):
        raise _refuse("item.type")
    if item.role != "user":
        raise _refuse("item.role")


def check_truncation(event: client.ConversationItemTruncate) -> None:
    """Raise WireError for a part that no message has: the history has a place for each part up to the one that is named."""
    if event.content_index >= MAX_PARTS:
        raise WireError("invalid_value", f"Invalid value: a message has fewer than {MAX_PARTS} parts.", "content_index")


def visible_session(session: types.SessionConfig, session_id: str) -> types.SessionConfig:
    """Return the session as its caller may see it: under our id, without instructions, prompt and tools."""
    if not isinstance(session, types.RealtimeSessionConfig):
        return msgspec.structs.replace(session, id=session_id)
    changes: dict[str, Any] = {"id": session_id, "instructions": "", "tools": [], "tool_choice": "auto"}
    if session.prompt is not UNSET:
        changes["prompt"] = None
    if session.tracing is not UNSET:
        changes["tracing"] = None
    return msgspec.structs.replace(session, **changes)


def is_hidden(item: types.ServerItem) -> bool:
    """Is this an item that the caller does not see? Tool calls, their outputs and system messages are."""
    return not isinstance(item, types.MessageItem) or item.role == "system"
