"""The ways to run the offline endpoint under load. By itself, so that parsing a command line loads nothing heavy."""

from __future__ import annotations

from typing import Final

__all__ = ["MODES"]

MODES: Final[dict[str, tuple[str, ...]]] = {"usual": (), "energy": ("--vad", "energy"), "cheap": ("--cheap",)}
"""Options of `orchestrator simulate`: as it comes, with the detector of speech that costs little, and with all that does."""
