"""What a session asks of its model, whatever the model is. The names are the guide's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "RealtimeModelSendAudio",
    "RealtimeModelSendEvent",
    "RealtimeModelSendInterrupt",
    "RealtimeModelSendRawMessage",
    "RealtimeModelSendSessionUpdate",
    "RealtimeModelSendToolOutput",
    "RealtimeModelSendUserInput",
]


@dataclass(slots=True)
class RealtimeModelSendRawMessage:
    """A client event of the Realtime API: `{"type": ..., "other_data": {...}}`, or the event itself with its own keys."""

    message: dict[str, Any]


@dataclass(slots=True)
class RealtimeModelSendUserInput:
    """A message of the user, text or structured; a response is asked for."""

    user_input: str | dict[str, Any]


@dataclass(slots=True)
class RealtimeModelSendAudio:
    """Caller audio in the session's input format; `commit` ends the turn by hand."""

    audio: bytes
    commit: bool = False


@dataclass(slots=True)
class RealtimeModelSendToolOutput:
    """The output of a tool call; `start_response` asks for the response that uses it."""

    tool_call: Any
    output: str
    start_response: bool = True


@dataclass(slots=True)
class RealtimeModelSendInterrupt:
    """Stop playback and, where the model does not do it by itself, the response.

    `force_response_cancel` cancels it in any case; `playback_only` never does.
    """

    force_response_cancel: bool = False
    playback_only: bool = False


@dataclass(slots=True)
class RealtimeModelSendSessionUpdate:
    """New settings for the session."""

    session_settings: dict[str, Any]


RealtimeModelSendEvent: TypeAlias = (
    RealtimeModelSendRawMessage
    | RealtimeModelSendUserInput
    | RealtimeModelSendAudio
    | RealtimeModelSendToolOutput
    | RealtimeModelSendInterrupt
    | RealtimeModelSendSessionUpdate
)
