"""Real processes, watched until they are dead."""

from __future__ import annotations

import asyncio
import signal
import subprocess

from orchestrator.gateway.processes import Processes


def started(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command)


async def test_a_process_that_ends_is_told_once_and_one_that_is_killed_too() -> None:
    gone: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    processes = Processes(lambda name, pid: gone.put_nowait((name, pid)))
    with started("sleep", "600") as first, started("sleep", "600") as second:
        processes.watch("first", first.pid)
        processes.watch("first", first.pid)
        processes.watch("second", second.pid)
        second.terminate()
        assert await gone.get() == ("second", second.pid)
        processes.kill("second", second.pid)
        processes.kill("first", first.pid)
        assert await gone.get() == ("first", first.pid)
        assert first.wait() == -signal.SIGKILL
    assert gone.empty()
    processes.close()


async def test_one_that_is_gone_already_is_told_soon_and_never_from_inside() -> None:
    gone: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    processes = Processes(lambda name, pid: gone.put_nowait((name, pid)))
    with started("true") as ended:
        ended.wait()
        processes.watch("late", ended.pid)
        assert gone.empty()
        assert await gone.get() == ("late", ended.pid)
    processes.close()


async def test_closed_it_tells_nothing() -> None:
    gone: list[str] = []
    processes = Processes(lambda name, _pid: gone.append(name))
    with started("sleep", "600") as process:
        processes.watch("a", process.pid)
        processes.close()
        process.kill()
        process.wait()
    await asyncio.sleep(0.05)
    assert gone == []
