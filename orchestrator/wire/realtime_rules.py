"""What a client of the Realtime API may send beyond what the types say: enumerations, ranges, lengths, role and content.

The types serve both directions and leave names open, since a server may add to them. A client's event passes these rules
too and is refused as the API refuses it. What depends on the state of a session (does the item exist, may the voice still
change) and which models and voices exist is not known here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from orchestrator.errors import WireError
from orchestrator.wire.realtime_client import (
    ClientEvent,
    ConversationItemCreate,
    ConversationItemTruncate,
    ResponseCreate,
    SessionUpdate,
)
from orchestrator.wire.realtime_types import (
    AudioFormat,
    AudioInputConfig,
    AudioOutputConfig,
    FunctionCallItem,
    FunctionCallOutputItem,
    FunctionTool,
    InputImagePart,
    Item,
    ItemReference,
    McpListToolsItem,
    McpTool,
    MessageItem,
    OutputAudioPart,
    Prompt,
    RealtimeSessionConfig,
    Reasoning,
    ResponseCreateParams,
    RetentionRatioTruncation,
    SemanticVad,
    ServerVad,
    TracingConfig,
)
from orchestrator.wire.validation import FREE_FORM_DEPTH, missing_parameter, too_deep, unsupported_value

__all__ = ["check_client_event", "supported_values"]

ITEM_ID_LENGTH = 32
METADATA_PAIRS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 16, 64, 512
MAX_OUTPUT_TOKENS = 4096
PCM_RATE = 24_000

MODALITIES = ("text", "audio")
FORMATS = ("audio/pcm", "audio/pcmu", "audio/pcma")
EFFORTS = ("minimal", "low", "medium", "high", "xhigh")
STATES = ("completed", "incomplete", "in_progress")
PARTS = {
    "user": ("input_text", "input_audio", "input_image"),
    "assistant": ("output_text", "output_audio"),
    "system": ("input_text",),
}
ITEMS = (
    "message",
    "function_call",
    "function_call_output",
    "mcp_approval_request",
    "mcp_approval_response",
    "mcp_call",
    "mcp_list_tools",
)
# The values of a member `type`, by the name of the member that it belongs to.
_TAGS: Mapping[str, tuple[str, ...]] = {
    "session": ("realtime", "transcription"),
    "item": ITEMS,
    "input": (*ITEMS, "item_reference"),
    "content": ("input_text", "input_audio", "input_image", "output_text", "output_audio"),
    "turn_detection": ("server_vad", "semantic_vad"),
    "tools": ("function", "mcp"),
    "tool_choice": ("function", "mcp"),
    "truncation": ("retention_ratio",),
}


def supported_values(param: str) -> tuple[str, ...]:
    """Name the values that a member `….type` may have; () if the path is not one of a type."""
    parent, _, name = param.rpartition(".")
    return _TAGS.get(parent.rpartition(".")[2].split("[", 1)[0], ()) if name == "type" else ()


def check_client_event(event: ClientEvent) -> None:
    """Raise WireError, with the API's code and path, if the event breaks a rule."""
    rule = _RULES.get(type(event))
    if rule is not None:
        rule(event)


# --- Single values ----------------------------------------------------------------------------------------------------


def _one_of(value: str | UnsetType | None, supported: tuple[str, ...], param: str) -> None:
    if isinstance(value, str) and value not in supported:
        raise unsupported_value(value, supported, param)


def _within(value: float | UnsetType | None, low: float, high: float | None, param: str) -> None:
    if value is None or value is UNSET:
        return
    kind = "integer" if isinstance(value, int) and isinstance(low, int) else "decimal"
    if value < low:
        side, sign, bound = "below_min", ">=", low
    elif high is not None and value > high:
        side, sign, bound = "above_max", "<=", high
    else:
        return
    words = "below minimum" if side == "below_min" else "above maximum"
    raise WireError(
        f"{kind}_{side}_value",
        f"Invalid '{param}': {kind} {words} value. Expected a value {sign} {bound}, but got {_short(value)} instead.",
        param,
    )


def _short(number: float) -> str:
    # Python refuses to write an integer of thousands of digits.
    return "a number out of range" if abs(number) > 1e18 else str(number)


