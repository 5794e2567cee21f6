"""Bodies of the few requests that have one: how long it will be, and the form in it."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from orchestrator.http_server.answers import Headers, Refusal
from orchestrator.http_server.request_head import RequestHead

__all__ = ["MAX_BODY", "body_length", "parse_form"]

MAX_BODY: Final = 64 * 1024
MAX_FIELDS: Final = 500


def body_length(head: RequestHead) -> int | Refusal:
    """Return the announced length in bytes, or 411 or 413. A chunked body has no length beforehand, so it is not taken."""
    announced = head.header("content-length")
    if head.header("transfer-encoding") is not None or announced is None:
        return Refusal(status=411, code="length_required", message="send the body with a Content-Length, not chunked")
    # h11 has seen to it that these are digits; a number of absurd length is not worth converting.
    if len(announced) > 9 or int(announced) > MAX_BODY:
        return Refusal(status=413, code="body_too_large", message=f"the body may have {MAX_BODY} bytes")
    return int(announced)


def parse_form(head: RequestHead, body: bytes) -> Headers | Refusal:
    """Return the fields of a posted form in their order, or 400 or 415."""
    media_type = (head.header("content-type") or "").partition(";")[0].strip().lower()
    if media_type != "application/x-www-form-urlencoded":
        return Refusal(status=415, code="media_type", message="send a form: application/x-www-form-urlencoded")
    try:
        return tuple(
            parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="surrogateescape")
        )
    except ValueError:
        return Refusal(status=400, code="bad_form", message="the form is malformed")
