"""How long a body will be."""

from __future__ import annotations

import pytest

from orchestrator.http_server.answers import Refusal
from orchestrator.http_server.request_body import body_length
from orchestrator.http_server.request_head import HeadReader, RequestHead

LIMIT = 1000


def head(*headers: tuple[str, str]) -> RequestHead:
    lines = ["POST /twilio/voice HTTP/1.1", "Host: a", *(f"{name}: {value}" for name, value in headers), "", ""]
    result = HeadReader(16384).feed("\r\n".join(lines).encode())
    assert isinstance(result, RequestHead)
    return result


@pytest.mark.parametrize("length", [0, 1, LIMIT])
def test_an_announced_length_is_taken(length: int) -> None:
    assert body_length(head(("Content-Length", str(length))), LIMIT) == length


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (("X", "y"), 411),
        (("Transfer-Encoding", "chunked"), 411),
        (("Content-Length", str(LIMIT + 1)), 413),
        (("Content-Length", "9" * 19), 413),
    ],
)
def test_other_bodies_are_refused(header: tuple[str, str], status: int) -> None:
    result = body_length(head(header), LIMIT)
    assert isinstance(result, Refusal)
    assert result.status == status


def test_a_body_that_is_not_required_may_be_left_out() -> None:
    assert body_length(head(("X", "y")), LIMIT, required=False) == 0
    chunked = body_length(head(("Transfer-Encoding", "chunked")), LIMIT, required=False)
    assert isinstance(chunked, Refusal)
    assert chunked.status == 411
