"""Keeps callers' sockets and pages, as a gateway does, and gives them to a fresh owner whenever the last one was killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec

from orchestrator.transports.session_page import SessionPage
from tests.survival.owner import OPTIONS, Born, Caller, Dying, Ended, Life

__all__ = ["Keeper"]

ROOT = Path(__file__).parents[2]

# What may wait for a caller who does not read: for those who must get everything, and for those with audio that may be dropped.
PLENTY = 4 * 1024 * 1024
LITTLE = 128 * 1024


class Keeper:
    """Listens on `ports`, and keeps one owner alive at a time. Use it as an asynchronous context manager.

    Callers of the first port get everything; those of the second get audio that may be dropped. `kill` kills the owner from
    outside; with `inject` each owner chooses a place in the code where it kills itself.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._callers: dict[int, tuple[socket.socket, SessionPage, Caller]] = {}
        self._count = 0
        self._changed = asyncio.Event()
        self._listeners = [socket.create_server(("127.0.0.1", 0), backlog=256) for _ in range(2)]
        for listener in self._listeners:
            # A kernel that takes little at once takes many frames in part; accepted sockets inherit it.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16 * 1024)
        self._accepting: set[asyncio.Task[None]] = set()
        self._owner: int | None = None
        self.ports = [int(listener.getsockname()[1]) for listener in self._listeners]
        self.inject = False
        self.deaths = 0
        self.held = 0  # callers that an owner had when it died, summed over all deaths
        self.places: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._start_fork_server()
        for listener, flood in zip(self._listeners, (False, True), strict=True):
            listener.setblocking(False)
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, flood)
        self._start_owner()
        return self

    async def __aexit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.remove_reader(listener)
            listener.close()
        for task in tuple(self._accepting):
            task.cancel()
        loop.remove_reader(self._link)
        self._link.close()
        self._control.close()
        for number in tuple(self._callers):
            self._forget(number)
        await loop.run_in_executor(None, self._server.wait)

    async def kill(self) -> None:
        """Kill the owner, whatever it is doing; return when its successor has begun."""
        deaths = self.deaths
        await self._until(lambda: self._owner is not None)
        assert self._owner is not None
        os.kill(self._owner, signal.SIGKILL)
        await self.died(deaths + 1)

    async def died(self, deaths: int) -> None:
        """Wait until so many owners have died."""
        await self._until(lambda: self.deaths >= deaths)

    async def empty(self) -> None:
        """Wait until no caller is left."""
        await self._until(lambda: not self._callers)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _start_fork_server(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.survival.owner", str(theirs.fileno())]
            self._server = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])

    def _start_owner(self) -> None:
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * 1024 * 1024)
        self._owner = None
        life = Life(self._random.getrandbits(60) if self.inject else None)
        with theirs:
            socket.send_fds(self._control, [msgspec.msgpack.encode(life)], [theirs.fileno()])
        # In any order: an owner that dies early does so over other callers each time.
        for number in self._random.sample(sorted(self._callers), len(self._callers)):
            self._give(number)
        asyncio.get_running_loop().add_reader(self._link, self._read)

    def _read(self) -> None:
        try:
            data = self._link.recv(65536)
        except ConnectionResetError:
            # It died with callers unread; what it said before is still to come, and then the end.
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._link)
            self._link.close()
            self.deaths += 1
            self.held += len(self._callers)
            self._start_owner()
        else:
            message = msgspec.msgpack.decode(data, type=Born | Dying | Ended)
            if isinstance(message, Born):
                self._owner = message.pid
            elif isinstance(message, Dying):
                self.places[message.where] += 1
            else:
                self.reasons[message.reason] += 1
                self._forget(message.number)
        self._changed.set()

    def _accept(self, listener: socket.socket, flood: bool) -> None:
        sock, _ = listener.accept()
        task = asyncio.get_running_loop().create_task(self._welcome(sock, flood))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    async def _welcome(self, sock: socket.socket, flood: bool) -> None:
        """Read what is there of the head, as a gateway does, and give the caller to the owner."""
        sock.setblocking(False)
        head = await asyncio.get_running_loop().sock_recv(sock, self._random.choice([1, 40, 4096]))
        page = SessionPage.create(
            max_message=OPTIONS.max_message,
            outbound_bytes=LITTLE if flood else PLENTY,
            audio_bytes=8 * 1024,
            snapshot_bytes=256,
        )
        self._count += 1
        self._callers[self._count] = (sock, page, Caller(self._count, head, flood))
        self._give(self._count)

    def _give(self, number: int) -> None:
        sock, page, caller = self._callers[number]
        try:
            socket.send_fds(self._link, [msgspec.msgpack.encode(caller)], [sock.fileno(), page.fileno()])
        except (BrokenPipeError, ConnectionResetError):
            return  # It has died, and its successor will be given all callers.

    def _forget(self, number: int) -> None:
        entry = self._callers.pop(number, None)
        if entry is not None:
            entry[0].close()
            entry[1].close()
