"""Checklist lines 51 to 53: what the model still knows after a truncation, and when the conversation grows too long."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.simulator.endpoint.options import ModelOptions
from tests.simulator.checklist.support import ANSWER
from tests.simulator.support import LOOKUP, TEXT_ONLY, Driver, error_of, of_type, only, types

WHOLE_MS = len(ANSWER) * 50
LIMIT = 120
Drive = Callable[..., Driver]


def truncate(driver: Driver, item_id: str, audio_end_ms: int, content_index: int = 0) -> list[dict[str, Any]]:
    return driver.send("conversation.item.truncate", item_id=item_id, content_index=content_index, audio_end_ms=audio_end_ms)


def spoken(driver: Driver) -> str:
    """A spoken answer; the id of its item."""
    return str(only(driver.ask("first question"), "response.done")["response"]["output"][0]["id"])


def retrieved(driver: Driver, item_id: str) -> dict[str, Any]:
    (event,) = driver.send("conversation.item.retrieve", item_id=item_id)
    part: dict[str, Any] = event["item"]["content"][0]
    return part


# --- 51 and 52: truncate ----------------------------------------------------------------------------------------------


def test_51a_a_truncation_takes_the_words_and_the_rest_of_the_audio(driver: Driver) -> None:
    item_id = spoken(driver)
    before = base64.b64decode(retrieved(driver, item_id)["audio"])
    (event,) = truncate(driver, item_id, 700)
    assert {name: event[name] for name in ("type", "item_id", "content_index", "audio_end_ms")} == {
        "type": "conversation.item.truncated",
        "item_id": item_id,
        "content_index": 0,
        "audio_end_ms": 700,
    }
    part = retrieved(driver, item_id)
    assert base64.b64decode(part["audio"]) == before[: 700 * 48]
    assert not part.get("transcript")


def test_51b_it_may_come_while_the_answer_is_made(driver: Driver) -> None:
    driver.say("first question")
    driver.send("response.create")
    driver.wait(0.5)
    item_id = only(driver.events, "response.output_item.added")["item"]["id"]
    assert types(truncate(driver, item_id, 100)) == ["conversation.item.truncated"]
    driver.run()
    assert only(driver.events, "response.done")["response"]["status"] == "completed"
    assert len(base64.b64decode(retrieved(driver, item_id)["audio"])) == 100 * 48


def test_51c_what_cannot_be_truncated(driver: Driver) -> None:
    item_id = spoken(driver)
    error = error_of(truncate(driver, "item_x", 100))
    assert error["code"] == "item_truncate_invalid_item_id"
    assert error["message"] == "Error truncating item: the item with id 'item_x' does not exist."
    error = error_of(truncate(driver, item_id, WHOLE_MS + 1))
    assert error["code"] == "invalid_value"
    assert error["message"] == f"Audio content of {WHOLE_MS}ms is already shorter than {WHOLE_MS + 1}ms"
    truncate(driver, item_id, 700)
    assert error_of(truncate(driver, item_id, 760))["message"] == "Audio content of 700ms is already shorter than 760ms"
    assert len(base64.b64decode(retrieved(driver, item_id)["audio"])) == 700 * 48


def test_51d_only_audio_of_the_model_can(driver: Driver) -> None:
    driver.say("?", "item_typed")
    driver.update(tools=[LOOKUP])
    written = only(driver.ask("first question", output_modalities=["text"]), "response.done")["response"]["output"][0]["id"]
    call = only(driver.ask("look it up"), "response.done")["response"]["output"][0]["id"]
    driver.update(audio={"input": {"turn_detection": {"type": "server_vad", "create_response": False}}})
    driver.speak()
    heard = only(driver.events, "input_audio_buffer.committed")["item_id"]
    for item_id in ("item_typed", written, call, heard):
        error = error_of(truncate(driver, item_id, 0))
        assert error["code"] in (None, "unsupported_content_type")
        assert error["message"] == "Only model output audio messages can be truncated"


@pytest.mark.parametrize("heard_ms", [None, 0, 500])
def test_52_the_model_remembers_all_that_was_not_truncated(driver: Driver, heard_ms: int | None) -> None:
    item_id = spoken(driver)
    if heard_ms is not None:
        truncate(driver, item_id, heard_ms)
    usage = only(driver.ask("the third question"), "response.done")["response"]["usage"]
    assert usage["input_token_details"]["audio_tokens"] == (WHOLE_MS if heard_ms is None else heard_ms) // 50
    part = retrieved(driver, item_id)
    assert (part.get("transcript") == ANSWER) is (heard_ms is None)
    assert len(base64.b64decode(part.get("audio", ""))) == (WHOLE_MS if heard_ms is None else heard_ms) * 48


# --- 53: too long a conversation --------------------------------------------------------------------------------------


def grown(drive: Drive, truncation: Any) -> tuple[Driver, list[dict[str, Any]]]:
    """Typed turns, the first longer than the others, in a session that has not room for them all; how each was answered."""
    driver = drive(options=ModelOptions(context_tokens=LIMIT))
    driver.send("session.update", session={**TEXT_ONLY, "instructions": "i" * 160, "truncation": truncation})
    for length in (52, *[40] * 7):
        driver.ask("w" * length)
    return driver, [event["response"] for event in of_type(driver.events, "response.done")]


def weight(driver: Driver, *item_ids: str) -> int:
    """The tokens of a response that is based on these items alone."""
    given = [{"type": "item_reference", "id": item_id} for item_id in item_ids]
    start = len(driver.events)
    driver.send("response.create", response={"conversation": "none", "input": given, "output_modalities": ["text"]})
    driver.run()
    tokens: int = only(driver.events[start:], "response.done")["response"]["usage"]["input_tokens"]
    return tokens


def inputs(responses: list[dict[str, Any]]) -> list[int]:
    return [response["usage"]["input_tokens"] for response in responses]


def test_53a_the_oldest_items_go_as_a_whole_and_nobody_says_so(drive: Drive) -> None:
    driver, responses = grown(drive, "auto")
    names = set(types(driver.events))
    item_ids = [event["item"]["id"] for event in of_type(driver.events, "conversation.item.added")]
    fixed = weight(driver)
    items = [weight(driver, item_id) - fixed for item_id in item_ids]
    assert fixed > 0
    assert items[0] not in items[1:]
    dropped = []
    for turn, size in enumerate(inputs(responses)):
        # Before its answer each response knows a user's item more than answers: and of all these, the newest.
        known = items[: 2 * turn + 1]
        rest = {fixed + sum(known[count:]): count for count in range(len(known))}
        assert size in rest
        dropped.append(rest[size])
        assert size <= LIMIT
        assert dropped[-1] == 0 or size + known[dropped[-1] - 1] > LIMIT or dropped[-1] == dropped[-2], "no more goes than must"
    assert dropped[0] == 0
    assert dropped[-1] > 4
    assert dropped == sorted(dropped)
    assert {response["status"] for response in responses} == {"completed"}
    assert {name for name in names if "trunc" in name or "delete" in name or name == "error"} == set()


def test_53b_a_ratio_drops_more_at_once(drive: Drive) -> None:
    _, plain = grown(drive, "auto")
    driver, halved = grown(drive, {"type": "retention_ratio", "retention_ratio": 0.5})
    fixed = weight(driver)
    assert max(inputs(halved)) <= LIMIT
    fallen = [after for before, after in itertools.pairwise(inputs(halved)) if after < before]
    assert fallen
    assert max(fallen) - fixed <= (LIMIT - fixed) * 0.5
    assert sum(inputs(halved)) < sum(inputs(plain))


def test_53c_where_nothing_may_go_the_response_fails(drive: Drive) -> None:
    _, responses = grown(drive, "disabled")
    statuses = [response["status"] for response in responses]
    assert statuses[0] == "completed"
    assert statuses[-1] == "failed"
    failed = responses[-1]
    assert failed["output"] == []
    assert failed["status_details"]["type"] == "failed"
    assert failed["status_details"]["error"]["code"] == ModelOptions().overflow_code
