"""From bytes to a request head, or to the refusal that they deserve.

Pure: bytes in, result out. The deadline for a head that never completes belongs to whoever owns the socket. h11 parses;
beyond it, the head must be one that the WebSocket library of the session actor reads in the same way, since that actor
parses the same bytes again.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl, urlsplit

import h11
import msgspec

from orchestrator.http_server.answers import Headers, Refusal

__all__ = ["HeadReader", "RequestHead"]

# The limits of the WebSocket library that parses the head after us, or a little less.
MAX_LINE: Final = 8190
MAX_HEADERS: Final = 100
MAX_QUERY_FIELDS: Final = 100

# What a head may consist of: visible characters, blanks, tabs, obs-text and line ends.
_ALLOWED: Final = bytes([*b"\t\n\r", *range(0x20, 0x7F), *range(0x80, 0x100)])


class RequestHead(msgspec.Struct, frozen=True, kw_only=True):
    """A complete request head.

    `target` is path and query as sent; `path` is not percent-decoded, header names are lower-case. The
    head took `size` bytes; `rest` is what was received after it.
    """

    method: str
    target: str
    path: str
    query: Headers
    http_version: str
    headers: Headers
    size: int
    rest: bytes

    def __repr__(self) -> str:
        # Headers and query may hold keys, which belong in no log.
        return f"RequestHead({self.method} {self.path})"

    @property
    def wants_websocket(self) -> bool:
        """Whether the client asks for a WebSocket. Names of protocols are compared without case (RFC 9110 §7.8)."""
        return "websocket" in (name.lower() for name in self.header_tokens("upgrade"))

    def header(self, name: str) -> str | None:
        """Return the first value of a header, given in lower case."""
        return next((value for have, value in self.headers if have == name), None)

    def header_values(self, name: str) -> list[str]:
        """Return all values of a header."""
        return [value for have, value in self.headers if have == name]

    def header_tokens(self, name: str) -> list[str]:
        """Return the comma-separated parts of all values of a header."""
        # Not a bare strip(): among the blanks of Unicode are characters that HTTP knows as text.
        parts = (part.strip(" \t") for part in ",".join(self.header_values(name)).split(","))
        return [part for part in parts if part]

    def query_value(self, name: str) -> str | None:
        """Return the first value of a query parameter."""
        return next((value for have, value in self.query if have == name), None)


class HeadReader:
    """Collects the bytes of one connection until its request head is complete."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()
        self._connection = h11.Connection(h11.SERVER, max_incomplete_event_size=limit)

    @property
    def received(self) -> bytes:
        """Everything fed so far."""
        return bytes(self._data)

    def feed(self, data: bytes) -> RequestHead | Refusal | None:
        """Take more bytes. Returns None while more are needed; after any other result the reader is done. Never raises."""
        if not data:
            return None  # h11 would take it for the end of the stream
        self._data += data
        try:
            self._connection.receive_data(data)
            event = self._connection.next_event()
        except h11.RemoteProtocolError as error:
            # Not the error's own text: it quotes the line, which may hold a key.
            return _refusal(error.error_status_hint, "this is not a valid HTTP/1.1 request head")
        if event is h11.NEED_DATA:
            return None
        if not isinstance(event, h11.Request):
            return _refusal(400, "the connection did not begin with a request")
        rest = self._connection.trailing_data[0]
        return self._head(event, len(self._data) - len(rest), rest)

    def _head(self, request: h11.Request, size: int, rest: bytes) -> RequestHead | Refusal:
        raw = bytes(self._data[:size])
        version = request.http_version.decode("ascii")
        if version not in ("1.0", "1.1"):
            return Refusal(status=505, code="http_version", message="this server speaks HTTP/1.1")
        if size > self._limit or len(request.headers) > MAX_HEADERS or max(map(len, raw.split(b"\r\n"))) > MAX_LINE:
            return _refusal(431, "the request head is too large")
        if raw.translate(None, _ALLOWED) or not _has_plain_lines(raw):
            return _refusal(400, "the request head has stray control characters or line ends")
        try:
            path, raw_query = _split(request.target.decode("ascii"))
            query = tuple(parse_qsl(raw_query, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS))
        except ValueError:
            return _refusal(400, "the request target is malformed")
        return RequestHead(
            method=request.method.decode("ascii"),
            target=f"{path}?{raw_query}" if raw_query else path,
            path=path,
            query=query,
            http_version=version,
            headers=tuple((name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers),
            size=size,
            rest=rest,
        )


def _has_plain_lines(raw: bytes) -> bool:
    """Say whether each line ends in CR and LF, neither occurs alone, and no header goes on in the next line."""
    ends = raw.count(b"\r\n")
    return raw.count(b"\n") == raw.count(b"\r") == ends and b"\n " not in raw and b"\n\t" not in raw


def _split(target: str) -> tuple[str, str]:
    """Cut a target into path and query. Raises ValueError for one that has neither."""
    if target.startswith("/"):
        # Not urlsplit: it takes what follows two slashes for a host.
        path, _, query = target.partition("?")
        return path, query
    if target.startswith(("http://", "https://")):
        parts = urlsplit(target)
        return parts.path or "/", parts.query
    if target == "*":
        return target, ""
    raise ValueError(target)


def _refusal(status: int, message: str) -> Refusal:
    code = {431: "head_too_large", 501: "transfer_encoding"}.get(status, "bad_request_head")
    return Refusal(status=status, code=code, message=message)
