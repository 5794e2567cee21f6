"""Time that passes only when nothing else is left to do."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest

from orchestrator.testing.virtual_clock import VirtualClockLoop, VirtualClockStalledError, run


def now() -> float:
    return asyncio.get_running_loop().time()


def test_sleeping_takes_virtual_time_only() -> None:
    async def scenario() -> float:
        await asyncio.sleep(7 * 24 * 3600)
        return now()

    assert run(scenario()) == 7 * 24 * 3600


def test_timers_fire_in_the_order_of_their_times() -> None:
    async def scenario() -> list[tuple[str, float]]:
        seen: list[tuple[str, float]] = []

        async def note(name: str, delay: float) -> None:
            await asyncio.sleep(delay)
            seen.append((name, now()))

        await asyncio.gather(note("c", 30), note("a", 0.02), note("b", 0.04), note("a too", 0.02))
        return seen

    assert run(scenario()) == [("a", 0.02), ("a too", 0.02), ("b", 0.04), ("c", 30.0)]


def test_a_repeated_period_does_not_drift() -> None:
    async def scenario() -> list[float]:
        loop = asyncio.get_running_loop()
        ticks: list[float] = []
        done = loop.create_future()

        def tick() -> None:
            ticks.append(loop.time())
            if len(ticks) == 3000:
                done.set_result(None)
            else:
                loop.call_at(0.02 * (len(ticks) + 1), tick)

        loop.call_at(0.02, tick)
        await done
        return ticks

    ticks = run(scenario())
    assert ticks == pytest.approx([0.02 * number for number in range(1, 3001)], abs=1e-9)


def test_timeouts_work() -> None:
    async def scenario() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        return now()

    assert run(scenario()) == 30.0


def test_time_stands_still_while_a_thread_works() -> None:
    async def scenario() -> list[str]:
        order: list[str] = []
        asyncio.get_running_loop().call_later(0.001, order.append, "timer")

        def work() -> None:
            # Long enough for a loop that did not wait to have jumped to its timer.
            threading.Event().wait(0.05)
            order.append("thread")

        await asyncio.to_thread(work)
        assert now() == 0.0
        await asyncio.sleep(1)
        return order

    assert run(scenario()) == ["thread", "timer"]


def test_threads_side_by_side_are_all_waited_for() -> None:
    async def scenario() -> float:
        barrier = threading.Barrier(3, timeout=20)
        await asyncio.gather(*(asyncio.to_thread(barrier.wait) for _ in range(3)))
        await asyncio.sleep(5)
        return now()

    assert run(scenario()) == 5.0


def test_a_thread_that_fails_or_is_given_up_does_not_stop_the_clock() -> None:
    release = threading.Event()

    async def scenario() -> float:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 / 0)
        job = asyncio.ensure_future(asyncio.to_thread(release.wait, 20))
        await asyncio.sleep(0)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        await asyncio.sleep(5)
        release.set()
        return now()

    assert run(scenario()) == 5.0


def test_a_thread_that_never_ends_is_named() -> None:
    release = threading.Event()

    async def scenario() -> None:
        try:
            await asyncio.to_thread(release.wait, 20)
        finally:
            release.set()

    with pytest.raises(VirtualClockStalledError, match="thread has not ended"):
        run(scenario(), thread_patience=0.01)


def test_waiting_for_what_never_comes_raises_and_says_where() -> None:
    async def wait_for_nothing() -> None:
        await asyncio.Event().wait()

    async def scenario() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_nothing(), name="the one that waits")

    with pytest.raises(VirtualClockStalledError, match="nothing is scheduled") as info:
        run(scenario())
    assert "the one that waits waits at " in str(info.value)
    assert "test_virtual_clock.py:" in str(info.value)


def test_a_reader_that_nobody_writes_to_counts_as_waiting_for_nothing() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            await asyncio.get_running_loop().sock_recv(ours, 1)

    with pytest.raises(VirtualClockStalledError):
        run(scenario())


def test_a_socket_pair_on_the_loop_delivers_before_time_passes() -> None:
    async def scenario() -> float:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.setblocking(False)
            loop = asyncio.get_running_loop()
            for number in range(100):
                loop.call_later(1000, lambda: None)
                receiving = asyncio.ensure_future(loop.sock_recv(theirs, 10))
                await asyncio.sleep(0)
                await loop.sock_sendall(ours, b"%d" % number)
                assert await receiving == b"%d" % number
            return now()

    assert run(scenario()) == 0.0


def test_the_result_and_the_error_of_the_program_come_out() -> None:
    async def fail() -> None:
        await asyncio.sleep(1)
        raise LookupError("its own")

    with pytest.raises(LookupError, match="its own"):
        run(fail())


def test_a_loop_can_be_made_and_closed_by_hand() -> None:
    loop = VirtualClockLoop()
    try:
        assert loop.run_until_complete(asyncio.wait_for(asyncio.sleep(3, "done"), 5)) == "done"
        assert loop.time() == 3.0
    finally:
        loop.close()
