"""The 46 events that a server of the OpenAI Realtime API sends.

Members that a client acts upon are required; indexes, which some servers leave out, default to 0. `event_id` is unset only
where a server sent none: `input_audio_buffer.dtmf_event_received` has none by definition. Members that we do not know are
dropped, so a relay that must keep them passes the received bytes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from orchestrator.wire.realtime_types import (
    ContentPart,
    Conversation,
    ErrorDetails,
    LogProb,
    RateLimit,
    Response,
    ServerItem,
    SessionConfig,
    TranscriptionError,
    TranscriptionLanguage,
    TranscriptionUsage,
)

__all__ = [
    "ConversationCreated",
    "ConversationItemAdded",
    "ConversationItemCreated",
    "ConversationItemDeleted",
    "ConversationItemDone",
    "ConversationItemInputAudioTranscriptionCompleted",
    "ConversationItemInputAudioTranscriptionDelta",
    "ConversationItemInputAudioTranscriptionFailed",
    "ConversationItemInputAudioTranscriptionSegment",
    "ConversationItemRetrieved",
    "ConversationItemTruncated",
    "ErrorEvent",
    "InputAudioBufferCleared",
    "InputAudioBufferCommitted",
    "InputAudioBufferDtmfEventReceived",
    "InputAudioBufferSpeechStarted",
    "InputAudioBufferSpeechStopped",
    "InputAudioBufferTimeoutTriggered",
    "McpListToolsCompleted",
    "McpListToolsFailed",
    "McpListToolsInProgress",
    "OutputAudioBufferCleared",
    "OutputAudioBufferStarted",
    "OutputAudioBufferStopped",
    "RateLimitsUpdated",
    "ResponseContentPartAdded",
    "ResponseContentPartDone",
    "ResponseCreated",
    "ResponseDone",
    "ResponseFunctionCallArgumentsDelta",
    "ResponseFunctionCallArgumentsDone",
    "ResponseMcpCallArgumentsDelta",
    "ResponseMcpCallArgumentsDone",
    "ResponseMcpCallCompleted",
    "ResponseMcpCallFailed",
    "ResponseMcpCallInProgress",
    "ResponseOutputAudioDelta",
    "ResponseOutputAudioDone",
    "ResponseOutputAudioTranscriptDelta",
    "ResponseOutputAudioTranscriptDone",
    "ResponseOutputItemAdded",
    "ResponseOutputItemDone",
    "ResponseOutputTextDelta",
    "ResponseOutputTextDone",
    "ServerEvent",
    "SessionCreated",
    "SessionUpdated",
]


class ServerStruct(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What all server events have."""

    event_id: str | UnsetType = UNSET


# --- Session and errors -----------------------------------------------------------------------------------------------


class ErrorEvent(ServerStruct, frozen=True, kw_only=True, tag="error"):
    """Seldom fatal: a fatal one is followed by the close of the connection."""

    error: ErrorDetails


class SessionCreated(ServerStruct, frozen=True, kw_only=True, tag="session.created"):
    session: SessionConfig


class SessionUpdated(ServerStruct, frozen=True, kw_only=True, tag="session.updated"):
    """Carries the whole session, also what did not change."""

    session: SessionConfig


class RateLimitsUpdated(ServerStruct, frozen=True, kw_only=True, tag="rate_limits.updated"):
    rate_limits: Sequence[RateLimit]


# --- Conversation -----------------------------------------------------------------------------------------------------


class ConversationCreated(ServerStruct, frozen=True, kw_only=True, tag="conversation.created"):
    """Documented, but not sent over a WebSocket."""

    conversation: Conversation


class ConversationItemAdded(ServerStruct, frozen=True, kw_only=True, tag="conversation.item.added"):
    previous_item_id: str | UnsetType | None = UNSET
    item: ServerItem


class ConversationItemCreated(ServerStruct, frozen=True, kw_only=True, tag="conversation.item.created"):
    """The beta protocol's name; some other servers still send it."""

    previous_item_id: str | UnsetType | None = UNSET
    item: ServerItem


class ConversationItemDeleted(ServerStruct, frozen=True, kw_only=True, tag="conversation.item.deleted"):
    item_id: str


class ConversationItemDone(ServerStruct, frozen=True, kw_only=True, tag="conversation.item.done"):
    """The item is final, except for the transcript of what a user said, which comes later."""

    previous_item_id: str | UnsetType | None = UNSET
    item: ServerItem


class ConversationItemRetrieved(ServerStruct, frozen=True, kw_only=True, tag="conversation.item.retrieved"):
    """The only event whose item carries its audio."""

    item: ServerItem


class ConversationItemTruncated(ServerStruct, frozen=True, kw_only=True, tag="conversation.item.truncated"):
    item_id: str
    content_index: int = 0
    audio_end_ms: int


