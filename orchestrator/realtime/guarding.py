"""Guardrails of a session: on what the agent says, while it says it and when it is done, and on what the user said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestrator.core.events import (
    RealtimeModelEvent,
    RealtimeModelInputAudioTranscriptionCompletedEvent,
    RealtimeModelOutputTextDeltaEvent,
    RealtimeModelTranscriptDeltaEvent,
    RealtimeModelTurnEndedEvent,
    RealtimeModelTurnStartedEvent,
)
from orchestrator.core.guardrail_windows import Check, GuardrailWindows
from orchestrator.core.inputs import RealtimeModelSendInterrupt, RealtimeModelSendUserInput
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.events import RealtimeGuardrailTripped
from orchestrator.realtime.inside import Inside

__all__ = ["Guarding"]

DEFAULT_DEBOUNCE = 100
# Added to the correction when nothing was left to be cut: the model must not believe that its words were stopped.
HEARD = ". The user has heard all of the message that did so; it cannot be taken back."


class Guarding:
    """Watches one session. Checks run in tasks; the conversation goes on until one trips."""

    def __init__(self, inside: Inside) -> None:
        self._inside = inside
        settings = inside.run_config.get("guardrails_settings") or {}
        self._windows = GuardrailWindows(settings.get("debounce_text_length", DEFAULT_DEBOUNCE))
        # The agent that began the response under way: its guardrails hold for it, also after a handoff.
        self._agent: RealtimeAgent[Any] = inside.agent

    def watch(self, event: RealtimeModelEvent) -> None:
        """Take in a model event before the session acts on it."""
        kind = type(event)
        if kind is RealtimeModelTranscriptDeltaEvent or kind is RealtimeModelOutputTextDeltaEvent:
            self._on_words(event)  # type: ignore[arg-type]
        elif isinstance(event, RealtimeModelTurnStartedEvent):
            self._agent = self._inside.agent
        elif isinstance(event, RealtimeModelTurnEndedEvent) and event.response_id is not None:
            for check in self._windows.end(event.response_id):
                self._check_output(check)
        elif isinstance(event, RealtimeModelInputAudioTranscriptionCompletedEvent):
            self.check_input(event.transcript)

    def check_input(self, text: str) -> None:
        """Check what the user said or wrote."""
        inside = self._inside
        guardrails = _merged(inside.agent.input_guardrails, inside.run_config.get("input_guardrails"))
        if guardrails and text:
            inside.tasks.spawn(self._run_input(guardrails, text), "input guardrails")

    def _on_words(self, event: RealtimeModelTranscriptDeltaEvent | RealtimeModelOutputTextDeltaEvent) -> None:
        if not self._output_guardrails():
            return
        spoken = isinstance(event, RealtimeModelTranscriptDeltaEvent)
        check = self._windows.add(event.response_id, event.item_id, event.delta, spoken=spoken)
        if check is not None:
            self._check_output(check)

    def _output_guardrails(self) -> list[Any]:
        return _merged(self._agent.output_guardrails, self._inside.run_config.get("output_guardrails"))

    def _check_output(self, check: Check) -> None:
        self._inside.tasks.spawn(self._run_output(self._output_guardrails(), self._agent, check), "output guardrails")

    async def _run_output(self, guardrails: Sequence[Any], agent: RealtimeAgent[Any], check: Check) -> None:
        with self._inside.spans.guardrails(_names_of(guardrails), stage="output", response_id=check.response_id) as step:
            tripped = await self._tripped(guardrails, agent, check.text)
            step.finished(tripped=bool(tripped))
        if not tripped or not self._windows.trip(check.response_id):
            return
        inside = self._inside
        inside.hub.emit(RealtimeGuardrailTripped(tripped, check.text, inside.info))
        inside.perform(inside.core.guardrail_tripped(check.item_id, _names(tripped)))
        stop = _stop(check, active=inside.core.active_response == check.response_id)
        if stop is not None:
            # Awaited, so that it is known what the caller heard of it.
            await inside.send(stop)
        if inside.core.active_response in (None, check.response_id):
            # Not after a newer response: what it says is an answer to something else.
            heard = check.spoken and inside.core.conversation.was_heard_to_its_end(check.item_id)
            self._correct(tripped, HEARD if heard else "")

    async def _run_input(self, guardrails: Sequence[Any], text: str) -> None:
        inside = self._inside
        with inside.spans.guardrails(_names_of(guardrails), stage="input", response_id=None) as step:
            tripped = await self._tripped(guardrails, inside.agent, text)
            step.finished(tripped=bool(tripped))
        if tripped:
            inside.hub.emit(RealtimeGuardrailTripped(tripped, text, inside.info))
            inside.submit(RealtimeModelSendInterrupt(force_response_cancel=True))
            self._correct(tripped)

    async def _tripped(self, guardrails: Sequence[Any], agent: RealtimeAgent[Any], text: str) -> list[Any]:
        """Ask the guardrails one after the other; return the results of those that tripped."""
        tripped = []
        for guardrail in guardrails:
            try:
                result = await guardrail.run(self._inside.context, agent, text)
            except Exception as error:  # noqa: BLE001 - the program's own code; the others still count
                self._inside.fault(error)
                continue
            if result.output.tripwire_triggered:
                tripped.append(result)
        return tripped

    def _correct(self, tripped: Sequence[Any], addition: str = "") -> None:
        """Tell the model. Its answer waits, as any, until the response under way has ended."""
        self._inside.submit(RealtimeModelSendUserInput(f"guardrail triggered: {', '.join(_names(tripped))}{addition}"))


def _names(tripped: Sequence[Any]) -> list[str]:
    return _names_of([result.guardrail for result in tripped])


def _names_of(guardrails: Sequence[Any]) -> list[str]:
    return [guardrail.get_name() for guardrail in guardrails]


def _stop(check: Check, *, active: bool) -> RealtimeModelSendInterrupt | None:
    """Return what stops the text that was checked, if anything is left to be stopped of it."""
    if not active:
        return RealtimeModelSendInterrupt(response_id=check.response_id, playback_only=True) if check.spoken else None
    if check.spoken:
        return RealtimeModelSendInterrupt(force_response_cancel=True, response_id=check.response_id)
    return RealtimeModelSendInterrupt(response_id=check.response_id, cancel_response_only=True)


def _merged(of_agent: Sequence[Any], of_run: Sequence[Any] | None) -> list[Any]:
    """Return the agent's guardrails and then the run's, each once."""
    merged: list[Any] = []
    for guardrail in (*of_agent, *(of_run or ())):
        if not any(guardrail is known for known in merged):
            merged.append(guardrail)
    return merged
