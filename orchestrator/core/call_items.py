"""Which items of a model session's conversation belong to one tool call: the call itself, and the outputs that answer it.

The history shows the two as one item; the model holds them apart. So whoever deletes a call must delete its output with it, or
the model would remember an answer without its question.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

__all__ = ["MAX_ID", "CallItems", "output_item_id", "short_id"]

# The API's own limit for ids that a client chooses.
MAX_ID = 32
MAX_REMEMBERED = 1024


def short_id(name: str) -> str:
    """Return an id that the API accepts: the name itself, or a digest of one that is too long."""
    return name if len(name) <= MAX_ID else hashlib.sha256(name.encode()).hexdigest()[:MAX_ID]


def output_item_id(call_id: str) -> str:
    """Return the id of the item that answers a call.

    It follows from the call, so that it is known before the model has confirmed the item, and by every socket of one call.
    """
    return short_id(f"out_{call_id}")


class _Call:
    __slots__ = ("by_response", "call_id", "outputs")

    def __init__(self, call_id: str | None, *, by_response: bool) -> None:
        self.call_id = call_id
        # Did a response make it? Else a client created it.
        self.by_response = by_response
        self.outputs: list[str] = []


class CallItems:
    """The tool calls of one model session, the latest `MAX_REMEMBERED` of them."""

    __slots__ = ("_calls", "_item_of")

    def __init__(self) -> None:
        self._calls: OrderedDict[str, _Call] = OrderedDict()
        self._item_of: dict[str, str] = {}

    def made(self, item_id: str, call_id: str | None) -> None:
        """A response makes this call."""
        self._add(item_id, call_id, by_response=True)

    def created(self, item_id: str, call_id: str | None) -> bool:
        """A client created this call. Returns False for one that a response made: then this is the report of that."""
        known = self._calls.get(item_id)
        if known is not None and known.by_response:
            return False
        self._add(item_id, call_id, by_response=False)
        return True

    def answered(self, call_id: str, output_item_id: str) -> None:
        """An item answers this call."""
        item_id = self._item_of.get(call_id)
        if item_id is not None and output_item_id not in self._calls[item_id].outputs:
            self._calls[item_id].outputs.append(output_item_id)

    def outputs(self, item_id: str) -> list[str]:
        """Return the items that answer this call; none for an item that is no call."""
        call = self._calls.get(item_id)
        return [] if call is None else list(call.outputs)

    def deleted(self, item_id: str) -> None:
        """An item is gone: a call, an output or something else."""
        call = self._calls.pop(item_id, None)
        if call is not None:
            if call.call_id is not None:
                self._item_of.pop(call.call_id, None)
            return
        for other in self._calls.values():
            if item_id in other.outputs:
                other.outputs.remove(item_id)

    def _add(self, item_id: str, call_id: str | None, *, by_response: bool) -> None:
        known = self._calls.get(item_id)
        if known is None:
            known = self._calls[item_id] = _Call(call_id, by_response=by_response)
        known.call_id = call_id or known.call_id
        if known.call_id is not None:
            self._item_of[known.call_id] = item_id
        if len(self._calls) > MAX_REMEMBERED:
            self.deleted(next(iter(self._calls)))
