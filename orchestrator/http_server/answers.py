"""Plain HTTP answers: documents, and refusals in the Realtime API's error form.

Every answer closes its connection. A connection that goes on is one that upgrades, and that leaves for somebody else.
"""

from __future__ import annotations

from http import HTTPStatus

import h11
import msgspec

__all__ = ["Refusal", "Response", "render"]

Headers = tuple[tuple[str, str], ...]

_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """An answer with a body."""

    status: int = 200
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Headers = ()


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A request turned away.

    `code` is stable: the caller gets it in the error object and the refusal counter has it as its label. `message` tells the
    caller what to change, and repeats nothing secret. `retry_after` is in seconds.
    """

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: int | None = None
    headers: Headers = ()

    def response(self) -> Response:
        """Return the answer that says so."""
        error = {
            "message": self.message,
            "type": "server_error" if self.status >= 500 else "invalid_request_error",
            "code": self.code,
            "param": self.param,
        }
        headers = self.headers
        if self.retry_after is not None:
            headers = (*headers, ("Retry-After", str(self.retry_after)))
        return Response(
            status=self.status,
            body=msgspec.json.encode({"error": error}),
            content_type="application/json",
            headers=headers,
        )


def render(response: Response) -> bytes:
    """Encode an answer, complete with framing headers, for a connection that is closed after it."""
    headers: list[tuple[str, str]] = [
        ("Content-Type", response.content_type),
        ("Content-Length", str(len(response.body))),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
        *response.headers,
    ]
    connection = h11.Connection(h11.SERVER)
    # The phrase may be empty (RFC 9112 §4), and is where the registry has no such status.
    reason = _PHRASES.get(response.status, "").encode()
    parts = (
        connection.send(h11.Response(status_code=response.status, headers=headers, reason=reason)),
        connection.send(h11.Data(data=response.body)),
        connection.send(h11.EndOfMessage()),
    )
    return b"".join(part for part in parts if part)
