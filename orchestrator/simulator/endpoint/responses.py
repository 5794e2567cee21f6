"""One response of the model while it is generated: the events that it consists of, in captured order, each at its time.

Pure. A `Generation` is a generator that yields when it wants to go on; the session machine gives it the time. Whatever ends it
early (a cancel, a barge-in, the token limit) closes what is open with the same events as a regular end, but marked incomplete.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from orchestrator.errors import IllegalTransitionError
from orchestrator.simulator.endpoint.conversation import ItemAudio, Memory
from orchestrator.simulator.endpoint.director import Call, Plan, Say
from orchestrator.simulator.endpoint.session_config import format_of, voice_name
from orchestrator.simulator.endpoint.usage import assistant_audio_tokens, response_usage, text_tokens
from orchestrator.simulator.speech import SpeechRequest
from orchestrator.wire.realtime_server import (
    ConversationItemAdded,
    ConversationItemDone,
    ResponseContentPartAdded,
    ResponseContentPartDone,
    ResponseCreated,
    ResponseDone,
    ResponseFunctionCallArgumentsDelta,
    ResponseFunctionCallArgumentsDone,
    ResponseOutputAudioDelta,
    ResponseOutputAudioDone,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
    ResponseOutputItemAdded,
    ResponseOutputItemDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
)
from orchestrator.wire.realtime_types import (
    AudioOutputConfig,
    AudioPart,
    FunctionCallItem,
    MessageItem,
    OutputAudioPart,
    OutputTextPart,
    Response,
    ResponseAudioConfig,
    ResponseError,
    ResponseStatusDetails,
    TextPart,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from orchestrator.simulator.audio import Encoding
    from orchestrator.simulator.endpoint.conversation import Conversation
    from orchestrator.simulator.endpoint.usage import InputTokens
    from orchestrator.simulator.ids import IdSource
    from orchestrator.simulator.speech import Utterance
    from orchestrator.wire.realtime_server import ServerEvent
    from orchestrator.wire.realtime_types import ContentPart, CustomVoice, Item

__all__ = ["TRANSITIONS", "Generation", "ResponseSettings", "ResponseState", "Stage", "Timing"]

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
class Timing:
    """How fast the model is. Times are seconds.

    `first_output` passes between a request and the first output, unless the scenario says otherwise. Audio comes in deltas
    of `delta_ms` milliseconds, `pace` times faster than it plays (0: all at once); text in words, one per `text_interval`.
    """

    first_output: float = 0.3
    pace: float = 5.0
    delta_ms: int = 200
    text_interval: float = 0.01

    @property
    def delta_interval(self) -> float:
        """Seconds between two audio deltas."""
        return self.delta_ms / 1000 / self.pace if self.pace > 0 else 0.0


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


@dataclass(frozen=True)
class Stage:
    """What a generation acts upon. `conversation` is None for a response out of band: it leaves no trace there."""

    ids: IdSource
    send: Callable[[ServerEvent], None]
    conversation: Conversation | None
    called: Callable[[str, Call], None]


@dataclass
class _Open:
    """The output item that is being generated."""

    index: int
    item_id: str
    kind: Literal["audio", "call", "text"]
    previous: str | None = None
    text: str = ""
    audio: ItemAudio | None = None
    call_id: str = ""
    name: str = ""

    def item(self, status: str) -> Item:
        if self.kind == "call":
            return FunctionCallItem(id=self.item_id, status=status, name=self.name, call_id=self.call_id, arguments=self.text)
        content: list[ContentPart] = []
        if status != "in_progress":
            content = [OutputTextPart(text=self.text) if self.kind == "text" else OutputAudioPart(transcript=self.text)]
        return MessageItem(id=self.item_id, status=status, role="assistant", content=content)


@dataclass
class Generation:
    """One response in progress.

    `start`, `advance` and `provide` are called with the present time; afterwards `due` says when to call `advance` next, or
    is None while speech is awaited (see `requests`) and after the end.
    """

    settings: ResponseSettings
    plan: Plan
    timing: Timing
    stage: Stage
    state: ResponseState = ResponseState.IN_PROGRESS
    due: float | None = None
    _now: float = 0.0
    _steps: Iterator[float | None] = field(default_factory=lambda: iter(()))
    _open: _Open | None = None
    _finished: list[Item] = field(default_factory=list)
    _text_tokens: int = 0
    _audio_ms: float = 0.0
    _speech: dict[SpeechRequest, Utterance] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether the response goes on."""
        return self.state is ResponseState.IN_PROGRESS

    @property
    def tokens(self) -> int:
        """Tokens used so far, context included."""
        return self.settings.context.total + self._output_tokens

    @property
    def _output_tokens(self) -> int:
        return self._text_tokens + assistant_audio_tokens(self._audio_ms)

    def requests(self) -> list[SpeechRequest]:
        """All speech that this response will need, so that it can be made while the model seems to think."""
        if self.settings.text_only:
            return []
        return [self._request(output) for output in self.plan.outputs if isinstance(output, Say)]

    def start(self, now: float) -> None:
        """Announce the response."""
        self._now = now
        self._send(ResponseCreated(response=self._response()))
        think = self.plan.think if self.plan.think is not None else self.timing.first_output
        self._steps = self._run()
        self.due = now + think

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

    def fail(self, code: str, message: str) -> None:
        """End because generating is impossible."""
        error = ResponseError(type="server_error", code=code, message=message)
        self._finish(ResponseState.FAILED, ResponseStatusDetails(type="failed", error=error))

    # --- The course of a response -------------------------------------------------------------------------------------

    def _run(self) -> Iterator[float | None]:
        """Yields when to go on: a time, or None for "when the speech is there"."""
        for index, output in enumerate(self.plan.outputs):
            if isinstance(output, Call):
                yield from self._call(index, output)
            elif self.settings.text_only:
                yield from self._write(index, output)
            else:
                yield from self._speak(index, output)
            if self._exhausted():
                details = ResponseStatusDetails(type="incomplete", reason="max_output_tokens")
                self._finish(ResponseState.INCOMPLETE, details)
                return
        self._finish(ResponseState.COMPLETED, None)

    def _call(self, index: int, call: Call) -> Iterator[float]:
        current = _Open(index, self.stage.ids.item(), "call", call_id=self.stage.ids.call(), name=call.name)
        self._begin(current)
        for start in range(0, len(call.arguments), ARGUMENTS_PER_DELTA):
            delta = call.arguments[start : start + ARGUMENTS_PER_DELTA]
            self._add_text(current, delta)
            self._send(
                ResponseFunctionCallArgumentsDelta(
                    response_id=self.settings.id,
                    item_id=current.item_id,
                    output_index=index,
                    call_id=current.call_id,
                    delta=delta,
                    obfuscation=self.stage.ids.obfuscation(),
                )
            )
            yield self._now + self.timing.text_interval
        self._end("completed")
        self.stage.called(current.call_id, call)

    def _write(self, index: int, say: Say) -> Iterator[float]:
        current = _Open(index, self.stage.ids.item(), "text")
        self._begin(current)
        for word in _WORD.findall(say.text):
            if self._exhausted():
                return
            self._add_text(current, word)
            self._send(
                ResponseOutputTextDelta(
                    response_id=self.settings.id,
                    item_id=current.item_id,
                    output_index=index,
                    delta=word,
                    obfuscation=self.stage.ids.obfuscation(),
                )
            )
            yield self._now + self.timing.text_interval
        self._end("completed")

    def _speak(self, index: int, say: Say) -> Iterator[float | None]:
        request = self._request(say)
        while request not in self._speech:
            yield None
        utterance = self._speech[request]
        deltas = utterance.deltas(self.timing.delta_ms)
        words = _WORD.findall(say.text)
        current = _Open(index, self.stage.ids.item(), "audio")
        self._begin(current)
        said = size = 0
        for number, delta in enumerate(deltas, 1):
            if self._exhausted():
                return
            ahead = -(-len(words) * min(len(deltas), number + TRANSCRIPT_LEAD) // len(deltas))
            self._transcribe(current, "".join(words[said:ahead]))
            said = ahead
            size = min(len(utterance.audio), number * self.timing.delta_ms * utterance.encoding.bytes_per_ms)
            self._audio_delta(current, delta, ItemAudio(utterance.audio, utterance.encoding, size))
            yield self._now + self.timing.delta_interval
        self._end("completed")

    def _transcribe(self, current: _Open, text: str) -> None:
        if not text:
            return
        self._add_text(current, text)
        self._send(
            ResponseOutputAudioTranscriptDelta(
                response_id=self.settings.id,
                item_id=current.item_id,
                output_index=current.index,
                delta=text,
                obfuscation=self.stage.ids.obfuscation(),
            )
        )

    def _audio_delta(self, current: _Open, delta: str, audio: ItemAudio) -> None:
        before = current.audio.milliseconds if current.audio is not None else 0.0
        self._audio_ms += audio.milliseconds - before
        current.audio = audio
        if self.stage.conversation is not None:
            self.stage.conversation.update(current.item_id, current.item("in_progress"), audio)
        self._send(
            ResponseOutputAudioDelta(
                response_id=self.settings.id, item_id=current.item_id, output_index=current.index, delta=delta
            )
        )

    # --- Its parts ----------------------------------------------------------------------------------------------------

    def _begin(self, current: _Open) -> None:
        self._open = current
        item = current.item("in_progress")
        self._send(ResponseOutputItemAdded(response_id=self.settings.id, output_index=current.index, item=item))
        if self.stage.conversation is not None:
            current.previous = self.stage.conversation.insert(Memory(current.item_id, item))
            self._send(ConversationItemAdded(previous_item_id=current.previous, item=item))
        if current.kind != "call":
            part = TextPart(text="") if current.kind == "text" else AudioPart(transcript="")
            self._send(
                ResponseContentPartAdded(
                    response_id=self.settings.id, item_id=current.item_id, output_index=current.index, part=part
                )
            )

    def _end(self, status: str) -> None:
        """Close the open item, whole or not."""
        current, self._open = self._open, None
        if current is None:
            return
        if current.kind == "call":
            # A call that was cut short must not look as if it could be run.
            if status == "completed":
                self._end_call(current)
        else:
            self._end_part(current)
        item = current.item(status)
        self._finished.append(item)
        conversation = self.stage.conversation
        if conversation is not None:
            if current.item_id in conversation:
                conversation.update(current.item_id, item, current.audio)
                current.previous = conversation.previous(current.item_id)
            self._send(ConversationItemDone(previous_item_id=current.previous, item=item))
        self._send(ResponseOutputItemDone(response_id=self.settings.id, output_index=current.index, item=item))

    def _end_call(self, current: _Open) -> None:
        self._send(
            ResponseFunctionCallArgumentsDone(
                response_id=self.settings.id,
                item_id=current.item_id,
                output_index=current.index,
                call_id=current.call_id,
                name=current.name,
                arguments=current.text,
            )
        )

    def _end_part(self, current: _Open) -> None:
        response_id, item_id, index, text = self.settings.id, current.item_id, current.index, current.text
        part: ContentPart
        if current.kind == "text":
            part = TextPart(text=text)
            self._send(ResponseOutputTextDone(response_id=response_id, item_id=item_id, output_index=index, text=text))
        else:
            part = AudioPart(transcript=text)
            self._send(ResponseOutputAudioDone(response_id=response_id, item_id=item_id, output_index=index))
            self._send(
                ResponseOutputAudioTranscriptDone(response_id=response_id, item_id=item_id, output_index=index, transcript=text)
            )
        self._send(ResponseContentPartDone(response_id=response_id, item_id=item_id, output_index=index, part=part))

    def _finish(self, state: ResponseState, details: ResponseStatusDetails | None) -> None:
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransitionError(f"a response cannot go from {self.state.value} to {state.value}")
        self._end("incomplete")
        self.state = state
        self._steps = iter(())
        self.due = None
        self._send(ResponseDone(response=self._response(details)))

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

    def _add_text(self, current: _Open, text: str) -> None:
        before = text_tokens(current.text)
        current.text += text
        self._text_tokens += text_tokens(current.text) - before

    def _exhausted(self) -> bool:
        limit = self.settings.max_output_tokens
        return limit is not None and self._output_tokens >= limit

    def _send(self, event: ServerEvent) -> None:
        self.stage.send(event)
