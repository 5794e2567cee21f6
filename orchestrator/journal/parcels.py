"""Entries on their way from an actor to its gateway: packed, and cut into parcels that fit into one message of the link."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from orchestrator.errors import JournalFormatError
from orchestrator.journal.entries import Entry

__all__ = ["Unpacker", "parcels", "state_parcels"]

# What one message of the link may carry, with room for its envelope.
PARCEL: int = 60 * 1024
# A batch beyond this is a mistake: an image of a caller is a few MiB at most.
MOST_BYTES: int = 64 * 1024 * 1024

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Entry])


def parcels(entries: Sequence[Entry]) -> Iterator[tuple[bytes, bool]]:
    """Yield the pieces of these entries in order, each with whether more follow."""
    yield from state_parcels(_encoder.encode(entries))


def state_parcels(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield the pieces of something encoded, such as a call's state, in order, each with whether more follow."""
    for start in range(0, len(data), PARCEL):
        yield data[start : start + PARCEL], start + PARCEL < len(data)


class Unpacker:
    """Puts one link's parcels together again."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def take(self, data: bytes, *, more: bool) -> list[Entry]:
        """Take a parcel; returns the entries once they are whole, else none.

        Raises JournalFormatError for what cannot be put together; the sender is then not to be trusted any further.
        """
        self._size += len(data)
        if self._size > MOST_BYTES:
            raise JournalFormatError(f"more than {MOST_BYTES} bytes of entries came at once")
        self._parts.append(data)
        if more:
            return []
        whole = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        try:
            return _decoder.decode(whole)
        except msgspec.MsgspecError as error:
            raise JournalFormatError(f"entries of the node link cannot be read: {type(error).__name__}") from None
