"""The front door: any client of the OpenAI Realtime API can be a caller.

The agent's audio and transcripts pass through byte for byte. The caller keeps track of its own playback, as clients of
that API do: it is its `conversation.item.truncate` that says what was heard.

Source: the GA Realtime protocol (`wire.realtime`).
"""

from __future__ import annotations

import contextlib
import secrets
from collections import OrderedDict, deque
from typing import Any

import msgspec
from msgspec import UNSET

from orchestrator.channels.base import ChannelParts, FrameCounts, LegHolder, caller_gone
from orchestrator.channels.open_response import OpenResponse, ToldResponse
from orchestrator.channels.openai_policy import (
    PASSED_THROUGH,
    check_item,
    check_response,
    check_session,
    check_truncation,
    is_hidden,
    visible_session,
)
from orchestrator.core.playback import Cut
from orchestrator.core.playback_source import UntrackedPlayback
from orchestrator.core.states import ResponseState
from orchestrator.errors import EndReason, UserError, WireError
from orchestrator.realtime.events import RealtimeSessionEvent
from orchestrator.realtime.openai_realtime import OpenAIRealtimeWebSocketModel
from orchestrator.telemetry.logs import get_logger
from orchestrator.telemetry.names import WIRE_ERRORS_TOTAL, WIRE_UNKNOWN_EVENTS_TOTAL
from orchestrator.transports.base import LegOptions
from orchestrator.wire import realtime as wire
from orchestrator.wire import realtime_client as client
from orchestrator.wire import realtime_server as server
from orchestrator.wire import realtime_types as types

__all__ = ["OpenAIChannel"]

# Messages of the caller kept while the model is being connected, in number and in bytes; one message always fits.
EARLY_MESSAGES = 1024
EARLY_BYTES = 8 * 1024 * 1024
# Of these so many bytes are remembered for another owner.
EARLY_REMEMBERED = 64 * 1024
MAX_REMEMBERED = 1024
_SUPPORTED = sorted(set(wire.CLIENT_EVENTS) - {"output_audio_buffer.clear"})
_BINARY = "Expected a text WebSocket message; binary frames are not supported."


class _Remembered(msgspec.Struct, array_like=True):
    """What another owner of the call must know of what this caller was told and is owed."""

    greeted: bool
    updates: list[str]
    caller_ids: dict[str, str | None]
    response: ToldResponse | None
    early: list[str] = []


_encoder = msgspec.json.Encoder()


