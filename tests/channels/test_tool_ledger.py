"""What a tool call leaves in the journal before it has any effect, and what happens while nobody confirms it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from orchestrator.channels.journalling import CallJournal, Journals
from orchestrator.core.items import RealtimeToolCallItem
from orchestrator.core.tool_calls import ToolCall
from orchestrator.errors import EndReason
from orchestrator.journal.entries import ApprovalGiven, Entry, decode_body
from orchestrator.journal.items import history_digest
from orchestrator.journal.state import ToolStage, replay
from orchestrator.telemetry import names
from orchestrator.telemetry.metrics import DeltaMetrics
from tests.channels.lives import SESSION, Effects, Life


def a_call(call_id: str = "call_1") -> ToolCall:
    return ToolCall(call_id, "item_1", "pay", "{}", "resp_1")


class Wire:
    """A journal whose gateway acknowledges when it is told to; `connected` says whether there is one."""

    def __init__(self) -> None:
        self.written: list[Entry] = []
        self.connected = True
        self.metrics = DeltaMetrics()
        self.journals = Journals("w", self._send, lambda *_: None, sent=lambda: self.connected, metrics=self.metrics)
        self.journal: CallJournal = self.journals.open(SESSION)
        self.journal.started(channel="openai", agent="Desk", context={}, peer="")

    def _send(self, entries: Sequence[Entry]) -> None:
        self.written += entries

    def acknowledge(self, number: int | None = None) -> None:
        for one in self.written[:number]:
            self.journals.acknowledged(SESSION, "w", one.seq)

    def starting(self, *, idempotent: bool = False, wait: bool = True) -> asyncio.Task[bool]:
        call = a_call()
        self.journal.requested(call, "Desk")
        return asyncio.ensure_future(self.journal.may_start(call, idempotent=idempotent, wait=wait))

    def unconfirmed(self) -> dict[str, float]:
        samples = [one for one in self.metrics.drain().counters if one.name == names.TOOLS_UNCONFIRMED_TOTAL]
        return {one.labels[0]: one.value for one in samples}


def kinds(entries: Sequence[Entry]) -> list[str]:
    return [one.kind for one in entries]


async def test_a_side_effect_waits_until_its_beginning_is_kept() -> None:
    wire = Wire()
    starting = wire.starting()
    await asyncio.sleep(1)
    assert kinds(wire.written) == ["started", "tool_requested", "tool_started"]
    wire.acknowledge(2)
    await asyncio.sleep(0)
    assert not starting.done()
    wire.acknowledge()
    assert await starting is True
    assert wire.unconfirmed() == {}


async def test_what_may_run_again_waits_for_nobody() -> None:
    wire = Wire()
    assert await wire.starting(idempotent=True, wait=False) is True
    assert asyncio.get_running_loop().time() == 0
    assert replay(SESSION, wire.written).tool_calls["call_1"].idempotent


async def test_what_a_gateway_has_been_given_runs_though_nobody_confirms_it() -> None:
    wire = Wire()
    assert await wire.starting() is True
    assert asyncio.get_running_loop().time() == 2
    assert wire.unconfirmed() == {"run": 1}


async def test_without_a_gateway_nothing_with_a_side_effect_begins() -> None:
    wire = Wire()
    wire.connected = False
    assert await wire.starting() is False
    assert asyncio.get_running_loop().time() == 5
    assert wire.unconfirmed() == {"refused": 1}


async def test_a_gateway_that_comes_back_in_time_lets_it_run() -> None:
    wire = Wire()
    wire.connected = False
    starting = wire.starting()
    await asyncio.sleep(3)
    wire.connected = True
    wire.journals.send_open()
    wire.acknowledge()
    assert await starting is True


async def test_what_was_given_up_on_its_way_is_no_confirmation() -> None:
    wire = Wire()
    starting = wire.starting()
    wire.journals.lost(SESSION, "w", room=False)
    await asyncio.sleep(4)
    assert not starting.done()
    wire.journals.lost(SESSION, "w", room=True)
    wire.acknowledge()
    assert await starting is True
    assert replay(SESSION, wire.written[-1:]).tool_calls["call_1"].stage is ToolStage.RUNNING


async def test_an_owner_that_is_none_any_more_begins_nothing() -> None:
    wire = Wire()
    starting = wire.starting()
    await asyncio.sleep(0)
    wire.journals.refused(SESSION, "w")
    assert await starting is False
    assert asyncio.get_running_loop().time() == 0
    assert await wire.journal.may_start(a_call(), idempotent=True, wait=False) is False
    assert await wire.journal.may_start(a_call(), idempotent=False, wait=True) is False


async def test_waiting_can_be_called_off() -> None:
    wire = Wire()
    starting = wire.starting()
    await asyncio.sleep(1)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    wire.acknowledge()
    assert wire.journal._waiting == []


async def test_an_answer_that_the_history_does_not_show_yet_is_not_taken_back() -> None:
    wire = Wire()
    item = RealtimeToolCallItem(item_id="item_1", call_id="call_1", name="pay", arguments="{}")
    wire.journal.history([item])
    await wire.starting(idempotent=True, wait=False)
    wire.journal.answered(a_call(), "paid", None)
    moved = RealtimeToolCallItem(item_id="item_1", call_id="call_1", name="pay", arguments="{}", previous_item_id="item_0")
    wire.journal.history([moved])
    (kept,) = replay(SESSION, wire.written).history
    assert isinstance(kept, RealtimeToolCallItem)
    assert (kept.output, kept.previous_item_id) == ("paid", "item_0")
    # The call ends before the model could be told: in the end the record says what was.
    wire.journal.ended(EndReason("caller_hung_up"), [moved])
    over = replay(SESSION, wire.written)
    assert over.history == [moved]
    assert history_digest(over.history) == history_digest([moved])


async def test_of_a_session_nothing_runs_or_is_told_before_it_is_written() -> None:
    effects = Effects()
    async with Life(effects) as life:
        life.endpoint.call(["pay"])
        await life.wait()
        assert effects.done == []
        await life.wait(0.011)
        assert effects.done == [("pay", f"{SESSION}:call_1_1")]
        told: list[int] = []
        life.endpoint.remember = lambda item: told.append(len(life.written))  # type: ignore[method-assign]
        await life.wait(1.0)
        assert "tool_answered" in life.kinds()[: told[0]]


@pytest.mark.parametrize("always", [True, False])
async def test_a_decision_is_written_before_it_takes_effect(always: bool) -> None:
    effects = Effects()
    async with Life(effects) as life:
        life.endpoint.call(["sell"])
        await life.wait(0.1)
        (call_id,) = life.approvals
        await life.session.approve_tool_call(call_id, always=always)
        assert life.kinds()[-1] == "approval_given"
        body = decode_body(life.written[-1])
        assert body == ApprovalGiven(call_id, approved=True, always=always)
        await life.wait(0.1)
        assert life.kinds()[life.kinds().index("approval_given") + 1] == "tool_started"
        assert len(effects.done) == 1
        assert [known.tool for known in replay(SESSION, life.written).decisions] == (["sell"] if always else [])


async def test_a_rejection_is_written_with_the_words_that_the_model_is_told() -> None:
    async with Life(Effects()) as life:
        life.endpoint.call(["sell"])
        await life.wait(0.1)
        await life.session.reject_tool_call(life.approvals[0], rejection_message="not today")
        decided = [decode_body(one) for one in life.written if one.kind == "approval_given"]
        assert decided == [ApprovalGiven("call_1_1", approved=False, message="not today")]
        assert life.kinds().index("approval_given") < life.kinds().index("tool_answered")
        await life.wait(0.1)
        assert [item["output"] for item in life.endpoint.memory if "output" in item] == ["not today"]


async def test_a_call_that_cannot_be_recorded_is_answered_without_running() -> None:
    effects = Effects()
    async with Life(effects) as life:
        await life.wait(0.1)
        life.connected = False
        life.endpoint.call(["pay", "look"])
        await life.wait(10)
        assert [tool for tool, _ in effects.done] == ["look"]
        outputs: dict[str, Any] = {item["call_id"]: item["output"] for item in life.endpoint.memory if "output" in item}
        assert "was not started" in outputs["call_1_1"]
        assert [(end.tool.name, end.error_code) for end in life.tool_ends] == [("look", None), ("pay", "not_recorded")]


async def test_a_handoff_that_calls_the_program_cannot_begin_unrecorded_either() -> None:
    effects = Effects()
    async with Life(effects) as life:
        await life.wait(0.1)
        life.connected = False
        life.endpoint.call(["transfer_to_billing"])
        await life.wait(10)
        assert effects.done == []
        assert life.session.current_agent.name == "Desk"


async def test_a_switch_of_agents_and_the_answer_to_its_call_are_one_fact() -> None:
    async with Life(Effects()) as life:
        life.endpoint.call(["transfer_to_billing"])
        await life.wait(0.1)
        number = life.kinds().index("agent") + 1
        state = replay(SESSION, life.written[:number])
        assert (state.agent, state.tool_calls, state.unanswered) == ("Billing", {}, True)
        (item,) = state.history
        assert isinstance(item, RealtimeToolCallItem)
        assert item.output == '{"assistant":"Billing"}'
