"""Answers are valid HTTP, and refusals have the error form of the Realtime API."""

from __future__ import annotations

import h11
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.http_server.answers import Refusal, Response, render


def parse(data: bytes) -> tuple[h11.Response, bytes]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert client.their_state is h11.MUST_CLOSE
    return response, body


@given(st.binary(max_size=500), st.sampled_from([200, 404, 503, 529]))
def test_an_answer_is_valid_http_and_closes(body: bytes, status: int) -> None:
    response, received = parse(render(Response(status=status, body=body)))
    assert response.status_code == status
    assert received == body


@pytest.mark.parametrize(("status", "kind"), [(404, "invalid_request_error"), (503, "server_error")])
def test_a_refusal_has_the_error_form(status: int, kind: str) -> None:
    refusal = Refusal(status=status, code="some_code", message="what to do", param="session_id", retry_after=5)
    response, body = parse(render(refusal.response()))
    assert msgspec.json.decode(body) == {
        "error": {"message": "what to do", "type": kind, "code": "some_code", "param": "session_id"}
    }
    headers = dict(response.headers)
    assert headers[b"retry-after"] == b"5"
    assert headers[b"content-type"] == b"application/json"


def test_headers_of_a_refusal_are_sent() -> None:
    response, _ = parse(render(Refusal(status=405, code="x", message="", headers=(("Allow", "GET"),)).response()))
    assert (b"allow", b"GET") in list(response.headers)
    assert b"retry-after" not in dict(response.headers)
