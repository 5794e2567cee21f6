"""The tasks of a session, with one owner that cancels and awaits them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from orchestrator.telemetry.logs import get_logger

__all__ = ["TaskSet"]

_log = get_logger()


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
        """Cancel all tasks and wait for them up to `grace` seconds. Not to be called by one of them."""
        self._closed = True
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, left = await asyncio.wait(tasks, timeout=grace)
            if left:
                _log.warning("tasks_outlive_session", tasks=sorted(task.get_name() for task in left))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_fault(error)
