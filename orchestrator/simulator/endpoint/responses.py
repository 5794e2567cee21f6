"""The responses of one session: the one that the conversation has at most, and those that run out of band beside it.

Pure. A response is announced at once; what it consists of is decided as soon as it is known what the caller has said, and its
events then come at their times. See `generation` for the course of one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, UnsetType

from orchestrator.errors import WireError
from orchestrator.simulator.endpoint import refusals
from orchestrator.simulator.endpoint.context import fit_context, input_limit
from orchestrator.simulator.endpoint.generation import Generation, ResponseSettings
from orchestrator.simulator.endpoint.item_intake import asked_text, take_item
from orchestrator.simulator.endpoint.output_items import Stage
from orchestrator.simulator.endpoint.outputs import Render
from orchestrator.simulator.endpoint.session_config import check_reasoning, check_voice, encoding_of, voice_is_locked
from orchestrator.simulator.endpoint.toolbox import toolbox
from orchestrator.simulator.endpoint.usage import rate_limit
from orchestrator.wire.realtime_server import RateLimitsUpdated
from orchestrator.wire.realtime_types import (
    AudioOutputConfig,
    CustomVoice,
    ItemReference,
    ResponseAudioConfig,
    ResponseCreateParams,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.audio import Encoding
    from orchestrator.simulator.endpoint.call_audio import CallAudio
    from orchestrator.simulator.endpoint.context import Context
    from orchestrator.simulator.endpoint.conversation import Memory
    from orchestrator.simulator.endpoint.director import Plan
    from orchestrator.simulator.endpoint.hearing import Hearing
    from orchestrator.simulator.endpoint.mcp_servers import McpServers
    from orchestrator.simulator.endpoint.state import SessionState
    from orchestrator.simulator.speech import SpeechRequest, Utterance
    from orchestrator.wire.realtime_types import ResponseError

__all__ = ["Responses"]

MOST_ASIDES = 16
"""So many responses out of band may run at once."""


class Responses:
    """`on_end` is called whenever the response of the conversation is over and no other one has begun."""

    def __init__(
        self,
        state: SessionState,
        hearing: Hearing,
        audio: CallAudio,
        servers: McpServers,
        *,
        language: str,
        on_end: Callable[[], None],
    ) -> None:
        self._state = state
        self._hearing = hearing
        self._audio = audio
        self._servers = servers
        self._language = language
        self._on_end = on_end
        self._conversation_id = state.ids.conversation()
        self._active: Generation | None = None
        self._asides: dict[str, Generation] = {}
        self._turn_waits = False
        self._undecided = ResponseCreateParams()
        self._cached = 0

    @property
    def conversation_id(self) -> str:
        """The id of the conversation."""
        return self._conversation_id

    @property
    def active(self) -> Generation | None:
        """The response of the conversation that is in progress."""
        return self._active

    def create(self, params: ResponseCreateParams) -> None:
        """A response is asked for. Raises WireError if it may not be, and then nothing has begun."""
        if params.conversation != "none" and self._active is not None:
            raise refusals.active_response(self._active.settings.id)
        self._create(params)

    def turn_ended(self) -> None:
        """A spoken turn wants an answer: now, or after the response that is in progress."""
        if self._active is None:
            self._create(ResponseCreateParams())
        else:
            self._turn_waits = self._state.options.queue_turns

    def interrupt(self) -> None:
        """The caller speaks into the response of the conversation. Those out of band go on."""
        if self._active is not None:
            # Neither is a turn answered that waits for the end of this response: what is said now comes after it.
            self._turn_waits = False
            self._active.cancel("turn_detected")
            self._follow(self._active)

    def cancel(self, response_id: str | None) -> None:
        """The client wants a response to end: that of the conversation, or the one of this id. Raises WireError."""
        generation = self._active
        if response_id is not None and (generation is None or generation.settings.id != response_id):
            generation = self._asides.get(response_id)
        if generation is None:
            raise refusals.no_active_response()
        generation.cancel("client_cancelled")
        self._follow(generation)

    def fail(self, error: ResponseError) -> None:
        """The response of the conversation fails, or without one the newest out of band; without any, nothing happens."""
        generation = self._active or next(reversed(self._asides.values()), None)
        if generation is not None:
            generation.fail(str(error.code), str(error.message), str(error.type))
            self._follow(generation)

    def decide(self) -> None:
        """What the caller said may be known by now: a response that waits for that can go on."""
        if self._active is not None and self._active.undecided and not self._hearing.busy:
            self._decide(self._active, self._plan(self._undecided, None))

    def provide(self, request: SpeechRequest, utterance: Utterance | None) -> None:
        """Speech that was asked for is ready; None says that it cannot be made."""
        for generation in [*([self._active] if self._active is not None else []), *self._asides.values()]:
            if request not in generation.requests():
                continue
            waited_until = generation.due
            if utterance is None:
                generation.fail("server_error", "The model could not produce audio.")
            else:
                generation.provide(request, utterance, self._state.timeline.now)
            # While the model still seems to think, the timer of its first output is set already.
            if generation.due != waited_until or not generation.active:
                self._follow(generation)

    # --- What a response starts from ----------------------------------------------------------------------------------

    def _create(self, params: ResponseCreateParams) -> None:
        state, aside = self._state, params.conversation == "none"
        if aside and len(self._asides) >= MOST_ASIDES:
            raise WireError("rate_limit_exceeded", f"No more than {MOST_ASIDES} responses may run out of band at once.")
        check_reasoning(str(state.view.answering.model), params.reasoning, "response.reasoning")
        given = self._given(params)
        encoding, voice = self._voice(params, aside=aside)
        # Nothing is refused from here on.
        context = self._context(params, given)
        settings = self._settings(params, context, encoding, voice)
        if not isinstance(params.tools, UnsetType) and params.tools is not None:
            self._servers.name(params.tools)
        stage = Stage(
            ids=state.ids,
            send=state.timeline.send,
            options=state.options,
            conversation=None if aside else state.conversation,
            director=None if aside else state.director,
            servers=self._servers,
            played=self._audio.played,
        )
        generation = Generation(settings, state.options.timing, stage)
        if aside:
            self._asides[settings.id] = generation
        else:
            self._active = generation
            self._cached = context.tokens.total
        generation.start(state.timeline.now)
        if context.overflow:
            message = "The conversation is longer than the model takes, and its truncation is disabled."
            generation.fail(state.options.overflow_code, message, "invalid_request_error")
            self._follow(generation)
        elif given is not None or aside or not self._hearing.busy:
            self._decide(generation, self._plan(params, given))
        else:
            self._undecided = params

    def _given(self, params: ResponseCreateParams) -> list[Memory] | None:
        """The input of a response that has one of its own. Raises WireError if it refers to what is not there."""
        if params.input is None or isinstance(params.input, UnsetType):
            return None
        memories: list[Memory] = []
        for index, item in enumerate(params.input):
            if isinstance(item, ItemReference):
                known = self._state.conversation.find(item.id)
                if known is None:
                    message = f"Error creating response: the item with id '{item.id}' does not exist."
                    raise WireError("invalid_value", message, f"response.input[{index}].id")
                memories.append(known)
            else:
                memories.append(take_item(item, self._state.ids, self._state.view.input_encoding, f"response.input[{index}]"))
        return memories

    def _context(self, params: ResponseCreateParams, given: list[Memory] | None) -> Context:
        """What a response is based on. What the conversation has no room for any more is forgotten here."""
        state, session = self._state, self._state.view.answering
        if isinstance(params.instructions, str):
            session = msgspec.structs.replace(session, instructions=params.instructions)
        if not isinstance(params.tools, UnsetType) and params.tools is not None:
            session = msgspec.structs.replace(session, tools=params.tools)
        limit = state.options.context_tokens
        if limit is None:
            limit = input_limit(str(session.model))
        context = fit_context(session, state.conversation.remembered() if given is None else given, limit)
        if given is None and context.dropped:
            state.conversation.forget(context.dropped)
            self._cached = min(self._cached, context.fixed)
        return context

    def _settings(
        self, params: ResponseCreateParams, context: Context, encoding: Encoding, voice: str | CustomVoice
    ) -> ResponseSettings:
        view, session = self._state.view, self._state.view.answering
        aside = params.conversation == "none"
        modalities = params.output_modalities or session.output_modalities
        limit = session.max_output_tokens if params.max_output_tokens in (None, UNSET) else params.max_output_tokens
        return ResponseSettings(
            id=self._state.ids.response(),
            conversation_id=None if aside else self._conversation_id,
            text_only=modalities == ["text"],
            encoding=encoding,
            voice=voice,
            speed=view.speed,
            language=self._language,
            max_output_tokens=limit if isinstance(limit, int) else None,
            metadata=params.metadata or None,
            context=context.tokens,
            cached=0 if aside else self._cached,
        )

    def _voice(self, params: ResponseCreateParams, *, aside: bool) -> tuple[Encoding, str | CustomVoice]:
        output = params.audio.output if isinstance(params.audio, ResponseAudioConfig) else None
        view = self._state.view
        encoding, voice = view.output_encoding, view.voice
        if isinstance(output, AudioOutputConfig):
            if output.format:
                encoding = encoding_of(output.format)
            if isinstance(output.voice, str | CustomVoice):
                check_voice(output.voice, "response.audio.output.voice")
                if not aside and output.voice != voice and self._state.conversation.has_assistant_audio:
                    raise voice_is_locked()
                voice = output.voice
        return encoding, voice

    def _plan(self, params: ResponseCreateParams, given: list[Memory] | None) -> Plan:
        view, session, director = self._state.view, self._state.view.answering, self._state.director
        tools = view.tools if params.tools is None or isinstance(params.tools, UnsetType) else params.tools
        choice = session.tool_choice if params.tool_choice in (None, UNSET) else params.tool_choice
        parallel = session.parallel_tool_calls if params.parallel_tool_calls in (None, UNSET) else params.parallel_tool_calls
        box = toolbox(tools, self._servers.listed(tools), choice, parallel=parallel is not False)
        if params.conversation != "none" and given is None:
            return director.plan(box)
        instructions = params.instructions if isinstance(params.instructions, str) else ""
        return director.plan_aside(asked_text(memory.item for memory in given or ()) or instructions, box)

    # --- The course of responses --------------------------------------------------------------------------------------

    def _decide(self, generation: Generation, plan: Plan) -> None:
        generation.decide(plan, self._state.timeline.now)
        for request in generation.requests():
            self._state.timeline.put(Render(request))
        self._follow(generation)

    def _follow(self, generation: Generation) -> None:
        """Set the timer of a response that goes on, clear up after one that has ended."""
        if generation.active:
            if generation.due is not None:
                self._state.timeline.at(generation.due, partial(self._continue, generation, generation.due))
            return
        response_id = generation.settings.id
        self._state.timeline.send(RateLimitsUpdated(rate_limits=[rate_limit(generation.tokens)]))
        self._audio.complete(response_id)
        if self._asides.pop(response_id, None) is not None:
            return
        self._active = None
        if self._turn_waits:
            self._turn_waits = False
            self._create(ResponseCreateParams())
        elif generation.continues and self._state.options.mcp_continues:
            # A tool that is required was called: once is enough, or this would never end.
            self._create(ResponseCreateParams(tool_choice="auto"))
        else:
            self._on_end()

    def _continue(self, generation: Generation, due: float) -> None:
        # A timer that was overtaken by a cancel, or by speech that came, means nothing any more.
        if generation.active and generation.due == due:
            generation.advance(self._state.timeline.now)
            self._follow(generation)
