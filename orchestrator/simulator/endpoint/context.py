"""What a response is based on, and what is left out where that is more than the model takes.

Pure. Only whole items are dropped, the oldest first, and never the instructions; nothing on the wire tells of it but the
tokens of the next `response.done`. What was dropped once stays dropped: that is what keeps the rest in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.simulator.endpoint.usage import fixed_tokens, memory_tokens
from orchestrator.wire.realtime_types import RetentionRatioTruncation, TokenLimits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.simulator.endpoint.conversation import Memory
    from orchestrator.simulator.endpoint.usage import InputTokens
    from orchestrator.wire.realtime_types import RealtimeSessionConfig

__all__ = ["Context", "fit_context", "input_limit"]

# What the models are documented to take, less what they may say; the first prefix that fits counts.
_LIMITS = (
    ("gpt-realtime-2", 128_000 - 4_096),
    ("gpt-4o", 16_384 - 4_096),
    ("", 32_768 - 4_096),
)


@dataclass(frozen=True)
class Context:
    """Tokens of a response's input.

    `dropped` are the ids of the items that did not fit, and `overflow` says that none may be dropped though it is too much.
    `fixed` counts instructions and tools: all of the cache that is left when the items after them have moved.
    """

    tokens: InputTokens
    fixed: int
    dropped: tuple[str, ...] = ()
    overflow: bool = False


def input_limit(model: str) -> int:
    """The most tokens that a response of this model is based on."""
    return next(limit for prefix, limit in _LIMITS if model.startswith(prefix))


def fit_context(session: RealtimeSessionConfig, memories: Iterable[Memory], limit: int) -> Context:
    """Count what a response is based on, and drop what is beyond `limit` as the session wants it."""
    fixed = fixed_tokens(session)
    counted = [(memory.id, memory_tokens(memory)) for memory in memories]
    tokens = sum((count for _, count in counted), fixed)
    most, kept = _room(session, limit, fixed.total)
    size = tokens.total - fixed.total
    if size <= most:
        return Context(tokens, fixed.total)
    if session.truncation == "disabled":
        return Context(tokens, fixed.total, overflow=True)
    dropped: list[str] = []
    # The newest item is what the response is about.
    for item_id, count in counted[:-1]:
        if size <= kept:
            break
        size -= count.total
        dropped.append(item_id)
    tokens = sum((count for _, count in counted[len(dropped) :]), fixed)
    return Context(tokens, fixed.total, tuple(dropped))


def _room(session: RealtimeSessionConfig, limit: int, fixed: int) -> tuple[int, int]:
    """How many tokens the items may have, and how many are kept of them once they have more."""
    most = max(0, limit - fixed)
    truncation = session.truncation
    if not isinstance(truncation, RetentionRatioTruncation):
        return most, most
    if isinstance(truncation.token_limits, TokenLimits) and isinstance(truncation.token_limits.post_instructions, int):
        most = min(most, truncation.token_limits.post_instructions)
    return most, int(most * truncation.retention_ratio)
