"""What a program says to a model, as items and payloads of the wire."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from msgspec import UNSET

from orchestrator.errors import UserError
from orchestrator.wire import realtime_types as types

__all__ = ["audio_payload", "text_of", "user_message"]


def audio_payload(audio: bytes) -> str:
    """Return audio as the base64 text of the wire."""
    return base64.b64encode(audio).decode()


def user_message(user_input: str | Mapping[str, Any]) -> types.MessageItem:
    """Return the item of a user message, text or structured.

    Raises UserError for a part that is neither `input_text` with text nor `input_image` with an image: a part that vanished
    silently would leave the model with half a question.
    """
    if isinstance(user_input, str):
        return types.MessageItem(role="user", content=[types.InputTextPart(text=user_input)])
    content = user_input.get("content")
    if not isinstance(content, list | tuple) or not content:
        raise UserError('a structured message needs "content": a list of input_text and input_image parts')
    return types.MessageItem(role="user", content=[_part(part) for part in content])


def text_of(user_input: str | Mapping[str, Any]) -> str:
    """Return the words of a user message; what `user_message` would refuse has none."""
    if isinstance(user_input, str):
        return user_input
    content = user_input.get("content") if isinstance(user_input, Mapping) else None
    parts = [part for part in content or () if isinstance(part, Mapping) and part.get("type") == "input_text"]
    return " ".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _part(part: Any) -> types.ContentPart:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "input_text" and isinstance(part.get("text"), str):
        return types.InputTextPart(text=part["text"])
    if kind == "input_image" and isinstance(part.get("image_url"), str) and part["image_url"]:
        detail = part.get("detail")
        return types.InputImagePart(image_url=part["image_url"], detail=detail if detail in ("auto", "low", "high") else UNSET)
    raise UserError(f"a message part of type {kind!r} is malformed or not supported: use input_text or input_image")
