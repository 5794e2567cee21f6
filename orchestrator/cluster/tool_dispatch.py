"""Chooses where a tool call runs, bounds it, and says what became of it when the place is lost.

Free of Ray: a place is anything with `run` and `ping`. A call that was not answered in time is never a sign of life or death:
a place whose call was lost gets no further call until it has answered a ping.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol, TypeVar

import msgspec

from orchestrator.errors import ToolLostError
from orchestrator.telemetry.logs import get_logger
from orchestrator.tool import FunctionTool
from orchestrator.tool_runner import ToolReply, ToolRequest

__all__ = ["NOT_STARTED", "PlaceLost", "ToolDispatcher", "ToolPlace"]

# A place that wants no more calls answers with this code: the call was not started and may go elsewhere.
NOT_STARTED = "tool_not_started"

# What the answer may take beyond the tool's own timeout: turning an error into text, and two process boundaries.
GRACE = 3.0
# Calls that one dispatcher has out at once, those that wait for a place included.
MAX_OUTSTANDING = 256
# How long a call waits for any place of its pool to come back; a restarted actor answers after about one second.
WAIT_FOR_PLACE = 8.0
PING_TIMEOUT = 2.0
PING_INTERVAL = 0.25
DEFAULT_TIMEOUT = 30.0

T = TypeVar("T")
_log = get_logger()
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ToolReply)


class PlaceLost(Exception):
    """The place died, or cannot be reached; whether it ran what it was given is unknown."""


class ToolPlace(Protocol):
    """One process that runs tools."""

    @property
    def name(self) -> str:
        """The name, for logs."""

    async def run(self, request: str) -> str:
        """Run one `ToolRequest` and return a `ToolReply`, both JSON. Raises PlaceLost. Cancelling it cancels the call."""

    async def ping(self) -> int:
        """Return the pid of the place if it takes calls now. Raises PlaceLost if it does not."""


class _Slot:
    """What the dispatcher knows about a place."""

    def __init__(self, place: ToolPlace) -> None:
        self.place = place
        self.outstanding = 0
        self.trusted = asyncio.Event()
        self.pid = 0
        self.probe: asyncio.Task[None] | None = None


class ToolDispatcher:
    """Runs tool calls on pools of places: least outstanding first, ties by lot.

    `tools` says how each tool may be run (pool, timeout, idempotent, retries); `default_timeout` (seconds) holds for a call
    whose tool and request set none. Owns one probing task for each place that is not trusted; `aclose` ends them.
    """

    def __init__(
        self,
        tools: Mapping[tuple[str, str], FunctionTool],
        places: Mapping[str, Sequence[ToolPlace]],
        *,
        default_timeout: float = DEFAULT_TIMEOUT,
        max_outstanding: int = MAX_OUTSTANDING,
        lots: random.Random | None = None,
    ) -> None:
        self._tools = tools
        self._pools = {pool: [_Slot(place) for place in members] for pool, members in places.items()}
        self._default_timeout = default_timeout
        self._max_outstanding = max_outstanding
        self._lots = lots or random.Random()
        self._outstanding = 0
        self._closed = False

    @property
    def outstanding(self) -> int:
        """How many calls are out now."""
        return self._outstanding

    def start(self) -> None:
        """Begin to look for the places. Needs a running loop; `run` does the same when it was not called."""
        for slots in self._pools.values():
            for slot in slots:
                if not slot.trusted.is_set():
                    self._start_probe(slot)

    async def aclose(self) -> None:
        """End the probing. Calls that are out go on; later ones are answered with an error. May be called twice."""
        self._closed = True
        probes = [slot.probe for slots in self._pools.values() for slot in slots if slot.probe is not None]
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)

    async def run(self, request: ToolRequest) -> ToolReply:
        """Run one call; see `ToolRunner.run`.

        Error codes of its own: `tool_busy` (too many calls are out) and `tool_unavailable` (no place came up in time), where
        the tool was not started, and `tool_lost`, where it may have taken effect. Only an idempotent tool is tried again, at
        most `retries` times.
        """
        started = asyncio.get_running_loop().time()
        if self._outstanding >= self._max_outstanding:
            return _failed(request, started, "tool_busy", f"Tool {request.tool} is busy; it was not started. Try again later.")
        self._outstanding += 1
        try:
            return await self._run(request, started)
        finally:
            self._outstanding -= 1

    async def _run(self, request: ToolRequest, started: float) -> ToolReply:
        tool = self._tools.get((request.agent, request.tool))
        if tool is None:
            return _failed(request, started, "tool_not_found", f"Tool {request.tool} not found")
        if tool.timeout_seconds is None and request.timeout_s is None:
            request = msgspec.structs.replace(request, timeout_s=self._default_timeout)
        limit = (tool.timeout_seconds or request.timeout_s or self._default_timeout) + GRACE
        try:
            message = _encoder.encode(request).decode()
        except (UnicodeEncodeError, TypeError, ValueError):
            text = f"Tool {request.tool} was not started: its arguments or the context hold what cannot be sent."
            return _failed(request, started, "user_error", text)
        tries_left = 1 + (tool.retries if tool.idempotent else 0)
        patience = min(WAIT_FOR_PLACE, limit)
        give_up_at = started + patience
        while True:
            slot = await self._take(tool.pool, give_up_at)
            if slot is None:
                text = f"Tool {request.tool} is not available now; it was not started."
                return _failed(request, started, "tool_unavailable", text)
            try:
                reply = await self._run_at(slot, message, limit)
            except PlaceLost as error:
                _log.warning("tool_place_lost", place=slot.place.name, tool=request.tool, cause=str(error))
                tries_left -= 1
                if tries_left <= 0:
                    return _failed(request, started, ToolLostError.code, _lost_text(tool), slot.pid)
                give_up_at = asyncio.get_running_loop().time() + patience
                continue
            if reply.error_code != NOT_STARTED:
                return reply

    async def _run_at(self, slot: _Slot, message: str, limit: float) -> ToolReply:
        slot.outstanding += 1
        try:
            answer = await _within(limit, slot.place.run(message))
            reply = _decoder.decode(answer)
        except PlaceLost:
            self._distrust(slot)
            raise
        except msgspec.MsgspecError as error:
            self._distrust(slot)
            raise PlaceLost(f"it answered with something that is no reply: {error}") from error
        finally:
            slot.outstanding -= 1
        if reply.error_code == NOT_STARTED:
            self._distrust(slot)
        return reply

    async def _take(self, pool: str, give_up_at: float) -> _Slot | None:
        """Return the trusted place with the fewest calls out, waiting for one until `give_up_at`; None if none came."""
        slots = self._pools.get(pool, [])
        self.start()
        while not self._closed:
            trusted = [slot for slot in slots if slot.trusted.is_set()]
            if trusted:
                fewest = min(slot.outstanding for slot in trusted)
                return self._lots.choice([slot for slot in trusted if slot.outstanding == fewest])
            remaining = give_up_at - asyncio.get_running_loop().time()
            if not slots or remaining <= 0:
                return None
            await _first([slot.trusted for slot in slots], remaining)
        return None

    def _distrust(self, slot: _Slot) -> None:
        slot.trusted.clear()
        self._start_probe(slot)

    def _start_probe(self, slot: _Slot) -> None:
        if not self._closed and (slot.probe is None or slot.probe.done()):
            slot.probe = asyncio.get_running_loop().create_task(self._probe(slot), name=f"probe {slot.place.name}")

    async def _probe(self, slot: _Slot) -> None:
        while True:
            with contextlib.suppress(PlaceLost):
                slot.pid = await _within(PING_TIMEOUT, slot.place.ping())
                slot.trusted.set()
                return
            await asyncio.sleep(PING_INTERVAL)


async def _within(limit: float, call: Awaitable[T]) -> T:
    """Await a call for at most `limit` seconds. Raises PlaceLost after that; the call is then cancelled."""
    try:
        async with asyncio.timeout(limit) as deadline:
            return await call
    except TimeoutError:
        if not deadline.expired():
            raise
        raise PlaceLost(f"no answer within {limit:g} s") from None


async def _first(events: Sequence[asyncio.Event], limit: float) -> None:
    """Wait until one of the events is set, or for `limit` seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


def _lost_text(tool: FunctionTool) -> str:
    if tool.idempotent:
        return f"Tool {tool.name} could not be completed: it stopped before it answered. It is safe to try it again."
    return (
        f"Tool {tool.name} stopped before it answered. Whether it took effect is unknown: do not say that it worked or "
        "failed, and do not call it again unless the user wants that."
    )


def _failed(request: ToolRequest, started: float, code: str, text: str, pid: int = 0) -> ToolReply:
    seconds = asyncio.get_running_loop().time() - started
    return ToolReply(call_id=request.call_id, ok=False, output=text, error_code=code, pid=pid, seconds=seconds)
