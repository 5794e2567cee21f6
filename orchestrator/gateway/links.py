"""What the gateway sees of a session actor: one end of a node link, and what that link tells it."""

from __future__ import annotations

from typing import Protocol

from orchestrator.cluster.link_messages import FromActor, FromGateway
from orchestrator.errors import EndReason

__all__ = ["ActorLink", "GatewayLinkListener"]


class ActorLink(Protocol):
    """The gateway's end of the link to one session actor. Its methods never block and never call back."""

    def offer(self, message: FromGateway, fd: int | None = None) -> bool:
        """Send a message that may be refused: False, and nothing is taken, when the link's queue is full or it is closed.

        On True the link owns `fd` and closes it once it is sent or the link is lost. Raises WireError for a message that is
        too large.
        """

    def send(self, message: FromGateway) -> None:
        """Send a message that must not be lost: where the queue is full the link ends with `link_overflow`."""

    def close(self, reason: EndReason) -> None:
        """End the link; its listener hears of it later."""


class GatewayLinkListener(Protocol):
    """Called by the links. `on_link_lost` comes once for each link, last."""

    def on_link_message(self, link: ActorLink, message: FromActor) -> None:
        """Take one message."""

    def on_link_lost(self, link: ActorLink, reason: EndReason) -> None:
        """Learn that the link ended; the end of a link means that the actor's process did."""
