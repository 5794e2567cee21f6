"""Which session actor takes the next session. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

__all__ = ["ActorLoad", "choose_actor"]


class ActorLoad(msgspec.Struct, frozen=True):
    """How much an actor holds. `last_given` is the number of the last session that it was given, 0 before the first."""

    actor_id: str
    seats: int
    used: int
    last_given: int = 0


def choose_actor(loads: Iterable[ActorLoad]) -> str | None:
    """Return the least loaded actor that has a free seat, or None.

    So an actor gets a second session only when no empty one is left. Of equal ones, that which has waited longest.
    """
    free = [load for load in loads if load.used < load.seats]
    if not free:
        return None
    return min(free, key=lambda load: (load.used, load.last_given, load.actor_id)).actor_id
