"""The model behind the OpenAI Realtime API over a WebSocket: a thin shell around `core.model_session`.

Everything that arrives is handled in the callback that delivers it, and everything that is sent is written at once: no task and
no queue stands between the two sockets of a call.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias
from urllib.parse import quote

import msgspec

from orchestrator.core.caller_audio import CallerAudio
from orchestrator.core.commands import Emit, ModelCommand, Rewrite
from orchestrator.core.events import (
    RealtimeModelConnectionStatusEvent,
    RealtimeModelEndOfStreamEvent,
    RealtimeModelErrorEvent,
    RealtimeModelEvent,
    RealtimeModelExceptionEvent,
    RealtimeModelRawServerEvent,
)
from orchestrator.core.inputs import (
    RealtimeModelSendAudio,
    RealtimeModelSendEvent,
    RealtimeModelSendInterrupt,
    RealtimeModelSendRawMessage,
    RealtimeModelSendSessionUpdate,
    RealtimeModelSendToolOutput,
    RealtimeModelSendUserInput,
)
from orchestrator.core.items import RealtimeItem
from orchestrator.core.model_session import ModelSession
from orchestrator.core.playback import PlaybackCursor
from orchestrator.core.playback_source import PlaybackSource, TrackedPlayback
from orchestrator.errors import EndReason, LegClosedError, ModelLostError, SettingsRefusedError, UserError, WireError
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.carry_over import ModelMemory
from orchestrator.realtime.config import RealtimeRunConfig, RealtimeSessionModelSettings
from orchestrator.realtime.connection import ModelConnection
from orchestrator.realtime.dispatch import agent_settings
from orchestrator.realtime.listeners import Listeners
from orchestrator.realtime.model import RealtimeModel, RealtimeModelConfig, RealtimeModelListener, RealtimePlaybackTracker
from orchestrator.realtime.openai_transport import TransportConfig, get_api_key, request_headers
from orchestrator.realtime.renewed_link import RenewedLink, Seen, new_item_id, only_endpoint
from orchestrator.realtime.renewing import ModelRenewal, Target
from orchestrator.realtime.session_payload import DEFAULT_MODEL_SETTINGS, DEFAULT_REALTIME_MODEL, session_payload
from orchestrator.realtime.user_input import audio_payload, user_message
from orchestrator.run_context import RunContextWrapper
from orchestrator.telemetry.metrics import Metrics, NullMetrics
from orchestrator.telemetry.names import WIRE_ERRORS_TOTAL, WIRE_UNKNOWN_EVENTS_TOTAL
from orchestrator.transports.base import Leg, LegOptions
from orchestrator.transports.opening import connect
from orchestrator.wire import realtime as wire
from orchestrator.wire import realtime_client as client
from orchestrator.wire import realtime_types as types

__all__ = [
    "DEFAULT_MODEL_SETTINGS",
    "DEFAULT_REALTIME_MODEL",
    "Dial",
    "OpenAIRealtimeSIPModel",
    "OpenAIRealtimeWebSocketModel",
    "RenewalTap",
    "TransportConfig",
    "WireTap",
    "get_api_key",
]

DEFAULT_URL = "wss://api.openai.com/v1/realtime"
MAX_MESSAGE = 16 * 1024 * 1024
# By this the refusal of our settings is known; later ones carry a number behind it.
SETTINGS_ID = "orchestrator_settings"
TRACING_ID = "orchestrator_tracing"
# How many updates back a refusal is still known as ours.
MAX_UPDATES = 16
# Sees every event of the server, decoded and as bytes, before the session acts on it.
WireTap: TypeAlias = Callable[[Any, bytes], None]
# Opens a leg as `transports.opening.connect` does: url, listener, headers and options.
Dial: TypeAlias = Callable[..., Awaitable[Leg]]
_CLEAN = {1000, 1001}


class RenewalTap(Protocol):
    """The part of a channel that hears what a renewal means for a caller who speaks the same protocol."""

    def on_told_again(self, event: Any) -> None:
        """Take note of an event that answers what a new connection was told. The caller has seen it long ago."""

    def on_response_lost(self) -> None:
        """The connection is gone, and the response under way with it: the caller must be told its end."""


class OpenAIRealtimeWebSocketModel(RealtimeModel):
    """One model session at a Realtime API endpoint. With `renewal`, it goes on over as many connections as it takes.

    With `memory`, of the model of a process that is gone, `connect` goes on where that was; the store of `renewal` then holds
    the frames that it had pushed.

    `playback` knows what the caller heard; by default a cursor that assumes playback starts when audio arrives. Not safe to
    use from several threads: all of it belongs to the event loop that called `connect`.
    """

    # Under this name the provider is known in traces.
    provider_name = "openai"

    def __init__(
        self,
        *,
        transport_config: TransportConfig | None = None,
        playback: PlaybackSource | None = None,
        response_timeout: float = 15.0,
        metrics: Metrics | None = None,
        dial: Dial = connect,
        renewal: ModelRenewal | None = None,
        memory: ModelMemory | None = None,
    ) -> None:
        self._renewal = renewal
        self._memory = memory
        self._dial = dial
        self.model = DEFAULT_REALTIME_MODEL
        self._transport_config = transport_config or {}
        self._playback = playback
        self._response_timeout = response_timeout
        self._metrics = metrics or NullMetrics()
        self._listeners = Listeners()
        self._session: ModelSession | None = None
        self._leg: Leg | None = None
        self._connection: ModelConnection | None = None
        self._link: RenewedLink | None = None
        # Where the caller's frames are kept that another connection would have to be told.
        self._audio: CallerAudio | None = None
        if renewal is not None and memory is not None:
            # From here on what the caller says is kept, although there is no connection yet.
            self._audio = CallerAudio(renewal.make_store())
            if memory.audio:
                self._audio.restore(memory.audio)
            else:
                self._audio.lost()
        self._history: Callable[[], Sequence[RealtimeItem]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tap: WireTap | None = None
        self._renewal_tap: RenewalTap | None = None
        self._tracker: RealtimePlaybackTracker | None = None
        self._closing = False
        self._call_attached = False
        # The latest settings that were sent, by the id of their update.
        self._updates: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._updates_sent = 0

    @property
    def session(self) -> ModelSession | None:
        """The state of the model session while connected."""
        return self._session

    def tap(self, tap: WireTap | None, renewal: RenewalTap | None = None) -> None:
        """Let a channel that speaks the same protocol see the server's events; None removes it."""
        self._tap = tap
        self._renewal_tap = renewal

    def follow(self, history: Callable[[], Sequence[RealtimeItem]]) -> None:
        """Take the conversation from here when the connection is made anew; to be called before `connect`."""
        self._history = history

    @property
    def tells_history(self) -> bool:
        """Does `connect` tell the endpoint of the whole conversation, since it began in another process?"""
        return self._memory is not None

    def memory(self) -> ModelMemory | None:
        """Return what another process needs to go on; None for a model that cannot be gone on with."""
        if self._link is None or self._session is None:
            return self._memory
        return self._link.carry.memory(self._session)

    def renew(self, cause: str = "demanded") -> None:
        """Replace the connection at the next quiet moment. Raises UserError for a model that was not made to."""
        if self._link is None:
            raise UserError('this connection cannot be renewed: make the model with transport_config={"renew": True}')
        self._link.renew(cause)

    def add_listener(self, listener: RealtimeModelListener) -> None:
        """Add a listener; adding one twice has no effect."""
        self._listeners.add(listener)

    def remove_listener(self, listener: RealtimeModelListener) -> None:
        """Remove a listener."""
        self._listeners.remove(listener)

    async def connect(self, options: RealtimeModelConfig) -> None:
        """Open the connection and send the settings.

        Raises UserError for options that contradict each other or a missing key, LegConnectError when the endpoint cannot be
        reached or refuses. Cancelling it leaves no connection behind.
        """
        if self._session is not None:
            raise UserError("the model is connected already: use one model per session")
        settings: Mapping[str, Any] = options.get("initial_model_settings") or {}
        call_id = options.get("call_id")
        if call_id and settings.get("model_name"):
            raise UserError("Cannot specify both `call_id` and `model_name`: an existing call has its model already")
        model_name = settings.get("model_name") or self.model
        self._tracker = options.get("playback_tracker")
        playback = self._playback or (TrackedPlayback(self._tracker) if self._tracker else PlaybackCursor())
        self._closing = False
        self._updates.clear()
        self._updates_sent = 0
        self._call_attached = bool(call_id)
        target = f"call_id={quote(call_id)}" if call_id else f"model={quote(model_name)}"
        url = options.get("url") or f"{DEFAULT_URL}?{target}"
        try:
            self.model = model_name
            await self._open(url, options, playback)
            self._refuse_closed()
            if self._memory is None:
                self._update_session(settings)
            self._trace(settings)
        except BaseException:
            if self._leg is not None:
                self._leg.abort(EndReason("connect_failed"))
            if self._link is not None:
                await self._link.aclose()
            self._leg = self._connection = self._link = self._audio = None
            self._session = None
            raise

    async def _open(self, url: str, options: RealtimeModelConfig, playback: PlaybackSource) -> None:
        """Open the first connection: over the endpoints of the renewal, or else to this address."""
        renewal = self._renewal
        if renewal is None and self._transport_config.get("renew"):
            renewal = only_endpoint(Target(url, lambda: request_headers(options)))
        if renewal is None or self._history is None or self._call_attached:
            # A call that is joined is not ours to begin anew.
            self._session = ModelSession(playback, response_timeout=self._response_timeout)
            connection = self._connection = ModelConnection(self)
            connection.in_use = True
            headers = await request_headers(options)
            self._leg = await self._dial(url, connection, headers=headers, options=self._leg_options())
            connection.leg = self._leg
            return
        session = self._session = ModelSession(playback, response_timeout=self._response_timeout, new_id=new_item_id)
        if self._audio is None:
            self._audio = CallerAudio(renewal.make_store())
        link = self._link = RenewedLink(self, renewal, session, self._history, self._audio)
        if self._memory is not None:
            link.carry.recall(self._memory)
            session.recall(link.carry.requests(self._memory), self._now())
            if not (self._memory.settings or self._memory.updates):
                self._update_session(options.get("initial_model_settings") or {})
            await link.open_again()
            self._refuse_closed()
            return
        connection = await link.open()
        self._refuse_closed()
        self.on_message(connection, connection.greeted.result())

    async def send_event(self, event: RealtimeModelSendEvent) -> None:
        """Send something to the model. Raises UserError when not connected, WireError for a raw message that is malformed."""
        self.send_nowait(event)

    def send_nowait(self, event: RealtimeModelSendEvent) -> None:
        """Send something to the model now; see `send_event`."""
        session = self._session
        if session is None or not self._goes_on():
            raise UserError("the model is not connected: enter the session first")
        if self._link is not None and not isinstance(event, RealtimeModelSendAudio | RealtimeModelSendToolOutput):
            self._link.refuse_when_full()
        now = self._now()
        match event:
            case RealtimeModelSendAudio(audio, commit):
                self.append_payload(audio_payload(audio))
                if commit:
                    self.perform(session.send_client_event(client.InputAudioBufferCommit(), now))
            case RealtimeModelSendUserInput(user_input):
                self.perform(session.send_item(user_message(user_input), now, respond=True))
            case RealtimeModelSendToolOutput(call, output, start_response):
                item = types.FunctionCallOutputItem(call_id=call.call_id, output=output)
                self.perform(session.send_item(item, now, respond=start_response, after=call.response_id))
            case RealtimeModelSendInterrupt():
                self.perform(session.interrupt(event, now))
            case RealtimeModelSendSessionUpdate(settings):
                self._update_session(settings)
            case RealtimeModelSendRawMessage(message):
                self.send_client_event(_raw_event(message))

    def send_client_event(self, event: client.ClientEvent) -> None:
        """Send a client event of the protocol, in its turn where it asks for a response.

        Raises UserError while the connection is being made anew and too much waits for that.
        """
        if self._session is not None:
            if self._link is not None:
                self._link.refuse_when_full()
            self.perform(self._session.send_client_event(event, self._now()))

    def append_payload(self, payload: str) -> None:
        """Send caller audio that is base64 already. This is the caller's audio path: one splice and one write.

        A payload that would break out of its quotes comes from somebody who wants to write our events: it is dropped.
        """
        if '"' in payload or "\\" in payload or not payload.isascii():
            self._metrics.inc(WIRE_ERRORS_TOTAL, side="caller", code="invalid_audio")
        else:
            if self._audio is not None:
                self._audio.push(payload)
            if self._leg is not None:
                self._leg.send_audio(wire.append_frame(payload))

    def append_frame(self, frame: bytes, payload: str) -> None:
        """Send a whole `input_audio_buffer.append` that was decoded once, so is known to be one; `payload` is its audio."""
        if self._audio is not None:
            self._audio.push(payload)
        if self._leg is not None:
            self._leg.send_audio(frame)

    @property
    def frames_dropped(self) -> int:
        """Caller audio that the model's side did not take in time."""
        now = 0 if self._leg is None else self._leg.statistics().messages_dropped
        link = self._link
        return now if link is None else now + link.dropped_before + link.carry.audio.frames_lost

    async def close(self) -> None:
        """Close the connection. Harmless when it is closed; cancelling it leaves the close under way."""
        self._closing = True
        leg, self._leg = self._leg, None
        if leg is not None:
            leg.close()
        if self._link is not None:
            await self._link.aclose()
        if leg is not None:
            await leg.wait_closed()
        await self._listeners.aclose()
        self._disconnected()

    def on_message(self, connection: ModelConnection, data: bytes) -> None:
        """Take in a message of the server (called by the connection in use)."""
        session = self._session
        if session is None:
            return
        try:
            event = wire.decode_server_event(data)
        except WireError as error:
            self._metrics.inc(WIRE_ERRORS_TOTAL, side="model", code=error.wire_code)
            self._listeners.emit(RealtimeModelErrorEvent(error))
            return
        seen = Seen.BY_ALL if self._link is None else self._link.screen(connection, event)
        if seen is Seen.BY_NOBODY:
            return
        if seen is Seen.BY_ALL:
            self._show(event, data)
        elif self._renewal_tap is not None:
            self._renewal_tap.on_told_again(event)
        if self._listeners.wants_raw:
            self._listeners.emit(RealtimeModelRawServerEvent(msgspec.json.decode(data)))
        if isinstance(event, wire.ErrorEvent) and event.error.event_id in self._updates:
            self._refused(event.error)
            return
        if isinstance(event, wire.UnknownEvent):
            self._metrics.inc(WIRE_UNKNOWN_EVENTS_TOTAL, side="model")
            return
        self.perform(session.receive(event, self._now()))

    def _show(self, event: Any, data: bytes) -> None:
        """Let the caller see an event, if it speaks the same protocol."""
        if self._tap is None:
            return
        if self._link is not None and self._link.carry.offset_ms:
            shown = self._link.as_the_caller_counts(event)
            if shown is not event:
                event, data = shown, wire.encode(shown)
        self._tap(event, data)

    def on_binary_message(self) -> None:
        """Take in a binary message, which the protocol does not know (called by the connection)."""
        self._metrics.inc(WIRE_ERRORS_TOTAL, side="model", code="binary_frame")

    def on_lost(self, connection: ModelConnection, reason: EndReason) -> None:
        """Take in the end of a connection (called by it)."""
        if connection is not self._connection or not connection.in_use:
            return
        if self._link is not None and not self._closing and self._session is not None:
            self._link.lost(connection)
            return
        leg, self._leg = self._leg, None
        self._connection = None
        self._disconnected()
        if self._closing:
            return
        if leg is not None and getattr(leg, "close_code", None) in _CLEAN:
            self._listeners.emit(RealtimeModelConnectionStatusEvent("disconnected"))
            self._listeners.emit(RealtimeModelEndOfStreamEvent())
        else:
            self._listeners.emit(RealtimeModelExceptionEvent(LegClosedError(reason), "the connection to the model ended"))

    # --- LinkHost -----------------------------------------------------------------------------------------------------

    async def dial_target(self, target: Target, connection: ModelConnection) -> None:
        """Open a leg for a connection (called by the renewal)."""
        headers = await target.headers()
        connection.leg = await self._dial(target.url, connection, headers=headers, options=self._leg_options())

    def use(self, connection: ModelConnection | None) -> None:
        """Send over this connection from now on (called by the renewal)."""
        self._connection = connection
        self._leg = None if connection is None else connection.leg

    def emit(self, event: RealtimeModelEvent) -> None:
        """Report an event to the listeners (called by the renewal)."""
        self._listeners.emit(event)

    def report(self, event: Any) -> None:
        """Tell the caller what no server tells it (called by the renewal)."""
        if self._tap is not None:
            event = msgspec.structs.replace(event, event_id=f"event_{secrets.token_hex(10)}")
            self._tap(event, wire.encode(event))

    def response_lost(self) -> None:
        """Tell the caller that the response under way is over (called by the renewal)."""
        if self._renewal_tap is not None:
            self._renewal_tap.on_response_lost()

    def gone(self, code: str) -> None:
        """There will be no connection any more (called by the renewal)."""
        self._disconnected()
        reason = EndReason("model_lost", "the connection to the model cannot be made anew", code, "model")
        self._listeners.emit(RealtimeModelExceptionEvent(ModelLostError(reason), "the connection to the model ended"))

    def _disconnected(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._session is not None:
            self._session.closed()
            self._session = None
        if self._tracker is not None:
            self._tracker.on_interrupted()

    def _leg_options(self) -> LegOptions:
        config = self._transport_config
        size = config.get("max_size", MAX_MESSAGE)
        # What the program or the caller sends in one turn may be as large as what we would take.
        changes: dict[str, Any] = {"max_message": size, "queue_limit": size}
        changes |= {key: config[key] for key in ("ping_interval", "ping_timeout") if key in config}
        if "handshake_timeout" in config:
            changes["open_timeout"] = config["handshake_timeout"]
        return LegOptions(**changes)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _update_session(self, settings: Mapping[str, Any]) -> None:
        payload = session_payload(settings, model_name=self.model, default_formats=not self._call_attached)
        if self._call_attached:
            # Chosen when the call was accepted, and it cannot change.
            del payload["model"]
        elif self._link is not None:
            payload["model"] = self._link.model_name or payload["model"]
        self._refuse_new_voice(payload["audio"]["output"]["voice"])
        if self._tracker is not None:
            self._tracker.set_audio_format(payload["audio"]["output"].get("format"))
        if self._goes_on():
            self._updates_sent += 1
            event_id = SETTINGS_ID if self._updates_sent == 1 else f"{SETTINGS_ID}_{self._updates_sent}"
            self._updates[event_id] = settings
            if len(self._updates) > MAX_UPDATES:
                self._updates.popitem(last=False)
            self._send_settings(event_id, payload)

    def _send_settings(self, event_id: str, payload: Mapping[str, Any]) -> None:
        if self._link is not None:
            self._link.settings_sent(event_id, payload)
        if self._leg is not None:
            self._leg.send_text(msgspec.json.encode({"type": "session.update", "event_id": event_id, "session": payload}))

    def _goes_on(self) -> bool:
        """Is there a connection, or will there be one?"""
        return self._leg is not None or (self._link is not None and self._link.going_on)

    def _refused(self, error: types.ErrorDetails) -> None:
        """The model refused settings as a whole. Without the first go no further: the provider's own are in their place."""
        settings = self._updates.pop(error.event_id or "", None)
        fault = SettingsRefusedError(f"the model refused the session's settings: {error.message}", settings)
        if error.event_id == SETTINGS_ID:
            self._listeners.emit(RealtimeModelExceptionEvent(fault, "the settings were refused"))
        else:
            self._listeners.emit(RealtimeModelErrorEvent(fault))

    def _refuse_closed(self) -> None:
        if self._closing:
            raise UserError("the model was closed while it was connecting")

    def _refuse_new_voice(self, voice: Any) -> None:
        """Refuse here what the API would refuse, with the rest of the update, as `cannot_update_voice`."""
        session = self._session
        if session is None or not session.has_spoken or session.session is None:
            return
        audio = session.session.audio
        output = audio.output if isinstance(audio, types.AudioConfig) else None
        present = output.voice if isinstance(output, types.AudioOutputConfig) else None
        name = present.id if isinstance(present, types.CustomVoice) else present
        wanted = voice["id"] if isinstance(voice, Mapping) else voice
        if isinstance(name, str) and wanted != name:
            raise UserError(
                f"the voice cannot change from {name} to {wanted} once the agent has spoken: keep it for the session"
            )

    def _trace(self, settings: Mapping[str, Any]) -> None:
        """Switch the provider's own recording on, if the program asks for it: it keeps what was said."""
        tracing = settings.get("tracing")
        if tracing is None or not self._goes_on():
            return
        if isinstance(tracing, Mapping):
            tracing = {key: tracing.get(key) for key in ("workflow_name", "group_id", "metadata")}
        self._send_settings(TRACING_ID, {"type": "realtime", "tracing": tracing})

    def perform(self, commands: list[ModelCommand]) -> None:
        """Perform commands of the session, in order."""
        link = self._link
        for command in commands:
            if isinstance(command, Emit):
                self._listeners.emit(command.event)
            elif isinstance(command, Rewrite):
                if link is not None:
                    link.rewrite(command)
            else:
                event = command.event if link is None else link.sending(command.event)
                if self._leg is not None:
                    self._leg.send_text(wire.encode(event))
        self._arm()

    def _arm(self) -> None:
        """Keep one timer at the deadline of the response sequence."""
        deadline = None if self._session is None else self._session.deadline
        if self._timer is not None:
            if deadline is not None and self._timer.when() <= deadline:
                return  # It fires early, finds nothing to do and sets itself anew: cheaper than a timer per response.
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self._session is not None:
            self.perform(self._session.expire(self._now()))


def _raw_event(message: Mapping[str, Any]) -> client.ClientEvent:
    """Check a raw message against the protocol. Raises WireError where it does not fit, UserError for an unknown type."""
    body = {key: value for key, value in message.items() if key != "other_data"} | dict(message.get("other_data") or {})
    event = wire.decode_client_event(msgspec.json.encode(body))
    if isinstance(event, wire.UnknownEvent):
        raise UserError(f'"{event.type}" is not a client event of the Realtime API')
    return event


class OpenAIRealtimeSIPModel(OpenAIRealtimeWebSocketModel):
    """Joins a call that reached the provider over SIP: the provider carries the audio, this socket the rest.

    `model_config["call_id"]` is the id from the webhook; the model's name was chosen when the call was accepted.
    """

    async def connect(self, options: RealtimeModelConfig) -> None:
        """Join the call; see `OpenAIRealtimeWebSocketModel.connect`. Raises UserError without a `call_id`."""
        if not options.get("call_id"):
            raise UserError("OpenAIRealtimeSIPModel needs `call_id` in model_config: the id of the call from the webhook")
        await super().connect(options)

    @staticmethod
    async def build_initial_session_payload(
        agent: RealtimeAgent[Any],
        *,
        context: Any = None,
        model_config: RealtimeModelConfig | None = None,
        run_config: RealtimeRunConfig | None = None,
        overrides: RealtimeSessionModelSettings | None = None,
    ) -> dict[str, Any]:
        """Return the session object to accept a call with, equal to what the session of this agent would then send.

        `overrides` have the last word. Raises what the agent's own functions raise.
        """
        initial = {**((model_config or {}).get("initial_model_settings") or {}), **(overrides or {})}
        base = {**((run_config or {}).get("model_settings") or {}), **initial}
        settings, _ = await agent_settings(agent, RunContextWrapper(context), base, initial)
        return session_payload(settings, model_name=settings.get("model_name") or DEFAULT_REALTIME_MODEL)
