"""The steps that the demo's call must show, each checked by name. Pure, so that a missing step can be tested."""

from __future__ import annotations

import json
import os

from orchestrator.demo.record import CallerView, CallRecord, Entry, Step

__all__ = ["ANSWER_ORDER", "CUT_TOLERANCE_MS", "check"]

ANSWER_ORDER = "4711"

# The service measures where it cuts, the telephone where the cut arrives: one frame, and what a busy machine adds.
CUT_TOLERANCE_MS = 120.0


def check(caller: CallerView, record: CallRecord | None) -> list[Step]:
    """Compare what the caller saw and what the service wrote down with what must have happened."""
    call = record or CallRecord(session_id="")
    interruption = next(iter(call.of_kind("interruption")), None)
    return [
        _step("answered", "The service took the call.", seen=caller.answered, detail=caller.trouble or ""),
        _recorded(record),
        _question(call),
        _tool(call),
        _answer(caller, call),
        _barge_in(caller),
        _cut(caller, interruption),
        _goodbye(caller, call),
        _end(caller, call),
        _clean(caller),
    ]


def _step(name: str, text: str, *, seen: bool, detail: str = "") -> Step:
    return Step(name=name, text=text, seen=seen, detail=detail)


def _recorded(record: CallRecord | None) -> Step:
    detail = f"session actor {record.session_actor_pid}" if record else "the service knows no such call"
    seen = record is not None and record.session_actor_pid not in (None, os.getpid())
    return _step("session_actor", "A session actor owned it, and kept a record.", seen=seen, detail=detail)


def _question(record: CallRecord) -> Step:
    said = [entry.text for entry in record.of_kind("user") if entry.text]
    return _step("question_heard", "The agent heard the question.", seen=bool(said), detail=said[0] if said else "")


def _tool(record: CallRecord) -> Step:
    text = "The tool ran on a tool actor, in another process than the session."
    calls = record.of_kind("tool")
    if not calls:
        return _step("tool_called", text, seen=False, detail="no tool was called")
    call = calls[0]
    elsewhere = call.pid not in (None, record.session_actor_pid, os.getpid())
    seen = call.ok and elsewhere and call.name == "lookup_order" and _order_of(call) == ANSWER_ORDER
    return _step("tool_called", text, seen=seen, detail=f"{call.name}({call.arguments}) on pid {call.pid}")


def _order_of(call: Entry) -> str | None:
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        return None
    return str(arguments.get("order_id")) if isinstance(arguments, dict) else None


def _answer(caller: CallerView, record: CallRecord) -> Step:
    text = "The caller heard the answer."
    if caller.answer_wait_ms is None:
        return _step("answer_heard", text, seen=False, detail=caller.trouble or "")
    detail = f"{caller.answer_wait_ms:.0f} ms after the question"
    return _step("answer_heard", text, seen=bool(record.of_kind("agent")), detail=detail)


def _barge_in(caller: CallerView) -> Step:
    text = "The answer stopped when the caller spoke."
    seen = caller.cut is not None and caller.cut.dropped_ms > 0
    detail = "" if caller.cut is None else f"{caller.cut.dropped_ms:.0f} ms of it were never played"
    return _step("barge_in", text, seen=seen, detail=detail)


def _cut(caller: CallerView, interruption: Entry | None) -> Step:
    text = "The history ends where the caller stopped hearing."
    if interruption is None or caller.cut is None:
        return _step("history_cut", text, seen=False, detail="no interruption on record")
    difference = interruption.heard_ms - caller.cut.heard_ms
    seen = 0 < interruption.heard_ms < interruption.sent_ms and abs(difference) <= CUT_TOLERANCE_MS
    detail = (
        f"{interruption.heard_ms:.0f} ms on record, {caller.cut.heard_ms:.0f} ms at the telephone ({difference:+.0f} ms), "
        f"{interruption.sent_ms:.0f} ms sent"
    )
    return _step("history_cut", text, seen=seen, detail=detail)


def _goodbye(caller: CallerView, record: CallRecord) -> Step:
    text = "After the interruption the agent listened, and said goodbye."
    replied = caller.goodbye_began_ms is not None and caller.cut_ms is not None and caller.goodbye_began_ms > caller.cut_ms
    seen = replied and len(record.of_kind("user")) >= 2
    return _step("goodbye_heard", text, seen=seen, detail="" if replied else caller.trouble or "")


def _end(caller: CallerView, record: CallRecord) -> Step:
    ends = record.of_kind("end")
    detail = ends[-1].text or "" if ends else "no end on record"
    return _step("ended", "The caller hung up, and the end is on record.", seen=caller.hung_up and bool(ends), detail=detail)


def _clean(caller: CallerView) -> Step:
    text = "Every message to the carrier was as the carrier wants it."
    return _step(
        "clean_protocol", text, seen=caller.answered and not caller.violations, detail="; ".join(caller.violations[:3])
    )
