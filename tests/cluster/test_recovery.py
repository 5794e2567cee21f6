"""The processes under a call die one after the other, and the caller is still in the same conversation."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator.core.items import AssistantMessageItem, RealtimeToolCallItem, UserMessageItem
from orchestrator.journal.items import history_digest
from orchestrator.journal.state import replay
from tests.cluster.test_front_door import official, say, spoken_answer
from tests.cluster.test_journal import over, read
from tests.waiting import until

if TYPE_CHECKING:
    from actors.launch import Cluster

pytestmark = pytest.mark.cluster


async def owner_pid(cluster: Cluster, session_id: str, former: list[int]) -> int:
    """Return the process that has the session, once somebody new has it."""
    found: list[int] = []

    async def known() -> bool:
        snapshot = await asyncio.to_thread(cluster.snapshot)
        found[:] = [
            place["pid"]
            for place in snapshot["sessions"]
            if place["session"]["session_id"] == session_id
            and place["session"]["state"] == "live"
            and place["pid"] not in (0, *former)
        ]
        return bool(found)

    await until(known)
    return found[0]


async def test_a_caller_outlives_the_processes_that_serve_it(front_desk: Cluster, state_directory: Path) -> None:
    async with official(front_desk) as (connection, session_id):
        await say(connection, "What is two and three?")
        assert (await spoken_answer(connection)).startswith("The sum that you asked for is 5")
        owners: list[int] = []
        for _ in range(3):
            owners.append(await owner_pid(front_desk, session_id, owners))
            os.kill(owners[-1], signal.SIGKILL)
            await say(connection, "Are you there?")
            assert await spoken_answer(connection) == "I am still here."
    await over(state_directory, session_id)
    journal = read(state_directory, session_id)
    assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))
    assert [entry.epoch for entry in journal if entry.kind == "taken_over"] == [2, 3, 4]
    state = replay(session_id, journal)
    assert history_digest(state.history).encode() in journal[-1].body
    said = [item for item in state.history if isinstance(item, UserMessageItem)]
    assert len(said) == 4
    assert len([item for item in state.history if isinstance(item, RealtimeToolCallItem)]) == 1
    answers = [item for item in state.history if isinstance(item, AssistantMessageItem) and item.status == "completed"]
    assert len(answers) == 4
