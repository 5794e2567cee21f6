"""Which handler gets a request, and what everybody else is told."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from orchestrator.errors import WireError
from orchestrator.http_server.answers import Refusal, Response
from orchestrator.http_server.request_head import HeadReader, RequestHead
from orchestrator.simulator.rest.routes import Match, RestRequest, Route, RouteTable, json_response, read_json

SEEN: list[RestRequest] = []


def note(request: RestRequest) -> Response:
    SEEN.append(request)
    return json_response({"ok": True})


def refuse(_: RestRequest) -> Refusal:
    return Refusal(status=409, code="no", message="not now")


def complain(_: RestRequest) -> Response:
    raise WireError("invalid_value", "wrong", "a.b")


TABLE = RouteTable(
    [
        Route("POST", "/v1/calls/{call_id}/accept", note),
        Route("POST", "/v1/calls/{call_id}/refuse", refuse),
        Route("POST", "/v1/complain", complain),
        Route("GET", "/v1/things", note),
        Route("POST", "/v1/things", note),
        Route("POST", "/simulator/things", note),
    ]
)


def head(method: str, path: str, *headers: tuple[str, str]) -> RequestHead:
    lines = [f"{method} {path} HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in headers), "", ""]
    result = HeadReader(16384).feed("\r\n".join(lines).encode())
    assert isinstance(result, RequestHead)
    return result


def ask(method: str, path: str, body: bytes = b"", *headers: tuple[str, str]) -> Response:
    request = head(method, path, *headers)
    found = TABLE.find(request)
    return found if isinstance(found, Response) else found.answer(request, body)


def error(response: Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.body)["error"]
    return found


def test_a_pattern_names_parts_of_the_path() -> None:
    SEEN.clear()
    assert ask("POST", "/v1/calls/rtc%5F1/accept?a=1&a=2", b"body", ("X-A", "b")).status == 200
    (request,) = SEEN
    assert request.parameters == {"call_id": "rtc_1"}
    assert request.query == (("a", "1"), ("a", "2"))
    assert request.body == b"body"
    assert request.header("x-a") == "b"


@pytest.mark.parametrize("path", ["/v1/calls//accept", "/v1/calls/a/b/accept", "/v1/calls/a", "/v1", "/", "//v1/things"])
def test_what_fits_no_pattern_is_not_found(path: str) -> None:
    response = ask("POST", path)
    assert response.status == 404
    assert error(response)["type"] == "invalid_request_error"


def test_a_slash_at_the_end_is_nothing() -> None:
    assert ask("GET", "/v1/things/").status == 200


def test_another_method_is_told_which_there_are() -> None:
    response = ask("DELETE", "/v1/things")
    assert response.status == 405
    assert dict(response.headers)["Allow"] == "GET, POST"


def test_refusals_and_faults_in_a_body_become_errors() -> None:
    assert (ask("POST", "/v1/calls/a/refuse").status, error(ask("POST", "/v1/calls/a/refuse"))["code"]) == (409, "no")
    response = ask("POST", "/v1/complain")
    assert (response.status, error(response)["param"]) == (400, "a.b")


def test_routes_can_be_added_later() -> None:
    table = RouteTable()
    assert isinstance(table.find(head("GET", "/new")), Response)
    table.add(Route("GET", "/new", note))
    assert isinstance(table.find(head("GET", "/new")), Match)


# --- Browsers ---------------------------------------------------------------------------------------------------------


def test_a_page_may_read_every_answer_of_the_api() -> None:
    for path in ("/v1/calls/a/accept", "/v1/calls/a/refuse", "/v1/complain"):
        assert dict(ask("POST", path).headers)["Access-Control-Allow-Origin"] == "*"


def test_a_page_that_asks_first_is_told_yes() -> None:
    asked = ("Access-Control-Request-Headers", "authorization,content-type,x-stainless-lang")
    response = ask("OPTIONS", "/v1/things", b"", ("Origin", "http://a"), ("Access-Control-Request-Method", "POST"), asked)
    headers = dict(response.headers)
    assert response.status == 200
    assert headers["Access-Control-Allow-Methods"] == "GET, POST, OPTIONS"
    assert headers["Access-Control-Allow-Headers"] == asked[1]
    assert headers["Access-Control-Allow-Origin"] == "*"


def test_what_does_not_look_like_names_of_headers_is_not_repeated() -> None:
    response = ask("OPTIONS", "/v1/things", b"", ("Access-Control-Request-Headers", "\xe9<script>"))
    assert dict(response.headers)["Access-Control-Allow-Headers"] == "authorization, content-type"


def test_a_page_cannot_drive_the_simulator() -> None:
    assert ask("OPTIONS", "/simulator/things").status == 405
    # This media type is one that a page may send without asking first.
    assert ask("POST", "/simulator/things", b"{}", ("Content-Type", "text/plain")).status == 415
    response = ask("POST", "/simulator/things", b"{}", ("Content-Type", "application/json; charset=utf-8"))
    assert response.status == 200
    assert "Access-Control-Allow-Origin" not in dict(response.headers)


# --- Bodies -----------------------------------------------------------------------------------------------------------


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    seconds: int = 1


class Body(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner | None = None


def request(body: bytes) -> RestRequest:
    return RestRequest(method="POST", path="/", parameters={}, query=(), headers=(), body=body)


def test_an_empty_body_is_an_empty_object() -> None:
    assert read_json(request(b""), Body) == Body()


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b"\xff", "invalid_json", None),
        (b"[" * 100_000, "invalid_event", None),
        (b'{"other":1}', "unknown_parameter", "other"),
        (b'{"inner":{"other":1}}', "unknown_parameter", "inner.other"),
        (b'{"inner":{"seconds":"1"}}', "invalid_type", "inner.seconds"),
        (b"[]", "invalid_event", None),
    ],
)
def test_a_bad_body_is_refused_with_the_place_of_the_fault(body: bytes, code: str, param: str | None) -> None:
    with pytest.raises(WireError) as refused:
        read_json(request(body), Body)
    assert (refused.value.wire_code, refused.value.param) == (code, param)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8090", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("rebound.example:8090", 403),
        ("127.0.0.1.example", 403),
        ("[::1", 403),
        ("", 403),
    ],
)
def test_on_loopback_the_simulator_is_driven_under_its_names_only(host: str, status: int) -> None:
    table = RouteTable([Route("GET", "/simulator/things", note), Route("GET", "/v1/things", note)], on_loopback=True)
    for path, expected in (("/simulator/things", status), ("/v1/things", 200)):
        request = HeadReader(16384).feed(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert isinstance(request, RequestHead)
        found = table.find(request)
        assert (found if isinstance(found, Response) else found.answer(request, b"")).status == expected


def test_the_text_form_of_a_request_shows_no_key() -> None:
    SEEN.clear()
    request = head("POST", "/v1/things?key=s3cret", ("Authorization", "Bearer s3cret"))
    found = TABLE.find(request)
    assert isinstance(found, Match)
    found.answer(request, b"s3cret")
    assert "s3cret" not in f"{request!r}{SEEN}"
