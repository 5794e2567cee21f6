"""The course of a chaos run: calls begin, things break, calls end, and everything is compared."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial

import msgspec

from orchestrator.journal.opening import journal_url
from orchestrator.journal.stores.sql import open_store
from tests.chaos.callers import Call
from tests.chaos.conversation import Conversation
from tests.chaos.deployment import Deployment, Shape
from tests.chaos.faults import NOT_COVERED, POSTGRES_KINDS, SQLITE_KINDS, Faults
from tests.chaos.judge import judge
from tests.chaos.phone import Phone
from tests.chaos.report import Outcome
from tests.chaos.story import Blow, Story, Tale
from tests.survival.chopper import Chopper
from tests.waiting import until

__all__ = ["Orders", "run"]

PATHS = ("direct", "chopped")
BEGIN_WITHIN = 60.0
SETTLE_WITHIN = 20.0
END_WITHIN = 60.0
LOOK_EVERY = 0.1
# Every third call is a phone.
PHONES = 3


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. `seconds` is how long things break, `kills`, if given, how many there are to be instead.

    `pace` is how long a caller waits between an answer and its next turn on average, `patience` how long it waits for an
    answer before its call counts as lost, `rest` the longest pause between two faults; all in seconds. With `once` each kind
    of fault is injected once.
    """

    seed: int
    shape: Shape
    seconds: float = 180.0
    kinds: tuple[str, ...] = ()
    kills: int | None = None
    paths: tuple[str, ...] = PATHS
    pace: float = 0.3
    patience: float = 20.0
    rest: float = 1.0
    once: bool = False

    @property
    def all_kinds(self) -> tuple[str, ...]:
        """The kinds of faults, all that there are unless some were chosen."""
        return self.kinds or (POSTGRES_KINDS if self.shape.postgres else SQLITE_KINDS)


class _Run:
    def __init__(self, deployment: Deployment, orders: Orders, tell: Callable[[str], None]) -> None:
        self._deployment = deployment
        self._orders = orders
        self._tell = tell
        self._random = random.Random(orders.seed)
        self._faults = Faults(deployment, self._random.getrandbits(40))
        self.calls: list[Call] = []
        self.blows: list[Blow] = []
        self.tried: Counter[str] = Counter()
        self._sessions: dict[str, str] = {}

    async def course(self) -> None:
        """From the first call to the last."""
        async with AsyncExitStack() as stack:
            chopper = await stack.enter_async_context(Chopper(self._deployment.port, self._random.getrandbits(40)))
            ports = {"direct": self._deployment.port, "chopped": chopper.port}
            self.calls = [self._call(number, ports) for number in range(1, self._orders.shape.sessions + 1)]
            tasks = [asyncio.create_task(call.run()) for call in self.calls]
            watching = asyncio.create_task(self._watch())
            try:
                await self._all_have_begun()
                self._tell(f"{self._alive()} of {len(self.calls)} calls talk")
                await self._break_things()
                await self._faults.aclose()
                await self._settle(None)
                for call in self.calls:
                    call.stop()
                self._tell("the calls come to their ends")
                await asyncio.wait(tasks, timeout=END_WITHIN)
            finally:
                for task in (watching, *tasks):
                    task.cancel()
                await asyncio.wait([watching, *tasks])
            await self._deployment.watch_losses()

    def _call(self, number: int, ports: dict[str, int]) -> Call:
        orders, seed = self._orders, self._random.getrandbits(40)
        path = orders.paths[number % len(orders.paths)]
        if number % PHONES == 0:
            story = Story(caller=number, kind="phone", path=path)
            return Phone(story, port=ports[path], seed=seed, pace=orders.pace, patience=orders.patience)
        return Conversation(
            Story(caller=number, kind="conversation", path=path),
            port=ports[path],
            ledger=str(self._deployment.ledger),
            seed=seed,
            mulaw=number % 4 < 2,
            pace=orders.pace,
            patience=orders.patience,
        )

    async def _watch(self) -> None:
        while True:
            await self._deployment.watch_losses()
            await asyncio.sleep(1.0)

    async def _all_have_begun(self) -> None:
        """Wait until every call has asked its first question, or is lost."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_WITHIN):
                await until(self._begun)

    async def _begun(self) -> bool:
        return all(call.story.turns or call.story.lost for call in self.calls)

    def _alive(self) -> int:
        return sum(call.up for call in self.calls)

    async def _break_things(self) -> None:
        orders = self._orders
        ends_at = time.monotonic() + orders.seconds
        waiting: list[str] = []
        while self._alive():
            if orders.kills is not None:
                if sum(len(blow.detail.split(",")) for blow in self.blows) >= orders.kills:
                    break
            elif time.monotonic() >= ends_at:
                break
            if not waiting:
                if orders.once and self.tried:
                    break
                waiting = self._random.sample(orders.all_kinds, len(orders.all_kinds))
            await self._break(waiting.pop())

    async def _break(self, kind: str) -> None:
        self.tried[kind] += 1
        alive = self._alive()
        blow = None
        deadline = time.monotonic() + (SETTLE_WITHIN if self._orders.once else 2.0)
        while blow is None and time.monotonic() < deadline:
            blow = await self._faults.inject(kind)
            if blow is None:
                await asyncio.sleep(LOOK_EVERY)
        if blow is None:
            return
        blow.alive_before = alive
        self.blows.append(blow)
        for call in self.calls:
            call.fault_at(blow.at)
        await self._settle(blow)
        await asyncio.sleep(self._random.random() * self._orders.rest)
        blow.alive_after = self._alive()
        if blow.sessions:
            blow.sockets_kept = len(blow.sessions) - self._lost_of(blow)
        if len(self.blows) % 25 == 0:
            self._tell(f"{len(self.blows)} faults, {self._alive()} of {len(self.calls)} calls alive")

    def _lost_of(self, blow: Blow) -> int:
        """Count the calls that have been lost since the fault and were concerned, as far as it is known which they are."""
        lost = [call for call in self.calls if call.story.lost_at is not None and call.story.lost_at >= blow.at]
        return sum(call.story.kind == "phone" or call.story.reference in blow.sessions for call in lost)

    async def _settle(self, blow: Blow | None) -> None:
        """Wait until the gateway answers and every session has an owner that serves it, but not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_WITHIN):
                await until(partial(self._has_settled, blow))
        if blow is not None and blow.kind in ("gateway", "supervisor"):
            blow.recovered = time.time()

    async def _has_settled(self, blow: Blow | None) -> bool:
        view = await self._deployment.view()
        if view is None or not view.ready:
            return False
        if blow is not None and blow.kind == "supervisor" and await self._deployment.supervisor() is None:
            return False
        return self._settled({one.session_id: one.state for one in view.sessions}, blow)

    def _settled(self, states: dict[str, str], blow: Blow | None) -> bool:
        hit = () if blow is None else blow.sessions
        if blow is not None and blow.kind == "frozen-session-actor" and time.time() - blow.at < 3.5:
            return False  # It is not found out yet.
        return all(states.get(session_id, "live") == "live" for session_id in hit) and "recovering" not in states.values()


