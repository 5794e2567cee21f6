"""Client secrets: keys that a backend gives to a browser, short-lived and bound to the settings of a session.

A secret opens any number of sessions until it expires; a session that is open outlives it. Source: the Realtime API's
`POST /v1/realtime/client_secrets`.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from orchestrator.errors import WireError
from orchestrator.http_server.answers import Refusal
from orchestrator.simulator.endpoint.admission import EPHEMERAL, Preset, check_model
from orchestrator.simulator.endpoint.session_config import decode_preset, preset_session
from orchestrator.simulator.ids import IdSource
from orchestrator.simulator.json_text import json_text
from orchestrator.simulator.rest.access import with_key
from orchestrator.simulator.rest.routes import Route, json_response, read_json
from orchestrator.wire.realtime import RealtimeSessionConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.http_server.answers import Response
    from orchestrator.simulator.endpoint.admission import AccessRules
    from orchestrator.simulator.rest.routes import RestRequest

__all__ = ["ClientSecrets"]

SHORTEST, LONGEST, USUAL = 10, 7200, 600
MOST_SECRETS = 10_000
_DEFAULT_SESSION = {"type": "realtime"}


class _ExpiresAfter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    anchor: Literal["created_at"] = "created_at"
    seconds: int = USUAL


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    expires_after: _ExpiresAfter | None = None
    session: dict[str, Any] | None = None


@dataclass(frozen=True)
class _Secret:
    preset: Preset
    expires_at: int


class ClientSecrets:
    """The secrets that are good at present, at most `most` of them. `clock` gives Unix seconds; `make_ids` ids of sessions."""

    def __init__(
        self,
        rules: AccessRules,
        make_ids: Callable[[], IdSource],
        *,
        clock: Callable[[], float] = time.time,
        most: int = MOST_SECRETS,
    ) -> None:
        self._rules = rules
        self._make_ids = make_ids
        self._clock = clock
        self._most = most
        self._secrets: dict[str, _Secret] = {}

    def routes(self) -> list[Route]:
        """What it answers."""
        path = f"{self._rules.form.realtime}/client_secrets"
        return [Route("POST", path, with_key(self._rules, self._create))]

    def preset(self, key: str) -> Preset | None:
        """What a key presets; None for one that was never given out or has expired."""
        # Looked up rather than compared: 128 random bits cannot be felt for in the timing of a dictionary.
        known = self._secrets.get(key)
        return known.preset if known is not None and self._clock() < known.expires_at else None

    def _create(self, request: RestRequest) -> Response | Refusal:
        body = read_json(request, _Body)
        lifetime = body.expires_after or _ExpiresAfter()
        _check_seconds(lifetime.seconds)
        given = decode_preset(json_text(_DEFAULT_SESSION if body.session is None else body.session).encode())
        session = preset_session(given, session_id=self._make_ids().session(), model="", expires_at=0)
        model = None
        if isinstance(session, RealtimeSessionConfig):
            model = str(session.model)
            check_model(model, self._rules, "session.model")
        now = self._clock()
        if not self._make_room(now):
            message = "Too many client secrets are in use; wait until some have expired."
            return Refusal(status=429, code="rate_limit_exceeded", message=message, retry_after=SHORTEST)
        key, expires_at = EPHEMERAL + secrets.token_hex(16), int(now) + lifetime.seconds
        kind: Literal["realtime", "transcription"] = "realtime" if model is not None else "transcription"
        self._secrets[key] = _Secret(Preset(model, kind, given), expires_at)
        return json_response({"value": key, "expires_at": expires_at, "session": session})

    def _make_room(self, now: float) -> bool:
        if len(self._secrets) >= self._most:
            self._secrets = {key: secret for key, secret in self._secrets.items() if now < secret.expires_at}
        return len(self._secrets) < self._most


def _check_seconds(seconds: int) -> None:
    param = "expires_after.seconds"
    if seconds < SHORTEST:
        code, what, bound = "integer_below_min_value", "below minimum value", f">= {SHORTEST}"
    elif seconds > LONGEST:
        code, what, bound = "integer_above_max_value", "above maximum value", f"<= {LONGEST}"
    else:
        return
    raise WireError(code, f"Invalid '{param}': integer {what}. Expected a value {bound}, but got {seconds} instead.", param)
