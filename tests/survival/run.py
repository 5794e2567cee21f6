"""A run: some callers, one keeper, many deaths."""

from __future__ import annotations

import asyncio
import contextlib
import random

import msgspec

from tests.survival.chopper import Chopper
from tests.survival.clients import Tally, regular, talk
from tests.survival.keeper import Keeper

__all__ = ["Result", "run"]


class Result(msgspec.Struct):
    """What a run led to."""

    kills: int
    held: int
    direct: Tally
    chopped: Tally
    short: Tally
    places: dict[str, int]
    ends: dict[str, int]

    @property
    def clean(self) -> bool:
        """Whether no caller noticed anything."""
        return self.direct.clean and self.chopped.clean and self.short.clean

    @property
    def notes(self) -> list[str]:
        """What went wrong."""
        return self.direct.notes + self.chopped.notes + self.short.notes


async def run(*, kills: int, injected: bool, seed: int, callers: int = 4) -> Result:
    """Kill owners until `kills` have died, `callers` long calls direct, as many chopped, and short ones beside them.

    `injected` deaths are at a line of the code that the owner chooses, the others at a random moment. Returns when every caller
    has had its last answer and its close handshake.
    """
    rng = random.Random(seed)
    direct, chopped, short = Tally(), Tally(), Tally()
    enough = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        keeper = await stack.enter_async_context(Keeper(rng.getrandbits(40)))
        slow = [await stack.enter_async_context(Chopper(port, rng.getrandbits(40))) for port in keeper.ports]
        calls = [
            talk(tally, ports[number % 4 == 3], rng.getrandbits(40) * 2 + number % 2, enough, flood=number % 4 == 3)
            for tally, ports in ((direct, keeper.ports), (chopped, [proxy.port for proxy in slow]))
            for number in range(callers)
        ]
        calls += [regular(short, port, rng.getrandbits(40), enough) for port in (*[keeper.ports[0]] * 3, slow[0].port)]
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.sleep(0.3)
        if injected:
            # The first owner has not been told so; it makes room for one that has.
            keeper.inject = True
            await keeper.kill()
            await keeper.died(kills)
            keeper.inject = False
            await keeper.kill()
        else:
            while keeper.deaths < kills:
                await asyncio.sleep(rng.random() * 0.06)
                await keeper.kill()
        enough.set()
        # Whoever has not come to its end by then is waiting for something that was lost.
        _, hanging = await asyncio.wait(tasks, timeout=60)
        for task in hanging:
            task.cancel()
        await asyncio.wait(tasks)
        if not hanging:
            async with asyncio.timeout(60):
                await keeper.empty()
        return Result(keeper.deaths, keeper.held, direct, chopped, short, dict(keeper.places), dict(keeper.reasons))
