"""What one session takes from connection to connection: settings, memory, wishes without an answer, audio without words.

It is told of everything that goes out and of what comes back, and says what a new connection must be told, in order: first the
settings, then the items of the history, then what was asked and not answered, then the audio of the turn in progress.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from orchestrator.core.caller_audio import CallerAudio, joined
from orchestrator.core.items import RealtimeItem, RealtimeToolCallItem
from orchestrator.core.model_session import ModelSession
from orchestrator.core.session_settings import InputRules, SessionSettings
from orchestrator.core.unanswered import Unanswered, Wish
from orchestrator.realtime.connection import ModelConnection
from orchestrator.realtime.seeding import plan_seed
from orchestrator.wire import realtime as wire
from orchestrator.wire import realtime_client as client
from orchestrator.wire import realtime_server as server

__all__ = ["SETTINGS_AGAIN", "CarryOver", "ModelMemory"]

# So many frames are told again in one message: a second of telephone audio.
FRAMES_AT_ONCE = 50
# By this the refusal of settings is known that another endpoint has taken.
SETTINGS_AGAIN = "orchestrator_settings_again"
_COMMIT_EMPTY = "input_audio_buffer_commit_empty"
# The server's events that matter here. Not among them: all that comes while the agent speaks.
_CONCERNS: tuple[type, ...] = (
    server.ConversationItemAdded,
    server.ConversationItemCreated,
    server.ConversationItemDeleted,
    server.ConversationItemDone,
    server.ConversationItemInputAudioTranscriptionCompleted,
    server.ConversationItemInputAudioTranscriptionFailed,
    server.ConversationItemRetrieved,
    server.ConversationItemTruncated,
    server.ErrorEvent,
    server.InputAudioBufferCleared,
    server.InputAudioBufferCommitted,
    server.InputAudioBufferSpeechStarted,
    server.InputAudioBufferSpeechStopped,
    server.ResponseCreated,
)


class ModelMemory(msgspec.Struct, array_like=True):
    """What another process needs to go on with a model session, beside its history and the frames in the store.

    `settings` are those that the endpoint has taken, `updates` those on their way; `wishes` are client events as they are
    sent, each with the frame of the caller's audio before which it was asked. `asked` says that a response was asked for that
    has not begun; those with a body of their own are `requests`. Nobody wants the response under way if it was `interrupted`.
    """

    settings: dict[str, Any]
    updates: list[tuple[str, dict[str, Any]]]
    wishes: list[tuple[int, msgspec.Raw]]
    audio: dict[str, Any]
    offset_ms: int
    asked: bool = False
    requests: list[msgspec.Raw] = []
    interrupted: bool = False

    @classmethod
    def empty(cls) -> ModelMemory:
        """Return what is known of a model session that never told anything."""
        return cls({}, [], [], {}, 0)


class CarryOver:
    """One session's. `history` returns its items as they are now."""

    concerns = frozenset(_CONCERNS)

    def __init__(self, audio: CallerAudio, history: Callable[[], Sequence[RealtimeItem]]) -> None:
        self.settings = SessionSettings()
        self.unanswered = Unanswered()
        self.audio = audio
        # Milliseconds of the caller's audio before the present connection's, as the caller counts them.
        self.offset_ms = 0
        # The latest turn, while its words are on their way: they come over the connection that heard it, and no other.
        self.transcribing: str | None = None
        # How often the buffer was cleared without a confirmation.
        self.clears = 0
        self._history = history

    def memory(self, session: ModelSession) -> ModelMemory:
        """Return what another process needs."""
        settings = self.settings
        wishes = [(frame, msgspec.Raw(wire.encode(wish))) for frame, wish in self.unanswered.wishes]
        updates = [(event_id, dict(session)) for event_id, session in settings.waiting]
        asked = session.responses.open_requests
        return ModelMemory(
            settings.confirmed,
            updates,
            wishes,
            self.audio.state(),
            self.offset_ms,
            asked=any(request.body is None for request in asked),
            requests=[msgspec.Raw(wire.encode(request.body)) for request in asked if request.body is not None],
            interrupted=session.is_interrupted,
        )

    def recall(self, memory: ModelMemory) -> None:
        """Go on where another process was. The audio's part is restored by whoever has the store that it filled."""
        self.settings.recall(memory.settings, memory.updates)
        self.offset_ms = memory.offset_ms
        for frame, data in memory.wishes:
            event = wire.decode_client_event(bytes(data))
            if not isinstance(event, wire.UnknownEvent):
                self.unanswered.sent(event, frame)

    @staticmethod
    def requests(memory: ModelMemory) -> list[client.ResponseCreate]:
        """Return the responses with a body of their own that another process had asked for."""
        events = [wire.decode_client_event(bytes(data)) for data in memory.requests]
        return [event for event in events if isinstance(event, client.ResponseCreate)]

    @property
    def rules(self) -> InputRules:
        """What the settings say about the caller's audio."""
        return self.settings.rules

    def settings_sent(self, event_id: str, session: Mapping[str, Any]) -> None:
        """An update of the settings was sent, or will be."""
        self.settings.sent(event_id, session)
        self._follow_settings()

    def settings_refused(self, event_id: str | None) -> None:
        """The server refused an update."""
        if self.settings.refused(event_id):
            self._follow_settings()

    def sent(self, event: client.ClientEvent) -> None:
        """A client event was sent, or will be."""
        match event:
            case client.SessionUpdate(event_id=str(event_id), session=session):
                self.settings_sent(event_id, msgspec.to_builtins(session))
            case client.InputAudioBufferCommit():
                self.audio.commit_sent()
            case client.InputAudioBufferClear():
                self.audio.cleared()
                self.clears += 1
            case _:
                self.unanswered.sent(event, self.audio.end)

    def received(self, event: Any) -> None:
        """Take in an event of the server that is among `concerns`, before the session acts on it."""
        match event:
            case server.InputAudioBufferSpeechStarted():
                self.audio.speech_started(event.audio_start_ms)
            case server.InputAudioBufferSpeechStopped():
                self.audio.speech_stopped(event.item_id, event.audio_end_ms)
            case server.InputAudioBufferCommitted():
                self.audio.committed(event.item_id)
                self.transcribing = event.item_id if self.rules.transcribes else None
            case server.InputAudioBufferCleared():
                self.clears = max(0, self.clears - 1)
            case server.ConversationItemInputAudioTranscriptionCompleted():
                self.audio.settled(event.item_id)
                self._transcribed(event.item_id)
            case server.ConversationItemInputAudioTranscriptionFailed():
                self._transcribed(event.item_id)
            case server.ConversationItemDeleted():
                self.audio.settled(event.item_id)
                self._transcribed(event.item_id)
                self.unanswered.receive(event)
            case server.ErrorEvent(error=error) if error.code == _COMMIT_EMPTY:
                self.audio.commit_refused()
            case server.ErrorEvent(error=error):
                self.settings_refused(error.event_id)
                self.unanswered.receive(event)
            case _:
                self.unanswered.receive(event)

    def bodies(self) -> list[dict[str, Any]]:
        """Return the items of the history as a new connection is told of them."""
        items = self._history()
        # The conversation is not over, so a call without an output is one whose output will come.
        pending = {item.call_id or "" for item in items if isinstance(item, RealtimeToolCallItem)}
        seed = plan_seed(items, pending=pending, audio=self.audio.audio_of)
        return [message.message["item"] for message in seed.messages]

    def body_of(self, item_id: str) -> dict[str, Any] | None:
        """Return one item as a new connection is told of it, None where there is nothing to tell."""
        return next((body for body in self.bodies() if body["id"] == item_id), None)

    def tell(self, connection: ModelConnection) -> list[dict[str, Any]]:
        """Bring a connection's settings and memory up to date; returns the items that it then has.

        May be called again: it then is told of what has changed.
        """
        # The model is named where the endpoint is, which may call it by another name.
        settings = _without_model(self.settings.confirmed)
        if settings and connection.settings != settings:
            connection.settings = settings
            _send(connection, {"type": "session.update", "event_id": SETTINGS_AGAIN, "session": settings})
            connection.updates.append(True)
        bodies = self.bodies()
        for event in connection.replica.bring_to(bodies):
            _send(connection, event)
        return bodies

    def go_on(self, connection: ModelConnection, known: set[str]) -> list[Wish]:
        """Send what was asked and not answered, and the audio that belongs to no item, in the order in which they came.

        Returns the wishes that need no asking any more: `known` are the items that the connection was told of.
        """
        for event_id, session in self.settings.waiting:
            _send(connection, {"type": "session.update", "event_id": event_id, "session": _without_model(session)})
            connection.updates.append(False)
        wishes = deque(self.unanswered.wishes)
        settled: list[Wish] = []
        self.unanswered.clear()

        def ask_until(frame: float) -> None:
            while wishes and wishes[0][0] <= frame:
                place, wish = wishes.popleft()
                if _is_settled(wish, known):
                    settled.append(wish)
                else:
                    self.unanswered.sent(wish, place)
                    connection.send(wish)

        heard_before = self.audio.position_ms
        pieces = self.audio.replayed()
        self.offset_ms += round(heard_before)
        for start, end, committed in pieces:
            ask_until(start)
            cuts = sorted({end, *(place for place, _ in wishes if start < place < end)})
            for cut in cuts:
                for payload in _in_chunks(list(self.audio.between(start, cut))):
                    connection.send(client.InputAudioBufferAppend(audio=payload))
                ask_until(cut if cut < end else start)
                start = cut
            if committed:
                connection.send(client.InputAudioBufferCommit())
        ask_until(math.inf)
        return settled

    def _transcribed(self, item_id: str) -> None:
        if item_id == self.transcribing:
            self.transcribing = None

    def take_clears(self) -> int:
        """Return how many confirmations of a cleared buffer the caller still waits for; they are given now."""
        clears, self.clears = self.clears, 0
        return clears

    def _follow_settings(self) -> None:
        rules = self.rules
        self.audio.configure(detects=rules.detects, bytes_per_ms=rules.bytes_per_ms)


def _is_settled(wish: Wish, known: set[str]) -> bool:
    match wish:
        case client.ConversationItemCreate(item=item):
            # One of the history: its confirmation was seen, or, with a tool's output, nobody waits for it.
            return getattr(item, "id", None) in known
        case client.ConversationItemTruncate():
            # The history was cut when it was asked for, and that is what the connection was told.
            return True
        case client.ConversationItemDelete(item_id=item_id):
            return item_id not in known
        case _:
            return False


def _without_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "model"}


def _in_chunks(payloads: Sequence[str]) -> Iterator[str]:
    for start in range(0, len(payloads), FRAMES_AT_ONCE):
        chunk = joined(payloads[start : start + FRAMES_AT_ONCE])
        if chunk:
            yield chunk


def _send(connection: ModelConnection, event: Mapping[str, Any]) -> None:
    if connection.leg is not None:
        connection.leg.send_text(msgspec.json.encode(event))
