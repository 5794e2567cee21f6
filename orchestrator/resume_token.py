"""Tokens with which a caller whose connection broke comes back to its session, on whichever node it lands.

A session's id is in logs, reports and commands, so knowing it proves nothing. The token is a keyed digest over the id and an
expiry: whoever has it was given it with the session. It is good for any number of returns, since a network may drop more than
once. All gateways must hold the same secret: see `stream_token.with_token_secret`.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from hashlib import sha256

from orchestrator.settings import Secret

__all__ = ["ResumeTokens"]

_VERSION = "r1"


class ResumeTokens:
    """Issues and checks tokens with one secret. Times are Unix seconds, given by the caller.

    Without a secret nothing can be issued, and nothing is accepted.
    """

    def __init__(self, secret: Secret) -> None:
        self._key = secret.reveal().encode()

    def issue(self, session_id: str, now: float, lifetime: float) -> str:
        """Return a token for this session, good for `lifetime` seconds.

        Give it the longest call and the grace after it: the clocks of two nodes may differ, and a caller that is refused for
        that has lost its call. Raises ValueError without a secret.
        """
        if not self._key:
            raise ValueError("a token needs a secret: set token_secret or use with_token_secret()")
        return self._token(session_id, int(now + lifetime))

    def verify(self, token: str, session_id: str, now: float) -> bool:
        """Say whether this is an unexpired token of exactly this session. Takes the same time for every wrong token."""
        expiry = _expiry_of(token)
        if not self._key or expiry is None:
            return False
        genuine = hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token(session_id, expiry).encode())
        return genuine and now < expiry

    def _token(self, session_id: str, expiry: int) -> str:
        # The first word keeps a token of another kind, made with the same secret, from being taken for one of these.
        text = f"resume-token:{_VERSION}:{expiry}:{session_id}"
        digest = hmac.new(self._key, text.encode("utf-8", "surrogatepass"), sha256).digest()
        return f"{_VERSION}.{expiry}.{urlsafe_b64encode(digest).decode().rstrip('=')}"


def _expiry_of(token: str) -> int | None:
    version, _, rest = token.partition(".")
    expiry, _, digest = rest.partition(".")
    if version != _VERSION or not digest or not (expiry.isascii() and expiry.isdigit() and len(expiry) <= 12):
        return None
    return int(expiry)
