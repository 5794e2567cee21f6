"""Callers with the stock client of websockets, who notice whatever is missing, doubled, or over."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

__all__ = ["Tally", "regular", "talk"]

# Messages that a caller has sent and not seen answered.
WINDOW = 12


class Tally(msgspec.Struct):
    """What callers have seen, all together."""

    connections: int = 0
    echoes: int = 0
    produced: int = 0
    deaths: int = 0  # connections that ended otherwise than they should
    lost: int = 0
    doubled: int = 0
    faults: int = 0  # what an owner found wrong in a page
    dropped: int = 0  # audio that may be
    largest_gap: float = 0.0  # between two echoes, in seconds
    notes: list[str] = []

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.deaths or self.lost or self.doubled or self.faults)

    def note(self, text: str) -> None:
        """Keep what went wrong, for people."""
        if len(self.notes) < 50:
            self.notes.append(text)


class _Caller:
    """One connection. Sends `count` messages, or until `enough` is set, and says good-bye as `farewell` says."""

    def __init__(self, tally: Tally, seed: int, *, flood: bool, pace: float) -> None:
        self._tally = tally
        self._random = random.Random(seed)
        self._seed = seed
        self._flood = flood
        self._pace = pace
        self._window = asyncio.Semaphore(WINDOW)
        self._echo = 0
        self._produced = 0
        self._sent = 0
        self._answered = asyncio.Event()
        self._last: float | None = None

    async def call(self, port: int, count: int | None, enough: asyncio.Event, *, server_closes: bool) -> None:
        self._tally.connections += 1
        try:
            async with connect(
                f"ws://127.0.0.1:{port}/",
                compression=None,
                ping_interval=0.1,
                ping_timeout=60,
                open_timeout=60,
                close_timeout=60,
            ) as connection:
                reader = asyncio.create_task(self._read(connection))
                try:
                    while not enough.is_set() if count is None else self._sent < count:
                        await self._send(connection)
                    await self._end(connection, server_closes=server_closes)
                finally:
                    await reader
            expected = 4001 if server_closes else 1000
            if connection.close_code != expected:
                self._died(f"closed with {connection.close_code}, not {expected}")
            if self._echo != self._sent:
                self._tally.lost += self._sent - self._echo
                self._tally.note(f"caller {self._seed}: {self._sent - self._echo} echoes missing at the end")
        except (WebSocketException, OSError, TimeoutError, EOFError) as exc:
            self._died(f"{type(exc).__name__}: {exc}")
        except asyncio.CancelledError:
            self._died("it did not come to its end")
            raise

    def _died(self, why: str) -> None:
        self._tally.deaths += 1
        self._tally.note(f"caller {self._seed}: {why}; sent {self._sent}, echoed {self._echo}, heard {self._produced}")

    async def _send(self, connection: ClientConnection) -> None:
        await self._window.acquire()
        size = 100_000 if self._random.random() < 0.01 else self._random.randint(0, 3000)
        await self._speak(connection, "x" * size)
        await asyncio.sleep(self._random.random() * 2 * self._pace)

    async def _speak(self, connection: ClientConnection, body: str) -> None:
        text = f"{self._sent}:{body}"
        self._sent += 1
        if self._random.random() < 0.3:
            await connection.send(self._fragments(connection, text))
        else:
            await connection.send(text)

    async def _fragments(self, connection: ClientConnection, text: str) -> AsyncIterator[str]:
        cuts = sorted(self._random.randint(0, len(text)) for _ in range(self._random.randint(1, 5)))
        for start, stop in zip([0, *cuts], [*cuts, len(text)], strict=True):
            yield text[start:stop]
            if self._random.random() < 0.4:
                await connection.ping()
            if self._random.random() < 0.3:
                await asyncio.sleep(0.002)

    async def _end(self, connection: ClientConnection, *, server_closes: bool) -> None:
        if server_closes:
            await self._speak(connection, ":bye")
        else:
            # A closing client throws away what is still on its way, so wait for all of it first.
            while self._echo < self._sent:
                self._answered.clear()
                await self._answered.wait()
            await connection.close()

    async def _read(self, connection: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for message in connection:
                kind, number, *rest = str(message).split(":", 3)
                if kind == "e":
                    self._heard_echo(int(number), int(rest[0]))
                elif kind == "p":
                    self._heard_produced(int(number))
                else:
                    self._tally.faults += 1
                    self._tally.note(f"caller {self._seed}: {str(message)[:200]}")
        self._answered.set()

    def _heard_echo(self, number: int, counted: int) -> None:
        self._tally.echoes += 1
        now = asyncio.get_running_loop().time()
        if self._last is not None:
            self._tally.largest_gap = max(self._tally.largest_gap, now - self._last)
        self._last = now
        self._compare(number, self._echo, "echo")
        if counted != number:
            self._tally.faults += 1
            self._tally.note(f"caller {self._seed}: message {number} was counted as {counted}")
        self._echo = number + 1
        self._window.release()
        self._answered.set()

    def _heard_produced(self, number: int) -> None:
        self._tally.produced += 1
        if self._flood and number > self._produced:
            self._tally.dropped += number - self._produced
        else:
            self._compare(number, self._produced, "produced")
        self._produced = number + 1

    def _compare(self, number: int, expected: int, what: str) -> None:
        if number < expected:
            self._tally.doubled += 1
        elif number > expected:
            self._tally.lost += number - expected
        if number != expected:
            self._tally.note(f"caller {self._seed}: {what} {number} instead of {expected}")


async def talk(tally: Tally, port: int, seed: int, enough: asyncio.Event, *, flood: bool = False, pace: float = 0.01) -> None:
    """One long call, until `enough`."""
    await _Caller(tally, seed, flood=flood, pace=pace).call(port, None, enough, server_closes=seed % 2 == 0)


async def regular(tally: Tally, port: int, seed: int, enough: asyncio.Event) -> None:
    """Short calls one after the other, until `enough`: beginnings and ends."""
    rng = random.Random(seed)
    while not enough.is_set():
        caller = _Caller(tally, rng.getrandbits(40), flood=False, pace=0.001)
        await caller.call(port, rng.randint(0, 5), enough, server_closes=rng.random() < 0.5)
