"""The items of a conversation as the program sees them. Field names follow the guide; items are frozen snapshots."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

__all__ = [
    "AssistantAudio",
    "AssistantMessageItem",
    "AssistantText",
    "InputAudio",
    "InputImage",
    "InputText",
    "RealtimeItem",
    "RealtimeMessageItem",
    "RealtimeResponse",
    "RealtimeToolCallItem",
    "SystemMessageItem",
    "UserMessageItem",
]

Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]


class InputText(msgspec.Struct, frozen=True):
    """Text from the user or the system."""

    text: str | None = None
    type: Literal["input_text"] = "input_text"


class InputAudio(msgspec.Struct, frozen=True):
    """What the user said. `transcript` is None until it is known; the audio itself is not kept."""

    audio: str | None = None
    transcript: str | None = None
    type: Literal["input_audio"] = "input_audio"


class InputImage(msgspec.Struct, frozen=True):
    """An image from the user, as a data URL."""

    image_url: str | None = None
    detail: str | None = None
    type: Literal["input_image"] = "input_image"


class AssistantText(msgspec.Struct, frozen=True):
    """Text from the agent."""

    text: str | None = None
    type: Literal["text"] = "text"


class AssistantAudio(msgspec.Struct, frozen=True):
    """What the agent said.

    `audio_ms` is how much audio the model made. After an interruption `heard_ms` is how much of it the caller heard, and
    `transcript` holds only the words up to there; None means that nothing was cut.
    """

    audio: str | None = None
    transcript: str | None = None
    audio_ms: float = 0.0
    heard_ms: float | None = None
    type: Literal["audio"] = "audio"


class SystemMessageItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the system."""

    item_id: str
    previous_item_id: str | None = None
    type: Literal["message"] = "message"
    role: Literal["system"] = "system"
    content: tuple[InputText, ...] = ()


class UserMessageItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the user."""

    item_id: str
    previous_item_id: str | None = None
    type: Literal["message"] = "message"
    role: Literal["user"] = "user"
    content: tuple[InputText | InputAudio | InputImage, ...] = ()


class AssistantMessageItem(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the agent. `guardrails` are those that it tripped; what the caller had heard of it by then stays."""

    item_id: str
    previous_item_id: str | None = None
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Status | None = None
    content: tuple[AssistantText | AssistantAudio, ...] = ()
    guardrails: tuple[str, ...] = ()


class RealtimeToolCallItem(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call and, once it is there, its output."""

    item_id: str
    previous_item_id: str | None = None
    call_id: str | None = None
    type: Literal["function_call"] = "function_call"
    status: Status = "in_progress"
    arguments: str = ""
    name: str = ""
    output: str | None = None


RealtimeMessageItem: TypeAlias = SystemMessageItem | UserMessageItem | AssistantMessageItem
RealtimeItem: TypeAlias = RealtimeMessageItem | RealtimeToolCallItem


class RealtimeResponse(msgspec.Struct, frozen=True, kw_only=True):
    """A response of the model and the messages that it consists of."""

    id: str
    output: tuple[RealtimeMessageItem, ...] = ()
