"""The table of the public port, and the upgrades that it lets through."""

from __future__ import annotations

import pytest

from orchestrator.gateway.routes import ROUTES, Destination, Route, find_route
from orchestrator.http_server.answers import Refusal
from orchestrator.http_server.request_head import HeadReader, RequestHead

UPGRADE = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


def head(method: str, path: str, headers: tuple[tuple[str, str], ...] = (), version: str = "1.1") -> RequestHead:
    lines = [f"{method} {path} HTTP/{version}", "Host: a", *(f"{name}: {value}" for name, value in headers), "", ""]
    result = HeadReader(16384).feed("\r\n".join(lines).encode())
    assert isinstance(result, RequestHead)
    return result


def refusal(request: RequestHead) -> Refusal:
    result = find_route(request)
    assert isinstance(result, Refusal)
    return result


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_every_route_is_found(route: Route) -> None:
    assert find_route(head(route.method, route.path, UPGRADE)) is route
    assert find_route(head(route.method, route.path + "/?a=b", UPGRADE)) is route


def test_plain_routes_need_no_upgrade() -> None:
    route = find_route(head("GET", "/healthz", version="1.0"))
    assert isinstance(route, Route)
    assert route.destination is Destination.HEALTH


@pytest.mark.parametrize("path", ["/", "/v1/realtime/x", "/V1/realtime", "/%761/realtime", "//v1/realtime", "*"])
def test_other_paths_lead_nowhere(path: str) -> None:
    assert refusal(head("GET", path)).status == 404


def test_another_method_is_told_the_right_one() -> None:
    answer = refusal(head("DELETE", "/twilio/voice"))
    assert answer.status == 405
    assert ("Allow", "POST") in answer.headers


def test_a_websocket_route_demands_an_upgrade() -> None:
    answer = refusal(head("GET", "/v1/realtime"))
    assert answer.status == 426
    assert ("Upgrade", "websocket") in answer.headers
    assert refusal(head("GET", "/v1/realtime", UPGRADE, version="1.0")).status == 426


def replaced(name: str, *values: str) -> tuple[tuple[str, str], ...]:
    return (*(pair for pair in UPGRADE if pair[0] != name), *((name, value) for value in values))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (replaced("Sec-WebSocket-Version", "8"), 426),
        (replaced("Sec-WebSocket-Version"), 426),
        (replaced("Upgrade", "h2c"), 426),
        (replaced("Upgrade", "websocket, h2c"), 426),
        (replaced("Connection", "close"), 426),
        (replaced("Sec-WebSocket-Key"), 400),
        (replaced("Sec-WebSocket-Key", "short"), 400),
        (replaced("Sec-WebSocket-Key", "c2hvcnQ="), 400),
        (replaced("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ=="), 400),
        ((*UPGRADE, ("Content-Length", "5")), 400),
        ((*UPGRADE, ("Transfer-Encoding", "chunked")), 400),
    ],
)
def test_an_upgrade_that_cannot_succeed_costs_no_slot(headers: tuple[tuple[str, str], ...], status: int) -> None:
    assert refusal(head("GET", "/twilio/media", headers)).status == status


def test_header_names_and_tokens_are_compared_without_case() -> None:
    headers = (("connection", "keep-alive, UPGRADE"), ("UPGRADE", "WebSocket"), *UPGRADE[2:])
    assert isinstance(find_route(head("GET", "/v1/realtime", headers)), Route)
