"""The logic of one session with a Realtime API endpoint: server events in, client events and model events out.

It keeps three things right: never two responses at once (`core.response`), truncation at what was heard (`core.playback`), and
silence after an interruption (audio of a response that was interrupted is void, however late it arrives). The shell around it
owns the socket and the clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET

from orchestrator.core.call_items import CallItems, output_item_id
from orchestrator.core.commands import Emit, ModelCommand, Rewrite, Send
from orchestrator.core.events import (
    CachedTokensDetails,
    InputTokensDetails,
    OutputTokensDetails,
    RealtimeModelAudioDoneEvent,
    RealtimeModelAudioEvent,
    RealtimeModelAudioInterruptedEvent,
    RealtimeModelErrorEvent,
    RealtimeModelInputAudioTimeoutTriggeredEvent,
    RealtimeModelInputAudioTranscriptionCompletedEvent,
    RealtimeModelItemDeletedEvent,
    RealtimeModelItemPlacedEvent,
    RealtimeModelItemUpdatedEvent,
    RealtimeModelOutputTextDeltaEvent,
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
from orchestrator.core.inputs import RealtimeModelSendInterrupt
from orchestrator.core.items import RealtimeToolCallItem
from orchestrator.core.playback import Cut
from orchestrator.core.playback_source import PlaybackSource
from orchestrator.core.replica import Replica
from orchestrator.core.response import (
    CancelResponse,
    CreateResponse,
    GaveUp,
    ResponseCommand,
    ResponseRequest,
    ResponseSequencer,
)
from orchestrator.core.states import ResponseState
from orchestrator.core.wire_items import item_from_wire
from orchestrator.errors import ModelFault, ResponseTimeoutError
from orchestrator.usage import Usage
from orchestrator.wire import realtime_client as client
from orchestrator.wire import realtime_server as server
from orchestrator.wire import realtime_types as types
from orchestrator.wire.payload import base64_length

__all__ = ["ModelSession"]

Commands: TypeAlias = list[ModelCommand]
MAX_DELETED = 256
PCM_BYTES_PER_MS = 48.0
G711_BYTES_PER_MS = 8.0
# So long after a turn the model's own response is still expected (seconds).
OWED_SECONDS = 15.0


class ModelSession:
    """One model session. Times are seconds of one monotonic clock; every method returns commands to perform in order.

    `deadline` says when `expire` must be called.
    """

    def __init__(
        self, playback: PlaybackSource, *, response_timeout: float = 15.0, new_id: Callable[[], str] | None = None
    ) -> None:
        self.playback = playback
        # Names the items that a client creates without an id, so that one whose confirmation is lost is known.
        self._new_id = new_id
        # What the present connection was told of, where the conversation began over another one.
        self.replica = Replica()
        # Does the model answer a turn of its own accord? Set by the shell, which knows the settings.
        self.answers_turns = False
        # Since when a turn waits for the model's own response.
        self._owed_since: float | None = None
        self._speaking = False
        # The messages of the response under way, with what is written in them, and whether it has called a tool.
        self._said: dict[str, str] = {}
        self._called = False
        self.responses = ResponseSequencer(response_timeout)
        # The session as the server last reported it, or None before the first report.
        self.session: types.RealtimeSessionConfig | None = None
        self._bytes_per_ms = PCM_BYTES_PER_MS
        # Does the server itself cancel the response when the caller speaks?
        self._server_interrupts = True
        # The response whose audio and words are void since it was interrupted, until it ends.
        self._silenced: str | None = None
        # The response whose audio was sent last.
        self._playing: str | None = None
        # Responses out of band that are under way: what they say is no part of the conversation.
        self._beside: set[str] = set()
        # Has the agent spoken in this model session? From then on the API keeps its voice.
        self.has_spoken = False
        self._call_items = CallItems()
        # Items that were deleted, the latest ones: what is still on its way of them brings none of them back.
        self._deleted: OrderedDict[str, None] = OrderedDict()

    @property
    def deadline(self) -> float | None:
        """When `expire` must be called, or None."""
        return self.responses.deadline

    def receive(self, event: server.ServerEvent, now: float) -> Commands:
        """Take in an event of the server."""
        handler = _HANDLERS.get(type(event))
        return [] if handler is None else handler(self, event, now)

    def expire(self, now: float) -> Commands:
        """Give up what waited too long."""
        return self._sequence(self.responses.expire(now))

    def send_item(self, item: types.Item, now: float, *, respond: bool, after: str | None = None) -> Commands:
        """Add an item to the conversation, and ask for a response if `respond`.

        `after` is the response whose tool call the item answers: if that makes another call, this request is void, since the
        last of its answers asks for the response.
        """
        if isinstance(item, types.FunctionCallOutputItem) and item.id is UNSET:
            item = msgspec.structs.replace(item, id=output_item_id(item.call_id))
        item = self._named(item)
        self._note_created(item)
        commands: Commands = [Send(client.ConversationItemCreate(item=item))]
        if respond:
            commands += self._sequence(self.responses.request(ResponseRequest(after=after), now))
        return commands

    def send_client_event(self, event: client.ClientEvent, now: float) -> Commands:
        """Pass on an event that the program or the caller wrote; those that touch responses and playback take their part."""
        if isinstance(event, client.ResponseCreate) and not _out_of_band(event):
            event_id = event.event_id if isinstance(event.event_id, str) else None
            return self._sequence(self.responses.request(ResponseRequest(body=event, event_id=event_id), now))
        if isinstance(event, client.ResponseCancel) and self.responses.held:
            self.responses.forget_lost()
            return []
        if isinstance(event, client.ResponseCancel):
            wanted = event.response_id if isinstance(event.response_id, str) else None
            if wanted is None or wanted == self.responses.active_id:
                commands = self._sequence(self.responses.cancel(wanted), event)
                return commands or [Send(event)]
        if isinstance(event, client.ConversationItemCreate):
            event = msgspec.structs.replace(event, item=self._named(event.item))
            self._note_created(event.item)
        if isinstance(event, client.ConversationItemDelete):
            # A call goes with its outputs, and these first.
            outputs = self._call_items.outputs(event.item_id)
            return [*(Send(client.ConversationItemDelete(item_id=output)) for output in outputs), Send(event)]
        if isinstance(event, client.ConversationItemTruncate):
            cut = Cut(event.item_id, event.content_index, float(event.audio_end_ms), float(event.audio_end_ms))
            interrupted = Emit(RealtimeModelAudioInterruptedEvent(event.item_id, event.content_index, cut))
            if event.item_id in self.replica:
                return [interrupted, Rewrite(event.item_id, event.content_index, event.audio_end_ms)]
            return [Send(event), interrupted]
        return [Send(event)]

    def interrupt(self, request: RealtimeModelSendInterrupt, now: float) -> Commands:
        """Stop playback and the response under way, as far as the request wants."""
        commands: Commands = []
        scope = request.response_id
        if not request.cancel_response_only and (scope is None or scope == self._playing):
            commands += self._cut(now)
        if not request.playback_only:
            if scope is None:
                self.responses.abandon()
                self.responses.forget_lost()
            self._silenced = scope or self.responses.active_id
            commands += self._sequence(self.responses.cancel(scope))
        return commands

    def closed(self) -> None:
        """The connection is gone."""
        self.responses.reset()
        self._beside.clear()
        self._deleted.clear()
        self._silenced = None

    def lost(self, now: float) -> Commands:
        """The connection is gone, and another will take its place: see `resume`.

        Playback of the response under way is cut at what was heard, and it is asked for again: not when it was interrupted, and
        not when it has called tools, since their outputs will ask.
        """
        active = self.responses.active_id
        owed = self._is_owed(now)
        commands: Commands = []
        again = False
        if active is not None:
            again = self.responses.state is ResponseState.ACTIVE and active != self._silenced and not self._called
            if self._playing == active:
                commands += [command for command in self._cut(now) if isinstance(command, Emit)]
            texts = {item_id: text for item_id, text in self._said.items() if text}
            commands.append(Emit(RealtimeModelResponseLostEvent(active, tuple(self._said), texts)))
            commands.append(Emit(RealtimeModelTurnEndedEvent(response_id=active, status="incomplete")))
        self.responses.lost(now, again=again or owed)
        self._said.clear()
        self._called = self._speaking = self.has_spoken = False
        self._owed_since = self._silenced = None
        self._beside.clear()
        self._deleted.clear()
        return commands

    def resume(self, replica: Replica, bodies: Sequence[Mapping[str, Any]], now: float) -> Commands:
        """There is a new connection, which was told of these items: go on."""
        self.replica = replica
        self._call_items = CallItems()
        for body in bodies:
            if body["type"] == "function_call":
                self._call_items.made(body["id"], body["call_id"])
            elif body["type"] == "function_call_output":
                self._call_items.answered(body["call_id"], body["id"])
        return self._sequence(self.responses.resume(now))

    def is_quiet(self, now: float) -> bool:
        """Does nobody speak, and is nothing under way that another connection would not know of?"""
        idle = self.responses.state is ResponseState.IDLE and not self.responses.waiting
        return idle and not (self._speaking or self._beside or self._is_owed(now) or self.playback.is_playing(now))

    @property
    def is_interrupted(self) -> bool:
        """Is the response under way one that nobody wants any more?"""
        active = self.responses.active_id
        return active is not None and (active == self._silenced or self.responses.state is ResponseState.CANCELLING)

    def recall(self, requests: Sequence[client.ResponseCreate], now: float) -> None:
        """These were asked for in another process; they are asked for again by `resume`."""
        self.responses.lost(now, again=False)
        for event in requests:
            self.send_client_event(event, now)

    def is_private(self, event: server.ServerEvent) -> bool:
        """Does an event only answer what we told a new connection of? Then it is nobody's news."""
        if isinstance(event, server.ConversationItemAdded | server.ConversationItemDone | server.ConversationItemCreated):
            return getattr(event.item, "id", None) in self.replica
        return isinstance(event, server.ConversationItemDeleted) and self.replica.is_deleting(event.item_id)

    def _is_owed(self, now: float) -> bool:
        return self._owed_since is not None and now - self._owed_since < OWED_SECONDS

    def _named(self, item: types.Item) -> types.Item:
        if self._new_id is None or isinstance(item.id, str):
            return item
        return msgspec.structs.replace(item, id=self._new_id())

    def _note_created(self, item: types.Item) -> None:
        """Remember the parts of a tool call, which whoever deletes it must delete together."""
        if not isinstance(item.id, str):
            return  # The model names it, and tells us when it confirms the item.
        if isinstance(item, types.FunctionCallItem):
            self._call_items.created(item.id, item.call_id if isinstance(item.call_id, str) else None)
        elif isinstance(item, types.FunctionCallOutputItem):
            self._call_items.answered(item.call_id, item.id)

    def _cut(self, now: float) -> Commands:
        commands: Commands = []
        # Of a response that goes on, the model has more than it sent, so that is cut even when all that was sent was heard.
        goes_on = self._playing is not None and self._playing == self.responses.active_id != self._silenced
        latest = self.playback.current(now) if goes_on else None
        cuts = self.playback.interrupt(now) or ([] if latest is None else [latest])
        for cut in cuts:
            commands.append(Emit(RealtimeModelAudioInterruptedEvent(cut.item_id, cut.content_index, cut)))
            if cut.item_id in self.replica:
                commands.append(Rewrite(cut.item_id, cut.content_index, int(cut.heard_ms)))
                continue
            truncate = client.ConversationItemTruncate(
                item_id=cut.item_id, content_index=cut.content_index, audio_end_ms=int(cut.heard_ms)
            )
            commands.append(Send(truncate))
        return commands

    def _sequence(self, steps: Sequence[ResponseCommand], cancel: client.ResponseCancel | None = None) -> Commands:
        commands: Commands = []
        for step in steps:
            match step:
                case CreateResponse(event_id, None):
                    commands.append(Send(client.ResponseCreate(event_id=event_id)))
                case CreateResponse(event_id, body):
                    commands.append(Send(msgspec.structs.replace(body, event_id=event_id)))
                case CancelResponse(event_id, response_id):
                    commands.append(Send(cancel or client.ResponseCancel(event_id=event_id, response_id=response_id or UNSET)))
                case GaveUp("response_timeout", _):
                    error: ModelFault = ResponseTimeoutError("the model did not answer a request for a response in time")
                    commands.append(Emit(RealtimeModelErrorEvent(error)))
                case GaveUp("overflow", _):
                    error = ModelFault("too many requests for a response wait; ask for fewer")
                    commands.append(Emit(RealtimeModelErrorEvent(error)))
                case GaveUp():
                    pass  # The server's own error event says why.
        return commands

    def _on_audio_delta(self, event: server.ResponseOutputAudioDelta, now: float) -> Commands:
        if event.response_id == self._silenced:
            return []
        duration = base64_length(event.delta) / self._bytes_per_ms
        self._playing = event.response_id
        self.has_spoken = True
        self.playback.sent(event.item_id, event.content_index, duration, now)
        return [
            Emit(
                RealtimeModelAudioEvent.from_payload(
                    event.delta, event.response_id, event.item_id, event.content_index, duration
                )
            )
        ]

    def _on_audio_done(self, event: server.ResponseOutputAudioDone, now: float) -> Commands:
        del now
        return [Emit(RealtimeModelAudioDoneEvent(event.item_id, event.content_index))]

    def _on_cleared(self, event: server.InputAudioBufferCleared, now: float) -> Commands:
        del event, now
        self._speaking = False
        return []

    def _on_committed(self, event: server.InputAudioBufferCommitted, now: float) -> Commands:
        del event
        self._speaking = False
        if self.answers_turns:
            self._owed_since = now
        return []

    def _on_error(self, event: server.ErrorEvent, now: float) -> Commands:
        error = event.error
        race = self.responses.is_race(error.event_id, error.code)
        commands = self._sequence(self.responses.refused(error.event_id, error.code, now))
        # A race is settled by the sequencer and is nobody's error.
        return commands if race else [Emit(RealtimeModelErrorEvent(error)), *commands]

    def _on_input_timeout(self, event: server.InputAudioBufferTimeoutTriggered, now: float) -> Commands:
        del now
        return [Emit(RealtimeModelInputAudioTimeoutTriggeredEvent(event.item_id, event.audio_start_ms, event.audio_end_ms))]

    def _on_item(self, event: ItemReport, now: float) -> Commands:
        del now
        previous = event.previous_item_id if isinstance(event.previous_item_id, str) else None
        item_id = event.item.id if isinstance(event.item, types.Item) and isinstance(event.item.id, str) else ""
        if not isinstance(event, server.ConversationItemDone):
            self._deleted.pop(item_id, None)  # Somebody has created it anew.
        if not item_id or item_id in self._deleted or item_id in self.replica:
            return []
        if isinstance(event.item, types.FunctionCallOutputItem):
            self._call_items.answered(event.item.call_id, item_id)
            return [Emit(RealtimeModelToolOutputEvent(event.item.call_id, event.item.output, item_id, previous))]
        item = item_from_wire(event.item, previous)
        if item is None or (isinstance(item, RealtimeToolCallItem) and not self._is_clients(item)):
            return [Emit(RealtimeModelItemPlacedEvent(item_id, previous))]
        return [Emit(RealtimeModelItemUpdatedEvent(item))]

    def _is_clients(self, item: RealtimeToolCallItem) -> bool:
        """Did a client create this call? One that a response makes enters the history when it is whole, as it is run."""
        if item.status == "completed" and self._call_items.created(item.item_id, item.call_id):
            return True
        self._call_items.made(item.item_id, item.call_id)
        return False

    def _on_item_deleted(self, event: server.ConversationItemDeleted, now: float) -> Commands:
        del now
        if self.replica.deleted(event.item_id):
            return []
        self._call_items.deleted(event.item_id)
        self._deleted[event.item_id] = None
        if len(self._deleted) > MAX_DELETED:
            self._deleted.popitem(last=False)
        return [Emit(RealtimeModelItemDeletedEvent(event.item_id))]

    def _on_item_retrieved(self, event: server.ConversationItemRetrieved, now: float) -> Commands:
        del now
        item = item_from_wire(event.item, None)
        return [] if item is None or item.item_id in self.replica else [Emit(RealtimeModelItemUpdatedEvent(item))]

    def _on_output_item(self, event: server.ResponseOutputItemAdded | server.ResponseOutputItemDone, now: float) -> Commands:
        del now
        item = item_from_wire(event.item, None)
        if item is None or item.item_id in self._deleted or event.response_id in self._beside:
            # Calls too: there is no such call in the conversation that an output could answer.
            return []
        if not isinstance(item, RealtimeToolCallItem):
            if event.response_id == self.responses.active_id:
                self._said.setdefault(item.item_id, "")
            return [Emit(RealtimeModelItemUpdatedEvent(item))]
        self._call_items.made(item.item_id, item.call_id)
        if not isinstance(event, server.ResponseOutputItemDone) or item.status != "completed":
            return []  # A call that was interrupted while it was written is never carried out.
        self.responses.withdraw(event.response_id)
        self._called = self._called or event.response_id == self.responses.active_id
        running = msgspec.structs.replace(item, status="in_progress")
        call = RealtimeModelToolCallEvent(
            name=item.name,
            call_id=item.call_id or "",
            arguments=item.arguments,
            id=item.item_id,
            response_id=event.response_id,
        )
        return [Emit(RealtimeModelItemUpdatedEvent(running)), Emit(call)]

    def _on_response_created(self, event: server.ResponseCreated, now: float) -> Commands:
        del now
        if event.response.conversation_id is None:
            # Out of band: it runs beside the conversation and blocks nothing.
            self._beside.add(event.response.id or "")
            return []
        self._owed_since = None
        self._said.clear()
        self._called = False
        response_id = event.response.id or ""
        cancel = self.responses.created(response_id)
        if cancel:
            self._silenced = response_id
        return [Emit(RealtimeModelTurnStartedEvent(response_id=response_id)), *self._sequence(cancel)]

    def _on_response_done(self, event: server.ResponseDone, now: float) -> Commands:
        response = event.response
        commands: Commands = []
        if response.usage is not None:
            commands.append(Emit(_usage(response.usage, response.id)))
        if response.conversation_id is None:
            self._beside.discard(response.id or "")
            return commands
        response_id = response.id or ""
        if response_id == self._silenced:
            self._silenced = None
        if response_id == self.responses.active_id:
            self._said.clear()
            self._called = False
        if response.status == "failed":
            details = response.status_details
            commands.append(Emit(RealtimeModelErrorEvent(getattr(details, "error", None) or details)))
        commands.append(Emit(RealtimeModelTurnEndedEvent(response_id=response_id, status=response.status)))
        return commands + self._sequence(self.responses.done(response_id, now))

    def _on_session(self, event: server.SessionCreated | server.SessionUpdated, now: float) -> Commands:
        del now
        session = event.session
        if not isinstance(session, types.RealtimeSessionConfig):
            return []
        self.session = session
        audio = session.audio if isinstance(session.audio, types.AudioConfig) else None
        if audio is not None and isinstance(audio.output, types.AudioOutputConfig):
            form = audio.output.format
            if isinstance(form, types.AudioFormat):
                self._bytes_per_ms = PCM_BYTES_PER_MS if form.type == "audio/pcm" else G711_BYTES_PER_MS
        if audio is not None and isinstance(audio.input, types.AudioInputConfig):
            detection = audio.input.turn_detection
            self._server_interrupts = getattr(detection, "interrupt_response", False) is True
        return []

    def _on_speech_started(self, event: server.InputAudioBufferSpeechStarted, now: float) -> Commands:
        self._speaking = True
        self._owed_since = None
        commands: Commands = [Emit(RealtimeModelSpeechStartedEvent(event.item_id, event.audio_start_ms))]
        if self._server_interrupts:
            commands += self._cut(now)
            # The server cancels the response by itself; what is still on its way of it is void from here on.
            self._silenced = self.responses.active_id
        return commands

    def _on_speech_stopped(self, event: server.InputAudioBufferSpeechStopped, now: float) -> Commands:
        del now
        return [Emit(RealtimeModelSpeechStoppedEvent(event.item_id, event.audio_end_ms))]

    def _is_void(self, response_id: str, item_id: str) -> bool:
        """Are these words no part of the conversation?"""
        return response_id == self._silenced or response_id in self._beside or item_id in self._deleted

    def _on_text_delta(self, event: server.ResponseOutputTextDelta, now: float) -> Commands:
        del now
        if self._is_void(event.response_id, event.item_id):
            return []
        if event.response_id == self.responses.active_id:
            self._said[event.item_id] = self._said.get(event.item_id, "") + event.delta
        return [Emit(RealtimeModelOutputTextDeltaEvent(event.item_id, event.delta, event.response_id, event.content_index))]

    def _on_transcript_delta(self, event: server.ResponseOutputAudioTranscriptDelta, now: float) -> Commands:
        del now
        if self._is_void(event.response_id, event.item_id):
            return []
        return [Emit(RealtimeModelTranscriptDeltaEvent(event.item_id, event.delta, event.response_id, event.content_index))]

    def _on_transcription(self, event: server.ConversationItemInputAudioTranscriptionCompleted, now: float) -> Commands:
        del now
        if event.item_id in self._deleted:
            return []
        return [Emit(RealtimeModelInputAudioTranscriptionCompletedEvent(event.item_id, event.transcript))]


