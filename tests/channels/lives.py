"""Owners of one call, one after the other: each a session on an endpoint with a memory, and a journal acknowledged late."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from orchestrator import function_tool
from orchestrator.channels.journalling import CallJournal, Journals
from orchestrator.channels.resumption import resumption_of
from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import Verdict
from orchestrator.journal.state import replay
from orchestrator.journal.stores import MemoryStore
from orchestrator.realtime import OpenAIRealtimeWebSocketModel, RealtimeAgent, RealtimeSession
from orchestrator.realtime.events import RealtimeSessionEvent, RealtimeToolApprovalRequired, RealtimeToolEnd
from orchestrator.realtime.handoffs import realtime_handoff
from orchestrator.realtime.resumption import Resumption, find_agent
from orchestrator.testing.scripted_endpoint import ScriptedEndpoint
from orchestrator.tool_context import ToolContext

SESSION = "s1"
ACKNOWLEDGED_AFTER = 0.01
TOOL_SECONDS = 0.03


class Effects:
    """What tools have done to the world, and the agents that do it."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.desk = self._agents()

    def times(self, name: str) -> Counter[str]:
        """Count by idempotency key how often a tool ran."""
        return Counter(key for tool, key in self.done if tool == name)

    def _agents(self) -> RealtimeAgent[Any]:
        async def run(context: ToolContext[Any]) -> str:
            self.done.append((context.tool_name, context.idempotency_key))
            await asyncio.sleep(TOOL_SECONDS)
            return f"{context.tool_name} is done"

        @function_tool
        async def pay(context: ToolContext[Any]) -> str:
            """Has a side effect."""
            return await run(context)

        @function_tool(idempotent=True)
        async def look(context: ToolContext[Any]) -> str:
            """Has none."""
            return await run(context)

        @function_tool(needs_approval=True)
        async def sell(context: ToolContext[Any]) -> str:
            """Has one, and a person must agree."""
            return await run(context)

        def charged(context: Any) -> None:
            del context
            self.done.append(("handoff", f"{len(self.done)}"))

        tools = [pay, look, sell]
        billing: RealtimeAgent[Any] = RealtimeAgent(name="Billing", tools=list(tools))
        desk: RealtimeAgent[Any] = RealtimeAgent(
            name="Desk", tools=list(tools), handoffs=[realtime_handoff(billing, on_handoff=charged)]
        )
        billing.handoffs.append(desk)
        return desk


