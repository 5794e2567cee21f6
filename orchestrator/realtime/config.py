"""The settings of a session and of a run, as typed dictionaries; every key is optional."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

__all__ = [
    "RealtimeAudioConfig",
    "RealtimeAudioFormat",
    "RealtimeAudioInputConfig",
    "RealtimeAudioOutputConfig",
    "RealtimeClientMessage",
    "RealtimeCustomVoice",
    "RealtimeGuardrailsSettings",
    "RealtimeInputAudioNoiseReductionConfig",
    "RealtimeInputAudioTranscriptionConfig",
    "RealtimeModelName",
    "RealtimeModelTracingConfig",
    "RealtimeReasoningConfig",
    "RealtimeReasoningEffort",
    "RealtimeRunConfig",
    "RealtimeSessionModelSettings",
    "RealtimeToolExecutionConfig",
    "RealtimeTurnDetectionConfig",
    "RealtimeUserInput",
    "RealtimeUserInputImage",
    "RealtimeUserInputMessage",
    "RealtimeUserInputText",
    "RealtimeVoice",
]

RealtimeModelName: TypeAlias = str
RealtimeAudioFormat: TypeAlias = Any
RealtimeReasoningEffort: TypeAlias = Literal["minimal", "low", "medium", "high", "xhigh"]


class RealtimeClientMessage(TypedDict):
    """A raw client event: its type, and its other fields under `other_data`."""

    type: str
    other_data: NotRequired[dict[str, Any]]


class RealtimeReasoningConfig(TypedDict, total=False):
    """How much the model thinks before it speaks."""

    effort: RealtimeReasoningEffort | None


class RealtimeInputAudioTranscriptionConfig(TypedDict, total=False):
    """Transcription of what the caller says."""

    language: str
    model: str
    prompt: str
    keywords: list[str]
    languages: list[str]
    delay: str


class RealtimeInputAudioNoiseReductionConfig(TypedDict, total=False):
    """Noise reduction before voice activity detection."""

    type: Literal["near_field", "far_field"]


class RealtimeTurnDetectionConfig(TypedDict, total=False):
    """Who decides that the caller's turn has ended, and what follows from it. Times are milliseconds."""

    type: Literal["semantic_vad", "server_vad"]
    create_response: bool
    eagerness: Literal["auto", "low", "medium", "high"]
    interrupt_response: bool
    prefix_padding_ms: int
    silence_duration_ms: int
    threshold: float
    idle_timeout_ms: int | None
    model_version: str


class RealtimeAudioInputConfig(TypedDict, total=False):
    """The caller's audio."""

    format: RealtimeAudioFormat
    noise_reduction: RealtimeInputAudioNoiseReductionConfig | None
    transcription: RealtimeInputAudioTranscriptionConfig | None
    turn_detection: RealtimeTurnDetectionConfig | None


class RealtimeCustomVoice(TypedDict):
    """A voice that was made for the account, by its id."""

    id: str


# A voice of the provider's, by name, or a custom one.
RealtimeVoice: TypeAlias = str | RealtimeCustomVoice


class RealtimeAudioOutputConfig(TypedDict, total=False):
    """The agent's audio."""

    format: RealtimeAudioFormat
    voice: RealtimeVoice
    speed: float


class RealtimeAudioConfig(TypedDict, total=False):
    """Both directions."""

    input: RealtimeAudioInputConfig | None
    output: RealtimeAudioOutputConfig | None


class RealtimeModelTracingConfig(TypedDict, total=False):
    """Names under which the provider records the session."""

    workflow_name: str
    group_id: str
    metadata: dict[str, Any]


class RealtimeSessionModelSettings(TypedDict, total=False):
    """Settings of the model session: the nested `audio` form and the flat aliases; the nested one wins."""

    model_name: RealtimeModelName
    instructions: str
    prompt: dict[str, Any]
    modalities: list[Literal["text", "audio"]]
    output_modalities: list[Literal["text", "audio"]]
    audio: RealtimeAudioConfig | None
    voice: RealtimeVoice
    speed: float
    max_output_tokens: int | Literal["inf"]
    input_audio_format: RealtimeAudioFormat
    output_audio_format: RealtimeAudioFormat
    input_audio_transcription: RealtimeInputAudioTranscriptionConfig | None
    input_audio_noise_reduction: RealtimeInputAudioNoiseReductionConfig | None
    turn_detection: RealtimeTurnDetectionConfig | None
    tool_choice: Any
    parallel_tool_calls: bool | None
    reasoning: RealtimeReasoningConfig | None
    tools: list[Any]
    handoffs: list[Any]
    tracing: RealtimeModelTracingConfig | Literal["auto"] | None


class RealtimeGuardrailsSettings(TypedDict, total=False):
    """How often guardrails look at what the agent says."""

    debounce_text_length: int


class RealtimeToolExecutionConfig(TypedDict, total=False):
    """Order of checks around a tool call."""

    pre_approval_tool_input_guardrails: bool


class RealtimeRunConfig(TypedDict, total=False):
    """Settings of a run.

    `tracing_disabled` switches the provider's recording and our own spans off. Spans hold nothing of what was said unless
    `trace_include_content` is True; they go to `tracer_provider`, or to the one that the program has set up for OpenTelemetry.
    """

    model_settings: RealtimeSessionModelSettings
    output_guardrails: list[Any]
    input_guardrails: list[Any]
    hooks: Any
    guardrails_settings: RealtimeGuardrailsSettings
    tracing_disabled: bool
    trace_include_content: bool
    tracer_provider: Any
    async_tool_calls: bool
    tool_execution: RealtimeToolExecutionConfig
    tool_error_formatter: Callable[..., str | Awaitable[str | None] | None]


class RealtimeUserInputText(TypedDict):
    """Text in a structured user message."""

    type: Literal["input_text"]
    text: str


class RealtimeUserInputImage(TypedDict):
    """An image in a structured user message, as a data URL."""

    type: Literal["input_image"]
    image_url: str
    detail: NotRequired[Literal["auto", "low", "high"]]


class RealtimeUserInputMessage(TypedDict):
    """A structured user message."""

    type: Literal["message"]
    role: Literal["user"]
    content: list[RealtimeUserInputText | RealtimeUserInputImage]


RealtimeUserInput: TypeAlias = str | RealtimeUserInputMessage