class ConversationItemInputAudioTranscriptionDelta(
    ServerStruct, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.delta"
):
    item_id: str
    content_index: int = 0
    delta: str = ""
    logprobs: Sequence[LogProb] | UnsetType | None = UNSET
    obfuscation: str | UnsetType = UNSET


class ConversationItemInputAudioTranscriptionCompleted(
    ServerStruct, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.completed"
):
    """Comes any time after the commit, also after the response, and in no sure order: match it by `item_id`."""

    item_id: str
    content_index: int = 0
    transcript: str
    usage: TranscriptionUsage | UnsetType | None = UNSET
    logprobs: Sequence[LogProb] | UnsetType | None = UNSET
    languages: Sequence[TranscriptionLanguage] | UnsetType | None = UNSET


class ConversationItemInputAudioTranscriptionSegment(
    ServerStruct, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.segment"
):
    """`start` and `end` are seconds of the item's audio."""

    item_id: str
    content_index: int = 0
    id: str
    text: str
    speaker: str
    start: float
    end: float


class ConversationItemInputAudioTranscriptionFailed(
    ServerStruct, frozen=True, kw_only=True, tag="conversation.item.input_audio_transcription.failed"
):
    item_id: str
    content_index: int = 0
    error: TranscriptionError


# --- Audio buffers ----------------------------------------------------------------------------------------------------


class InputAudioBufferCleared(ServerStruct, frozen=True, kw_only=True, tag="input_audio_buffer.cleared"):
    pass


class InputAudioBufferCommitted(ServerStruct, frozen=True, kw_only=True, tag="input_audio_buffer.committed"):
    previous_item_id: str | UnsetType | None = UNSET
    item_id: str


class InputAudioBufferDtmfEventReceived(ServerStruct, frozen=True, kw_only=True, tag="input_audio_buffer.dtmf_event_received"):
    """One key of a SIP caller: `event` is 0-9, *, # or A-D, `received_at` Unix seconds."""

    event: str
    received_at: int


class InputAudioBufferSpeechStarted(ServerStruct, frozen=True, kw_only=True, tag="input_audio_buffer.speech_started"):
    """`audio_start_ms` counts the audio appended in this session, less the padding kept from before the speech."""

    audio_start_ms: int
    item_id: str


class InputAudioBufferSpeechStopped(ServerStruct, frozen=True, kw_only=True, tag="input_audio_buffer.speech_stopped"):
    """`audio_end_ms` includes the silence that told the end."""

    audio_end_ms: int
    item_id: str


class InputAudioBufferTimeoutTriggered(ServerStruct, frozen=True, kw_only=True, tag="input_audio_buffer.timeout_triggered"):
    audio_start_ms: int
    audio_end_ms: int
    item_id: str


class OutputAudioBufferCleared(ServerStruct, frozen=True, kw_only=True, tag="output_audio_buffer.cleared"):
    """As its two siblings, only sent for calls over WebRTC or SIP."""

    response_id: str


class OutputAudioBufferStarted(ServerStruct, frozen=True, kw_only=True, tag="output_audio_buffer.started"):
    response_id: str


class OutputAudioBufferStopped(ServerStruct, frozen=True, kw_only=True, tag="output_audio_buffer.stopped"):
    response_id: str


# --- Response ---------------------------------------------------------------------------------------------------------


class ResponseCreated(ServerStruct, frozen=True, kw_only=True, tag="response.created"):
    response: Response


class ResponseDone(ServerStruct, frozen=True, kw_only=True, tag="response.done"):
    """Always the last of its response, also when it was cancelled or failed."""

    response: Response


class ResponseOutputItemAdded(ServerStruct, frozen=True, kw_only=True, tag="response.output_item.added"):
    response_id: str
    output_index: int = 0
    item: ServerItem


class ResponseOutputItemDone(ServerStruct, frozen=True, kw_only=True, tag="response.output_item.done"):
    response_id: str
    output_index: int = 0
    item: ServerItem


class ResponseContentPartAdded(ServerStruct, frozen=True, kw_only=True, tag="response.content_part.added"):
    """The part has its short type here: text or audio."""

    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    part: ContentPart


class ResponseContentPartDone(ServerStruct, frozen=True, kw_only=True, tag="response.content_part.done"):
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    part: ContentPart


class ResponseOutputTextDelta(ServerStruct, frozen=True, kw_only=True, gc=False, tag="response.output_text.delta"):
    """`obfuscation` is padding against those who count bytes on the wire; it means nothing."""

    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    delta: str
    obfuscation: str | UnsetType = UNSET


class ResponseOutputTextDone(ServerStruct, frozen=True, kw_only=True, tag="response.output_text.done"):
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    text: str


