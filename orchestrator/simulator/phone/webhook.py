"""How a service is told of a call: a signed webhook, delivered at least once, with patience for a service that stumbles.

The signature is that of Standard Webhooks, as the API signs: HMAC-SHA256 over id, time and body, keyed with the bytes that
stand in base64 after `whsec_`. A retry keeps its id and is signed anew with the time of its own.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ssl
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import h11
import msgspec

from orchestrator.errors import WireError
from orchestrator.simulator.http_post import AnswerTooLongError, post
from orchestrator.simulator.loopback import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Delivery", "WebhookSecret", "check_target", "deliver", "retry_delays", "sign", "webhook_body"]

PREFIX: Final = "whsec_"
USER_AGENT: Final = "OpenAI/1.0 (+https://platform.openai.com/docs/webhooks)"
ATTEMPT_TIMEOUT: Final = 10.0
FIRST_DELAY: Final = 0.5
LONGEST_DELAY: Final = 30.0
_SHORTEST_SECRET: Final = 8


class WebhookSecret:
    """What webhooks are signed with. Raises WireError for text that is no secret; its text form shows nothing."""

    def __init__(self, text: str) -> None:
        try:
            self._key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            self._key = b""
        if not text.startswith(PREFIX) or len(self._key) < _SHORTEST_SECRET:
            raise WireError("invalid_value", f"A webhook secret is {PREFIX} and at least 8 bytes in base64.", "secret")

    def __repr__(self) -> str:
        return f"WebhookSecret({PREFIX}…)"

    def sign(self, message: bytes) -> str:
        """The signature of a message, in base64."""
        return base64.b64encode(hmac.digest(self._key, message, "sha256")).decode()


class Delivery(msgspec.Struct, frozen=True):
    """One webhook to deliver: where, what, and how often it is tried again. `webhook_id` stays the same in all attempts."""

    url: str
    webhook_id: str
    body: bytes
    secret: WebhookSecret
    retries: int


def check_target(url: str, *, anywhere: bool) -> None:
    """Raise WireError unless the URL is one to deliver to: http or https, on this machine unless `anywhere`."""
    try:
        parts = urlsplit(url)
        host, valid = parts.hostname or "", parts.port != 0
    except ValueError:
        host, valid, parts = "", False, urlsplit("")
    if (
        parts.scheme not in ("http", "https")
        or not host
        or not valid
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise WireError("invalid_value", "A webhook goes to an http or https URL.", "webhook_url")
    if not anywhere and not is_loopback(host):
        message = "Webhooks go to this machine only: 127.0.0.1, ::1 or localhost. `--webhooks-anywhere` allows other hosts."
        raise WireError("invalid_value", message, "webhook_url")


def webhook_body(webhook_id: str, call_id: str, sip_headers: list[dict[str, str]], created_at: int) -> bytes:
    """The event that announces a call."""
    data = {"call_id": call_id, "sip_headers": sip_headers, "sip_media_security": "srtp"}
    event = {
        "object": "event",
        "id": webhook_id,
        "type": "realtime.call.incoming",
        "created_at": created_at,
        "data": data,
    }
    return msgspec.json.encode(event)


def sign(delivery: Delivery, timestamp: int) -> dict[str, str]:
    """The headers of one attempt. `timestamp` is in Unix seconds."""
    signed = delivery.secret.sign(f"{delivery.webhook_id}.{timestamp}.".encode() + delivery.body)
    return {
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
        "webhook-id": delivery.webhook_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signed}",
    }


def retry_delays(retries: int, first: float = FIRST_DELAY) -> list[float]:
    """The pauses before each attempt after the first, in seconds: each twice the last, up to thirty."""
    return [min(first * 2**number, LONGEST_DELAY) for number in range(retries)]


async def deliver(
    delivery: Delivery,
    on_attempt: Callable[[int, str], None],
    *,
    clock: Callable[[], float] = time.time,
    timeout: float = ATTEMPT_TIMEOUT,
    first_delay: float = FIRST_DELAY,
) -> bool:
    """Try until an attempt is answered with 2xx, or none is left; say whether one was.

    `on_attempt` hears of each: the status, 0 without an answer, and what went wrong, if anything. `timeout` (seconds) bounds
    each attempt, `first_delay` comes before the second. A redirect is a failure. Cancelling stops at once; whether an attempt
    under way arrived is then unknown.
    """
    for delay in (0.0, *retry_delays(delivery.retries, first_delay)):
        await asyncio.sleep(delay)
        status, fault = await _attempt(delivery, int(clock()), timeout)
        on_attempt(status, fault)
        if not fault:
            return True
    return False


async def _attempt(delivery: Delivery, timestamp: int, timeout: float) -> tuple[int, str]:
    status = 0
    try:
        async with asyncio.timeout(timeout):
            status, _ = await post(delivery.url, delivery.body, sign(delivery, timestamp))
    except TimeoutError:
        return status, f"no answer in {timeout:g} s"
    except ssl.SSLError as error:
        return status, f"no TLS: {error.reason}"
    except OSError as error:
        return status, f"cannot be reached: {error.strerror or type(error).__name__}"
    except (h11.ProtocolError, AnswerTooLongError):
        return status, "the answer is not HTTP, or too long"
    return (status, "") if 200 <= status < 300 else (status, f"answered with {status}" if status else "no answer")
