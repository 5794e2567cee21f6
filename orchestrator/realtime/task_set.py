"""The tasks of a session, with one owner that cancels and awaits them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["TaskSet"]


class TaskSet:
    """Tasks that end with their session. `on_fault` hears of an exception that a task did not handle."""

    def __init__(self, on_fault: Callable[[BaseException], None]) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_fault = on_fault
        self._closed = False

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Start a task; nothing happens once the set is closed."""
        if self._closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    async def aclose(self, grace: float) -> None:
        """Cancel all tasks but the one that calls this, and wait for them up to `grace` seconds."""
        self._closed = True
        tasks = {task for task in self._tasks if task is not asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=grace)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fault(error)
