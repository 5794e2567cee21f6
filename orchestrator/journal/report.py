"""Calls of the journal, laid out for people.

What callers, models and tools say reaches a terminal here, so control characters are shown and never obeyed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.core.items import (
    AssistantAudio,
    AssistantMessageItem,
    InputAudio,
    InputImage,
    RealtimeItem,
    RealtimeToolCallItem,
)
from orchestrator.errors import EndReason
from orchestrator.journal.audit import Audit, Finding
from orchestrator.journal.state import CallState, OpenToolCall, UnknownOutcome
from orchestrator.journal.stores.base import SessionRow
from orchestrator.journal.writers import WriterName

__all__ = ["printable", "render_audit", "render_call", "render_sessions"]

# What moves a cursor or turns the direction of writing, half surrogates, and all ends of lines but the plain one.
_UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_SPEAKERS = {"user": ("caller", "cyan"), "assistant": ("agent", "green"), "system": ("system", "dim")}
_CHECKS = {
    "contiguous": "no entry is missing",
    "owners": "one owner at a time",
    "head": "the store knows its end",
    "readable": "every entry can be read",
    "history": "the history is as it was",
}
_FINDINGS = {
    Finding.HOLDS: ("yes", "green"),
    Finding.BROKEN: ("NO", "bold red"),
    Finding.NOT_RECORDED: ("not recorded", "bold yellow"),
    Finding.NOT_DUE: ("not yet", "dim"),
}


def printable(text: str) -> str:
    """Return a text with what a terminal would obey written as an escape, "\\x1b" for example."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def render_sessions(rows: Sequence[SessionRow]) -> RenderableType:
    """Lay a list of calls out as a table. Times are those of this machine's zone."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("session", "state", "channel", "node", "actor", "pid", "epoch", "started", "lasted", "entries"):
        if name == "session":
            # It is there to be copied.
            table.add_column(name, no_wrap=True, min_width=max((len(row.session_id) for row in rows), default=0))
        elif name == "node":
            # Ray's names of nodes are long and differ at once.
            table.add_column(name, no_wrap=True, max_width=12)
        elif name in ("state", "actor"):
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, no_wrap=True, justify="right" if name in ("pid", "epoch", "lasted", "entries") else "left")
    for row in rows:
        writer = WriterName.parse(row.writer)
        cells = (
            row.session_id,
            f"ended: {row.end_code}" if row.ended else "open",
            row.channel,
            writer.node,
            writer.actor,
            "" if writer.pid is None else str(writer.pid),
            str(row.epoch),
            _time(row.started_at),
            _length(row.started_at, row.written_at),
            str(row.last_seq),
        )
        table.add_row(*(_text(cell) for cell in cells), style="dim" if row.ended else None)
    return table


def render_call(state: CallState, history: Sequence[RealtimeItem]) -> RenderableType:
    """Lay one call out: what it is, who owns it, what was said, and what is open."""
    parts: list[RenderableType] = [_text(f"Call {state.session_id}", "bold"), "", _facts(state), ""]
    parts.append(_conversation(history) if history else Text("Nothing was said.", style="dim"))
    if state.tool_calls:
        parts += ["", Text("Tool calls without an answer", style="bold")]
        parts += [_open_call(call) for call in state.tool_calls.values()]
    if state.unknown_outcomes:
        parts += ["", Text("Tool calls that may have taken effect: look where their effects would be", style="bold red")]
        parts += [_unknown_outcome(known, state.session_id) for known in state.unknown_outcomes]
    return Group(*parts)


def render_audit(audit: Audit) -> RenderableType:
    """Lay the checks of a journal out, and what they come to."""
    table = _grid(2)
    for check in audit.checks:
        word, style = _FINDINGS[check.finding]
        table.add_row(Text(word, style=style), _CHECKS.get(check.name, check.name), _text(check.detail, "dim"))
    sound = Text("All checks hold.", style="green") if audit.ok else Text("Not all checks hold.", style="bold red")
    return Group(_text(f"Journal of call {audit.session_id}", "bold"), "", table, "", sound)


def _facts(state: CallState) -> Table:
    writer = WriterName.parse(state.writer)
    owner = writer.actor if writer.pid is None else f"{writer.actor}, pid {writer.pid}, node {writer.node}"
    facts = {
        "state": "open" if state.end is None else _end(state.end),
        "channel": state.channel + (f", from {state.peer}" if state.peer else ""),
        "agent": state.agent,
        "owner": owner,
        "epoch": f"{state.epoch}, taken over {_times(state.takeovers)}",
        "started": _time(state.started_at),
        "entries": str(state.last_seq),
        "tokens": f"{state.input_tokens} in, {state.output_tokens} out; responses counted: {state.requests}",
        "legs lost": ", ".join(state.lost_legs),
        "known as": ", ".join(f"{leg} {reference}" for leg, reference in state.references.items()),
        "response": "" if state.response_id is None else f"{state.response_id} is under way",
    }
    table = _grid(1)
    for name, value in facts.items():
        if value:
            table.add_row(Text(name, style="dim"), _text(value))
    return table


def _end(reason: EndReason) -> str:
    text = f"ended: {reason.code}, by {reason.by}"
    text += f" ({reason.text})" if reason.text else ""
    return text + (f", because of {reason.cause}" if reason.cause else "")


def _conversation(history: Sequence[RealtimeItem]) -> Table:
    table = _grid(1)
    for item in history:
        if isinstance(item, RealtimeToolCallItem):
            table.add_row(Text("tool", style="magenta"), _tool_call(item))
        else:
            speaker, style = _SPEAKERS[item.role]
            table.add_row(Text(speaker, style=style), _message(item))
    return table


def _tool_call(item: RealtimeToolCallItem) -> Text:
    text = _text(f"{item.name}({item.arguments})")
    return text.append(" has no output", "dim") if item.output is None else text.append_text(_text(f" = {item.output}"))


def _message(item: RealtimeItem) -> Text:
    text, notes = Text(), list[str]()
    for part in () if isinstance(item, RealtimeToolCallItem) else item.content:
        if text:
            text.append("\n")
        if isinstance(part, InputImage):
            text.append("(an image)", "dim")
            continue
        words = part.transcript if isinstance(part, InputAudio | AssistantAudio) else part.text
        text.append_text(_text(words) if words else Text("(no words)", "dim"))
        if isinstance(part, AssistantAudio) and part.heard_ms is not None and part.heard_ms < part.audio_ms:
            # The words are those that were heard; the rest was forgotten, by the model too.
            notes.append(f"cut: {part.heard_ms / 1000:.1f} s heard of {part.audio_ms / 1000:.1f} s")
    if isinstance(item, AssistantMessageItem):
        if item.status == "in_progress":
            notes.append("not finished")
        elif item.status == "incomplete" and not notes:
            notes.append("incomplete")
        notes += [f"guardrail: {name}" for name in item.guardrails]
    return text.append_text(_text("".join(f" [{note}]" for note in notes), "yellow"))


def _open_call(call: OpenToolCall) -> Text:
    again = ", may run again" if call.idempotent else ""
    text = _text(f"{call.name}({call.arguments})")
    return text.append_text(_text(f"  {call.stage.value.replace('_', ' ')}{again}, call {call.call_id}", "yellow"))


def _unknown_outcome(known: UnknownOutcome, session_id: str) -> Text:
    text = _text(f"{known.name}({known.arguments})")
    key = _text(f"  {known.code}, {_time(known.time)}, idempotency key {session_id}:{known.call_id}", "yellow")
    return text.append_text(key)


def _grid(unwrapped: int) -> Table:
    """A table without lines whose first columns keep their words together."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in range(unwrapped):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _text(text: str, style: str = "") -> Text:
    return Text(printable(text), style=style)


def _time(unix: float) -> str:
    return datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _length(began: float, ended: float) -> str:
    # The clocks of two nodes may differ.
    return str(timedelta(seconds=max(0, round(ended - began))))


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