async def run(deployment: Deployment, orders: Orders, *, tell: Callable[[str], None] = lambda _text: None) -> Outcome:
    """Let calls talk, break things, and judge. Cancelling drops all calls."""
    began = time.monotonic()
    course = _Run(deployment, orders, tell)
    await course.course()
    stories = [call.story for call in course.calls]
    tell("reading the journal")
    tales = await asyncio.to_thread(_tales, deployment, sum(story.began for story in stories))
    for endpoint in deployment.endpoints:
        # What their sessions have heard is told by now, since the calls are over.
        await asyncio.to_thread(endpoint.stop)
    injected = {blow.kind for blow in course.blows}
    harms = judge(
        stories,
        tales,
        deployment.effects(),
        deployment.hearings(),
        journal_lost=round(deployment.journal_lost),
        whole="endpoint" not in injected,
    )
    return Outcome(
        seed=orders.seed,
        seconds=time.monotonic() - began,
        stories=stories,
        tales=tales,
        blows=course.blows,
        harms=harms,
        impossible=[kind for kind in course.tried if kind not in injected],
        not_covered=_not_covered(orders, injected),
    )


def _not_covered(orders: Orders, injected: Sequence[str] | set[str]) -> list[str]:
    every = {*SQLITE_KINDS, *POSTGRES_KINDS}
    left_out = sorted(every - set(injected) - set(orders.all_kinds))
    return [*NOT_COVERED, *([f"left out in this run: {', '.join(left_out)}"] if left_out else [])]


def _tales(deployment: Deployment, calls: int) -> list[Tale]:
    """Read all calls back, once their ends are written."""
    from tests.chaos.tales import read_tales

    store = open_store(journal_url(deployment.settings), reads_only=True)
    try:
        deadline = time.monotonic() + END_WITHIN
        while True:
            rows = store.sessions(open_only=False, limit=calls + 100)
            if sum(row.ended for row in rows) >= calls or time.monotonic() > deadline:
                return read_tales(store)
            time.sleep(LOOK_EVERY)
    finally:
        store.close()