# How an item of the conversation is reported; the last is the beta protocol's name, which other servers still use.
ItemReport: TypeAlias = server.ConversationItemAdded | server.ConversationItemDone | server.ConversationItemCreated


def _out_of_band(event: client.ResponseCreate) -> bool:
    body = event.response
    return isinstance(body, types.ResponseCreateParams) and body.conversation == "none"


def _usage(usage: types.Usage, response_id: str) -> RealtimeModelUsageEvent:
    read = usage.input_tokens or 0
    written = usage.output_tokens or 0
    total = Usage(1, read, written, usage.total_tokens or read + written)
    return RealtimeModelUsageEvent(total, _input_details(usage), _output_details(usage), response_id)


def _input_details(usage: types.Usage) -> InputTokensDetails | None:
    details = usage.input_token_details
    if not isinstance(details, types.InputTokenDetails):
        return None
    cached = details.cached_tokens_details
    return InputTokensDetails(
        details.text_tokens,
        details.audio_tokens,
        details.image_tokens,
        details.cached_tokens,
        CachedTokensDetails(cached.text_tokens, cached.audio_tokens, cached.image_tokens)
        if isinstance(cached, types.CachedTokensDetails)
        else None,
    )


def _output_details(usage: types.Usage) -> OutputTokensDetails | None:
    details = usage.output_token_details
    if not isinstance(details, types.OutputTokenDetails):
        return None
    return OutputTokensDetails(details.text_tokens, details.audio_tokens)


