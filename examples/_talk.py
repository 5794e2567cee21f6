"""Prints a session as a conversation, asks a person for approvals, and knows when the agent waits for an answer."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from orchestrator.realtime import RealtimePlaybackTracker, RealtimeSession, RealtimeSessionEvent
from orchestrator.realtime.events import (
    RealtimeAgentEndEvent,
    RealtimeAgentStartEvent,
    RealtimeAudio,
    RealtimeAudioInterrupted,
    RealtimeError,
    RealtimeGuardrailTripped,
    RealtimeHandoffEvent,
    RealtimeHistoryAdded,
    RealtimeToolApprovalRequired,
    RealtimeToolEnd,
    RealtimeToolStart,
    RealtimeTranscriptDelta,
)
from orchestrator.realtime.items import RealtimeItem, RealtimeToolCallItem

__all__ = ["Talk", "describe", "until_first"]

# A guardrail may object to the last words of an answer a moment after the answer has ended.
LAST_CHECK = 0.15
ANSWERS = {"y": True, "yes": True, "n": False, "no": False}
REFUSED = "A colleague has looked at this and refused it."


class Talk:
    """One session on the terminal. `follow` must run while it is used; `prompt` stands where the user may type.

    Nothing is played: what is printed has been heard. `playback`, the session's tracker, is told so; without it the session
    would assume that audio plays at its own speed, and cut at an interruption what the user has long read.
    """

    def __init__(self, session: RealtimeSession, playback: RealtimePlaybackTracker, prompt: str = "") -> None:
        self.session = session
        self.errors = 0
        self._playback = playback
        self._prompt = prompt
        self._approvals: deque[RealtimeToolApprovalRequired] = deque()
        self._settled = asyncio.Event()
        # The response under way: who speaks, whether it called a tool (then another one follows), and the item on this line.
        self._speaker = session.current_agent.name
        self._called = False
        self._item_id = ""
        # A guardrail has stopped the answer, so that the agent will correct itself; nothing more is printed of a stopped one.
        self._correcting = False
        self._stopped = False
        self._line_open = False

    @property
    def approval(self) -> RealtimeToolApprovalRequired | None:
        """The tool call that waits longest for a person."""
        return self._approvals[0] if self._approvals else None

    async def follow(self) -> None:
        """Print what happens until the session ends."""
        async for event in self.session:
            self._take(event)

    async def say(self, text: str) -> None:
        """Send what the user says."""
        self._settled.clear()
        await self.session.send_message(text)

    async def interrupt(self) -> None:
        """Stop the agent."""
        await self.session.interrupt()
        if self._settled.is_set():
            self.settle()  # Nobody spoke, so no end of an answer will let the user speak.
        else:
            self._stopped = True
            self.note("  [stopped]")

    async def settled(self) -> None:
        """Wait until it is the user's turn: the agent has answered, or a tool call waits for a person."""
        await self._settled.wait()
        while not self._approvals:
            await asyncio.sleep(LAST_CHECK)
            if self._settled.is_set():
                return
            await self._settled.wait()

    async def decide(self, answer: str) -> None:
        """Answer the approval that waits longest with what the user typed; asks again when that is neither yes nor no."""
        approve = ANSWERS.get(answer.strip().lower())
        if approve is None:
            self._ask()
            return
        asked = self._approvals.popleft()
        if self._approvals:
            self._ask()
        else:
            self._settled.clear()
        if approve:
            await self.session.approve_tool_call(asked.call_id)
        else:
            await self.session.reject_tool_call(asked.call_id, rejection_message=REFUSED)

    def settle(self) -> None:
        """Let the user speak, or decide."""
        self._settled.set()
        if self._approvals:
            self._ask()
        elif self._prompt:
            self._write(self._prompt)

    def typed(self, line: str, *, shown: bool) -> None:
        """The user typed a line. `shown` says that a terminal has shown it, so that a new line has begun already."""
        if not shown:
            print(line, flush=True)
        self._line_open = False
        self._item_id = ""

    def note(self, text: str) -> None:
        """Print a line of its own."""
        self._write(text)
        self.end_line()

    def end_line(self) -> None:
        """Go to the beginning of a line."""
        if self._line_open:
            print(flush=True)
        self._line_open = False
        self._item_id = ""

    def _take(self, event: RealtimeSessionEvent) -> None:
        match event:
            case RealtimeAgentStartEvent(agent=agent):
                self._speaker, self._called, self._correcting, self._stopped = agent.name, False, False, False
            case RealtimeAudio(item_id=item_id, content_index=index, audio=audio):
                self._playback.on_play_bytes(item_id, index, audio.data)
            case RealtimeTranscriptDelta(item_id=item_id, delta=delta):
                self._print_words(item_id, delta)
            case RealtimeHistoryAdded(item=RealtimeToolCallItem()):
                self._called = True
            case RealtimeAgentEndEvent():
                self.end_line()
                if not self._called and not self._correcting:
                    self.settle()
            case RealtimeToolApprovalRequired():
                self._approvals.append(event)
                self.settle()
            case RealtimeGuardrailTripped(guardrail_results=results):
                # The model is told, and answers once more.
                self._correcting = self._stopped = True
                self._settled.clear()
                self.note(f"  [guardrail {', '.join(result.guardrail.get_name() for result in results)} stopped this]")
            case _:
                self._take_notice(event)

    def _take_notice(self, event: RealtimeSessionEvent) -> None:
        match event:
            case RealtimeToolStart(tool=tool, arguments=arguments):
                self.note(f"  [tool {tool.name} {arguments}]")
            case RealtimeToolEnd(tool=tool, output=output):
                self.note(f"  [tool {tool.name} -> {output}]")
            case RealtimeHandoffEvent(from_agent=source, to_agent=target):
                self.note(f"  [handoff {source.name} -> {target.name}]")
            case RealtimeAudioInterrupted(cut=cut):
                heard = "" if cut is None else f" after {cut.heard_ms / 1000:.1f} s of {cut.sent_ms / 1000:.1f} s"
                self.note(f"  [interrupted{heard}]")
            case RealtimeError(error=error):
                self.errors += 1
                self.note(f"  [error: {_message(error)}]")
            case _:
                pass

    def _ask(self) -> None:
        asked = self._approvals[0]
        self._write(f"  [{asked.agent.name} wants to run {asked.tool.name} {asked.arguments}] approve? [y/n] ")

    def _print_words(self, item_id: str, delta: str) -> None:
        if self._stopped:
            return
        if item_id != self._item_id:
            self._write(f"{self._speaker}: ")
            self._item_id = item_id
        print(delta, end="", flush=True)

    def _write(self, text: str) -> None:
        self.end_line()
        print(text, end="", flush=True)
        self._line_open = True


def describe(item: RealtimeItem) -> str:
    """Return an item of the history as one line."""
    if isinstance(item, RealtimeToolCallItem):
        return f"tool  {item.name} {item.arguments} -> {'no answer yet' if item.output is None else item.output}"
    words = []
    for part in item.content:
        text: str | None = getattr(part, "text", None) or getattr(part, "transcript", None)
        heard: float | None = getattr(part, "heard_ms", None)
        words.append((text or "") + ("" if heard is None else f" ... (cut after {heard / 1000:.1f} s)"))
    who = {"assistant": "agent", "user": "user ", "system": "system"}[item.role]
    return f"{who} {' '.join(words).strip()}"


async def until_first(*works: Any) -> Any:
    """Run coroutines side by side until the first ends, stop the others, and return its result or raise what it raised."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # In their order, since two may end at once.
        return next(task for task in tasks if task in done).result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _message(error: Any) -> str:
    """Return the words of an error, which may be one of the model's, an exception or a mapping."""
    if isinstance(error, dict):
        return str(error.get("message", error))
    return str(getattr(error, "message", error))
