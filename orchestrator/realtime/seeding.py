"""Seeds a new model session with the items of an earlier conversation.

The API takes texts of all roles, images of the user, tool calls and their outputs; it takes no spoken words of the agent as
speech, so what was said is replayed as text, and of an interrupted message only what was heard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from orchestrator.core.inputs import RealtimeModelSendRawMessage
from orchestrator.core.items import (
    AssistantAudio,
    AssistantText,
    InputAudio,
    InputImage,
    InputText,
    RealtimeItem,
    RealtimeToolCallItem,
)

__all__ = ["seed_messages"]

# The API's own limit for ids that a client chooses.
MAX_ID = 32


def seed_messages(items: Iterable[RealtimeItem]) -> Iterator[RealtimeModelSendRawMessage]:
    """Yield the events that put these items into a new conversation, in order. What has no words and no image is left out."""
    for item in items:
        for body in _bodies(item):
            yield RealtimeModelSendRawMessage({"type": "conversation.item.create", "item": body})


def _bodies(item: RealtimeItem) -> list[dict[str, Any]]:
    identity = {"id": item.item_id} if len(item.item_id) <= MAX_ID else {}
    if isinstance(item, RealtimeToolCallItem):
        if item.call_id is None or item.output is None:
            return []  # A call without its output would leave the model waiting for ever.
        call = {"type": "function_call", "call_id": item.call_id, "name": item.name, "arguments": item.arguments}
        return [identity | call, {"type": "function_call_output", "call_id": item.call_id, "output": item.output}]
    content = [part for part in map(_part, item.content) if part is not None]
    return [identity | {"type": "message", "role": item.role, "content": content}] if content else []


def _part(part: Any) -> dict[str, Any] | None:
    match part:
        case InputText(text=text) if text:
            return {"type": "input_text", "text": text}
        case InputAudio(transcript=text) if text:
            return {"type": "input_text", "text": text}
        case InputImage(image_url=url, detail=detail) if url:
            return {"type": "input_image", "image_url": url} | ({"detail": detail} if detail else {})
        case AssistantText(text=text) if text:
            return {"type": "output_text", "text": text}
        case AssistantAudio(transcript=text) if text:
            return {"type": "output_text", "text": text}
        case _:
            return None
