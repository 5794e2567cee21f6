"""The objects inside the events of the OpenAI Realtime API (GA): items, session, response, usage, errors.

Both directions share them. A member that may be absent is `UNSET` and then never sent; one that may be null is `None`. In an
update of the session, absent keeps the old value and null clears it. Names that the server may add to (models, voices,
states, reasons) are plain strings here; what a client may send is narrowed in `realtime_rules`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from orchestrator.wire.unknown import UnknownObject

__all__ = [
    "AudioConfig",
    "AudioFormat",
    "AudioInputConfig",
    "AudioOutputConfig",
    "AudioPart",
    "CachedTokensDetails",
    "ContentPart",
    "Conversation",
    "CustomVoice",
    "ErrorDetails",
    "FunctionCallItem",
    "FunctionCallOutputItem",
    "FunctionTool",
    "FunctionToolChoice",
    "InputAudioPart",
    "InputImagePart",
    "InputTextPart",
    "InputTokenDetails",
    "InputTranscriptionConfig",
    "Item",
    "ItemReference",
    "LogProb",
    "McpApprovalFilter",
    "McpApprovalRequestItem",
    "McpApprovalResponseItem",
    "McpCallItem",
    "McpError",
    "McpListToolsItem",
    "McpListedTool",
    "McpTool",
    "McpToolChoice",
    "McpToolFilter",
    "MessageItem",
    "NoiseReduction",
    "OutputAudioPart",
    "OutputTextPart",
    "OutputTokenDetails",
    "Prompt",
    "RateLimit",
    "RealtimeSessionConfig",
    "Reasoning",
    "Response",
    "ResponseAudioConfig",
    "ResponseCreateParams",
    "ResponseError",
    "ResponseStatusDetails",
    "RetentionRatioTruncation",
    "SemanticVad",
    "ServerItem",
    "ServerVad",
    "SessionConfig",
    "TextPart",
    "TokenLimits",
    "Tool",
    "ToolChoice",
    "TracingConfig",
    "TranscriptionAudioConfig",
    "TranscriptionDurationUsage",
    "TranscriptionError",
    "TranscriptionInputTokenDetails",
    "TranscriptionLanguage",
    "TranscriptionSessionConfig",
    "TranscriptionTokenUsage",
    "TranscriptionUsage",
    "TurnDetection",
    "Usage",
]

# --- Content parts ----------------------------------------------------------------------------------------------------


class InputTextPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="input_text"):
    text: str


class InputAudioPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="input_audio"):
    """`audio` is base64, and absent in everything the server sends but `conversation.item.retrieved`."""

    audio: str | UnsetType | None = UNSET
    transcript: str | UnsetType | None = UNSET


class InputImagePart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="input_image"):
    """`image_url` is a data URI: the API fetches nothing."""

    image_url: str | UnsetType | None = UNSET
    detail: str | UnsetType | None = UNSET


class OutputTextPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="output_text"):
    text: str


class OutputAudioPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="output_audio"):
    """`audio` is base64, and absent in everything the server sends but `conversation.item.retrieved`."""

    audio: str | UnsetType | None = UNSET
    transcript: str | UnsetType | None = UNSET


class TextPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """A text part under its short name, which `response.content_part.*` kept from the beta protocol."""

    text: str | UnsetType | None = UNSET


class AudioPart(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="audio"):
    """An audio part under its short name, which `response.content_part.*` kept from the beta protocol."""

    audio: str | UnsetType | None = UNSET
    transcript: str | UnsetType | None = UNSET


ContentPart: TypeAlias = (
    InputTextPart | InputAudioPart | InputImagePart | OutputTextPart | OutputAudioPart | TextPart | AudioPart | UnknownObject
)

# --- Items ------------------------------------------------------------------------------------------------------------


class MessageItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="message"):
    """`role` is user, assistant or system."""

    id: str | UnsetType = UNSET
    object: str | UnsetType = UNSET
    status: str | UnsetType | None = UNSET
    role: str
    content: Sequence[ContentPart]


class FunctionCallItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call"):
    """`arguments` is JSON as text, "" while the call is being generated."""

    id: str | UnsetType = UNSET
    object: str | UnsetType = UNSET
    status: str | UnsetType | None = UNSET
    name: str
    call_id: str | UnsetType | None = UNSET
    arguments: str


class FunctionCallOutputItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function_call_output"):
    id: str | UnsetType = UNSET
    object: str | UnsetType = UNSET
    status: str | UnsetType | None = UNSET
    call_id: str
    output: str


class McpListedTool(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str | UnsetType | None = UNSET
    input_schema: Any
    annotations: Any = UNSET


class McpListToolsItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="mcp_list_tools"):
    id: str | UnsetType = UNSET
    object: str | UnsetType = UNSET
    status: str | UnsetType | None = UNSET
    server_label: str
    tools: Sequence[McpListedTool]


class McpError(msgspec.Struct, frozen=True, kw_only=True):
    """`type` is protocol_error, tool_execution_error (without code) or http_error."""

    type: str
    code: int | UnsetType = UNSET
    message: str


class McpCallItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="mcp_call"):
    id: str | UnsetType = UNSET
    object: str | UnsetType = UNSET
    status: str | UnsetType | None = UNSET
    server_label: str
    name: str
    arguments: str
    approval_request_id: str | UnsetType | None = UNSET
    output: str | UnsetType | None = UNSET
    error: McpError | UnsetType | None = UNSET


class McpApprovalRequestItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="mcp_approval_request"):
    id: str | UnsetType = UNSET
    object: str | UnsetType = UNSET
    status: str | UnsetType | None = UNSET
    server_label: str
    name: str
    arguments: str


class McpApprovalResponseItem(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="mcp_approval_response"):
    id: str | UnsetType = UNSET
    object: str | UnsetType = UNSET
    status: str | UnsetType | None = UNSET
    approval_request_id: str
    approve: bool
    reason: str | UnsetType | None = UNSET


class ItemReference(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="item_reference"):
    """Stands for an item of the conversation, in the input of a response only."""

    id: str


Item: TypeAlias = (
    MessageItem
    | FunctionCallItem
    | FunctionCallOutputItem
    | McpListToolsItem
    | McpCallItem
    | McpApprovalRequestItem
    | McpApprovalResponseItem
)
ServerItem: TypeAlias = Item | UnknownObject

# --- Session ----------------------------------------------------------------------------------------------------------


class AudioFormat(msgspec.Struct, frozen=True, kw_only=True):
    """audio/pcm (16 bit little-endian mono, `rate` 24000), audio/pcmu or audio/pcma (8000 Hz, no `rate`)."""

    type: str
    rate: int | UnsetType | None = UNSET


class InputTranscriptionConfig(msgspec.Struct, frozen=True, kw_only=True):
    model: str | UnsetType | None = UNSET
    language: str | UnsetType | None = UNSET
    prompt: str | UnsetType | None = UNSET
    languages: Sequence[str] | UnsetType | None = UNSET
    keywords: Sequence[str] | UnsetType | None = UNSET
    delay: str | UnsetType | None = UNSET


class NoiseReduction(msgspec.Struct, frozen=True, kw_only=True):
    """`type` is near_field or far_field."""

    type: str | UnsetType = UNSET
    strength: float | UnsetType | None = UNSET


class ServerVad(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="server_vad"):
    threshold: float | UnsetType | None = UNSET
    prefix_padding_ms: int | UnsetType | None = UNSET
    silence_duration_ms: int | UnsetType | None = UNSET
    idle_timeout_ms: int | UnsetType | None = UNSET
    create_response: bool | UnsetType | None = UNSET
    interrupt_response: bool | UnsetType | None = UNSET


class SemanticVad(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="semantic_vad"):
    """`eagerness` is low (waits up to 8 s), medium (4 s), high (2 s) or auto, which means medium."""

    eagerness: str | UnsetType | None = UNSET
    create_response: bool | UnsetType | None = UNSET
    interrupt_response: bool | UnsetType | None = UNSET


TurnDetection: TypeAlias = ServerVad | SemanticVad | UnknownObject


class CustomVoice(msgspec.Struct, frozen=True, kw_only=True):
    id: str


class AudioInputConfig(msgspec.Struct, frozen=True, kw_only=True):
    format: AudioFormat | UnsetType | None = UNSET
    transcription: InputTranscriptionConfig | UnsetType | None = UNSET
    noise_reduction: NoiseReduction | UnsetType | None = UNSET
    turn_detection: TurnDetection | UnsetType | None = UNSET


class AudioOutputConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`speed` belongs to the session: a response has `format` and `voice` only."""

    format: AudioFormat | UnsetType | None = UNSET
    voice: str | CustomVoice | UnsetType | None = UNSET
    speed: float | UnsetType | None = UNSET


