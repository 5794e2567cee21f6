"""A network that is unkind to streams: a TCP proxy that splits what callers send, and stalls what they are sent."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from typing import Self

__all__ = ["Chopper"]


class Chopper:
    """Listens on `port`, and passes on to another. Use it as an asynchronous context manager."""

    def __init__(self, to_port: int, seed: int) -> None:
        self._to_port = to_port
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])

    async def __aenter__(self) -> Self:
        self._listener.setblocking(False)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        task = asyncio.get_running_loop().create_task(self._join(near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _join(self, near: socket.socket) -> None:
        far = socket.socket()
        with near, far:
            # Little fits on the way, so that a reply is often with the kernel in part.
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * 1024)
            for sock in (near, far):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(far, ("127.0.0.1", self._to_port))
            # The end of one stream does not end the other.
            await asyncio.gather(
                self._pass_on(near, far, piece=3000, pause=0.003, often=0.1),
                self._pass_on(far, near, piece=16384, pause=0.12, often=0.3),
            )

    async def _pass_on(self, source: socket.socket, sink: socket.socket, *, piece: int, pause: float, often: float) -> None:
        """Pass on in pieces of random size up to `piece`, with a pause of up to `pause` seconds after some."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while data := await loop.sock_recv(source, 16384):
                while data:
                    size = self._random.randint(1, piece)
                    await loop.sock_sendall(sink, data[:size])
                    data = data[size:]
                    if self._random.random() < often:
                        await asyncio.sleep(self._random.random() * pause)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
