"""The keys of a telephone, as every part of the simulated world knows them."""

from __future__ import annotations

from typing import Final

__all__ = ["KEYS", "KEYS_PATTERN", "are_keys"]

KEYS: Final = "0123456789*#ABCD"
KEYS_PATTERN: Final = rf"^[{KEYS}]+\Z"
"""One key or more."""


def are_keys(pressed: str) -> bool:
    """Whether this is one key or more, and nothing else."""
    return bool(pressed) and set(pressed).issubset(KEYS)