class AudioConfig(msgspec.Struct, frozen=True, kw_only=True):
    input: AudioInputConfig | UnsetType | None = UNSET
    output: AudioOutputConfig | UnsetType | None = UNSET


class TranscriptionAudioConfig(msgspec.Struct, frozen=True, kw_only=True):
    input: AudioInputConfig | UnsetType | None = UNSET


class FunctionTool(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function"):
    """`parameters` is a JSON schema."""

    name: str
    description: str | UnsetType | None = UNSET
    parameters: Mapping[str, Any] | UnsetType | None = UNSET


class McpToolFilter(msgspec.Struct, frozen=True, kw_only=True):
    tool_names: Sequence[str] | UnsetType | None = UNSET
    read_only: bool | UnsetType | None = UNSET


class McpApprovalFilter(msgspec.Struct, frozen=True, kw_only=True):
    always: McpToolFilter | UnsetType | None = UNSET
    never: McpToolFilter | UnsetType | None = UNSET


class McpTool(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="mcp"):
    """A server of tools that the API itself calls, reached by one of `server_url`, `connector_id`, `tunnel_id`.

    `authorization` and `headers` hold secrets of the user, so the text form leaves them out.
    """

    server_label: str
    server_url: str | UnsetType | None = UNSET
    connector_id: str | UnsetType | None = UNSET
    tunnel_id: str | UnsetType | None = UNSET
    authorization: str | UnsetType | None = UNSET
    headers: Mapping[str, str] | UnsetType | None = UNSET
    allowed_tools: Sequence[str] | McpToolFilter | UnsetType | None = UNSET
    require_approval: str | McpApprovalFilter | UnsetType | None = UNSET
    server_description: str | UnsetType | None = UNSET
    allowed_callers: Sequence[str] | UnsetType | None = UNSET
    defer_loading: bool | UnsetType | None = UNSET

    def __repr__(self) -> str:
        return f"McpTool(server_label={self.server_label!r})"


Tool: TypeAlias = FunctionTool | McpTool | UnknownObject


class FunctionToolChoice(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="function"):
    name: str


class McpToolChoice(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="mcp"):
    server_label: str
    name: str | UnsetType | None = UNSET


# As text it is none, auto or required.
ToolChoice: TypeAlias = str | FunctionToolChoice | McpToolChoice | UnknownObject


class TracingConfig(msgspec.Struct, frozen=True, kw_only=True):
    workflow_name: str | UnsetType | None = UNSET
    group_id: str | UnsetType | None = UNSET
    metadata: Any = UNSET


class TokenLimits(msgspec.Struct, frozen=True, kw_only=True):
    post_instructions: int | UnsetType | None = UNSET


class RetentionRatioTruncation(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="retention_ratio"):
    retention_ratio: float
    token_limits: TokenLimits | UnsetType | None = UNSET


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A stored template. A variable is text or an input_text, input_image or input_file object."""

    id: str
    version: str | UnsetType | None = UNSET
    variables: Mapping[str, Any] | UnsetType | None = UNSET


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    effort: str | UnsetType | None = UNSET


class RealtimeSessionConfig(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="realtime"):
    """A session that answers: the whole of it from a server, any part of it in an update. Members in the server's order.

    `expires_at` is in Unix seconds, `max_output_tokens` a number or "inf".
    """

    object: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    model: str | UnsetType | None = UNSET
    output_modalities: Sequence[str] | UnsetType | None = UNSET
    instructions: str | UnsetType | None = UNSET
    tools: Sequence[Tool] | UnsetType | None = UNSET
    tool_choice: ToolChoice | UnsetType | None = UNSET
    max_output_tokens: int | str | UnsetType | None = UNSET
    tracing: str | TracingConfig | UnsetType | None = UNSET
    truncation: str | RetentionRatioTruncation | UnknownObject | UnsetType | None = UNSET
    prompt: Prompt | UnsetType | None = UNSET
    expires_at: int | UnsetType | None = UNSET
    audio: AudioConfig | UnsetType | None = UNSET
    include: Sequence[str] | UnsetType | None = UNSET
    reasoning: Reasoning | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET


class TranscriptionSessionConfig(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="transcription"):
    """A session that only writes down what it hears: the whole of it from a server, any part of it in an update."""

    object: str | UnsetType = UNSET
    id: str | UnsetType = UNSET
    expires_at: int | UnsetType | None = UNSET
    audio: TranscriptionAudioConfig | UnsetType | None = UNSET
    include: Sequence[str] | UnsetType | None = UNSET


SessionConfig: TypeAlias = RealtimeSessionConfig | TranscriptionSessionConfig

# --- Response ---------------------------------------------------------------------------------------------------------


class ResponseAudioConfig(msgspec.Struct, frozen=True, kw_only=True):
    output: AudioOutputConfig | UnsetType | None = UNSET


class ResponseCreateParams(msgspec.Struct, frozen=True, kw_only=True):
    """What one response does differently from its session. `conversation` is auto, or none for one out of band."""

    conversation: str | UnsetType | None = UNSET
    input: Sequence[Item | ItemReference] | UnsetType | None = UNSET
    instructions: str | UnsetType | None = UNSET
    output_modalities: Sequence[str] | UnsetType | None = UNSET
    audio: ResponseAudioConfig | UnsetType | None = UNSET
    tools: Sequence[Tool] | UnsetType | None = UNSET
    tool_choice: ToolChoice | UnsetType | None = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    max_output_tokens: int | str | UnsetType | None = UNSET
    metadata: Mapping[str, str] | UnsetType | None = UNSET
    prompt: Prompt | UnsetType | None = UNSET
    reasoning: Reasoning | UnsetType | None = UNSET


class ResponseError(msgspec.Struct, frozen=True, kw_only=True):
    type: str | UnsetType | None = UNSET
    code: str | UnsetType | None = UNSET
    message: str | UnsetType | None = UNSET


class ResponseStatusDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Why a response ended as it did.

    `reason` is turn_detected or client_cancelled (type cancelled), max_output_tokens or content_filter (type incomplete);
    `error` is set for type failed.
    """

    type: str | UnsetType | None = UNSET
    reason: str | UnsetType | None = UNSET
    error: ResponseError | UnsetType | None = UNSET


class CachedTokensDetails(msgspec.Struct, frozen=True, kw_only=True):
    text_tokens: int | None = 0
    audio_tokens: int | None = 0
    image_tokens: int | None = 0


class InputTokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    text_tokens: int | None = 0
    audio_tokens: int | None = 0
    image_tokens: int | None = 0
    cached_tokens: int | None = 0
    cached_tokens_details: CachedTokensDetails | UnsetType | None = UNSET


class OutputTokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    text_tokens: int | None = 0
    audio_tokens: int | None = 0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one response. The input counts the whole context, so it grows with each turn."""

    total_tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    input_token_details: InputTokenDetails | UnsetType | None = UNSET
    output_token_details: OutputTokenDetails | UnsetType | None = UNSET


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """One generation. `status` is in_progress, then completed, cancelled, incomplete or failed.

    `conversation_id` is None for a response out of band; `usage` is None until the end.
    """

    object: str = "realtime.response"
    id: str
    status: str
    status_details: ResponseStatusDetails | None = None
    output: Sequence[ServerItem] = ()
    conversation_id: str | UnsetType | None = UNSET
    output_modalities: Sequence[str] | UnsetType | None = UNSET
    max_output_tokens: int | str | UnsetType | None = UNSET
    audio: ResponseAudioConfig | UnsetType | None = UNSET
    usage: Usage | None = None
    metadata: Mapping[str, str] | None = None


# --- The rest ---------------------------------------------------------------------------------------------------------


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    id: str | UnsetType = UNSET
    object: str | UnsetType = UNSET


class ErrorDetails(msgspec.Struct, frozen=True, kw_only=True):
    """`param` is the path of the member at fault, `event_id` that of the client's event that caused the error."""

    type: str
    code: str | None = None
    message: str
    param: str | None = None
    event_id: str | None = None


class TranscriptionError(msgspec.Struct, frozen=True, kw_only=True):
    """Absent rather than null where nothing is known: agents-js refuses null here."""

    type: str | UnsetType | None = UNSET
    code: str | UnsetType | None = UNSET
    message: str | UnsetType | None = UNSET
    param: str | UnsetType | None = UNSET


class LogProb(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: Sequence[int] | UnsetType | None = UNSET


class TranscriptionLanguage(msgspec.Struct, frozen=True, kw_only=True):
    code: str


class TranscriptionInputTokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    text_tokens: int | UnsetType | None = UNSET
    audio_tokens: int | UnsetType | None = UNSET


class TranscriptionTokenUsage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="tokens"):
    total_tokens: int
    input_tokens: int
    input_token_details: TranscriptionInputTokenDetails | UnsetType | None = UNSET
    output_tokens: int


class TranscriptionDurationUsage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="duration"):
    seconds: float


TranscriptionUsage: TypeAlias = TranscriptionTokenUsage | TranscriptionDurationUsage | UnknownObject


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is tokens or requests, `reset_seconds` the time until the window is empty again."""

    name: str | UnsetType = UNSET
    limit: int | UnsetType = UNSET
    remaining: int | UnsetType = UNSET
    reset_seconds: float | UnsetType = UNSET
