"""Phones that ring because a test wants them to: `POST /simulator/calls`, and what can be seen and done afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import msgspec

from orchestrator.errors import Refused
from orchestrator.http_server.answers import Refusal, Response
from orchestrator.simulator.dtmf import KEYS_PATTERN
from orchestrator.simulator.phone.call import CallState
from orchestrator.simulator.phone.order import PhoneOrder, Step
from orchestrator.simulator.phone.report import report, summary
from orchestrator.simulator.rest.calls import call_not_found
from orchestrator.simulator.rest.routes import Route, json_response, read_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.phone.exchange import KnownCall, PhoneExchange
    from orchestrator.simulator.phone.live_call import LiveCall
    from orchestrator.simulator.rest.routes import Handler, RestRequest

__all__ = ["phone_routes"]

PATH = "/simulator/calls"


class _Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    dtmf: Annotated[str, msgspec.Meta(min_length=1, max_length=32, pattern=KEYS_PATTERN)]


def phone_routes(exchange: PhoneExchange) -> list[Route]:
    """The routes to the phones of an exchange."""
    loop = asyncio.get_running_loop()

    def ring(request: RestRequest) -> Response | Refusal:
        try:
            known = exchange.ring(read_json(request, PhoneOrder))
        except Refused as refused:
            return Refusal(status=refused.status, code=refused.reason, message=refused.message, retry_after=refused.retry_after)
        return json_response({"call_id": known.call_id, "state": known.live.phone.state.value}, 201)

    def show_all(_: RestRequest) -> Response:
        return json_response({"calls": [summary(known.live, known.order, known.created_at) for known in exchange.calls]})

    def show(known: KnownCall, _: RestRequest) -> Response:
        return json_response(report(known.live, known.order, known.created_at, loop.time()))

    def with_call(handler: Callable[[KnownCall, RestRequest], Response | Refusal]) -> Handler:
        def find(request: RestRequest) -> Response | Refusal:
            known = exchange.find(request.parameters["call_id"])
            return call_not_found(request) if known is None else handler(known, request)

        return find

    def with_live(handler: Callable[[LiveCall, RestRequest], Response | Refusal]) -> Handler:
        def check(known: KnownCall, request: RestRequest) -> Response | Refusal:
            return _conflict("call_over", "The call is over.") if known.live.phone.over else handler(known.live, request)

        return with_call(check)

    return [
        Route("POST", PATH, ring),
        Route("GET", PATH, show_all),
        Route("GET", f"{PATH}/{{call_id}}", with_call(show)),
        Route("POST", f"{PATH}/{{call_id}}/hang_up", with_live(_hang_up)),
        Route("POST", f"{PATH}/{{call_id}}/dtmf", with_live(_press)),
        Route("POST", f"{PATH}/{{call_id}}/say", with_live(_say)),
    ]


def _hang_up(call: LiveCall, _: RestRequest) -> Response:
    call.hang_up()
    return Response()


def _press(call: LiveCall, request: RestRequest) -> Response | Refusal:
    keys = read_json(request, _Keys).dtmf
    if call.phone.state is not CallState.CONNECTED:
        return _conflict("call_not_connected", "Nobody hears the keys: the call has not been accepted yet.")
    call.press(keys)
    return Response()


def _say(call: LiveCall, request: RestRequest) -> Response | Refusal:
    step = read_json(request, Step)
    if step.after_seconds is None and step.wait_for is None:
        # As soon as the caller has nothing else to say.
        step = msgspec.structs.replace(step, after_seconds=0.0)
    if not call.say(step):
        return _conflict("too_many_steps", "The caller has too much to say already.")
    return Response()


def _conflict(code: str, message: str) -> Refusal:
    return Refusal(status=409, code=code, message=message)
