"""What every channel is: the caller's protocol on one side, a session on the other. One object per call."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol

import msgspec

from orchestrator.core.playback import Cut
from orchestrator.core.playback_source import PlaybackSource
from orchestrator.errors import EndReason
from orchestrator.realtime.events import RealtimeSessionEvent
from orchestrator.realtime.openai_realtime import OpenAIRealtimeWebSocketModel
from orchestrator.settings import Settings
from orchestrator.telemetry.metrics import Metrics
from orchestrator.transports.base import Leg, LegOptions, OpenListener
from orchestrator.transports.websocket import WebSocketLeg

__all__ = ["CallControl", "Channel", "ChannelParts", "FrameCounts", "LegHolder", "caller_gone"]

# What a leg ends with when its peer breaks the WebSocket protocol or our limits.
_VIOLATIONS = frozenset({"protocol_error", "policy_violation", "message_too_big"})


class FrameCounts(msgspec.Struct):
    """Audio messages since the call began; plain integers, since they are counted once per frame."""

    received: int = 0
    sent: int = 0
    # Caller audio that came before the model was there and found the buffer full, or was no audio at all.
    early_dropped: int = 0
    malformed: int = 0


class CallControl(Protocol):
    """What a channel may ask of the call that it belongs to."""

    def caller_ready(self, caller: dict[str, Any]) -> None:
        """The caller is known and may talk to the agent. `caller` becomes part of the tools' context."""

    def end(self, reason: EndReason) -> None:
        """End the call. The first reason counts."""

    def remember(self) -> None:
        """Something of the channel's `state` has changed."""


class ChannelParts(msgspec.Struct, frozen=True):
    """What a channel is made with."""

    session_id: str
    settings: Settings
    control: CallControl
    metrics: Metrics


class Channel(OpenListener, Protocol):
    """One caller's protocol. It is the listener of the caller's leg and hears the session's events in the same call."""

    name: str
    # What the caller's handshake is answered with, if the caller offers it.
    subprotocol: str | None
    counts: FrameCounts

    @property
    def playback(self) -> PlaybackSource:
        """Who knows what this caller has heard."""

    @property
    def start_timeout(self) -> float:
        """Seconds that the caller has, after its 101, to say what is needed before `caller_ready`."""

    def leg_options(self) -> LegOptions:
        """Limits of the caller's leg."""

    def model_settings(self) -> dict[str, Any]:
        """Return the session settings that this kind of caller demands, such as its audio format."""

    def state(self) -> bytes:
        """Return, as JSON, what the channel of another owner would need; empty while it would need nothing."""

    def restore(self, data: bytes) -> None:
        """Go on where the channel of a former owner was, whose `state` was this. Before `on_open`."""

    def cut(self) -> list[Cut]:
        """The response under way was lost with a former owner: end it for the caller as soon as there is a leg.

        Returns what was heard of it, where that is known. After `restore`, before `on_open`.
        """

    def expect(self, model: OpenAIRealtimeWebSocketModel) -> None:
        """Give the caller's audio to this model, which keeps it until it is connected; `live` follows."""

    def live(self, model: OpenAIRealtimeWebSocketModel) -> None:
        """The model is there: audio and events flow from now on."""

    def on_session_event(self, event: RealtimeSessionEvent) -> None:
        """Take in an event of the session."""

    def tell_failure(self, reason: EndReason) -> None:
        """Tell the caller, in its protocol and before its leg is closed, that the call fails."""


class LegHolder:
    """The part of a channel that keeps its leg."""

    leg: Leg | None = None

    def on_open(self, leg: Leg) -> None:
        """Take the leg."""
        self.leg = leg

    def as_one(self) -> contextlib.AbstractContextManager[None]:
        """What the block sends and has remembered reaches another owner as a whole, or not at all; no `await` in the block."""
        return self.leg.as_one() if isinstance(self.leg, WebSocketLeg) else contextlib.nullcontext()


def caller_gone(reason: EndReason) -> EndReason:
    """Say why the call ends when the caller's leg has ended: whose doing it was, and how."""
    if reason.code == "listener_error":
        # It was we who could not take what the caller sent.
        return EndReason("internal_error", "a message of the caller could not be handled", reason.code)
    if reason.by == "us" and reason.code in _VIOLATIONS:
        return EndReason("caller_protocol_error", reason.text, reason.code, "caller")
    code = "caller_hung_up" if reason.code in ("closed_normally", "going_away") else "caller_lost"
    return EndReason(code, reason.text, reason.code, "caller")
