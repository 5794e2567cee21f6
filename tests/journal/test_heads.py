"""One owner at a time: the rule as a table, and under any interleaving of writers."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import EndReason
from orchestrator.journal.entries import AgentChanged, Body, CallEnded, CallStarted, Snapshot, TakenOver
from orchestrator.journal.heads import Head, Verdict, head_after, judge
from tests.journal.writing import entry

NEW: Head | None = None
AT_3 = Head("s1", 1, "a", 3)
OVER = Head("s1", 1, "a", 3, ended=True)
STARTED, FACT, TAKEN, END = CallStarted("openai", "A"), AgentChanged("B"), TakenOver("x"), CallEnded(EndReason("x"))
SNAPSHOT = Snapshot(msgspec.Raw(b"{}"))
AFTER_A, AFTER_X = TakenOver("x", after="a"), TakenOver("x", after="x")
SNAPSHOT_AFTER_A, SNAPSHOT_AFTER_X = Snapshot(msgspec.Raw(b"{}"), "a"), Snapshot(msgspec.Raw(b"{}"), "x")

FACTS: tuple[Body, ...] = (STARTED, FACT, TAKEN, END)

CASES: list[tuple[str, Head | None, Body, int, int, str, Verdict]] = [
    ("a call begins", NEW, STARTED, 1, 1, "a", Verdict.WRITE),
    ("its beginning is missing", NEW, FACT, 2, 1, "a", Verdict.GAP),
    ("a snapshot stands for the beginning", NEW, SNAPSHOT, 9, 1, "a", Verdict.WRITE),
    ("the next entry", AT_3, FACT, 4, 1, "a", Verdict.WRITE),
    ("written before", AT_3, FACT, 3, 1, "a", Verdict.KNOWN),
    ("one is missing", AT_3, FACT, 5, 1, "a", Verdict.GAP),
    ("a snapshot follows a hole", AT_3, SNAPSHOT, 9, 1, "a", Verdict.WRITE),
    ("a stranger of the same epoch", AT_3, FACT, 4, 1, "b", Verdict.STALE),
    ("an owner of old", Head("s1", 2, "b", 4), FACT, 4, 1, "a", Verdict.STALE),
    ("its snapshot is as old", Head("s1", 2, "b", 4), SNAPSHOT, 9, 1, "a", Verdict.STALE),
    ("a takeover", AT_3, TAKEN, 4, 2, "b", Verdict.WRITE),
    ("a takeover that has not read all", AT_3, TAKEN, 3, 2, "b", Verdict.STALE),
    ("a takeover that skips an epoch", AT_3, TAKEN, 4, 3, "b", Verdict.STALE),
    ("the second of two takeovers", Head("s1", 2, "b", 4), TAKEN, 4, 2, "c", Verdict.STALE),
    ("the same takeover again", Head("s1", 2, "b", 4), TAKEN, 4, 2, "b", Verdict.KNOWN),
    ("a takeover from its predecessor", AT_3, AFTER_A, 4, 2, "b", Verdict.WRITE),
    ("a takeover from somebody else of that epoch", AT_3, AFTER_X, 4, 2, "b", Verdict.STALE),
    ("a takeover that knows more than is here", AT_3, AFTER_A, 6, 2, "b", Verdict.GAP),
    ("a takeover that knows more, from an unknown one", AT_3, TAKEN, 6, 2, "b", Verdict.STALE),
    ("an owner whose takeover is missing", AT_3, FACT, 5, 2, "b", Verdict.GAP),
    ("a snapshot that is a takeover", AT_3, SNAPSHOT_AFTER_A, 9, 2, "b", Verdict.WRITE),
    ("a snapshot of one that is no owner", AT_3, SNAPSHOT, 9, 2, "b", Verdict.STALE),
    ("a snapshot of somebody else's successor", AT_3, SNAPSHOT_AFTER_X, 9, 2, "b", Verdict.STALE),
    ("a snapshot that has not read all", AT_3, SNAPSHOT_AFTER_A, 3, 2, "b", Verdict.STALE),
    ("a snapshot of the second to take over", Head("s1", 2, "b", 4), SNAPSHOT_AFTER_A, 9, 2, "c", Verdict.STALE),
    ("no snapshot takes over what is over", OVER, SNAPSHOT_AFTER_A, 9, 2, "b", Verdict.STALE),
    ("nothing follows the end", OVER, FACT, 4, 1, "a", Verdict.STALE),
    ("nobody takes over what is over", OVER, TAKEN, 4, 2, "b", Verdict.STALE),
    ("the end again", OVER, END, 3, 1, "a", Verdict.KNOWN),
]


@pytest.mark.parametrize(
    ("head", "body", "seq", "epoch", "writer", "verdict"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_the_rule(head: Head | None, body: Body, seq: int, epoch: int, writer: str, verdict: Verdict) -> None:
    assert judge(head, entry(body, seq, epoch=epoch, writer=writer)) is verdict


@given(st.data())
def test_at_most_one_writer_owns_an_epoch_and_epochs_only_grow(data: st.DataObject) -> None:
    head: Head | None = None
    owners: dict[int, str] = {}
    written: list[tuple[int, int]] = []
    for _ in range(data.draw(st.integers(1, 40))):
        body = data.draw(st.sampled_from(FACTS))
        seq = data.draw(st.integers(1, 6)) + (0 if head is None else head.last_seq - 2)
        epoch = data.draw(st.integers(1, 3)) + (0 if head is None else head.epoch - 1)
        made = entry(body, max(seq, 1), epoch=epoch, writer=data.draw(st.sampled_from("abc")))
        if judge(head, made) is not Verdict.WRITE:
            continue
        assert head is None or not head.ended
        assert owners.setdefault(made.epoch, made.writer) == made.writer
        written.append((made.epoch, made.seq))
        head = head_after(made)
    assert written == sorted(written)
    assert [seq for _, seq in written] == list(range(1, len(written) + 1))


def test_the_rule_does_not_fail_for_what_it_cannot_read() -> None:
    damaged = msgspec.structs.replace(entry(TAKEN, 4, epoch=2, writer="b"), body=b"\xff", version=99)
    assert judge(AT_3, damaged) is Verdict.WRITE
    other = msgspec.structs.replace(entry(SNAPSHOT, 4, epoch=2, writer="b"), body=b"[]", version=99)
    assert judge(AT_3, other) is Verdict.STALE
