"""Bodies survive the way to the store and back; what cannot be read is named, and newer facts are kept."""

from __future__ import annotations

import msgspec
import pytest

from orchestrator.errors import JournalFormatError
from orchestrator.journal.entries import FORMAT, Body, Entry, UnknownBody, decode_body, encode_body
from tests.journal.writing import CALL, UNIX_TIME, entries


@pytest.mark.parametrize("body", CALL, ids=lambda body: str(type(body).__name__))
def test_every_body_comes_back_as_it_was(body: Body) -> None:
    kind, data = encode_body(body)
    assert decode_body(Entry("s1", 1, 1, "a", UNIX_TIME, kind, data)) == body


def test_a_kind_of_newer_code_is_kept_and_not_understood() -> None:
    body = decode_body(Entry("s1", 1, 1, "a", UNIX_TIME, "moved_to_the_moon", b'{"kind":"moved_to_the_moon"}'))
    assert isinstance(body, UnknownBody)
    assert body.kind == "moved_to_the_moon"


def test_members_of_newer_code_are_passed_over() -> None:
    body = decode_body(Entry("s1", 1, 1, "a", UNIX_TIME, "agent", b'{"kind":"agent","agent":"Ann","mood":"good"}'))
    assert body == msgspec.json.decode(b'{"kind":"agent","agent":"Ann"}', type=type(body))


def test_a_damaged_body_is_named_without_being_shown() -> None:
    with pytest.raises(JournalFormatError, match=r"entry 7 \(item\) of session s1") as caught:
        decode_body(Entry("s1", 7, 1, "a", UNIX_TIME, "item", b'{"kind":"item","item":{"item":{"secret'))
    assert "secret" not in str(caught.value)


def test_a_format_of_newer_code_says_what_to_do() -> None:
    kind, data = encode_body(CALL[0])
    with pytest.raises(JournalFormatError, match="run the newer version"):
        decode_body(Entry("s1", 1, 1, "a", UNIX_TIME, kind, data, FORMAT + 1))


def test_an_entry_is_whole_in_messagepack() -> None:
    for entry in entries(*CALL):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(entry), type=Entry) == entry