class RememberingEndpoint(ScriptedEndpoint):
    """An endpoint that confirms items, remembers them, and answers every request for a response."""

    def __init__(self, life: int) -> None:
        super().__init__()
        self.memory: list[dict[str, Any]] = []
        self.asked = 0
        self.active: str | None = None
        self._life = life
        self._made = 0

    def name(self, kind: str) -> str:
        self._made += 1
        return f"{kind}_{self._life}_{self._made}"

    def on_text(self, data: bytes) -> None:
        before = len(self.received)
        super().on_text(data)
        for event in self.received[before:]:
            if event["type"] == "conversation.item.create":
                self.remember(event["item"])
            elif event["type"] == "response.create":
                self.asked += 1
                asyncio.get_running_loop().call_soon(self.answer)

    def remember(self, item: dict[str, Any]) -> None:
        """Take an item into the conversation and confirm it."""
        item = {"id": self.name("item"), "status": "completed"} | item
        previous = self.memory[-1]["id"] if self.memory else None
        self.memory.append(item)
        for kind in ("added", "done"):
            self.send(f"conversation.item.{kind}", previous_item_id=previous, item=item)

    def user_says(self, text: str) -> None:
        self.end()
        self.remember({"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]})

    def begin(self) -> None:
        """Begin a response and say something, without an end."""
        self.end()
        self.active = self.name("resp")
        self.start_response(self.active)
        self.speak("one moment please", 200, response_id=self.active, item_id=self.name("item"))

    def end(self, status: str = "completed") -> None:
        if self.active is not None:
            self.end_response(self.active, status)
            self.active = None

    def answer(self) -> None:
        self.begin()
        self.end()

    def call(self, names: Sequence[str]) -> None:
        """Make a response of tool calls."""
        self.end()
        calls = [(self.name("call"), name, "{}") for name in names]
        for call_id, name, arguments in calls:
            item = {"id": f"item_{call_id}", "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}
            self.memory.append(item)
        self.call_tools(*calls, response_id=self.name("resp"))


class Life:
    """One owner of the call. `kept` is what its journal held before it."""

    def __init__(self, effects: Effects, kept: Sequence[Entry] = ()) -> None:
        self.effects = effects
        self.kept = list(kept)
        self.written: list[Entry] = []
        # How many effects there were at the latest moment at which nothing behind an entry needed to be kept.
        self.effects_at: list[int] = []
        self.store = MemoryStore()
        if kept:
            self.store.append(kept)
        self.epoch = 1 + max((one.epoch for one in kept), default=0)
        self.writer = f"node/actor/{self.epoch}"
        self.verdicts: list[Verdict] = []
        self.connected = True
        self._sent: deque[Sequence[Entry]] = deque()
        self.journals = Journals(self.writer, self._send, lambda *_: None, sent=lambda: self.connected)
        self.endpoint = RememberingEndpoint(self.epoch)
        self.approvals: list[str] = []
        self.tool_ends: list[RealtimeToolEnd] = []
        self.resumption: Resumption | None = None
        self.journal, self.session = self._open()

    async def __aenter__(self) -> Life:
        await self.session.enter()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.connected = False
        await self.session.close()

    def _open(self) -> tuple[CallJournal, RealtimeSession]:
        agent = self.effects.desk
        if self.kept:
            state = replay(SESSION, self.kept)
            agent = find_agent(self.effects.desk, state.agent)
            self.resumption = resumption_of(state, starting_agent=self.effects.desk)
            journal = self.journals.resume(SESSION, state, "actor_died")
        else:
            journal = self.journals.open(SESSION)
            journal.started(channel="openai", agent=agent.name, context={}, peer="")
        model = OpenAIRealtimeWebSocketModel(dial=self.endpoint.dial)
        config: Any = {"headers": {}}
        return journal, RealtimeSession(
            model,
            agent,
            {},
            config,
            session_id=SESSION,
            observer=self,
            ledger=journal,
            resumption=self.resumption,
        )

    async def wait(self, seconds: float = 0.0) -> None:
        await self.endpoint.settle()
        await asyncio.sleep(seconds)
        await self.endpoint.settle()

    async def settle(self) -> None:
        """Let everything come to its end; whoever is asked agrees."""
        await self.wait(1.0)
        while self.approvals:
            await self.session.approve_tool_call(self.approvals.pop(0))
            await self.wait(1.0)

    def kinds(self) -> list[str]:
        return [one.kind for one in self.written]

    def _send(self, entries: Sequence[Entry]) -> None:
        if not self.connected:
            return
        self.written += entries
        self._sent.append(entries)
        asyncio.get_running_loop().call_later(ACKNOWLEDGED_AFTER, self._acknowledge)

    def _acknowledge(self) -> None:
        # In order, which timers of one moment are not.
        entries = self._sent.popleft()
        self.verdicts += self.store.append(entries)
        for entry in entries:
            self.effects_at.append(len(self.effects.done))
            self.journals.acknowledged(SESSION, entry.writer, entry.seq)

    # What the session tells: SessionObserver.

    def on_session_event(self, event: RealtimeSessionEvent) -> None:
        if isinstance(event, RealtimeToolApprovalRequired):
            self.approvals.append(event.call_id)
        if isinstance(event, RealtimeToolEnd):
            self.tool_ends.append(event)
        self.journal.event(event, self.session)

    def on_first_audio(self, seconds: float) -> None:
        pass

    def on_speech(self, *, speaking: bool) -> None:
        pass

    def on_renewing(self, cause: str) -> None:
        pass

    def on_renewed(self, seconds: float, cause: str) -> None:
        pass

    def on_ended(self, exception: Exception | None) -> None:
        raise AssertionError(f"the model is gone: {exception}")
