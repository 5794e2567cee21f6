"""The logic of a session: what the model reports goes in, what is to be done comes out.

No socket, no clock, no await: the time is an argument. The shell (`realtime.session`) performs the commands in order. Audio has
a method of its own, since it is the one thing that comes many times a second and nearly always asks for nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from orchestrator.core.commands import (
    AnswerTool,
    AudioCut,
    AudioEnded,
    Ended,
    Fault,
    HistoryChanged,
    ItemAdded,
    Renewed,
    Renewing,
    SessionCommand,
    SpeechBegan,
    SpeechEnded,
    StartTool,
    TimedOut,
    TurnBegan,
    TurnEnded,
    Used,
)
from orchestrator.core.conversation import Change, Conversation
from orchestrator.core.events import (
    RealtimeModelAudioDoneEvent,
    RealtimeModelAudioEvent,
    RealtimeModelAudioInterruptedEvent,
    RealtimeModelEndOfStreamEvent,
    RealtimeModelErrorEvent,
    RealtimeModelEvent,
    RealtimeModelExceptionEvent,
    RealtimeModelInputAudioTimeoutTriggeredEvent,
    RealtimeModelInputAudioTranscriptionCompletedEvent,
    RealtimeModelItemDeletedEvent,
    RealtimeModelItemPlacedEvent,
    RealtimeModelItemUpdatedEvent,
    RealtimeModelRenewedEvent,
    RealtimeModelRenewingEvent,
    RealtimeModelResponseLostEvent,
    RealtimeModelSpeechStartedEvent,
    RealtimeModelSpeechStoppedEvent,
    RealtimeModelToolCallEvent,
    RealtimeModelToolOutputEvent,
    RealtimeModelTranscriptDeltaEvent,
    RealtimeModelTurnEndedEvent,
    RealtimeModelTurnStartedEvent,
    RealtimeModelUsageEvent,
)
from orchestrator.core.items import RealtimeToolCallItem
from orchestrator.core.tool_calls import Answer, ToolCall, ToolCalls
from orchestrator.core.turn import FirstAudio, Turn
from orchestrator.errors import ModelBehaviorError

__all__ = ["SessionCore"]


class SessionCore:
    """History, floor and tool calls of one session.

    With `hold_answers`, the output that asks for the next response waits for the end of the response that called the tool,
    where both are known: only then is it certain that no further call belongs to it. `ModelSession` sees to that by itself.
    """

    def __init__(self, agent: str, *, hold_answers: bool = False) -> None:
        # Name of the agent that speaks now.
        self.agent = agent
        self.conversation = Conversation()
        self.turn = Turn()
        self.tool_calls = ToolCalls()
        # The agent that began the response under way; it ends it too, even if another took over in between.
        self._turn_agent: str | None = None
        # The response under way, None between two.
        self.active_response: str | None = None
        self._hold_answers = hold_answers
        self._held: list[Answer] = []

    def receive(self, event: RealtimeModelEvent, now: float) -> list[SessionCommand]:
        """Take in a model event and return what to do. Events that concern nobody here return nothing."""
        handler = _HANDLERS.get(type(event))
        return [] if handler is None else handler(self, event, now)

    def audio(self, event: RealtimeModelAudioEvent, now: float) -> FirstAudio | None:
        """Take in agent audio. Tells of the first of a turn, else None."""
        self.conversation.audio(event.item_id, event.content_index, event.duration_ms)
        return self.turn.audio(now)

    def tool_started(self, call_id: str) -> None:
        """Note that the shell has handed a call to its tool."""
        call = self.tool_calls.get(call_id)
        if call is not None:
            self.tool_calls.started(call)

    def tool_finished(self, call_id: str, output: str) -> list[SessionCommand]:
        """Take in a tool's output; nothing happens when the call is not open any more."""
        answer = self.tool_calls.answered(call_id, output)
        if answer is None:
            return []
        if answer.start_response and self._goes_on(answer.call):
            self._held.append(answer)
            return []
        return self._give(answer)

    def guardrail_tripped(self, item_id: str, guardrails: list[str]) -> list[SessionCommand]:
        """Note that a message of the agent tripped guardrails."""
        return self._changed(self.conversation.tripped(item_id, guardrails), item_id)

    def _goes_on(self, call: ToolCall) -> bool:
        """May the response that made this call make further ones?"""
        return self._hold_answers and call.response_id is not None and call.response_id == self.active_response

    def _give(self, answer: Answer) -> list[SessionCommand]:
        """Give the model an output. The history comes first: the end of the call is reported when the output is sent."""
        changed = self.conversation.tool_output(answer.call.item_id, answer.output)
        return [*([] if changed is Change.NONE else [HistoryChanged()]), AnswerTool(answer)]

    def _give_held(self) -> list[SessionCommand]:
        """A response is over: the last of its answers asks for the next one, unless further calls of it are open."""
        commands: list[SessionCommand] = []
        held, self._held = self._held, []
        for index, answer in enumerate(held):
            last = index == len(held) - 1 and not self.tool_calls.waits_for_others(answer.call)
            commands += self._give(dataclasses.replace(answer, start_response=last))
        return commands

    def _on_audio_done(self, event: RealtimeModelAudioDoneEvent, now: float) -> list[SessionCommand]:
        del now
        return [AudioEnded(event.item_id, event.content_index)]

    def _on_audio_interrupted(self, event: RealtimeModelAudioInterruptedEvent, now: float) -> list[SessionCommand]:
        del now
        commands: list[SessionCommand] = [AudioCut(event.item_id, event.content_index, event.cut)]
        if event.cut is not None:
            changed = self.conversation.cut(event.item_id, event.content_index, event.cut.heard_ms)
            commands += self._changed(changed, event.item_id)
        return commands

    def _on_end_of_stream(self, event: RealtimeModelEndOfStreamEvent, now: float) -> list[SessionCommand]:
        del event, now
        return [Ended(None)]

    def _on_error(self, event: RealtimeModelErrorEvent, now: float) -> list[SessionCommand]:
        del now
        return [Fault(event.error)]

    def _on_exception(self, event: RealtimeModelExceptionEvent, now: float) -> list[SessionCommand]:
        del now
        return [Ended(event.exception)]

    def _on_input_timeout(self, event: RealtimeModelInputAudioTimeoutTriggeredEvent, now: float) -> list[SessionCommand]:
        del event, now
        return [TimedOut()]

    def _on_item_deleted(self, event: RealtimeModelItemDeletedEvent, now: float) -> list[SessionCommand]:
        del now
        return self._changed(self.conversation.delete(event.item_id), event.item_id)

    def _on_item_placed(self, event: RealtimeModelItemPlacedEvent, now: float) -> list[SessionCommand]:
        del now
        self.conversation.place(event.item_id, event.previous_item_id)
        return []

    def _on_item_updated(self, event: RealtimeModelItemUpdatedEvent, now: float) -> list[SessionCommand]:
        del now
        item = event.item
        if isinstance(item, RealtimeToolCallItem):
            return self._changed(self.conversation.tool_call(item), item.item_id)
        return self._changed(self.conversation.message(item), item.item_id)

    def _on_renewed(self, event: RealtimeModelRenewedEvent, now: float) -> list[SessionCommand]:
        del now
        self.conversation.renewed(event.item_ids)
        return [Renewed(event.seconds, event.cause)]

    def _on_renewing(self, event: RealtimeModelRenewingEvent, now: float) -> list[SessionCommand]:
        del now
        return [Renewing(event.cause)]

    def _on_response_lost(self, event: RealtimeModelResponseLostEvent, now: float) -> list[SessionCommand]:
        del now
        changes = [self.conversation.lost(item_id, event.texts.get(item_id, "")) for item_id in event.item_ids]
        return [HistoryChanged()] if any(change is not Change.NONE for change in changes) else []

    def _on_speech_started(self, event: RealtimeModelSpeechStartedEvent, now: float) -> list[SessionCommand]:
        del event, now
        self.turn.speech_started()
        return [SpeechBegan()]

    def _on_speech_stopped(self, event: RealtimeModelSpeechStoppedEvent, now: float) -> list[SessionCommand]:
        del event
        self.turn.speech_stopped(now)
        return [SpeechEnded()]

    def _on_tool_call(self, event: RealtimeModelToolCallEvent, now: float) -> list[SessionCommand]:
        del now
        try:
            call = self.tool_calls.requested(
                event.call_id, event.id or event.call_id, event.name, event.arguments, event.response_id
            )
        except ModelBehaviorError as error:
            return [Fault(error)]
        return [] if call is None else [StartTool(call)]

    def _on_tool_output(self, event: RealtimeModelToolOutputEvent, now: float) -> list[SessionCommand]:
        del now
        changed = self.conversation.output_item(event.call_id, event.output, event.item_id, event.previous_item_id)
        return self._changed(changed, event.item_id)

    def _on_transcript_delta(self, event: RealtimeModelTranscriptDeltaEvent, now: float) -> list[SessionCommand]:
        del now
        # Words that come one by one change the history silently; only a new item is worth an event.
        changed = self.conversation.spoken(event.item_id, event.content_index, event.delta)
        return self._changed(changed, event.item_id) if changed is Change.ADDED else []

    def _on_transcription(self, event: RealtimeModelInputAudioTranscriptionCompletedEvent, now: float) -> list[SessionCommand]:
        del now
        return self._changed(self.conversation.user_transcript(event.item_id, event.transcript), event.item_id)

    def _on_turn_ended(self, event: RealtimeModelTurnEndedEvent, now: float) -> list[SessionCommand]:
        del now
        if self.active_response is not None and event.response_id not in (None, self.active_response):
            return []  # The late end of one that another has overtaken.
        self.turn.response_ended()
        if event.response_id == self.active_response:
            self.active_response = None
        agent, self._turn_agent = self._turn_agent or self.agent, None
        return [TurnEnded(agent, event.status), *self._give_held()]

    def _on_turn_started(self, event: RealtimeModelTurnStartedEvent, now: float) -> list[SessionCommand]:
        del now
        self.turn.response_started()
        self.active_response = event.response_id
        self._turn_agent = self.agent
        # The end of the response before it was lost on the way, if answers still wait for it.
        return [*self._give_held(), TurnBegan(self.agent)]

    def _on_usage(self, event: RealtimeModelUsageEvent, now: float) -> list[SessionCommand]:
        del now
        read = event.input_tokens_details or event.usage.input_tokens_details
        written = event.output_tokens_details or event.usage.output_tokens_details
        return [Used(dataclasses.replace(event.usage, input_tokens_details=read, output_tokens_details=written))]

    def _changed(self, change: Change, item_id: str) -> list[SessionCommand]:
        if change is Change.NONE:
            return []
        item = self.conversation.get(item_id)
        if change is Change.ADDED and item is not None:
            return [ItemAdded(item)]
        return [HistoryChanged()]


