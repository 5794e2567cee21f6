"""The messages of the node link, between a node's gateway and its session actors, and the gateway's report to the supervisor.

One message is one datagram: MessagePack of a tagged struct. Fields may be added with defaults; names and meanings stay, since
the two ends may be of different versions during an upgrade.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from orchestrator.errors import EndReason, WireError
from orchestrator.telemetry.metrics import MetricsDelta

__all__ = [
    "MAX_MESSAGE",
    "ActorSnapshot",
    "Adopt",
    "Drain",
    "EndSession",
    "Ended",
    "FromActor",
    "FromGateway",
    "GatewaySnapshot",
    "HeldSession",
    "Hello",
    "JournalAcknowledged",
    "JournalEntries",
    "JournalLost",
    "JournalRefused",
    "ListenerKept",
    "Recover",
    "Recovered",
    "Refused",
    "Release",
    "Released",
    "SessionHeld",
    "SessionSnapshot",
    "SessionStateChanged",
    "StateParcel",
    "Telemetry",
    "Up",
    "decode_from_actor",
    "decode_from_gateway",
    "encode",
]

# Bytes of one encoded message. A request head and what came with it are the largest content.
MAX_MESSAGE = 64 * 1024


class HeldSession(msgspec.Struct, frozen=True):
    """A session that an actor already holds when it links to a gateway; `epoch` counts its owners, from 1."""

    session_id: str
    channel: str
    state: str
    epoch: int = 1


class Hello(msgspec.Struct, frozen=True, tag="hello"):
    """Actor to gateway, first on every link: who it is, how many sessions it takes, and which ones it holds by now."""

    actor_id: str
    pid: int
    seats: int
    sessions: tuple[HeldSession, ...] = ()


class SessionHeld(msgspec.Struct, frozen=True, tag="session_held"):
    """Actor to gateway, after its Hello, with the caller's socket and page: what a gateway holds of each session.

    The fields are those of the session's `Adopt`.
    """

    session_id: str
    channel: str
    head: bytes
    peer: str
    accepted_at: float


class StateParcel(msgspec.Struct, frozen=True, tag="state"):
    """A part of a call's state (`journal.state.CallState` as JSON); `more` says that the next one of this session goes on.

    Actor to gateway, after its Hello: what later entries are applied to. Gateway to actor: what `Recover` goes on from.
    """

    session_id: str
    data: bytes
    more: bool = False


class ListenerKept(msgspec.Struct, frozen=True, tag="listener"):
    """With the gateway's listening socket: gateway to actor, to keep it, and actor to gateway, to give it back.

    As long as somebody holds it the port never closes, so that a caller who comes while there is no gateway waits for one.
    """


class Recovered(msgspec.Struct, frozen=True, tag="recovered"):
    """Actor to gateway: it reads what the caller says, `gap_s` seconds after the former owner's end was seen."""

    session_id: str
    epoch: int
    gap_s: float


class Released(msgspec.Struct, frozen=True, tag="released"):
    """Actor to gateway: it has let go of the session as it was asked to, and nothing of it is left here."""

    session_id: str


class Up(msgspec.Struct, frozen=True, tag="up"):
    """Actor to gateway: the caller was answered with 101, `accept_to_101_s` seconds after it was accepted."""

    session_id: str
    accept_to_101_s: float


class SessionStateChanged(msgspec.Struct, frozen=True, tag="session_state_changed"):
    """Actor to gateway: the session's new state, by the name in `core`'s table."""

    session_id: str
    state: str


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """Actor to gateway: the session is over and its socket shut down."""

    session_id: str
    reason: EndReason


