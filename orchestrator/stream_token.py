"""Short-lived tokens that bind a media stream to the webhook that announced it.

The webhook's signature proves the call; the stream that follows is a separate connection whose parameters anybody could send.
So the answer to the webhook carries a token over the call's id and an expiry, and whoever takes the stream asks for it back.
Gateway and session actors must hold the same secret: see `with_token_secret`.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256

import msgspec

from orchestrator.settings import Secret, Settings

__all__ = ["StreamTokens", "with_token_secret"]

# The carrier opens the stream right after the webhook's answer; this leaves room for its retry and for clocks of two nodes.
LIFETIME = 120.0
_VERSION = "v1"


def with_token_secret(settings: Settings) -> Settings:
    """Return the settings with a random token secret where none is set; call it once, before any actor is created."""
    if settings.token_secret:
        return settings
    return msgspec.structs.replace(settings, token_secret=Secret(secrets.token_hex(32)))


class StreamTokens:
    """Issues and checks tokens with one secret. Times are Unix seconds, given by the caller.

    Without a secret nothing can be issued, and nothing is accepted.
    """

    def __init__(self, secret: Secret) -> None:
        self._key = secret.reveal().encode()
        self._used: dict[str, float] = {}

    def issue(self, call_sid: str, now: float) -> str:
        """Return a token for this call, good for `LIFETIME` seconds. Raises ValueError without a secret."""
        if not self._key:
            raise ValueError("a token needs a secret: set token_secret or use with_token_secret()")
        return self._token(call_sid, int(now + LIFETIME))

    def verify_stream_token(self, token: str, call_sid: str, now: float) -> bool:
        """Say whether this is an unexpired token for exactly this call. Takes the same time for every wrong token."""
        expiry = _expiry_of(token)
        if not self._key or expiry is None:
            return False
        genuine = hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token(call_sid, expiry).encode())
        return genuine and now < expiry

    def redeem(self, token: str, call_sid: str, now: float) -> bool:
        """Verify and use up: the same token is not accepted twice by this object, that is by this process."""
        if token in self._used or not self.verify_stream_token(token, call_sid, now):
            return False
        # Only genuine tokens are remembered, and only until they expire, so the table stays as small as the call rate.
        self._used = {used: until for used, until in self._used.items() if until > now}
        self._used[token] = now + LIFETIME
        return True

    def _token(self, call_sid: str, expiry: int) -> str:
        text = f"stream-token:{_VERSION}:{expiry}:{call_sid}"
        digest = hmac.new(self._key, text.encode("utf-8", "surrogatepass"), sha256).digest()
        return f"{_VERSION}.{expiry}.{urlsafe_b64encode(digest).decode().rstrip('=')}"


def _expiry_of(token: str) -> int | None:
    version, _, rest = token.partition(".")
    expiry, _, digest = rest.partition(".")
    if version != _VERSION or not digest or not (expiry.isascii() and expiry.isdigit() and len(expiry) <= 12):
        return None
    return int(expiry)
