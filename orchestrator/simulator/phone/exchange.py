"""All phone calls of one endpoint: makes phones ring, finds calls by id, and hangs everything up at the end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from orchestrator.errors import Refused, WireError
from orchestrator.simulator.phone.call import PhoneCall
from orchestrator.simulator.phone.live_call import LiveCall
from orchestrator.simulator.phone.webhook import Delivery, WebhookSecret, check_target, deliver, webhook_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.endpoint.model_session import SpeechDesk
    from orchestrator.simulator.ids import IdSource
    from orchestrator.simulator.phone.order import PhoneOrder

__all__ = ["CallRules", "KnownCall", "PhoneExchange"]

MOST_LIVE: Final = 256
MOST_KNOWN: Final = 1000


@dataclass(frozen=True)
class CallRules:
    """How calls go. `ring_seconds` passes before a call that nobody accepts is dropped.

    `webhook_secret` (whsec_…) signs the webhooks of calls that bring no secret of their own. They go to this machine only,
    unless `webhooks_anywhere`.
    """

    ring_seconds: float = 30.0
    webhook_secret: WebhookSecret | None = None
    webhooks_anywhere: bool = False


@dataclass(frozen=True)
class KnownCall:
    """A call that goes on, or that is over and still remembered. `created_at` is in Unix seconds."""

    live: LiveCall
    order: PhoneOrder
    created_at: float
    call_id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "call_id", self.live.call_id)


class PhoneExchange:
    """Owns the calls and the tasks that deliver their webhooks, until `aclose`. `clock` gives Unix seconds.

    `make_ids` gives each call a source of ids. With a call that is forgotten ends what is still delivered of it.
    """

    def __init__(
        self,
        rules: CallRules,
        desk: SpeechDesk,
        language: str,
        make_ids: Callable[[], IdSource],
        on_frame: Callable[[bytes], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._desk = desk
        self._language = language
        self._make_ids = make_ids
        self._on_frame = on_frame
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._calls: dict[str, KnownCall] = {}  # oldest first
        self._deliveries: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    @property
    def calls(self) -> list[KnownCall]:
        """All calls that are remembered, oldest first."""
        return list(self._calls.values())

    def find(self, call_id: str) -> KnownCall | None:
        """A call by its id, also one that is over."""
        return self._calls.get(call_id)

    def ring(self, order: PhoneOrder) -> KnownCall:
        """Make a phone ring, and tell the service.

        Raises WireError for a webhook that cannot be sent (its URL, its secret), Refused while too many calls go on and after
        `aclose`.
        """
        if self._closed:
            raise Refused(503, "going_away", "the server is going away")
        check_target(order.webhook_url, anywhere=self._rules.webhooks_anywhere)
        secret = self._rules.webhook_secret if order.secret is None else WebhookSecret(order.secret)
        if secret is None:
            message = "Give a `secret` (whsec_…) to sign the webhook with, or start with --webhook-secret."
            raise WireError("missing_required_parameter", message, "secret")
        self._make_room()
        created_at = self._clock()
        phone = PhoneCall(order, self._language, self._loop.time(), self._rules.ring_seconds)
        ids = self._make_ids()
        call_id, webhook_id = ids.phone_call(), ids.webhook()
        known = KnownCall(LiveCall(call_id, phone, self._desk, self._on_frame), order, created_at)
        self._calls[call_id] = known
        body = webhook_body(webhook_id, call_id, _sip_headers(order, call_id), int(created_at))
        delivery = Delivery(order.webhook_url, webhook_id, body, secret, order.retries)
        task = self._loop.create_task(self._announce(known, delivery), name=f"webhook {call_id}")
        self._deliveries[call_id] = task
        task.add_done_callback(partial(self._delivered, call_id))
        return known

    async def aclose(self) -> None:
        """End every call, and stop what is being delivered. No phone rings afterwards."""
        self._closed = True
        for known in self._calls.values():
            known.live.abort()
        deliveries = list(self._deliveries.values())
        for task in deliveries:
            task.cancel()
        await asyncio.gather(*deliveries, return_exceptions=True)

    async def _announce(self, known: KnownCall, delivery: Delivery) -> None:
        phone = known.live.phone

        def note(status: int, fault: str) -> None:
            if fault:
                phone.note("webhook_failed", self._loop.time(), status=status, fault=fault)
            else:
                phone.note("webhook_delivered", self._loop.time(), status=status)

        # Also after the call is over: what a service makes of a duplicate that comes late is worth seeing.
        for _ in range(known.order.duplicates):
            await deliver(delivery, note, clock=self._clock)

    def _delivered(self, call_id: str, task: asyncio.Task[None]) -> None:
        del self._deliveries[call_id]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "a webhook could not be sent", "exception": error, "task": task})

    def _make_room(self) -> None:
        """Forget the oldest call that is over, if there are too many. Raises Refused if too many go on."""
        if sum(not known.live.phone.over for known in self._calls.values()) >= MOST_LIVE:
            raise Refused(429, "too_many_calls", f"no more than {MOST_LIVE} calls may go on at once", 1)
        if len(self._calls) >= MOST_KNOWN:
            over = next(call_id for call_id, known in self._calls.items() if known.live.phone.over)
            del self._calls[over]
            if delivery := self._deliveries.get(over):
                delivery.cancel()


def _sip_headers(order: PhoneOrder, call_id: str) -> list[dict[str, str]]:
    usual = [("From", order.from_), ("To", order.to), ("Call-ID", call_id.removeprefix("rtc_u1_"))]
    return [{"name": name, "value": value} for name, value in [*usual, *((it.name, it.value) for it in order.headers)]]
