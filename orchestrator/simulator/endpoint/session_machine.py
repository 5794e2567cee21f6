"""One model session as a pure state machine: client events in, server events out, each at its time.

No socket, no clock, no thread. Every method takes the present time (seconds, any origin, never falling) and returns what is
to be done now, in order: a server event is to be sent, a `Render` to be answered with `provide`, a `Close` ends the session.
Afterwards `due` says when `advance` must be called at the latest, or is None if nothing is going on.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, TypeAlias, assert_never

import msgspec
from msgspec import UNSET

from orchestrator.errors import WireError
from orchestrator.simulator.endpoint import refusals
from orchestrator.simulator.endpoint.conversation import Conversation, ItemAudio, Memory
from orchestrator.simulator.endpoint.director import Director
from orchestrator.simulator.endpoint.input_audio import InputBuffer, decode_audio
from orchestrator.simulator.endpoint.item_intake import asked_text, take_item, tell
from orchestrator.simulator.endpoint.responses import Generation, ResponseSettings, Stage, Timing
from orchestrator.simulator.endpoint.session_config import (
    SessionView,
    apply_update,
    check_voice,
    encoding_of,
    initial_session,
    offered_tools,
    voice_is_locked,
)
from orchestrator.simulator.endpoint.usage import context_tokens, rate_limit, transcription_usage
from orchestrator.simulator.endpoint.vad import EdgeKind
from orchestrator.wire.realtime import (
    AudioOutputConfig,
    ConversationItemAdded,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemDeleted,
    ConversationItemDone,
    ConversationItemInputAudioTranscriptionCompleted,
    ConversationItemInputAudioTranscriptionDelta,
    ConversationItemRetrieve,
    ConversationItemRetrieved,
    ConversationItemTruncate,
    ConversationItemTruncated,
    CustomVoice,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCleared,
    InputAudioBufferCommit,
    InputAudioBufferCommitted,
    InputAudioBufferSpeechStarted,
    InputAudioBufferSpeechStopped,
    InputAudioPart,
    ItemReference,
    MessageItem,
    OutputAudioBufferClear,
    RateLimitsUpdated,
    ResponseAudioConfig,
    ResponseCancel,
    ResponseCreate,
    ResponseCreateParams,
    ServerEvent,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    UnknownEvent,
    decode_client_event,
    event_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.audio import Encoding
    from orchestrator.simulator.endpoint.director import Plan
    from orchestrator.simulator.endpoint.usage import InputTokens
    from orchestrator.simulator.endpoint.vad import Edge
    from orchestrator.simulator.ids import IdSource
    from orchestrator.simulator.scenario import Scenario
    from orchestrator.simulator.speech import SpeechRequest, Utterance
    from orchestrator.wire.realtime import ClientEvent, RealtimeSessionConfig

__all__ = ["Close", "ModelOptions", "Output", "Render", "SessionMachine"]

MOST_ASIDES = 16
"""So many responses out of band may run at once."""
LONGEST_APPEND = 15 * 1024 * 1024
EXPIRED = 1001
APPEND_HEAD = b'{"type":"input_audio_buffer.append"'


@dataclass(frozen=True)
class Render:
    """Speech is needed: make it, then call `provide`."""

    request: SpeechRequest


@dataclass(frozen=True)
class Close:
    """The session is over: close the socket with this code and reason."""

    code: int
    reason: str


Output: TypeAlias = ServerEvent | Render | Close


@dataclass(frozen=True)
class ModelOptions:
    """How the model behaves where the API leaves it open.

    `transcription_delay` is how long after a commit the transcript comes (seconds), `session_seconds` how long a session may
    last, `audio_limit` how many bytes of a caller's audio are kept for `retrieve`. With `queue_turns` a spoken turn that ends
    while a response runs (which takes `interrupt_response: false`) is answered after it; else it is not answered.
    """

    timing: Timing = field(default_factory=Timing)
    transcription_delay: float = 0.3
    session_seconds: float = 3600.0
    audio_limit: int = 8 * 1024 * 1024
    queue_turns: bool = True


class SessionMachine:
    """The state of one model session. `unix_time` is the wall clock at its start, for `expires_at`."""

    def __init__(self, scenario: Scenario, options: ModelOptions, ids: IdSource, *, model: str, unix_time: float) -> None:
        self._options = options
        self._ids = ids
        self._language = scenario.language
        self._director = Director(scenario)
        self._conversation = Conversation(options.audio_limit)
        self._conversation_id = ids.conversation()
        self._view = SessionView(initial_session(ids.session(), model, int(unix_time + options.session_seconds)))
        self._input = InputBuffer(self._view.input_encoding, self._view.vad)
        self._turn_item_id = ""
        self._turn_waits = False
        self._active: Generation | None = None
        self._asides: dict[str, Generation] = {}
        self._cached = 0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._now = 0.0
        self._outputs: list[Output] = []
        self._closed = False

    @property
    def due(self) -> float | None:
        """When `advance` must be called."""
        return self._timers[0][0] if self._timers and not self._closed else None

    @property
    def session(self) -> RealtimeSessionConfig:
        """The configuration as it is now."""
        return self._view.session

    # --- What the shell calls -----------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Output]:
        """The socket is open."""
        self._now = now
        self._send(SessionCreated(session=self._view.session))
        self._at(now + self._options.session_seconds, self._expire)
        return self._taken()

    def advance(self, now: float) -> list[Output]:
        """Time has passed."""
        self._run_due(now)
        return self._taken()

    def receive_text(self, data: bytes, now: float) -> list[Output]:
        """A text message came."""
        self._run_due(now)
        if not self._closed:
            try:
                # An append is read once; looking for members that it should not have would double its cost.
                event = decode_client_event(data, forbid_unknown=not data.startswith(APPEND_HEAD))
                if isinstance(event, UnknownEvent | OutputAudioBufferClear):
                    raise refusals.unknown_type(event_type(event))
                self._dispatch(event)
            except WireError as error:
                self._send(refusals.error_event(error, refusals.client_event_id(data)))
        return self._taken()

    def receive_binary(self, now: float) -> list[Output]:
        """A binary message came; the API has none."""
        self._run_due(now)
        if not self._closed:
            self._send(refusals.error_event(refusals.binary_message(), None))
        return self._taken()

    def provide(self, request: SpeechRequest, utterance: Utterance | None, now: float) -> list[Output]:
        """Speech that was asked for is ready; None says that it cannot be made."""
        self._run_due(now)
        for generation in self._generations():
            if request not in generation.requests():
                continue
            waited_until = generation.due
            if utterance is None:
                generation.fail("server_error", "The model could not produce audio.")
            else:
                generation.provide(request, utterance, now)
            # While the model still seems to think, the timer of its first output is set already.
            if generation.due != waited_until or not generation.active:
                self._follow(generation)
        return self._taken()

    # --- Client events ------------------------------------------------------------------------------------------------

    def _dispatch(self, event: ClientEvent) -> None:
        match event:
            case InputAudioBufferAppend():
                self._on_append(event)
            case InputAudioBufferClear():
                self._on_clear()
            case InputAudioBufferCommit():
                self._on_commit()
            case ConversationItemCreate():
                self._on_item_create(event)
            case ConversationItemDelete():
                self._conversation.delete(event.item_id)
                self._send(ConversationItemDeleted(item_id=event.item_id))
            case ConversationItemRetrieve():
                self._send(ConversationItemRetrieved(item=self._conversation.retrieve(event.item_id)))
            case ConversationItemTruncate():
                self._on_item_truncate(event)
            case ResponseCancel():
                self._on_response_cancel(event)
            case ResponseCreate():
                self._on_response_create(event)
            case SessionUpdate():
                self._on_session_update(event)
            case OutputAudioBufferClear():
                raise AssertionError("a WebSocket client has no such event")
            case _:
                assert_never(event)

    def _on_append(self, event: InputAudioBufferAppend) -> None:
        if len(event.audio) > LONGEST_APPEND:
            raise WireError(
                "string_above_max_length",
                f"Invalid 'audio': string too long. Expected a string with maximum length {LONGEST_APPEND}, but got a string "
                f"with length {len(event.audio)} instead.",
                "audio",
            )
        for edge in self._input.append(decode_audio(event.audio, self._view.input_encoding)):
            self._on_edge(edge)

    def _on_edge(self, edge: Edge) -> None:
        if edge.kind is EdgeKind.STARTED:
            self._turn_item_id = self._ids.item()
            self._input.begin_turn(edge.at_ms)
            self._send(InputAudioBufferSpeechStarted(audio_start_ms=edge.at_ms, item_id=self._turn_item_id))
            if self._active is not None and self._view.interrupt_response:
                self._active.cancel("turn_detected")
                self._follow(self._active)
            return
        self._send(InputAudioBufferSpeechStopped(audio_end_ms=edge.at_ms, item_id=self._turn_item_id))
        self._commit(self._turn_item_id, self._input.take_turn(edge.at_ms))
        self._turn_item_id = ""
        if not self._view.create_response:
            return
        if self._active is None:
            self._create(ResponseCreateParams())
        else:
            self._turn_waits = self._options.queue_turns

    def _on_clear(self) -> None:
        self._input.clear()
        self._turn_item_id = ""
        self._send(InputAudioBufferCleared())

    def _on_commit(self) -> None:
        data = self._input.commit()
        item_id, self._turn_item_id = self._turn_item_id or self._ids.item(), ""
        self._commit(item_id, data)

    def _on_item_create(self, event: ConversationItemCreate) -> None:
        memory = take_item(event.item, self._ids, self._view.input_encoding)
        after = event.previous_item_id if isinstance(event.previous_item_id, str) else None
        at_end = after is None or after == self._conversation.tail
        previous = self._conversation.insert(memory, after)
        # What is put between older items is history, and nothing to answer.
        if at_end:
            tell(self._director, memory)
        self._send(ConversationItemAdded(previous_item_id=previous, item=memory.item))
        self._send(ConversationItemDone(previous_item_id=previous, item=memory.item))

    def _on_item_truncate(self, event: ConversationItemTruncate) -> None:
        self._conversation.truncate(event.item_id, event.content_index, event.audio_end_ms)
        self._send(
            ConversationItemTruncated(item_id=event.item_id, content_index=event.content_index, audio_end_ms=event.audio_end_ms)
        )

    def _on_response_cancel(self, event: ResponseCancel) -> None:
        generation = self._active
        if isinstance(event.response_id, str) and (generation is None or generation.settings.id != event.response_id):
            generation = self._asides.get(event.response_id)
        if generation is None:
            raise refusals.no_active_response()
        generation.cancel("client_cancelled")
        self._follow(generation)

    def _on_response_create(self, event: ResponseCreate) -> None:
        params = event.response if isinstance(event.response, ResponseCreateParams) else ResponseCreateParams()
        if params.conversation != "none" and self._active is not None:
            raise refusals.active_response(self._active.settings.id)
        self._create(params)

    def _on_session_update(self, event: SessionUpdate) -> None:
        locked = self._conversation.has_assistant_audio
        encoding = self._view.input_encoding
        self._view = SessionView(apply_update(self._view.session, event.session, voice_locked=locked))
        self._input.configure(self._view.input_encoding, self._view.vad)
        if self._view.input_encoding is not encoding:
            self._turn_item_id = ""
        self._send(SessionUpdated(session=self._view.session))

    # --- Turns --------------------------------------------------------------------------------------------------------

    def _commit(self, item_id: str, data: bytes) -> None:
        """A spoken turn becomes an item of the conversation."""
        encoding = self._view.input_encoding
        audio = ItemAudio(data, encoding, len(data))
        item = MessageItem(id=item_id, status="completed", role="user", content=[InputAudioPart(transcript=None)])
        previous = self._conversation.insert(Memory(item_id, item, audio))
        heard = self._director.hear_audio(audio.milliseconds / 1000)
        self._send(InputAudioBufferCommitted(previous_item_id=previous, item_id=item_id))
        self._send(ConversationItemAdded(previous_item_id=previous, item=item))
        self._send(ConversationItemDone(previous_item_id=previous, item=item))
        transcription = self._view.transcription
        if transcription is not None:
            model = transcription.model if isinstance(transcription.model, str) else "whisper-1"
            ready = partial(self._transcribed, item_id, model, heard, audio.milliseconds)
            self._at(self._now + self._options.transcription_delay, ready)

    def _transcribed(self, item_id: str, model: str, transcript: str, milliseconds: float) -> None:
        if item_id not in self._conversation:
            return
        self._conversation.set_transcript(item_id, transcript)
        words = [transcript] if model.startswith("whisper") else transcript.split(" ")
        for number, word in enumerate(words):
            self._send(
                ConversationItemInputAudioTranscriptionDelta(
                    item_id=item_id, delta=f" {word}" if number else word, obfuscation=self._ids.obfuscation()
                )
            )
        self._send(
            ConversationItemInputAudioTranscriptionCompleted(
                item_id=item_id, transcript=transcript, usage=transcription_usage(model, transcript, milliseconds)
            )
        )

    # --- Responses ----------------------------------------------------------------------------------------------------

    def _create(self, params: ResponseCreateParams) -> None:
        aside = params.conversation == "none"
        if aside and len(self._asides) >= MOST_ASIDES:
            raise WireError("rate_limit_exceeded", f"No more than {MOST_ASIDES} responses may run out of band at once.")
        context = self._context(params)
        settings = self._settings(params, context, aside=aside)
        stage = Stage(self._ids, self._send, None if aside else self._conversation, self._director.called)
        generation = Generation(settings, self._plan(params, aside=aside), self._options.timing, stage)
        if aside:
            self._asides[settings.id] = generation
        else:
            self._active = generation
            self._cached = context.total
        generation.start(self._now)
        self._outputs += [Render(request) for request in generation.requests()]
        self._follow(generation)

    def _settings(self, params: ResponseCreateParams, context: InputTokens, *, aside: bool) -> ResponseSettings:
        view, session = self._view, self._view.session
        encoding, voice = self._voice(params, aside=aside)
        modalities = params.output_modalities or session.output_modalities
        limit = session.max_output_tokens if params.max_output_tokens in (None, UNSET) else params.max_output_tokens
        return ResponseSettings(
            id=self._ids.response(),
            conversation_id=None if aside else self._conversation_id,
            text_only=modalities == ["text"],
            encoding=encoding,
            voice=voice,
            speed=view.speed,
            language=self._language,
            max_output_tokens=limit if isinstance(limit, int) else None,
            metadata=params.metadata or None,
            context=context,
            cached=0 if aside else self._cached,
        )

    def _voice(self, params: ResponseCreateParams, *, aside: bool) -> tuple[Encoding, str | CustomVoice]:
        output = params.audio.output if isinstance(params.audio, ResponseAudioConfig) else None
        encoding, voice = self._view.output_encoding, self._view.voice
        if isinstance(output, AudioOutputConfig):
            if output.format:
                encoding = encoding_of(output.format)
            if isinstance(output.voice, str | CustomVoice):
                check_voice(output.voice, "response.audio.output.voice")
                if not aside and output.voice != voice and self._conversation.has_assistant_audio:
                    raise voice_is_locked()
                voice = output.voice
        return encoding, voice

    def _context(self, params: ResponseCreateParams) -> InputTokens:
        """What the response is based on. Raises WireError if its input refers to what is not there."""
        session = self._view.session
        if isinstance(params.instructions, str):
            session = msgspec.structs.replace(session, instructions=params.instructions)
        if params.input is None or params.input is UNSET:
            return context_tokens(session, self._conversation)
        memories: list[Memory] = []
        for index, item in enumerate(params.input):
            if isinstance(item, ItemReference):
                known = self._conversation.find(item.id)
                if known is None:
                    message = f"Error creating response: the item with id '{item.id}' does not exist."
                    raise WireError("invalid_value", message, f"response.input[{index}].id")
                memories.append(known)
            else:
                memories.append(take_item(item, self._ids, self._view.input_encoding))
        return context_tokens(session, memories)

    def _plan(self, params: ResponseCreateParams, *, aside: bool) -> Plan:
        session = self._view.session
        tools = session.tools if params.tools in (None, UNSET) else params.tools
        choice = session.tool_choice if params.tool_choice in (None, UNSET) else params.tool_choice
        offered = offered_tools(tools, choice)
        given = params.input or ()
        if not aside and (params.input is None or params.input is UNSET):
            return self._director.plan(offered)
        instructions = params.instructions if isinstance(params.instructions, str) else ""
        return self._director.plan_aside(asked_text(given) or instructions, offered)

    def _generations(self) -> list[Generation]:
        active = [self._active] if self._active is not None else []
        return [*active, *self._asides.values()]

    def _follow(self, generation: Generation) -> None:
        """Set the timer of a response that goes on, clear up after one that has ended."""
        if generation.active:
            if generation.due is not None:
                self._at(generation.due, partial(self._continue, generation, generation.due))
            return
        response_id = generation.settings.id
        self._asides.pop(response_id, None)
        if generation is self._active:
            self._active = None
        self._send(RateLimitsUpdated(rate_limits=[rate_limit(generation.tokens)]))
        if self._active is None and self._turn_waits:
            self._turn_waits = False
            self._create(ResponseCreateParams())

    def _continue(self, generation: Generation, due: float) -> None:
        # A timer that was overtaken by a cancel, or by speech that came, means nothing any more.
        if generation.active and generation.due == due:
            generation.advance(self._now)
            self._follow(generation)

    # --- Time and output ----------------------------------------------------------------------------------------------

    def _at(self, due: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (due, next(self._numbers), action))

    def _run_due(self, now: float) -> None:
        """Do what was due until now, each thing at its own time, so that lateness does not add up."""
        while self._timers and self._timers[0][0] <= now and not self._closed:
            due, _, action = heapq.heappop(self._timers)
            self._now = max(self._now, due)
            action()
        if now > self._now:
            self._now = now

    def _expire(self) -> None:
        error = refusals.session_expired(self._options.session_seconds)
        self._send(refusals.error_event(error, None))
        self._outputs.append(Close(EXPIRED, error.message))
        self._closed = True

    def _send(self, event: ServerEvent) -> None:
        self._outputs.append(msgspec.structs.replace(event, event_id=self._ids.event()))

    def _taken(self) -> list[Output]:
        outputs, self._outputs = self._outputs, []
        return outputs
