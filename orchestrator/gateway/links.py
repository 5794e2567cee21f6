"""What the gateway sees of a session actor: one end of a node link, and what that link tells it."""

from __future__ import annotations

import socket
from typing import Protocol

from orchestrator.cluster.link_messages import FromActor, FromGateway, SessionHeld
from orchestrator.errors import EndReason

__all__ = ["ActorLink", "GatewayLinkListener"]


class ActorLink(Protocol):
    """The gateway's end of the link to one session actor. Its methods never block and never call back."""

    def offer(self, message: FromGateway, fds: tuple[int, ...] = ()) -> bool:
        """Send a message that may be refused: False, and nothing is taken, when the link's queue is full or it is closed.

        On True the link owns `fds` and closes them once they are sent or the link is lost. Raises WireError for a message that
        is too large.
        """

    def send(self, message: FromGateway, fds: tuple[int, ...] = ()) -> None:
        """Send a message that must not be lost: where the queue is full the link ends with `link_overflow`."""

    def close(self, reason: EndReason) -> None:
        """End the link; its listener hears of it later."""


class GatewayLinkListener(Protocol):
    """Called by the links. `on_link_lost` comes once for each link, last."""

    def on_link_message(self, link: ActorLink, message: FromActor) -> None:
        """Take one message."""

    def on_session_held(self, link: ActorLink, message: SessionHeld, sock: socket.socket, page: int) -> None:
        """Take back a session's socket and the descriptor of its page, which are the listener's from now on."""

    def on_listener(self, link: ActorLink, sock: socket.socket) -> None:
        """Take back the listening socket of the gateway that was here before, the listener's from now on."""

    def on_link_lost(self, link: ActorLink, reason: EndReason) -> None:
        """Learn that the link ended; the end of a link means that the actor's process did."""
