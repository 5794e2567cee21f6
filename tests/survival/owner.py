"""A process that owns caller legs over session pages, and is killed: `python -m tests.survival.owner LINK`.

It is a fork server: every message on its link brings the keeper's end of a child's own link, and a child is forked for it. So a
fresh owner costs milliseconds. The children are given callers (socket and page), accept or resume their legs, echo numbered
messages and produce numbered ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from types import CodeType, FrameType, ModuleType
from typing import Any, Final

import msgspec
import uvloop

from orchestrator.errors import EndReason, LegClosedError
from orchestrator.transports import (
    base,
    opening,
    outbound,
    page_audio,
    page_layout,
    receive_buffer,
    server_leg,
    session_page,
    surviving_buffer,
    surviving_leg,
    surviving_writer,
    tcp_counters,
    websocket,
)
from orchestrator.transports.session_page import SessionPage
from orchestrator.transports.surviving_leg import SurvivingLeg

__all__ = ["OPTIONS", "Born", "Caller", "Dying", "Ended", "Life"]

# The transport is full early, so that frames wait in the queue.
OPTIONS: Final = base.LegOptions(max_message=128 * 1024, ping_interval=0.2, ping_timeout=20.0, write_high=8 * 1024)
# What a reply has beside its numbers, so that the kernel often takes a part of it.
PADDING: Final = b"." * 6000
PRODUCE_EVERY: Final = 0.005
# In a session that has to keep everything, nothing more is produced while so much waits.
ENOUGH_WAITS: Final = 100_000

# The code in which a child is killed at a line of its choice, or after so many lines.
INJECTED: Final = (
    *(opening, outbound, page_audio, page_layout, receive_buffer, server_leg, session_page),
    *(surviving_buffer, surviving_leg, surviving_writer, tcp_counters, websocket),
)
MOST_LINES: Final = 30_000


class Life(msgspec.Struct):
    """What a child is told at its birth: `seed` chooses where it kills itself; without one it does not."""

    seed: int | None = None


class Caller(msgspec.Struct):
    """What the keeper sends with socket and page of a caller."""

    number: int
    head: bytes
    flood: bool


class Born(msgspec.Struct, tag=True):
    """A child lives."""

    pid: int


class Ended(msgspec.Struct, tag=True):
    """The leg of a caller is over."""

    number: int
    reason: str


class Dying(msgspec.Struct, tag=True):
    """Where a child is about to kill itself."""

    where: str


class Session:
    """Echoes what comes, and counts in the snapshot; produces beside that. Says so when the page contradicts itself."""

    def __init__(self, page: SessionPage, caller: Caller, ended: Callable[[int, str], None]) -> None:
        self._page = page
        self._caller = caller
        self._ended = ended
        self._leg: SurvivingLeg | None = None
        saved = page.saved.split(b",") if page.saved else [b"0", b"0"]
        self._received, self._produced = int(saved[0]), int(saved[1])
        self._timer: asyncio.TimerHandle | None = None

    def on_open(self, leg: Any) -> None:
        self._leg = leg
        if self._page.audio.end != self._received:
            leg.send_text(b"f:audio %d, snapshot %d" % (self._page.audio.end, self._received))
        self._timer = asyncio.get_running_loop().call_later(PRODUCE_EVERY, self._produce)

    def on_text(self, data: bytes) -> None:
        leg, page = self._leg, self._page
        assert leg is not None
        number = int(data.split(b":", 1)[0])
        self._received += 1
        page.audio.push(f"audio {number}")
        last = list(page.audio.payloads(number - 1))
        if last != [f"audio {n}" for n in range(max(0, number - 1), number + 1)]:
            leg.send_text(b"f:audio " + repr(last).encode())
        if number % 7 == 0:
            page.audio.drop_before(number - 10)
        if self._caller.flood and number % 5 == 0:
            leg.clear_audio()
        self._save()
        leg.send_text(b"e:%d:%d:" % (number, self._received - 1) + PADDING)
        if data.endswith(b":bye"):
            leg.close(4001, "bye")

    def on_binary(self, data: bytes) -> None:
        raise AssertionError("nobody sends binary messages")

    def on_closed(self, reason: EndReason) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._ended(self._caller.number, reason.code)
        self._page.close()

    def _produce(self) -> None:
        leg = self._leg
        assert leg is not None
        self._timer = asyncio.get_running_loop().call_later(PRODUCE_EVERY, self._produce)
        self._page.beat()
        if self._caller.flood or leg.statistics().queued_bytes < ENOUGH_WAITS:
            with leg.as_one():
                self._produced += 1
                self._save()
                send = leg.send_audio if self._caller.flood else leg.send_text
                send(b"p:%d:" % (self._produced - 1) + PADDING[: 400 * (self._produced % 7)])

    def _save(self) -> None:
        self._page.save(b"%d,%d" % (self._received, self._produced))


class Owner:
    """One child: takes callers from its link until it is killed, or the link ends."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._tasks: set[asyncio.Task[None]] = set()
        self._over = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(link, self._read)

    async def run(self) -> None:
        await self._over

    def _read(self) -> None:
        data, fds, _, _ = socket.recv_fds(self._link, 65536, 2)
        if not data:
            asyncio.get_running_loop().remove_reader(self._link)
            self._over.set_result(None)
            return
        caller = msgspec.msgpack.decode(data, type=Caller)
        task = asyncio.get_running_loop().create_task(self._take(caller, *fds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, caller: Caller, socket_fd: int, page_fd: int) -> None:
        sock = socket.socket(fileno=socket_fd)
        sock.setblocking(False)
        page = SessionPage.open(page_fd)
        session = Session(page, caller, self._ended)
        try:
            if page.opened:
                await opening.resume(sock, session, side="server", options=OPTIONS, page=page)
            else:
                await opening.accept(sock, caller.head, session, options=OPTIONS, page=page)
        except LegClosedError as exc:
            self._ended(caller.number, exc.reason.code)

    def _ended(self, number: int, reason: str) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._link.send(msgspec.msgpack.encode(Ended(number, reason)))


class Assassin:
    """Kills its own process at one line of the traced code, which may be any that is run."""

    def __init__(self, link: socket.socket, seed: int) -> None:
        self._link = link
        rng = random.Random(seed)
        code, line = rng.choice(_lines())
        self._line = (code, line) if rng.random() < 0.6 else None
        self._passes = 1 + int(rng.expovariate(0.7))
        self._lines = 1 + int(rng.random() ** 2 * MOST_LINES)

    def trace(self, frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code not in _codes():
            return None
        if event == "line":
            self._lines -= 1
            if self._line == (frame.f_code, frame.f_lineno):
                self._passes -= 1
            if not self._lines or not self._passes:
                where = f"{os.path.basename(frame.f_code.co_filename)} {frame.f_code.co_qualname} {frame.f_lineno}"  # noqa: PTH119
                self._link.send(msgspec.msgpack.encode(Dying(where)))
                os.kill(os.getpid(), signal.SIGKILL)
        return self.trace


@functools.cache
def _codes() -> frozenset[CodeType]:
    found: set[CodeType] = set()

    def collect(code: CodeType) -> None:
        found.add(code)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                collect(constant)

    def look(thing: Any, module: ModuleType) -> None:
        for value in vars(thing).values():
            function = getattr(value, "fget", None) or getattr(value, "__wrapped__", None) or getattr(value, "__func__", value)
            if isinstance(value, type) and value.__module__ == module.__name__ and value is not thing:
                look(value, module)
            elif isinstance(getattr(function, "__code__", None), CodeType) and function.__module__ == module.__name__:
                collect(function.__code__)

    for module in (*INJECTED, sys.modules[Session.__module__]):
        look(module, module)
    return frozenset(found - {Assassin.trace.__code__})


@functools.cache
def _lines() -> tuple[tuple[CodeType, int], ...]:
    return tuple(sorted({(code, line) for code in _codes() for _, _, line in code.co_lines() if line}, key=str))


def live(link: socket.socket, life: Life) -> None:
    link.send(msgspec.msgpack.encode(Born(os.getpid())))
    if life.seed is not None:
        sys.settrace(Assassin(link, life.seed).trace)
    link.setblocking(False)

    async def run() -> None:
        await Owner(link).run()

    uvloop.run(run())


def main() -> None:
    # Unread bytes are copied to the front of their area long before its end, which a short call would never reach.
    vars(surviving_buffer)["MIN_ROOM"] = 700_000
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _lines()
    while True:
        data, fds, _, _ = socket.recv_fds(control, 65536, 1)
        if not data:
            return
        if os.fork() == 0:
            control.close()
            live(socket.socket(fileno=fds[0]), msgspec.msgpack.decode(data, type=Life))
            os._exit(0)
        os.close(fds[0])


if __name__ == "__main__":
    main()
