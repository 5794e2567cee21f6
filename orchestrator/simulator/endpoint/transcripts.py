"""What the caller said, written down: deltas, then the whole, some time after the turn was committed.

Pure. The scenario (or a recogniser) says the words. Most models write once a turn is over; the live ones write while somebody
speaks, which works here only where the scenario says the words beforehand.
"""

from __future__ import annotations

import random
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, UnsetType

from orchestrator.simulator.endpoint.usage import transcription_usage
from orchestrator.wire.realtime_server import (
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemInputAudioTranscriptionDelta,
    ConversationItemInputAudioTranscriptionFailed,
    ConversationItemInputAudioTranscriptionSegment,
)
from orchestrator.wire.realtime_types import LogProb, TranscriptionError, TranscriptionLanguage

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from orchestrator.simulator.endpoint.director import Heard
    from orchestrator.simulator.endpoint.state import SessionState
    from orchestrator.wire.realtime_types import InputTranscriptionConfig

__all__ = ["Transcripts", "words_of"]

LIVE_MODELS = ("gpt-live-transcribe", "gpt-realtime-whisper")
LIVE_MS_PER_WORD = 300
DEFAULT_MODEL = "whisper-1"
SURE = -0.01
"""The logarithm of how sure the model is of each word."""


def words_of(text: str) -> list[str]:
    """The deltas of a transcript: its words, with the blank in front."""
    first, *others = text.split(" ")
    return [first, *(f" {word}" for word in others)]


class Transcripts:
    """Writes down the spoken turns of one session. Shuffling is drawn from `seed`."""

    def __init__(self, state: SessionState, seed: str) -> None:
        self._state = state
        self._random = random.Random(seed)
        self._segments = 0
        self._foreseen: str | None = None
        self._written = 0

    def appended(self, milliseconds: float, turn_id: Callable[[], str]) -> None:
        """A turn in progress has become so long: a live model writes what it has heard. `turn_id` names its item."""
        config = self._state.view.transcription
        if config is None or config.model not in LIVE_MODELS or self._state.options.recognition:
            return
        if self._foreseen is None:
            self._foreseen = self._state.director.foresee_audio()
        words = words_of(self._foreseen) if self._foreseen else []
        heard = int(milliseconds // LIVE_MS_PER_WORD)
        # The last word is never written before the turn is over: nobody knows yet that it is the last.
        for word in words[self._written : min(heard, len(words) - 1)]:
            self._delta(turn_id(), word)
            self._written += 1

    def forget(self) -> None:
        """The turn in progress was cleared."""
        self._foreseen, self._written = None, 0

    def heard(self, item_id: str, milliseconds: float, heard: Heard, committed: float) -> None:
        """A spoken turn is an item since `committed`, and its words are known."""
        config = self._state.view.transcription
        written = self._written if heard.text == self._foreseen else 0
        self.forget()
        if config is None:
            return
        options, timeline = self._state.options, self._state.timeline
        delay = options.transcription_delay + options.transcription_jitter * self._random.random()
        ready = partial(self._write, item_id, config, heard, milliseconds, written)
        timeline.at(max(timeline.now, committed + delay), ready)

    def _write(self, item_id: str, config: InputTranscriptionConfig, heard: Heard, milliseconds: float, written: int) -> None:
        state = self._state
        if item_id not in state.conversation:
            return
        if heard.fault is not None:
            fault = heard.fault
            error = TranscriptionError(type=fault.type, code=fault.code, message=fault.message)
            state.timeline.send(ConversationItemInputAudioTranscriptionFailed(item_id=item_id, error=error))
            return
        model = config.model if isinstance(config.model, str) else DEFAULT_MODEL
        state.conversation.set_transcript(item_id, heard.text)
        if model.endswith("diarize"):
            self._segment(item_id, heard.text, milliseconds)
        words = [heard.text] if model.startswith("whisper") else words_of(heard.text)
        for word in words[written:]:
            self._delta(item_id, word)
        completed = ConversationItemInputAudioTranscriptionCompleted(
            item_id=item_id,
            transcript=heard.text,
            usage=transcription_usage(model, heard.text, milliseconds),
            logprobs=self._logprobs(words),
            languages=_languages(config),
        )
        for _ in range(1 + state.options.transcription_repeats):
            state.timeline.send(completed)

    def _delta(self, item_id: str, word: str) -> None:
        obfuscation: Any = self._state.ids.obfuscation() if self._state.options.obfuscation else UNSET
        self._state.timeline.send(
            ConversationItemInputAudioTranscriptionDelta(
                item_id=item_id, delta=word, logprobs=self._logprobs([word]), obfuscation=obfuscation
            )
        )

    def _segment(self, item_id: str, text: str, milliseconds: float) -> None:
        """Who speaks: one person, here, since a scenario has one caller."""
        self._segments += 1
        self._state.timeline.send(
            ConversationItemInputAudioTranscriptionSegment(
                item_id=item_id, id=f"seg_{self._segments:04}", text=text, speaker="spk_1", start=0.0, end=milliseconds / 1000
            )
        )

    def _logprobs(self, words: Sequence[str]) -> Sequence[LogProb] | UnsetType:
        if not self._state.view.wants_logprobs:
            return UNSET
        return [LogProb(token=word, logprob=SURE, bytes=list(word.encode("utf-8", "replace"))) for word in words]


def _languages(config: InputTranscriptionConfig) -> Sequence[TranscriptionLanguage] | UnsetType:
    """The languages that were asked for are those that were found."""
    if config.languages is None or isinstance(config.languages, UnsetType):
        return UNSET
    return [TranscriptionLanguage(code=code) for code in config.languages[:1]]
