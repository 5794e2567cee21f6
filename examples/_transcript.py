"""Prints what is said in a call, line by line, as soon as it is known."""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.realtime import RealtimeSession, RealtimeSessionEvent
from orchestrator.realtime.events import (
    RealtimeAgentEndEvent,
    RealtimeAudioInterrupted,
    RealtimeError,
    RealtimeHandoffEvent,
    RealtimeHistoryAdded,
    RealtimeHistoryUpdated,
    RealtimeToolEnd,
)
from orchestrator.realtime.items import AssistantMessageItem, RealtimeItem, UserMessageItem

__all__ = ["Transcript"]


class Transcript:
    """One call on a terminal that several calls share: each of its lines begins with `name`."""

    def __init__(self, name: str, write: Callable[[str], None] = print) -> None:
        self._name = name
        self._write = write
        self._printed: set[str] = set()

    def note(self, text: str) -> None:
        """Print a line. What is in it may come from anybody, so it cannot move the cursor or pass for another line."""
        shown = "".join(letter if letter.isprintable() else "?" for letter in text)
        self._write(f"{self._name} {shown}")

    def take(self, session: RealtimeSession, event: RealtimeSessionEvent) -> None:
        """Print what an event of the session makes known."""
        match event:
            case RealtimeHistoryAdded() | RealtimeHistoryUpdated() | RealtimeAgentEndEvent():
                for item in session.history:
                    self._print(session, item)
            case RealtimeToolEnd(tool=tool, arguments=arguments, output=output):
                self.note(f"  [tool {tool.name} {arguments} -> {output}]")
            case RealtimeHandoffEvent(from_agent=source, to_agent=target):
                self.note(f"  [handoff {source.name} -> {target.name}]")
            case RealtimeAudioInterrupted():
                self._interrupted(session, event)
            case RealtimeError(error=error):
                message = error.get("message") if isinstance(error, dict) else getattr(error, "message", None)
                self.note(f"  [error: {message or error}]")
            case _:
                pass

    def _interrupted(self, session: RealtimeSession, event: RealtimeAudioInterrupted) -> None:
        """Print what was heard by then: the history knows, since it is cut there."""
        heard = "" if event.cut is None else f" after {event.cut.heard_ms / 1000:.1f} s of {event.cut.sent_ms / 1000:.1f} s"
        item = next((item for item in session.history if item.item_id == event.item_id), None)
        words = _words(item) if isinstance(item, AssistantMessageItem) else ""
        if event.item_id in self._printed:
            # All of it is on the terminal already: models write faster than telephones play.
            heard += f": {words}" if words else ""
        elif words:
            self.note(f"{session.current_agent.name}: {words}")
        self._printed.add(event.item_id)
        self.note(f"  [interrupted{heard}]")

    def _print(self, session: RealtimeSession, item: RealtimeItem) -> None:
        if item.item_id in self._printed:
            return
        match item:
            case UserMessageItem() if words := _words(item):
                self.note(f"caller: {words}")
            case AssistantMessageItem() if item.status in ("completed", "incomplete") and (words := _words(item)):
                self.note(f"{session.current_agent.name}: {words}")
            case _:
                return
        self._printed.add(item.item_id)


def _words(item: UserMessageItem | AssistantMessageItem) -> str:
    parts = (getattr(part, "transcript", None) or getattr(part, "text", None) or "" for part in item.content)
    return " ".join(part for part in parts if part).strip()
