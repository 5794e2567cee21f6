"""From the journal of a call to the session that goes on with it, stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.channels.resumption import resumption_of
from orchestrator.core.items import AssistantMessageItem, AssistantText, InputText, RealtimeToolCallItem, UserMessageItem
from orchestrator.errors import EndReason
from orchestrator.journal.audit import audit
from orchestrator.journal.entries import (
    AgentChanged,
    ApprovalAsked,
    ApprovalGiven,
    Body,
    CallStarted,
    ItemWritten,
    ResponseEnded,
    ResponseStarted,
    TakenOver,
    ToolAnswered,
    ToolRequested,
    ToolStarted,
    UsageCounted,
)
from orchestrator.journal.heads import Verdict, head_after
from orchestrator.journal.items import record_of
from orchestrator.journal.state import ToolStage, replay
from orchestrator.realtime.resumption import CallStage
from tests.channels.lives import SESSION, Effects, Life
from tests.journal.writing import entries

ASKED = UserMessageItem(item_id="u1", content=(InputText(text="pay for it"),))


def called(name: str, call_id: str = "c1") -> tuple[Body, ...]:
    item = RealtimeToolCallItem(item_id=f"item_{call_id}", call_id=call_id, name=name, arguments="{}")
    return (
        ItemWritten(record_of(item), after="u1"),
        ToolRequested(call_id, f"item_{call_id}", name, "{}", "r1", "Desk"),
    )


def begun(*bodies: Body) -> list[Any]:
    return entries(
        CallStarted("openai", "Desk"), ItemWritten(record_of(ASKED)), ResponseStarted("r1"), *bodies, session_id=SESSION
    )


def outputs(life: Life) -> dict[str, str]:
    return {item["call_id"]: item["output"] for item in life.endpoint.memory if "output" in item}


async def resumed(journal: Sequence[Any], effects: Effects | None = None) -> Life:
    """Go on with a call until it comes to rest; nobody is asked."""
    async with Life(effects or Effects(), journal) as life:
        await life.wait(1.0)
        assert set(life.verdicts) == {Verdict.WRITE}
        assert life.kinds()[0] == "taken_over"
        return life


async def test_a_call_that_was_only_requested_runs() -> None:
    life = await resumed(begun(*called("pay"), ResponseEnded("r1")))
    assert life.effects.done == [("pay", f"{SESSION}:c1")]
    assert outputs(life) == {"c1": "pay is done"}
    assert life.endpoint.asked == 1
    assert life.kinds()[:3] == ["taken_over", "tool_started", "tool_answered"]


async def test_a_call_of_which_only_the_item_was_kept_runs_too() -> None:
    life = await resumed(begun(called("pay")[0]))
    assert life.effects.done == [("pay", f"{SESSION}:c1")]
    assert life.endpoint.asked == 1


async def test_a_call_that_waits_for_a_person_is_asked_for_again() -> None:
    async with Life(Effects(), begun(*called("sell"), ResponseEnded("r1"), ApprovalAsked("c1"))) as life:
        await life.wait(1.0)
        assert life.approvals == ["c1"]
        assert (life.effects.done, life.endpoint.asked) == ([], 0)
        await life.session.approve_tool_call("c1")
        await life.wait(1.0)
        assert life.effects.done == [("sell", f"{SESSION}:c1")]
        assert life.endpoint.asked == 1
        assert "approval_asked" not in life.kinds()


async def test_an_approved_call_runs_and_nobody_is_asked_again() -> None:
    journal = begun(*called("sell"), ResponseEnded("r1"), ApprovalAsked("c1"), ApprovalGiven("c1", approved=True))
    life = await resumed(journal)
    assert (life.approvals, life.effects.done) == ([], [("sell", f"{SESSION}:c1")])


async def test_a_rejected_call_is_answered_with_the_rejection() -> None:
    decided = ApprovalGiven("c1", approved=False, message="not today")
    life = await resumed(begun(*called("sell"), ResponseEnded("r1"), ApprovalAsked("c1"), decided))
    assert (life.effects.done, outputs(life)) == ([], {"c1": "not today"})
    assert life.endpoint.asked == 1
    assert [end.error_code for end in life.tool_ends] == ["rejected"]


async def test_an_idempotent_call_that_was_running_runs_again_with_its_key() -> None:
    effects = Effects()
    effects.done.append(("look", f"{SESSION}:c1"))
    life = await resumed(begun(*called("look"), ToolStarted("c1", idempotent=True), ResponseEnded("r1")), effects)
    assert life.effects.done == [("look", f"{SESSION}:c1")] * 2
    assert life.endpoint.asked == 1


async def test_of_any_other_that_was_running_the_outcome_is_unknown_to_model_and_operator() -> None:
    journal = begun(*called("pay"), ToolStarted("c1"), ResponseEnded("r1"))
    life = await resumed(journal)
    assert life.effects.done == []
    assert "Whether it took effect is unknown" in outputs(life)["c1"]
    assert [(end.tool.name, end.ok, end.error_code) for end in life.tool_ends] == [("pay", False, "outcome_unknown")]
    state = replay(SESSION, [*journal, *life.written])
    assert [(one.call_id, one.name, one.code) for one in state.unknown_outcomes] == [("c1", "pay", "outcome_unknown")]
    assert state.tool_calls == {}
    assert life.endpoint.asked == 1
    # What is known for sure comes before the history that shows it, or a crash in between would hide it from the operator.
    assert life.kinds()[:2] == ["taken_over", "tool_answered"]


async def test_an_answer_that_the_model_may_not_have_got_is_told_once_and_the_tool_left_alone() -> None:
    life = await resumed(begun(*called("pay"), ToolStarted("c1"), ResponseEnded("r1"), ToolAnswered("c1", "paid")))
    assert (life.effects.done, outputs(life)) == ([], {"c1": "paid"})
    assert life.endpoint.asked == 1
    assert life.kinds()[:2] == ["taken_over", "response_started"]


async def test_calls_of_one_response_are_answered_each_and_lead_to_one_response() -> None:
    bodies = (*called("pay", "c1"), *called("look", "c2"), *called("look", "c3"), ResponseEnded("r1"))
    life = await resumed(begun(*bodies, ToolStarted("c1"), ToolStarted("c2", idempotent=True)))
    assert life.effects.done == [("look", f"{SESSION}:c2"), ("look", f"{SESSION}:c3")]
    assert set(outputs(life)) == {"c1", "c2", "c3"}
    assert life.endpoint.asked == 1


@pytest.mark.parametrize(
    ("bodies", "asked"),
    [
        ((), 1),
        ((ResponseEnded("r1"),), 0),
        (
            (
                ResponseEnded("r1"),
                ItemWritten(record_of(UserMessageItem(item_id="u2", content=(InputText(text="and?"),))), "u1"),
            ),
            1,
        ),
        ((ResponseEnded("r1"), ResponseStarted("r2")), 1),
        ((ResponseEnded("r1"), ResponseStarted("r2"), ResponseEnded("r2")), 0),
    ],
)
async def test_a_response_is_asked_for_where_the_model_owes_one(bodies: tuple[Body, ...], asked: int) -> None:
    assert (await resumed(begun(*bodies))).endpoint.asked == asked


async def test_a_handoff_that_had_begun_is_finished_and_calls_nobody_twice() -> None:
    effects = Effects()
    effects.done.append(("handoff", "0"))
    journal = begun(*called("transfer_to_billing"), ToolStarted("c1", idempotent=True), ResponseEnded("r1"))
    life = await resumed(journal, effects)
    assert effects.done == [("handoff", "0")]
    assert life.session.current_agent.name == "Billing"
    assert outputs(life) == {"c1": '{"assistant":"Billing"}'}


async def test_a_handoff_that_took_effect_is_over() -> None:
    changed = AgentChanged("Billing", "c1", '{"assistant":"Billing"}')
    journal = begun(*called("transfer_to_billing"), ToolStarted("c1", idempotent=True), changed)
    life = await resumed(journal)
    assert life.effects.done == []
    assert life.session.current_agent.name == "Billing"
    assert outputs(life) == {"c1": '{"assistant":"Billing"}'}


async def test_a_call_of_the_agent_before_is_that_agents() -> None:
    journal = begun(*called("sell"), ResponseEnded("r1"), AgentChanged("Billing"))
    async with Life(Effects(), journal) as life:
        await life.settle()
        assert [(end.agent.name, end.ok) for end in life.tool_ends] == [("Desk", True)]


async def test_a_tool_that_does_not_exist_any_more_is_answered_so() -> None:
    life = await resumed(begun(*called("fax"), *called("mail", "c2"), ToolStarted("c2"), ResponseEnded("r1")))
    assert outputs(life)["c1"] == "Tool fax not found"
    assert "unknown" in outputs(life)["c2"]
    assert life.endpoint.asked == 1


async def test_standing_decisions_hold_on() -> None:
    journal = begun(
        *called("sell"), ApprovalAsked("c1"), ApprovalGiven("c1", approved=True, always=True), ToolStarted("c1"),
        ToolAnswered("c1", "sold"), ResponseEnded("r1"), ResponseStarted("r2"), ResponseEnded("r2"),
    )  # fmt: skip
    async with Life(Effects(), journal) as life:
        life.endpoint.call(["sell"])
        await life.wait(1.0)
        assert life.approvals == []
        assert len(life.effects.done) == 1


async def test_usage_goes_on_from_what_was_counted() -> None:
    journal = begun(ResponseEnded("r1"), UsageCounted(100, 200, 300, 4))
    async with Life(Effects(), journal) as life:
        assert (life.session.usage.requests, life.session.usage.total_tokens) == (4, 300)
        life.endpoint.answer()
        await life.wait(0.1)
        state = replay(SESSION, [*journal, *life.written])
        assert (state.requests, state.input_tokens, state.output_tokens, state.total_tokens) == (5, 110, 220, 330)


async def test_nothing_that_was_written_is_written_again_and_the_end_can_be_checked() -> None:
    said = AssistantMessageItem(item_id="a1", previous_item_id="u1", status="completed", content=(AssistantText(text="Paid."),))
    wordless = UserMessageItem(item_id="u2", previous_item_id="out_c1")
    journal = begun(
        *called("look"), ToolStarted("c1", idempotent=True), ResponseEnded("r1"), ToolAnswered("c1", "yes"),
        ResponseStarted("r2"), ItemWritten(record_of(said), "item_c1"), ResponseEnded("r2"),
        ItemWritten(record_of(wordless), "a1"), ResponseStarted("r3"), ResponseEnded("r3"),
    )  # fmt: skip
    before = replay(SESSION, journal)
    async with Life(Effects(), journal) as life:
        await life.wait(0.1)
        assert life.kinds() == ["taken_over"]
        # A turn whose words never came stays in the record, though the model cannot be told of it.
        assert life.session.history == before.history
        life.journal.ended(EndReason("caller_hung_up"), life.session.history)
        await life.wait(0.1)
        whole = [*journal, *life.written]
        assert audit(SESSION, head_after(whole[-1]), whole).ok
        assert len(life.journals) == 0


async def test_an_answer_that_older_code_noted_late_closes_its_call() -> None:
    item = RealtimeToolCallItem(item_id="item_c1", call_id="c1", name="pay", arguments="{}", output="paid", status="completed")
    journal = begun(*called("pay"), ToolStarted("c1"), ResponseEnded("r1"), ItemWritten(record_of(item), "u1"))
    life = await resumed(journal)
    assert (life.effects.done, outputs(life), life.endpoint.asked) == ([], {"c1": "paid"}, 1)
    assert replay(SESSION, [*journal, *life.written]).tool_calls == {}


async def test_a_call_that_a_client_wrote_is_the_clients() -> None:
    item = RealtimeToolCallItem(item_id="item_c1", call_id="c1", name="pay", arguments="{}", status="completed")
    assert resumption_of(replay(SESSION, begun(ItemWritten(record_of(item), "u1")))).calls == ()


async def test_before_or_after_the_claim_the_resumption_is_the_same() -> None:
    bodies = (*called("look", "c1"), ToolStarted("c1", idempotent=True))
    for journal in (begun(), begun(*bodies), begun(*bodies, ToolAnswered("c1", "yes"))):
        before, after = replay(SESSION, journal), replay(SESSION, journal)
        claim = entries(*[AgentChanged("x")] * len(journal), TakenOver("x"), session_id=SESSION)[-1]
        after.apply(claim)
        one, other = resumption_of(before), resumption_of(after)
        owed = one.unanswered or (
            one.cut_response is not None and one.cut_response not in {call.response_id for call in one.calls}
        )
        assert other.unanswered is owed
        assert (one.items, one.calls) == (other.items, other.calls)


async def test_ids_too_long_for_the_api_keep_their_meaning() -> None:
    long = "call_" + "x" * 40
    first = Effects()
    async with Life(first) as life:
        life.endpoint.name = lambda kind: long if kind == "call" else f"{kind}_1"  # type: ignore[method-assign]
        life.endpoint.call(["look"])
        await life.wait(0.02)
        kept = life.written[: life.kinds().index("tool_started") + 1]
    assert first.done
    second = Effects()
    async with Life(second, kept) as life:
        await life.wait(1.0)
        assert second.done == first.done
        state = replay(SESSION, [*kept, *life.written])
        assert state.tool_calls == {}
        assert state.history == life.session.history
        assert len(state.history) == 2


def test_every_stage_of_the_journal_has_its_name_here() -> None:
    assert {stage.value for stage in ToolStage} == {stage.value for stage in CallStage}
