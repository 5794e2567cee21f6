"""A small WebSocket server of legs, for what runs beside the product: the offline endpoint, tests, benchmarks.

The gateway does not use it: it hands accepted sockets to session actors, which call `accept`. The sockets here have no
duplicates in other processes, so their legs end them by closing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Self

from websockets.http11 import Request

from orchestrator.errors import EndReason
from orchestrator.transports.base import DEFAULT_OPTIONS, LegOptions, LegState
from orchestrator.transports.server_leg import Accept, Refuse, Route, ServerLeg

__all__ = ["LegServer", "serve"]


class LegServer:
    """A listening server; use it as an asynchronous context manager, made by `serve`.

    Leaving the block closes the listener, then every leg with 1001, and waits until all have ended, a second longer
    than `close_timeout` at most. No task is kept: the legs run on callbacks.
    """

    def __init__(self, route: Route, host: str, port: int, options: LegOptions, max_legs: int) -> None:
        self._route = route
        self._host = host
        self._wanted_port = port
        self._options = options
        self._max_legs = max_legs
        self._legs: set[ServerLeg] = set()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The port that it listens on; 0 while it does not."""
        if self._server is None or not self._server.sockets:
            return 0
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def legs(self) -> int:
        """How many connections there are, unfinished upgrades included."""
        return len(self._legs)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._make_leg, self._host, self._wanted_port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        # A leg whose socket broke before it was connected never ends; all others do within close_timeout.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._options.close_timeout + 1):
                while legs := list(self._legs):
                    for leg in legs:
                        if leg.state is LegState.OPEN:
                            leg.close(1001, "the server is going away")
                        elif leg.state is LegState.CONNECTING:
                            leg.abort(EndReason("going_away", "the server is going away"))
                    await asyncio.gather(*(leg.wait_closed() for leg in legs))
        self._server = None

    def _make_leg(self) -> ServerLeg:
        route = self._route if len(self._legs) < self._max_legs else _full
        leg = ServerLeg(route, options=self._options, loop=asyncio.get_running_loop(), sock=None)
        self._legs.add(leg)
        leg.when_closed(functools.partial(self._legs.discard, leg))
        return leg


def serve(
    route: Route,
    host: str = "127.0.0.1",
    port: int = 0,
    options: LegOptions = DEFAULT_OPTIONS,
    *,
    max_legs: int = 1024,
) -> LegServer:
    """Make a server: `async with serve(route) as server: server.port`.

    `route` decides about each request; its listener gets the leg through `on_open`. Port 0 takes a free one. Above
    `max_legs` connections, requests are answered with 503. Entering raises OSError if the port cannot be bound.
    """
    return LegServer(route, host, port, options, max_legs)


def _full(_: Request) -> Accept | Refuse:
    return Refuse(503, (("Retry-After", "1"),), b"too many connections\n")
