"""What the memory of a new model session was given, and how it is brought to what it should be.

Items are the bodies that `conversation.item.create` takes. One that has changed since is deleted and created anew in its place,
under its own id: the API has no other way to change an item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Replica"]

ROOT = "root"


class Replica:
    """The items that one connection was told of, in order."""

    def __init__(self) -> None:
        self._bodies: dict[str, Mapping[str, Any]] = {}
        # Deletions of ours whose confirmation concerns nobody.
        self._deleting: Counter[str] = Counter()

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._bodies

    @property
    def ids(self) -> list[str]:
        """What it was told of, in order."""
        return list(self._bodies)

    def bring_to(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the client events that make the memory these items, and take them for done."""
        wanted = {body["id"]: body for body in bodies}
        kept = {item_id: body for item_id, body in self._bodies.items() if wanted.get(item_id) == body}
        # Outputs go before the calls that they answer, which stand before them.
        gone = [item_id for item_id in reversed(self._bodies) if item_id not in kept]
        events = [self._delete(item_id) for item_id in gone]
        last = next(reversed(kept), None)
        behind_last = last is None
        previous = ROOT
        for item_id, body in wanted.items():
            if item_id not in kept:
                event: dict[str, Any] = {"type": "conversation.item.create", "item": body}
                events.append(event if behind_last else event | {"previous_item_id": previous})
            behind_last = behind_last or item_id == last
            previous = item_id
        self._bodies = dict(wanted)
        return events

    def rewrite(self, item_id: str, body: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """Return the client events that replace one item by another of its id, or (None) remove it."""
        events = [self._delete(item_id)]
        if body is None:
            del self._bodies[item_id]
            return events
        ids = self.ids
        index = ids.index(item_id)
        self._bodies[item_id] = body
        previous = ids[index - 1] if index else ROOT
        return [*events, {"type": "conversation.item.create", "previous_item_id": previous, "item": body}]

    def is_deleting(self, item_id: str) -> bool:
        """Is a deletion of ours on its way?"""
        return self._deleting[item_id] > 0

    def deleted(self, item_id: str) -> bool:
        """The model confirms a deletion. Returns True for one of ours, which concerns nobody."""
        if self._deleting[item_id]:
            self._deleting[item_id] -= 1
            return True
        self._bodies.pop(item_id, None)
        return False

    def _delete(self, item_id: str) -> dict[str, Any]:
        self._deleting[item_id] += 1
        return {"type": "conversation.item.delete", "item_id": item_id}
