"""The audio formats of the Realtime API under all the names that programs use for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["bytes_per_ms", "duration_ms", "to_wire_format"]

_PCM = {"pcm16", "pcm", "audio/pcm"}
_ULAW = {"g711_ulaw", "pcmu", "audio/pcmu"}
_ALAW = {"g711_alaw", "pcma", "audio/pcma"}
PCM_RATE = 24_000


def _name(value: Any) -> str | None:
    if isinstance(value, Mapping):
        value = value.get("type")
    elif not isinstance(value, str):
        value = getattr(value, "type", None)
    return value if isinstance(value, str) else None


def to_wire_format(value: Any) -> dict[str, Any] | None:
    """Return a format as the API writes it, or None for one that it does not know.

    Accepts "pcm16", "g711_ulaw", "g711_alaw", the API's own names, and mappings or objects with a `type`. PCM is always 24 kHz.
    """
    name = _name(value)
    if name in _PCM:
        return {"type": "audio/pcm", "rate": PCM_RATE}
    if name in _ULAW:
        return {"type": "audio/pcmu"}
    if name in _ALAW:
        return {"type": "audio/pcma"}
    return None


def bytes_per_ms(value: Any) -> float:
    """Return the data rate: 8 bytes a millisecond for G.711, 48 for everything else (PCM16, mono, 24 kHz)."""
    return 8.0 if _name(value) in _ULAW | _ALAW else PCM_RATE * 2 / 1000


def duration_ms(value: Any, size: int) -> float:
    """Return how many milliseconds of audio so many bytes are."""
    return size / bytes_per_ms(value)