# Without the collector's header: it holds only text and numbers, and it is the most frequent event of all.
class ResponseOutputAudioDelta(ServerStruct, frozen=True, kw_only=True, gc=False, tag="response.output_audio.delta"):
    """`delta` is base64 in the session's output format."""

    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    delta: str


class ResponseOutputAudioDone(ServerStruct, frozen=True, kw_only=True, tag="response.output_audio.done"):
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0


class ResponseOutputAudioTranscriptDelta(
    ServerStruct, frozen=True, kw_only=True, gc=False, tag="response.output_audio_transcript.delta"
):
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    delta: str
    obfuscation: str | UnsetType = UNSET


class ResponseOutputAudioTranscriptDone(ServerStruct, frozen=True, kw_only=True, tag="response.output_audio_transcript.done"):
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    transcript: str


class ResponseFunctionCallArgumentsDelta(ServerStruct, frozen=True, kw_only=True, tag="response.function_call_arguments.delta"):
    response_id: str
    item_id: str
    output_index: int = 0
    call_id: str
    delta: str
    obfuscation: str | UnsetType = UNSET


class ResponseFunctionCallArgumentsDone(ServerStruct, frozen=True, kw_only=True, tag="response.function_call_arguments.done"):
    """`name` is unset with servers older than the GA types."""

    response_id: str
    item_id: str
    output_index: int = 0
    call_id: str
    name: str | UnsetType = UNSET
    arguments: str


# --- MCP --------------------------------------------------------------------------------------------------------------


class McpListToolsCompleted(ServerStruct, frozen=True, kw_only=True, tag="mcp_list_tools.completed"):
    item_id: str


class McpListToolsFailed(ServerStruct, frozen=True, kw_only=True, tag="mcp_list_tools.failed"):
    item_id: str


class McpListToolsInProgress(ServerStruct, frozen=True, kw_only=True, tag="mcp_list_tools.in_progress"):
    item_id: str


class ResponseMcpCallArgumentsDelta(ServerStruct, frozen=True, kw_only=True, tag="response.mcp_call_arguments.delta"):
    response_id: str
    item_id: str
    output_index: int = 0
    delta: str
    obfuscation: str | UnsetType | None = UNSET


class ResponseMcpCallArgumentsDone(ServerStruct, frozen=True, kw_only=True, tag="response.mcp_call_arguments.done"):
    response_id: str
    item_id: str
    output_index: int = 0
    arguments: str


class ResponseMcpCallCompleted(ServerStruct, frozen=True, kw_only=True, tag="response.mcp_call.completed"):
    """As its two siblings without a `response_id`."""

    output_index: int = 0
    item_id: str


class ResponseMcpCallFailed(ServerStruct, frozen=True, kw_only=True, tag="response.mcp_call.failed"):
    output_index: int = 0
    item_id: str


class ResponseMcpCallInProgress(ServerStruct, frozen=True, kw_only=True, tag="response.mcp_call.in_progress"):
    output_index: int = 0
    item_id: str


ServerEvent: TypeAlias = (
    ConversationCreated
    | ConversationItemAdded
    | ConversationItemCreated
    | ConversationItemDeleted
    | ConversationItemDone
    | ConversationItemInputAudioTranscriptionCompleted
    | ConversationItemInputAudioTranscriptionDelta
    | ConversationItemInputAudioTranscriptionFailed
    | ConversationItemInputAudioTranscriptionSegment
    | ConversationItemRetrieved
    | ConversationItemTruncated
    | ErrorEvent
    | InputAudioBufferCleared
    | InputAudioBufferCommitted
    | InputAudioBufferDtmfEventReceived
    | InputAudioBufferSpeechStarted
    | InputAudioBufferSpeechStopped
    | InputAudioBufferTimeoutTriggered
    | McpListToolsCompleted
    | McpListToolsFailed
    | McpListToolsInProgress
    | OutputAudioBufferCleared
    | OutputAudioBufferStarted
    | OutputAudioBufferStopped
    | RateLimitsUpdated
    | ResponseContentPartAdded
    | ResponseContentPartDone
    | ResponseCreated
    | ResponseDone
    | ResponseFunctionCallArgumentsDelta
    | ResponseFunctionCallArgumentsDone
    | ResponseMcpCallArgumentsDelta
    | ResponseMcpCallArgumentsDone
    | ResponseMcpCallCompleted
    | ResponseMcpCallFailed
    | ResponseMcpCallInProgress
    | ResponseOutputAudioDelta
    | ResponseOutputAudioDone
    | ResponseOutputAudioTranscriptDelta
    | ResponseOutputAudioTranscriptDone
    | ResponseOutputItemAdded
    | ResponseOutputItemDone
    | ResponseOutputTextDelta
    | ResponseOutputTextDone
    | SessionCreated
    | SessionUpdated
)
