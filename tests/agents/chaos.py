"""An agent whose tools leave a trace of every effect that they have. Imported by the actors of `tests.chaos`."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.tool import function_tool
from orchestrator.tool_context import ToolContext

# Seconds before and after the effect: a process that dies in either must not lead to a second one.
AROUND = 0.1


def _take_effect(ledger: str, tool: str, turn: str, key: str) -> None:
    """Write one line in one piece, whoever else writes at the same time."""
    line = json.dumps({"tool": tool, "key": key, "turn": int(turn), "pid": os.getpid()}) + "\n"
    file = os.open(Path(ledger), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


@function_tool
async def book(context: ToolContext[None], turn: str, ledger: str) -> str:
    """Book something, once and for all: what is booked twice is paid twice."""
    await asyncio.sleep(AROUND)
    _take_effect(ledger, "book", turn, context.idempotency_key)
    await asyncio.sleep(AROUND)
    return f"booked for turn {turn}"


@function_tool(idempotent=True, retries=3)
async def reserve(context: ToolContext[None], turn: str, ledger: str) -> str:
    """Reserve something under the call's key, which may be done again under the same key."""
    await asyncio.sleep(AROUND)
    _take_effect(ledger, "reserve", turn, context.idempotency_key)
    await asyncio.sleep(AROUND)
    return f"reserved for turn {turn}"


agent: RealtimeAgent[None] = RealtimeAgent(
    name="chaos",
    instructions="Answer every turn by its number.",
    tools=[book, reserve],
)
