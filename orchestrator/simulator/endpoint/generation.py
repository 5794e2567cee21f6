"""One response of the model while it is generated: the events that it consists of, in captured order, each at its time.

Pure. A `Generation` is a generator that yields when it wants to go on; the session machine gives it the time. Whatever ends it
early (a cancel, a barge-in, the token limit) closes what is open with the same events as a regular end, but marked incomplete.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.errors import IllegalTransitionError
from orchestrator.simulator.endpoint.conversation import ItemAudio
from orchestrator.simulator.endpoint.director import Call, Say
from orchestrator.simulator.endpoint.output_items import (
    ApprovalRequest,
    FunctionCall,
    McpCall,
    Place,
    SpokenMessage,
    WrittenMessage,
)
from orchestrator.simulator.endpoint.session_config import format_of, voice_name
from orchestrator.simulator.endpoint.usage import assistant_audio_tokens, response_usage, text_tokens
from orchestrator.simulator.json_text import value_of
from orchestrator.simulator.speech import SpeechRequest
from orchestrator.wire.realtime_server import ResponseCreated, ResponseDone
from orchestrator.wire.realtime_types import (
    AudioOutputConfig,
    Response,
    ResponseAudioConfig,
    ResponseError,
    ResponseStatusDetails,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from orchestrator.simulator.audio import Encoding
    from orchestrator.simulator.endpoint.director import Plan
    from orchestrator.simulator.endpoint.options import Timing
    from orchestrator.simulator.endpoint.output_items import OutputItem, Stage
    from orchestrator.simulator.endpoint.usage import InputTokens
    from orchestrator.simulator.speech import Utterance
    from orchestrator.wire.realtime_types import CustomVoice, Item

__all__ = ["TRANSITIONS", "Generation", "ResponseSettings", "ResponseState"]

TRANSCRIPT_LEAD = 2
"""The transcript runs so many audio deltas ahead."""
ARGUMENTS_PER_DELTA = 16
_WORD = re.compile(r"\S+\s*|\s+")


class ResponseState(enum.Enum):
    """Where a response is in its life. The value is its wire status."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    INCOMPLETE = "incomplete"
    FAILED = "failed"


TRANSITIONS: Mapping[ResponseState, frozenset[ResponseState]] = {
    ResponseState.IN_PROGRESS: frozenset(
        {ResponseState.COMPLETED, ResponseState.CANCELLED, ResponseState.INCOMPLETE, ResponseState.FAILED}
    ),
    ResponseState.COMPLETED: frozenset(),
    ResponseState.CANCELLED: frozenset(),
    ResponseState.INCOMPLETE: frozenset(),
    ResponseState.FAILED: frozenset(),
}


@dataclass(frozen=True)
class ResponseSettings:
    """What is settled about a response when it starts. `conversation_id` is None for one out of band."""

    id: str
    conversation_id: str | None
    text_only: bool
    encoding: Encoding
    voice: str | CustomVoice
    speed: float
    language: str
    max_output_tokens: int | None
    metadata: Mapping[str, str] | None
    context: InputTokens
    cached: int


