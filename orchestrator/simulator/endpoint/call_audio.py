"""The audio that a phone call plays: when it starts, when it has been heard, and what an interruption leaves of it.

Pure. Over WebRTC and SIP the endpoint itself plays what the model says, so it knows what was heard: it reports the state of
its output buffer, and truncates an interrupted item by itself. Over a WebSocket it only estimates when playback ends. Audio
out of band takes its turn in the same buffer, piece by piece, so such a response may be heard at the same time as another.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from orchestrator.errors import WireError
from orchestrator.simulator.endpoint.playback import Playback
from orchestrator.wire.realtime_server import (
    ConversationItemTruncated,
    OutputAudioBufferCleared,
    OutputAudioBufferStarted,
    OutputAudioBufferStopped,
)

if TYPE_CHECKING:
    from orchestrator.simulator.endpoint.playback import Unheard
    from orchestrator.simulator.endpoint.state import SessionState

__all__ = ["CallAudio"]


@dataclass
class _Buffered:
    """The audio of one response in the output buffer. `complete` says that nothing is to be added."""

    ends_at: float
    started: bool = False
    complete: bool = False


class CallAudio:
    """What is played of the responses of one session. `in_call` is false for a WebSocket, which plays by itself."""

    def __init__(self, state: SessionState, *, in_call: bool) -> None:
        self._state = state
        self._in_call = in_call
        self._playback = Playback()
        self._buffered: dict[str, _Buffered] = {}
        self._muted: set[str] = set()

    @property
    def ends_at(self) -> float:
        """When all that was said has been played, as far as is known."""
        return self._playback.ends_at

    def played(self, response_id: str, item_id: str, milliseconds: float) -> bool:
        """Audio of a response goes out. False: it does not, since the buffer was cleared and nothing more is wanted of it."""
        if response_id in self._muted:
            return False
        timeline = self._state.timeline
        start = self._playback.add(response_id, item_id, milliseconds / 1000, timeline.now)
        if self._in_call:
            buffered = self._buffered.get(response_id)
            if buffered is None:
                buffered = self._buffered[response_id] = _Buffered(self._playback.ends_at)
                if start <= timeline.now:
                    self._start(response_id)
                else:
                    timeline.at(start, partial(self._start, response_id))
            buffered.ends_at = self._playback.ends_at
        return True

    def complete(self, response_id: str) -> None:
        """The response is done; its audio may play on."""
        self._muted.discard(response_id)
        buffered = self._buffered.get(response_id)
        if buffered is not None:
            buffered.complete = True
            timeline = self._state.timeline
            timeline.at(max(buffered.ends_at, timeline.now), partial(self._stop, response_id))

    def interrupt(self) -> None:
        """The caller speaks, and nothing is to be heard any more."""
        unheard = self._playback.cut(self._state.timeline.now)
        if not self._in_call:
            return
        silenced = dict.fromkeys(cut.response_id for cut in unheard)
        for response_id in silenced:
            buffered = self._buffered.pop(response_id)
            if not buffered.complete:
                self._muted.add(response_id)
            if buffered.started:
                self._state.timeline.send(OutputAudioBufferCleared(response_id=response_id))
        for cut in unheard:
            self._truncate(cut)

    def _start(self, response_id: str) -> None:
        buffered = self._buffered.get(response_id)
        if buffered is not None and not buffered.started:
            # One that ends at this very moment ends first.
            now = self._state.timeline.now
            for earlier in [known for known, other in self._buffered.items() if other.complete and other.ends_at <= now]:
                self._stop(earlier)
            buffered.started = True
            self._state.timeline.send(OutputAudioBufferStarted(response_id=response_id))

    def _stop(self, response_id: str) -> None:
        if self._buffered.pop(response_id, None) is not None:
            self._state.timeline.send(OutputAudioBufferStopped(response_id=response_id))

    def _truncate(self, cut: Unheard) -> None:
        try:
            self._state.conversation.truncate(cut.item_id, 0, cut.heard_ms)
        except WireError:
            # It was deleted, was said out of band, or a client has cut it shorter.
            return
        event = ConversationItemTruncated(item_id=cut.item_id, content_index=0, audio_end_ms=cut.heard_ms)
        self._state.timeline.send(event)
