"""A leg that is made to stand still, in virtual time."""

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
