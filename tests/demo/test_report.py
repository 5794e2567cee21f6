"""The demo's report, for people and for machines."""

from __future__ import annotations

import json

import msgspec
from rich.console import Console

from orchestrator.demo.record import CallerView, CallRecord, DemoResult
from orchestrator.demo.report import render
from orchestrator.demo.steps import check


def make_result(caller: CallerView, record: CallRecord | None) -> DemoResult:
    steps = check(caller, record)
    return DemoResult(
        endpoint="the offline endpoint", steps=steps, record=record, caller=caller, gateway_pid=3001, log="logs/demo"
    )


def printed(result: DemoResult) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(render(result))
    return capture.get()


def test_tells_the_call_in_the_order_of_time(caller: CallerView, record: CallRecord) -> None:
    text = printed(make_result(caller, record))
    lines = [
        "Where is my order four seven one one?",
        'lookup_order({"order_id":"4711"}) = {"status":"on its way"}',
        "ran on tool actor 5001 in 2.1 ms",
        "Thank you for waiting, [cut]",
        "the caller cuts in: 2010 ms heard of 9000 ms sent",
        "Thank you, goodbye.",
        "Goodbye!",
        "the caller hung up",
    ]
    places = [text.find(line) for line in lines]
    assert places == sorted(places)
    assert places[0] > 0


def test_gives_the_numbers(caller: CallerView, record: CallRecord) -> None:
    text = printed(make_result(caller, record))
    for line in (
        "0.61 ms",
        "640 ms, 580 ms",
        "610 ms, 800 ms",
        "1.30 ms",
        "2010 of 9000 ms sent",
        "had played 2020 ms",
        "session actor 4001",
    ):
        assert line in text
    assert "tool actor 5001, gateway 3001" in text
    assert "Not seen" not in text
    assert "logs/demo" not in text


def test_lists_what_was_not_seen_and_where_the_logs_are(caller: CallerView) -> None:
    result = make_result(CallerView(answered=True, trouble="no voice of the agent within 30 s"), None)
    assert not result.ok
    text = printed(result)
    assert "Not seen: session_actor, question_heard" in text
    assert "no voice of the agent within 30 s" in text
    assert "logs/demo" in text


def test_machines_get_one_object(caller: CallerView, record: CallRecord) -> None:
    good = json.loads(make_result(caller, record).as_json())
    assert good["ok"] is True
    assert good["missing"] == []
    assert good["record"]["session_actor_pid"] == 4001
    assert good["caller"]["cut"] == {"heard_ms": 2020.0, "dropped_ms": 6980.0}
    bad = json.loads(make_result(msgspec.structs.replace(caller, hung_up=False), record).as_json())
    assert bad["ok"] is False
    assert bad["missing"] == ["ended"]


def test_a_call_without_any_entry_can_be_shown(caller: CallerView) -> None:
    assert "Not seen" in printed(make_result(caller, CallRecord(session_id="sess_1")))
