"""What a peer sent that we have no type for, kept as it came."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ["UNKNOWN_TAG", "UnknownBody", "UnknownEvent", "UnknownObject"]

# Never a type of the protocol. It is only a place in our unions: `encode` writes the body instead.
UNKNOWN_TAG = "~unknown"


class UnknownEvent(msgspec.Struct, frozen=True):
    """A message that is well-formed and whose meaning we do not know.

    Either its type is new to us (`detail` is None), or the type is known and the body does not fit it (`detail` says where).
    Receivers count it and go on. `raw` is the message itself, so that it can be passed on unchanged.
    """

    type: str
    raw: bytes
    detail: str | None = None


class UnknownBody(dict[str, Any]):
    """The members of an `UnknownObject`.

    A class of its own because the decoder makes none from JSON: no peer can send something that decodes to an
    `UnknownObject`, only the repair of a server event makes one.
    """


class UnknownObject(msgspec.Struct, frozen=True, tag_field="type", tag=UNKNOWN_TAG):
    """An item, content part, tool or setting, inside an event that we know, whose type is new or whose members do not fit."""

    body: UnknownBody

    @property
    def type(self) -> str:
        """The type that the peer gave it, or "" when it gave none."""
        value = self.body.get("type")
        return value if isinstance(value, str) else ""

    @property
    def id(self) -> str | None:
        """The id that the peer gave it, if any."""
        value = self.body.get("id")
        return value if isinstance(value, str) else None
