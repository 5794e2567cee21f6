"""Begins a model session with the items of an earlier conversation.

The API takes texts of all roles, images of the user, tool calls and their outputs; it takes no spoken words of the agent as
speech, so what was said is replayed as text, and of an interrupted message only what was heard. Our own history keeps the
items as they were, speech as speech.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestrator.core.call_items import output_item_id, short_id
from orchestrator.core.inputs import RealtimeModelSendRawMessage
from orchestrator.core.items import (
    AssistantAudio,
    AssistantMessageItem,
    AssistantText,
    InputAudio,
    InputImage,
    InputText,
    RealtimeItem,
    RealtimeMessageItem,
    RealtimeToolCallItem,
)
from orchestrator.errors import UserError

__all__ = ["UNKNOWN_OUTCOME", "Seed", "plan_seed"]

# What the model is told of a call that nobody answered: it may have run. Left out, it would be made once more.
UNKNOWN_OUTCOME = (
    "The conversation was interrupted before this was answered. Whether it took effect is unknown: do not say that it worked "
    "or failed, and do not call it again unless the user wants that."
)


@dataclass(frozen=True, slots=True)
class Seed:
    """What a new conversation begins with: the items of its history, and the messages that tell the model of them."""

    items: list[RealtimeItem]
    messages: list[RealtimeModelSendRawMessage]


def _no_audio(item_id: str) -> str | None:
    del item_id
    return None


def plan_seed(
    items: Iterable[RealtimeItem], *, pending: Container[str] = (), audio: Callable[[str], str | None] = _no_audio
) -> Seed:
    """Plan how to begin with these items, in order.

    What has no words and no image is left out, in the history too: the model could not know of it. Ids that the API would
    refuse are made short in both. A call without an output gets `UNKNOWN_OUTCOME` for one, unless its call id is in `pending`:
    then its output is still to come. `audio` returns what was said in an item whose words are not known, as base64 in the
    session's input format. Raises UserError for two items with one id.
    """
    kept: list[RealtimeItem] = []
    messages: list[RealtimeModelSendRawMessage] = []
    seen: set[str] = set()
    for item in items:
        renamed = _renamed(item, pending)
        bodies = _call_bodies(renamed) if isinstance(renamed, RealtimeToolCallItem) else _message_bodies(renamed, audio)
        if not bodies:
            continue
        if renamed.item_id in seen:
            raise UserError(f"two items of the history have the id {renamed.item_id}: an id names one item")
        seen.add(renamed.item_id)
        kept.append(msgspec.structs.replace(renamed, previous_item_id=kept[-1].item_id if kept else None))
        messages += [RealtimeModelSendRawMessage({"type": "conversation.item.create", "item": body}) for body in bodies]
    return Seed(kept, messages)


def _renamed(item: RealtimeItem, pending: Container[str]) -> RealtimeItem:
    """Return the item as it will be in the new conversation, where nothing is under way but what is pending."""
    item_id = short_id(item.item_id)
    if isinstance(item, RealtimeToolCallItem):
        if item.call_id is None:
            return msgspec.structs.replace(item, item_id=item_id)
        waits = item.output is None and item.call_id in pending
        output = item.output if item.output is not None or waits else UNKNOWN_OUTCOME
        status = item.status if waits else "completed"
        return msgspec.structs.replace(item, item_id=item_id, call_id=short_id(item.call_id), output=output, status=status)
    if isinstance(item, AssistantMessageItem) and item.status == "in_progress":
        return msgspec.structs.replace(item, item_id=item_id, status="incomplete")
    return msgspec.structs.replace(item, item_id=item_id)


def _call_bodies(item: RealtimeToolCallItem) -> list[dict[str, Any]]:
    if item.call_id is None:
        return []  # Nothing could answer it.
    call = {"id": item.item_id, "type": "function_call", "call_id": item.call_id}
    call |= {"name": item.name, "arguments": item.arguments}
    if item.output is None:
        return [call]
    answer = {"id": output_item_id(item.call_id), "type": "function_call_output", "call_id": item.call_id}
    return [call, answer | {"output": item.output}]


def _message_bodies(item: RealtimeMessageItem, audio: Callable[[str], str | None]) -> list[dict[str, Any]]:
    content = [part for part in map(_part, item.content) if part is not None]
    if any(isinstance(part, InputAudio) and part.transcript is None for part in item.content):
        spoken = audio(item.item_id)
        content += [] if spoken is None else [{"type": "input_audio", "audio": spoken}]
    return [{"id": item.item_id, "type": "message", "role": item.role, "content": content}] if content else []


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
