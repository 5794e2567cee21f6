"""Phones that ring offline: the endpoint places calls by `POST /simulator/calls`, and tells how they went."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.errors import InfrastructureFault
from orchestrator.simulator.scenario import load_scenario

__all__ = ["Phones"]

TIMEOUT_SECONDS = 10.0
LOOK_EVERY_SECONDS = 0.1
# What a caller says takes this long at most to be answered; then the phone is put down.
PATIENCE_SECONDS = 20.0
# How a call ends that went as it should: the agent hung up, or the caller was sent to a person.
WELL = ("hung_up", "referred")


class Phones:
    """Callers who say what a scenario hears. `control_url` is where the offline endpoint itself is driven."""

    def __init__(
        self, control_url: str, webhook_url: str, secret: str, scenario: str | Path, write: Callable[[str], None] = print
    ) -> None:
        self._url = f"{control_url}/calls"
        self._webhook_url = webhook_url
        self._secret = secret
        self._turns = load_scenario(str(scenario)).turns
        self._write = write

    async def ring_all(self, number: int) -> int:
        """Let so many phones ring at once; return 0 when all calls went as they should. Raises InfrastructureFault."""
        return max(await asyncio.gather(*(self._ring(index) for index in range(number))), default=0)

    async def _ring(self, index: int) -> int:
        order = {
            "webhook_url": self._webhook_url,
            "secret": self._secret,
            "from": f"sip:+1555010{index + 1:04}@carrier.invalid",
            # Each sentence when the agent has been silent for a moment.
            "says": [
                *({"text": turn.heard} for turn in self._turns if turn.heard),
                {"hang_up": True, "after_seconds": PATIENCE_SECONDS},
            ],
        }
        placed = await asyncio.to_thread(_ask, self._url, msgspec.json.encode(order))
        report = await self._until_over(placed["call_id"])
        end, target = report["end"]["code"], report["target_uri"]
        heard = f"heard {report['heard_ms'] / 1000:.1f} s of the agent"
        self._write(f"[phone {index + 1}] {heard}; {end}{f' to {target}' if target else ''}")
        return 0 if end in WELL else 1

    async def _until_over(self, call_id: str) -> dict[str, Any]:
        while True:
            report = await asyncio.to_thread(_ask, f"{self._url}/{call_id}")
            if report["end"] is not None:
                return report
            await asyncio.sleep(LOOK_EVERY_SECONDS)


def _ask(url: str, body: bytes | None = None) -> dict[str, Any]:
    # The address is that of our own endpoint, which runs in this program.
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            return msgspec.json.decode(answer.read(), type=dict[str, Any])
    except urllib.error.HTTPError as error:
        with error:
            raise InfrastructureFault(f"the offline endpoint refuses: {error.read(500).decode(errors='replace')}") from None
    except OSError as error:
        raise InfrastructureFault(f"the offline endpoint does not answer: {error}") from error
