"""The agent of the demo: a telephone order desk with one tool. Start here when you write your own."""

from __future__ import annotations

from typing import Any

from orchestrator import function_tool
from orchestrator.realtime import RealtimeAgent

__all__ = ["agent", "lookup_order"]

INSTRUCTIONS = """\
You answer the telephone of a small web shop. Be brief and friendly; you are heard, not read.
When the caller asks about an order, get its number, call lookup_order, and say where the order is and when it arrives. Then
explain at some length what happens if nobody is at home. When the caller says goodbye, say a goodbye of one short sentence.
"""

# An order desk of your own would ask a database here.
ORDERS: dict[str, dict[str, Any]] = {
    "4711": {
        "status": "on its way",
        "items": ["a green teapot", "two cups"],
        "carrier": "Northern Parcel",
        "eta": "tomorrow, between ten and twelve",
    },
    "4712": {"status": "being packed", "items": ["a desk lamp"], "eta": "on Friday"},
    "0815": {"status": "delivered", "items": ["a box of pencils"], "carrier": "Northern Parcel", "eta": "last Monday"},
}


@function_tool(idempotent=True, retries=1)
def lookup_order(order_id: str) -> dict[str, Any]:
    """Look up where an order is and when it arrives.

    Args:
        order_id: The number of the order, digits only, for example 4711.
    """
    digits = "".join(character for character in order_id if character.isdigit())
    order = ORDERS.get(digits)
    if order is None:
        return {"order_id": digits, "status": "unknown", "advice": "Ask the caller to read the number again."}
    return {"order_id": digits, **order}


agent: RealtimeAgent[None] = RealtimeAgent(name="Order desk", instructions=INSTRUCTIONS, tools=[lookup_order])
