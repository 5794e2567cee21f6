"""How the carrier asks the service what to do with a call: the signed form it posts, and the TwiML that it reads back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree

import h11
import msgspec

from orchestrator.errors import OrchestratorError
from orchestrator.simulator.http_post import AnswerTooLongError, post

__all__ = ["PhoneCallError", "StreamTarget", "ask_what_to_do", "read_twiml", "sign"]

_TWIML_LIMIT = 64 * 1024  # what Twilio accepts


class PhoneCallError(OrchestratorError):
    """A simulated phone call did not go as a phone call should; the message says at which point."""

    code = "phone_call_failed"


class StreamTarget(msgspec.Struct, frozen=True):
    """Where TwiML sends the stream, and the parameters that the `start` message must carry."""

    url: str
    parameters: dict[str, str]


def sign(auth_token: str, url: str, form: Mapping[str, str] | None = None) -> str:
    """Compute `X-Twilio-Signature` for a posted form, or for a WebSocket upgrade, which has none."""
    text = url + "".join(name + value for name, value in sorted((form or {}).items()))
    return base64.b64encode(hmac.digest(auth_token.encode(), text.encode(), hashlib.sha1)).decode()


def read_twiml(document: bytes) -> StreamTarget:
    """Read `<Response><Connect><Stream url=…><Parameter name=… value=…/></Stream></Connect></Response>`.

    Raises PhoneCallError for anything that does not lead to a stream; what the service would have said instead is part
    of the message. A query in the URL is refused as Twilio refuses it (31920): parameters belong in `<Parameter>`.
    """
    if len(document) > _TWIML_LIMIT or b"<!DOCTYPE" in document:
        raise PhoneCallError("the TwiML is longer than 64 KiB or declares a document type")
    try:
        root = ElementTree.fromstring(document)  # noqa: S314 - without a document type there are no entities to expand
    except ElementTree.ParseError as error:
        raise PhoneCallError(f"the answer is not TwiML: {error}") from None
    stream = root.find("./Connect/Stream")
    if root.tag != "Response" or stream is None:
        said = " ".join("".join(root.itertext()).split())
        raise PhoneCallError(f"the service did not take the call: it says {said!r}" if said else "the TwiML has no stream")
    url = stream.get("url", "")
    if urlsplit(url).scheme not in ("ws", "wss"):
        raise PhoneCallError("31923: the stream's url is no WebSocket URL")
    if urlsplit(url).query:
        raise PhoneCallError("31920: the stream's url has a query; use <Parameter> instead")
    return StreamTarget(url, {item.get("name", ""): item.get("value", "") for item in stream.findall("Parameter")})


async def ask_what_to_do(
    url: str, form: Mapping[str, str], auth_token: str | None = None, *, timeout: float = 10.0
) -> StreamTarget:
    """Post the form of an incoming call to the voice webhook and read its TwiML.

    `timeout` is in seconds and covers everything. Raises PhoneCallError. Cancelling closes the connection.
    """
    headers = {"Content-Type": "application/x-www-form-urlencoded", "User-Agent": "TwilioProxy/1.1"}
    if auth_token is not None:
        headers["X-Twilio-Signature"] = sign(auth_token, url, form)
    try:
        async with asyncio.timeout(timeout):
            status, body = await post(url, urlencode(form).encode(), headers)
    except TimeoutError:
        raise PhoneCallError(f"the voice webhook gave no answer within {timeout:g} s") from None
    except OSError as error:
        raise PhoneCallError(f"the voice webhook cannot be reached: {error.strerror or error}") from None
    except h11.RemoteProtocolError as error:
        raise PhoneCallError(f"the voice webhook does not answer in HTTP: {error}") from None
    except AnswerTooLongError:
        raise PhoneCallError("the voice webhook's answer is longer than 64 KiB") from None
    if not status:
        raise PhoneCallError("the voice webhook closed the connection without an answer")
    if status != 200:
        raise PhoneCallError(f"the voice webhook answered {status}: {body[:200].decode(errors='replace').strip()}")
    return read_twiml(body)