_HANDLERS: dict[type, Callable[[ModelSession, Any, float], Commands]] = {
    server.ConversationItemAdded: ModelSession._on_item,
    server.ConversationItemCreated: ModelSession._on_item,
    server.ConversationItemDeleted: ModelSession._on_item_deleted,
    server.ConversationItemDone: ModelSession._on_item,
    server.ConversationItemInputAudioTranscriptionCompleted: ModelSession._on_transcription,
    server.ConversationItemRetrieved: ModelSession._on_item_retrieved,
    server.ErrorEvent: ModelSession._on_error,
    server.InputAudioBufferCleared: ModelSession._on_cleared,
    server.InputAudioBufferCommitted: ModelSession._on_committed,
    server.InputAudioBufferSpeechStarted: ModelSession._on_speech_started,
    server.InputAudioBufferSpeechStopped: ModelSession._on_speech_stopped,
    server.InputAudioBufferTimeoutTriggered: ModelSession._on_input_timeout,
    server.ResponseCreated: ModelSession._on_response_created,
    server.ResponseDone: ModelSession._on_response_done,
    server.ResponseOutputAudioDelta: ModelSession._on_audio_delta,
    server.ResponseOutputAudioDone: ModelSession._on_audio_done,
    server.ResponseOutputAudioTranscriptDelta: ModelSession._on_transcript_delta,
    server.ResponseOutputItemAdded: ModelSession._on_output_item,
    server.ResponseOutputItemDone: ModelSession._on_output_item,
    server.ResponseOutputTextDelta: ModelSession._on_text_delta,
    server.SessionCreated: ModelSession._on_session,
    server.SessionUpdated: ModelSession._on_session,
}
