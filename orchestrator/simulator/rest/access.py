"""Keys in plain requests: the same rules as at the sockets, told by an HTTP status."""

from __future__ import annotations

from functools import partial, wraps
from typing import TYPE_CHECKING

from orchestrator.simulator.endpoint.admission import AccessRules, ApiForm, Turned, bearer_key, check_key

if TYPE_CHECKING:
    from orchestrator.http_server.answers import Refusal, Response
    from orchestrator.simulator.rest.routes import Handler, RestRequest

__all__ = ["with_key"]


def with_key(rules: AccessRules, handler: Handler) -> Handler:
    """The handler behind a check of the key: 401 without one that is good. Keys of clients (ek_) are not."""
    return wraps(handler)(partial(_checked, rules, handler))


def _checked(rules: AccessRules, handler: Handler, request: RestRequest) -> Response | Refusal:
    key = bearer_key([value for name, value in request.headers if name == "authorization"])
    if not key and rules.form is ApiForm.AZURE:
        key = request.header("api-key") or ""
    decision = check_key(key, rules)
    return decision.refusal() if isinstance(decision, Turned) else handler(request)
