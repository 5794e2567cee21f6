"""A leg that is made to stand still, or that is read at intervals, in virtual time."""

from __future__ import annotations

import asyncio

from orchestrator.testing import virtual_clock
from orchestrator.transports.base import LegOptions, LegState
from orchestrator.transports.memory import memory_pair
from orchestrator.transports.websocket import WebSocketLeg
from tests.transports.support import Recorder


def test_a_stalled_leg_sends_and_reads_nothing_and_loses_nothing() -> None:
    async def scenario() -> None:
        left, right = Recorder(), Recorder()
        client, server = memory_pair(left, right, options=LegOptions(ping_interval=20, ping_timeout=20))
        assert isinstance(server, WebSocketLeg)
        server.stall(sending=True, receiving=True)
        server.send_text(b"from the one that hangs")
        client.send_text(b"to the one that hangs")
        await asyncio.sleep(30)
        assert (left.texts, right.texts) == ([], [])
        assert server.statistics().queued_bytes > 0
        server.stall(sending=False, receiving=False)
        await asyncio.sleep(0.1)
        assert (left.texts, right.texts) == ([b"from the one that hangs"], [b"to the one that hangs"])
        await asyncio.sleep(300)
        assert client.state is server.state is LegState.OPEN, "the keepalive works again, on both sides"
        client.close()
        await asyncio.gather(client.wait_closed(), server.wait_closed())
        server.stall(sending=True, receiving=True)

    virtual_clock.run(scenario())


def test_a_leg_that_hangs_ends_at_the_deadline_of_its_own_close() -> None:
    async def scenario() -> None:
        left, right = Recorder(), Recorder()
        client, server = memory_pair(left, right, options=LegOptions(ping_interval=None, close_timeout=3))
        assert isinstance(server, WebSocketLeg)
        server.stall(sending=True, receiving=True)
        server.close(1001)
        assert (await right.ended()).code == "going_away"
        assert asyncio.get_running_loop().time() == 3
        assert (await left.ended()).code == "connection_lost"
        assert client.close_code == 1006

    virtual_clock.run(scenario())


def test_a_stall_in_one_direction_leaves_the_other() -> None:
    async def scenario() -> None:
        left, right = Recorder(), Recorder()
        client, server = memory_pair(left, right, options=LegOptions(ping_interval=None))
        assert isinstance(server, WebSocketLeg)
        server.stall(sending=False, receiving=True)
        server.send_text(b"1")
        client.send_text(b"2")
        await asyncio.sleep(1)
        assert (left.texts, right.texts) == ([b"1"], [])
        server.stall(sending=True, receiving=False)
        server.send_text(b"3")
        await asyncio.sleep(1)
        assert (left.texts, right.texts) == ([b"1"], [b"2"])
        client.close()
        await asyncio.gather(client.wait_closed(), server.wait_closed())

    virtual_clock.run(scenario())


def test_with_a_read_interval_messages_are_late_and_whole() -> None:
    async def scenario() -> None:
        times: list[float] = []
        left, right = Recorder(), Recorder(lambda *_: times.append(asyncio.get_running_loop().time()))
        server_options = LegOptions(ping_interval=None, read_interval=0.1)
        client, _ = memory_pair(left, right, options=LegOptions(ping_interval=None), server_options=server_options)
        for number in range(10):
            client.send_text(b"%d" % number)
            await asyncio.sleep(0.02)
        await right.until(lambda seen: len(seen.texts) == 10)
        assert right.texts == [b"%d" % number for number in range(10)]
        assert times[0] == 0
        assert {round(time, 6) for time in times[1:]} == {0.1, 0.2}
        client.close()
        await asyncio.gather(left.ended(), right.ended())
        assert asyncio.get_running_loop().time() < 1, "the close handshake does not wait for its deadline"

    virtual_clock.run(scenario())


def test_our_own_close_does_not_wait_for_the_read_interval() -> None:
    async def scenario() -> None:
        left, right = Recorder(), Recorder()
        server_options = LegOptions(ping_interval=None, read_interval=4.0)
        client, server = memory_pair(left, right, options=LegOptions(ping_interval=None), server_options=server_options)
        client.send_text(b"x")
        await right.until(lambda seen: bool(seen.texts))
        server.close()
        await asyncio.gather(left.ended(), right.ended())
        assert asyncio.get_running_loop().time() < 1

    virtual_clock.run(scenario())
