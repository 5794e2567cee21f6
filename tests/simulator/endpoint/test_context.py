"""What a response is based on when the conversation has grown too long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.endpoint.context import fit_context, input_limit
from orchestrator.simulator.endpoint.conversation import Memory
from orchestrator.simulator.endpoint.options import ModelOptions
from orchestrator.simulator.endpoint.session_config import initial_session
from orchestrator.simulator.endpoint.usage import fixed_tokens, memory_tokens
from orchestrator.wire.realtime import InputTextPart, MessageItem, RetentionRatioTruncation, TokenLimits
from tests.simulator.support import TEXT_ONLY, Driver, only, types

SESSION = initial_session("sess_1", "gpt-realtime", 0)
FIXED = fixed_tokens(SESSION).total


def memory(number: int, tokens: int) -> Memory:
    """An item that counts so many tokens."""
    text = "x" * (tokens - 4) * 4
    item = MessageItem(id=str(number), status="completed", role="user", content=[InputTextPart(text=text)])
    return Memory(str(number), item)


TEN = [memory(number, 100) for number in range(10)]


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("gpt-realtime", 28_672),
        ("gpt-realtime-mini", 28_672),
        ("gpt-realtime-1.5", 28_672),
        ("gpt-realtime-2.1-mini", 123_904),
        ("gpt-4o-realtime-preview", 12_288),
    ],
)
def test_each_model_takes_what_it_is_documented_to_take(model: str, limit: int) -> None:
    assert input_limit(model) == limit


def test_what_fits_is_kept_whole() -> None:
    context = fit_context(SESSION, TEN, FIXED + 1000)
    assert (context.dropped, context.overflow) == ((), False)
    assert context.tokens.total == FIXED + 1000


def test_auto_drops_the_oldest_until_the_rest_fits() -> None:
    context = fit_context(SESSION, TEN, FIXED + 999)
    assert context.dropped == ("0",)
    assert context.tokens.total == FIXED + 900
    assert context.fixed == FIXED


def test_a_ratio_drops_more_at_once() -> None:
    session = msgspec.structs.replace(SESSION, truncation=RetentionRatioTruncation(retention_ratio=0.5))
    assert fit_context(session, TEN, FIXED + 1000).dropped == ()
    assert fit_context(session, TEN, FIXED + 999).dropped == tuple("012345")


def test_a_session_may_set_a_lower_limit_of_its_own() -> None:
    truncation = RetentionRatioTruncation(retention_ratio=1.0, token_limits=TokenLimits(post_instructions=250))
    session = msgspec.structs.replace(SESSION, truncation=truncation)
    assert fit_context(session, TEN, 28_672).dropped == tuple("01234567")
    assert fit_context(session, TEN, FIXED + 100).dropped == tuple("012345678")


def test_disabled_drops_nothing_and_says_so() -> None:
    session = msgspec.structs.replace(SESSION, truncation="disabled")
    assert fit_context(session, TEN, FIXED + 1000).overflow is False
    context = fit_context(session, TEN, FIXED + 999)
    assert (context.dropped, context.overflow) == ((), True)


def test_the_newest_item_is_never_dropped() -> None:
    assert fit_context(SESSION, TEN, 0).dropped == tuple("012345678")
    assert fit_context(SESSION, [], 0).dropped == ()


@given(st.lists(st.integers(4, 400), max_size=20), st.integers(0, 5000), st.floats(0, 1))
def test_what_is_left_is_a_tail_that_fits(sizes: list[int], limit: int, ratio: float) -> None:
    session = msgspec.structs.replace(SESSION, truncation=RetentionRatioTruncation(retention_ratio=ratio))
    memories = [memory(number, size) for number, size in enumerate(sizes)]
    context = fit_context(session, memories, limit)
    assert list(context.dropped) == [item.id for item in memories[: len(context.dropped)]]
    left = memories[len(context.dropped) :]
    assert context.tokens.total == FIXED + sum(memory_tokens(item).total for item in left)
    assert context.tokens.total <= max(limit, FIXED) or len(left) <= 1


# --- As a client sees it ----------------------------------------------------------------------------------------------


def usage_of(driver: Driver) -> dict[str, Any]:
    driver.send("response.create")
    usage: dict[str, Any] = only(driver.run(), "response.done")["response"]["usage"]
    return usage


def full(drive: Callable[..., Driver], truncation: Any, **options: Any) -> Driver:
    driver = drive(options=ModelOptions(context_tokens=FIXED + 500, **options))
    driver.send("session.update", session={**TEXT_ONLY, "truncation": truncation})
    for number in range(5):
        driver.say("x" * 384, item_id=f"item_{number}")
    return driver


def test_a_long_conversation_loses_its_beginning_without_a_word(drive: Callable[..., Driver]) -> None:
    driver = full(drive, "auto")
    before = usage_of(driver)
    assert before["input_tokens"] == FIXED + 500
    driver.say("x" * 384)
    start = len(driver.events)
    usage = usage_of(driver)
    assert not any("delete" in name or "trunc" in name for name in types(driver.events[start:]))
    assert usage["input_tokens"] <= FIXED + 500
    # What followed the instructions has moved, so only they are still in the cache.
    assert usage["input_token_details"]["cached_tokens"] == FIXED // 64 * 64
    assert types(driver.send("conversation.item.retrieve", item_id="item_0")) == ["conversation.item.retrieved"]


def test_what_was_dropped_stays_dropped(drive: Callable[..., Driver]) -> None:
    driver = full(drive, {"type": "retention_ratio", "retention_ratio": 0.4})
    driver.say("y")
    first = usage_of(driver)["input_tokens"]
    assert first <= FIXED + 200
    driver.say("y")
    assert first < usage_of(driver)["input_tokens"] <= FIXED + 250


def test_a_session_that_forbids_it_fails_the_response(drive: Callable[..., Driver]) -> None:
    driver = full(drive, "disabled", overflow_code="too_much")
    driver.say("y")
    events = driver.send("response.create")
    assert types(events) == ["response.created", "response.done", "rate_limits.updated"]
    response = events[1]["response"]
    assert response["status"] == "failed"
    assert response["status_details"]["error"]["code"] == "too_much"
    assert response["output"] == []
    driver.update(truncation="auto")
    assert usage_of(driver)["input_tokens"] <= FIXED + 500


def test_an_input_of_its_own_is_fitted_and_leaves_the_conversation_alone(drive: Callable[..., Driver]) -> None:
    driver = full(drive, "auto")
    many = [{"type": "item_reference", "id": f"item_{number}"} for number in (0, 1, 2, 3, 4, 0)]
    driver.send("response.create", response={"conversation": "none", "input": many})
    assert only(driver.run(), "response.done")["response"]["usage"]["input_tokens"] == FIXED + 500
    assert usage_of(driver)["input_tokens"] == FIXED + 500
