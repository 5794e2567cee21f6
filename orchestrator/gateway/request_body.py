"""The form in the body of a request: the carrier's webhook posts one."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from orchestrator.http_server.answers import Headers, Refusal
from orchestrator.http_server.request_head import RequestHead

__all__ = ["MAX_BODY", "parse_form"]

MAX_BODY: Final = 64 * 1024
MAX_FIELDS: Final = 500


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
