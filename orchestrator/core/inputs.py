"""What a session asks of its model, whatever the model is. The names are the guide's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

__all__ = [
    "RealtimeModelInputImageContent",
    "RealtimeModelInputTextContent",
    "RealtimeModelRawClientMessage",
    "RealtimeModelSendAudio",
    "RealtimeModelSendEvent",
    "RealtimeModelSendInterrupt",
    "RealtimeModelSendRawMessage",
    "RealtimeModelSendSessionUpdate",
    "RealtimeModelSendToolOutput",
    "RealtimeModelSendUserInput",
    "RealtimeModelUserInputMessage",
]


class RealtimeModelRawClientMessage(TypedDict):
    """A raw client event: its type, and its other fields under `other_data`."""

    type: str
    other_data: NotRequired[dict[str, Any]]


class RealtimeModelInputTextContent(TypedDict):
    """Text in a structured user message."""

    type: Literal["input_text"]
    text: str


class RealtimeModelInputImageContent(TypedDict):
    """An image in a structured user message, as a data URL."""

    type: Literal["input_image"]
    image_url: str
    detail: NotRequired[Literal["auto", "low", "high"]]


class RealtimeModelUserInputMessage(TypedDict):
    """A structured user message."""

    type: Literal["message"]
    role: Literal["user"]
    content: list[RealtimeModelInputTextContent | RealtimeModelInputImageContent]


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
    """Stop playback and the response under way.

    With `response_id` only that response and its playback are touched. `cancel_response_only` leaves playback alone,
    `playback_only` the response. `force_response_cancel` is the guide's; here an interruption always cancels unless
    `playback_only` says otherwise. Raises ValueError for flags that contradict each other.
    """

    force_response_cancel: bool = False
    response_id: str | None = None
    cancel_response_only: bool = False
    playback_only: bool = False

    def __post_init__(self) -> None:
        if self.playback_only and (self.force_response_cancel or self.cancel_response_only):
            raise ValueError("playback_only contradicts a cancelled response")
        if self.cancel_response_only and self.response_id is None:
            raise ValueError("cancel_response_only needs a response_id")


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
