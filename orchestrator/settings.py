"""All settings of the service in one frozen record, made once by the command line and handed down.

Nothing else reads the environment: an actor gets its settings as JSON when it is created. Secrets are wrapped, so that a
record of settings can be logged.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from orchestrator.errors import SettingsError

__all__ = ["ModelEndpoint", "Secret", "Settings", "from_environment"]

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Secret(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """A value that never shows itself: `reveal()` is the only way to read it."""

    value: str = ""

    def reveal(self) -> str:
        """Return the secret itself."""
        return self.value

    def __repr__(self) -> str:
        return "Secret(set)" if self.value else "Secret(empty)"

    __str__ = __repr__

    def __bool__(self) -> bool:
        return bool(self.value)


class ModelEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint of the Realtime API.

    `url` is without query; for "azure" the resource alone (`wss://<resource>.openai.azure.com`) is enough. `model` is what the
    endpoint calls the model, such as a deployment; empty for `Settings.model_name`. Endpoints of the lowest `priority` are used
    while any of them can be, spread by `weight`; each holds at most `max_sessions` of one session actor.
    """

    name: str
    url: str
    key: Secret = Secret()
    kind: Literal["openai", "azure"] = "openai"
    model: str = ""
    priority: int = 0
    weight: float = 1.0
    max_sessions: int | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What one deployment is configured to do. Durations are seconds, sizes bytes.

    `agent` is "package.module:attribute", imported by every session and tool actor, and `run_config` names a
    `RealtimeRunConfig` in the same way. `model_url` is the endpoint of the
    Realtime API, without query; `model_endpoints`, if there are any, stand in its place. A connection to a model that is lost
    is made anew within `renew_timeout`, and one that is `model_renew_after` old is replaced before the endpoint ends it, at
    `model_max_age`. `sessions_per_actor` trades isolation (1) for density. `journal_url` is where calls are
    journalled, `sqlite:///path` or `postgresql://user@host/database`; without one it is SQLite in `state_directory`, which is
    `~/.local/state/realtime-orchestrator` unless told otherwise and also holds what waits for a store that is away.
    """

    agent: str = "orchestrator.demo.agent:agent"
    run_config: str | None = None

    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str | None = None
    max_sessions: int = 200
    request_head_timeout: float = 5.0
    request_head_limit: int = 16 * 1024
    front_door_keys: tuple[Secret, ...] = ()
    twilio_auth_token: Secret = Secret()
    token_secret: Secret = Secret()

    model_url: str = "wss://api.openai.com/v1/realtime"
    model_name: str = "gpt-realtime"
    model_api_key: Secret = Secret()
    model_endpoints: tuple[ModelEndpoint, ...] = ()
    model_open_timeout: float = 10.0
    renew_timeout: float = 60.0
    model_renew_after: float = 3300.0
    model_max_age: float = 3600.0
    response_timeout: float = 15.0

    caller_max_message: int = 4 * 1024 * 1024
    twilio_max_message: int = 64 * 1024
    model_max_message: int = 16 * 1024 * 1024
    twilio_start_timeout: float = 10.0
    max_call_seconds: float = 4 * 3600.0

    session_actors: int = 4
    sessions_per_actor: int = 1
    tool_actors: int = 2
    tool_timeout: float = 30.0

    state_directory: str = ""
    journal_url: Secret = Secret()
    journal_spool_bytes: int = 1024 * 1024 * 1024

    namespace: str = "realtime-orchestrator"
    log_level: str = "info"

    def __post_init__(self) -> None:
        if self.host not in LOOPBACK and not (self.front_door_keys and self.token_secret):
            raise SettingsError(
                f"the gateway would listen on {self.host} without authentication: set front_door_keys and token_secret, "
                "or bind to 127.0.0.1"
            )
        if self.host not in LOOPBACK and self.twilio_auth_token and not self.public_url:
            raise SettingsError(
                "the carrier signs the address that it calls, which is not the one that the gateway listens on: set public_url"
            )
        for name in ("max_sessions", "session_actors", "sessions_per_actor", "tool_actors"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1")
        self._check_endpoints()

    @property
    def endpoints(self) -> tuple[ModelEndpoint, ...]:
        """Where models are: `model_endpoints`, or the one that the other settings describe."""
        return self.model_endpoints or (ModelEndpoint(name="model", url=self.model_url, key=self.model_api_key),)

    def _check_endpoints(self) -> None:
        names = [endpoint.name for endpoint in self.model_endpoints]
        if len(set(names)) != len(names) or not all(names):
            raise SettingsError("model_endpoints need names, each a different one")
        for endpoint in self.model_endpoints:
            if not endpoint.url.startswith(("ws://", "wss://")):
                raise SettingsError(f"the url of model endpoint {endpoint.name} must begin with ws:// or wss://")
            if endpoint.weight <= 0 or (endpoint.max_sessions is not None and endpoint.max_sessions < 1):
                raise SettingsError(f"weight and max_sessions of model endpoint {endpoint.name} must be more than 0")
        for name in ("renew_timeout", "model_renew_after", "model_max_age"):
            if getattr(self, name) <= 0:
                raise SettingsError(f"{name} must be more than 0 seconds")
        if self.model_renew_after > self.model_max_age * 0.93:
            raise SettingsError("model_renew_after must be at most 93 % of model_max_age: a swap takes its time")

    def to_json(self) -> bytes:
        """Encode for an actor of our own cluster. The result contains the secrets: never log it."""
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> Settings:
        """Decode what `to_json` made."""
        return msgspec.json.decode(data, type=cls)


class _EndpointText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An endpoint as it stands in the environment: its key is given by value, or by the name of another variable."""

    name: str
    url: str
    key: str = ""
    key_env: str = ""
    kind: Literal["openai", "azure"] = "openai"
    model: str = ""
    priority: int = 0
    weight: float = 1.0
    max_sessions: int | None = None


