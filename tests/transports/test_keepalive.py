"""Pings and their answers, to the second."""

from __future__ import annotations

import asyncio

import pytest
from websockets.frames import Opcode

from orchestrator.errors import EndReason
from orchestrator.testing import virtual_clock
from orchestrator.testing.virtual_clock import VirtualClockStalledError
from orchestrator.transports.base import LegOptions
from orchestrator.transports.keepalive import ControlBudget, Keepalive
from orchestrator.transports.memory import memory_pair
from tests.transports.support import Recorder, frame, raw_peer


class Trace:
    """Notes when pings are sent and when the peer is given up; answers as long as it is told to."""

    def __init__(self, interval: float | None, timeout: float | None, *, answers: int = 0, delay: float = 0.0) -> None:
        self.loop = asyncio.get_running_loop()
        self.keepalive = Keepalive(self.loop, interval, timeout, send_ping=self.ping, expire=self.expire)
        self.answers = answers
        self.delay = delay
        self.pings: list[float] = []
        self.expired: list[float] = []

    def ping(self, payload: bytes) -> None:
        self.pings.append(self.loop.time())
        if len(self.pings) <= self.answers:
            self.loop.call_later(self.delay, self.keepalive.pong, payload)

    def expire(self) -> None:
        self.expired.append(self.loop.time())


def test_an_answered_ping_is_followed_by_the_next_one_interval_after_it() -> None:
    async def scenario() -> Trace:
        trace = Trace(20.0, 5.0, answers=3, delay=4.0)
        trace.keepalive.start()
        await asyncio.sleep(1000)
        return trace

    trace = virtual_clock.run(scenario())
    assert trace.pings == [20.0, 40.0, 60.0, 80.0]
    assert trace.expired == [85.0]


def test_an_answer_later_than_the_interval_is_followed_by_a_ping_at_once() -> None:
    async def scenario() -> Trace:
        trace = Trace(10.0, 60.0, answers=1, delay=30.0)
        trace.keepalive.start()
        await asyncio.sleep(45)
        return trace

    assert virtual_clock.run(scenario()).pings == [10.0, 40.0]


def test_only_the_payload_of_the_last_ping_is_an_answer() -> None:
    async def scenario() -> Trace:
        trace = Trace(10.0, 5.0)
        trace.keepalive.start()
        trace.loop.call_at(11.0, trace.keepalive.pong, b"unasked")
        await asyncio.sleep(100)
        return trace

    assert virtual_clock.run(scenario()).expired == [15.0]


def test_without_a_timeout_pings_go_on_unanswered_and_without_an_interval_there_are_none() -> None:
    async def scenario() -> list[list[float]]:
        traces = [Trace(10.0, None), Trace(None, 10.0)]
        for trace in traces:
            trace.keepalive.start()
        await asyncio.sleep(35)
        for trace in traces:
            trace.keepalive.stop()
        await asyncio.sleep(100)
        return [trace.pings + trace.expired for trace in traces]

    assert virtual_clock.run(scenario()) == [[10.0, 20.0, 30.0], []]


def test_the_budget_is_per_second() -> None:
    budget = ControlBudget(3)
    assert [budget.spend(10.0) for _ in range(4)] == [True, True, True, False]
    assert budget.spend(11.0)


def test_a_half_open_peer_is_given_up() -> None:
    async def scenario() -> None:
        recorder, other = Recorder(), Recorder()
        options = LegOptions(ping_interval=20.0, ping_timeout=10.0)
        pair = memory_pair(recorder, other, options=options, server_options=LegOptions(ping_interval=None))
        await asyncio.sleep(65)
        pair.client.send_text(b"still there?")
        await other.until(lambda r: r.texts == [b"still there?"])
        pair.client_line.drop()
        reason = await recorder.ended()
        assert (reason.code, reason.by) == ("keepalive_timeout", "network")
        assert asyncio.get_running_loop().time() == 90.0
        assert pair.client.close_code == 1011

    virtual_clock.run(scenario())


def test_a_peer_that_neither_reads_nor_answers_is_given_up_though_the_socket_is_full() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        options = LegOptions(ping_interval=20.0, ping_timeout=10.0, write_high=0)
        async with raw_peer(recorder, options=options, send_buffer=4096) as (leg, _):
            leg.send_text(bytes(100_000))
            assert (await recorder.ended()).code == "keepalive_timeout"
            assert asyncio.get_running_loop().time() == 30.0

    virtual_clock.run(scenario())


def test_pings_on_the_wire_are_answered_by_their_payload() -> None:
    async def scenario() -> None:
        recorder = Recorder()
        async with raw_peer(recorder, options=LegOptions(ping_interval=20.0, ping_timeout=10.0)) as (_, peer):
            for number in range(1, 4):
                frames = await peer.read_frames(lambda seen, number=number: len(seen) == number)  # type: ignore[misc]
                assert frames[-1].opcode is Opcode.PING
                await peer.send(frame(Opcode.PONG, bytes(frames[-1].data)))
            assert (await recorder.ended()).code == "keepalive_timeout"
            assert asyncio.get_running_loop().time() == 90.0

    virtual_clock.run(scenario())


@pytest.mark.parametrize("how", ["close", "abort", "cut", "error"])
def test_no_timer_is_left_after_the_end(how: str) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def scenario() -> None:
        loops.append(asyncio.get_running_loop())
        recorder, other = Recorder(), Recorder()
        pair = memory_pair(recorder, other)
        if how == "close":
            pair.client.close()
        elif how == "abort":
            pair.client.abort(EndReason("over"))
        elif how == "cut":
            pair.client_line.cut()
        else:
            pair.client_line.write(b"\xff\xff")
        await recorder.ended()
        await other.ended()
        # With no timer left on the loop, this is a wait for nothing, and its clock does not move.
        await asyncio.Event().wait()

    with pytest.raises(VirtualClockStalledError, match="nothing is scheduled"):
        virtual_clock.run(scenario())
    assert loops[0].time() == 0.0