def _length(text: str | UnsetType | None, limit: int, param: str) -> None:
    if isinstance(text, str) and len(text) > limit:
        raise WireError(
            "string_above_max_length",
            f"Invalid '{param}': string too long. Expected a string with maximum length {limit}, but got a string with length "
            f"{len(text)} instead.",
            param,
        )


def _free_form(value: Any, param: str) -> None:
    if too_deep(value):
        raise WireError("invalid_value", f"Invalid '{param}': nested deeper than {FREE_FORM_DEPTH} levels.", param)


# --- What session and response share ----------------------------------------------------------------------------------


def _generation(config: RealtimeSessionConfig | ResponseCreateParams, at: str) -> None:
    _modalities(config.output_modalities, f"{at}.output_modalities")
    _output_tokens(config.max_output_tokens, f"{at}.max_output_tokens")
    if isinstance(config.tool_choice, str):
        _one_of(config.tool_choice, ("none", "auto", "required"), f"{at}.tool_choice")
    if isinstance(config.reasoning, Reasoning):
        _one_of(config.reasoning.effort, EFFORTS, f"{at}.reasoning.effort")
    if isinstance(config.prompt, Prompt):
        _free_form(config.prompt.variables, f"{at}.prompt.variables")
    if isinstance(config.tools, Sequence):
        for index, tool in enumerate(config.tools):
            _tool(tool, f"{at}.tools[{index}]")


def _modalities(modalities: Sequence[str] | UnsetType | None, param: str) -> None:
    if modalities is None or isinstance(modalities, UnsetType):
        return
    for index, modality in enumerate(modalities):
        _one_of(modality, MODALITIES, f"{param}[{index}]")
    if len(modalities) > 1:
        raise WireError(
            "invalid_value",
            f"Invalid modalities: {list(modalities[:2])}. Supported combinations are: ['text'] and ['audio'].",
            param,
        )


def _output_tokens(value: int | str | UnsetType | None, param: str) -> None:
    if isinstance(value, str):
        _one_of(value, ("inf",), param)
    else:
        _within(value, 1, MAX_OUTPUT_TOKENS, param)


def _tool(tool: object, at: str) -> None:
    if isinstance(tool, FunctionTool):
        _free_form(tool.parameters, f"{at}.parameters")
    elif isinstance(tool, McpTool):
        if isinstance(tool.require_approval, str):
            _one_of(tool.require_approval, ("always", "never"), f"{at}.require_approval")
        if isinstance(tool.allowed_callers, Sequence):
            for index, caller in enumerate(tool.allowed_callers):
                _one_of(caller, ("direct", "programmatic"), f"{at}.allowed_callers[{index}]")


def _format(value: AudioFormat | UnsetType | None, at: str) -> None:
    if isinstance(value, AudioFormat):
        _one_of(value.type, FORMATS, f"{at}.type")
        if value.type == "audio/pcm":
            _within(value.rate, PCM_RATE, PCM_RATE, f"{at}.rate")


def _audio_output(output: object, at: str) -> None:
    if isinstance(output, AudioOutputConfig):
        _format(output.format, f"{at}.format")
        _within(output.speed, 0.25, 1.5, f"{at}.speed")


# --- Session ----------------------------------------------------------------------------------------------------------


def _session_update(event: SessionUpdate) -> None:
    session = event.session
    if isinstance(session.include, Sequence):
        for index, name in enumerate(session.include):
            _one_of(name, ("item.input_audio_transcription.logprobs",), f"session.include[{index}]")
    if not isinstance(session.audio, UnsetType) and session.audio is not None:
        _audio_input(session.audio.input, "session.audio.input")
    if isinstance(session, RealtimeSessionConfig):
        _generation(session, "session")
        if not isinstance(session.audio, UnsetType) and session.audio is not None:
            _audio_output(session.audio.output, "session.audio.output")
        _tracing_and_truncation(session)


def _tracing_and_truncation(session: RealtimeSessionConfig) -> None:
    if isinstance(session.tracing, TracingConfig):
        _free_form(session.tracing.metadata, "session.tracing.metadata")
    else:
        _one_of(session.tracing, ("auto",), "session.tracing")
    if isinstance(session.truncation, RetentionRatioTruncation):
        _within(session.truncation.retention_ratio, 0.0, 1.0, "session.truncation.retention_ratio")
    elif isinstance(session.truncation, str):
        _one_of(session.truncation, ("auto", "disabled"), "session.truncation")


