"""What a leg is, whatever carries it: its states, its listener, its limits, its end.

A leg is driven by callbacks on the event loop that it was opened on. Nothing here or in its siblings starts a task, and
nothing waits: a message is handed to the listener in the loop turn that received it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec

from orchestrator.errors import EndReason, IllegalTransitionError, SettingsError
from orchestrator.transports.shared_reader import SharedReader

__all__ = [
    "ABNORMAL_CLOSURE",
    "DEFAULT_OPTIONS",
    "TRANSITIONS",
    "Leg",
    "LegListener",
    "LegOptions",
    "LegState",
    "LegStatistics",
    "OpenListener",
    "RunListener",
    "advance",
    "reason_for_close",
]

# RFC 6455 §7.1.5: what a connection is said to have closed with when no close frame was seen. Never sent.
ABNORMAL_CLOSURE: Final = 1006

# The control frame limit of RFC 6455 §5.5; a message limit below it would refuse legal pings.
_SMALLEST_MAX_MESSAGE: Final = 125


class LegState(enum.Enum):
    """Where a leg is in its life."""

    CONNECTING = "connecting"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


TRANSITIONS: Final[Mapping[LegState, frozenset[LegState]]] = {
    # CONNECTING -> CLOSING: a refused upgrade, whose answer is still being written.
    LegState.CONNECTING: frozenset({LegState.OPEN, LegState.CLOSING, LegState.CLOSED}),
    # OPEN -> CLOSED: the connection broke under us.
    LegState.OPEN: frozenset({LegState.CLOSING, LegState.CLOSED}),
    LegState.CLOSING: frozenset({LegState.CLOSED}),
    LegState.CLOSED: frozenset(),
}


def advance(current: LegState, target: LegState) -> LegState:
    """Return `target` if the table lists it for `current`; raise IllegalTransitionError otherwise."""
    if target not in TRANSITIONS[current]:
        raise IllegalTransitionError(f"a leg cannot go from {current.value} to {target.value}")
    return target


class LegListener(Protocol):
    """Hears what arrives on a leg. Called on the loop of the leg; must not block.

    An exception that a method raises ends its own leg with the reason `listener_error` and goes to the loop's exception
    handler; no other leg notices.
    """

    def on_text(self, data: bytes) -> None:
        """Take one text message: valid UTF-8, at most `max_message` bytes."""

    def on_binary(self, data: bytes) -> None:
        """Take one binary message of at most `max_message` bytes."""

    def on_closed(self, reason: EndReason) -> None:
        """Hear that the leg has ended: exactly once, last, and only if it had been open."""


@runtime_checkable
class OpenListener(LegListener, Protocol):
    """A listener that wants its leg: `on_open` is called once, before any message."""

    def on_open(self, leg: Leg) -> None:
        """Take the leg, which is open and may be written to at once."""


@runtime_checkable
class RunListener(LegListener, Protocol):
    """A listener that takes many messages in one call, where they are there at once: for clients that stream audio.

    `on_texts` takes text messages in the place of as many calls of `on_text`; either may be called. It goes on to the last of
    them also when it closes the leg at an earlier one.
    """

    def on_texts(self, messages: list[bytes]) -> None:
        """Take text messages, in order, as `on_text` takes one. The list is the listener's."""


class LegStatistics(msgspec.Struct, frozen=True):
    """Counters of one leg since it was opened.

    Messages are text and binary messages; bytes are those of the wire, frame headers, pings and the upgrade included.
    `messages_dropped` counts audio that was never written because the peer did not read, or that `clear_audio` took back.
    `queued_bytes` are accepted for writing but not yet taken by the kernel.
    """

    messages_in: int = 0
    messages_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    messages_dropped: int = 0
    queued_bytes: int = 0


class LegOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one leg. Sizes are bytes, durations seconds; None switches a check off.

    `max_message` bounds one incoming message, all its fragments together. `write_high` is how much the transport may hold
    before messages wait in the leg's own queue, and `queue_limit` how much may wait there. The peer is pinged
    `ping_interval` after the last ping, and given up `ping_timeout` after a ping that it does not answer. `close_timeout`
    bounds the end of a leg, `open_timeout` everything up to the finished upgrade. With a `reader` the open connection is read
    when that says so, all that has come by then at once: a peer that sends many small messages costs less, if they may be
    late.
    """

    max_message: int = 1024 * 1024
    write_high: int = 64 * 1024
    queue_limit: int = 1024 * 1024
    ping_interval: float | None = 20.0
    ping_timeout: float | None = 20.0
    close_timeout: float = 5.0
    open_timeout: float = 10.0
    reader: SharedReader | None = None

    def __post_init__(self) -> None:
        if self.max_message < _SMALLEST_MAX_MESSAGE:
            raise SettingsError(f"max_message must be at least {_SMALLEST_MAX_MESSAGE} bytes")
        if self.write_high < 0 or self.queue_limit < 0:
            raise SettingsError("write_high and queue_limit must not be negative")
        for name in ("ping_interval", "ping_timeout", "close_timeout", "open_timeout"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise SettingsError(f"{name} must be more than 0 seconds")


DEFAULT_OPTIONS: Final = LegOptions()


class Leg(Protocol):
    """One live connection to one party.

    Sending on a leg that is not open does nothing, and never raises: the listener hears, or has heard, why.
    """

    @property
    def state(self) -> LegState:
        """Where the leg is in its life."""

    @property
    def close_code(self) -> int | None:
        """The WebSocket code of the close frame that ended the leg, whoever sent it first; 1006 if there was none.

        1005 stands for a close frame without a code. None before the end.
        """

    @property
    def close_reason(self) -> str:
        """The text in that close frame; empty before the end. When the peer sent it, it is the peer's to choose."""

    def send_text(self, data: bytes) -> None:
        """Send a text message that must not be lost. `data` is UTF-8.

        When the peer does not read and the queue is full, the leg ends with the reason `leg_overflow`.
        """

    def send_texts(self, messages: Sequence[bytes]) -> None:
        """Send text messages that are there at once, each as `send_text` does; it costs one write."""

    def send_audio(self, data: bytes) -> None:
        """Send a text message that may be dropped: when the queue is full, the oldest of its kind goes first."""

    def clear_audio(self) -> int:
        """Take back what `send_audio` has queued and the transport does not hold yet; return the number of messages."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Start the close handshake, after what is queued. No message is heard from now on; `on_closed` comes later.

        If the peer has not done its part in `close_timeout`, the connection is cut. Does nothing on a leg that is not
        open. Raises ValueError for a code that RFC 6455 forbids to send; a long reason is cut to what a frame can carry.
        """

    def abort(self, reason: EndReason) -> None:
        """Cut the connection at once, without a close frame. `on_closed` follows in a later turn of the loop."""

    async def wait_closed(self) -> EndReason:
        """Wait until the leg has ended, and return why. May be called at any time; cancelling it harms nothing."""

    def statistics(self) -> LegStatistics:
        """Return the counters as they are now; after the end, as they were then."""


_CODES: Final[Mapping[int, str]] = {
    1000: "closed_normally",
    1001: "going_away",
    1002: "protocol_error",
    1003: "protocol_error",
    1005: "closed_normally",  # a close frame without a code, which is what a browser's close() sends
    1006: "connection_lost",
    1007: "protocol_error",
    1008: "policy_violation",
    1009: "message_too_big",
    1011: "internal_error",
    1012: "going_away",
    1013: "overloaded",
}


def reason_for_close(code: int, text: str, by: str) -> EndReason:
    """Return the reason that stands for a close frame; codes without a name of their own become `closed_with_code`."""
    name = _CODES.get(code)
    if name is None:
        return EndReason("closed_with_code", f"{code} {text}".rstrip(), None, by)
    return EndReason(name, text, None, by)
