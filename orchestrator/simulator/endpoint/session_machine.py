"""One model session as a pure state machine: client events in, server events out, each at its time.

No socket, no clock, no thread. Every method takes the present time (seconds, any origin, never falling) and returns what is
to be done now, in order: a server event is to be sent, a `Render` to be answered with `provide`, a `Recognize` with
`recognized`, a `Close` ends the session. Afterwards `due` says when `advance` must be called at the latest, or is None if
nothing is going on. Its parts: `turns` hears, `responses` answers, and they share `state`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, assert_never

from orchestrator.errors import WireError
from orchestrator.simulator.dtmf import KEYS, are_keys
from orchestrator.simulator.endpoint import refusals
from orchestrator.simulator.endpoint.call_audio import CallAudio
from orchestrator.simulator.endpoint.conversation import ROOT, Conversation
from orchestrator.simulator.endpoint.director import Director
from orchestrator.simulator.endpoint.hearing import Hearing
from orchestrator.simulator.endpoint.input_audio import decode_audio
from orchestrator.simulator.endpoint.item_intake import take_item, tell
from orchestrator.simulator.endpoint.mcp_servers import McpServers
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.outputs import Close, Output, RecognitionRequest, Recognize, Render
from orchestrator.simulator.endpoint.responses import Responses
from orchestrator.simulator.endpoint.session_config import (
    apply_update,
    initial_session,
    initial_transcription_session,
    preset_session,
)
from orchestrator.simulator.endpoint.session_view import SessionView
from orchestrator.simulator.endpoint.state import SessionState
from orchestrator.simulator.endpoint.timeline import Timeline
from orchestrator.simulator.endpoint.transcripts import Transcripts
from orchestrator.simulator.endpoint.turns import Turns
from orchestrator.wire.realtime import Conversation as ConversationObject
from orchestrator.wire.realtime import (
    ConversationCreated,
    ConversationItemAdded,
    ConversationItemCreate,
    ConversationItemDelete,
    ConversationItemDeleted,
    ConversationItemDone,
    ConversationItemRetrieve,
    ConversationItemRetrieved,
    ConversationItemTruncate,
    ConversationItemTruncated,
    ErrorEvent,
    InputAudioBufferAppend,
    InputAudioBufferClear,
    InputAudioBufferCommit,
    InputAudioBufferDtmfEventReceived,
    McpApprovalResponseItem,
    MessageItem,
    OutputAudioBufferClear,
    ResponseCancel,
    ResponseCreate,
    ResponseCreateParams,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    UnknownEvent,
    decode_client_event,
    event_type,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.ids import IdSource
    from orchestrator.simulator.scenario import Scenario
    from orchestrator.simulator.speech import SpeechRequest, Utterance
    from orchestrator.wire.realtime import ClientEvent, ErrorDetails, ResponseError, SessionConfig

__all__ = ["Close", "ModelOptions", "Output", "RecognitionRequest", "Recognize", "Render", "SessionMachine"]

LONGEST_APPEND = 15 * 1024 * 1024
EXPIRED = 1001
APPEND_HEAD = b'{"type":"input_audio_buffer.append"'


class SessionMachine:
    """The state of one model session.

    `unix_time` is the wall clock at its start, for `expires_at`. `kind` is what the socket asked for; a `preset` is what a
    client secret or an accepted call has set, and decides the kind itself. A session `in_call` has its audio from the caller
    (`hear`, `dtmf`), plays it to the caller, and may have any number of sockets (`attach`), or none. Raises WireError for a
    preset that breaks a rule of `session.update`.
    """

    def __init__(
        self,
        scenario: Scenario,
        options: ModelOptions,
        ids: IdSource,
        *,
        model: str,
        unix_time: float,
        kind: Literal["realtime", "transcription"] = "realtime",
        preset: SessionConfig | None = None,
        in_call: bool = False,
    ) -> None:
        expires_at = int(unix_time + options.session_seconds)
        session_id = ids.session()
        session: SessionConfig
        if preset is not None:
            session = preset_session(preset, session_id=session_id, model=model, expires_at=expires_at)
        elif kind == "transcription":
            session = initial_transcription_session(session_id, expires_at)
        else:
            session = initial_session(session_id, model, expires_at)
        self._unix_time = unix_time
        self._started = 0.0
        self._in_call = in_call
        state = self._state = SessionState(
            options=options,
            ids=ids,
            timeline=Timeline(ids),
            conversation=Conversation(options.audio_limit),
            director=Director(scenario),
            view=SessionView(session),
        )
        self._audio = CallAudio(state, in_call=in_call)
        self._servers = McpServers(state, scenario.mcp)
        self._hearing = Hearing(state)
        self._responses = Responses(
            state,
            self._hearing,
            self._audio,
            self._servers,
            language=scenario.language,
            on_end=self._await_speech,
        )
        self._turns = Turns(state, self._hearing, Transcripts(state, session_id), self._responses, self._audio)

    @property
    def due(self) -> float | None:
        """When `advance` must be called."""
        return self._state.timeline.due

    @property
    def session(self) -> SessionConfig:
        """The configuration as it is now."""
        return self._state.view.session

    # --- What the shell calls -----------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Output]:
        """The session begins: its socket is open, or the call was accepted."""
        timeline = self._state.timeline
        timeline.now = self._started = now
        self._greet()
        timeline.at(now + self._state.options.session_seconds, self._expire)
        self._servers.name(self._state.view.tools)
        return timeline.taken()

    def attach(self, now: float) -> list[Output]:
        """Another socket joins the session (the sideband of a call): what it alone is to be sent first."""
        return self._do(now, self._greet)

    def advance(self, now: float) -> list[Output]:
        """Time has passed."""
        return self._do(now, lambda: None)

    def receive_text(self, data: bytes, now: float) -> list[Output]:
        """A text message came."""
        timeline = self._state.timeline
        timeline.run_until(now)
        if not timeline.closed:
            try:
                # An append is read once; looking for members that it should not have would double its cost.
                event = decode_client_event(data, forbid_unknown=not data.startswith(APPEND_HEAD))
                if isinstance(event, UnknownEvent) or (isinstance(event, OutputAudioBufferClear) and not self._in_call):
                    raise refusals.unknown_type(event_type(event))
                self._dispatch(event)
            except WireError as error:
                timeline.send(refusals.error_event(error, refusals.client_event_id(data)))
        return timeline.taken()

    def receive_binary(self, now: float) -> list[Output]:
        """A binary message came; the API has none."""
        return self._do(now, lambda: self._state.timeline.send(refusals.error_event(refusals.binary_message(), None)))

    def provide(self, request: SpeechRequest, utterance: Utterance | None, now: float) -> list[Output]:
        """Speech that was asked for is ready; None says that it cannot be made."""
        return self._do(now, lambda: self._responses.provide(request, utterance))

    def recognized(self, request: RecognitionRequest, text: str | None, now: float) -> list[Output]:
        """The words of a spoken turn are known, or (None) could not be found: then the scenario says what they were."""

        def hear() -> None:
            self._hearing.recognized(request, text)
            self._responses.decide()

        return self._do(now, hear)

    # --- What happens to a call, or on demand -------------------------------------------------------------------------

    def hear(self, audio: bytes, now: float) -> list[Output]:
        """Audio of the caller, in the session's input format and without base64: what an append does for a socket."""
        timeline = self._state.timeline
        timeline.run_until(now)
        if not timeline.closed:
            self._turns.append(audio)
        return timeline.taken()

    def dtmf(self, key: str, now: float) -> list[Output]:
        """The caller pressed a key of the phone. Raises WireError for one that is none of 0-9, *, # and A-D."""
        if len(key) != 1 or not are_keys(key):
            raise WireError("invalid_value", f"Invalid value: {key[:8]!r}. A key of a phone is one of {KEYS}.", "event")
        received_at = int(self._unix_time + now - self._started)
        event = InputAudioBufferDtmfEventReceived(event=key, received_at=received_at)
        return self._do(now, lambda: self._state.timeline.send(event))

    def end(self, now: float) -> list[Output]:
        """The call is over, and with it the session."""
        return self._do(now, lambda: self._state.timeline.close(self._state.options.call_end_code, ""))

    def expire(self, now: float) -> list[Output]:
        """End the session as if it had reached its greatest age."""
        return self._do(now, self._expire)

    def fail_response(self, error: ResponseError, now: float) -> list[Output]:
        """The response in progress fails; without one, nothing happens."""
        return self._do(now, lambda: self._responses.fail(error))

    def report_error(self, error: ErrorDetails, now: float) -> list[Output]:
        """Send an error that no event of the client has caused."""
        return self._do(now, lambda: self._state.timeline.send(ErrorEvent(error=error)))

    # --- Client events ------------------------------------------------------------------------------------------------

    def _dispatch(self, event: ClientEvent) -> None:
        match event:
            case InputAudioBufferAppend():
                self._on_append(event)
            case InputAudioBufferClear():
                self._turns.clear()
            case InputAudioBufferCommit():
                self._turns.commit()
            case ConversationItemCreate():
                self._on_item_create(event)
            case ConversationItemDelete():
                self._state.conversation.delete(event.item_id)
                self._state.timeline.send(ConversationItemDeleted(item_id=event.item_id))
            case ConversationItemRetrieve():
                item = self._state.conversation.retrieve(event.item_id)
                self._state.timeline.send(ConversationItemRetrieved(item=item))
            case ConversationItemTruncate():
                self._on_item_truncate(event)
            case OutputAudioBufferClear():
                self._audio.interrupt()
                if self._responses.active is None:
                    self._turns.await_speech()
            case ResponseCancel() | ResponseCreate() if self._state.view.transcribes_only:
                raise refusals.no_responses(event_type(event))
            case ResponseCancel():
                self._responses.cancel(event.response_id if isinstance(event.response_id, str) else None)
            case ResponseCreate():
                params = event.response
                self._responses.create(params if isinstance(params, ResponseCreateParams) else ResponseCreateParams())
            case SessionUpdate():
                self._on_session_update(event)
            case _:
                assert_never(event)

    def _on_append(self, event: InputAudioBufferAppend) -> None:
        if len(event.audio) > LONGEST_APPEND:
            raise refusals.append_too_long(len(event.audio), LONGEST_APPEND)
        self._turns.append(decode_audio(event.audio, self._state.view.input_encoding))

    def _on_item_create(self, event: ConversationItemCreate) -> None:
        state = self._state
        memory = take_item(event.item, state.ids, state.view.input_encoding)
        after = event.previous_item_id if isinstance(event.previous_item_id, str) else None
        at_end = after in (None, state.conversation.tail or ROOT)
        previous = state.conversation.insert(memory, after)
        state.timeline.send(ConversationItemAdded(previous_item_id=previous, item=memory.item))
        state.timeline.send(ConversationItemDone(previous_item_id=previous, item=memory.item))
        item, audio = memory.item, memory.audio
        # What is put between older items is history, and nothing to answer; a decision is one wherever it stands.
        if not at_end and not isinstance(item, McpApprovalResponseItem):
            return
        if isinstance(item, MessageItem) and item.role == "user" and audio is not None:
            self._hearing.spoken(memory.id, audio, lambda _: None)
        else:
            self._hearing.otherwise(lambda: tell(state.director, memory))
        if isinstance(item, McpApprovalResponseItem) and state.options.approval_continues and self._responses.active is None:
            self._responses.create(ResponseCreateParams())

    def _on_item_truncate(self, event: ConversationItemTruncate) -> None:
        self._state.conversation.truncate(event.item_id, event.content_index, event.audio_end_ms)
        self._state.timeline.send(
            ConversationItemTruncated(item_id=event.item_id, content_index=event.content_index, audio_end_ms=event.audio_end_ms)
        )

    def _on_session_update(self, event: SessionUpdate) -> None:
        state = self._state
        session = apply_update(
            state.view.session,
            event.session,
            voice_locked=state.conversation.has_assistant_audio,
            model_fixed=state.options.model_change == "refuse",
            detection_merges=state.options.turn_detection_merges,
        )
        state.view = SessionView(session)
        self._turns.configure()
        state.timeline.send(SessionUpdated(session=session))
        self._servers.name(state.view.tools)

    # --- The session itself -------------------------------------------------------------------------------------------

    def _do(self, now: float, action: Callable[[], None]) -> list[Output]:
        timeline = self._state.timeline
        timeline.run_until(now)
        if not timeline.closed:
            action()
        return timeline.taken()

    def _greet(self) -> None:
        self._state.timeline.send(SessionCreated(session=self._state.view.session))
        if self._state.options.conversation_created and not self._state.view.transcribes_only:
            conversation = ConversationObject(id=self._responses.conversation_id, object="realtime.conversation")
            self._state.timeline.send(ConversationCreated(conversation=conversation))

    def _await_speech(self) -> None:
        self._turns.await_speech()

    def _expire(self) -> None:
        error = refusals.session_expired(self._state.options.session_seconds)
        self._state.timeline.send(refusals.error_event(error, None))
        self._state.timeline.close(EXPIRED, error.message)
