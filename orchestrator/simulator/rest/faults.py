"""Faults at run time: `POST /simulator/faults` adds one, `GET` lists them, `DELETE` removes one or all.

The body is one fault as `fault_types` has it, the same as in a scenario.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from orchestrator.errors import UserError
from orchestrator.http_server.answers import Refusal
from orchestrator.simulator.endpoint.fault_types import AnyFault
from orchestrator.simulator.rest.routes import Route, json_response, read_json

if TYPE_CHECKING:
    from orchestrator.http_server.answers import Response
    from orchestrator.simulator.endpoint.fault_desk import FaultDesk
    from orchestrator.simulator.rest.routes import RestRequest

__all__ = ["fault_routes"]

PATH = "/simulator/faults"


def fault_routes(desk: FaultDesk) -> list[Route]:
    """The routes to the faults of a server."""
    return [
        Route("POST", PATH, partial(_add, desk)),
        Route("GET", PATH, partial(_show, desk)),
        Route("DELETE", PATH, partial(_clear, desk)),
        Route("DELETE", f"{PATH}/{{fault_id}}", partial(_remove, desk)),
    ]


def _add(desk: FaultDesk, request: RestRequest) -> Response | Refusal:
    # A union is a type to msgspec, though not to the type checker.
    fault = read_json(request, cast("type[AnyFault]", AnyFault))
    try:
        fault_id = desk.add(fault)
    except UserError as error:
        return Refusal(status=409, code="too_many_faults", message=error.message)
    return json_response({"id": fault_id}, 201)


def _show(desk: FaultDesk, _: RestRequest) -> Response:
    return json_response({"faults": desk.reports()})


def _clear(desk: FaultDesk, _: RestRequest) -> Response:
    removed = [report.id for report in desk.reports()]
    desk.clear()
    return json_response({"removed": removed})


def _remove(desk: FaultDesk, request: RestRequest) -> Response | Refusal:
    fault_id = request.parameters["fault_id"]
    if desk.remove(fault_id):
        return json_response({"removed": [fault_id]})
    return Refusal(status=404, code="no_such_fault", message="There is no fault of this id.")
