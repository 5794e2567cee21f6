"""Call control for calls that reach the provider over SIP: accept, reject, refer, hang up.

The webhook that announces a call carries its id; a call rings until one of these answers it. Accept it with what
`OpenAIRealtimeSIPModel.build_initial_session_payload` makes, then join it with a session on that model.

Source: the Realtime Calls API, `POST /v1/realtime/calls/{call_id}/...`; every answer is empty.
"""

from __future__ import annotations

import asyncio
import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec

from orchestrator.errors import CallControlError, UserError
from orchestrator.realtime.openai_realtime import get_api_key

__all__ = ["RealtimeCalls"]

DEFAULT_BASE_URL = "https://api.openai.com/v1"
# What is kept of an error's body; it is written by the other side.
EXCERPT = 500


class RealtimeCalls:
    """The calls of one project. `api_key` is text or a function, plain or async; by default OPENAI_API_KEY.

    `timeout` (seconds) bounds each request. A request runs in a thread: cancelling the method leaves it to end by itself, and
    whether it took effect is then unknown.
    """

    def __init__(self, api_key: Any = None, *, base_url: str = DEFAULT_BASE_URL, timeout: float = 10.0) -> None:
        if not base_url.startswith(("https://", "http://")):
            raise UserError("base_url must begin with https:// or http://")
        self._api_key = api_key
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout

    async def accept(self, call_id: str, session: Mapping[str, Any]) -> None:
        """Answer a call that rings, with the settings of its session. Raises CallControlError when that fails."""
        await self._post(call_id, "accept", dict(session))

    async def reject(self, call_id: str, status_code: int | None = None) -> None:
        """Turn a call away; the SIP status is 603 (decline) unless given. Raises CallControlError when that fails."""
        await self._post(call_id, "reject", None if status_code is None else {"status_code": status_code})

    async def refer(self, call_id: str, target_uri: str) -> None:
        """Ask the carrier to connect the caller with somebody else ("tel:+1..." or "sip:...").

        Returns when the request was handed on, not when the other side has answered. Raises CallControlError when it fails.
        """
        await self._post(call_id, "refer", {"target_uri": target_uri})

    async def hang_up(self, call_id: str) -> None:
        """End a call; one that has ended already is no error. Raises CallControlError when it fails."""
        try:
            await self._post(call_id, "hangup", None)
        except CallControlError as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise

    async def _post(self, call_id: str, action: str, body: dict[str, Any] | None) -> None:
        if not call_id:
            raise UserError("a call is controlled by the id that its webhook carries; it is empty")
        key = await get_api_key(self._api_key)
        if not key:
            raise UserError("API key is required but was not provided: pass api_key, or set OPENAI_API_KEY")
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked in the constructor
            f"{self._base_url}/realtime/calls/{quote(call_id, safe='')}/{action}",
            data=b"" if body is None else msgspec.json.encode(body),
            headers={"Authorization": f"Bearer {key}"} | ({} if body is None else {"Content-Type": "application/json"}),
            method="POST",
        )
        await asyncio.to_thread(_send, request, action, self._timeout)


def _send(request: urllib.request.Request, action: str, timeout: float) -> None:
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310 - as above
            answer.read()
    except urllib.error.HTTPError as error:
        excerpt = error.read(EXCERPT).decode("utf-8", "replace")
        error.close()
        raise CallControlError(f"{action} was refused with {error.code}: {excerpt}", error.code) from None
    except (OSError, http.client.HTTPException) as error:
        raise CallControlError(f"{action} could not be sent: {error}") from error
