"""The judge of a chaos run finds whatever is wrong, and nothing else."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from orchestrator.core.items import AssistantAudio, AssistantMessageItem, InputText, RealtimeItem, UserMessageItem
from orchestrator.errors import EndReason
from orchestrator.journal.entries import (
    Body,
    CallEnded,
    CallStarted,
    ItemWritten,
    LegChanged,
)
from orchestrator.journal.items import history_digest, record_of
from orchestrator.journal.stores import MemoryStore
from orchestrator.journal.tail import JournalTail
from tests.chaos.judge import Harm, Kind, blame, judge
from tests.chaos.labels import Hearing
from tests.chaos.report import Outcome, gaps_after, quantile, render
from tests.chaos.story import Blow, Effect, Said, Story, Tale, Turn
from tests.chaos.tales import read_tales

ID = "sess_one"


def conversation(turns: int = 3, **changes: Any) -> Story:
    told = {
        "began": True,
        "over": True,
        "turns": [Turn(number, "plain", 100.0 + number, 100.5 + number, 1) for number in range(1, turns + 1)],
    }
    return Story(caller=1, kind="conversation", path="direct", reference=ID, **{**told, **changes})


def phone(turns: int = 3, **changes: Any) -> Story:
    story = conversation(turns, **changes)
    story.kind = "phone"
    return story


def history(turns: int = 3) -> list[Said]:
    return [Said(role, number) for number in range(1, turns + 1) for role in ("user", "assistant")]


def tale(said: list[Said] | None = None, **changes: Any) -> Tale:
    told = {"ended": "caller_hung_up", **changes}
    return Tale(session_id=ID, reference=ID, history=history() if said is None else said, **told)


def kinds(harms: list[Harm]) -> list[Kind]:
    return [harm.kind for harm in harms]


def test_a_call_without_a_flaw_is_no_harm() -> None:
    effects = [Effect("book", f"{ID}:call_1", 2), Effect("reserve", f"{ID}:call_2", 3), Effect("reserve", f"{ID}:call_2", 3)]
    said = [Said("user", 1), Said("assistant", 1, complete=False), *history()[1:]]
    assert judge([conversation()], [tale(said)], effects, []) == []


def test_an_item_that_is_not_in_the_journal_is_lost() -> None:
    for gone in range(6):
        harms = judge([conversation()], [tale([said for place, said in enumerate(history()) if place != gone])], [], [])
        assert Kind.LOST_ITEM in kinds(harms)


def test_an_item_that_is_twice_in_the_journal_is_repeated() -> None:
    for place in range(6):
        said = history()
        said.insert(place, said[place])
        assert Kind.REPEATED_ITEM in kinds(judge([conversation()], [tale(said)], [], []))


def test_items_in_another_order_are_found() -> None:
    said = history()
    said[0], said[2] = said[2], said[0]
    assert Kind.DISORDER in kinds(judge([conversation()], [tale(said)], [], []))
    late = [Said("user", 1), Said("user", 2), Said("assistant", 1), Said("assistant", 2)]
    assert Kind.DISORDER in kinds(judge([conversation(2)], [tale(late)], [], []))


def test_a_turn_that_was_never_asked_is_found() -> None:
    assert Kind.DISORDER in kinds(judge([conversation(2)], [tale()], [], []))


def test_an_answer_that_the_caller_heard_twice_is_repeated() -> None:
    story = conversation()
    story.turns[1].answers = 2
    (harm,) = judge([story], [tale()], [], [])
    assert (harm.kind, harm.count) == (Kind.REPEATED_ITEM, 1)


def test_an_answer_that_the_caller_never_heard_is_lost() -> None:
    story = conversation()
    story.turns[1].answers = 0
    assert kinds(judge([story], [tale()], [], [])) == [Kind.LOST_ITEM]


def test_a_side_effect_that_happened_twice_is_found() -> None:
    twice = [Effect("book", f"{ID}:call_1", 2)] * 2
    assert kinds(judge([conversation()], [tale()], twice, [])) == [Kind.DOUBLE_EFFECT]
    again = [Effect("book", f"{ID}:call_1", 2), Effect("book", f"{ID}:call_2", 2)]
    assert kinds(judge([conversation()], [tale()], again, [])) == [Kind.DOUBLE_EFFECT]


def test_an_idempotent_effect_under_another_key_is_a_second_one() -> None:
    effects = [Effect("reserve", f"{ID}:call_1", 2), Effect("reserve", f"{ID}:call_2", 2)]
    assert kinds(judge([conversation()], [tale()], effects, [])) == [Kind.DOUBLE_EFFECT]


def test_a_lost_call_is_harm_and_its_last_turn_is_not_counted_again() -> None:
    story = conversation(over=False, lost="closed with 1006", lost_at=104.0)
    story.turns[-1].answers, story.turns[-1].answered_at = 0, None
    (harm,) = judge([story], [tale(history(2), ended="recovery_failed")], [], [])
    assert harm.kind is Kind.LOST_CALL


def test_a_journal_that_does_not_hold_is_harm() -> None:
    assert kinds(judge([conversation()], [tale(broken=["history: other"])], [], [])) == [Kind.BAD_JOURNAL]
    assert kinds(judge([conversation()], [tale(ended="shutdown")], [], [])) == [Kind.BAD_JOURNAL]
    assert kinds(judge([conversation()], [tale(missing=2)], [], [])) == [Kind.LOST_ENTRY]
    assert kinds(judge([conversation()], [], [], [])) == [Kind.LOST_ENTRY]
    assert kinds(judge([conversation()], [tale()], [], [], journal_lost=3)) == [Kind.LOST_ENTRY]


def test_what_was_wrong_with_a_stream_is_harm() -> None:
    assert kinds(judge([conversation(faults=["a frame without a label"])], [tale()], [], [])) == [Kind.BAD_STREAM]


@pytest.mark.parametrize(
    ("hearings", "found"),
    [
        ([Hearing(1, 0, 99)], []),
        ([Hearing(1, 0, 59), Hearing(1, 40, 99)], []),
        ([Hearing(1, 0, 49), Hearing(1, 60, 99)], [Kind.LOST_AUDIO]),
        ([Hearing(1, 0, 89)], [Kind.LOST_AUDIO]),
        ([Hearing(1, 3, 99)], [Kind.LOST_AUDIO]),
        ([Hearing(1, 0, 99, lost=2)], [Kind.LOST_AUDIO]),
        ([Hearing(1, 0, 99, doubled=2)], [Kind.DOUBLED_AUDIO]),
    ],
)
def test_frames_that_no_model_heard_or_one_heard_twice_are_found(hearings: list[Hearing], found: list[Kind]) -> None:
    spoken = [Said("user", 0), Said("assistant", 0)] * 3
    assert kinds(judge([phone(frames_sent=100)], [tale(spoken)], [], hearings)) == found


def test_where_a_model_died_with_what_it_had_heard_only_the_others_are_asked() -> None:
    spoken = [Said("user", 0)] * 3
    gap = [Hearing(1, 0, 49), Hearing(1, 60, 99)]
    assert judge([phone(frames_sent=100)], [tale(spoken)], [], gap, whole=False) == []


def test_spoken_turns_are_counted() -> None:
    assert kinds(judge([phone()], [tale([Said("user", 0)] * 2)], [], [])) == [Kind.LOST_ITEM]
    assert kinds(judge([phone()], [tale([Said("user", 0)] * 4)], [], [])) == [Kind.REPEATED_ITEM]


def test_a_harm_is_blamed_on_the_last_fault_before_it_was_over() -> None:
    blows = [Blow(kind="gateway", at=50.0), Blow(kind="endpoint", at=101.2), Blow(kind="supervisor", at=200.0)]
    assert blame(Harm(Kind.LOST_ITEM, "", "", since=101.0, until=101.5), blows) == "endpoint"
    assert blame(Harm(Kind.LOST_ITEM, "", "", since=150.0, until=151.0), blows) == "none"
    assert blame(Harm(Kind.BAD_STREAM, "", ""), blows) == "none"


def written(items: list[RealtimeItem], *, kept: list[RealtimeItem]) -> MemoryStore:
    """Journal a call whose history was `items` and whose owner had `kept` at the end; it was taken over in the middle."""
    store = MemoryStore()
    before = [None, *(item.item_id for item in items)]
    facts: list[Body] = [CallStarted("openai", "chaos")]
    facts += [ItemWritten(record_of(item), after) for item, after in zip(items, before, strict=False)]
    facts += [CallEnded(EndReason("caller_hung_up"), history_digest(kept))]
    first = JournalTail(ID, "n/a/1")
    entries = [first.write(fact, 100.0 + place) for place, fact in enumerate(facts[:3])]
    second = JournalTail(ID, "n/a/2", epoch=2, state=first.state)
    entries += [second.take_over("actor_died", "n", 103.05), second.write(LegChanged("model", "live"), 103.15)]
    entries += [second.write(fact, 104.0 + place) for place, fact in enumerate(facts[3:])]
    store.append([entry for entry in entries if entry is not None])
    return store


def message(role: str, turn: int) -> RealtimeItem:
    if role == "user":
        return UserMessageItem(item_id=f"turn_{turn}", content=(InputText(f"This is turn {turn}."),))
    audio = AssistantAudio(transcript=f"This answers turn {turn}.")
    return AssistantMessageItem(item_id=f"answer_{turn}", status="completed", content=(audio,))


def test_a_call_is_read_back_from_its_journal() -> None:
    items = [message(role, turn) for turn in (1, 2) for role in ("user", "assistant")]
    (told,) = read_tales(written(items, kept=items))
    assert told.history == history(2)
    assert judge([conversation(2)], [told], [], []) == []


def test_a_journal_that_leads_to_another_history_than_its_owner_had_is_broken() -> None:
    items = [message(role, turn) for turn in (1, 2) for role in ("user", "assistant")]
    (told,) = read_tales(written(items[:3], kept=items))
    assert [text.split(":")[0] for text in told.broken] == ["history"]
    assert {Kind.BAD_JOURNAL, Kind.LOST_ITEM} == set(kinds(judge([conversation(2)], [told], [], [])))


def test_gaps_are_measured_from_the_fault_to_what_the_journal_and_the_caller_say() -> None:
    items = [message(role, turn) for turn in (1, 2) for role in ("user", "assistant")]
    tales = read_tales(written(items, kept=items))
    story = conversation(2, silences=[(103.0, 0.02), (50.0, 9.0)])
    gaps = gaps_after([Blow(kind="session-actor", at=103.0, sessions=[ID])], [story], tales)
    assert [round(value, 3) for value in (*gaps.owner, *gaps.model, *gaps.silence)] == [0.05, 0.15, 0.02]
    nobody = gaps_after([Blow(kind="session-actor", at=103.0, sessions=["sess_other"])], [story], tales)
    assert nobody.owner == nobody.silence == []


def test_quantiles_are_of_what_there_is() -> None:
    values = [float(number) for number in range(1, 101)]
    assert [quantile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert quantile([], 0.5) is None


def outcome(**changes: Any) -> Outcome:
    blow = Blow(kind="gateway", at=101.0, alive_before=1, alive_after=1)
    told: dict[str, Any] = {"stories": [conversation()], "tales": [tale()], "blows": [blow], "harms": [], **changes}
    return Outcome(seed=7, seconds=10.0, **told)


def printed(told: Outcome) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    console.print(render(told))
    return console.export_text()


def test_a_report_is_good_only_where_nobody_was_harmed_and_everything_was_tried() -> None:
    assert outcome().ok
    assert "everybody stayed" in printed(outcome())
    harmed = outcome(harms=[Harm(Kind.LOST_ITEM, "conversation 1", "turn 1 is gone", since=101.0, until=101.5)])
    assert not harmed.ok
    assert "turn 1 is gone" in printed(harmed)
    assert not outcome(impossible=["supervisor"]).ok
    assert "supervisor could" in printed(outcome(impossible=["supervisor"]))
    assert not outcome(stories=[]).ok
