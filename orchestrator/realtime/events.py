"""What a session reports to the program. The names are the guide's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from orchestrator.core.events import RealtimeModelAudioEvent, RealtimeModelEvent
from orchestrator.core.items import RealtimeItem
from orchestrator.core.playback import Cut
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.run_context import RunContextWrapper
from orchestrator.tool import FunctionTool

__all__ = [
    "RealtimeAgentEndEvent",
    "RealtimeAgentStartEvent",
    "RealtimeAudio",
    "RealtimeAudioEnd",
    "RealtimeAudioInterrupted",
    "RealtimeError",
    "RealtimeEventInfo",
    "RealtimeGuardrailTripped",
    "RealtimeHandoffEvent",
    "RealtimeHistoryAdded",
    "RealtimeHistoryUpdated",
    "RealtimeInputAudioTimeoutTriggered",
    "RealtimeRawModelEvent",
    "RealtimeSessionEvent",
    "RealtimeToolApprovalRequired",
    "RealtimeToolEnd",
    "RealtimeToolStart",
    "RealtimeTranscriptDelta",
]


@dataclass(slots=True)
class RealtimeEventInfo:
    """What every event carries."""

    context: RunContextWrapper[Any]


@dataclass(slots=True)
class RealtimeAgentStartEvent:
    """An agent begins a response."""

    agent: RealtimeAgent[Any]
    info: RealtimeEventInfo
    type: Literal["agent_start"] = "agent_start"


@dataclass(slots=True)
class RealtimeAgentEndEvent:
    """The agent that began the response ends it."""

    agent: RealtimeAgent[Any]
    info: RealtimeEventInfo
    type: Literal["agent_end"] = "agent_end"


@dataclass(slots=True)
class RealtimeHandoffEvent:
    """The conversation went from one agent to another; `call_id` is the call that asked for it."""

    from_agent: RealtimeAgent[Any]
    to_agent: RealtimeAgent[Any]
    info: RealtimeEventInfo
    call_id: str = ""
    type: Literal["handoff"] = "handoff"


@dataclass(slots=True)
class RealtimeToolApprovalRequired:
    """A tool call waits for `approve_tool_call` or `reject_tool_call`; nothing goes to the model meanwhile."""

    agent: RealtimeAgent[Any]
    tool: FunctionTool
    call_id: str
    arguments: str
    info: RealtimeEventInfo
    type: Literal["tool_approval_required"] = "tool_approval_required"


@dataclass(slots=True)
class RealtimeGuardrailTripped:
    """A guardrail stopped a response. `guardrail_results` are those that tripped, `message` the text that was checked."""

    guardrail_results: list[Any]
    message: str
    info: RealtimeEventInfo
    type: Literal["guardrail_tripped"] = "guardrail_tripped"


@dataclass(slots=True)
class RealtimeTranscriptDelta:
    """Words of the agent as they come, spoken or written."""

    item_id: str
    content_index: int
    delta: str
    info: RealtimeEventInfo
    type: Literal["transcript_delta"] = "transcript_delta"


@dataclass(slots=True)
class RealtimeToolStart:
    """A tool is about to run; `arguments` is JSON text."""

    agent: RealtimeAgent[Any]
    tool: FunctionTool
    arguments: str
    info: RealtimeEventInfo
    call_id: str = ""
    type: Literal["tool_start"] = "tool_start"


@dataclass(slots=True)
class RealtimeToolEnd:
    """A tool's output was sent to the model. `output` is what the tool returned; where it ran, `pid`; how long, `seconds`."""

    agent: RealtimeAgent[Any]
    tool: FunctionTool
    arguments: str
    output: Any
    info: RealtimeEventInfo
    call_id: str = ""
    ok: bool = True
    error_code: str | None = None
    pid: int = 0
    seconds: float = 0.0
    type: Literal["tool_end"] = "tool_end"


@dataclass(slots=True)
class RealtimeAudio:
    """Agent audio to be played."""

    audio: RealtimeModelAudioEvent
    item_id: str
    content_index: int
    info: RealtimeEventInfo
    type: Literal["audio"] = "audio"


@dataclass(slots=True)
class RealtimeAudioEnd:
    """All audio of a part is there."""

    info: RealtimeEventInfo
    item_id: str
    content_index: int
    type: Literal["audio_end"] = "audio_end"


@dataclass(slots=True)
class RealtimeAudioInterrupted:
    """Stop playing and drop what is queued. `cut` says how much was heard, where that is known."""

    info: RealtimeEventInfo
    item_id: str
    content_index: int
    cut: Cut | None = None
    type: Literal["audio_interrupted"] = "audio_interrupted"


@dataclass(slots=True)
class RealtimeError:
    """Something went wrong; the session goes on."""

    error: Any
    info: RealtimeEventInfo
    type: Literal["error"] = "error"


@dataclass(slots=True)
class RealtimeHistoryUpdated:
    """Items changed or went away; `history` is the whole of it."""

    history: list[RealtimeItem]
    info: RealtimeEventInfo
    type: Literal["history_updated"] = "history_updated"


@dataclass(slots=True)
class RealtimeHistoryAdded:
    """A new item."""

    item: RealtimeItem
    info: RealtimeEventInfo
    type: Literal["history_added"] = "history_added"


@dataclass(slots=True)
class RealtimeInputAudioTimeoutTriggered:
    """The caller was silent for the configured time."""

    info: RealtimeEventInfo
    type: Literal["input_audio_timeout_triggered"] = "input_audio_timeout_triggered"


@dataclass(slots=True)
class RealtimeRawModelEvent:
    """An event of the model as it is; it comes before what it leads to."""

    data: RealtimeModelEvent
    info: RealtimeEventInfo
    type: Literal["raw_model_event"] = "raw_model_event"


RealtimeSessionEvent: TypeAlias = (
    RealtimeAgentEndEvent
    | RealtimeAgentStartEvent
    | RealtimeAudio
    | RealtimeAudioEnd
    | RealtimeAudioInterrupted
    | RealtimeError
    | RealtimeGuardrailTripped
    | RealtimeHandoffEvent
    | RealtimeHistoryAdded
    | RealtimeHistoryUpdated
    | RealtimeInputAudioTimeoutTriggered
    | RealtimeRawModelEvent
    | RealtimeToolApprovalRequired
    | RealtimeToolEnd
    | RealtimeToolStart
    | RealtimeTranscriptDelta
)
