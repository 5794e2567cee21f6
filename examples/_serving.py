"""The web server of an example: a socket to listen on, and uvicorn inside the program's own event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import uvicorn
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp

from orchestrator.errors import UserError
from orchestrator.http_server.answers import Refusal
from orchestrator.http_server.request_head import RequestHead

__all__ = ["head_of", "listen", "origin_of", "refused", "serving"]

# What is still open when the server ends is told so; what has not ended after so many seconds is cancelled.
GRACE_SECONDS = 3
# Messages of a telephone line are small; an example that gets pictures says so.
MAX_MESSAGE = 64 * 1024


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one. Raises UserError where it cannot."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"cannot listen on {host} port {port} ({error.strerror}): choose another with --port") from None


def origin_of(listener: socket.socket) -> str:
    """Return the address of a listening socket as it is reached on this machine, "http://host:port"."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@asynccontextmanager
async def serving(
    app: ASGIApp, listener: socket.socket, *, max_message: int = MAX_MESSAGE
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Serve inside the block. What it yields waits until the server has ended by itself, as it does on Ctrl-C and SIGTERM.

    `max_message` is the limit of a WebSocket's messages in bytes. The listener is closed with the block.
    """
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws_max_size=max_message,
        # Audio does not get smaller, and compressing it takes time fifty times a second.
        ws_per_message_deflate=False,
    )
    server = uvicorn.Server(config)
    with listener:
        task = asyncio.create_task(server.serve(sockets=[listener]), name="web server")

        async def ended() -> None:
            await asyncio.wait([task])  # Whoever is cancelled here does not cancel the server.

        try:
            # The socket listens already, so whoever connects before the server has started merely waits for it.
            yield ended
        finally:
            server.should_exit = True
            await asyncio.wait([task])
        task.result()


def head_of(connection: HTTPConnection) -> RequestHead:
    """Return the head of a request as the library has it, for its checks."""
    scope = connection.scope
    # As sent, since that is what may have been signed.
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    return RequestHead(
        method=scope.get("method", "GET"),
        target=f"{path}?{query}" if query else path,
        path=path,
        query=tuple(connection.query_params.multi_items()),
        http_version=scope["http_version"],
        headers=tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]),
        size=0,
        rest=b"",
    )


def refused(refusal: Refusal) -> Response:
    """Return the answer to a request that one of the library's checks refuses."""
    answer = refusal.response()
    return Response(answer.body, answer.status, dict(answer.headers), answer.content_type)
