"""The timer that many legs share, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest

from orchestrator.errors import SettingsError
from orchestrator.testing import virtual_clock
from orchestrator.transports.shared_reader import LEGS_PER_TURN, SLOTS, SharedReader

INTERVAL = 0.1


class Leg:
    """Notes when it is read. `then` is called each time; what it returns says whether there is more."""

    def __init__(self, then: Callable[[], bool | None] = lambda: None) -> None:
        self.times: list[float] = []
        self._then = then

    def read(self) -> bool:
        self.times.append(round(asyncio.get_running_loop().time(), 6))
        return bool(self._then())


def test_each_leg_is_read_once_in_an_interval_and_not_all_at_the_same_time() -> None:
    async def scenario() -> None:
        reader = SharedReader(INTERVAL)
        legs = [Leg() for _ in range(3 * SLOTS)]
        for leg in legs:
            reader.add(leg)
            reader.add(leg)
        await asyncio.sleep(1.05)
        assert len(reader) == len(legs)
        for leg in legs:
            assert len(leg.times) in (10, 11)
            gaps = [later - earlier for earlier, later in itertools.pairwise(leg.times)]
            assert all(abs(gap - INTERVAL) < 1e-5 for gap in gaps)
        firsts = [leg.times[0] for leg in legs]
        assert sorted(firsts.count(time) for time in set(firsts)) == [3] * SLOTS
        for leg in legs:
            reader.remove(leg)
            reader.remove(leg)

    virtual_clock.run(scenario())


def test_without_legs_there_is_no_timer() -> None:
    leg = Leg()

    async def scenario() -> None:
        reader = SharedReader(INTERVAL)
        reader.add(leg)
        await asyncio.sleep(0.3)
        reader.remove(leg)
        await asyncio.Event().wait()

    with pytest.raises(virtual_clock.VirtualClockStalledError):
        virtual_clock.run(scenario())
    assert len(leg.times) == 3


def test_a_reader_goes_on_with_another_leg_after_the_last_has_gone() -> None:
    async def scenario() -> None:
        reader = SharedReader(INTERVAL)
        first, second = Leg(), Leg()
        reader.add(first)
        await asyncio.sleep(0.3)
        reader.remove(first)
        await asyncio.sleep(5)
        reader.add(second)
        await asyncio.sleep(0.3)
        assert len(second.times) == 3
        reader.remove(second)

    virtual_clock.run(scenario())


def test_legs_that_go_while_others_are_read_are_not_read() -> None:
    async def scenario() -> None:
        reader = SharedReader(INTERVAL)
        legs: list[Leg] = []

        def all_go() -> None:
            for leg in legs:
                reader.remove(leg)

        legs += [Leg(all_go) for _ in range(2 * SLOTS)]
        for leg in legs:
            reader.add(leg)
        await asyncio.sleep(1)
        assert sum(len(leg.times) for leg in legs) == 1
        assert len(reader) == 0

    virtual_clock.run(scenario())


def test_a_leg_with_more_to_read_is_read_again_at_once_behind_the_others() -> None:
    async def scenario() -> None:
        reader = SharedReader(INTERVAL)
        more = [True, True, False]
        busy, idle = Leg(lambda: more.pop(0) if more else False), Leg()
        legs = [busy, *(Leg() for _ in range(SLOTS - 1)), idle]  # the last shares the slot of the first
        for leg in legs:
            reader.add(leg)
        await asyncio.sleep(INTERVAL - 0.001)
        assert len(busy.times) == 3
        assert len(set(busy.times)) == 1
        assert idle.times == [busy.times[0]]
        for leg in legs:
            reader.remove(leg)

    virtual_clock.run(scenario())


def test_the_loop_gets_a_turn_between_many_legs() -> None:
    async def scenario() -> None:
        reader = SharedReader(INTERVAL)
        read = 0
        most = 0

        def note() -> None:
            nonlocal read
            read += 1

        legs = [Leg(note) for _ in range(3 * LEGS_PER_TURN * SLOTS)]
        for leg in legs:
            reader.add(leg)
        loop = asyncio.get_running_loop()

        def turn(before: int) -> None:
            nonlocal most
            most = max(most, read - before)
            if loop.time() < INTERVAL:
                # Every turn of the loop while it has something to do, then by a timer.
                handle = loop.call_soon if read != before else lambda *call: loop.call_later(0.001, *call)
                handle(turn, read)

        turn(0)
        await asyncio.sleep(INTERVAL + 0.001)
        assert read >= len(legs)
        assert most <= LEGS_PER_TURN
        for leg in legs:
            reader.remove(leg)

    virtual_clock.run(scenario())


def test_a_leg_that_fails_does_not_keep_the_others_from_being_read() -> None:
    async def scenario() -> None:
        faults: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        reader = SharedReader(INTERVAL)

        def fail() -> None:
            raise RuntimeError("a bug")

        legs = [Leg(fail), *(Leg() for _ in range(2 * SLOTS))]
        for leg in legs:
            reader.add(leg)
        await asyncio.sleep(10 * INTERVAL)
        assert len(faults) == len(legs[0].times)
        assert all(len(leg.times) >= 9 for leg in legs)
        for leg in legs:
            reader.remove(leg)

    virtual_clock.run(scenario())


def test_an_interval_is_more_than_nothing() -> None:
    with pytest.raises(SettingsError):
        SharedReader(0)
