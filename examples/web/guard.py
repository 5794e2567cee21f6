"""Who may ask, and what the answers say to the browser: the part of the server that knows about hostile pages.

A server on loopback is reachable for every page that the user has open. Two things keep them out. The name by which we are
asked must be one of ours, or a page could let its own name point here (DNS rebinding). And a WebSocket, which browsers open to
other sites without asking, must come from our own page.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["LOOPBACK", "Guard", "refusal"]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# The page needs nothing from anywhere else, so nothing else is allowed: no inline script, no foreign picture, no frame.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # The files are small, and one who works on them wants to see what was changed.
    "Cache-Control": "no-cache",
}
POLICY_VIOLATION = 1008


def refusal(host: str | None, origin: str | None, names: Iterable[str]) -> str | None:
    """Tell why a request with these headers may not come in, or None when it may.

    A program that is no browser sends no Origin; it could send any, so nothing is lost by letting it in.
    """
    name = _name_of(host)
    if name is None or name not in names:
        return "this server is not known under that name"
    # An origin is a scheme and what stands in Host (RFC 6454 §6.2); "null" is that of a page that has none.
    if origin is not None and origin.lower().partition("://")[2] != (host or "").lower():
        return "only the page of this server may do that"
    return None


class Guard:
    """An ASGI application in front of another: it refuses strangers, and puts the security headers on every answer.

    `names` are the host names, without a port, under which the server may be asked.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        headers = Headers(scope=scope)
        reason = refusal(headers.get("host"), headers.get("origin"), self._names)
        if reason is None:
            await self._app(scope, receive, send_with_headers)
        elif scope["type"] == "websocket":
            # Before it was accepted: the browser's page learns nothing but that it failed.
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": reason})
        else:
            await PlainTextResponse(f"{reason}\n", status_code=403)(scope, receive, send_with_headers)


def _name_of(host: str | None) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname if host else None
    except ValueError:
        return None
