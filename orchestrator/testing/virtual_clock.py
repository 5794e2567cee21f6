"""An asyncio event loop whose time is virtual: when nothing is left to do, it jumps to the next timer at once.

A thirty-second call runs in milliseconds, and always in the same order. Use it in one of two ways::

    virtual_clock.run(scenario())                      # in a plain test or program

    # conftest.py: every asynchronous test below it runs on virtual time
    def pytest_asyncio_loop_factories(config, item):
        return {"virtual": VirtualClockLoop}

What it can and cannot do:

- Time stands still while callbacks run, and `loop.time()` starts at 0. Only sleeping, waiting and timers make it pass.
- While a job runs in an executor (`asyncio.to_thread`, the resolver), time stands still and the loop waits for it in real
  time, so the answer of a thread always comes before the next timer. A job that itself waits for a timer of the loop can
  never end; after `thread_patience` real seconds the loop says so. Threads that the loop did not start are not waited for.
- Sockets are looked at without waiting. That is enough for a `socket.socketpair()` with both ends on this loop, which the
  kernel delivers at once. Use nothing else: while bytes are under way elsewhere, the loop sees nothing to do, and jumps.
- A program in which everybody waits and nothing will ever happen raises VirtualClockStalledError instead of hanging.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["VirtualClockLoop", "VirtualClockStalledError", "run"]

T = TypeVar("T")

# How long one look for a thread's answer waits in real time, before patience is checked again.
_LOOK: Final = 0.25


class VirtualClockStalledError(RuntimeError):
    """Nothing is scheduled and nothing is pending, so the program would wait for ever. Lists the tasks that wait."""


class _VirtualSelector(selectors.BaseSelector):
    """Reports what is ready now; where a real selector would wait, it moves the clock of its loop."""

    def __init__(self, wait: Callable[[float | None], float | None]) -> None:
        self._real = selectors.DefaultSelector()
        # Called when nothing is ready, with the timeout of the loop; returns for how long to look again in real time, or
        # None when the clock has moved instead.
        self._wait = wait

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)
        while not ready and (timeout is None or timeout > 0):
            look = self._wait(timeout)
            if look is None:
                break
            ready = self._real.select(look)
        return ready

    def register(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def modify(self, fileobj: FileDescriptorLike, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.modify(fileobj, events, data)

    def get_key(self, fileobj: FileDescriptorLike) -> selectors.SelectorKey:
        return self._real.get_key(fileobj)

    def get_map(self) -> Mapping[FileDescriptorLike, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """The loop; `thread_patience` is in real seconds. See the module for what it can do."""

    def __init__(self, *, thread_patience: float = 30.0) -> None:
        self._now = 0.0
        self._jobs = 0  # executor jobs under way
        self._waiting_since: float | None = None  # real time since when only jobs could make progress
        self._thread_patience = thread_patience
        super().__init__(_VirtualSelector(self._wait))

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now

    def run_in_executor(  # type: ignore[override]  # the base is typed with a TypeVarTuple, and passes on what it gets
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run a job in a thread or process; time stands still until it is done."""
        future = super().run_in_executor(executor, func, *args)
        self._jobs += 1
        self._waiting_since = None
        future.add_done_callback(self._job_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        """Wait for the threads; time stands still meanwhile."""
        self._jobs += 1
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self._jobs -= 1

    def _job_done(self, _: asyncio.Future[Any]) -> None:
        self._jobs -= 1
        self._waiting_since = None

    def _wait(self, timeout: float | None) -> float | None:
        """Do what a wait of `timeout` virtual seconds means; called only when nothing is ready."""
        if self._jobs:
            now = time.monotonic()
            self._waiting_since = self._waiting_since or now
            if now - self._waiting_since > self._thread_patience:
                patience = self._thread_patience
                raise VirtualClockStalledError(
                    f"a job in a thread has not ended in {patience} real seconds, and time waits for it.{self._stuck()}"
                )
            return _LOOK
        if timeout is None:
            raise VirtualClockStalledError(f"nothing is scheduled and nothing is pending.{self._stuck()}")
        self._now += timeout
        return None

    def _stuck(self) -> str:
        """Say where each task waits."""
        lines = []
        for task in sorted(asyncio.all_tasks(self), key=lambda task: task.get_name()):
            frames = task.get_stack(limit=1)
            where = f"{frames[-1].f_code.co_filename}:{frames[-1].f_lineno}" if frames else "not started"
            lines.append(f"\n  {task.get_name()} waits at {where}")
        return " Tasks:" + "".join(lines) if lines else ""


def run(main: Coroutine[Any, Any, T], *, thread_patience: float = 30.0) -> T:
    """Run a coroutine to its end on a virtual clock, as `asyncio.run` would. Raises VirtualClockStalledError if it waits
    for something that never comes.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualClockLoop(thread_patience=thread_patience)) as runner:
        return runner.run(main)
