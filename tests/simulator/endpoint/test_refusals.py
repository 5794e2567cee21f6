"""Error events: the client's event id is found wherever it can be."""

from __future__ import annotations

import pytest

from orchestrator.errors import WireError
from orchestrator.simulator.endpoint import refusals


@pytest.mark.parametrize(
    ("data", "event_id"),
    [
        (b'{"event_id":"e1","type":"nope"}', "e1"),
        (b'{"type":"nope"}', None),
        (b'{"event_id":5}', None),
        (b"[1]", None),
        (b"{", None),
        (b"\xff", None),
        (b"[" * 10_000, None),
    ],
)
def test_the_id_of_a_clients_event(data: bytes, event_id: str | None) -> None:
    assert refusals.client_event_id(data) == event_id


def test_an_error_event_has_every_member() -> None:
    details = refusals.error_event(WireError("invalid_value", "text", "item.id"), "e1").error
    assert (details.type, details.code, details.message) == ("invalid_request_error", "invalid_value", "text")
    assert (details.param, details.event_id) == ("item.id", "e1")


def test_a_long_type_is_cut() -> None:
    assert len(refusals.unknown_type("x" * 10_000).message) < 600
