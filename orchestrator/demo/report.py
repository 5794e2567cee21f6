"""The demo's call, laid out as a person would want to read it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from orchestrator.demo.record import CallRecord, DemoResult, Entry, Timings

__all__ = ["render"]

_STYLES = {"user": "cyan", "agent": "green", "tool": "magenta", "interruption": "yellow", "end": "dim"}
_SPEAKERS = {"user": "caller", "interruption": ""}


def render(result: DemoResult) -> RenderableType:
    """Lay the result out for a terminal: the conversation, the numbers, the steps."""
    parts: list[RenderableType] = [Text(f"One phone call, model: {result.endpoint}", style="bold"), ""]
    if result.record is not None:
        parts += [_conversation(result.record), "", _numbers(result, result.record), ""]
    parts.append(_steps(result))
    if not result.ok:
        missing = ", ".join(step.name for step in result.steps if not step.seen)
        parts += ["", Text(f"Not seen: {missing}", style="bold red")]
        if result.log is not None:
            parts.append(Text(f"The logs are in {result.log}", style="red"))
    return Group(*parts)


def _conversation(record: CallRecord) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    cut = {entry.item_id for entry in record.of_kind("interruption")} - {None}
    for entry in sorted(record.entries, key=lambda entry: entry.at_ms):
        style = _STYLES.get(entry.kind, "")
        speaker = Text(_SPEAKERS.get(entry.kind, entry.kind), style=style)
        table.add_row(f"{entry.at_ms / 1000:.2f} s", speaker, _line(entry, was_cut=entry.item_id in cut))
    return table


def _line(entry: Entry, *, was_cut: bool) -> Text:
    if entry.kind == "tool":
        outcome = "" if entry.ok else ", failed"
        text = Text(f"{entry.name}({entry.arguments}) = {entry.output}")
        return text.append(f"\nran on tool actor {entry.pid} in {entry.seconds * 1000:.1f} ms{outcome}", style="dim")
    if entry.kind == "interruption":
        return Text(f"the caller cuts in: {entry.heard_ms:.0f} ms heard of {entry.sent_ms:.0f} ms sent", style="yellow")
    text = Text(entry.text or "(not transcribed)", style="" if entry.text else "dim")
    if entry.kind == "agent" and was_cut:
        # The record holds what was heard; the rest was forgotten, by the model too.
        text.append(" [cut]", style="yellow")
    return text


def _numbers(result: DemoResult, record: CallRecord) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    timings: Timings = record.timings
    table.add_row("accept to 101", _ms(timings.accept_to_101_ms, digits=2))
    table.add_row("end of speech to first audio", ", ".join(_ms(value) for value in timings.first_audio_ms) or "-")
    waits = [value for value in (result.caller.answer_wait_ms, result.caller.goodbye_wait_ms) if value is not None]
    table.add_row("the same, at the telephone", ", ".join(_ms(value) for value in waits) or "-")
    table.add_row("barge-in to clear", ", ".join(_ms(value, digits=2) for value in timings.barge_in_to_clear_ms) or "-")
    cut, interruptions = result.caller.cut, record.of_kind("interruption")
    if cut is not None and interruptions:
        entry = interruptions[0]
        place = f"{entry.heard_ms:.0f} of {entry.sent_ms:.0f} ms sent; the telephone had played {cut.heard_ms:.0f} ms"
        table.add_row("playback cut at", place)
    pids = [f"session actor {record.session_actor_pid}"]
    pids += [f"tool actor {entry.pid}" for entry in record.of_kind("tool")[:1]]
    pids += [f"gateway {result.gateway_pid}"] if result.gateway_pid else []
    table.add_row("processes", ", ".join(pids))
    return table


def _ms(value: float | None, digits: int = 0) -> str:
    return "-" if value is None else f"{value:.{digits}f} ms"


def _steps(result: DemoResult) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    for step in result.steps:
        mark = Text("yes", style="green") if step.seen else Text("NO", style="bold red")
        table.add_row(mark, step.text, Text(step.detail, style="dim"))
    return table
