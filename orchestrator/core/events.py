"""What a model reports to its session, whatever the model is. The names are the guide's; `speech_*` is an addition."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from orchestrator.core.items import RealtimeItem
from orchestrator.core.playback import Cut
from orchestrator.usage import CachedTokensDetails, InputTokensDetails, OutputTokensDetails, Usage

__all__ = [
    "CachedTokensDetails",
    "InputTokensDetails",
    "OutputTokensDetails",
    "RealtimeModelAudioDoneEvent",
    "RealtimeModelAudioEvent",
    "RealtimeModelAudioInterruptedEvent",
    "RealtimeModelConnectionStatusEvent",
    "RealtimeModelEndOfStreamEvent",
    "RealtimeModelErrorEvent",
    "RealtimeModelEvent",
    "RealtimeModelExceptionEvent",
    "RealtimeModelInputAudioTimeoutTriggeredEvent",
    "RealtimeModelInputAudioTranscriptionCompletedEvent",
    "RealtimeModelItemDeletedEvent",
    "RealtimeModelItemPlacedEvent",
    "RealtimeModelItemUpdatedEvent",
    "RealtimeModelOtherEvent",
    "RealtimeModelOutputTextDeltaEvent",
    "RealtimeModelRawServerEvent",
    "RealtimeModelRenewedEvent",
    "RealtimeModelRenewingEvent",
    "RealtimeModelResponseLostEvent",
    "RealtimeModelSpeechStartedEvent",
    "RealtimeModelSpeechStoppedEvent",
    "RealtimeModelToolCallEvent",
    "RealtimeModelToolOutputEvent",
    "RealtimeModelTranscriptDeltaEvent",
    "RealtimeModelTurnEndedEvent",
    "RealtimeModelTurnStartedEvent",
    "RealtimeModelUsageEvent",
]


class RealtimeModelAudioEvent:
    """Agent audio. `payload` is the base64 text as it came; `data` decodes it when somebody asks for bytes.

    Telephone calls never ask: what the model encoded goes to the carrier untouched.
    """

    __slots__ = ("_data", "content_index", "duration_ms", "item_id", "payload", "response_id")
    type: Literal["audio"] = "audio"

    def __init__(
        self, data: bytes = b"", response_id: str = "", item_id: str = "", content_index: int = 0, *, duration_ms: float = 0.0
    ) -> None:
        self._data: bytes | None = data
        self.payload = base64.b64encode(data).decode() if data else ""
        self.response_id = response_id
        self.item_id = item_id
        self.content_index = content_index
        self.duration_ms = duration_ms

    @classmethod
    def from_payload(
        cls, payload: str, response_id: str, item_id: str, content_index: int, duration_ms: float
    ) -> RealtimeModelAudioEvent:
        """Wrap a base64 payload without decoding it."""
        event = cls.__new__(cls)
        event._data = None
        event.payload = payload
        event.response_id = response_id
        event.item_id = item_id
        event.content_index = content_index
        event.duration_ms = duration_ms
        return event

    @property
    def data(self) -> bytes:
        """The audio, in the session's output format."""
        if self._data is None:
            self._data = base64.b64decode(self.payload)
        return self._data

    def __repr__(self) -> str:
        return f"RealtimeModelAudioEvent(item_id={self.item_id!r}, {self.duration_ms:.0f} ms)"


@dataclass(slots=True)
class RealtimeModelErrorEvent:
    """The model refused something or failed; the session goes on."""

    error: Any
    type: Literal["error"] = "error"


@dataclass(slots=True)
class RealtimeModelToolCallEvent:
    """The model calls a tool.

    A model that sets `response_id` says that it reports the end of that response: what asks for the next one waits for it.
    """

    name: str
    call_id: str
    arguments: str
    id: str | None = None
    previous_item_id: str | None = None
    response_id: str | None = None
    type: Literal["function_call"] = "function_call"


@dataclass(slots=True)
class RealtimeModelToolOutputEvent:
    """The output of a tool call is in the model's conversation, as the item `item_id` after `previous_item_id`."""

    call_id: str
    output: str
    item_id: str
    previous_item_id: str | None = None
    type: Literal["function_call_output"] = "function_call_output"


@dataclass(slots=True)
class RealtimeModelAudioInterruptedEvent:
    """Playback of an item was cut. `cut` says where; None when the model does not know."""

    item_id: str
    content_index: int
    cut: Cut | None = None
    type: Literal["audio_interrupted"] = "audio_interrupted"


@dataclass(slots=True)
class RealtimeModelAudioDoneEvent:
    """All audio of a part was sent."""

    item_id: str
    content_index: int
    type: Literal["audio_done"] = "audio_done"


@dataclass(slots=True)
class RealtimeModelSpeechStartedEvent:
    """The caller began to speak."""

    item_id: str
    audio_start_ms: int = 0
    type: Literal["speech_started"] = "speech_started"


@dataclass(slots=True)
class RealtimeModelSpeechStoppedEvent:
    """The caller's turn ended."""

    item_id: str
    audio_end_ms: int = 0
    type: Literal["speech_stopped"] = "speech_stopped"


@dataclass(slots=True)
class RealtimeModelInputAudioTranscriptionCompletedEvent:
    """What the caller said, as the transcription model heard it."""

    item_id: str
    transcript: str
    type: Literal["input_audio_transcription_completed"] = "input_audio_transcription_completed"


