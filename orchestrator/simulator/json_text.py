"""JSON text from values, and values from text that may be JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec

__all__ = ["json_text", "value_of"]


def json_text(value: Any) -> str:
    """Compact JSON. Half a surrogate pair, which UTF-8 cannot express and YAML can, stays an escape."""
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))


def value_of(text: str) -> Any:
    """What a JSON text stands for; a text that is no JSON stands for itself."""
    try:
        return msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return text
