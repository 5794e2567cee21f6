"""The gate before the door: every request runs into the faults first, those that drive the simulator excepted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec

from orchestrator.http_server.answers import Refusal
from orchestrator.simulator.endpoint.admission import ApiForm, key_of
from orchestrator.simulator.endpoint.fault_desk import FaultDesk, FaultySession
from orchestrator.simulator.endpoint.fault_effects import Refusing, Waiting
from orchestrator.simulator.front import HangUp, SocketOffer
from orchestrator.simulator.rest.routes import CONTROL_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.http_server.request_head import RequestHead
    from orchestrator.simulator.front import Decision

__all__ = ["FaultGate"]

TOO_MANY_REQUESTS = 429


class FaultGate:
    """Says what becomes of a request, as `Front` wants to know it. `decide` is asked where no fault says otherwise."""

    def __init__(self, desk: FaultDesk, form: ApiForm, decide: Callable[[RequestHead], Decision]) -> None:
        self._desk = desk
        self._form = form
        self._decide = decide

    def __call__(self, head: RequestHead) -> Decision:
        """Decide about one request."""
        if head.path.startswith(CONTROL_PREFIX):
            return self._decide(head)
        key = key_of(head, self._form)
        if not head.wants_websocket:
            refusing = self._desk.request(key)
            return self._decide(head) if refusing is None else _refuse(refusing)
        visitor = self._desk.visitor(head.query_value("model") or "", key)
        verdict = self._desk.connect(visitor)
        if isinstance(verdict, Refusing):
            return _refuse(verdict)
        offer = self._decide(head)
        if not isinstance(offer, SocketOffer):
            return offer
        if isinstance(verdict, Waiting):
            offer = msgspec.structs.replace(offer, ready=partial(self._desk.patience, verdict))
        # A client that is turned away in-band has no session.
        if isinstance(offer.listener, FaultySession):
            offer = msgspec.structs.replace(offer, listener=self._desk.between(visitor, offer.listener))
        return offer


def _refuse(refusing: Refusing) -> Refusal | HangUp:
    if refusing.status is None:
        return HangUp()
    if refusing.status == TOO_MANY_REQUESTS:
        code, message = "rate_limit_exceeded", "Rate limit reached for requests. Please try again later."
    else:
        code, message = "server_error", "The server had an error while processing your request. Sorry about that!"
    return Refusal(status=refusing.status, code=code, message=message, retry_after=refusing.retry_after)
