"""The configuration of a model session: its defaults, and the rules by which `session.update` changes it.

Pure. Members that an update leaves out keep their value; null, "" and [] clear. Under `audio` each object is replaced as a
whole and filled up with defaults, so an update of `turn_detection` that names only a threshold resets its times. An update
that breaks a rule changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from orchestrator.errors import WireError
from orchestrator.simulator.audio import Encoding
from orchestrator.wire.realtime import decode_client_event
from orchestrator.wire.realtime_client import SessionUpdate
from orchestrator.wire.realtime_types import (
    AudioConfig,
    AudioFormat,
    AudioInputConfig,
    AudioOutputConfig,
    CustomVoice,
    InputTranscriptionConfig,
    NoiseReduction,
    RealtimeSessionConfig,
    Reasoning,
    SemanticVad,
    ServerVad,
    TranscriptionAudioConfig,
    TranscriptionSessionConfig,
)
from orchestrator.wire.validation import invalid_json

if TYPE_CHECKING:
    from orchestrator.wire.realtime_types import SessionConfig, TurnDetection

__all__ = [
    "apply_update",
    "check_reasoning",
    "check_voice",
    "decode_preset",
    "encoding_of",
    "format_of",
    "initial_session",
    "initial_transcription_session",
    "preset_session",
    "voice_is_locked",
    "voice_name",
]

WHISPER_LIVE = "gpt-realtime-whisper"
DEFAULT_MODEL = "gpt-realtime"
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
# What null means for a member that has no null of its own.
_CLEARED: dict[str, Any] = {
    "output_modalities": ["audio"],
    "instructions": "",
    "tools": [],
    "tool_choice": "auto",
    "max_output_tokens": "inf",
    "truncation": "auto",
}
_MergeInput: TypeAlias = Callable[..., AudioInputConfig]
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


def initial_transcription_session(session_id: str, expires_at: int) -> TranscriptionSessionConfig:
    """A session that only writes down, as the API creates it. `expires_at` is in Unix seconds."""
    return TranscriptionSessionConfig(
        object="realtime.transcription_session",
        id=session_id,
        expires_at=expires_at,
        audio=TranscriptionAudioConfig(
            input=AudioInputConfig(
                format=format_of(Encoding.PCM16),
                transcription=None,
                noise_reduction=None,
                turn_detection=_without_answers(DEFAULT_VAD),
            )
        ),
        include=None,
    )


def decode_preset(data: bytes) -> SessionConfig:
    """Read a session from the JSON of an HTTP body. Raises WireError, whose paths begin with "session"."""
    try:
        # Read by itself first: pasted into an event as it came, it could close the object and go on.
        message = msgspec.json.encode({"type": "session.update", "session": msgspec.json.decode(data)})
    except (ValueError, RecursionError) as error:
        raise invalid_json(error) from None
    event = decode_client_event(message, forbid_unknown=True)
    if not isinstance(event, SessionUpdate):
        raise TypeError("a session.update is one")
    return event.session


def preset_session(preset: SessionConfig, *, session_id: str, model: str, expires_at: int) -> SessionConfig:
    """The session that a preset (of a client secret, of an accepted call) begins with.

    `model` decides; where it is "", that of the preset does. Raises WireError by the rules of `session.update`.
    """
    if isinstance(preset, TranscriptionSessionConfig):
        return apply_update(initial_transcription_session(session_id, expires_at), preset)
    model = model or (preset.model if isinstance(preset.model, str) else "") or DEFAULT_MODEL
    return apply_update(initial_session(session_id, model, expires_at), preset)


def apply_update(
    session: SessionConfig,
    update: SessionConfig,
    *,
    voice_locked: bool = False,
    model_fixed: bool = False,
    detection_merges: bool = False,
) -> SessionConfig:
    """The session after an update. Raises WireError if the update is refused; then nothing of it holds.

    `voice_locked` says that the conversation has audio of the assistant in it, `model_fixed` that an update which names
    another model is refused (else the name is ignored), `detection_merges` that turn detection keeps what is not named.
    """
    merge = partial(_merge_input, detection_merges=detection_merges)
    if isinstance(session, RealtimeSessionConfig) and isinstance(update, RealtimeSessionConfig):
        if model_fixed and isinstance(update.model, str) and update.model != session.model:
            raise WireError("invalid_value", "The model of a session cannot be changed.", "session.model")
        return _apply_to_answering(session, update, merge, voice_locked=voice_locked)
    if isinstance(session, TranscriptionSessionConfig) and isinstance(update, TranscriptionSessionConfig):
        return _apply_to_transcribing(session, update, merge)
    kind, other = session.__struct_config__.tag, update.__struct_config__.tag
    raise WireError("invalid_value", f"A session of type '{kind}' cannot become one of type '{other}'.", "session.type")


def check_reasoning(model: str, reasoning: Reasoning | UnsetType | None, param: str) -> None:
    """Raise WireError where a model that does not reason is told how to."""
    if isinstance(reasoning, Reasoning) and not _reasons(model):
        raise WireError("invalid_value", f"The model '{model}' does not support reasoning.", param)


def check_voice(voice: str | CustomVoice, param: str) -> None:
    """Raise WireError for a voice that does not exist."""
    if isinstance(voice, str) and voice not in VOICES:
        known = ", ".join(f"'{name}'" for name in VOICES[:-1])
        raise WireError("invalid_value", f"Invalid value: '{voice}'. Supported values are: {known}, and '{VOICES[-1]}'.", param)


def voice_name(voice: str | CustomVoice) -> str:
    """The name that speech is made with: voices made by a customer all sound like the first one here."""
    return voice if isinstance(voice, str) else VOICES[0]


def _reasons(model: str) -> bool:
    return model.startswith("gpt-realtime-2")


def _apply_to_answering(
    session: RealtimeSessionConfig, update: RealtimeSessionConfig, merge: _MergeInput, *, voice_locked: bool
) -> RealtimeSessionConfig:
    model = str(session.model)
    changes: dict[str, Any] = {}
    for name in RealtimeSessionConfig.__struct_fields__:
        value = getattr(update, name)
        if value is UNSET or name in _FIXED or (value is None and getattr(session, name) is UNSET):
            continue
        changes[name] = _CLEARED.get(name) if value is None else value
    if session.tracing is not None and "tracing" in changes and changes["tracing"] != session.tracing:
        raise WireError("invalid_value", "Tracing cannot be changed once it is enabled.", "session.tracing")
    check_reasoning(model, changes.get("reasoning"), "session.reasoning")
    if isinstance(update.audio, AudioConfig):
        current = session.audio
        if not isinstance(current, AudioConfig):
            raise TypeError("a full session has audio")
        changes["audio"] = AudioConfig(
            input=merge(current.input, update.audio.input),
            output=_merge_output(current.output, update.audio.output, voice_locked=voice_locked),
        )
    return msgspec.structs.replace(session, **changes)


def _apply_to_transcribing(
    session: TranscriptionSessionConfig, update: TranscriptionSessionConfig, merge: _MergeInput
) -> TranscriptionSessionConfig:
    changes: dict[str, Any] = {} if update.include is UNSET else {"include": update.include}
    if isinstance(update.audio, TranscriptionAudioConfig):
        current = session.audio
        if not isinstance(current, TranscriptionAudioConfig):
            raise TypeError("a full session has audio")
        merged = merge(current.input, update.audio.input)
        if isinstance(merged.turn_detection, SemanticVad):
            raise WireError(
                "invalid_value",
                "Invalid value: 'semantic_vad'. A transcription session supports 'server_vad' only.",
                "session.audio.input.turn_detection.type",
            )
        if isinstance(merged.turn_detection, ServerVad):
            merged = msgspec.structs.replace(merged, turn_detection=_without_answers(merged.turn_detection))
        changes["audio"] = TranscriptionAudioConfig(input=merged)
    return msgspec.structs.replace(session, **changes)


def _without_answers(detection: ServerVad) -> ServerVad:
    """Turn detection as a session reports it that does not answer: only what says where speech is."""
    return ServerVad(
        threshold=detection.threshold,
        prefix_padding_ms=detection.prefix_padding_ms,
        silence_duration_ms=detection.silence_duration_ms,
    )


def _merge_input(
    current: AudioInputConfig | UnsetType | None, update: AudioInputConfig | UnsetType | None, *, detection_merges: bool
) -> AudioInputConfig:
    if not isinstance(current, AudioInputConfig):
        raise TypeError("a full session has an input")
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
        base = current.turn_detection if detection_merges and isinstance(current.turn_detection, ServerVad) else DEFAULT_VAD
        changes["turn_detection"] = _filled_turn_detection(update.turn_detection, base)
    merged = msgspec.structs.replace(current, **changes)
    _check_live_transcription(merged)
    return merged


def _check_live_transcription(merged: AudioInputConfig) -> None:
    """One model writes down while somebody speaks, and therefore takes no detected turns, and no prompt."""
    config = merged.transcription
    if not isinstance(config, InputTranscriptionConfig) or config.model != WHISPER_LIVE:
        return
    if merged.turn_detection is not None:
        message = f"Turn detection is not supported with '{WHISPER_LIVE}': set it to null."
        raise WireError("invalid_value", message, "session.audio.input.turn_detection")
    if config.prompt:
        message = f"A prompt is not supported with '{WHISPER_LIVE}'."
        raise WireError("invalid_value", message, "session.audio.input.transcription.prompt")


def _merge_output(
    current: AudioOutputConfig | UnsetType | None, update: AudioOutputConfig | UnsetType | None, *, voice_locked: bool
) -> AudioOutputConfig:
    if not isinstance(current, AudioOutputConfig):
        raise TypeError("a full session has an output")
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


def _filled_turn_detection(update: TurnDetection | UnsetType | None, base: ServerVad) -> ServerVad | SemanticVad | None:
    if isinstance(update, ServerVad):
        given = {name: getattr(update, name) for name in ServerVad.__struct_fields__}
        # Only the idle timeout has a null that means something.
        kept = {name: value for name, value in given.items() if value is not UNSET and value is not None}
        if update.idle_timeout_ms is None:
            kept["idle_timeout_ms"] = None
        return msgspec.structs.replace(base, **kept)
    if isinstance(update, SemanticVad):
        return SemanticVad(
            eagerness=update.eagerness if isinstance(update.eagerness, str) else "auto",
            create_response=update.create_response is not False,
            interrupt_response=update.interrupt_response is not False,
        )
    return None
