"""From an item on the wire to an item of the history."""

from __future__ import annotations

from typing import Any, cast

from orchestrator.core.items import (
    AssistantAudio,
    AssistantMessageItem,
    AssistantText,
    InputAudio,
    InputImage,
    InputText,
    RealtimeItem,
    RealtimeToolCallItem,
    Status,
    SystemMessageItem,
    UserMessageItem,
)
from orchestrator.wire import realtime_types as types

__all__ = ["item_from_wire"]

_STATUSES = {"in_progress", "completed", "incomplete"}


def item_from_wire(item: types.ServerItem, previous_item_id: str | None) -> RealtimeItem | None:
    """Return the history's form of an item, or None for a kind that the history does not show.

    Audio bytes are left out: a history that holds hours of audio is of no use to anybody.
    """
    item_id = item.id if isinstance(item.id, str) else None
    if not item_id:
        return None
    if isinstance(item, types.FunctionCallItem):
        return RealtimeToolCallItem(
            item_id=item_id,
            previous_item_id=previous_item_id,
            call_id=_text(item.call_id),
            status=_status(item.status) or "in_progress",
            arguments=item.arguments,
            name=item.name,
        )
    if not isinstance(item, types.MessageItem):
        return None
    if item.role == "assistant":
        parts = tuple(part for part in map(_assistant_part, item.content) if part is not None)
        return AssistantMessageItem(
            item_id=item_id, previous_item_id=previous_item_id, status=_status(item.status), content=parts
        )
    content = tuple(part for part in map(_input_part, item.content) if part is not None)
    if item.role == "user":
        return UserMessageItem(item_id=item_id, previous_item_id=previous_item_id, content=content)
    texts = tuple(part for part in content if isinstance(part, InputText))
    return SystemMessageItem(item_id=item_id, previous_item_id=previous_item_id, content=texts)


def _assistant_part(part: types.ContentPart) -> AssistantText | AssistantAudio | None:
    if isinstance(part, types.OutputTextPart | types.TextPart):
        return AssistantText(text=_text(part.text))
    if isinstance(part, types.OutputAudioPart | types.AudioPart):
        return AssistantAudio(transcript=_text(part.transcript))
    return None


def _input_part(part: types.ContentPart) -> InputText | InputAudio | InputImage | None:
    if isinstance(part, types.InputTextPart):
        return InputText(text=part.text)
    if isinstance(part, types.InputAudioPart):
        return InputAudio(transcript=_text(part.transcript))
    if isinstance(part, types.InputImagePart):
        return InputImage(image_url=_text(part.image_url), detail=_text(part.detail))
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _status(value: Any) -> Status | None:
    return cast(Status, value) if value in _STATUSES else None
