"""Who may open a session, and how a refusal looks.

The live API answers every upgrade with 101, even for a wrong key or model. It then sends one `error` event and closes; clients
are written for that, so this endpoint does the same. The form of Azure refuses at the handshake instead.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Literal, TypeAlias

from orchestrator.errors import WireError
from orchestrator.http_server.answers import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from orchestrator.http_server.request_head import RequestHead
    from orchestrator.wire.realtime import SessionConfig

__all__ = [
    "AccessRules",
    "Admitted",
    "ApiForm",
    "Joined",
    "Preset",
    "SessionKind",
    "Turned",
    "admit",
    "bad_settings",
    "bearer_key",
    "check_key",
    "check_model",
    "key_of",
    "no_such_call",
]

UNAUTHORIZED, BAD_REQUEST, NOT_FOUND = 3000, 4000, 4004
KEY_PROTOCOL = "openai-insecure-api-key."
EPHEMERAL = "ek_"
MODEL_PREFIXES = ("gpt-realtime", "gpt-audio", "gpt-4o-realtime", "gpt-4o-mini-realtime")
_SHOWN = 100

SessionKind: TypeAlias = Literal["realtime", "transcription"]


class ApiForm(Enum):
    """Whose endpoint this looks like. The value is the path that the API is under."""

    OPENAI = "/v1"
    AZURE = "/openai/v1"

    @property
    def realtime(self) -> str:
        """The path of the sockets."""
        return f"{self.value}/realtime"


@dataclass(frozen=True)
class AccessRules:
    """Which keys and models are accepted. No keys: any key that is not empty. `models` are known beside the usual names."""

    keys: frozenset[str] = field(default=frozenset(), repr=False)
    models: frozenset[str] = frozenset()
    form: ApiForm = ApiForm.OPENAI


@dataclass(frozen=True)
class Preset:
    """What a client secret carries: the session that was configured for it, with the model named there, if one was."""

    model: str | None = None
    kind: SessionKind = "realtime"
    session: SessionConfig | None = None


@dataclass(frozen=True)
class Admitted:
    """The session may begin with this model, which is empty for a transcription session that names none."""

    model: str
    kind: SessionKind = "realtime"
    preset: SessionConfig | None = None


@dataclass(frozen=True)
class Joined:
    """The client wants to sit beside a call."""

    call_id: str


@dataclass(frozen=True)
class Turned:
    """The session may not begin: send the error, then close. `status` is for where HTTP says so instead."""

    code: str | None
    message: str
    close_code: int
    status: int = 400

    @property
    def close_reason(self) -> str:
        """The text of the close frame."""
        return "invalid_request_error" if self.code is None else f"invalid_request_error.{self.code}"

    def refusal(self) -> Refusal:
        """The same as an answer in plain HTTP."""
        return Refusal(status=self.status, code=self.code or "missing_api_key", message=self.message)


def _no_secrets(_: str) -> Preset | None:
    return None


def admit(
    head: RequestHead, rules: AccessRules, secrets: Callable[[str], Preset | None] = _no_secrets
) -> Admitted | Joined | Turned:
    """Decide about one upgrade. The order of the checks is that of the API. `secrets` knows the keys that begin with ek_."""
    if "realtime=v1" in head.header_tokens("openai-beta"):
        message = f"The Realtime Beta API is no longer supported. Please use {rules.form.realtime} for the GA API."
        return Turned("beta_api_shape_disabled", message, BAD_REQUEST)
    preset = check_key(key_of(head, rules.form), rules, secrets)
    if isinstance(preset, Turned):
        return preset
    call_id = head.query_value("call_id")
    if call_id:
        return Joined(call_id)
    # What a secret was made for decides, not the URL.
    if preset.kind == "transcription" or (preset.session is None and head.query_value("intent") == "transcription"):
        return Admitted(head.query_value("model") or "", "transcription", preset.session)
    model = head.query_value("model") or preset.model
    if not model:
        message = (
            f"You must provide a model parameter, for example wss://api.openai.com{rules.form.realtime}?model=gpt-realtime-1.5"
        )
        return Turned("missing_model", message, BAD_REQUEST)
    try:
        check_model(model, rules)
    except WireError as error:
        return Turned(error.wire_code, error.message, BAD_REQUEST, 404)
    return Admitted(model, "realtime", preset.session)


def check_model(model: str, rules: AccessRules, param: str | None = None) -> None:
    """Raise WireError if there is no such model. `param` is where it was named."""
    if not model.startswith(MODEL_PREFIXES) and model not in rules.models:
        raise WireError("invalid_model", f'Model "{model[:_SHOWN]}" is not supported in realtime mode.', param)


def check_key(key: str, rules: AccessRules, secrets: Callable[[str], Preset | None] = _no_secrets) -> Preset | Turned:
    """Decide about a key alone: what it presets, or why it does not do."""
    if not key:
        return Turned(None, "Missing bearer or basic authentication in header", UNAUTHORIZED, 401)
    if key.startswith(EPHEMERAL):
        # One that has expired is refused like one that never was: the live answer to it is not known.
        preset = secrets(key)
        if preset is not None:
            return preset
    # Every key is compared to its end, so that the time taken tells nothing about them.
    elif not rules.keys or sum([hmac.compare_digest(key.encode(), known.encode()) for known in rules.keys]):
        return Preset()
    message = f"Incorrect API key provided: {_masked(key)}. You can find your API key at https://platform.openai.com/account/api-keys."
    return Turned("invalid_api_key", message, UNAUTHORIZED, 401)


def bad_settings(error: WireError) -> Turned:
    """The refusal of a session whose settings do not go with the model that the socket asks for. Its live form is not known."""
    return Turned(error.wire_code, error.message, BAD_REQUEST)


def no_such_call(call_id: str) -> Turned:
    """The refusal of a socket beside a call that is not there, not accepted yet, or over. Its live form is not known."""
    message = f"No session found for call_id '{call_id[:_SHOWN]}'."
    return Turned("call_id_not_found", message, NOT_FOUND, 404)


def bearer_key(values: list[str]) -> str:
    """The key in the values of an Authorization header, or nothing."""
    for value in values:
        scheme, _, key = value.partition(" ")
        if scheme.lower() == "bearer" and key.strip():
            return key.strip()
    return ""


def key_of(head: RequestHead, form: ApiForm) -> str:
    """The key that a request brings, wherever it may stand, or nothing."""
    if key := bearer_key(head.header_values("authorization")):
        return key
    if form is ApiForm.AZURE and (own := head.header("api-key")):
        return own
    # A browser cannot set headers, so it offers the key as a subprotocol.
    return next(_offered_keys(head), "")


def _offered_keys(head: RequestHead) -> Iterator[str]:
    for offered in head.header_tokens("sec-websocket-protocol"):
        if offered.startswith(KEY_PROTOCOL):
            yield offered.removeprefix(KEY_PROTOCOL)


def _masked(key: str) -> str:
    return f"{key[:3]}{'*' * 8}{key[-4:]}" if len(key) > 16 else "*" * 8
