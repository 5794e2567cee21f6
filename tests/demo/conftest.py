"""A call as it should go: what the service recorded and what its caller saw."""

from __future__ import annotations

import json

import msgspec
import pytest

from orchestrator.demo.record import CallerView, CallRecord, Cut

RECORD = {
    "session_id": "sess_1",
    "channel": "twilio",
    "session_actor_pid": 4001,
    "entries": [
        {"at_ms": 1900.0, "kind": "user", "text": "Where is my order four seven one one?"},
        {
            "at_ms": 2010.5,
            "kind": "tool",
            "name": "lookup_order",
            "arguments": '{"order_id":"4711"}',
            "output": '{"status":"on its way"}',
            "pid": 5001,
            "seconds": 0.0021,
            "ok": True,
        },
        {"at_ms": 2100.0, "kind": "agent", "item_id": "item_A", "text": "Thank you for waiting,"},
        {
            "at_ms": 4500.0,
            "kind": "interruption",
            "item_id": "item_A",
            "heard_ms": 2010,
            "sent_ms": 9000,
            "transcript": "Thank you for waiting,",
        },
        {"at_ms": 5200.0, "kind": "user", "text": "Thank you, goodbye."},
        {"at_ms": 5900.0, "kind": "agent", "item_id": "item_B", "text": "Goodbye!"},
        {"at_ms": 8000.0, "kind": "end", "text": "the caller hung up", "something_new": 1},
    ],
    "timings": {"accept_to_101_ms": 0.61, "first_audio_ms": [640.0, 580.0], "barge_in_to_clear_ms": [1.3]},
}


@pytest.fixture
def record() -> CallRecord:
    return msgspec.json.decode(json.dumps(RECORD), type=CallRecord)


@pytest.fixture
def caller() -> CallerView:
    return CallerView(
        answered=True,
        question_ended_ms=1890.0,
        answer_began_ms=2500.0,
        interruption_began_ms=4400.0,
        interruption_ended_ms=5150.0,
        cut_ms=4502.0,
        cut=Cut(heard_ms=2020.0, dropped_ms=6980.0),
        goodbye_began_ms=5950.0,
        hung_up=True,
        heard_ms=3100.0,
    )
