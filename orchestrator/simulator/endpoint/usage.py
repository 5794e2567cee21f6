"""Token arithmetic of the Realtime API: what a response costs, and how much of it was cached.

Audio is exact (the caller's counts 10 tokens per second, the assistant's 20); text is an estimate of four characters per
token, since the tokeniser of the models is not part of an offline endpoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.simulator.json_text import json_text
from orchestrator.wire.realtime_types import (
    CachedTokensDetails,
    FunctionCallItem,
    FunctionCallOutputItem,
    InputAudioPart,
    InputImagePart,
    InputTextPart,
    InputTokenDetails,
    McpCallItem,
    McpListToolsItem,
    MessageItem,
    OutputAudioPart,
    OutputTextPart,
    OutputTokenDetails,
    RateLimit,
    TranscriptionDurationUsage,
    TranscriptionInputTokenDetails,
    TranscriptionTokenUsage,
    Usage,
)

if TYPE_CHECKING:
    from orchestrator.simulator.endpoint.conversation import Memory
    from orchestrator.wire.realtime_types import ContentPart, RealtimeSessionConfig, TranscriptionUsage

__all__ = [
    "InputTokens",
    "assistant_audio_tokens",
    "fixed_tokens",
    "memory_tokens",
    "rate_limit",
    "response_usage",
    "text_tokens",
    "transcription_usage",
]

CALLER_MS_PER_TOKEN = 100
ASSISTANT_MS_PER_TOKEN = 50
CHARACTERS_PER_TOKEN = 4
IMAGE_TOKENS = 85
ITEM_TOKENS = 4
"""What the frame around one item costs."""
CACHE_STEP = 64
TOKENS_PER_MINUTE = 40_000


@dataclass(frozen=True)
class InputTokens:
    """Tokens of a context by kind."""

    text: int = 0
    audio: int = 0
    image: int = 0

    @property
    def total(self) -> int:
        """All kinds together."""
        return self.text + self.audio + self.image

    def __add__(self, other: InputTokens) -> InputTokens:
        return InputTokens(self.text + other.text, self.audio + other.audio, self.image + other.image)


def text_tokens(text: str) -> int:
    """Estimated tokens of a text."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def assistant_audio_tokens(milliseconds: float) -> int:
    """Tokens of the assistant's speech."""
    return math.ceil(milliseconds / ASSISTANT_MS_PER_TOKEN)


def fixed_tokens(session: RealtimeSessionConfig) -> InputTokens:
    """Tokens of what every response is based on: instructions and tools."""
    tools = json_text(session.tools) if session.tools else ""
    return InputTokens(text=text_tokens(str(session.instructions or "")) + text_tokens(tools))


def response_usage(context: InputTokens, cached: int, text: int, audio: int) -> Usage:
    """Usage of one response. `cached` counts tokens of the context that an earlier response had, in whole steps."""
    cached = min(cached, context.total) // CACHE_STEP * CACHE_STEP
    cached_text = min(cached, context.text)
    cached_audio = min(cached - cached_text, context.audio)
    output = text + audio
    return Usage(
        total_tokens=context.total + output,
        input_tokens=context.total,
        output_tokens=output,
        input_token_details=InputTokenDetails(
            text_tokens=context.text,
            audio_tokens=context.audio,
            image_tokens=context.image,
            cached_tokens=cached,
            cached_tokens_details=CachedTokensDetails(
                text_tokens=cached_text, audio_tokens=cached_audio, image_tokens=cached - cached_text - cached_audio
            ),
        ),
        output_token_details=OutputTokenDetails(text_tokens=text, audio_tokens=audio),
    )


def transcription_usage(model: str, transcript: str, milliseconds: float) -> TranscriptionUsage:
    """What writing down one spoken turn costs: whisper is billed by time, its successors by token."""
    if model.startswith("whisper"):
        return TranscriptionDurationUsage(seconds=round(milliseconds / 1000, 2))
    heard = math.ceil(milliseconds / CALLER_MS_PER_TOKEN)
    written = text_tokens(transcript)
    return TranscriptionTokenUsage(
        total_tokens=heard + written,
        input_tokens=heard,
        input_token_details=TranscriptionInputTokenDetails(text_tokens=0, audio_tokens=heard),
        output_tokens=written,
    )


def rate_limit(used: int) -> RateLimit:
    """What is left in the window after a response of so many tokens, as if it had been empty before."""
    remaining = max(0, TOKENS_PER_MINUTE - used)
    return RateLimit(
        name="tokens",
        limit=TOKENS_PER_MINUTE,
        remaining=remaining,
        reset_seconds=round((TOKENS_PER_MINUTE - remaining) * 60 / TOKENS_PER_MINUTE, 3),
    )


def memory_tokens(memory: Memory) -> InputTokens:
    """Tokens of one item."""
    tokens = InputTokens(text=ITEM_TOKENS)
    item = memory.item
    if isinstance(item, McpListToolsItem):
        return tokens + InputTokens(text=text_tokens(json_text(item.tools)))
    if isinstance(item, McpCallItem):
        return tokens + InputTokens(text=text_tokens(item.name + item.arguments + str(item.output or "")))
    if isinstance(item, FunctionCallItem):
        return tokens + InputTokens(text=text_tokens(item.name + item.arguments))
    if isinstance(item, FunctionCallOutputItem):
        return tokens + InputTokens(text=text_tokens(item.output))
    if isinstance(item, MessageItem):
        for part in item.content:
            tokens += _part_tokens(part, memory.audio.milliseconds if memory.audio else 0.0)
    return tokens


def _part_tokens(part: ContentPart, milliseconds: float) -> InputTokens:
    if isinstance(part, InputTextPart | OutputTextPart):
        return InputTokens(text=text_tokens(part.text))
    if isinstance(part, InputAudioPart):
        return InputTokens(audio=math.ceil(milliseconds / CALLER_MS_PER_TOKEN))
    if isinstance(part, OutputAudioPart):
        return InputTokens(text=text_tokens(str(part.transcript or "")), audio=assistant_audio_tokens(milliseconds))
    if isinstance(part, InputImagePart):
        return InputTokens(image=IMAGE_TOKENS)
    return InputTokens()
