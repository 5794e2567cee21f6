"""The public port's table: which path and method leads where, and what a WebSocket upgrade must look like."""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from enum import Enum

import msgspec

from orchestrator.http_server.answers import Refusal
from orchestrator.http_server.request_head import RequestHead

__all__ = ["ROUTES", "Destination", "Route", "find_route"]

_TOKEN = re.compile(r"[-!#$%&'*+.^_`|~0-9a-zA-Z]+")
_LISTS = ("connection", "sec-websocket-protocol")


class Destination(Enum):
    """Where a request may lead."""

    HEALTH = "health"
    READINESS = "readiness"
    METRICS = "metrics"
    TWILIO_VOICE = "twilio_voice"
    REALTIME = "realtime"
    TWILIO_MEDIA = "twilio_media"


class Route(msgspec.Struct, frozen=True):
    """One entry. `channel` names the kind of caller where the route is a WebSocket, and is None otherwise."""

    destination: Destination
    method: str
    path: str
    channel: str | None = None
    takes_body: bool = False


ROUTES: tuple[Route, ...] = (
    Route(Destination.HEALTH, "GET", "/healthz"),
    Route(Destination.READINESS, "GET", "/readyz"),
    Route(Destination.METRICS, "GET", "/metrics"),
    Route(Destination.TWILIO_VOICE, "POST", "/twilio/voice", takes_body=True),
    Route(Destination.REALTIME, "GET", "/v1/realtime", channel="openai"),
    Route(Destination.TWILIO_MEDIA, "GET", "/twilio/media", channel="twilio"),
)


def find_route(head: RequestHead) -> Route | Refusal:
    """Return the route of a request, or 404, 405 or 426, or 400 for an upgrade that cannot succeed."""
    # A carrier may be given, or may make, a path that ends in a slash.
    path = head.path.rstrip("/") or "/"
    at_path = [route for route in ROUTES if route.path == path]
    if not at_path:
        return Refusal(status=404, code="not_found", message="there is nothing at this path")
    route = next((route for route in at_path if route.method == head.method), None)
    if route is None:
        allowed = ", ".join(route.method for route in at_path)
        return Refusal(
            status=405,
            code="method_not_allowed",
            message=f"this path takes {allowed}",
            headers=(("Allow", allowed),),
        )
    if route.channel is None:
        return route
    return _check_upgrade(head) or route


def _check_upgrade(head: RequestHead) -> Refusal | None:
    """Refuse here what the WebSocket library would refuse later, so that it costs no session slot (RFC 6455 §4.2.1)."""
    wants_upgrade = "upgrade" in _lower(head, "connection") and _lower(head, "upgrade") == ["websocket"]
    # RFC 9110 §7.8: an Upgrade field in an HTTP/1.0 request is to be ignored.
    if not wants_upgrade or head.http_version == "1.0":
        return Refusal(
            status=426,
            code="upgrade_required",
            message="this path speaks WebSocket: send an Upgrade request",
            headers=(("Upgrade", "websocket"),),
        )
    if head.header_values("sec-websocket-version") != ["13"]:
        return Refusal(
            status=426,
            code="websocket_version",
            message="this server speaks WebSocket version 13",
            headers=(("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")),
        )
    if not _is_key(head):
        return Refusal(
            status=400,
            code="bad_upgrade",
            message="Sec-WebSocket-Key must be given once, as 16 bytes in base64",
        )
    if not all(_TOKEN.fullmatch(item) for name in _LISTS for item in head.header_tokens(name)):
        return Refusal(status=400, code="bad_upgrade", message="Connection and Sec-WebSocket-Protocol are lists of names")
    if head.header("transfer-encoding") is not None or head.header("content-length") not in (None, "0"):
        return Refusal(status=400, code="bad_upgrade", message="an Upgrade request cannot have a body")
    return None


def _lower(head: RequestHead, name: str) -> list[str]:
    return [token.lower() for token in head.header_tokens(name)]


def _is_key(head: RequestHead) -> bool:
    keys = head.header_values("sec-websocket-key")
    try:
        return len(keys) == 1 and len(b64decode(keys[0], validate=True)) == 16
    except (binascii.Error, ValueError):
        return False