class Telemetry(msgspec.Struct, frozen=True, tag="telemetry"):
    """Actor to gateway: what it counted since the last one."""

    delta: MetricsDelta


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Actor to gateway: it did not take the session, and has closed its descriptor without a word to the caller."""

    session_id: str
    reason: EndReason


class JournalEntries(msgspec.Struct, frozen=True, tag="journal"):
    """Actor to gateway: a parcel of journal entries (`journal.parcels`); `more` says that the next message goes on with it."""

    data: bytes
    more: bool = False


class JournalAcknowledged(msgspec.Struct, frozen=True, tag="journal_acknowledged"):
    """Gateway to actor: this writer's entries up to `seq` are kept: in the store if `durable`, else on the node's disk."""

    session_id: str
    writer: str
    seq: int
    durable: bool


class JournalRefused(msgspec.Struct, frozen=True, tag="journal_refused"):
    """Gateway to actor: this writer does not own the session any more, and must stop serving it. `verdict` says why."""

    session_id: str
    writer: str
    verdict: str


class JournalLost(msgspec.Struct, frozen=True, tag="journal_lost"):
    """Gateway to actor: entries of this writer could not be kept; with `room` there is place again, for a snapshot."""

    session_id: str
    writer: str
    room: bool


class Adopt(msgspec.Struct, frozen=True, tag="adopt"):
    """Gateway to actor, with the caller's socket and the session's page: take this session.

    `head` is every byte read from the socket so far: the whole request head and whatever came after it. `accepted_at` is the
    machine's monotonic clock, in seconds.
    """

    session_id: str
    channel: str
    head: bytes
    peer: str
    accepted_at: float


class Recover(msgspec.Struct, frozen=True, tag="recover"):
    """Gateway to actor, with the caller's socket and the session's page: go on with a session that has lost its owner.

    Its state came before, in `StateParcel`s; none means that no fact of it is known. The first fields are those of its `Adopt`.
    `lost_at` is the machine's monotonic clock, in seconds, when the former owner's end was seen, and `cause` why it ended.
    """

    session_id: str
    channel: str
    head: bytes
    peer: str
    accepted_at: float
    cause: str
    lost_at: float


class Release(msgspec.Struct, frozen=True, tag="release"):
    """Gateway to actor: let go of this session without a word to its caller, as soon as it is quiet, and say `Released`.

    It journals up to here first. It also replies where it does not hold the session any more.
    """

    session_id: str


class EndSession(msgspec.Struct, frozen=True, tag="end_session"):
    """Gateway to actor: end this session with this reason."""

    session_id: str
    reason: EndReason


class Drain(msgspec.Struct, frozen=True, tag="drain"):
    """Gateway to actor: no more sessions will come; let those that run end by themselves."""


FromActor = (
    Hello
    | SessionHeld
    | StateParcel
    | ListenerKept
    | Up
    | SessionStateChanged
    | Recovered
    | Released
    | Ended
    | Telemetry
    | Refused
    | JournalEntries
)
FromGateway = (
    Adopt
    | Recover
    | StateParcel
    | ListenerKept
    | Release
    | EndSession
    | Drain
    | JournalAcknowledged
    | JournalRefused
    | JournalLost
)


class SessionSnapshot(msgspec.Struct, frozen=True):
    """One session as its gateway sees it. `since` is when it was admitted, in Unix seconds.

    `epoch` grows with each new owner; of two gateways that report the session, the one with the higher epoch is right.
    """

    session_id: str
    channel: str
    actor_id: str
    state: str
    since: float
    epoch: int = 0


class ActorSnapshot(msgspec.Struct, frozen=True):
    """One session actor as its gateway sees it."""

    actor_id: str
    pid: int
    seats: int
    used: int


class GatewaySnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A gateway's report: all that the supervisor needs to build its directory from nothing.

    `starts`, `ends` and `refusals` count since the gateway process began. `node` is the id of its node, `incarnation` larger
    for each new process there (its start in Unix nanoseconds) and `sequence` counts its reports, so that a report which a
    newer one overtook is known as such.
    """

    pid: int
    host: str
    port: int
    ready: bool
    draining: bool
    max_sessions: int
    handshakes: int
    pending_heads: int
    starts: int
    ends: int
    refusals: int
    sessions: tuple[SessionSnapshot, ...]
    actors: tuple[ActorSnapshot, ...]
    node: str = ""
    incarnation: int = 0
    sequence: int = 0


_Message = TypeVar("_Message")

_encoder = msgspec.msgpack.Encoder()
_from_actor: msgspec.msgpack.Decoder[FromActor] = msgspec.msgpack.Decoder(FromActor)
_from_gateway: msgspec.msgpack.Decoder[FromGateway] = msgspec.msgpack.Decoder(FromGateway)


def encode(message: FromActor | FromGateway) -> bytes:
    """Encode for the link. Raises WireError `message_too_large` above `MAX_MESSAGE` bytes."""
    data = _encoder.encode(message)
    if len(data) > MAX_MESSAGE:
        raise WireError(
            "message_too_large", f"a {type(message).__name__} of {len(data)} bytes exceeds the link's {MAX_MESSAGE} bytes"
        )
    return data


def decode_from_actor(data: bytes) -> FromActor:
    """Decode what a session actor sent. Raises WireError `invalid_message`."""
    return _decode(_from_actor, data)


def decode_from_gateway(data: bytes) -> FromGateway:
    """Decode what the gateway sent. Raises WireError `invalid_message`."""
    return _decode(_from_gateway, data)


def _decode(decoder: msgspec.msgpack.Decoder[_Message], data: bytes) -> _Message:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError("invalid_message", f"not a message of the node link: {error}") from None
