"""The configuration of a model session: its defaults, and the rules by which `session.update` changes it.

Pure. Members that an update leaves out keep their value; null, "" and [] clear. Under `audio` each object is replaced as a
whole and filled up with defaults, so an update of `turn_detection` that names only a threshold resets its times. An update
that breaks a rule changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from orchestrator.errors import WireError
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.vad import VadSettings
from orchestrator.wire.realtime_types import (
    AudioConfig,
    AudioFormat,
    AudioInputConfig,
    AudioOutputConfig,
    CustomVoice,
    FunctionTool,
    InputTranscriptionConfig,
    NoiseReduction,
    RealtimeSessionConfig,
    Reasoning,
    SemanticVad,
    ServerVad,
    SessionConfig,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestrator.wire.realtime_types import Tool, ToolChoice, TurnDetection

__all__ = [
    "SessionView",
    "apply_update",
    "check_voice",
    "encoding_of",
    "format_of",
    "initial_session",
    "offered_tools",
    "voice_name",
]

DEFAULT_INSTRUCTIONS = (
    "You are a helpful voice assistant. Speak in the language of the caller, briefly and friendly, and call a tool whenever it "
    "can answer better than you can. Do not mention these rules."
)
VOICES = ("alloy", "ash", "ballad", "coral", "echo", "sage", "shimmer", "verse", "marin", "cedar")
# The live API reports 200 ms where its documentation says 500.
DEFAULT_VAD = ServerVad(
    threshold=0.5,
    prefix_padding_ms=300,
    silence_duration_ms=200,
    idle_timeout_ms=None,
    create_response=True,
    interrupt_response=True,
)
SEMANTIC_SILENCE_MS = {"low": 1200, "medium": 600, "auto": 600, "high": 300}
"""How long a pause ends the turn where the real model listens for meaning; only the order of these is taken from it."""

# What null means for a member that has no null of its own.
_CLEARED: dict[str, Any] = {
    "output_modalities": ["audio"],
    "instructions": "",
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "truncation": "auto",
}
_FIXED = frozenset({"object", "id", "expires_at", "model", "audio"})


def format_of(encoding: Encoding) -> AudioFormat:
    """The wire object of an encoding: only PCM says its rate."""
    return (
        AudioFormat(type=encoding.value, rate=encoding.rate) if encoding is Encoding.PCM16 else AudioFormat(type=encoding.value)
    )


def encoding_of(audio_format: AudioFormat | UnsetType | None) -> Encoding:
    """The encoding that a wire object names; PCM where it is absent."""
    return Encoding(audio_format.type) if isinstance(audio_format, AudioFormat) else Encoding.PCM16


def initial_session(session_id: str, model: str, expires_at: int) -> RealtimeSessionConfig:
    """A session as the API creates it, with every member that it reports. `expires_at` is in Unix seconds."""
    session = RealtimeSessionConfig(
        object="realtime.session",
        id=session_id,
        model=model,
        output_modalities=["audio"],
        instructions=DEFAULT_INSTRUCTIONS,
        tools=[],
        tool_choice="auto",
        max_output_tokens="inf",
        tracing=None,
        truncation="auto",
        prompt=None,
        expires_at=expires_at,
        audio=AudioConfig(
            input=AudioInputConfig(
                format=format_of(Encoding.PCM16), transcription=None, noise_reduction=None, turn_detection=DEFAULT_VAD
            ),
            output=AudioOutputConfig(format=format_of(Encoding.PCM16), voice="alloy", speed=1.0),
        ),
        include=None,
    )
    if not _reasons(model):
        return session
    return msgspec.structs.replace(session, reasoning=Reasoning(effort="low"), parallel_tool_calls=True)


def apply_update(session: RealtimeSessionConfig, update: SessionConfig, *, voice_locked: bool) -> RealtimeSessionConfig:
    """The session after an update. Raises WireError if the update is refused; then nothing of it holds.

    `voice_locked` says that the conversation has audio of the assistant in it.
    """
    if not isinstance(update, RealtimeSessionConfig):
        raise WireError(
            "invalid_value", "A session of type 'realtime' cannot become one of type 'transcription'.", "session.type"
        )
    changes: dict[str, Any] = {}
    for name in RealtimeSessionConfig.__struct_fields__:
        value = getattr(update, name)
        if value is not UNSET and name not in _FIXED:
            changes[name] = _CLEARED.get(name) if value is None else value
    if session.tracing is not None and "tracing" in changes and changes["tracing"] != session.tracing:
        raise WireError("invalid_value", "Tracing cannot be changed once it is enabled.", "session.tracing")
    if changes.get("reasoning") is not None and not _reasons(str(session.model)):
        raise WireError("invalid_value", f"The model '{session.model}' does not support reasoning.", "session.reasoning")
    if isinstance(update.audio, AudioConfig):
        current = SessionView(session)
        changes["audio"] = AudioConfig(
            input=_merge_input(current.input, update.audio.input),
            output=_merge_output(current.output, update.audio.output, voice_locked=voice_locked),
        )
    return msgspec.structs.replace(session, **changes)


def check_voice(voice: str | CustomVoice, param: str) -> None:
    """Raise WireError for a voice that does not exist."""
    if isinstance(voice, str) and voice not in VOICES:
        known = ", ".join(f"'{name}'" for name in VOICES[:-1])
        raise WireError("invalid_value", f"Invalid value: '{voice}'. Supported values are: {known}, and '{VOICES[-1]}'.", param)


def voice_name(voice: str | CustomVoice) -> str:
    """The name that speech is made with: voices made by a customer all sound like the first one here."""
    return voice if isinstance(voice, str) else VOICES[0]


def offered_tools(tools: Sequence[Tool] | UnsetType | None, choice: ToolChoice | UnsetType | None) -> frozenset[str]:
    """Names of the functions that the model may call."""
    if choice == "none" or not tools or isinstance(tools, UnsetType):
        return frozenset()
    return frozenset(tool.name for tool in tools if isinstance(tool, FunctionTool))


class SessionView:
    """Typed reading of a full session object: every member is known to be there."""

    def __init__(self, session: RealtimeSessionConfig) -> None:
        audio = session.audio
        if not isinstance(audio, AudioConfig):
            raise TypeError("a full session has audio")
        if not isinstance(audio.input, AudioInputConfig) or not isinstance(audio.output, AudioOutputConfig):
            raise TypeError("a full session has audio in both directions")
        self.session = session
        self.input = audio.input
        self.output = audio.output
        self.input_encoding = encoding_of(audio.input.format)
        self.output_encoding = encoding_of(audio.output.format)
        self.speed = audio.output.speed if isinstance(audio.output.speed, float | int) else 1.0

    @property
    def voice(self) -> str | CustomVoice:
        """The voice of the session."""
        voice = self.output.voice
        return voice if isinstance(voice, str | CustomVoice) else VOICES[0]

    @property
    def text_only(self) -> bool:
        """Whether responses are written rather than spoken."""
        return self.session.output_modalities == ["text"]

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
        return isinstance(detection, ServerVad | SemanticVad) and detection.create_response is not False

    @property
    def interrupt_response(self) -> bool:
        """Whether the start of a spoken turn cancels the response in progress."""
        detection = self.input.turn_detection
        return isinstance(detection, ServerVad | SemanticVad) and detection.interrupt_response is not False


def _reasons(model: str) -> bool:
    return model.startswith("gpt-realtime-2")


def _number(value: float | UnsetType | None, default: float | UnsetType | None) -> float:
    number = default if value is None or isinstance(value, UnsetType) else value
    if number is None or isinstance(number, UnsetType):
        raise TypeError("the defaults are numbers")
    return number


def _merge_input(current: AudioInputConfig, update: AudioInputConfig | UnsetType | None) -> AudioInputConfig:
    if not isinstance(update, AudioInputConfig):
        return current
    changes: dict[str, Any] = {}
    if update.format is not UNSET:
        changes["format"] = format_of(encoding_of(update.format))
    if update.transcription is not UNSET:
        changes["transcription"] = _filled_transcription(update.transcription)
    if update.noise_reduction is not UNSET:
        changes["noise_reduction"] = _filled_noise_reduction(current.noise_reduction, update.noise_reduction)
    if update.turn_detection is not UNSET:
        changes["turn_detection"] = _filled_turn_detection(update.turn_detection)
    return msgspec.structs.replace(current, **changes)


def _merge_output(
    current: AudioOutputConfig, update: AudioOutputConfig | UnsetType | None, *, voice_locked: bool
) -> AudioOutputConfig:
    if not isinstance(update, AudioOutputConfig):
        return current
    changes: dict[str, Any] = {}
    if update.format is not UNSET:
        changes["format"] = format_of(encoding_of(update.format))
    if isinstance(update.voice, str | CustomVoice):
        check_voice(update.voice, "session.audio.output.voice")
        if voice_locked and update.voice != current.voice:
            raise voice_is_locked()
        changes["voice"] = update.voice
    if update.speed is not UNSET:
        changes["speed"] = 1.0 if update.speed is None else update.speed
    return msgspec.structs.replace(current, **changes)


def voice_is_locked() -> WireError:
    """The error for another voice in a conversation that has a voice already."""
    return WireError("cannot_update_voice", "Cannot update a conversation's voice if assistant audio is present.")


def _filled_transcription(update: InputTranscriptionConfig | UnsetType | None) -> InputTranscriptionConfig | None:
    if not isinstance(update, InputTranscriptionConfig):
        return None
    language = None if update.language is UNSET else update.language
    prompt = None if update.prompt is UNSET else update.prompt
    return msgspec.structs.replace(update, language=language, prompt=prompt)


def _filled_noise_reduction(
    current: NoiseReduction | UnsetType | None, update: NoiseReduction | UnsetType | None
) -> NoiseReduction | None:
    if not isinstance(update, NoiseReduction):
        return None
    if update.strength is UNSET and isinstance(current, NoiseReduction):
        return msgspec.structs.replace(update, strength=current.strength)
    return update


def _filled_turn_detection(update: TurnDetection | UnsetType | None) -> ServerVad | SemanticVad | None:
    if isinstance(update, ServerVad):
        given = {name: getattr(update, name) for name in ServerVad.__struct_fields__}
        # Only the idle timeout has a null that means something.
        kept = {name: value for name, value in given.items() if value is not UNSET and value is not None}
        return msgspec.structs.replace(DEFAULT_VAD, **kept)
    if isinstance(update, SemanticVad):
        return SemanticVad(
            eagerness=update.eagerness if isinstance(update.eagerness, str) else "auto",
            create_response=update.create_response is not False,
            interrupt_response=update.interrupt_response is not False,
        )
    return None
