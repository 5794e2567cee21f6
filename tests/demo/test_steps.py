"""The demo's steps: all seen in a good call, and each missed by name when it does not happen."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from orchestrator.demo.record import CallerView, CallRecord, Cut
from orchestrator.demo.steps import check

replace = msgspec.structs.replace


def missing(caller: CallerView, record: CallRecord | None) -> list[str]:
    return [step.name for step in check(caller, record) if not step.seen]


def test_a_good_call_shows_every_step(caller: CallerView, record: CallRecord) -> None:
    assert missing(caller, record) == []


def test_a_call_that_was_never_answered_shows_none(caller: CallerView) -> None:
    steps = check(CallerView(trouble="31902: nobody listens"), None)
    assert not any(step.seen for step in steps)
    assert steps[0].detail == "31902: nobody listens"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"answer_began_ms": None, "trouble": "no voice"}, "answer_heard"),
        ({"cut": Cut(heard_ms=2010, dropped_ms=0)}, "barge_in"),
        ({"cut": Cut(heard_ms=2400, dropped_ms=6000)}, "history_cut"),
        ({"goodbye_began_ms": None}, "goodbye_heard"),
        ({"goodbye_began_ms": 4400.0}, "goodbye_heard"),
        ({"hung_up": False}, "ended"),
        ({"violations": ["31951: not JSON"]}, "clean_protocol"),
    ],
)
def test_names_what_the_caller_missed(caller: CallerView, record: CallRecord, change: dict[str, Any], name: str) -> None:
    assert missing(replace(caller, **change), record) == [name]


@pytest.mark.parametrize(
    ("kind", "change", "names"),
    [
        ("user", None, ["question_heard", "goodbye_heard"]),
        ("tool", None, ["tool_called"]),
        ("tool", {"pid": 4001}, ["tool_called"]),
        ("tool", {"pid": None}, ["tool_called"]),
        ("tool", {"ok": False}, ["tool_called"]),
        ("tool", {"name": "other"}, ["tool_called"]),
        ("tool", {"arguments": '{"order_id":"1"}'}, ["tool_called"]),
        ("tool", {"arguments": "{"}, ["tool_called"]),
        ("tool", {"arguments": "[]"}, ["tool_called"]),
        ("agent", None, ["answer_heard"]),
        ("interruption", None, ["history_cut"]),
        ("interruption", {"heard_ms": 0}, ["history_cut"]),
        ("interruption", {"sent_ms": 2010}, ["history_cut"]),
        ("end", None, ["ended"]),
    ],
)
def test_names_what_the_record_lacks(
    caller: CallerView, record: CallRecord, kind: str, change: dict[str, Any] | None, names: list[str]
) -> None:
    entries = [entry for entry in record.entries if entry.kind != kind]
    if change is not None:
        entries += [replace(entry, **change) for entry in record.of_kind(kind)]
    assert missing(caller, replace(record, entries=entries)) == names


def test_a_record_without_an_actor_is_none(caller: CallerView, record: CallRecord) -> None:
    assert missing(caller, replace(record, session_actor_pid=None)) == ["session_actor"]
