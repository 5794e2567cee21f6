"""How the decoder's complaints become the API's."""

from __future__ import annotations

import msgspec
import pytest

from orchestrator.errors import WireError
from orchestrator.wire.validation import listed, param_of, quoted, read_tag, split_path, wire_error


@pytest.mark.parametrize(
    ("path", "param"),
    [
        (None, None),
        ("$", None),
        ("$.session.audio.input.format.rate", "session.audio.input.format.rate"),
        ("$.item.content[0].type", "item.content[0].type"),
        ("$.response.metadata[...]", "response.metadata"),
        ("$[3]", "[3]"),
    ],
)
def test_a_path_becomes_a_param(path: str | None, param: str | None) -> None:
    assert param_of(path) == param


def test_a_value_that_looks_like_a_path_is_not_taken_for_one() -> None:
    error = msgspec.ValidationError("Invalid value 'x - at `$.a`' - at `$.session.type`")
    assert split_path(error) == ("Invalid value 'x - at `$.a`'", "$.session.type")
    assert wire_error(error).param == "session.type"


def test_a_complaint_of_unknown_form_is_still_an_error_of_the_protocol() -> None:
    error = wire_error(msgspec.ValidationError("Something new - at `$.a`"))
    assert (error.wire_code, error.param) == ("invalid_value", "a")
    assert wire_error(msgspec.ValidationError("Something new")).param is None


def test_values_are_listed_as_the_api_lists_them() -> None:
    assert listed(("a",)) == "'a'"
    assert listed(("a", "b")) == "'a' and 'b'"
    assert listed(("a", "b", "c")) == "'a', 'b', and 'c'"


def test_a_long_value_is_cut() -> None:
    assert quoted("x" * 65) == f"'{'x' * 64}…'"
    assert quoted(5) == "'5'"


def test_the_tag_is_read_wherever_it_stands() -> None:
    assert read_tag(b'{"a":[1,{"type":"no"}],"type":"yes"}', "type") == "yes"
    assert read_tag(b'{"type":"no","event":"yes"}', "event") == "yes"
    with pytest.raises(WireError):
        read_tag(b'{"type":"no"}', "event")
