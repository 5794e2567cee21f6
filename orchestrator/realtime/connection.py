"""One connection to an endpoint: its leg, its greeting, its end. A model has one after the other."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from orchestrator.core.renewal_faults import ModelFaultReason, classify_close
from orchestrator.core.replica import Replica
from orchestrator.errors import EndReason, LegClosedError, WireError
from orchestrator.transports.base import Leg
from orchestrator.wire import realtime as wire
from orchestrator.wire import realtime_client as client

__all__ = ["ConnectionOwner", "ModelConnection"]


class ConnectionOwner(Protocol):
    """Hears what the connection in use brings."""

    def on_message(self, connection: ModelConnection, data: bytes) -> None:
        """Take in a message of the server."""

    def on_binary_message(self) -> None:
        """Take in a message that is no text, which the protocol does not know."""

    def on_lost(self, connection: ModelConnection, reason: EndReason) -> None:
        """Take in the end of a connection that was open."""


class ModelConnection:
    """Listens to a leg, from before it is open.

    While it is not `in_use`, it reads for itself what concerns only itself: the greeting, the answer to settings, an error.
    """

    def __init__(self, owner: ConnectionOwner, endpoint: str = "") -> None:
        self.endpoint = endpoint
        self.leg: Leg | None = None
        self.in_use = False
        # Done with `session.created`, or with why there will be none.
        self.greeted: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        # The code of the latest `error`, which says more than the close that follows it.
        self.error_code: str | None = None
        # What it was told of before it was in use, and what came back that somebody must still see.
        self.replica = Replica()
        self.settings: dict[str, Any] | None = None
        self.kept: list[bytes] = []
        # Updates of the settings that the server has not answered, in order: is the answer nobody's news?
        self.updates: deque[bool] = deque()
        self.refused = False
        self._owner = owner

    @property
    def alive(self) -> bool:
        """Is it open, and has it not been refused?"""
        return self.leg is not None and not self.refused

    @property
    def fault(self) -> ModelFaultReason:
        """Why it ended, as far as the server has said."""
        return classify_close(None if self.leg is None else self.leg.close_code, self.error_code)

    async def wait_greeted(self) -> None:
        """Wait for the greeting. Raises LegClosedError when the connection ends before, or right after it."""
        await asyncio.shield(self.greeted)
        if not self.alive:
            raise LegClosedError(EndReason("connection_lost", "the connection ended right after its greeting"))

    def send(self, event: client.ClientEvent) -> None:
        """Send a client event, if it is open."""
        if self.leg is not None:
            self.leg.send_text(wire.encode(event))

    def on_open(self, leg: Leg) -> None:
        """Take the leg (called by the leg)."""
        self.leg = leg

    def on_text(self, data: bytes) -> None:
        """Take in a message of the server (called by the leg)."""
        if self.in_use:
            self._owner.on_message(self, data)
            return
        try:
            event = wire.decode_server_event(data)
        except WireError:
            return
        if isinstance(event, wire.ErrorEvent):
            self.error_code = event.error.code
            # Nothing that it was told so far may be refused.
            self.refused = True
        elif isinstance(event, wire.SessionCreated):
            if not self.greeted.done():
                self.greeted.set_result(data)
        elif isinstance(event, wire.SessionUpdated):
            self.kept = [data]

    def on_binary(self, data: bytes) -> None:
        """Take in a binary message, which the protocol does not know (called by the leg)."""
        del data
        if self.in_use:
            self._owner.on_binary_message()

    def on_closed(self, reason: EndReason) -> None:
        """Take in the end of the connection (called by the leg)."""
        if not self.greeted.done():
            self.greeted.set_exception(LegClosedError(reason))
            # Whoever waited has gone away, it may be, and then nobody asks.
            self.greeted.exception()
        self.refused = True
        self._owner.on_lost(self, reason)
