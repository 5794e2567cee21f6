"""Checklist lines 20 to 26: the items of a conversation, and what a client may do with them."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from tests.simulator.checklist.support import members, user
from tests.simulator.support import (
    LOOKUP,
    TEXT_ONLY,
    Driver,
    as_base64,
    error_of,
    loud,
    of_type,
    only,
    quiet,
    types,
)

CREATED = ["conversation.item.added", "conversation.item.done"]
TRANSCRIBED = {"input": {"transcription": {"model": "whisper-1"}}}
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()


def create(driver: Driver, item: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return driver.send("conversation.item.create", item=item, **more)


def place(driver: Driver, item_id: str, **more: Any) -> str | None:
    """Put a typed item into the conversation; returns what both events name as the item before it."""
    events = create(driver, user("?", id=item_id), **more)
    assert types(events) == CREATED
    assert [event["item"]["id"] for event in events] == [item_id, item_id]
    (previous,) = {event["previous_item_id"] for event in events}
    return None if previous is None else str(previous)


def retrieved(driver: Driver, item_id: str) -> dict[str, Any]:
    item: dict[str, Any] = only(driver.send("conversation.item.retrieve", item_id=item_id), "conversation.item.retrieved")[
        "item"
    ]
    return item


def message(role: str, **part: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [part]}


# --- 20 to 22: create, and what is refused ----------------------------------------------------------------------------


def test_20a_an_item_is_added_and_done_with_the_item_before_it(driver: Driver) -> None:
    assert place(driver, "item_a") is None
    assert place(driver, "item_b") == "item_a"
    assert place(driver, "item_c") == "item_b"


def test_20b_an_id_is_kept_or_made(driver: Driver) -> None:
    events = create(driver, user("?"))
    assert types(events) == CREATED
    made = events[0]["item"]["id"]
    assert re.fullmatch(r"item_[0-9A-Za-z]{21}", made)
    assert events[0]["item"] == {**user("?"), "id": made, "status": "completed"}
    assert place(driver, "x" * 32) == made


def test_20c_an_id_has_32_characters_at_most(driver: Driver) -> None:
    assert error_of(create(driver, user("?", id="x" * 33)))["param"] == "item.id"
    call = {"type": "function_call", "name": "lookup", "arguments": "{}"}
    assert error_of(create(driver, {**call, "call_id": "x" * 33}))["param"] == "item.call_id"
    assert types(create(driver, {**call, "call_id": "x" * 32})) == CREATED
    assert place(driver, "item_a") is not None


def test_21a_an_item_goes_where_it_is_told(driver: Driver) -> None:
    assert place(driver, "item_b") is None
    assert place(driver, "item_d", previous_item_id=None) == "item_b"
    assert place(driver, "item_c", previous_item_id="item_b") == "item_b"
    assert place(driver, "item_a", previous_item_id="root") is None
    assert place(driver, "item_e") == "item_d"
    # The whole order, read off by putting something after each.
    assert place(driver, "item_a2", previous_item_id="item_a") == "item_a"
    for item_id in ("item_a", "item_a2", "item_b", "item_c", "item_d"):
        driver.send("conversation.item.delete", item_id=item_id)
    assert place(driver, "item_f") == "item_e"


def test_21b_after_an_item_that_is_not_there_nothing_is_put(driver: Driver) -> None:
    error = error_of(create(driver, user("?", id="item_a"), previous_item_id="item_none"))
    assert (error["code"], error["param"]) == ("item_create_invalid_previous_item_id", None)
    assert error["message"] == "Error adding item: the previous item with id 'item_none' does not exist."
    assert error_of(driver.send("conversation.item.retrieve", item_id="item_a"))["code"] == "item_retrieve_invalid_item_id"
    assert place(driver, "item_b") is None


def test_22_ids_that_are_there_already_or_not_at_all(driver: Driver) -> None:
    place(driver, "item_a")
    wrong = [
        (
            create(driver, user("other", id="item_a")),
            "item_create_duplicate_item_id",
            "Error adding item: an item with id 'item_a' already exists.",
        ),
        (
            driver.send("conversation.item.delete", item_id="item_x"),
            "item_delete_invalid_item_id",
            "Error deleting item: the item with id 'item_x' does not exist.",
        ),
        (
            driver.send("conversation.item.retrieve", item_id="item_x"),
            "item_retrieve_invalid_item_id",
            "Error retrieving item: the item with id 'item_x' does not exist.",
        ),
    ]
    for events, code, text in wrong:
        error = error_of(events)
        assert (error["code"], error["message"], error["param"]) == (code, text, None)
    assert retrieved(driver, "item_a")["content"] == user("?")["content"]


# --- 23 and 24: what a client may say ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "item",
    [
        message("system", type="input_text", text="a"),
        message("user", type="input_text", text="a"),
        message("user", type="input_audio", audio=as_base64(quiet(100))),
        message("user", type="input_image", image_url=PIXEL),
        message("assistant", type="output_text", text="a"),
        {"type": "function_call", "name": "lookup", "call_id": "call_1", "arguments": "{}"},
    ],
)
def test_23a_these_items_a_client_may_make(driver: Driver, item: dict[str, Any]) -> None:
    assert types(create(driver, item)) == CREATED


@pytest.mark.parametrize(
    ("item", "code", "param"),
    [
        (message("assistant", type="output_audio", transcript="a"), "missing_required_parameter", "item.content[0].text"),
        (message("assistant", type="output_audio", audio="AAAA"), "missing_required_parameter", "item.content[0].text"),
        (message("assistant", type="input_text", text="a"), "invalid_value", "item.content[0].type"),
        (message("assistant", type="text", text="a"), "invalid_value", "item.content[0].type"),
        (message("user", type="output_text", text="a"), "invalid_value", "item.content[0].type"),
        (message("user", type="input_audio", transcript="a"), "missing_required_parameter", "item.content[0].audio"),
        (message("system", type="input_audio", audio="AAAA"), "invalid_value", "item.content[0].type"),
        (message("system", type="input_image", image_url=PIXEL), "invalid_value", "item.content[0].type"),
        (message("tool", type="input_text", text="a"), "invalid_value", "item.role"),
        ({"type": "mcp_list_tools", "server_label": "a", "tools": []}, "invalid_value", "item.type"),
        ({"type": "mcp_call", "id": "item_m", "server_label": "a", "name": "b", "arguments": ""}, "invalid_value", "item.type"),
        (
            {"type": "mcp_approval_request", "id": "item_m", "server_label": "a", "name": "b", "arguments": ""},
            "invalid_value",
            "item.type",
        ),
        ({"type": "item_reference", "id": "item_a"}, "invalid_value", "item.type"),
    ],
)
def test_23b_and_these_not(driver: Driver, item: dict[str, Any], code: str, param: str) -> None:
    error = error_of(create(driver, item))
    assert (error["code"], error["param"]) == (code, param)
    assert place(driver, "item_first") is None


def test_24_an_output_belongs_to_a_call(driver: Driver) -> None:
    driver.send("session.update", session={**TEXT_ONLY, "tools": [LOOKUP]})

    def output(call_id: str) -> list[dict[str, Any]]:
        return create(driver, {"type": "function_call_output", "call_id": call_id, "output": '{"value":"blue"}'})

    error = error_of(output("call_x"))
    assert (error["code"], error["message"]) == ("invalid_tool_call_id", "Tool call ID 'call_x' not found in conversation.")
    call = only(driver.ask("look it up"), "response.function_call_arguments.done")
    events = output(call["call_id"])
    assert types(events) == CREATED
    assert events[0]["previous_item_id"] == call["item_id"]
    create(driver, {"type": "function_call", "name": "lookup", "call_id": "call_x", "arguments": "{}"})
    assert types(output("call_x")) == CREATED


# --- 25 and 26: what is remembered ------------------------------------------------------------------------------------


def test_25_only_retrieve_brings_audio_back(driver: Driver) -> None:
    driver.update(audio=TRANSCRIBED)
    sound = quiet(100) + loud(600) + quiet(400)
    driver.append(sound)
    spoken = only(driver.events, "input_audio_buffer.committed")["item_id"]
    before = retrieved(driver, spoken)
    assert before["content"][0]["transcript"] is None
    driver.run()
    after = retrieved(driver, spoken)
    assert after["content"][0]["transcript"] == "first question"
    stopped = only(driver.events, "input_audio_buffer.speech_stopped")["audio_end_ms"]
    audio = base64.b64decode(after["content"][0]["audio"])
    assert audio == sound[: stopped * 48]
    assert before["content"][0]["audio"] == after["content"][0]["audio"]
    answer = only(driver.events, "response.done")["response"]["output"][0]
    said = b"".join(base64.b64decode(event["delta"]) for event in of_type(driver.events, "response.output_audio.delta"))
    item = retrieved(driver, answer["id"])
    assert base64.b64decode(item["content"][0]["audio"]) == said
    assert item["content"][0]["transcript"] == answer["content"][0]["transcript"]
    assert item["object"] == "realtime.item"
    others = [event for event in driver.events if event["type"] != "conversation.item.retrieved"]
    assert [value for name, value in members(others) if name == "audio" and isinstance(value, str)] == []
    assert as_base64(audio)[:400] not in json.dumps(others)


def test_26_the_chain_closes_over_what_is_deleted(driver: Driver) -> None:
    driver.update(audio={"input": {"turn_detection": None}})
    for name in ("item_a", "item_b", "item_c", "item_d"):
        place(driver, name)
    deleted = driver.send("conversation.item.delete", item_id="item_d")
    assert [(event["type"], event["item_id"]) for event in deleted] == [("conversation.item.deleted", "item_d")]
    driver.append(loud(200))
    committed, added, done = driver.send("input_audio_buffer.commit")
    assert [event["previous_item_id"] for event in (committed, added, done)] == ["item_c"] * 3
    driver.send("conversation.item.delete", item_id="item_b")
    driver.send("conversation.item.delete", item_id=committed["item_id"])
    assert place(driver, "item_e") == "item_c"
    driver.send("conversation.item.delete", item_id="item_a")
    assert place(driver, "item_f", previous_item_id="item_c") == "item_c"
    driver.send("conversation.item.delete", item_id="item_c")
    assert error_of(create(driver, user("?"), previous_item_id="item_c"))["code"] == "item_create_invalid_previous_item_id"
    for name in ("item_e", "item_f"):
        driver.send("conversation.item.delete", item_id=name)
    assert place(driver, "item_g") is None
