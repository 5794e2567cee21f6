"""One POST over HTTP/1.1, for what the outside world tells a service: webhooks of a carrier and of the API."""

from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["AnswerTooLongError", "post"]

BODY_LIMIT: Final = 64 * 1024


class AnswerTooLongError(Exception):
    """The answer has more than 64 KiB."""


async def post(url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Send a body to an http or https URL; return the status of the answer, 0 where there was none, and its body.

    Redirects are not followed. There is no timeout here. Raises OSError, h11.RemoteProtocolError or AnswerTooLongError.
    Cancelling closes the connection.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=secure or None)
    except UnicodeError:  # a label of the name is empty or too long
        raise OSError(errno.EINVAL, "no valid host name") from None
    try:
        connection = h11.Connection(h11.CLIENT)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.netloc.rpartition("@")[2]
        all_headers = [("Host", host), ("Content-Length", str(len(body))), ("Connection", "close"), *headers.items()]
        request = h11.Request(method="POST", target=target, headers=all_headers)
        for event in (request, h11.Data(data=body), h11.EndOfMessage()):
            writer.write(connection.send(event) or b"")
        await writer.drain()
        return await _read_response(connection, reader)
    finally:
        writer.close()


async def _read_response(connection: h11.Connection, reader: asyncio.StreamReader) -> tuple[int, bytes]:
    status, body = 0, bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(16 * 1024))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > BODY_LIMIT:
                raise AnswerTooLongError
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
            return status, bytes(body)
