"""The configuration of a model session as its parts read it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import UnsetType

from orchestrator.simulator.endpoint.session_config import DEFAULT_VAD, VOICES, encoding_of
from orchestrator.simulator.endpoint.vad import VadSettings
from orchestrator.wire.realtime_types import (
    AudioConfig,
    AudioInputConfig,
    AudioOutputConfig,
    CustomVoice,
    InputTranscriptionConfig,
    RealtimeSessionConfig,
    SemanticVad,
    ServerVad,
    TranscriptionAudioConfig,
    TranscriptionSessionConfig,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.wire.realtime_types import SessionConfig, Tool

__all__ = ["SessionView"]

LOGPROBS = "item.input_audio_transcription.logprobs"
SEMANTIC_SILENCE_MS = {"low": 1200, "medium": 600, "auto": 600, "high": 300}
"""How long a pause ends the turn where the real model listens for meaning; only the order of these is taken from it."""


class SessionView:
    """Typed reading of a full session object: every member is known to be there.

    A session that only writes down has no output; what it would say is then that of a silent one.
    """

    def __init__(self, session: SessionConfig) -> None:
        audio = session.audio
        if not isinstance(audio, AudioConfig | TranscriptionAudioConfig) or not isinstance(audio.input, AudioInputConfig):
            raise TypeError("a full session has audio")
        output = audio.output if isinstance(audio, AudioConfig) else AudioOutputConfig()
        if not isinstance(output, AudioOutputConfig):
            raise TypeError("a full session has audio in both directions")
        self.session = session
        self.input = audio.input
        self.output = output
        self.input_encoding = encoding_of(audio.input.format)
        self.output_encoding = encoding_of(output.format)
        self.speed = output.speed if isinstance(output.speed, float | int) else 1.0

    @property
    def answering(self) -> RealtimeSessionConfig:
        """The session as one that answers; ask only where `transcribes_only` is false."""
        if not isinstance(self.session, RealtimeSessionConfig):
            raise TypeError("a transcription session answers nothing")
        return self.session

    @property
    def transcribes_only(self) -> bool:
        """Whether this is a transcription session: it has no responses."""
        return isinstance(self.session, TranscriptionSessionConfig)

    @property
    def tools(self) -> Sequence[Tool]:
        """The tools of the session."""
        tools = self.session.tools if isinstance(self.session, RealtimeSessionConfig) else None
        return () if tools is None or isinstance(tools, UnsetType) else tools

    @property
    def wants_logprobs(self) -> bool:
        """Whether transcripts come with the probabilities of their tokens."""
        include = self.session.include
        return isinstance(include, list | tuple) and LOGPROBS in include

    @property
    def voice(self) -> str | CustomVoice:
        """The voice of the session."""
        voice = self.output.voice
        return voice if isinstance(voice, str | CustomVoice) else VOICES[0]

    @property
    def transcription(self) -> InputTranscriptionConfig | None:
        """How the caller's speech is to be written down, if at all."""
        config = self.input.transcription
        return config if isinstance(config, InputTranscriptionConfig) else None

    @property
    def vad(self) -> VadSettings | None:
        """What counts as speech; None where the client decides about turns."""
        detection = self.input.turn_detection
        if isinstance(detection, ServerVad):
            return VadSettings(
                threshold=_number(detection.threshold, DEFAULT_VAD.threshold),
                prefix_padding_ms=int(_number(detection.prefix_padding_ms, DEFAULT_VAD.prefix_padding_ms)),
                silence_duration_ms=int(_number(detection.silence_duration_ms, DEFAULT_VAD.silence_duration_ms)),
            )
        if isinstance(detection, SemanticVad):
            eagerness = detection.eagerness if isinstance(detection.eagerness, str) else "auto"
            return VadSettings(silence_duration_ms=SEMANTIC_SILENCE_MS[eagerness])
        return None

    @property
    def create_response(self) -> bool:
        """Whether the end of a spoken turn starts a response."""
        detection = self.input.turn_detection
        return (
            not self.transcribes_only
            and isinstance(detection, ServerVad | SemanticVad)
            and detection.create_response is not False
        )

    @property
    def idle_timeout(self) -> float | None:
        """Seconds without a word after which the model speaks, if it does."""
        detection = self.input.turn_detection
        if self.transcribes_only or not isinstance(detection, ServerVad) or not isinstance(detection.idle_timeout_ms, int):
            return None
        return detection.idle_timeout_ms / 1000

    @property
    def interrupt_response(self) -> bool:
        """Whether the start of a spoken turn cancels the response in progress."""
        detection = self.input.turn_detection
        return isinstance(detection, ServerVad | SemanticVad) and detection.interrupt_response is not False


def _number(value: float | UnsetType | None, default: float | UnsetType | None) -> float:
    number = default if value is None or isinstance(value, UnsetType) else value
    if number is None or isinstance(number, UnsetType):
        raise TypeError("the defaults are numbers")
    return number
