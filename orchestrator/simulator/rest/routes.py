"""The table of plain requests: which handler answers which method and path.

A handler is an ordinary function that returns at once; whatever takes longer it starts and leaves to an owner. A WireError
that it raises becomes a 400. Paths that begin with `/simulator/` drive the simulator itself and take no key, so a page in a
browser on this machine must not reach them. They take JSON by its media type only: a browser sends that to another site after
asking first, and is never told yes. And a server on loopback answers them under a name of loopback only, since a page can let
its own name point here (DNS rebinding).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec

from orchestrator.errors import WireError
from orchestrator.http_server.answers import Headers, Refusal, Response
from orchestrator.http_server.request_head import RequestHead
from orchestrator.simulator.loopback import is_loopback
from orchestrator.wire.validation import param_of, split_path, wire_error

__all__ = ["Handler", "Match", "RestRequest", "Route", "RouteTable", "json_response", "read_json", "refused"]

CONTROL_PREFIX = "/simulator/"
JSON = "application/json"
# A browser asks again after so many seconds.
_PREFLIGHT_AGE = "600"
_BODY_METHODS = frozenset({"POST", "PUT", "PATCH"})

# What a browser asks for is repeated to it, if it looks like names of headers; "*" would not cover Authorization.
_HEADER_NAMES = re.compile(r"[\w ,-]{1,1000}", re.ASCII)
_USUAL_HEADERS = "authorization, content-type"

_UNKNOWN_MEMBER = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`")

_T = TypeVar("_T")


class RestRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One complete request. `parameters` are the parts of the path that its pattern names, percent-decoded."""

    method: str
    path: str
    parameters: Mapping[str, str]
    query: Headers
    headers: Headers
    body: bytes = b""

    def __repr__(self) -> str:
        # Headers and body may hold keys, which belong in no log.
        return f"RestRequest({self.method} {self.path})"

    def header(self, name: str) -> str | None:
        """Return the first value of a header, given in lower case."""
        return next((value for have, value in self.headers if have == name), None)


Handler: TypeAlias = Callable[[RestRequest], "Response | Refusal"]


class Route(msgspec.Struct, frozen=True):
    """A method and a path with the handler for it. `{name}` in the path stands for one part of it, which is not empty."""

    method: str
    pattern: str
    handler: Handler

    @property
    def control(self) -> bool:
        """Whether it drives the simulator, rather than being part of the API."""
        return self.pattern.startswith(CONTROL_PREFIX)

    def parameters(self, path: str) -> dict[str, str] | None:
        """The named parts of a path that fits the pattern, else None."""
        wanted, given = self.pattern.split("/"), path.split("/")
        if len(wanted) != len(given):
            return None
        found: dict[str, str] = {}
        for name, value in zip(wanted, given, strict=True):
            if name.startswith("{") and value:
                found[name[1:-1]] = unquote(value)
            elif name != value:
                return None
        return found


class Match(msgspec.Struct, frozen=True):
    """The route of a request whose head is known, and the parts of its path."""

    route: Route
    parameters: Mapping[str, str]

    def answer(self, head: RequestHead, body: bytes) -> Response:
        """Ask the handler, and add what lets a page in a browser read the answer of the API."""
        request = RestRequest(
            method=head.method,
            path=head.path,
            parameters=self.parameters,
            query=head.query,
            headers=head.headers,
            body=body,
        )
        result: Response | Refusal
        if self.route.control and head.method in _BODY_METHODS and body and not _is_json(request):
            result = Refusal(status=415, code="media_type", message=f"send JSON as {JSON}")
        else:
            try:
                result = self.route.handler(request)
            except WireError as error:
                result = refused(error)
        response = result.response() if isinstance(result, Refusal) else result
        return response if self.route.control else _readable_by_pages(response)


class RouteTable:
    """All routes of one server. Routes may be added while it runs. `on_loopback` says that it listens there only."""

    def __init__(self, routes: Iterable[Route] = (), *, on_loopback: bool = False) -> None:
        self._routes = list(routes)
        self._on_loopback = on_loopback

    def add(self, *routes: Route) -> None:
        """Add routes; the first that fits is asked."""
        self._routes += routes

    def find(self, head: RequestHead) -> Match | Response:
        """The route of a request, or the answer where there is none: 403, 404, 405, or that to a browser's question."""
        if self._on_loopback and head.path.startswith(CONTROL_PREFIX) and not is_loopback(_host_of(head)):
            message = "The simulator is driven under the name localhost, or an address of loopback."
            return Refusal(status=403, code="foreign_host", message=message).response()
        path = head.path.rstrip("/")
        fitting = [(route, found) for route in self._routes if (found := route.parameters(path)) is not None]
        if not fitting:
            return Refusal(
                status=404, code="unknown_url", message=f"Invalid URL ({head.method[:20]} {head.path[:200]})"
            ).response()
        for route, parameters in fitting:
            if route.method == head.method:
                return Match(route, parameters)
        methods = [route.method for route, _ in fitting if not route.control]
        if head.method == "OPTIONS" and methods:
            return _readable_by_pages(_preflight(head, methods))
        allowed = ", ".join(route.method for route, _ in fitting)
        message = f"Not allowed to {head.method[:20]} on {head.path[:200]}"
        return Refusal(status=405, code="method_not_allowed", message=message, headers=(("Allow", allowed),)).response()


def json_response(value: object, status: int = 200) -> Response:
    """An answer in JSON: whatever msgspec can encode."""
    return Response(status=status, body=msgspec.json.encode(value), content_type=JSON)


def read_json(request: RestRequest, type_: type[_T]) -> _T:
    """The body as `type_`; an empty body counts as an empty object. Raises WireError, which names what is wrong."""
    try:
        return msgspec.json.decode(request.body or b"{}", type=type_)
    except msgspec.ValidationError as error:
        text, path = split_path(error)
        if unknown := _UNKNOWN_MEMBER.fullmatch(text):
            at = param_of(path)
            param = f"{at}.{unknown['name']}" if at else unknown["name"]
            raise WireError("unknown_parameter", f"Unknown parameter: '{param}'.", param) from None
        raise wire_error(error) from None
    except (ValueError, RecursionError):
        raise WireError("invalid_json", "We could not parse the JSON body of your request.") from None


def refused(error: WireError, status: int = 400) -> Refusal:
    """The answer to a body that breaks its rules."""
    return Refusal(status=status, code=error.wire_code, message=error.message, param=error.param)


def _host_of(head: RequestHead) -> str:
    """The name under which the server was asked, or nothing."""
    try:
        return urlsplit(f"//{head.header('host') or ''}").hostname or ""
    except ValueError:
        return ""


def _is_json(request: RestRequest) -> bool:
    return (request.header("content-type") or "").partition(";")[0].strip().lower() == JSON


def _preflight(head: RequestHead, methods: list[str]) -> Response:
    asked = head.header("access-control-request-headers") or ""
    headers = (
        ("Access-Control-Allow-Methods", ", ".join([*methods, "OPTIONS"])),
        ("Access-Control-Allow-Headers", asked if _HEADER_NAMES.fullmatch(asked) else _USUAL_HEADERS),
        ("Access-Control-Max-Age", _PREFLIGHT_AGE),
    )
    return Response(headers=headers)


def _readable_by_pages(response: Response) -> Response:
    # No credentials of the browser are involved: a page has to know the key itself.
    headers = (*response.headers, ("Access-Control-Allow-Origin", "*"))
    return msgspec.structs.replace(response, headers=headers)
