"""A call that dies at any moment and goes on elsewhere: no side effect twice, nothing that was kept lost, one answer each."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.items import RealtimeToolCallItem
from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import Verdict
from orchestrator.journal.state import CallState, ToolStage, replay
from orchestrator.realtime.resumption import plan_resumption
from orchestrator.testing import virtual_clock
from tests.channels.lives import SESSION, Effects, Life

ONCE = ("pay", "sell")
TOOLS = st.sampled_from(["pay", "look", "sell", "transfer_to_billing", "transfer_to_desk"])
STEPS = st.one_of(
    st.tuples(st.just("call"), st.lists(TOOLS, min_size=1, max_size=3).map(tuple)),
    st.tuples(st.sampled_from(["say", "speak", "interrupt", "end", "approve", "always", "reject", "never"]), st.just(())),
)
PAUSES = st.sampled_from([0.0, 0.005, 0.02, 0.2])


async def perform(life: Life, step: str, tools: tuple[str, ...]) -> None:
    endpoint, session = life.endpoint, life.session
    match step:
        case "call":
            endpoint.call(tools)
        case "say":
            endpoint.user_says("and now?")
        case "speak":
            endpoint.begin()
        case "interrupt":
            endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id=endpoint.name("item"))
            endpoint.end("cancelled")
        case "end":
            endpoint.end()
        case "approve" | "always" if life.approvals:
            await session.approve_tool_call(life.approvals.pop(0), always=step == "always")
        case "reject" | "never" if life.approvals:
            await session.reject_tool_call(life.approvals.pop(0), always=step == "never")
        case _:
            pass


def survivors(life: Life) -> list[tuple[list[Entry], list[tuple[str, str]]]]:
    """For every moment at which the owner may die: what is kept of its journal, and what tools have done by then at most."""
    found: list[tuple[list[Entry], list[tuple[str, str]]]] = []
    for number in range(1, len(life.written) + 1):
        later = life.effects_at[number] if number < len(life.effects_at) else len(life.effects.done)
        found.append(([*life.kept, *life.written[:number]], life.effects.done[:later]))
    return found


def words(item: dict[str, Any]) -> str:
    return "".join(part.get("text") or "" for part in item.get("content", ()))


def is_answer_due(state: CallState) -> bool:
    """Judge by the end of the conversation whether the model has something to say, or will have once calls are answered."""
    if state.response_id is not None or state.tool_calls or not state.history:
        return bool(state.response_id is not None or state.tool_calls)
    last = state.history[-1]
    return isinstance(last, RealtimeToolCallItem) or last.role == "user"


def check(life: Life) -> None:
    """All that must hold when a later owner has come to rest."""
    assert set(life.verdicts) == {Verdict.WRITE}
    effects, session, memory = life.effects, life.session, life.endpoint.memory
    for tool in ONCE:
        assert set(effects.times(tool).values()) <= {1}, f"{tool} ran twice"
    called = {f"{SESSION}:{item['call_id']}" for item in memory if item["type"] == "function_call"}
    # Nothing has happened that the conversation does not know of.
    assert {key for tool, key in effects.done if tool in ONCE} <= called
    # What a handoff calls of the program is a side effect, too.
    handed = [item for item in memory if item["type"] == "function_call" and item["name"] == "transfer_to_billing"]
    assert sum(effects.times("handoff").values()) <= len(handed)
    before, history = replay(SESSION, life.kept), session.history
    ids = [item.item_id for item in history]
    assert len(ids) == len(set(ids))
    assert [item_id for item_id in ids if item_id in before.items] == before.order
    assert len({item["id"] for item in memory}) == len(memory)
    for item in (item for item in history if isinstance(item, RealtimeToolCallItem)):
        told = [one["type"] for one in memory if one.get("call_id") == item.call_id]
        assert told == ["function_call", "function_call_output"]
        assert item.output == next(one["output"] for one in memory if "output" in one and one["call_id"] == item.call_id)
    for known in before.history:
        if isinstance(known, RealtimeToolCallItem) and known.output is not None:
            # It was answered before, and never again with something else.
            assert known in [msg for msg in history if msg.item_id == known.item_id]
    after = replay(SESSION, [*life.kept, *life.written])
    assert after.history == history
    assert after.tool_calls == {}
    assert after.agent == session.current_agent.name
    check_responses(life, before)


def check_responses(life: Life, before: CallState) -> None:
    assert life.resumption is not None
    plan = plan_resumption(life.resumption)
    causes = len({call.response_id for call in plan.open}) + plan.respond
    asked = life.endpoint.asked
    # Requests that wait together are served by one response.
    assert min(causes, 1) <= asked <= causes
    if causes == 0:
        assert not is_answer_due(before)
    if any(call.stage is ToolStage.RUNNING and not call.idempotent for call in before.tool_calls.values()):
        assert any(end.error_code == "outcome_unknown" for end in life.tool_ends)


async def live_and_die(script: list[tuple[tuple[str, tuple[str, ...]], float]], again: int) -> int:
    effects = Effects()
    async with Life(effects) as first:
        for (step, tools), pause in script:
            await perform(first, step, tools)
            await first.wait(pause)
        moments = survivors(first)
    for kept, done in moments:
        moments_of_second = await resume(kept, done)
        # The second owner dies too, in the middle of taking over or later.
        kept, done = moments_of_second[again % len(moments_of_second)]
        await resume(kept, done)
    return len(moments)


async def resume(kept: list[Entry], done: list[tuple[str, str]]) -> list[tuple[list[Entry], list[tuple[str, str]]]]:
    effects = Effects()
    effects.done = list(done)
    async with Life(effects, kept) as life:
        await life.settle()
        moments = survivors(life)
        check(life)
    return moments


@settings(max_examples=15)
@given(script=st.lists(st.tuples(STEPS, PAUSES), min_size=1, max_size=5), again=st.integers(0, 40))
def test_wherever_a_call_dies_it_goes_on_as_if_it_had_not(
    script: list[tuple[tuple[str, tuple[str, ...]], float]], again: int
) -> None:
    assert virtual_clock.run(live_and_die(script, again)) > 0
