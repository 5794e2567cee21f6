"""What a failed or lost connection to the model means: try again, wait, go elsewhere, or simply open the next one.

Source: the Realtime API sends `101` even to a wrong key and says so in band, as an `error` event and a close code from 3000;
Azure and gateways refuse by HTTP status. Codes of either are read here and nowhere else.
"""

from __future__ import annotations

from enum import Enum

import msgspec

__all__ = ["FATAL_CODES", "FaultKind", "ModelFaultReason", "classify_close", "classify_refusal", "is_fatal"]


class FaultKind(Enum):
    """What is to be done about it."""

    # The endpoint failed: try again later, or elsewhere.
    RETRY = "retry"
    # It takes no more for now.
    LIMITED = "limited"
    # It will never take this session.
    FATAL = "fatal"
    # Nothing is wrong: the session was as old as one may become.
    AGED = "aged"


class ModelFaultReason(msgspec.Struct, frozen=True):
    """`code` is short and stable, fit for a metric label; `retry_after` is in seconds, None where the endpoint did not say."""

    kind: FaultKind
    code: str
    retry_after: float | None = None


FATAL_CODES = frozenset(
    {
        "account_deactivated",
        "beta_api_shape_disabled",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_model",
        "missing_model",
        "model_not_found",
        # Ours: it will not be the session that it is to be.
        "settings_refused",
    }
)
_LIMIT_CODES = frozenset({"rate_limit_exceeded", "inference_rate_limit_exceeded"})
_EXPIRED = "session_expired"
_GOING_AWAY = 1001
_OVERLOADED = 1013
_UNAUTHORIZED = 3000
_INVALID_REQUEST = range(4000, 5000)
_STATUS_CODES = {401: "invalid_api_key", 403: "forbidden", 404: "model_not_found"}
# Refusals that speak of the moment and not of the request.
_PASSING = frozenset({408, 409, 425})


def is_fatal(code: str | None) -> bool:
    """Is this error code one that no further try will change?"""
    return code in FATAL_CODES


def classify_refusal(status: int | None, body: str = "", retry_after: float | None = None) -> ModelFaultReason:
    """Classify a connection that was never opened: the HTTP `status` of the refusal, None where there was no answer."""
    named = next((code for code in sorted(FATAL_CODES) if f'"{code}"' in body), None)
    if named is not None:
        return ModelFaultReason(FaultKind.FATAL, named)
    if status is None:
        return ModelFaultReason(FaultKind.RETRY, "unreachable")
    if status == 429 or (status == 503 and retry_after is not None):
        return ModelFaultReason(FaultKind.LIMITED, "rate_limited", retry_after)
    if 400 <= status < 500 and status not in _PASSING:
        return ModelFaultReason(FaultKind.FATAL, _STATUS_CODES.get(status, "refused"))
    return ModelFaultReason(FaultKind.RETRY, "unavailable", retry_after)


def classify_close(close_code: int | None, error_code: str | None) -> ModelFaultReason:
    """Classify the end of an open connection: its close code and the code of the last `error` event before it, if any."""
    if is_fatal(error_code):
        return ModelFaultReason(FaultKind.FATAL, str(error_code))
    if error_code == _EXPIRED:
        return ModelFaultReason(FaultKind.AGED, _EXPIRED)
    if error_code in _LIMIT_CODES or close_code == _OVERLOADED:
        return ModelFaultReason(FaultKind.LIMITED, error_code or "overloaded")
    if close_code == _UNAUTHORIZED:
        return ModelFaultReason(FaultKind.FATAL, "unauthorized")
    if close_code in _INVALID_REQUEST:
        return ModelFaultReason(FaultKind.FATAL, "invalid_request")
    if close_code == _GOING_AWAY:
        return ModelFaultReason(FaultKind.AGED, "going_away")
    return ModelFaultReason(FaultKind.RETRY, "connection_lost")