class OpenAIChannel(LegHolder):
    """One caller at the front door."""

    name = "openai"
    # Browsers offer it beside their key; nothing else is ever selected.
    subprotocol: str | None = "realtime"

    def __init__(self, parts: ChannelParts) -> None:
        self._parts = parts
        self._log = get_logger().bind(session_id=parts.session_id, channel=self.name)
        self.counts = FrameCounts()
        self._playback = UntrackedPlayback()
        self._model: OpenAIRealtimeWebSocketModel | None = None
        self._early: deque[bytes] = deque()
        self._early_bytes = 0
        self._greeted = False
        # The updates of the session that the model has not answered yet: the caller's event ids, with "" for our own.
        self._updates: deque[str] = deque([""])
        # Ids under which the caller's updates travel, and the caller's own names for them.
        self._caller_ids: OrderedDict[str, str | None] = OrderedDict()
        # Items that the caller does not see, and what stands before each.
        self._hidden: OrderedDict[str, str | None] = OrderedDict()
        # The agent's messages, the latest ones: only these can be truncated.
        self._spoken: OrderedDict[str, None] = OrderedDict()
        # What the caller was told of the response under way.
        self._open = OpenResponse()
        # A model that is being connected and keeps the caller's audio meanwhile.
        self._expected: OpenAIRealtimeWebSocketModel | None = None
        # Is the response that a former owner was telling of lost?
        self._cut = False

    @property
    def playback(self) -> UntrackedPlayback:
        """The caller keeps track itself."""
        return self._playback

    @property
    def start_timeout(self) -> float:
        """A caller is ready when its handshake is done."""
        return self._parts.settings.model_open_timeout

    def leg_options(self) -> LegOptions:
        """Images make large messages."""
        return LegOptions(max_message=self._parts.settings.caller_max_message)

    def model_settings(self) -> dict[str, Any]:
        """Nothing beyond the defaults; the caller may choose formats by `session.update`."""
        return {}

    def on_open(self, leg: Any) -> None:
        """Take the leg; the caller needs nothing more to be ready."""
        super().on_open(leg)
        if self._cut:
            self._cut = False
            with self.as_one():
                self.on_response_lost()
                self._parts.control.remember()
        self._parts.control.caller_ready({})

    def state(self) -> bytes:
        """What the caller was told, and which answers it is owed."""
        early = self._remembered_early() if self._early else []
        known = _Remembered(self._greeted, list(self._updates), dict(self._caller_ids), self._open.state(), early)
        return _encoder.encode(known)

    def _remembered_early(self) -> list[str]:
        """Return the first of the messages that wait for the model, as many as may be remembered."""
        room, early = EARLY_REMEMBERED, []
        for data in self._early:
            room -= len(data)
            if room < 0:
                break
            early.append(data.decode(errors="replace"))
        return early

    def restore(self, data: bytes) -> None:
        """Go on with the caller of another owner. What is hidden from it is learnt as the model is told of it."""
        known = msgspec.json.decode(data, type=_Remembered)
        self._greeted = known.greeted
        self._updates = deque(known.updates)
        self._caller_ids = OrderedDict(known.caller_ids)
        self._open.restore(known.response)
        # Whatever the journal knows of it: the model that was giving it is gone.
        self._cut = known.response is not None
        self._early = deque(text.encode() for text in known.early)
        self._early_bytes = sum(map(len, self._early))

    def cut(self) -> list[Cut]:
        """Tell the caller the end of the response under way. How much of it was heard only the caller knows."""
        return []

    def expect(self, model: OpenAIRealtimeWebSocketModel) -> None:
        """Keep what is no audio until the model is connected, and all that comes after it: the order is the caller's."""
        self._expected = model
        # What is settled without asking the model is answered while that is being connected.
        model.tap(self._on_server_event, self)

    def live(self, model: OpenAIRealtimeWebSocketModel) -> None:
        """See the model's events from now on, and hand over what the caller has said in the meantime."""
        self._model, self._expected = model, None
        model.tap(self._on_server_event, self)
        early, self._early, self._early_bytes = self._early, deque(), 0
        for data in early:
            self.on_text(data)

    def on_text(self, data: bytes) -> None:
        """Take in a message of the caller."""
        if self._model is None:
            self._await_model(data)
            return
        try:
            event = wire.decode_client_event(data)
            if type(event) is client.InputAudioBufferAppend:
                self.counts.received += 1
                self._append(event, self._model)
            else:
                self._on_client_event(event, self._model)
                self._parts.control.remember()
        except WireError as error:
            self._answer_error(error, _event_id(data))
        except UserError as error:
            # The model is being reconnected, and what waits for it is as much as may.
            self._answer_error(WireError("rate_limit_exceeded", error.message), _event_id(data))

    def _await_model(self, data: bytes) -> None:
        if self._expected is not None and not self._early:
            with contextlib.suppress(WireError):
                event = wire.decode_client_event(data)
                if type(event) is client.InputAudioBufferAppend:
                    self.counts.received += 1
                    self._append(event, self._expected)
                    return
        self._keep(data)

    def _append(self, event: client.InputAudioBufferAppend, model: OpenAIRealtimeWebSocketModel) -> None:
        """Send the audio on in a message of ours: members that we do not know could mean something to another decoder."""
        if event.event_id is UNSET:
            model.append_payload(event.audio)
        else:
            model.append_frame(wire.encode(event), event.audio)

    def on_binary(self, data: bytes) -> None:
        """The protocol is text."""
        del data
        self._answer_error(WireError("invalid_event", _BINARY), None)

    def on_closed(self, reason: EndReason) -> None:
        """The caller's connection ended."""
        self._parts.control.end(caller_gone(reason))

    def on_session_event(self, event: RealtimeSessionEvent) -> None:
        """Nothing: this caller sees the wire's own events."""

    def tell_failure(self, reason: EndReason) -> None:
        """Send the API's error object before the close."""
        self._send(server.ErrorEvent(error=types.ErrorDetails(type="server_error", code=reason.code, message=reason.text)))

    def _keep(self, data: bytes) -> None:
        room = max(EARLY_BYTES, self._parts.settings.caller_max_message) - self._early_bytes
        if len(self._early) >= EARLY_MESSAGES or len(data) > room:
            # What is lost here would be control as likely as audio, so the caller must know.
            self._parts.control.end(EndReason("caller_overflow", "too much was sent before session.created", by="caller"))
            return
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes <= EARLY_REMEMBERED:
            self._parts.control.remember()

    def _on_client_event(self, event: client.ClientEvent | wire.UnknownEvent, model: OpenAIRealtimeWebSocketModel) -> None:
        match event:
            case wire.UnknownEvent() | client.OutputAudioBufferClear():
                # The latter is for calls whose audio is not on this socket: over WebSocket the API does not know it either.
                self._parts.metrics.inc(WIRE_UNKNOWN_EVENTS_TOTAL, side="caller")
                name = wire.event_type(event)
                supported = ", ".join(f"'{known}'" for known in _SUPPORTED)
                raise WireError("invalid_value", f"Invalid value: '{name[:64]}'. Supported values are: {supported}.", "type")
            case client.SessionUpdate(session=session):
                self._pass_update(msgspec.structs.replace(event, session=check_session(session)), model)
            case client.ConversationItemCreate():
                check_item(event)
                model.send_client_event(event)
            case client.ResponseCreate():
                check_response(event)
                _refuse_while_active(model)
                model.send_client_event(event)
            case client.ConversationItemRetrieve(item_id=item_id) | client.ConversationItemDelete(item_id=item_id):
                if item_id in self._hidden:
                    raise WireError("item_retrieve_invalid_item_id", f"the item with id '{item_id[:64]}' does not exist.")
                model.send_client_event(event)
            case client.ConversationItemTruncate(item_id=item_id):
                check_truncation(event)
                if item_id not in self._spoken:
                    raise WireError("item_truncate_invalid_item_id", f"the item with id '{item_id[:64]}' cannot be truncated.")
                model.send_client_event(event)
            case _:
                model.send_client_event(event)

    def _pass_update(self, event: client.SessionUpdate, model: OpenAIRealtimeWebSocketModel) -> None:
        """Send the update under an id of ours, so that its answer is known as the caller's."""
        event_id = f"caller_{secrets.token_hex(8)}"
        self._caller_ids[event_id] = event.event_id if isinstance(event.event_id, str) else None
        if len(self._caller_ids) > MAX_REMEMBERED:
            self._caller_ids.popitem(last=False)
        self._updates.append(event_id)
        model.send_client_event(msgspec.structs.replace(event, event_id=event_id))

    def _on_server_event(self, event: Any, data: bytes) -> None:
        """Take in an event of the model, before the session acts on it."""
        kind = type(event)
        if self.leg is None:
            return
        if kind is server.ResponseOutputAudioDelta:
            self.counts.sent += 1
            self.leg.send_audio(data)
            return
        # An owner that comes after must know of all that this caller was told, and of nothing else.
        with self.as_one():
            if kind in PASSED_THROUGH:
                self.leg.send_text(data)
                self._open.note(event)
            else:
                self._translate(event)
            self._parts.control.remember()

    def on_told_again(self, event: Any) -> None:
        """Take note of an item that a new connection to the model was told of; the caller has seen it long ago."""
        if isinstance(event, server.ConversationItemAdded) and is_hidden(event.item):
            self._hide(event.item, self._visible(event.previous_item_id))
        elif isinstance(event, server.ConversationItemAdded):
            self._note_spoken(event.item)

    def on_response_lost(self) -> None:
        """The response under way ends here for the caller: the model's connection is gone."""
        for event in self._open.end():
            self._send(event)

    def _translate(self, event: Any) -> None:
        match event:
            case server.SessionUpdated(session=session):
                self._on_session_updated(event, session)
            case server.ErrorEvent(error=error):
                self._on_error(event, error)
            case server.ConversationItemAdded() | server.ConversationItemDone():
                self._on_item(event)
            case server.InputAudioBufferCommitted(previous_item_id=previous):
                self._send(msgspec.structs.replace(event, previous_item_id=self._visible(previous)))
            case server.ResponseOutputItemAdded(item=item) | server.ResponseOutputItemDone(item=item):
                if not is_hidden(item):
                    self._note_spoken(item)
                    self._open.note(event)
                    self._send(event)
            case server.ResponseCreated(response=response) | server.ResponseDone(response=response):
                seen = [item for item in response.output if not is_hidden(item)]
                self._open.note(event)
                self._send(msgspec.structs.replace(event, response=msgspec.structs.replace(response, output=seen)))
            case _:
                pass  # Tool calls, and what is new to us: not for the caller.

    def _on_session_updated(self, event: server.SessionUpdated, session: types.SessionConfig) -> None:
        origin = self._updates.popleft() if self._updates else ""
        shown = visible_session(session, self._parts.session_id)
        if not self._greeted:
            self._greeted = True
            self._send(server.SessionCreated(event_id=event.event_id, session=shown))
        elif origin:
            self._send(msgspec.structs.replace(event, session=shown))

    def _on_error(self, event: server.ErrorEvent, error: types.ErrorDetails) -> None:
        event_id = error.event_id
        if event_id is not None and event_id in self._updates:
            self._updates.remove(event_id)
        if event_id is not None and event_id.startswith("orchestrator_"):
            return  # The answer to something that the session asked for; the session deals with it.
        if event_id in self._caller_ids:
            error = msgspec.structs.replace(error, event_id=self._caller_ids.pop(event_id or ""))
        self._send(msgspec.structs.replace(event, error=error))

    def _on_item(self, event: server.ConversationItemAdded | server.ConversationItemDone) -> None:
        previous = self._visible(event.previous_item_id)
        item = event.item
        if is_hidden(item):
            self._hide(item, previous)
            return
        self._note_spoken(item)
        shown = msgspec.structs.replace(event, previous_item_id=previous)
        self._open.note(shown)
        self._send(shown)

    def _hide(self, item: types.ServerItem, previous: Any) -> None:
        item_id = getattr(item, "id", None)
        if isinstance(item_id, str):
            self._hidden[item_id] = previous if isinstance(previous, str) else None
            if len(self._hidden) > MAX_REMEMBERED:
                self._hidden.popitem(last=False)

    def _note_spoken(self, item: types.ServerItem) -> None:
        if isinstance(item, types.MessageItem) and item.role == "assistant" and isinstance(item.id, str):
            self._spoken[item.id] = None
            if len(self._spoken) > MAX_REMEMBERED:
                self._spoken.popitem(last=False)

    def _visible(self, item_id: Any) -> Any:
        """Return the item itself or, if it is hidden, the last one before it that the caller has seen."""
        return self._hidden.get(item_id, item_id)

    def _answer_error(self, error: WireError, event_id: str | None) -> None:
        self._parts.metrics.inc(WIRE_ERRORS_TOTAL, side="caller", code=error.wire_code)
        self._log.info("caller_event_refused", code=error.wire_code, param=error.param)
        details = types.ErrorDetails(
            type="invalid_request_error",
            code=error.wire_code,
            message=error.message,
            param=error.param,
            event_id=event_id,
        )
        self._send(server.ErrorEvent(error=details))

    def _send(self, event: server.ServerEvent) -> None:
        if self.leg is None:
            return
        if event.event_id is UNSET:
            event = msgspec.structs.replace(event, event_id=f"event_{secrets.token_hex(10)}")
        self.leg.send_text(wire.encode(event))


def _refuse_while_active(model: OpenAIRealtimeWebSocketModel) -> None:
    """Refuse a second response as the API does; the session's own requests wait in line instead."""
    session = model.session
    if session is None or (session.responses.state is ResponseState.IDLE and not session.responses.waiting):
        return
    active = session.responses.active_id or "(not named yet)"
    raise WireError(
        "conversation_already_has_active_response",
        f"Conversation already has an active response in progress: {active}. "
        "Wait until the response is finished before creating a new one.",
    )


class _WithEventId(msgspec.Struct):
    event_id: str | None = None


def _event_id(data: bytes) -> str | None:
    """Find the caller's name for a message that was refused, if it has one that can be read."""
    try:
        return msgspec.json.decode(data, type=_WithEventId).event_id
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