@dataclass(slots=True)
class RealtimeModelInputAudioTimeoutTriggeredEvent:
    """The caller has been silent for the configured time."""

    item_id: str
    audio_start_ms: int
    audio_end_ms: int
    type: Literal["input_audio_timeout_triggered"] = "input_audio_timeout_triggered"


@dataclass(slots=True)
class RealtimeModelTranscriptDeltaEvent:
    """Words that the agent speaks."""

    item_id: str
    delta: str
    response_id: str
    content_index: int = 0
    type: Literal["transcript_delta"] = "transcript_delta"


@dataclass(slots=True)
class RealtimeModelOutputTextDeltaEvent:
    """Words that the agent writes."""

    item_id: str
    delta: str
    response_id: str
    content_index: int = 0
    type: Literal["output_text_delta"] = "output_text_delta"


@dataclass(slots=True)
class RealtimeModelItemUpdatedEvent:
    """An item of the conversation is new or changed."""

    item: RealtimeItem
    type: Literal["item_updated"] = "item_updated"


@dataclass(slots=True)
class RealtimeModelItemPlacedEvent:
    """An item that has nothing to show, or not yet, stands here in the conversation."""

    item_id: str
    previous_item_id: str | None = None
    type: Literal["item_placed"] = "item_placed"


@dataclass(slots=True)
class RealtimeModelItemDeletedEvent:
    """An item is gone."""

    item_id: str
    type: Literal["item_deleted"] = "item_deleted"


@dataclass(slots=True)
class RealtimeModelConnectionStatusEvent:
    """The connection to the model changed."""

    status: Literal["connecting", "connected", "disconnected"]
    type: Literal["connection_status"] = "connection_status"


@dataclass(slots=True)
class RealtimeModelEndOfStreamEvent:
    """The model ended the connection in good order; no more events come."""

    type: Literal["end_of_stream"] = "end_of_stream"


@dataclass(slots=True)
class RealtimeModelTurnStartedEvent:
    """A response began."""

    type: Literal["turn_started"] = "turn_started"
    response_id: str | None = None


@dataclass(slots=True)
class RealtimeModelTurnEndedEvent:
    """A response ended; `status` is completed, cancelled, incomplete or failed."""

    type: Literal["turn_ended"] = "turn_ended"
    response_id: str | None = None
    status: str | None = None


@dataclass(slots=True)
class RealtimeModelUsageEvent:
    """Tokens of one response; the details are None where the model counts no modalities."""

    usage: Usage
    input_tokens_details: InputTokensDetails | None = None
    output_tokens_details: OutputTokensDetails | None = None
    response_id: str | None = None
    type: Literal["usage"] = "usage"


@dataclass(slots=True)
class RealtimeModelOtherEvent:
    """Something of a provider's own that has no event here. The session only passes it on, as a raw model event."""

    data: Any
    type: Literal["other"] = "other"


@dataclass(slots=True)
class RealtimeModelExceptionEvent:
    """The model failed for good; the session ends with this exception."""

    exception: Exception
    context: str | None = None
    type: Literal["exception"] = "exception"


@dataclass(slots=True)
class RealtimeModelRawServerEvent:
    """An event exactly as the server sent it."""

    data: Any
    type: Literal["raw_server_event"] = "raw_server_event"


@dataclass(slots=True)
class RealtimeModelResponseLostEvent:
    """A response will never be finished, since its connection is gone. `item_ids` are the messages that it had begun.

    `texts` holds what it had written in them, by item; what it had spoken is known from its words.
    """

    response_id: str
    item_ids: tuple[str, ...] = ()
    texts: dict[str, str] = field(default_factory=dict)
    type: Literal["response_lost"] = "response_lost"


@dataclass(slots=True)
class RealtimeModelRenewingEvent:
    """The connection to the model is gone, and another is being made; the conversation goes on. `cause` is a short code."""

    cause: str
    type: Literal["renewing"] = "renewing"


@dataclass(slots=True)
class RealtimeModelRenewedEvent:
    """The conversation goes on over a new connection, which was told of the items `item_ids`.

    `seconds` passed without one: 0 where the next was ready before the last was given up.
    """

    seconds: float
    cause: str
    item_ids: tuple[str, ...] = ()
    type: Literal["renewed"] = "renewed"


RealtimeModelEvent: TypeAlias = (
    RealtimeModelAudioDoneEvent
    | RealtimeModelAudioEvent
    | RealtimeModelAudioInterruptedEvent
    | RealtimeModelConnectionStatusEvent
    | RealtimeModelEndOfStreamEvent
    | RealtimeModelErrorEvent
    | RealtimeModelExceptionEvent
    | RealtimeModelInputAudioTimeoutTriggeredEvent
    | RealtimeModelInputAudioTranscriptionCompletedEvent
    | RealtimeModelItemDeletedEvent
    | RealtimeModelItemPlacedEvent
    | RealtimeModelItemUpdatedEvent
    | RealtimeModelOtherEvent
    | RealtimeModelOutputTextDeltaEvent
    | RealtimeModelRawServerEvent
    | RealtimeModelRenewedEvent
    | RealtimeModelRenewingEvent
    | RealtimeModelResponseLostEvent
    | RealtimeModelSpeechStartedEvent
    | RealtimeModelSpeechStoppedEvent
    | RealtimeModelToolCallEvent
    | RealtimeModelToolOutputEvent
    | RealtimeModelTranscriptDeltaEvent
    | RealtimeModelTurnEndedEvent
    | RealtimeModelTurnStartedEvent
    | RealtimeModelUsageEvent
)
