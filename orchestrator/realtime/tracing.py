"""What a session tells of itself to a tracing system: the seam, and the choice of who listens.

Without the package `opentelemetry-api` (the extra `tracing`), without a tracer provider, and with `tracing_disabled`, it is
`Spans`, whose methods do nothing. No method is called for audio, except once for the first of a turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from orchestrator.core.events import RealtimeModelEvent
from orchestrator.core.tool_calls import ToolCall
from orchestrator.core.turn import FirstAudio

__all__ = ["Spans", "Step", "open_spans"]


class Step:
    """One step of a conversation while it is carried out."""

    # W3C Trace Context of the step, for another process; None when nobody listens.
    traceparent: str | None = None

    def finished(self, *, error: str | None = None, **about: Any) -> None:
        """Say how it ended: `error` is a stable code, `about` names further attributes."""


_STEP = Step()


class Spans:
    """Hears of a session and does nothing with it."""

    def session_began(self, *, agent: str, model: str | None, provider: str | None) -> None:
        """The session connects to its model."""

    def session_ended(self, exception: BaseException | None = None) -> None:
        """The session is over. Idempotent."""

    def model_lost(self, exception: Exception | None) -> None:
        """The model ended the conversation: in good order (None) or with an exception."""

    def watch(self, event: RealtimeModelEvent, *, agent: str, now: float) -> None:
        """Take in a model event that is no audio; `agent` is the active one, `now` seconds of the loop's clock."""

    def user_said(self, text: str | None) -> None:
        """The program sent a message of the user, or ended a turn by hand (None)."""

    def first_audio(self, first: FirstAudio, *, response_id: str, now: float) -> None:
        """The agent's first audio of a turn went out."""

    def approval_required(self, call: ToolCall) -> None:
        """A tool call waits for a person."""

    def tool(self, call: ToolCall, *, agent: str) -> AbstractContextManager[Step]:
        """A tool runs inside; spans that it starts are children of this step."""
        del call, agent
        return nullcontext(_STEP)

    def handoff(self, call: ToolCall, *, source: str) -> AbstractContextManager[Step]:
        """A handoff is carried out inside."""
        del call, source
        return nullcontext(_STEP)

    def guardrails(self, names: list[str], *, stage: str, response_id: str | None) -> AbstractContextManager[Step]:
        """Guardrails look at a text inside; `stage` is "input" or "output"."""
        del names, stage, response_id
        return nullcontext(_STEP)


_NOBODY = Spans()


def open_spans(run_config: Mapping[str, Any], session_id: str) -> Spans:
    """Return who hears of a session with this run's configuration."""
    if run_config.get("tracing_disabled"):
        return _NOBODY
    try:
        # Here, since the package belongs to an extra.
        from orchestrator.realtime.otel_spans import OtelSpans, find_tracer
    except ImportError:
        return _NOBODY
    tracer = find_tracer(run_config.get("tracer_provider"))
    if tracer is None:
        return _NOBODY
    return OtelSpans(tracer, session_id, with_content=run_config.get("trace_include_content") is True)
