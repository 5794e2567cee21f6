"""What happened in a call, for people: who said what and when, the tools, the interruptions, the end."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec

from orchestrator.core.items import (
    AssistantAudio,
    AssistantMessageItem,
    AssistantText,
    InputAudio,
    InputImage,
    InputText,
    RealtimeItem,
    UserMessageItem,
)
from orchestrator.errors import EndReason
from orchestrator.realtime.events import (
    RealtimeAudioInterrupted,
    RealtimeError,
    RealtimeGuardrailTripped,
    RealtimeHandoffEvent,
    RealtimeHistoryAdded,
    RealtimeSessionEvent,
    RealtimeToolApprovalRequired,
    RealtimeToolEnd,
)

__all__ = ["CallRecord", "Entry"]

MAX_ENTRIES = 2000


class Entry(msgspec.Struct, omit_defaults=True):
    """One thing that happened, `at_ms` after the caller was accepted."""

    at_ms: float
    kind: str
    item_id: str | None = None
    text: str = ""
    name: str | None = None
    arguments: str | None = None
    output: str | None = None
    pid: int | None = None
    seconds: float | None = None
    ok: bool | None = None
    heard_ms: float | None = None
    sent_ms: float | None = None
    transcript: str | None = None
    code: str | None = None


class _Timings(msgspec.Struct):
    accept_to_101_ms: float | None = None
    model_connect_ms: float | None = None
    first_audio_ms: list[float] = msgspec.field(default_factory=list)
    barge_in_to_clear_ms: list[float] = msgspec.field(default_factory=list)


class CallRecord:
    """Collects the record of one call; keeps the latest two thousand entries. `accepted_at` is monotonic, in seconds."""

    def __init__(self, session_id: str, channel: str, pid: int, accepted_at: float) -> None:
        self._head = {"session_id": session_id, "channel": channel, "session_actor_pid": pid}
        self._accepted_at = accepted_at
        self._entries: deque[Entry] = deque(maxlen=MAX_ENTRIES)
        self.timings = _Timings()
        self._history: list[RealtimeItem] = []

    def at_ms(self, now: float) -> float:
        """Return the milliseconds since the caller was accepted."""
        return round((now - self._accepted_at) * 1000, 1)

    def event(self, event: RealtimeSessionEvent, now: float) -> None:
        """Note what an event of the session means for people."""
        at = self.at_ms(now)
        match event:
            case RealtimeHistoryAdded(item=UserMessageItem(item_id=item_id)):
                self._entries.append(Entry(at, "user", item_id))
            case RealtimeHistoryAdded(item=AssistantMessageItem(item_id=item_id)):
                self._entries.append(Entry(at, "agent", item_id))
            case RealtimeToolEnd():
                entry = Entry(at, "tool", name=event.tool.name, arguments=event.arguments, output=str(event.output))
                entry.pid, entry.seconds, entry.ok, entry.code = event.pid, round(event.seconds, 4), event.ok, event.error_code
                self._entries.append(entry)
            case RealtimeHandoffEvent(from_agent=source, to_agent=target):
                self._entries.append(Entry(at, "handoff", text=f"{source.name} to {target.name}", name=target.name))
            case RealtimeGuardrailTripped(guardrail_results=results):
                guardrails = ", ".join(result.guardrail.get_name() for result in results)
                self._entries.append(Entry(at, "guardrail", text=guardrails))
            case RealtimeToolApprovalRequired(tool=tool, arguments=arguments):
                self._entries.append(Entry(at, "approval", name=tool.name, arguments=arguments))
            case RealtimeAudioInterrupted(item_id=item_id, cut=cut) if cut is not None:
                self._entries.append(Entry(at, "interruption", item_id, heard_ms=cut.heard_ms, sent_ms=cut.sent_ms))
            case RealtimeError(error=error):
                text = getattr(error, "message", None) or (error.get("message") if isinstance(error, dict) else None)
                self._entries.append(
                    Entry(at, "error", text=str(text or type(error).__name__), code=getattr(error, "code", None))
                )
            case _:
                pass

    def ended(self, reason: EndReason, history: list[RealtimeItem], now: float) -> None:
        """Note the end and keep the history as it was."""
        self._history = history
        self._entries.append(Entry(self.at_ms(now), "end", text=reason.text, code=reason.code))

    def to_json(self, history: list[RealtimeItem] | None = None) -> bytes:
        """Return the record as JSON; the words are those that the history holds now, or held at the end."""
        texts = {item.item_id: _text(item) for item in (self._history if history is None else history)}
        entries = [_with_words(entry, texts) for entry in self._entries]
        record = {**self._head, "entries": entries, "timings": self.timings}
        try:
            return msgspec.json.encode(record)
        except UnicodeEncodeError:
            return msgspec.json.encode(_encodable(msgspec.to_builtins(record)))


def _encodable(value: Any) -> Any:
    """Replace what UTF-8 cannot express: a tool may return half a surrogate pair, as file names can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {name: _encodable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return value


def _with_words(entry: Entry, texts: dict[str, str]) -> Entry:
    words = texts.get(entry.item_id or "", "")
    if entry.kind == "interruption":
        return msgspec.structs.replace(entry, transcript=words)
    return msgspec.structs.replace(entry, text=words) if entry.item_id else entry


def _text(item: Any) -> str:
    words = []
    for part in getattr(item, "content", ()):
        if isinstance(part, InputText | AssistantText):
            words.append(part.text or "")
        elif isinstance(part, InputAudio | AssistantAudio):
            words.append(part.transcript or "")
        elif isinstance(part, InputImage):
            words.append("[image]")
    return " ".join(words)
