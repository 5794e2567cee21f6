"""The webhook that says that a phone rings: is it from the provider, and which call is it?

`unwrap` answers both, from the body and headers that any web server hands over. What to do with the call is `realtime.calls`.

Source: Standard Webhooks, "Verifying webhooks" (HMAC-SHA256 over id, timestamp and body), and the `realtime.call.incoming`
event of the Realtime API. The official client's `webhooks.unwrap` is the judge in the tests.
"""

from __future__ import annotations

import binascii
import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping

import msgspec

from orchestrator.errors import UserError, WebhookSignatureError
from orchestrator.wire.validation import invalid_json, missing_parameter, wire_error

__all__ = ["TOLERANCE", "IncomingCall", "OtherEvent", "SeenWebhooks", "SipHeader", "sign", "unwrap"]

# How many seconds the sender's clock and ours may be apart, delivery included.
TOLERANCE = 300
INCOMING_CALL = "realtime.call.incoming"
# Unix seconds have ten digits until the year 2286.
_MAX_DIGITS = 12


class SipHeader(msgspec.Struct, frozen=True):
    """One header of the INVITE."""

    name: str
    value: str


class IncomingCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that rings until it is accepted or rejected.

    `call_id` is opaque. The SIP headers are in the order in which they came and may repeat; their contents, the caller's number
    among them, are what the caller's side claims. `sip_media_security` is "rtp" or "srtp" where the provider says.
    """

    webhook_id: str
    event_id: str
    created_at: float
    call_id: str
    sip_headers: tuple[SipHeader, ...] = ()
    sip_media_security: str | None = None

    def sip_header(self, name: str) -> str | None:
        """Return the first header of that name, in any case, or None."""
        return next((header.value for header in self.sip_headers if header.name.lower() == name.lower()), None)


class OtherEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A genuine event that is no incoming call: acknowledge it and do nothing."""

    webhook_id: str
    event_id: str
    type: str


class _Data(msgspec.Struct):
    call_id: str
    sip_headers: tuple[SipHeader, ...] = ()
    sip_media_security: str | None = None


class _Call(msgspec.Struct):
    data: _Data
    id: str = ""
    created_at: float = 0.0


class _Event(msgspec.Struct):
    type: str
    id: str = ""


_EVENT = msgspec.json.Decoder(_Event)
_CALL = msgspec.json.Decoder(_Call)


def unwrap(
    body: bytes, headers: Mapping[str, str], secret: str, now: float | None = None, *, tolerance: int = TOLERANCE
) -> IncomingCall | OtherEvent:
    """Verify a webhook and read it. `body` are the bytes as received; `now` is in Unix seconds, by default the clock's.

    The same event may be delivered again, by the provider or by somebody who recorded it: see `SeenWebhooks`.

    Raises WebhookSignatureError unless one of the signatures is genuine and the timestamp is within `tolerance` seconds;
    WireError (invalid_json, missing_required_parameter and the like) for a genuine body that is no event; UserError for a
    secret that is empty or malformed. Nothing of the body is read before its signature is verified, and wrong signatures all
    take the same time.
    """
    given = {name.lower(): value for name, value in headers.items()}
    webhook_id, timestamp, signatures = (_required(given, f"webhook-{name}") for name in ("id", "timestamp", "signature"))
    sent_at = _unix_time(timestamp)
    clock = int(time.time() if now is None else now)
    if clock - sent_at > tolerance:
        raise WebhookSignatureError("too_old", f"the webhook was signed more than {tolerance} s ago")
    if sent_at - clock > tolerance:
        raise WebhookSignatureError("too_new", f"the webhook was signed more than {tolerance} s from now: compare the clocks")
    expected = sign(body, webhook_id, sent_at, secret).encode()
    # There may be several, while the sender changes its secret; none of them ends the loop.
    genuine = [hmac.compare_digest(expected, shown.encode("utf-8", "surrogatepass")) for shown in signatures.split()]
    if not any(genuine):
        raise WebhookSignatureError("signature", "the webhook is not signed with this secret")
    return _read(body, webhook_id)


def sign(body: bytes, webhook_id: str, timestamp: int, secret: str) -> str:
    """Return the signature, "v1,…", that the sender of a webhook puts into `webhook-signature`; `timestamp` is in Unix seconds.

    Raises UserError for a secret that is empty or malformed.
    """
    head = f"{webhook_id}.{timestamp}.".encode("utf-8", "surrogatepass")
    mac = hmac.digest(_key(secret), head + body, "sha256")
    return f"v1,{b64encode(mac).decode()}"


class SeenWebhooks:
    """Remembers the webhooks that were taken, so that none is acted on twice.

    The last `limit` of them are kept. A recorded webhook is genuine for twice the tolerance, so the limit must be more than
    what comes in ten minutes; the provider repeats one that was not acknowledged, under the same id, for up to three days.
    """

    def __init__(self, limit: int = 10_000) -> None:
        self._limit = limit
        # In the order in which they came.
        self._seen: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def is_new(self, event: IncomingCall | OtherEvent) -> bool:
        """Say whether this event comes for the first time, and remember it. Only ask for events that `unwrap` returned."""
        if event.webhook_id in self._seen:
            return False
        self._seen[event.webhook_id] = None
        if len(self._seen) > self._limit:
            del self._seen[next(iter(self._seen))]
        return True


def _required(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name)
    if not value:
        raise WebhookSignatureError("missing_header", f"the webhook has no {name}")
    return value


def _unix_time(text: str) -> int:
    # The text itself is signed, so it must be the one way to write the number.
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS and text == str(int(text))):
        raise WebhookSignatureError("timestamp", "webhook-timestamp is no Unix time in seconds")
    return int(text)


def _key(secret: str) -> bytes:
    """Return the key: what follows "whsec_" is base64, a secret without that is the key itself."""
    prefix, found, encoded = secret.partition("whsec_")
    if found and not prefix:
        try:
            key = b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise UserError("the webhook's secret is malformed: copy it whole, from `whsec_` on") from None
    else:
        key = secret.encode()
    if not key:
        raise UserError("a webhook cannot be verified without its secret: set OPENAI_WEBHOOK_SECRET")
    return key


def _read(body: bytes, webhook_id: str) -> IncomingCall | OtherEvent:
    try:
        # The decoder does not look at the encoding of what it skips.
        str(body, "utf-8")
        event = _EVENT.decode(body)
        if event.type != INCOMING_CALL:
            return OtherEvent(webhook_id=webhook_id, event_id=event.id, type=event.type)
        call = _CALL.decode(body)
    except msgspec.ValidationError as error:
        raise wire_error(error) from None
    except (ValueError, RecursionError) as error:
        raise invalid_json(error) from None
    if not call.data.call_id:
        raise missing_parameter("data.call_id")
    return IncomingCall(
        webhook_id=webhook_id,
        event_id=call.id,
        created_at=call.created_at,
        call_id=call.data.call_id,
        sip_headers=call.data.sip_headers,
        sip_media_security=call.data.sip_media_security,
    )
