"""The names of our spans, their events and attributes, in one place.

Where OpenTelemetry's semantic conventions for generative AI have a name, it is theirs (`gen_ai.*`, `error.type`); the rest
begins with `orchestrator.`. None of them ever carries what was said, except those under `CONTENT`, which a program has to ask
for.
"""

from __future__ import annotations

__all__ = [
    "AGENT_NAME",
    "CACHED_TOKENS",
    "CONTENT",
    "CONVERSATION_ID",
    "ERROR",
    "ERROR_TYPE",
    "EXECUTE_TOOL",
    "FINISH_REASONS",
    "FIRST_AUDIO",
    "GENERATE",
    "GUARDRAIL",
    "GUARDRAIL_NAMES",
    "GUARDRAIL_STAGE",
    "GUARDRAIL_TRIPPED",
    "HANDOFF",
    "HANDOFF_FROM",
    "HANDOFF_TO",
    "HEARD_MS",
    "INPUT",
    "INPUT_MESSAGES",
    "INPUT_TOKENS",
    "INTERRUPTED",
    "INVOKE_AGENT",
    "OPERATION",
    "OUTPUT_MESSAGES",
    "OUTPUT_TOKENS",
    "OUTPUT_TYPE",
    "PROVIDER",
    "REQUEST_MODEL",
    "RESPONSE_ID",
    "SCOPE",
    "SECONDS_AFTER_SPEECH",
    "TIME_TO_FIRST_CHUNK",
    "TOOL_APPROVAL_REQUIRED",
    "TOOL_ARGUMENTS",
    "TOOL_CALL_ID",
    "TOOL_NAME",
    "TOOL_RESULT",
    "TOOL_TYPE",
    "TURN",
    "TURN_TRIGGER",
    "USAGE_BY_MODALITY",
]

# The instrumentation scope.
SCOPE = "orchestrator.realtime"

# Spans. Those of the conventions are the operation's name and, after a blank, the agent's, model's or tool's.
INVOKE_AGENT = "invoke_agent"
TURN = "turn"
GENERATE = "chat"
EXECUTE_TOOL = "execute_tool"
HANDOFF = "handoff"
GUARDRAIL = "guardrail"

# Events.
ERROR = "error"
FIRST_AUDIO = "first_audio"
INPUT = "input"
INTERRUPTED = "interrupted"
TOOL_APPROVAL_REQUIRED = "tool_approval_required"

# Attributes of the conventions.
AGENT_NAME = "gen_ai.agent.name"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CONVERSATION_ID = "gen_ai.conversation.id"
ERROR_TYPE = "error.type"
FINISH_REASONS = "gen_ai.response.finish_reasons"
INPUT_MESSAGES = "gen_ai.input.messages"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OPERATION = "gen_ai.operation.name"
OUTPUT_MESSAGES = "gen_ai.output.messages"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
OUTPUT_TYPE = "gen_ai.output.type"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
RESPONSE_ID = "gen_ai.response.id"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_NAME = "gen_ai.tool.name"
TOOL_RESULT = "gen_ai.tool.call.result"
TOOL_TYPE = "gen_ai.tool.type"

# Our own.
GUARDRAIL_NAMES = "orchestrator.guardrail.names"
GUARDRAIL_STAGE = "orchestrator.guardrail.stage"
GUARDRAIL_TRIPPED = "orchestrator.guardrail.tripped"
HANDOFF_FROM = "orchestrator.handoff.from"
HANDOFF_TO = "orchestrator.handoff.to"
HEARD_MS = "orchestrator.heard_ms"
SECONDS_AFTER_SPEECH = "orchestrator.first_audio.seconds_after_speech"
TURN_TRIGGER = "orchestrator.turn.trigger"
# Followed by input or output and text_tokens, audio_tokens or image_tokens.
USAGE_BY_MODALITY = "orchestrator.usage"

# What holds words of the conversation.
CONTENT = (INPUT_MESSAGES, OUTPUT_MESSAGES, TOOL_ARGUMENTS, TOOL_RESULT)
