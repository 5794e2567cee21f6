"""What a call is made of, what it is given, and who hears of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from orchestrator.channels.base import Channel, ChannelParts
from orchestrator.channels.journalling import CallJournal
from orchestrator.journal.state import CallState
from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.realtime.openai_realtime import Dial
from orchestrator.realtime.renewing import ModelRenewal
from orchestrator.settings import Settings
from orchestrator.telemetry.metrics import Metrics
from orchestrator.tool_runner import ToolRunner
from orchestrator.transports.opening import connect
from orchestrator.transports.session_page import SessionPage

__all__ = ["CallParts", "CallReporter", "ChannelFactory", "Given", "Holding", "Lost"]

ChannelFactory = Callable[[ChannelParts], Channel]


class CallReporter(Protocol):
    """Hears what the node must know of a call."""

    def up(self, session_id: str, accept_to_101_s: float) -> None:
        """The caller was answered with 101."""

    def recovered(self, session_id: str, epoch: int, gap_s: float) -> None:
        """The call goes on here, `gap_s` seconds after its former owner's end was seen."""

    def released(self, session_id: str) -> None:
        """The call was let go of: it is another owner's from now on, and all that it wrote is on its way."""

    def state_changed(self, session_id: str, state: str) -> None:
        """The session's state changed."""


class Lost(msgspec.Struct, frozen=True):
    """How a call came to need another owner.

    `state` is what its journal tells, None where no fact of it was written yet. `lost_at` is the machine's monotonic clock, in
    seconds, when the former owner's end was seen.
    """

    state: CallState | None
    cause: str
    lost_at: float


class Given(msgspec.Struct, frozen=True):
    """What a call begins with, or goes on with if it was `lost`.

    `head` is all that was read from the caller's socket before it was handed over. `accepted_at` is the monotonic clock, in
    seconds, when that was accepted.
    """

    session_id: str
    channel: str
    head: bytes
    peer: str
    accepted_at: float
    lost: Lost | None = None


class Holding(msgspec.Struct, frozen=True):
    """What a gateway should hold of a running call; the socket and the page are the call's own."""

    given: Given
    sock: socket.socket
    page: SessionPage

    def descriptors(self) -> tuple[int, int]:
        """Return new duplicates of the socket's and the page's descriptors, to be sent away. Raises OSError."""
        sock = os.dup(self.sock.fileno())
        try:
            return sock, os.dup(self.page.fileno())
        except OSError:
            os.close(sock)
            raise


class CallParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a call is made of. Without a `page` it ends with this process.

    `renewal` knows the model's endpoints; its pool is shared by the calls of the process.
    """

    given: Given
    make_channel: ChannelFactory
    settings: Settings
    agent: RealtimeAgent[Any]
    run_config: dict[str, Any]
    tool_runner: ToolRunner | None
    metrics: Metrics
    renewal: ModelRenewal
    reporter: CallReporter
    dial: Dial = connect
    journal: CallJournal | None = None
    page: SessionPage | None = None

    @property
    def session_id(self) -> str:
        """The call's id."""
        return self.given.session_id
