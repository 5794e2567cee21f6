"""What programs may import, and from where."""

import importlib

import pytest

import orchestrator.realtime

AGENTS = {
    *("RealtimeAgent", "RealtimeAgentHooks", "RealtimeRunHooks", "RealtimeRunner", "RealtimeSession", "realtime_handoff"),
}
CONFIG = {
    "RealtimeAudioFormat",
    "RealtimeClientMessage",
    "RealtimeGuardrailsSettings",
    "RealtimeInputAudioNoiseReductionConfig",
    "RealtimeInputAudioTranscriptionConfig",
    "RealtimeModelName",
    "RealtimeModelTracingConfig",
    "RealtimeReasoningConfig",
    "RealtimeReasoningEffort",
    "RealtimeRunConfig",
    "RealtimeSessionModelSettings",
    "RealtimeToolExecutionConfig",
    "RealtimeTurnDetectionConfig",
    "RealtimeUserInput",
    "RealtimeUserInputMessage",
    "RealtimeUserInputText",
}
EVENTS = {
    "RealtimeAgentEndEvent",
    "RealtimeAgentStartEvent",
    "RealtimeAudio",
    "RealtimeAudioEnd",
    "RealtimeAudioInterrupted",
    "RealtimeError",
    "RealtimeEventInfo",
    "RealtimeGuardrailTripped",
    "RealtimeHandoffEvent",
    "RealtimeHistoryAdded",
    "RealtimeHistoryUpdated",
    "RealtimeRawModelEvent",
    "RealtimeSessionEvent",
    "RealtimeToolApprovalRequired",
    "RealtimeToolEnd",
    "RealtimeToolStart",
}
ITEMS = {
    "AssistantMessageItem",
    "AssistantText",
    "InputAudio",
    "InputText",
    "RealtimeItem",
    "RealtimeMessageItem",
    "RealtimeResponse",
    "RealtimeToolCallItem",
    "SystemMessageItem",
    "UserMessageItem",
}
MODEL = {
    "DEFAULT_MODEL_SETTINGS",
    "OpenAIRealtimeSIPModel",
    "OpenAIRealtimeWebSocketModel",
    "RealtimeModel",
    "RealtimeModelConfig",
    "RealtimeModelListener",
    "RealtimePlaybackState",
    "RealtimePlaybackTracker",
    "get_api_key",
}
MODEL_EVENTS = {
    "RealtimeModelAudioDoneEvent",
    "RealtimeModelAudioEvent",
    "RealtimeModelAudioInterruptedEvent",
    "RealtimeModelConnectionStatusEvent",
    "RealtimeModelEndOfStreamEvent",
    "RealtimeModelErrorEvent",
    "RealtimeModelEvent",
    "RealtimeModelExceptionEvent",
    "RealtimeModelInputAudioTranscriptionCompletedEvent",
    "RealtimeModelItemDeletedEvent",
    "RealtimeModelItemUpdatedEvent",
    "RealtimeModelOtherEvent",
    "RealtimeModelOutputTextDeltaEvent",
    "RealtimeModelToolCallEvent",
    "RealtimeModelTranscriptDeltaEvent",
    "RealtimeModelTurnEndedEvent",
    "RealtimeModelTurnStartedEvent",
    "RealtimeModelUsageEvent",
}
MODEL_INPUTS = {
    "RealtimeModelInputTextContent",
    "RealtimeModelRawClientMessage",
    "RealtimeModelSendAudio",
    "RealtimeModelSendEvent",
    "RealtimeModelSendInterrupt",
    "RealtimeModelSendRawMessage",
    "RealtimeModelSendSessionUpdate",
    "RealtimeModelSendToolOutput",
    "RealtimeModelSendUserInput",
    "RealtimeModelUserInputMessage",
}
# Ours, beyond what the guide has.
ADDED = {"RealtimeTranscriptDelta"}

# What each submodule offers at least, also where the package exports it.
SUBMODULES = {
    "agent": {"RealtimeAgent"},
    "audio_formats": set[str](),
    "config": CONFIG
    | {
        *("RealtimeAudioConfig", "RealtimeAudioInputConfig", "RealtimeAudioOutputConfig", "RealtimeCustomVoice"),
        *("RealtimeUserInputImage", "RealtimeVoice"),
    },
    "events": EVENTS | ADDED | {"RealtimeInputAudioTimeoutTriggered"},
    "handoffs": {"realtime_handoff"},
    "items": ITEMS | {"AssistantAudio", "InputImage"},
    "model": MODEL - {"DEFAULT_MODEL_SETTINGS", "OpenAIRealtimeSIPModel", "OpenAIRealtimeWebSocketModel", "get_api_key"},
    "model_events": MODEL_EVENTS
    | {
        *("CachedTokensDetails", "InputTokensDetails", "OutputTokensDetails"),
        *("RealtimeModelInputAudioTimeoutTriggeredEvent", "RealtimeModelRawServerEvent"),
    },
    "model_inputs": MODEL_INPUTS | {"RealtimeModelInputImageContent"},
    "openai_realtime": {
        *("DEFAULT_MODEL_SETTINGS", "DEFAULT_REALTIME_MODEL", "OpenAIRealtimeSIPModel", "OpenAIRealtimeWebSocketModel"),
        *("TransportConfig", "get_api_key"),
    },
    "runner": {"RealtimeRunner"},
    "session": {"REJECTION_MESSAGE", "RealtimeSession"},
    "testing": {
        *("RealtimeConnectCall", "RealtimeScriptError", "RealtimeStep", "ScriptedRealtimeModel"),
        *("UnconsumedRealtimeSteps", "UnexpectedRealtimeSend"),
    },
}

EXPORTS = AGENTS | CONFIG | EVENTS | ITEMS | MODEL | MODEL_EVENTS | MODEL_INPUTS


def missing_from(module: str, names: set[str]) -> set[str]:
    """Return the names that a module lacks, or does not list as its own."""
    found = importlib.import_module(module)
    return {name for name in names if not hasattr(found, name) or name not in found.__all__}


def test_the_package_exports_what_the_guide_imports_from_it_and_little_else() -> None:
    assert missing_from("orchestrator.realtime", EXPORTS | ADDED) == set()
    assert set(orchestrator.realtime.__all__) - EXPORTS - ADDED == set()


@pytest.mark.parametrize("module", SUBMODULES)
def test_each_submodule_offers_its_names(module: str) -> None:
    assert missing_from(f"orchestrator.realtime.{module}", SUBMODULES[module]) == set()


@pytest.mark.parametrize(
    "module",
    [
        *("tool", "guardrail", "tool_guardrails", "handoffs", "run_context", "tool_context", "usage", "exceptions"),
        *("decorators",),
    ],
)
def test_the_modules_beside_the_realtime_ones_are_there(module: str) -> None:
    assert importlib.import_module(f"orchestrator.{module}").__all__


def test_an_export_is_the_very_object_of_its_submodule() -> None:
    for module, names in SUBMODULES.items():
        found = importlib.import_module(f"orchestrator.realtime.{module}")
        for name in names & EXPORTS:
            assert getattr(orchestrator.realtime, name) is getattr(found, name), name
