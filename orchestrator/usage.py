"""Token counts of a conversation, by modality where the model counts them so."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["CachedTokensDetails", "InputTokensDetails", "OutputTokensDetails", "Usage"]


@dataclass(slots=True)
class CachedTokensDetails:
    """Input tokens that came from the cache, by modality; None where the model did not say."""

    text_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None

    def add(self, other: CachedTokensDetails) -> None:
        """Add another count to this one."""
        self.text_tokens = _sum(self.text_tokens, other.text_tokens)
        self.audio_tokens = _sum(self.audio_tokens, other.audio_tokens)
        self.image_tokens = _sum(self.image_tokens, other.image_tokens)


@dataclass(slots=True)
class InputTokensDetails:
    """Input tokens by modality, and how many of them came from the cache; None where the model did not say."""

    text_tokens: int | None = None
    audio_tokens: int | None = None
    image_tokens: int | None = None
    cached_tokens: int | None = None
    cached_tokens_details: CachedTokensDetails | None = None

    def add(self, other: InputTokensDetails) -> None:
        """Add another count to this one."""
        self.text_tokens = _sum(self.text_tokens, other.text_tokens)
        self.audio_tokens = _sum(self.audio_tokens, other.audio_tokens)
        self.image_tokens = _sum(self.image_tokens, other.image_tokens)
        self.cached_tokens = _sum(self.cached_tokens, other.cached_tokens)
        if other.cached_tokens_details is not None:
            if self.cached_tokens_details is None:
                self.cached_tokens_details = CachedTokensDetails()
            self.cached_tokens_details.add(other.cached_tokens_details)


@dataclass(slots=True)
class OutputTokensDetails:
    """Output tokens by modality; None where the model did not say."""

    text_tokens: int | None = None
    audio_tokens: int | None = None

    def add(self, other: OutputTokensDetails) -> None:
        """Add another count to this one."""
        self.text_tokens = _sum(self.text_tokens, other.text_tokens)
        self.audio_tokens = _sum(self.audio_tokens, other.audio_tokens)


@dataclass(slots=True)
class Usage:
    """Tokens used so far; `requests` counts responses that reported usage."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: InputTokensDetails = field(default_factory=InputTokensDetails)
    output_tokens_details: OutputTokensDetails = field(default_factory=OutputTokensDetails)

    def add(self, other: Usage) -> None:
        """Add another count to this one."""
        self.requests += other.requests
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.total_tokens += other.total_tokens
        self.input_tokens_details.add(other.input_tokens_details)
        self.output_tokens_details.add(other.output_tokens_details)


def _sum(one: int | None, other: int | None) -> int | None:
    """Add what is known; None where nothing is."""
    return one if other is None else (one or 0) + other
