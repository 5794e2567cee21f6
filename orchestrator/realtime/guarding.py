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
        tripped = await self._tripped(guardrails, agent, check.text)
        if not tripped or not self._windows.trip(check.response_id):
            return
        inside = self._inside
        inside.hub.emit(RealtimeGuardrailTripped(tripped, check.text, inside.info))
        active = inside.core.active_response
        if active == check.response_id:
            if check.spoken:
                stop = RealtimeModelSendInterrupt(force_response_cancel=True, response_id=active)
            else:
                stop = RealtimeModelSendInterrupt(response_id=active, cancel_response_only=True)
            inside.submit(stop)
        elif check.spoken:
            inside.submit(RealtimeModelSendInterrupt(response_id=check.response_id, playback_only=True))
        if active in (None, check.response_id):
            # Not after a newer response: what it says is an answer to something else.
            self._correct(tripped)

    async def _run_input(self, guardrails: Sequence[Any], text: str) -> None:
        inside = self._inside
        tripped = await self._tripped(guardrails, inside.agent, text)
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

    def _correct(self, tripped: Sequence[Any]) -> None:
        """Tell the model. Its answer waits, as any, until the response under way has ended."""
        names = ", ".join(result.guardrail.get_name() for result in tripped)
        self._inside.submit(RealtimeModelSendUserInput(f"guardrail triggered: {names}"))


def _merged(of_agent: Sequence[Any], of_run: Sequence[Any] | None) -> list[Any]:
    """Return the agent's guardrails and then the run's, each once."""
    merged: list[Any] = []
    for guardrail in (*of_agent, *(of_run or ())):
        if not any(guardrail is known for known in merged):
            merged.append(guardrail)
    return merged
