"""An agent whose tools misbehave in every way that a tool can. Imported by the tool actors of the cluster tests."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.realtime.agent import RealtimeAgent
from orchestrator.run_context import RunContextWrapper
from orchestrator.tool import function_tool


@dataclass
class Account:
    balance: int = 0
    owner: str = "Ada"


def _note(path: str) -> None:
    with Path(path).open("a", encoding="ascii") as file:
        file.write(f"{os.getpid()}\n")


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@function_tool
async def pid() -> int:
    """Say which process this is."""
    return os.getpid()


@function_tool
def fail() -> str:
    """Raise."""
    raise RuntimeError("the secret of the caller")


@function_tool(timeout=0.2)
async def never() -> str:
    """Never end."""
    await asyncio.Event().wait()
    raise AssertionError("never set")


@function_tool(timeout=0.2)
def blocked(fifo: str) -> str:
    """Leave a thread behind that nothing ends: nobody writes to this FIFO."""
    with Path(fifo).open("rb") as file:
        return file.read().decode()


@function_tool
def wait_for_line(fifo: str) -> str:
    """Return the first line that somebody writes to this FIFO."""
    with Path(fifo).open(encoding="ascii") as file:
        return file.readline().strip()


@function_tool
def die(note: str) -> str:
    """Take effect, then end the whole process."""
    _note(note)
    os._exit(3)


@function_tool(idempotent=True, retries=1)
def die_once(note: str) -> str:
    """End the whole process on the first try only."""
    first = not Path(note).exists()
    _note(note)
    if first:
        os._exit(3)
    return "done"


@function_tool
async def cancelled(note: str, fifo: str) -> str:
    """Say so in a file when the call is cancelled; open the FIFO to tell that it has begun."""
    try:
        await asyncio.to_thread(Path(fifo).write_text, "begun\n")
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        _note(note)
        raise
    raise AssertionError("never set")


@function_tool
def deposit(context: RunContextWrapper[Account], amount: int) -> str:
    """Change the caller's account."""
    context.context.balance += amount
    return f"{context.context.owner} has {context.context.balance}"


@function_tool(pool="other")
async def elsewhere() -> int:
    """Run in another pool."""
    return os.getpid()


agent: RealtimeAgent[Account] = RealtimeAgent(
    name="clumsy",
    instructions="You are a test.",
    tools=[add, pid, fail, never, blocked, wait_for_line, die, die_once, cancelled, deposit, elsewhere],
)
