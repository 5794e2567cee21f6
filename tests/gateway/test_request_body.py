"""The form that a carrier posts."""

from __future__ import annotations

from urllib.parse import urlencode

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gateway.request_body import parse_form
from orchestrator.http_server.answers import Refusal
from orchestrator.http_server.request_head import HeadReader, RequestHead

FORM_TYPE = ("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")


def head(*headers: tuple[str, str]) -> RequestHead:
    lines = ["POST /twilio/voice HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in headers), "", ""]
    result = HeadReader(16384).feed("\r\n".join(lines).encode())
    assert isinstance(result, RequestHead)
    return result


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=5))
def test_a_form_is_read_with_its_order_its_repeats_and_its_blanks(fields: list[tuple[str, str]]) -> None:
    fields = [(name, value) for name, value in fields if name or value]
    encodable = [pair for pair in fields if not any("\ud800" <= char <= "\udfff" for text in pair for char in text)]
    assert parse_form(head(FORM_TYPE), urlencode(encodable).encode()) == tuple(encodable)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_form_or_refused(body: bytes) -> None:
    result = parse_form(head(FORM_TYPE), body)
    assert isinstance(result, tuple) or result.status == 400


def test_bytes_that_are_no_text_survive_for_the_signature() -> None:
    form = parse_form(head(FORM_TYPE), b"a=%FF")
    assert isinstance(form, tuple)
    assert form[0][1].encode("utf-8", "surrogateescape") == b"\xff"


def test_another_media_type_is_refused() -> None:
    result = parse_form(head(("Content-Type", "application/json")), b"{}")
    assert isinstance(result, Refusal)
    assert result.status == 415


def test_a_flood_of_fields_is_refused() -> None:
    assert isinstance(parse_form(head(FORM_TYPE), b"a=1&" * 600), Refusal)