def _audio_input(audio: AudioInputConfig | UnsetType | None, at: str) -> None:
    if not isinstance(audio, AudioInputConfig):
        return
    _format(audio.format, f"{at}.format")
    if audio.noise_reduction is not None and not isinstance(audio.noise_reduction, UnsetType):
        _one_of(audio.noise_reduction.type, ("near_field", "far_field"), f"{at}.noise_reduction.type")
    if audio.transcription is not None and not isinstance(audio.transcription, UnsetType):
        _one_of(audio.transcription.delay, EFFORTS, f"{at}.transcription.delay")
    detection = audio.turn_detection
    if isinstance(detection, ServerVad):
        _within(detection.threshold, 0.0, 1.0, f"{at}.turn_detection.threshold")
        _within(detection.prefix_padding_ms, 0, None, f"{at}.turn_detection.prefix_padding_ms")
        _within(detection.silence_duration_ms, 0, None, f"{at}.turn_detection.silence_duration_ms")
        _within(detection.idle_timeout_ms, 5000, 30_000, f"{at}.turn_detection.idle_timeout_ms")
    elif isinstance(detection, SemanticVad):
        _one_of(detection.eagerness, ("low", "medium", "high", "auto"), f"{at}.turn_detection.eagerness")


# --- Items and response -----------------------------------------------------------------------------------------------


def _item_create(event: ConversationItemCreate) -> None:
    _item(event.item, "item")


def _item_truncate(event: ConversationItemTruncate) -> None:
    _within(event.content_index, 0, None, "content_index")
    _within(event.audio_end_ms, 0, None, "audio_end_ms")


def _item(item: Item | ItemReference, at: str) -> None:
    _length(item.id, ITEM_ID_LENGTH, f"{at}.id")
    if isinstance(item, ItemReference):
        return
    _one_of(item.status, STATES, f"{at}.status")
    match item:
        case MessageItem():
            _message(item, at)
        case FunctionCallItem() | FunctionCallOutputItem():
            _length(item.call_id, ITEM_ID_LENGTH, f"{at}.call_id")
        case McpListToolsItem():
            for index, tool in enumerate(item.tools):
                _free_form(tool.input_schema, f"{at}.tools[{index}].input_schema")
                _free_form(tool.annotations, f"{at}.tools[{index}].annotations")


def _message(item: MessageItem, at: str) -> None:
    _one_of(item.role, tuple(PARTS), f"{at}.role")
    for index, part in enumerate(item.content):
        path = f"{at}.content[{index}]"
        _one_of(str(part.__struct_config__.tag), PARTS[item.role], f"{path}.type")
        if isinstance(part, OutputAudioPart):
            # Text is all that a client can put in the assistant's mouth, and this is how the API says so.
            raise missing_parameter(f"{path}.text")
        if isinstance(part, InputImagePart):
            _one_of(part.detail, ("auto", "low", "high"), f"{path}.detail")


def _response_create(event: ResponseCreate) -> None:
    params = event.response
    if params is None or isinstance(params, UnsetType):
        return
    _generation(params, "response")
    _one_of(params.conversation, ("auto", "none"), "response.conversation")
    if params.audio is not None and not isinstance(params.audio, UnsetType):
        _audio_output(params.audio.output, "response.audio.output")
    if isinstance(params.input, Sequence):
        for index, item in enumerate(params.input):
            _item(item, f"response.input[{index}]")
    if isinstance(params.metadata, Mapping):
        _metadata(params.metadata)


def _metadata(metadata: Mapping[str, str]) -> None:
    if len(metadata) > METADATA_PAIRS:
        raise WireError(
            "object_above_max_properties",
            f"Invalid 'response.metadata': too many properties. Expected an object with at most {METADATA_PAIRS} properties, "
            f"but got an object with {len(metadata)} properties instead.",
            "response.metadata",
        )
    for key, value in metadata.items():
        _length(key, METADATA_KEY_LENGTH, "response.metadata")
        _length(value, METADATA_VALUE_LENGTH, f"response.metadata.{key}")


_RULES: Mapping[type, Callable[[Any], None]] = {
    ConversationItemCreate: _item_create,
    ConversationItemTruncate: _item_truncate,
    ResponseCreate: _response_create,
    SessionUpdate: _session_update,
}