_HANDLERS: dict[type, Callable[[SessionCore, Any, float], list[SessionCommand]]] = {
    RealtimeModelAudioDoneEvent: SessionCore._on_audio_done,
    RealtimeModelAudioInterruptedEvent: SessionCore._on_audio_interrupted,
    RealtimeModelEndOfStreamEvent: SessionCore._on_end_of_stream,
    RealtimeModelErrorEvent: SessionCore._on_error,
    RealtimeModelExceptionEvent: SessionCore._on_exception,
    RealtimeModelInputAudioTimeoutTriggeredEvent: SessionCore._on_input_timeout,
    RealtimeModelInputAudioTranscriptionCompletedEvent: SessionCore._on_transcription,
    RealtimeModelItemDeletedEvent: SessionCore._on_item_deleted,
    RealtimeModelItemPlacedEvent: SessionCore._on_item_placed,
    RealtimeModelItemUpdatedEvent: SessionCore._on_item_updated,
    RealtimeModelRenewedEvent: SessionCore._on_renewed,
    RealtimeModelRenewingEvent: SessionCore._on_renewing,
    RealtimeModelResponseLostEvent: SessionCore._on_response_lost,
    RealtimeModelSpeechStartedEvent: SessionCore._on_speech_started,
    RealtimeModelSpeechStoppedEvent: SessionCore._on_speech_stopped,
    RealtimeModelToolCallEvent: SessionCore._on_tool_call,
    RealtimeModelToolOutputEvent: SessionCore._on_tool_output,
    RealtimeModelTranscriptDeltaEvent: SessionCore._on_transcript_delta,
    RealtimeModelTurnEndedEvent: SessionCore._on_turn_ended,
    RealtimeModelTurnStartedEvent: SessionCore._on_turn_started,
    RealtimeModelUsageEvent: SessionCore._on_usage,
}
