"""A call is rebuilt from its journal, fact by fact."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.journal.entries import (
    FORMAT,
    ApprovalAsked,
    ApprovalGiven,
    Body,
    CallStarted,
    ContextChanged,
    Entry,
    ItemDeleted,
    ItemWritten,
    LegChanged,
    ResponseEnded,
    ResponseStarted,
    Snapshot,
    TakenOver,
    ToolAnswered,
    ToolRequested,
    ToolStarted,
)
from orchestrator.journal.items import record_of
from orchestrator.journal.state import CallState, ToolStage, replay
from tests.journal.writing import ANSWERED, ASKED, CALL, CALLED, entries, entry

GOLDEN = Path(__file__).parent / "golden"
REQUESTED = ToolRequested("call_1", "item_3", "track", "{}", "resp_1")


def state_of(*bodies: Body) -> CallState:
    return replay("s1", entries(*bodies))


def test_a_whole_call() -> None:
    state = state_of(*CALL)
    assert state.history == [ASKED, CALLED, ANSWERED]
    assert (state.channel, state.agent, state.peer) == ("twilio", "Parcels", "192.0.2.7")
    assert (state.requests, state.input_tokens, state.output_tokens, state.total_tokens) == (1, 10, 20, 30)
    assert (state.epoch, state.takeovers, state.node, state.last_seq) == (2, 1, "node-2", len(CALL))
    assert state.references == {"caller": "CA1"}
    assert state.lost_legs == []
    assert state.tool_calls == {}
    assert state.response_id is None
    assert state.end is not None
    assert state.end.code == "caller_hung_up"


def test_items_keep_the_order_in_which_they_stand_not_that_in_which_they_came() -> None:
    state = state_of(
        CALL[0], ItemWritten(record_of(ANSWERED)), ItemWritten(record_of(ASKED)), ItemWritten(record_of(CALLED), "item_1")
    )
    assert state.order == ["item_1", "item_3", "item_2"]


def test_a_deleted_item_is_gone_and_its_followers_go_to_the_end() -> None:
    state = state_of(CALL[0], ItemWritten(record_of(ASKED)), ItemDeleted("item_1"), ItemWritten(record_of(CALLED), "item_1"))
    assert state.order == ["item_3"]


@pytest.mark.parametrize(
    ("facts", "stage"),
    [
        ((), ToolStage.REQUESTED),
        ((ApprovalAsked("call_1"),), ToolStage.AWAITING_APPROVAL),
        ((ApprovalAsked("call_1"), ApprovalGiven("call_1", approved=True)), ToolStage.APPROVED),
        ((ApprovalAsked("call_1"), ApprovalGiven("call_1", approved=False)), ToolStage.REJECTED),
        ((ToolStarted("call_1", idempotent=True),), ToolStage.RUNNING),
    ],
)
def test_an_open_tool_call_is_found_where_it_stood(facts: tuple[Body, ...], stage: ToolStage) -> None:
    call = state_of(CALL[0], REQUESTED, *facts).tool_calls["call_1"]
    assert call.stage is stage
    assert call.idempotent is (stage is ToolStage.RUNNING)


def test_an_answered_call_is_closed_and_a_standing_decision_stays() -> None:
    state = state_of(CALL[0], REQUESTED, ApprovalGiven("call_1", approved=False, always=True), ToolAnswered("call_1", "no"))
    assert state.tool_calls == {}
    assert [(known.agent, known.tool, known.approved) for known in state.decisions] == [("Reception", "track", False)]


def test_facts_that_fit_nothing_change_nothing() -> None:
    before = state_of(CALL[0]).to_json()
    after = state_of(CALL[0])
    strays: tuple[Body, ...] = (ToolAnswered("x", ""), ApprovalAsked("x"), ToolStarted("x"), ItemDeleted("x"))
    for seq, body in enumerate(strays, 2):
        after.apply(entry(body, seq))
    after.last_seq = 1
    assert after.to_json() == before


def test_a_lost_leg_is_known_until_it_is_back() -> None:
    assert state_of(CALL[0], LegChanged("model", "lost"), LegChanged("caller", "lost")).lost_legs == ["model", "caller"]
    assert state_of(CALL[0], LegChanged("model", "lost"), LegChanged("model", "back", reference="sess_2")).lost_legs == []


def test_a_snapshot_stands_for_all_that_was_before_it() -> None:
    whole = state_of(*CALL[:12])
    told = state_of(CallStarted("openai", "Nobody"), TakenOver("x"), Snapshot(msgspec.Raw(whole.to_json())))
    told.last_seq, told.epoch, told.writer = whole.last_seq, whole.epoch, whole.writer
    assert told.to_json() == whole.to_json()


def test_what_the_tools_are_given_is_kept_to_the_byte() -> None:
    assert state_of(CALL[0], ContextChanged(msgspec.Raw(b'{"b":1,"a":2}'))).context == msgspec.Raw(b'{"b":1,"a":2}')


def test_a_response_that_ended_with_its_owner_is_known_until_another_one_begins() -> None:
    cut: list[Body] = [CallStarted("openai", "Reception"), ResponseStarted("resp_1"), TakenOver("actor_died")]
    assert (state_of(*cut).response_id, state_of(*cut).cut_response) == (None, "resp_1")
    # An owner that dies before it has dealt with that leaves it to the next one.
    assert state_of(*cut, TakenOver("actor_died")).cut_response == "resp_1"
    assert state_of(*cut, ResponseStarted("resp_2")).cut_response is None
    assert state_of(*cut, ResponseEnded("resp_1", "cancelled")).cut_response is None
    assert state_of(*cut[:2], ResponseEnded("resp_1", "completed"), TakenOver("actor_died")).cut_response is None


@given(st.lists(st.sampled_from(CALL), max_size=30), st.integers(0, 30))
def test_a_state_that_was_written_out_goes_on_like_one_that_was_not(bodies: list[Body], cut: int) -> None:
    journal = entries(*bodies)
    state = replay("s1", journal[:cut])
    restored = msgspec.json.decode(state.to_json(), type=CallState)
    for one in journal[cut:]:
        restored.apply(one)
    assert restored.to_json() == replay("s1", journal).to_json()


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.jsonl")), ids=lambda path: str(path.stem))
def test_journals_of_every_format_replay(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    journal = [msgspec.json.decode(line, type=Entry) for line in lines[:-1]]
    # The state as the code of that format wrote it, with what later code has added to it.
    told = msgspec.json.decode(lines[-1], type=CallState)
    assert replay(journal[0].session_id, journal).to_json() == told.to_json()


def test_there_is_a_golden_journal_of_the_present_format() -> None:
    assert (GOLDEN / f"format-{FORMAT}.jsonl").exists()
