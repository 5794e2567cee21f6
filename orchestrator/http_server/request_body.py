"""How long the body of a request will be, known before it is read."""

from __future__ import annotations

from orchestrator.http_server.answers import Refusal
from orchestrator.http_server.request_head import RequestHead

__all__ = ["body_length"]


def body_length(head: RequestHead, limit: int, *, required: bool = True) -> int | Refusal:
    """Return the announced length in bytes, or the refusal of one that is missing (411) or above `limit` (413).

    A chunked body has no length beforehand, so it is not taken. A request that announces nothing has an empty body (RFC 9112
    §6.3), which is refused as well where a body is `required`.
    """
    announced = head.header("content-length")
    if head.header("transfer-encoding") is not None or (announced is None and required):
        return Refusal(status=411, code="length_required", message="send the body with a Content-Length, not chunked")
    if announced is None:
        return 0
    # h11 has seen to it that these are digits; a number of absurd length is not worth converting.
    if len(announced) > 9 or int(announced) > limit:
        return Refusal(status=413, code="body_too_large", message=f"the body may have {limit} bytes")
    return int(announced)
