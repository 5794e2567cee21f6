"""Any bytes in any pieces lead to a head, a refusal, or to waiting; never to an exception."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.http11 import Request
from websockets.server import ServerProtocol

from orchestrator.gateway.routes import Route, find_route
from orchestrator.http_server.answers import Refusal
from orchestrator.http_server.request_head import HeadReader, RequestHead

LIMIT = 16 * 1024
HEAD = (
    b"GET /v1/realtime?model=m&session_id=sess_1&empty= HTTP/1.1\r\n"
    b"Host: voice.example.com\r\n"
    b"Connection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-1\r\n"
    b"Authorization: Bearer key\r\n\r\n"
)


def read(data: bytes, limit: int = LIMIT) -> RequestHead | Refusal | None:
    return HeadReader(limit).feed(data)


def refused(data: bytes, limit: int = LIMIT) -> Refusal:
    result = read(data, limit)
    assert isinstance(result, Refusal)
    return result


def test_a_head_is_read_with_query_headers_and_what_follows() -> None:
    head = read(HEAD + b"\x81\x80rest")
    assert isinstance(head, RequestHead)
    assert (head.method, head.path) == ("GET", "/v1/realtime")
    assert head.target == "/v1/realtime?model=m&session_id=sess_1&empty="
    assert head.query_value("session_id") == "sess_1"
    assert head.query_value("empty") == ""
    assert head.query_value("absent") is None
    assert head.header("host") == "voice.example.com"
    assert head.header_tokens("connection") == ["keep-alive", "Upgrade"]
    assert head.size == len(HEAD)
    assert head.rest == b"\x81\x80rest"


@given(st.lists(st.integers(0, len(HEAD)), max_size=8), st.binary(max_size=40))
def test_the_pieces_in_which_a_head_arrives_do_not_matter(cuts: list[int], rest: bytes) -> None:
    data = HEAD + rest
    edges = [0, *sorted(cuts), len(data)]
    reader = HeadReader(LIMIT)
    results: list[RequestHead | Refusal | None] = []
    for start, end in pairwise(edges):
        if results and results[-1] is not None:
            break
        results.append(reader.feed(data[start:end]))
    head = results[-1]
    assert isinstance(head, RequestHead)
    assert all(result is None for result in results[:-1])
    assert head.path == "/v1/realtime"
    assert head.size == len(HEAD)
    assert reader.received == data[: len(HEAD) + len(head.rest)]


@given(st.lists(st.binary(max_size=200), max_size=6))
def test_garbage_never_raises(pieces: list[bytes]) -> None:
    reader = HeadReader(LIMIT)
    for piece in pieces:
        if piece and reader.feed(piece) is not None:
            break


@given(st.integers(0, len(HEAD) - 1), st.binary(min_size=1, max_size=3))
def test_a_damaged_head_never_raises(place: int, damage: bytes) -> None:
    read(HEAD[:place] + damage + HEAD[place + 1 :])


@given(st.integers(0, len(HEAD) - 5), st.binary(min_size=1, max_size=4), st.booleans())
def test_what_is_let_through_is_accepted_by_the_websocket_library(place: int, damage: bytes, insert: bool) -> None:
    data = HEAD[:place] + damage + HEAD[place + (0 if insert else len(damage)) :]
    head = read(data)
    if isinstance(head, RequestHead) and isinstance(find_route(head), Route):
        protocol = ServerProtocol(select_subprotocol=lambda _protocol, _offered: None)
        protocol.receive_data(data[: head.size])
        (request,) = protocol.events_received()
        assert isinstance(request, Request)
        assert protocol.accept(request).status_code == 101


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "bad_request_head"),  # TLS on the plain port
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version"),
        (b"GET / HTTP/3.7\r\nHost: a\r\n\r\n", 505, "http_version"),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505, "http_version"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request_head"),  # no Host
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_head"),
        (b"GET foo HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_head"),
        (b"GET http://[a HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_head"),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_head"),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400, "bad_request_head"),  # bare line feeds
        (b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", 400, "bad_request_head"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n", 400, "bad_request_head"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", 400, "bad_request_head"),
        (b"\r\n\r\n", 400, "bad_request_head"),
        (b"GET /?" + b"a=1&" * 101 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request_head"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400, "bad_request_head"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "transfer_encoding"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * LIMIT + b"\r\n\r\n", 431, "head_too_large"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 8200 + b"\r\n\r\n", 431, "head_too_large"),  # one long line
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431, "head_too_large"),
        (b"x" * (LIMIT + 1), 431, "head_too_large"),  # no end in sight
    ],
)
def test_a_bad_head_is_refused_with_its_own_status(data: bytes, status: int, code: str) -> None:
    refusal = refused(data)
    assert (refusal.status, refusal.code) == (status, code)


def test_a_complete_head_over_the_limit_is_refused_although_it_came_at_once() -> None:
    assert refused(HEAD, limit=len(HEAD) - 1).status == 431
    assert isinstance(read(HEAD, limit=len(HEAD)), RequestHead)


def test_an_endless_head_is_refused_before_it_is_collected() -> None:
    reader = HeadReader(1000)
    result, fed = reader.feed(b"GET / HTTP/1.1\r\nX: "), 0
    while result is None:
        result = reader.feed(b"x" * 100)
        fed += 100
    assert isinstance(result, Refusal)
    assert result.status == 431
    assert fed <= 1100


def test_two_leading_slashes_are_a_path_and_not_a_host() -> None:
    head = read(b"GET //evil.example/healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert isinstance(head, RequestHead)
    assert head.path == "//evil.example/healthz"


def test_the_absolute_form_of_a_target_is_understood() -> None:
    head = read(b"GET http://a.example/healthz?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert isinstance(head, RequestHead)
    assert (head.path, head.target) == ("/healthz", "/healthz?x=1")


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    assert "a-key" not in refused(b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer \x00a-key\r\n\r\n").message
