"""JSON text, and what is none."""

from __future__ import annotations

import json

import pytest

from orchestrator.simulator.json_text import json_text, value_of


def test_json_is_compact_and_in_utf_8() -> None:
    assert json_text({"a": [1, None, "ü"]}) == '{"a":[1,null,"ü"]}'


def test_half_a_surrogate_pair_stays_an_escape() -> None:
    text = json_text({"a": "\ud800"})
    text.encode()
    assert json.loads(text) == {"a": "\ud800"}


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"a":1}', {"a": 1}), ("null", None), ("", ""), ("An error.", "An error."), ("[" * 99_999, "[" * 99_999)],
)
def test_a_text_that_is_no_json_stands_for_itself(text: str, value: object) -> None:
    assert value_of(text) == value
