"""Who may come in: keys at the front door, signatures from the carrier.

Every comparison takes the same time whatever is presented. Nothing presented is repeated in an answer or a log line.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha1, sha256
from urllib.parse import urlsplit, urlunsplit

from orchestrator.http_server.answers import Headers, Refusal
from orchestrator.http_server.request_head import RequestHead
from orchestrator.settings import LOOPBACK, Secret

__all__ = ["CarrierDoor", "FrontDoor", "refuse_foreign_origin", "signature_urls", "twilio_signature"]

_SUBPROTOCOL_PREFIX = "openai-insecure-api-key."


class FrontDoor:
    """Callers that speak the Realtime API: a key in `Authorization`, or in a subprotocol as browsers must send it.

    Without configured keys everybody may come in, which the settings allow on a loopback address only.
    """

    def __init__(self, keys: Sequence[Secret]) -> None:
        # Digests have one length, so that the comparison tells nothing about the length of a key either.
        self._keys = tuple(_digest(key.reveal()) for key in keys if key)

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return not self._keys

    def check(self, head: RequestHead) -> Refusal | None:
        """Return 401 unless the request carries one of the keys."""
        if self.is_open:
            return refuse_foreign_origin(head)
        # Each presented key is compared with each configured one, and none of them ends the loop.
        matches = [hmac.compare_digest(_digest(shown), key) for shown in _presented_keys(head) for key in self._keys]
        if any(matches):
            return None
        return Refusal(
            status=401,
            code="invalid_api_key",
            message="present a valid key as `Authorization: Bearer …`",
            headers=(("WWW-Authenticate", "Bearer"),),
        )


class CarrierDoor:
    """Requests that Twilio signs with the account's auth token.

    `origins` are the public addresses that the carrier may have been given, as "https://host[:port][/base]"; never taken from
    the request, since its Host is whatever the sender says. Without a token everybody may come in if `open_without_token`,
    and nobody otherwise.
    """

    def __init__(self, auth_token: Secret, origins: Sequence[str], *, open_without_token: bool) -> None:
        self._token = auth_token
        self._origins = tuple(origins)
        self._open = open_without_token

    def check_form(self, head: RequestHead, form: Headers) -> Refusal | None:
        """Return 403 unless the signature over the address and the posted form is right."""
        return self._check(head, ("https", "http"), form)

    def check_upgrade(self, head: RequestHead) -> Refusal | None:
        """Return 403 unless the signature over the stream's address is right."""
        return self._check(head, ("wss", "ws"), ())

    def _check(self, head: RequestHead, schemes: tuple[str, str], form: Headers) -> Refusal | None:
        if not self._token:
            if self._open:
                return refuse_foreign_origin(head)
            return Refusal(status=403, code="carrier_not_configured", message="this service takes no phone calls")
        presented = (head.header("x-twilio-signature") or "").encode("latin-1", "replace")
        urls = [
            url for origin in self._origins for url in signature_urls(_with_scheme(origin, schemes) + head.target, head.path)
        ]
        matches = [hmac.compare_digest(twilio_signature(self._token, url, form).encode(), presented) for url in urls]
        if any(matches):
            return None
        return Refusal(status=403, code="bad_signature", message="the request is not signed by the carrier's account")


def twilio_signature(token: Secret, url: str, form: Iterable[tuple[str, str]] = ()) -> str:
    """Compute `X-Twilio-Signature`: HMAC-SHA1 over the address and the sorted form, in base64.

    A name that occurs several times gives each of its different values once, sorted, each after the name
    (twilio.request_validator.RequestValidator.compute_signature).
    """
    text = url + "".join(name + value for name, value in sorted(set(form)))
    # Bytes of the form that are no UTF-8 were kept as surrogates; the carrier signed the bytes.
    mac = hmac.new(token.reveal().encode(), text.encode("utf-8", "surrogateescape"), sha1)
    return b64encode(mac.digest()).decode()


def signature_urls(url: str, path: str) -> tuple[str, ...]:
    """Return the forms of an address that the carrier may have signed: without port, with it, with and without a last slash.

    The carrier is not consistent in this, and its own validator tries the ports too. All forms name the same place, and each
    needs the same secret.
    """
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else (parts.hostname or "")
    default = 443 if parts.scheme in ("https", "wss") else 80
    netlocs = dict.fromkeys((parts.netloc, host, f"{host}:{parts.port or default}"))
    tail = parts.path.removesuffix(path)
    bare = path.rstrip("/")
    paths = dict.fromkeys((path, bare or "/", bare + "/"))
    return tuple(urlunsplit((parts.scheme, netloc, tail + last, parts.query, "")) for netloc in netlocs for last in paths)


def refuse_foreign_origin(head: RequestHead) -> Refusal | None:
    """Return 403 for a browser page from elsewhere.

    Where no key is asked for, only a loopback address is served; a page that its user happens to visit could still connect to
    it from the user's own browser, and a browser always says where the page came from.
    """
    origin = head.header("origin")
    if origin is None or _hostname(origin) in LOOPBACK:
        return None
    return Refusal(
        status=403,
        code="origin_not_allowed",
        message="without configured keys only pages from this machine may connect: set front_door_keys",
    )


def _hostname(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None


def _with_scheme(origin: str, schemes: tuple[str, str]) -> str:
    scheme, _, rest = origin.partition("://")
    return f"{schemes[0] if scheme in ('https', 'wss') else schemes[1]}://{rest.rstrip('/')}"


def _presented_keys(head: RequestHead) -> list[str]:
    shown = [
        token.removeprefix(_SUBPROTOCOL_PREFIX)
        for token in head.header_tokens("sec-websocket-protocol")
        if token.startswith(_SUBPROTOCOL_PREFIX)
    ]
    scheme, _, credentials = (head.header("authorization") or "").strip().partition(" ")
    if scheme.lower() == "bearer":
        shown.append(credentials.strip())
    return shown


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogatepass")).digest()
