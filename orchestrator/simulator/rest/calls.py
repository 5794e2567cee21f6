"""The calls API: accept, reject, refer, hang up. Every answer that is no refusal is empty.

Source: the Realtime API's `POST /v1/realtime/calls/{call_id}/...`. How the live API refuses a second accept is not known; here
it is a 400, since the official client tries a 409 again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from orchestrator.errors import EndReason, WireError
from orchestrator.http_server.answers import Refusal, Response
from orchestrator.simulator.endpoint.admission import check_model
from orchestrator.simulator.endpoint.session_config import DEFAULT_MODEL, decode_preset, preset_session
from orchestrator.simulator.json_text import json_text
from orchestrator.simulator.phone.call import CallState
from orchestrator.simulator.rest.access import with_key
from orchestrator.simulator.rest.routes import Route, read_json, refused
from orchestrator.wire.realtime import RealtimeSessionConfig
from orchestrator.wire.validation import unsupported_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.endpoint.admission import AccessRules
    from orchestrator.simulator.endpoint.session_machine import SessionMachine
    from orchestrator.simulator.phone.exchange import PhoneExchange
    from orchestrator.simulator.phone.live_call import LiveCall
    from orchestrator.simulator.rest.routes import RestRequest

__all__ = ["CallsApi", "call_not_found"]

_HUNG_UP = EndReason("hung_up", "the service ended the call", by="model")
_URI = r"^(tel:\+?[0-9().*#-]+|sips?:[^\s]+)\Z"


class _Reject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    status_code: Annotated[int, msgspec.Meta(ge=400, le=699)] = 603


class _Refer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    target_uri: Annotated[str, msgspec.Meta(max_length=1000, pattern=_URI)]


class CallsApi:
    """Answers for the calls of an exchange. `make_machine` makes the session of an accepted call, of its model and settings."""

    def __init__(
        self,
        exchange: PhoneExchange,
        rules: AccessRules,
        make_machine: Callable[[str, RealtimeSessionConfig], SessionMachine],
    ) -> None:
        self._exchange = exchange
        self._rules = rules
        self._make_machine = make_machine

    def routes(self) -> list[Route]:
        """What it answers."""
        calls = f"{self._rules.form.realtime}/calls"
        handlers = {"accept": self._accept, "reject": self._reject, "refer": self._refer, "hangup": self._hang_up}
        return [
            Route("POST", calls, with_key(self._rules, _no_webrtc)),
            *(Route("POST", f"{calls}/{{call_id}}/{name}", with_key(self._rules, it)) for name, it in handlers.items()),
        ]

    def _accept(self, request: RestRequest) -> Response | Refusal:
        call = self._find(request)
        if call is None:
            return call_not_found(request)
        body = read_json(request, dict[str, Any])
        try:
            model, preset = self._settings(body)
        except WireError as error:
            return refused(_at_the_root(error))
        if call.phone.state is not CallState.RINGING:
            return _wrong_state("call_already_accepted", "The call has been accepted already.")
        call.accept(self._make_machine(model, preset))
        return Response()

    def _settings(self, body: dict[str, Any]) -> tuple[str, RealtimeSessionConfig]:
        """The model and the settings in the body of an accept. Raises WireError by the rules of `session.update`."""
        preset = decode_preset(json_text(body).encode())
        if not isinstance(preset, RealtimeSessionConfig):
            raise unsupported_value("transcription", ("realtime",), "session.type")
        model = preset.model if isinstance(preset.model, str) else DEFAULT_MODEL
        check_model(model, self._rules, "session.model")
        preset_session(preset, session_id="", model=model, expires_at=0)
        return model, preset

    def _reject(self, request: RestRequest) -> Response | Refusal:
        call = self._find(request)
        if call is None:
            return call_not_found(request)
        body = read_json(request, _Reject)
        if call.phone.state is not CallState.RINGING:
            return _wrong_state("call_already_accepted", "The call has been accepted already; hang it up instead.")
        call.reject(body.status_code)
        return Response()

    def _refer(self, request: RestRequest) -> Response | Refusal:
        call = self._find(request)
        if call is None:
            return call_not_found(request)
        body = read_json(request, _Refer)
        if call.phone.state is not CallState.CONNECTED:
            return _wrong_state("call_not_accepted", "The call has not been accepted yet.")
        call.refer(body.target_uri)
        return Response()

    def _hang_up(self, request: RestRequest) -> Response | Refusal:
        call = self._find(request)
        if call is None:
            return call_not_found(request)
        call.end(_HUNG_UP)
        return Response()

    def _find(self, request: RestRequest) -> LiveCall | None:
        """The call that the path names, unless it is over."""
        known = self._exchange.find(request.parameters["call_id"])
        return known.live if known is not None and not known.live.phone.over else None


def call_not_found(request: RestRequest) -> Refusal:
    """There is no such call, or none any more."""
    call_id = request.parameters["call_id"][:100]
    return Refusal(status=404, code="call_id_not_found", message=f"No session found for call_id '{call_id}'.")


def _no_webrtc(_: RestRequest) -> Refusal:
    message = "This endpoint has no WebRTC: connect by WebSocket, or make a phone ring with POST /simulator/calls."
    return Refusal(status=404, code="webrtc_not_supported", message=message)


def _wrong_state(code: str, message: str) -> Refusal:
    return Refusal(status=400, code=code, message=message)


def _at_the_root(error: WireError) -> WireError:
    """The same error where the session is not a member of the body, but all of it."""
    param = error.param.removeprefix("session.") if error.param is not None else None
    return WireError(error.wire_code, error.message.replace("'session.", "'"), param)
