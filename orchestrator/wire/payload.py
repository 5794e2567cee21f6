"""Facts about base64 audio that can be had without decoding it."""

from __future__ import annotations

__all__ = ["base64_length"]


def base64_length(payload: str) -> int:
    """Return how many bytes a base64 text stands for, with or without padding.

    The text is not checked; for one that is not base64 the result means nothing.
    """
    digits = len(payload)
    if payload.endswith("=="):
        digits -= 2
    elif payload.endswith("="):
        digits -= 1
    return digits * 3 // 4
