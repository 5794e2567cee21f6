"""History items in the journal's JSON, and back.

The history's structs tell their kinds apart by plain members (`type`, `role`), as the guide wants; a decoder has to be told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from orchestrator.core.items import (
    AssistantAudio,
    AssistantMessageItem,
    AssistantText,
    InputAudio,
    InputImage,
    InputText,
    RealtimeItem,
    RealtimeToolCallItem,
    SystemMessageItem,
    UserMessageItem,
)
from orchestrator.journal.entries import legible

__all__ = ["history_digest", "item_of", "record_of"]

_PARTS: dict[str, type] = {
    "input_text": InputText,
    "input_audio": InputAudio,
    "input_image": InputImage,
    "text": AssistantText,
    "audio": AssistantAudio,
}
_MESSAGES: dict[str, type[Any]] = {"system": SystemMessageItem, "user": UserMessageItem, "assistant": AssistantMessageItem}


def record_of(item: RealtimeItem) -> dict[str, Any]:
    """Return an item's members as the journal keeps them: without those that have nothing in them."""
    # Through JSON's own types, so that a record is the same before and after it was written.
    members = _filled(msgspec.to_builtins(item))
    if "content" in members:
        members["content"] = [_filled(part) for part in members["content"]]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in members.items()}


def item_of(members: dict[str, Any]) -> RealtimeItem:
    """Return the item that a record was made of. Raises msgspec.ValidationError, KeyError or TypeError for none.

    Members and kinds of parts that newer code has added are left out.
    """
    if members["type"] == "function_call":
        return msgspec.convert(members, RealtimeToolCallItem)
    parts = (part for part in members.get("content", ()) if part["type"] in _PARTS)
    content: tuple[Any, ...] = tuple(msgspec.convert(part, _PARTS[part["type"]]) for part in parts)
    kind = _MESSAGES[members["role"]]
    # JSON has lists where the history has tuples.
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in members.items()}
    known = {name: plain[name] for name in kind.__struct_fields__ if name in plain}
    item: RealtimeItem = kind(**{**known, "content": content})
    return item


def history_digest(items: Iterable[RealtimeItem]) -> str:
    """Return the SHA-256 of a history, in hexadecimal: the same items in the same order have the same.

    It is over the items' records as JSON with sorted members, a line each.
    """
    digest = hashlib.sha256()
    for item in items:
        # There and back, since a number that a live item has as an integer comes out of the journal as a float.
        digest.update(_canonical(record_of(item_of(record_of(item)))) + b"\n")
    return digest.hexdigest()


def _canonical(record: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(record, order="sorted")
    except UnicodeEncodeError:
        # As its entry was written, see `encode_body`.
        return msgspec.json.encode(legible(record), order="sorted")


def _filled(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None and value != ()}
