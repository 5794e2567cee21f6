"""Calls of a real deployment are journalled, whatever dies beside them."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import ray

from orchestrator.core.items import RealtimeToolCallItem
from orchestrator.journal.items import history_digest
from orchestrator.journal.state import replay
from orchestrator.journal.stores.sql import open_store
from orchestrator.journal.writers import WriterName
from tests.cluster.test_front_door import official, say, spoken_answer
from tests.waiting import until

if TYPE_CHECKING:
    from actors.launch import Cluster
    from orchestrator.journal.entries import Entry

pytestmark = pytest.mark.cluster


def read(directory: Path, session_id: str) -> list[Entry]:
    store = open_store(f"sqlite:///{directory / 'journal.db'}")
    try:
        return store.read(session_id)
    finally:
        store.close()


async def over(directory: Path, session_id: str) -> None:
    async def ended() -> bool:
        found = await asyncio.to_thread(read, directory, session_id)
        return bool(found) and found[-1].kind == "ended"

    await until(ended)


async def test_a_call_is_in_the_journal_with_its_tool_and_its_end(front_desk: Cluster, state_directory: Path) -> None:
    async with official(front_desk) as (connection, session_id):
        await say(connection, "What is two and three?")
        assert (await spoken_answer(connection)).startswith("The sum that you asked for is 5")
    await over(state_directory, session_id)
    journal = read(state_directory, session_id)
    state = replay(session_id, journal)
    assert state.channel == "openai"
    assert state.end is not None
    assert state.end.code == "caller_hung_up"
    (call,) = [item for item in state.history if isinstance(item, RealtimeToolCallItem)]
    assert (call.name, call.output) == ("add", "5")
    assert history_digest(state.history).encode() in journal[-1].body
    writer = WriterName.parse(state.writer)
    assert writer.pid
    assert writer.node in {node["NodeID"] for node in ray.nodes()}


async def test_a_gateway_that_is_killed_loses_no_entry(front_desk: Cluster, state_directory: Path) -> None:
    async with official(front_desk) as (connection, session_id):
        await say(connection, "What is two and three?")
        await spoken_answer(connection)
        snapshot = await asyncio.to_thread(front_desk.snapshot)
        os.kill(snapshot["gateways"][0]["pid"], signal.SIGKILL)
        # The call does not notice; what it writes meanwhile waits for the next gateway.
        await say(connection, "Thank you.")
        await spoken_answer(connection)
    await over(state_directory, session_id)
    journal = read(state_directory, session_id)
    assert [entry.seq for entry in journal] == list(range(1, len(journal) + 1))
    state = replay(session_id, journal)
    assert len(state.history) >= 5
    assert history_digest(state.history).encode() in journal[-1].body