@dataclass
class Generation:
    """One response in progress.

    `start`, `decide`, `advance` and `provide` are called with the present time; afterwards `due` says when to call `advance`
    next, or is None while something is awaited (what to say, see `decide`; speech, see `requests`) and after the end.
    """

    settings: ResponseSettings
    timing: Timing
    stage: Stage
    plan: Plan | None = None
    state: ResponseState = ResponseState.IN_PROGRESS
    due: float | None = None
    calls_made: int = 0
    """MCP calls of this response that came to an end."""
    calls_owed: int = 0
    """Calls that the client is to answer or to approve."""
    _now: float = 0.0
    _started: float = 0.0
    _steps: Iterator[float | None] = field(default_factory=lambda: iter(()))
    _open: OutputItem | None = None
    _finished: list[Item] = field(default_factory=list)
    _words: int = 0
    _text_tokens: int = 0
    _audio_ms: float = 0.0
    _speech: dict[SpeechRequest, Utterance] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether the response goes on."""
        return self.state is ResponseState.IN_PROGRESS

    @property
    def undecided(self) -> bool:
        """Whether it goes on and nobody has said yet what it consists of."""
        return self.active and self.plan is None

    @property
    def continues(self) -> bool:
        """Whether the model has more to say after its own calls, with nothing for the client to do before."""
        return self.state is ResponseState.COMPLETED and self.calls_made > 0 and self.calls_owed == 0

    @property
    def tokens(self) -> int:
        """Tokens used so far, context included."""
        return self.settings.context.total + self._output_tokens

    @property
    def _output_tokens(self) -> int:
        return self._text_tokens + assistant_audio_tokens(self._audio_ms)

    def requests(self) -> list[SpeechRequest]:
        """All speech that this response will need, so that it can be made while the model seems to think."""
        if self.settings.text_only or self.plan is None:
            return []
        return [self._request(output) for output in self.plan.outputs if isinstance(output, Say)]

    def start(self, now: float) -> None:
        """Announce the response."""
        self._now = self._started = now
        self.stage.send(ResponseCreated(response=self._response()))

    def decide(self, plan: Plan, now: float) -> None:
        """Say what it consists of. The time to think has passed since the start."""
        self.plan = plan
        think = plan.think if plan.think is not None else self.timing.first_output
        self._steps = self._run(plan)
        self.due = max(now, self._started + think)

    def advance(self, now: float) -> None:
        """Do what is due. `now` is at least `due`."""
        self._now = now
        self.due = next(self._steps, None)

    def provide(self, request: SpeechRequest, utterance: Utterance, now: float) -> None:
        """Hand over speech that was asked for."""
        waiting = self.active and self.due is None
        self._speech[request] = utterance
        if waiting:
            self.advance(now)

    def cancel(self, reason: str) -> None:
        """End early: `reason` is "turn_detected" or "client_cancelled"."""
        self._finish(ResponseState.CANCELLED, ResponseStatusDetails(type="cancelled", reason=reason))

    def fail(self, code: str, message: str, type_: str = "server_error") -> None:
        """End because generating is impossible."""
        error = ResponseError(type=type_, code=code, message=message)
        self._finish(ResponseState.FAILED, ResponseStatusDetails(type="failed", error=error))

    # --- The course of a response -------------------------------------------------------------------------------------

    def _run(self, plan: Plan) -> Iterator[float | None]:
        """Yields when to go on: a time, or None for "when the speech is there"."""
        for index, output in enumerate(plan.outputs):
            if self._is_enough():
                break
            if isinstance(output, Call):
                yield from self._call(index, output)
            elif self.settings.text_only:
                yield from self._write(index, output)
            else:
                yield from self._speak(index, output)
            if self._open is not None:
                break
        else:
            if plan.end is None:
                self._finish(ResponseState.COMPLETED, None)
                return
        self._stop(plan)

    def _stop(self, plan: Plan) -> None:
        """End before all was generated, or as the scenario wants it."""
        end = plan.end
        if end is not None and end.status == "failed" and not self._exhausted():
            self.fail(end.code, end.message, end.type)
            return
        reason = end.reason if end is not None and not self._exhausted() else "max_output_tokens"
        self._finish(ResponseState.INCOMPLETE, ResponseStatusDetails(type="incomplete", reason=reason))

    def _call(self, index: int, call: Call) -> Iterator[float]:
        place = self._place(index)
        if call.server and not call.approved and self.stage.servers.needs_approval(call.server, call.name):
            self._begin(ApprovalRequest(self.stage, place, call))
            self.calls_owed += 1
            self._end("completed")
            return
        current = McpCall(self.stage, place, call) if call.server else FunctionCall(self.stage, place, call)
        self._begin(current)
        for start in range(0, len(call.arguments), ARGUMENTS_PER_DELTA):
            if self._exhausted():
                return
            self._add_text(current, call.arguments[start : start + ARGUMENTS_PER_DELTA])
            yield self._now + self.timing.text_interval
        if isinstance(current, McpCall):
            outcome = self.stage.servers.outcome(call.server, call.name, value_of(call.arguments))
            current.run(outcome)
            yield self._now + outcome.seconds
            self.calls_made += 1
        else:
            self.calls_owed += 1
        self._end("completed")

    def _write(self, index: int, say: Say) -> Iterator[float]:
        current = WrittenMessage(self.stage, self._place(index))
        self._begin(current)
        for word in _WORD.findall(say.text):
            if self._is_enough():
                return
            self._words += 1
            self._add_text(current, word)
            yield self._now + self.timing.text_interval
        self._end("completed")

    def _speak(self, index: int, say: Say) -> Iterator[float | None]:
        request = self._request(say)
        while request not in self._speech:
            yield None
        utterance = self._speech[request]
        deltas = utterance.deltas(self.timing.delta_ms)
        words = _WORD.findall(say.text)
        current = SpokenMessage(self.stage, self._place(index))
        self._begin(current)
        said = 0
        for number, delta in enumerate(deltas, 1):
            if self._is_enough():
                return
            ahead = -(-len(words) * min(len(deltas), number + TRANSCRIPT_LEAD) // len(deltas))
            if ahead > said:
                self._words += ahead - said
                self._add_text(current, "".join(words[said:ahead]))
                said = ahead
            size = min(len(utterance.audio), number * self.timing.delta_ms * utterance.encoding.bytes_per_ms)
            self._audio_ms += current.sound(delta, ItemAudio(utterance.audio, utterance.encoding, size))
            yield self._now + self.timing.delta_interval
        self._end("completed")

    # --- Its parts ----------------------------------------------------------------------------------------------------

    def _place(self, index: int) -> Place:
        return Place(self.settings.id, self.stage.ids.item(), index)

    def _begin(self, current: OutputItem) -> None:
        self._open = current
        current.begin()

    def _end(self, status: str) -> None:
        """Close the open item, whole or not."""
        current, self._open = self._open, None
        if current is not None:
            self._finished.append(current.end(status))

    def _finish(self, state: ResponseState, details: ResponseStatusDetails | None) -> None:
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransitionError(f"a response cannot go from {self.state.value} to {state.value}")
        self._end("incomplete")
        self.state = state
        self._steps = iter(())
        self.due = None
        self.stage.send(ResponseDone(response=self._response(details)))

    def _response(self, details: ResponseStatusDetails | None = None) -> Response:
        settings = self.settings
        usage = None
        if not self.active:
            audio = assistant_audio_tokens(self._audio_ms)
            usage = response_usage(settings.context, settings.cached, self._text_tokens, audio)
        # The official types know only a name here, while a session may have an object.
        voice = settings.voice if isinstance(settings.voice, str) else settings.voice.id
        return Response(
            id=settings.id,
            status=self.state.value,
            status_details=details,
            output=tuple(self._finished),
            conversation_id=settings.conversation_id,
            output_modalities=["text"] if settings.text_only else ["audio"],
            max_output_tokens="inf" if settings.max_output_tokens is None else settings.max_output_tokens,
            audio=ResponseAudioConfig(output=AudioOutputConfig(format=format_of(settings.encoding), voice=voice)),
            usage=usage,
            metadata=settings.metadata,
        )

    def _request(self, say: Say) -> SpeechRequest:
        settings = self.settings
        return SpeechRequest(say.text, voice_name(settings.voice), settings.speed, settings.encoding, settings.language)

    def _add_text(self, current: OutputItem, text: str) -> None:
        before = text_tokens(current.text)
        current.add(text)
        self._text_tokens += text_tokens(current.text) - before

    def _exhausted(self) -> bool:
        limit = self.settings.max_output_tokens
        return limit is not None and self._output_tokens >= limit

    def _is_enough(self) -> bool:
        """Whether the limit is reached, or the point at which the scenario ends the response."""
        end = self.plan.end if self.plan is not None else None
        return self._exhausted() or (end is not None and self._words >= end.after)
