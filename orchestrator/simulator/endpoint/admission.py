"""Who may open a session, and how a refusal looks: not as an HTTP error, but as an event on an open socket.

The live API answers every upgrade with 101, even for a wrong key or model. It then sends one `error` event and closes; clients
are written for that, so this endpoint does the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.http11 import Request

__all__ = ["PATH", "AccessRules", "Admitted", "Turned", "admit", "path_of"]

PATH = "/v1/realtime"
UNAUTHORIZED, BAD_REQUEST = 3000, 4000
KEY_PROTOCOL = "openai-insecure-api-key."
MODEL_PREFIXES = ("gpt-realtime", "gpt-audio", "gpt-4o-realtime", "gpt-4o-mini-realtime")
_SHOWN = 100


@dataclass(frozen=True)
class AccessRules:
    """Which keys and models are accepted. No keys: any key that is not empty. `models` are known beside the usual names."""

    keys: frozenset[str] = frozenset()
    models: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Admitted:
    """The session may begin with this model."""

    model: str


@dataclass(frozen=True)
class Turned:
    """The session may not begin: send the error, then close."""

    code: str | None
    message: str
    close_code: int

    @property
    def close_reason(self) -> str:
        """The text of the close frame."""
        return "invalid_request_error" if self.code is None else f"invalid_request_error.{self.code}"


def path_of(request: Request) -> str:
    """The path of a request, without query and a slash at the end."""
    return urlsplit(request.path).path.rstrip("/")


def admit(request: Request, rules: AccessRules) -> Admitted | Turned:
    """Decide about one upgrade. The order of the checks is that of the API."""
    if "realtime=v1" in request.headers.get_all("OpenAI-Beta"):
        message = f"The Realtime Beta API is no longer supported. Please use {PATH} for the GA API."
        return Turned("beta_api_shape_disabled", message, BAD_REQUEST)
    key = _key(request)
    if not key:
        return Turned(None, "Missing bearer or basic authentication in header", UNAUTHORIZED)
    if rules.keys and key not in rules.keys:
        message = (
            f"Incorrect API key provided: {_masked(key)}. You can find your API key at "
            "https://platform.openai.com/account/api-keys."
        )
        return Turned("invalid_api_key", message, UNAUTHORIZED)
    query = parse_qs(urlsplit(request.path).query)
    model = query.get("model", [""])[0]
    if not model:
        message = f"You must provide a model parameter, for example wss://api.openai.com{PATH}?model=gpt-realtime-1.5"
        return Turned("missing_model", message, BAD_REQUEST)
    if not model.startswith(MODEL_PREFIXES) and model not in rules.models:
        message = f'Model "{model[:_SHOWN]}" is not supported in realtime mode.'
        return Turned("invalid_model", message, BAD_REQUEST)
    return Admitted(model)


def _key(request: Request) -> str:
    for value in request.headers.get_all("Authorization"):
        scheme, _, key = value.partition(" ")
        if scheme.lower() == "bearer" and key.strip():
            return key.strip()
    # A browser cannot set headers, so it offers the key as a subprotocol.
    for offered in _offered(request):
        if offered.startswith(KEY_PROTOCOL):
            return offered.removeprefix(KEY_PROTOCOL)
    return ""


def _offered(request: Request) -> Iterator[str]:
    for value in request.headers.get_all("Sec-WebSocket-Protocol"):
        yield from (name.strip() for name in value.split(","))


def _masked(key: str) -> str:
    return f"{key[:3]}{'*' * 8}{key[-4:]}" if len(key) > 8 else "*" * 8
