"""The deadline of callers that were given away."""

from __future__ import annotations

import asyncio

from orchestrator.gateway.hand_over import HandOvers


async def test_only_a_caller_that_is_not_settled_is_reported() -> None:
    silent: asyncio.Queue[str] = asyncio.Queue()
    hand_overs = HandOvers(silent.put_nowait, 0.01)
    for name in "abcd":
        hand_overs.begin(name)
    hand_overs.settle("a")
    hand_overs.settle("a")
    hand_overs.begin("d")
    assert [await silent.get() for _ in range(3)] == ["b", "c", "d"]
    assert len(hand_overs) == 0


async def test_closed_it_reports_nobody() -> None:
    silent: list[str] = []
    hand_overs = HandOvers(silent.append, 0.01)
    hand_overs.begin("a")
    hand_overs.close()
    await asyncio.sleep(0.15)
    assert (silent, len(hand_overs)) == ([], 0)