def _endpoints(text: str, environ: Mapping[str, str]) -> tuple[ModelEndpoint, ...]:
    try:
        found = msgspec.json.decode(text, type=list[_EndpointText])
    except msgspec.DecodeError:
        # What is wrong is not repeated: it may be a key.
        raise SettingsError("ORCHESTRATOR_MODEL_ENDPOINTS is not a JSON list of model endpoints") from None
    endpoints = []
    for one in found:
        key = environ.get(one.key_env, "") if one.key_env else one.key
        if one.key_env and not key:
            raise SettingsError(f"model endpoint {one.name} takes its key from {one.key_env}, which is not set")
        members = {name: getattr(one, name) for name in one.__struct_fields__ if name not in ("key", "key_env")}
        endpoints.append(ModelEndpoint(key=Secret(key), **members))
    return tuple(endpoints)


_SECRETS = {"twilio_auth_token", "token_secret", "model_api_key", "journal_url"}


def from_environment(environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Read `ORCHESTRATOR_<NAME>` for every setting, then apply the overrides that are not None.

    `OPENAI_API_KEY` stands in for `ORCHESTRATOR_MODEL_API_KEY`. Several front-door keys are separated by commas. Raises
    SettingsError, naming the variable and never its value.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        text = environ.get(f"ORCHESTRATOR_{field.name.upper()}")
        if text is None:
            continue
        if field.name == "front_door_keys":
            values[field.name] = tuple(Secret(key.strip()) for key in text.split(",") if key.strip())
        elif field.name == "model_endpoints":
            values[field.name] = _endpoints(text, environ)
        elif field.name in _SECRETS:
            values[field.name] = Secret(text)
        else:
            try:
                values[field.name] = msgspec.convert(text, field.type, strict=False)
            except msgspec.ValidationError:
                raise SettingsError(f"ORCHESTRATOR_{field.name.upper()} is not a valid {field.type}") from None
    if "model_api_key" not in values and environ.get("OPENAI_API_KEY"):
        values["model_api_key"] = Secret(environ["OPENAI_API_KEY"])
    values.update({name: value for name, value in overrides.items() if value is not None})
    return Settings(**values)
