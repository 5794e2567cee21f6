"""A playback tracker for callers behind a carrier that buffers audio and echoes marks, such as Twilio Media Streams."""

from __future__ import annotations

import time
from collections.abc import Callable

from orchestrator.core.marks import MARK_EVERY_MS, PlaybackMarks
from orchestrator.core.playback import PlaybackCursor
from orchestrator.errors import UserError
from orchestrator.realtime.model import RealtimePlaybackState, RealtimePlaybackTracker

__all__ = ["MarkPlaybackTracker"]


class MarkPlaybackTracker(RealtimePlaybackTracker):
    """Knows what a phone has played from the marks that come back, and between two of them from the clock.

    Give it to the session as `model_config["playback_tracker"]`, one per call, and tell it what goes to the carrier and what
    comes from there::

        case RealtimeAudio():             # send the audio, then the mark that this returns, if any
            tracker.on_sent(event.item_id, event.content_index, event.audio.duration_ms)
        case RealtimeAudioEnd():          # send the mark that this returns, if any
            tracker.on_audio_end()
        case RealtimeAudioInterrupted():  # send `clear` after this
            tracker.on_clear()
        ...
        tracker.on_mark(name)             # a mark came back

    A carrier that is told to clear sends all marks back that are out, as if they had been played. Those count for nothing here,
    also when they come late. `every_ms` is the least distance of two marks; `clock` gives seconds, and never goes back.
    """

    def __init__(self, *, every_ms: float = MARK_EVERY_MS, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._cursor = PlaybackCursor()
        self._marks = PlaybackMarks(every_ms)

    @property
    def is_playing(self) -> bool:
        """Whether audio that was sent is still being played."""
        return self._cursor.is_playing(self._clock())

    def on_sent(self, item_id: str, item_content_index: int, duration_ms: float) -> str | None:
        """Report audio that was sent to the carrier; return the name of the mark to send after it, or None for no mark."""
        return self._marks.due(self._cursor.sent(item_id, item_content_index, duration_ms, self._clock()))

    def on_audio_end(self) -> str | None:
        """Report that the agent has said all; return the name of the mark to send, or None for no mark."""
        return self._marks.at(self._cursor.sent_ms)

    def on_mark(self, name: str) -> bool:
        """Report a mark that came back; return False for one that a `clear` threw back, or that is not of this tracker."""
        position = self._marks.position(name)
        if position is None:
            return False
        self._cursor.reached(position, self._clock())
        return True

    def on_clear(self) -> None:
        """Report that the carrier is about to be told to drop what it has not played."""
        # What was sent before is over, so the stream of audio begins anew; marks of the old one are void.
        self._cursor = PlaybackCursor()
        self._marks.void(0.0)

    def on_interrupted(self) -> None:
        """Forget what was playing; the session calls it after an interruption."""
        self.on_clear()

    def on_play_ms(self, item_id: str, item_content_index: int, ms: float) -> None:
        """Refuse: here the marks say what was played. Raises UserError."""
        raise UserError("a MarkPlaybackTracker is told what is sent and which marks come back: call on_sent and on_mark")

    def get_state(self) -> RealtimePlaybackState:
        """Return where playback is; after the last audio was heard, its end."""
        current = self._cursor.current(self._clock())
        if current is None:
            return {"current_item_id": None, "current_item_content_index": None, "elapsed_ms": None}
        return {
            "current_item_id": current.item_id,
            "current_item_content_index": current.content_index,
            "elapsed_ms": current.heard_ms,
        }
