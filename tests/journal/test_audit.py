"""A sound journal passes every check, and each kind of damage is found by the check that is there for it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.items import UserMessageItem
from orchestrator.errors import EndReason, JournalFormatError
from orchestrator.journal.audit import Audit, Finding, audit, rebuild
from orchestrator.journal.entries import FORMAT, AgentChanged, CallEnded, CallStarted, Entry, ItemWritten, Snapshot, TakenOver
from orchestrator.journal.heads import Head, head_after
from orchestrator.journal.items import history_digest, record_of
from orchestrator.journal.state import replay
from tests.journal.writing import ASKED, FINISHED, HISTORY, entries, entry

JOURNAL = entries(*FINISHED)
GOLDEN = Path(__file__).parent / "golden"
HELD, BROKEN, NOT_RECORDED, NOT_DUE = Finding.HOLDS, Finding.BROKEN, Finding.NOT_RECORDED, Finding.NOT_DUE


def audited(journal: list[Entry], head: Head | None = None) -> Audit:
    return audit("s1", head or head_after(journal[-1]), journal)


def findings(found: Audit) -> dict[str, Finding]:
    return {check.name: check.finding for check in found.checks}


def broken(found: Audit) -> set[str]:
    return {check.name for check in found.checks if check.finding is BROKEN}


def detail(found: Audit, name: str) -> str:
    return next(check.detail for check in found.checks if check.name == name)


def test_a_whole_call_passes() -> None:
    found = audited(JOURNAL)
    assert found.ok
    assert set(findings(found).values()) == {HELD}
    assert found.entries == len(JOURNAL)
    assert detail(found, "owners") == "2 owners, one after the other"


def test_a_call_that_goes_on_has_nothing_to_compare_yet() -> None:
    found = audited(JOURNAL[:7])
    assert found.ok
    assert findings(found)["history"] is NOT_DUE


def test_what_was_written_after_the_head_was_read_is_left_out() -> None:
    found = audited(JOURNAL, head_after(JOURNAL[6]))
    assert found.ok
    assert found.entries == 7


def test_an_end_without_a_digest_is_no_proof() -> None:
    found = audited(entries(*FINISHED[:-1], CallEnded(EndReason("node_lost"))))
    assert findings(found)["history"] is NOT_RECORDED
    assert broken(found) == set()
    assert not found.ok


@given(st.integers(0, len(JOURNAL) - 1))
def test_a_missing_entry_is_named(index: int) -> None:
    journal = JOURNAL[:index] + JOURNAL[index + 1 :]
    found = audited(journal, head_after(JOURNAL[-1]))
    assert not found.ok
    if index < len(journal):
        assert detail(found, "contiguous") == f"entry {index + 1} is missing"
        assert broken(found) >= {"contiguous", "owners"}
    else:
        assert broken(found) == {"head"}


def test_a_row_of_missing_entries_is_named() -> None:
    assert detail(audited(JOURNAL[:3] + JOURNAL[6:]), "contiguous") == "entries 4 to 6 are missing"


def test_all_entries_missing_is_found() -> None:
    found = audited([], head_after(JOURNAL[-1]))
    assert broken(found) == {"head"}
    assert not found.ok


def test_a_snapshot_mends_a_gap() -> None:
    state = replay("s1", JOURNAL[:9])
    journal = [*JOURNAL[:4], entry(Snapshot(msgspec.Raw(state.to_json())), 10)]
    digest = history_digest(state.history)
    journal.append(entry(CallEnded(EndReason("caller_hung_up"), digest), 11))
    found = audited(journal)
    assert found.ok
    assert detail(found, "contiguous").endswith("1 gap before a snapshot that tells everything again")


@pytest.mark.parametrize(
    "intruder",
    [
        entry(AgentChanged("X"), 8, writer="z"),
        entry(AgentChanged("X"), 8, epoch=2),
        entry(TakenOver("me"), 8, epoch=3, writer="z"),
        entry(CallStarted("twilio", "X"), 8, epoch=2, writer="z"),
    ],
    ids=["another writer", "an epoch that nobody began", "an epoch left out", "a second beginning"],
)
def test_an_entry_of_somebody_else_is_found(intruder: Entry) -> None:
    found = audited([*JOURNAL[:7], intruder])
    assert broken(found) == {"owners"}
    assert detail(found, "owners").startswith(f"entry 8 ({intruder.kind}, epoch {intruder.epoch}, by {intruder.writer})")


def test_an_entry_after_the_end_is_found() -> None:
    late = entry(AgentChanged("X"), len(JOURNAL) + 1, epoch=2, writer="a2")
    assert "owners" in broken(audited([*JOURNAL, late]))


@pytest.mark.parametrize("change", [{"last_seq": 18}, {"epoch": 3}, {"writer": "b"}, {"ended": False}])
def test_a_store_that_says_otherwise_is_found(change: dict[str, object]) -> None:
    head = msgspec.structs.replace(head_after(JOURNAL[-1]), **change)
    assert "head" in broken(audit("s1", head, JOURNAL))


def test_a_history_that_differs_is_found_without_being_told() -> None:
    changed = UserMessageItem(item_id="item_1", content=())
    body = ItemWritten(record_of(changed))
    journal = [entry(body, 2) if written.seq == 2 else written for written in JOURNAL]
    found = audited(journal)
    assert broken(found) == {"history"}
    assert detail(found, "history").startswith("3 items with digest ")


def test_a_changed_order_is_found() -> None:
    moved = ItemWritten(record_of(HISTORY[2]), after=None)
    journal = [msgspec.structs.replace(w, body=entry(moved, 14).body) if w.seq == 14 else w for w in JOURNAL]
    assert broken(audited(journal)) == {"history"}


DAMAGE = {
    "torn": b'{"kind":"item","item":{"secret',
    "no id": b'{"kind":"item","item":{"type":"message","role":"user","content":["secret"]}}',
    "no kind of part": b'{"kind":"item","item":{"item_id":"i","type":"message","role":"user","content":[{"text":"secret"}]}}',
    "no such role": b'{"kind":"item","item":{"item_id":"i","type":"message","role":"secret"}}',
}


@pytest.mark.parametrize("body", DAMAGE.values(), ids=DAMAGE)
def test_a_body_that_makes_no_sense_is_named_and_not_shown(body: bytes) -> None:
    journal = [msgspec.structs.replace(written, body=body) if written.seq == 2 else written for written in JOURNAL]
    found = audited(journal)
    assert broken(found) == {"readable", "history"}
    assert "of session s1 cannot be read" in detail(found, "readable")
    assert "secret" not in detail(found, "readable")
    with pytest.raises(JournalFormatError):
        rebuild("s1", journal)


def test_a_damaged_snapshot_is_named() -> None:
    journal = [*JOURNAL[:7], entry(Snapshot(msgspec.Raw(b'{"session_id":"s1","order":7}')), 8)]
    assert broken(audited(journal)) == {"readable", "history"}


def test_a_newer_format_says_what_to_do() -> None:
    journal = [msgspec.structs.replace(written, version=FORMAT + 1) for written in JOURNAL]
    assert "run the newer version" in detail(audited(journal), "readable")


def test_kinds_of_newer_code_are_counted() -> None:
    journal = [*JOURNAL[:7], msgspec.structs.replace(JOURNAL[7], kind="moved", body=b'{"kind":"moved"}')]
    found = audited(journal)
    assert found.ok
    assert detail(found, "readable") == "1 entry of kinds that this version does not know, passed over"


def test_journals_of_every_format_pass_but_for_what_they_did_not_record() -> None:
    for path in sorted(GOLDEN.glob("*.jsonl")):
        lines = path.read_bytes().splitlines()
        journal = [msgspec.json.decode(line, type=Entry) for line in lines[:-1]]
        assert broken(audited(journal)) == set()


def test_a_rebuilt_call_has_its_history() -> None:
    state, history = rebuild("s1", JOURNAL)
    assert history == list(HISTORY)
    assert state == replay("s1", JOURNAL)
    assert history[0] == ASKED
