"""The twin in memory, and that it behaves as a leg on a socket does."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import EndReason
from orchestrator.testing import virtual_clock
from orchestrator.transports.base import Leg, LegOptions, LegState
from orchestrator.transports.memory import memory_pair
from orchestrator.transports.opening import resume
from tests.transports.support import PATIENCE, Recorder, untimed

Kind = Literal["memory", "socket"]

OPTIONS = LegOptions(max_message=200_000, write_high=8192, queue_limit=20_000, ping_interval=None, close_timeout=PATIENCE)


@contextlib.asynccontextmanager
async def joined(kind: Kind, left: Recorder, right: Recorder) -> AsyncIterator[tuple[Leg, Leg]]:
    legs: tuple[Leg, Leg]
    if kind == "memory":
        pair = memory_pair(left, right, options=OPTIONS)
        legs = pair.client, pair.server
    else:
        ours, theirs = socket.socketpair()
        legs = (
            await resume(ours, left, side="client", options=OPTIONS),
            await resume(theirs, right, side="server", options=OPTIONS),
        )
    try:
        yield legs
    finally:
        for leg in legs:
            leg.abort(EndReason("test_over"))
        for leg in legs:
            await leg.wait_closed()


both_kinds = pytest.mark.parametrize("kind", ["memory", "socket"])


@both_kinds
async def test_messages_pass_both_ways_in_order(kind: Kind) -> None:
    left, right = Recorder(), Recorder(lambda leg, data: leg.send_audio(b"re: " + data))
    async with joined(kind, left, right) as (leg, _):
        for number in range(50):
            leg.send_text(b"%d" % number)
        await left.until(lambda r: len(r.texts) == 50)
        assert right.texts == [b"%d" % number for number in range(50)]
        assert left.texts == [b"re: %d" % number for number in range(50)]
        assert leg.statistics().messages_in == leg.statistics().messages_out == 50


@both_kinds
@pytest.mark.parametrize("closer", [0, 1])
async def test_closing_is_heard_by_both_sides(kind: Kind, closer: int) -> None:
    recorders = Recorder(), Recorder()
    async with joined(kind, *recorders) as legs:
        legs[closer].send_text(b"last words")
        legs[closer].close(4321, "good bye")
        assert await recorders[closer].ended() == EndReason("closed_with_code", "4321 good bye", None, "us")
        assert await recorders[1 - closer].ended() == EndReason("closed_with_code", "4321 good bye", None, "peer")
        assert recorders[1 - closer].texts == [b"last words"]
        assert [(leg.state, leg.close_code, leg.close_reason) for leg in legs] == [(LegState.CLOSED, 4321, "good bye")] * 2


@both_kinds
async def test_both_may_close_at_once(kind: Kind) -> None:
    recorders = Recorder(), Recorder()
    async with joined(kind, *recorders) as legs:
        for leg in legs:
            leg.close()
        for recorder in recorders:
            assert await recorder.ended() == EndReason("closed_normally", "", None, "us")


@both_kinds
async def test_an_aborted_connection_is_lost_for_the_other_side(kind: Kind) -> None:
    left, right = Recorder(), Recorder()
    async with joined(kind, left, right) as (leg, _):
        leg.abort(EndReason("shed"))
        assert await left.ended() == EndReason("shed")
        assert (await right.ended()).code == "connection_lost"


@both_kinds
async def test_a_message_over_the_limit_ends_the_leg_on_both_sides(kind: Kind) -> None:
    left, right = Recorder(), Recorder()
    async with joined(kind, left, right) as (leg, other):
        leg.send_text(bytes(OPTIONS.max_message))
        await right.until(lambda r: len(r.texts) == 1)
        leg.send_text(bytes(OPTIONS.max_message + 1))
        assert (await right.ended()).code == "message_too_big"
        reason = await left.ended()
        assert (reason.code, reason.by) == ("message_too_big", "peer")
        assert [len(data) for data in right.texts] == [OPTIONS.max_message]
        assert leg.close_code == other.close_code == 1009


@both_kinds
async def test_a_burst_of_audio_larger_than_the_queue_is_cut_to_it(kind: Kind) -> None:
    left, right = Recorder(), Recorder()
    async with joined(kind, left, right) as (leg, _):
        for number in range(2000):
            leg.send_audio(b"%04d" % number * 100)
        leg.send_text(b"end")
        dropped = leg.statistics().messages_dropped
        await right.until(lambda r: bool(r.texts) and r.texts[-1] == b"end")
        numbers = [int(data[:4]) for data in right.texts[:-1]]
        assert dropped > 0
        assert len(numbers) == 2000 - dropped
        assert numbers == sorted(numbers)
        assert numbers[-1] == 1999


# The hooks.


def test_a_stalled_peer_makes_messages_wait_and_hears_them_later() -> None:
    async def scenario() -> None:
        left, right = Recorder(), Recorder()
        pair = memory_pair(left, right, options=OPTIONS)
        pair.server_line.stall()
        for number in range(10):
            pair.client.send_text(b"%d" % number * 1000)
        await asyncio.sleep(60)
        assert right.texts == []
        assert pair.client.statistics().queued_bytes > 10_000
        pair.server_line.flow()
        await right.until(lambda r: len(r.texts) == 10)
        assert pair.client.statistics().queued_bytes == 0
        pair.client.close()
        await left.ended()

    virtual_clock.run(scenario())


def test_a_stalled_peer_overflows_the_leg() -> None:
    async def scenario() -> None:
        left, right = Recorder(), Recorder()
        pair = memory_pair(left, right, options=OPTIONS)
        pair.server_line.stall()
        for _ in range(100):
            pair.client.send_text(bytes(1000))
        assert (await left.ended()).code == "leg_overflow"
        pair.server_line.flow()
        assert (await right.ended()).code == "connection_lost"

    virtual_clock.run(scenario())


def test_a_cut_connection_is_lost_for_both() -> None:
    async def scenario() -> None:
        left, right = Recorder(), Recorder()
        pair = memory_pair(left, right)
        pair.client.send_text(b"under way")
        pair.server_line.cut()
        for recorder in (left, right):
            reason = await recorder.ended()
            assert (reason.code, reason.cause, reason.by) == ("connection_lost", "ConnectionResetError", "network")
        assert right.texts == []

    virtual_clock.run(scenario())


def test_what_is_dropped_is_lost_and_nobody_is_told() -> None:
    async def scenario() -> None:
        left, right = Recorder(), Recorder()
        pair = memory_pair(left, right, options=LegOptions(ping_interval=None))
        pair.server_line.drop()
        pair.client.send_text(b"lost")
        await asyncio.sleep(1)
        pair.server_line.flow()
        pair.client.send_text(b"heard")
        await right.until(lambda r: r.texts == [b"heard"])
        pair.server.close()
        await left.ended()

    virtual_clock.run(scenario())


@settings(untimed, max_examples=30)
@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 50))
def test_any_segmentation_delivers_the_same_messages(payloads: list[bytes], segment: int) -> None:
    messages = [payload.hex().encode() for payload in payloads]

    async def scenario() -> list[bytes]:
        left, right = Recorder(), Recorder()
        pair = memory_pair(left, right)
        pair.server_line.segment = segment
        for message in messages:
            pair.client.send_text(message)
        pair.client.close()
        await right.ended()
        await left.ended()
        return right.texts

    assert virtual_clock.run(scenario()) == messages
