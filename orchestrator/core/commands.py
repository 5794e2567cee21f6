"""What the pure core asks its shell to do. A closed union: the shell's `match` ends in `assert_never`."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from orchestrator.core.events import RealtimeModelEvent
from orchestrator.core.items import RealtimeItem
from orchestrator.core.playback import Cut
from orchestrator.core.tool_calls import Answer, ToolCall

__all__ = [
    "AnswerTool",
    "AudioCut",
    "AudioEnded",
    "Emit",
    "Ended",
    "Fault",
    "HistoryChanged",
    "ItemAdded",
    "ModelCommand",
    "Renewed",
    "Renewing",
    "Rewrite",
    "Send",
    "SessionCommand",
    "SpeechBegan",
    "SpeechEnded",
    "StartTool",
    "TimedOut",
    "TurnBegan",
    "TurnEnded",
    "Used",
]


class Send(msgspec.Struct, frozen=True):
    """Send this client event to the model."""

    event: Any


class Emit(msgspec.Struct, frozen=True):
    """Report this model event to the listeners."""

    event: RealtimeModelEvent


class Rewrite(msgspec.Struct, frozen=True):
    """Tell the model anew of this item as the history has it now.

    It is one that we told the model of, as text, so there is no audio of it there that could be truncated at `audio_end_ms`.
    """

    item_id: str
    content_index: int
    audio_end_ms: int


ModelCommand: TypeAlias = Send | Emit | Rewrite


class ItemAdded(msgspec.Struct, frozen=True):
    """The history has a new item."""

    item: RealtimeItem


class HistoryChanged(msgspec.Struct, frozen=True):
    """Items of the history changed or went away."""


class TurnBegan(msgspec.Struct, frozen=True):
    """A response of this agent began."""

    agent: str


class TurnEnded(msgspec.Struct, frozen=True):
    """A response of this agent ended."""

    agent: str
    status: str | None


class SpeechBegan(msgspec.Struct, frozen=True):
    """The caller began to speak."""


class SpeechEnded(msgspec.Struct, frozen=True):
    """The caller stopped."""


class AudioCut(msgspec.Struct, frozen=True):
    """Playback was cut: whatever is still queued towards the caller is void."""

    item_id: str
    content_index: int
    cut: Cut | None


class AudioEnded(msgspec.Struct, frozen=True):
    """All audio of a part is there."""

    item_id: str
    content_index: int


class StartTool(msgspec.Struct, frozen=True):
    """Run this call."""

    call: ToolCall


class AnswerTool(msgspec.Struct, frozen=True):
    """Give the model the output of a call."""

    answer: Answer


class Fault(msgspec.Struct, frozen=True):
    """Something went wrong that does not end the session."""

    error: Any


class Used(msgspec.Struct, frozen=True):
    """A response used so many tokens."""

    usage: Any


class TimedOut(msgspec.Struct, frozen=True):
    """The caller was silent for the configured time."""


class Renewing(msgspec.Struct, frozen=True):
    """The connection to the model is being made anew."""

    cause: str


class Renewed(msgspec.Struct, frozen=True):
    """The conversation goes on over a new connection, after so many seconds without one."""

    seconds: float
    cause: str


class Ended(msgspec.Struct, frozen=True):
    """The model is gone: in good order (None) or with an exception."""

    exception: Any


SessionCommand: TypeAlias = (
    AnswerTool
    | AudioCut
    | AudioEnded
    | Ended
    | Fault
    | HistoryChanged
    | ItemAdded
    | Renewed
    | Renewing
    | SpeechBegan
    | SpeechEnded
    | StartTool
    | TimedOut
    | TurnBegan
    | TurnEnded
    | Used
)
