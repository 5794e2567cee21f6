"""Token arithmetic: totals are sums, the cached part comes in steps of 64, audio counts by time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.conversation import ItemAudio, Memory
from orchestrator.simulator.endpoint.session_config import initial_session
from orchestrator.simulator.endpoint.usage import (
    InputTokens,
    assistant_audio_tokens,
    fixed_tokens,
    memory_tokens,
    rate_limit,
    response_usage,
    text_tokens,
    transcription_usage,
)
from orchestrator.wire.realtime import (
    CachedTokensDetails,
    FunctionCallItem,
    FunctionCallOutputItem,
    InputAudioPart,
    InputImagePart,
    InputTextPart,
    InputTokenDetails,
    McpCallItem,
    McpListedTool,
    McpListToolsItem,
    MessageItem,
    OutputAudioPart,
    OutputTokenDetails,
    TranscriptionDurationUsage,
    TranscriptionTokenUsage,
)

COUNT = st.integers(0, 5000)


@given(COUNT, COUNT, COUNT, st.integers(0, 20_000), COUNT, COUNT)
def test_totals_are_the_sums_of_their_details(text: int, audio: int, image: int, cached: int, said: int, spoken: int) -> None:
    usage = response_usage(InputTokens(text, audio, image), cached, said, spoken)
    details, output = usage.input_token_details, usage.output_token_details
    assert isinstance(details, InputTokenDetails)
    assert isinstance(output, OutputTokenDetails)
    assert usage.input_tokens == text + audio + image
    assert usage.output_tokens == said + spoken == (output.text_tokens or 0) + (output.audio_tokens or 0)
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    parts = details.cached_tokens_details
    assert isinstance(parts, CachedTokensDetails)
    assert details.cached_tokens == (parts.text_tokens or 0) + (parts.audio_tokens or 0) + (parts.image_tokens or 0)
    assert (details.cached_tokens or 0) % 64 == 0
    assert (details.cached_tokens or 0) <= min(cached, usage.input_tokens)
    assert (parts.text_tokens or 0) <= text
    assert (parts.audio_tokens or 0) <= audio
    assert (parts.image_tokens or 0) <= image


def test_audio_counts_by_time() -> None:
    session = initial_session("sess_1", "gpt-realtime", 0)
    empty = fixed_tokens(session).total
    heard = MessageItem(id="a", role="user", content=[InputAudioPart(transcript=None)])
    said = MessageItem(id="b", role="assistant", content=[OutputAudioPart(transcript="")])
    second = bytes(8000)
    audio = ItemAudio(second, Encoding.MULAW, 8000)
    tokens = memory_tokens(Memory("a", heard, audio)) + memory_tokens(Memory("b", said, audio))
    assert tokens.audio == 10 + 20
    assert empty > 0
    assert assistant_audio_tokens(1001) == 21


def test_every_kind_of_item_counts() -> None:
    frame = memory_tokens(Memory("x", MessageItem(role="user", content=[]))).text
    call = FunctionCallItem(id="f", name="lookup", call_id="c", arguments='{"a":1}')
    output = FunctionCallOutputItem(id="o", call_id="c", output="a long text " * 10)
    seen = MessageItem(id="i", role="user", content=[InputTextPart(text="look"), InputImagePart(image_url="data:")])
    listed = McpListToolsItem(server_label="s", tools=[McpListedTool(name="find", input_schema={})])
    remote = McpCallItem(server_label="s", name="find", arguments="{}", output="found", error=None)
    for item in (call, output, seen, listed, remote):
        assert memory_tokens(Memory("x", item)).text > frame
    assert memory_tokens(Memory("x", seen)).image > 0


@pytest.mark.parametrize(("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2)])
def test_text_is_an_estimate(text: str, tokens: int) -> None:
    assert text_tokens(text) == tokens


def test_whisper_is_billed_by_time_and_its_successors_by_token() -> None:
    assert transcription_usage("whisper-1", "hello", 1234.0) == TranscriptionDurationUsage(seconds=1.23)
    usage = transcription_usage("gpt-4o-transcribe", "hello there", 1234.0)
    assert isinstance(usage, TranscriptionTokenUsage)
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens == 13 + 3


def test_the_rate_limit_never_falls_below_zero() -> None:
    assert rate_limit(400).remaining == 39_600
    assert rate_limit(400).reset_seconds == 0.6
    assert rate_limit(10**6).remaining == 0
