"""Callers that were given away: answered in time, refused, or left in silence."""

from __future__ import annotations

import asyncio
import socket

from orchestrator.gateway.hand_over import HandOvers
from orchestrator.http_server.answers import Refusal

REFUSAL = Refusal(status=503, code="no", message="no")


async def test_only_a_caller_that_is_not_settled_is_reported() -> None:
    silent: asyncio.Queue[str] = asyncio.Queue()
    hand_overs = HandOvers(silent.put_nowait, 0.01)
    pairs = [socket.socketpair() for _ in range(3)]
    for name, (ours, _) in zip("abc", pairs, strict=True):
        hand_overs.begin(name, ours.dup())
    hand_overs.settle("a")
    hand_overs.settle("a")
    assert [await silent.get(), await silent.get()] == ["b", "c"]
    hand_overs.refuse("b", REFUSAL)
    hand_overs.refuse("b", REFUSAL)
    assert len(hand_overs) == 1
    hand_overs.close()
    assert len(hand_overs) == 0
    # The one that is refused hears why and is gone, although another descriptor of its socket is open; the others go on.
    assert pairs[1][1].recv(1000).startswith(b"HTTP/1.1 503 ")
    assert pairs[1][1].recv(1) == b""
    for ours, theirs in (pairs[0], pairs[2]):
        ours.send(b"x")
        assert theirs.recv(1) == b"x"
    for ours, theirs in pairs:
        ours.close()
        theirs.close()


async def test_a_caller_that_has_left_is_refused_in_vain() -> None:
    hand_overs = HandOvers(lambda _: None)
    ours, theirs = socket.socketpair()
    hand_overs.begin("a", ours)
    theirs.close()
    hand_overs.refuse("a", REFUSAL)
    assert ours.fileno() == -1
