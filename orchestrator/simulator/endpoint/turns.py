"""The caller's side of a session: audio in, turns out, and what happens when nobody says anything.

Pure. With turn detection, speech starts and stops a turn, may interrupt the answer to the last one and asks for the next;
without, the client commits. Either way a turn becomes an item of the conversation, and its words go their own way.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from orchestrator.simulator.endpoint.conversation import ItemAudio, Memory
from orchestrator.simulator.endpoint.input_audio import InputBuffer
from orchestrator.simulator.endpoint.real_time_gate import RealTimeGate
from orchestrator.simulator.endpoint.vad import EdgeKind
from orchestrator.wire.realtime_server import (
    ConversationItemAdded,
    ConversationItemDone,
    InputAudioBufferCleared,
    InputAudioBufferCommitted,
    InputAudioBufferSpeechStarted,
    InputAudioBufferSpeechStopped,
    InputAudioBufferTimeoutTriggered,
)
from orchestrator.wire.realtime_types import InputAudioPart, MessageItem

if TYPE_CHECKING:
    from orchestrator.simulator.endpoint.call_audio import CallAudio
    from orchestrator.simulator.endpoint.director import Heard
    from orchestrator.simulator.endpoint.hearing import Hearing
    from orchestrator.simulator.endpoint.responses import Responses
    from orchestrator.simulator.endpoint.state import SessionState
    from orchestrator.simulator.endpoint.transcripts import Transcripts
    from orchestrator.simulator.endpoint.vad import Edge

__all__ = ["Turns"]


class Turns:
    """The spoken turns of one session."""

    def __init__(
        self, state: SessionState, hearing: Hearing, transcripts: Transcripts, responses: Responses, audio: CallAudio
    ) -> None:
        self._state = state
        self._hearing = hearing
        self._transcripts = transcripts
        self._responses = responses
        self._audio = audio
        self._input = InputBuffer(state.view.input_encoding, state.view.vad, state.options.vad)
        self._gate = RealTimeGate() if state.options.real_time else None
        self._gate_timer = False
        self._item_id = ""
        self._speaking = False
        self._idle_round = 0
        self._silent_since = 0

    def configure(self) -> None:
        """The session was updated."""
        view = self._state.view
        if view.input_encoding is not self._input.encoding:
            self._forget_turn()
            if self._gate is not None:
                self._gate.drop()
        self._input.configure(view.input_encoding, view.vad)
        if view.vad is None:
            self._speaking = False

    def append(self, data: bytes) -> None:
        """Audio of the caller, in the session's input format."""
        gate = self._gate
        if gate is None:
            self._examine(data)
            return
        gate.put(data, self._state.timeline.now, self._input.encoding.bytes_per_ms)
        self._let_through(gate)

    def _let_through(self, gate: RealTimeGate) -> None:
        timeline = self._state.timeline
        if ready := gate.take(timeline.now):
            self._examine(ready)
        if gate.due is not None and not self._gate_timer:
            self._gate_timer = True
            timeline.at(gate.due, partial(self._gate_opens, gate))

    def _gate_opens(self, gate: RealTimeGate) -> None:
        self._gate_timer = False
        self._let_through(gate)

    def _examine(self, data: bytes) -> None:
        edges = self._input.append(data)
        for edge in edges:
            self._on_edge(edge)
        if not self._input.detects:
            self._transcripts.appended(self._input.held_ms, self._turn_id)

    def clear(self) -> None:
        """The client drops what was not committed."""
        if self._gate is not None:
            self._gate.drop()
        self._input.clear()
        self._forget_turn()
        self._state.timeline.send(InputAudioBufferCleared())

    def commit(self) -> None:
        """The client says that a turn is over. Raises WireError if it is too short to be one."""
        if self._gate is not None and (held := self._gate.take_all()):
            self._examine(held)
        data = self._input.commit()
        item_id = self._turn_id()
        self._item_id, self._speaking = "", False
        self._commit(item_id, data)

    def await_speech(self) -> None:
        """Nothing is said any more: from the end of playback on, the session's idle timeout counts."""
        timeout = self._state.view.idle_timeout
        self._idle_round += 1
        if timeout is None or self._speaking:
            return
        timeline = self._state.timeline
        silence = max(timeline.now, self._audio.ends_at)
        timeline.at(silence, partial(self._silence_begins, self._idle_round))
        timeline.at(silence + timeout, partial(self._silence_ends, self._idle_round))

    def _on_edge(self, edge: Edge) -> None:
        timeline, view = self._state.timeline, self._state.view
        if edge.kind is EdgeKind.STARTED:
            self._speaking = True
            self._idle_round += 1
            item_id = self._turn_id()
            self._input.begin_turn(edge.at_ms)
            timeline.send(InputAudioBufferSpeechStarted(audio_start_ms=edge.at_ms, item_id=item_id))
            if view.interrupt_response:
                self._responses.interrupt()
                self._audio.interrupt()
            return
        self._speaking = False
        item_id, self._item_id = self._turn_id(), ""
        timeline.send(InputAudioBufferSpeechStopped(audio_end_ms=edge.at_ms, item_id=item_id))
        self._commit(item_id, self._input.take_turn(edge.at_ms))
        if view.create_response:
            self._responses.turn_ended()

    def _commit(self, item_id: str, data: bytes) -> None:
        """A spoken turn becomes an item of the conversation."""
        state = self._state
        audio = ItemAudio(data, state.view.input_encoding, len(data))
        self._add(item_id, audio)
        self._hearing.spoken(item_id, audio, partial(self._heard, item_id, audio.milliseconds, state.timeline.now))

    def _heard(self, item_id: str, milliseconds: float, committed: float, heard: Heard) -> None:
        self._transcripts.heard(item_id, milliseconds, heard, committed)

    def _add(self, item_id: str, audio: ItemAudio) -> None:
        state = self._state
        item = MessageItem(id=item_id, status="completed", role="user", content=[InputAudioPart(transcript=None)])
        previous = state.conversation.insert(Memory(item_id, item, audio))
        state.timeline.send(InputAudioBufferCommitted(previous_item_id=previous, item_id=item_id))
        state.timeline.send(ConversationItemAdded(previous_item_id=previous, item=item))
        state.timeline.send(ConversationItemDone(previous_item_id=previous, item=item))

    def _silence_begins(self, idle_round: int) -> None:
        if idle_round == self._idle_round:
            self._silent_since = self._input.appended_ms

    def _silence_ends(self, idle_round: int) -> None:
        state = self._state
        # Speech, another response or an update that switched it off have come between.
        if idle_round != self._idle_round or self._responses.active is not None or state.view.idle_timeout is None:
            return
        start, end, item_id = self._silent_since, self._input.appended_ms, state.ids.item()
        state.timeline.send(InputAudioBufferTimeoutTriggered(audio_start_ms=start, audio_end_ms=end, item_id=item_id))
        data = self._input.take_silence(start)
        self._add(item_id, ItemAudio(data, state.view.input_encoding, len(data)))
        self._hearing.otherwise(state.director.hear_silence)
        self._responses.turn_ended()

    def _turn_id(self) -> str:
        """The id of the item that the turn in progress will be."""
        if not self._item_id:
            self._item_id = self._state.ids.item()
        return self._item_id

    def _forget_turn(self) -> None:
        self._item_id, self._speaking = "", False
        self._transcripts.forget()
