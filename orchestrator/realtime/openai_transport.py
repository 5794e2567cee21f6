"""How the connection to a Realtime API endpoint is made: its tuning, and what its upgrade is sent with."""

from __future__ import annotations

import inspect
import os
from typing import Any, NotRequired, TypedDict

from orchestrator.errors import UserError
from orchestrator.realtime.model import RealtimeModelConfig

__all__ = ["TransportConfig", "get_api_key", "request_headers"]


class TransportConfig(TypedDict):
    """Tuning of the connection. Times are seconds, None switches the keepalive off; `max_size` is bytes.

    With `renew` a connection that is lost or grows old is replaced, and the conversation goes on; without, it ends the session.
    """

    ping_interval: NotRequired[float | None]
    ping_timeout: NotRequired[float | None]
    handshake_timeout: NotRequired[float]
    max_size: NotRequired[int]
    renew: NotRequired[bool]


async def get_api_key(key: Any) -> str | None:
    """Return the API key: text, the result of a function (plain or async), or the environment's OPENAI_API_KEY."""
    if callable(key):
        key = key()
        if inspect.isawaitable(key):
            key = await key
    return key or os.environ.get("OPENAI_API_KEY")


async def request_headers(options: RealtimeModelConfig) -> dict[str, str]:
    """Return the headers of the upgrade. Raises UserError without a key, and what a function that makes the key raises."""
    headers = options.get("headers")
    key = await get_api_key(options.get("api_key")) if headers is None else None
    if headers is not None:
        return dict(headers)
    if not key:
        raise UserError("API key is required but was not provided: pass api_key, or set OPENAI_API_KEY")
    return {"Authorization": f"Bearer {key}"}
