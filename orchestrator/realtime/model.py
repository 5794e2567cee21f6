"""The seam between a session and the model it talks to."""

from __future__ import annotations

import abc
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NotRequired, Protocol, TypedDict, runtime_checkable

from orchestrator.core.events import RealtimeModelEvent
from orchestrator.core.inputs import RealtimeModelSendEvent
from orchestrator.core.items import RealtimeItem
from orchestrator.realtime.audio_formats import duration_ms
from orchestrator.realtime.config import RealtimeSessionModelSettings

__all__ = [
    "DirectListener",
    "DirectModel",
    "RealtimeModel",
    "RealtimeModelConfig",
    "RealtimeModelListener",
    "RealtimePlaybackState",
    "RealtimePlaybackTracker",
    "RenewableModel",
]


class RealtimePlaybackState(TypedDict):
    """Where the caller's playback is; all None while nothing plays."""

    current_item_id: str | None
    current_item_content_index: int | None
    elapsed_ms: float | None


class RealtimePlaybackTracker:
    """Tells the session what its user has really played, where playback is remote or delayed.

    Call `on_play_bytes` or `on_play_ms` as audio is played; reports for the same part add up.
    """

    def __init__(self) -> None:
        self._format: Any = None
        self._current: tuple[str, int] | None = None
        self._elapsed_ms = 0.0

    def on_play_bytes(self, item_id: str, item_content_index: int, bytes: bytes) -> None:  # noqa: A002 - the guide's name
        """Report audio, in the output format, that was played."""
        self.on_play_ms(item_id, item_content_index, duration_ms(self._format, len(bytes)))

    def on_play_ms(self, item_id: str, item_content_index: int, ms: float) -> None:
        """Report milliseconds that were played."""
        if self._current == (item_id, item_content_index):
            self._elapsed_ms += ms
        else:
            self._current = (item_id, item_content_index)
            self._elapsed_ms = ms

    def on_interrupted(self) -> None:
        """Forget what was playing; the session calls it after an interruption."""
        self._current = None
        self._elapsed_ms = 0.0

    def set_audio_format(self, format: Any) -> None:  # noqa: A002 - the guide's name
        """Set the output format; the model calls it."""
        self._format = format

    def get_state(self) -> RealtimePlaybackState:
        """Return where playback is."""
        if self._current is None:
            return {"current_item_id": None, "current_item_content_index": None, "elapsed_ms": None}
        item_id, index = self._current
        return {"current_item_id": item_id, "current_item_content_index": index, "elapsed_ms": self._elapsed_ms}


class RealtimeModelConfig(TypedDict):
    """How to reach the model. With `headers`, no Authorization is added. `api_key` may be a function, plain or async."""

    api_key: NotRequired[str | Callable[[], str | Awaitable[str]]]
    url: NotRequired[str]
    headers: NotRequired[dict[str, str]]
    initial_model_settings: NotRequired[RealtimeSessionModelSettings]
    playback_tracker: NotRequired[RealtimePlaybackTracker]
    call_id: NotRequired[str]


class RealtimeModelListener(abc.ABC):
    """Hears what a model reports."""

    @abc.abstractmethod
    async def on_event(self, event: RealtimeModelEvent) -> None:
        """Take in one event; events come one at a time, in order."""


class RealtimeModel(abc.ABC):
    """A realtime model behind some transport. Implement it to bring another provider."""

    @abc.abstractmethod
    async def connect(self, options: RealtimeModelConfig) -> None:
        """Open the connection and apply `initial_model_settings`."""

    @abc.abstractmethod
    def add_listener(self, listener: RealtimeModelListener) -> None:
        """Add a listener; adding one twice has no effect."""

    @abc.abstractmethod
    def remove_listener(self, listener: RealtimeModelListener) -> None:
        """Remove a listener."""

    @abc.abstractmethod
    async def send_event(self, event: RealtimeModelSendEvent) -> None:
        """Send something to the model."""

    async def send_event_if(self, event: RealtimeModelSendEvent, send_if: Callable[[], bool]) -> bool:
        """Send if the condition holds now, and tell whether it did.

        A model whose `send_event` waits before it sends must check again at that moment, by a method of its own.
        """
        if not send_if():
            return False
        await self.send_event(event)
        return True

    @abc.abstractmethod
    async def close(self) -> None:
        """Close the connection; harmless when it is closed."""


@runtime_checkable
class DirectModel(Protocol):
    """A model that takes input without awaiting. Sessions use it where they can, so that nothing waits in a queue."""

    def send_nowait(self, event: RealtimeModelSendEvent) -> None:
        """Send something to the model now."""


@runtime_checkable
class RenewableModel(Protocol):
    """A model whose connection can be made anew in the middle of a conversation, if it is told what was said."""

    def follow(self, history: Callable[[], Sequence[RealtimeItem]]) -> None:
        """Take the conversation from here; to be called before `connect`."""

    @property
    def tells_history(self) -> bool:
        """Does `connect` tell of what `follow` returns, so that nobody else need?"""

    def renew(self, cause: str) -> None:
        """Replace the connection at the next quiet moment. Raises UserError where this model cannot."""


@runtime_checkable
class DirectListener(Protocol):
    """A listener that takes events without awaiting."""

    def receive_nowait(self, event: RealtimeModelEvent) -> None:
        """Take in one event now."""
