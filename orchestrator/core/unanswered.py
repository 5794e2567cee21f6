"""What a client has asked of the conversation and the model has not answered: it is asked again over the next connection.

The model answers in order, so an answer also settles whatever was asked before it; what was refused needs no entry of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias, cast

from orchestrator.wire import realtime_client as client
from orchestrator.wire import realtime_server as server
from orchestrator.wire import realtime_types as types

__all__ = ["Unanswered", "Wish"]

# Beyond this a further one is refused while there is no connection. While there is one, the oldest counts as answered.
MAX_WISHES = 1024

Wish: TypeAlias = (
    client.ConversationItemCreate
    | client.ConversationItemDelete
    | client.ConversationItemRetrieve
    | client.ConversationItemTruncate
    | client.ResponseCreate
)
_WISHES = (
    client.ConversationItemCreate,
    client.ConversationItemDelete,
    client.ConversationItemRetrieve,
    client.ConversationItemTruncate,
)
_ANSWERS: dict[type, type] = {
    server.ConversationItemDeleted: client.ConversationItemDelete,
    server.ConversationItemRetrieved: client.ConversationItemRetrieve,
    server.ConversationItemTruncated: client.ConversationItemTruncate,
}


class Unanswered:
    """The wishes of one session, oldest first. Created items must have ids."""

    def __init__(self) -> None:
        self._wishes: OrderedDict[int, Wish] = OrderedDict()
        # The frame of the caller's audio before which each was asked.
        self._places: dict[int, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return len(self._wishes)

    @property
    def full(self) -> bool:
        """Is there no room for another one?"""
        return len(self._wishes) >= MAX_WISHES

    @property
    def wishes(self) -> list[tuple[int, Wish]]:
        """A snapshot: each wish, and the frame of the caller's audio before which it was asked."""
        return [(self._places[number], wish) for number, wish in self._wishes.items()]

    def sent(self, event: client.ClientEvent, frame: int = 0) -> None:
        """A client event was sent, or will be, before this frame of the caller's audio."""
        if not isinstance(event, _WISHES) and not _is_beside(event):
            return
        if self.full:
            oldest, _ = self._wishes.popitem(last=False)
            del self._places[oldest]
        self._number += 1
        self._places[self._number] = frame
        self._wishes[self._number] = cast(Wish, event)

    def receive(self, event: server.ServerEvent) -> None:
        """Take in an event of the server, which may answer a wish."""
        if not self._wishes:
            return
        if isinstance(event, server.ErrorEvent):
            self._refused(event.error.event_id)
            return
        if isinstance(event, server.ConversationItemAdded | server.ConversationItemCreated):
            kind: type = client.ConversationItemCreate
            item_id = getattr(event.item, "id", None)
        elif isinstance(event, server.ResponseCreated) and event.response.conversation_id is None:
            kind, item_id = client.ResponseCreate, None
        elif type(event) in _ANSWERS:
            kind = _ANSWERS[type(event)]
            item = getattr(event, "item", event)
            item_id = getattr(item, "item_id", None) if item is event else getattr(item, "id", None)
        else:
            return
        for number, wish in self._wishes.items():
            if type(wish) is kind and _item_of(wish) == item_id:
                self._settle(number)
                return

    def clear(self) -> None:
        """Forget all of them."""
        self._wishes.clear()
        self._places.clear()

    def _refused(self, event_id: str | None) -> None:
        if event_id is None:
            return
        for number, wish in self._wishes.items():
            if wish.event_id == event_id:
                self._settle(number)
                return

    def _settle(self, number: int) -> None:
        for known in [other for other in self._wishes if other <= number]:
            del self._wishes[known]
            del self._places[known]


def _is_beside(event: client.ClientEvent) -> bool:
    """Is it a wish for a response out of band? Those of the conversation are `core.response`'s affair."""
    body = event.response if isinstance(event, client.ResponseCreate) else None
    return isinstance(body, types.ResponseCreateParams) and body.conversation == "none"


def _item_of(wish: Wish) -> object:
    match wish:
        case client.ConversationItemCreate(item=item):
            return getattr(item, "id", None)
        case client.ResponseCreate():
            return None
        case _:
            return wish.item_id
