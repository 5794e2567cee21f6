"""Every message survives the link, and nothing else does."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.link_messages import (
    MAX_MESSAGE,
    ActorSnapshot,
    Adopt,
    Drain,
    Ended,
    EndSession,
    FromActor,
    FromGateway,
    GatewaySnapshot,
    HeldSession,
    Hello,
    Refused,
    SessionSnapshot,
    SessionStateChanged,
    Telemetry,
    Up,
    decode_from_actor,
    decode_from_gateway,
    encode,
)
from orchestrator.errors import EndReason, WireError
from orchestrator.telemetry import names
from orchestrator.telemetry.metrics import DeltaMetrics

REASON = EndReason("hangup", "the caller hung up", None, "caller")


def delta() -> DeltaMetrics:
    metrics = DeltaMetrics()
    metrics.inc(names.INTERRUPTIONS_TOTAL)
    metrics.observe(names.BARGE_IN_SECONDS, 0.01)
    return metrics


FROM_ACTOR: list[FromActor] = [
    Hello("a1", 42, 32, (HeldSession("sess_1", "twilio", "live"),)),
    Up("sess_1", 0.0004),
    SessionStateChanged("sess_1", "live"),
    Ended("sess_1", REASON),
    Telemetry(delta().drain()),
    Refused("sess_1", REASON),
]
FROM_GATEWAY: list[FromGateway] = [
    Adopt("sess_1", "openai", b"GET / HTTP/1.1\r\n\r\n\x81\x80", "127.0.0.1:5", 12.5),
    EndSession("sess_1", REASON),
    Drain(),
]


@pytest.mark.parametrize("message", FROM_ACTOR, ids=lambda message: type(message).__name__)
def test_a_message_of_an_actor_survives(message: FromActor) -> None:
    assert decode_from_actor(encode(message)) == message
    with pytest.raises(WireError):
        decode_from_gateway(encode(message))


@pytest.mark.parametrize("message", FROM_GATEWAY, ids=lambda message: type(message).__name__)
def test_a_message_of_the_gateway_survives(message: FromGateway) -> None:
    assert decode_from_gateway(encode(message)) == message
    with pytest.raises(WireError):
        decode_from_actor(encode(message))


@given(st.binary(max_size=100))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    for decode in (decode_from_actor, decode_from_gateway):
        with pytest.raises(WireError):
            decode(data)


def test_a_field_of_a_later_version_is_passed_over() -> None:
    later = msgspec.msgpack.encode({"type": "up", "session_id": "sess_1", "accept_to_101_s": 0.5, "colour": "blue"})
    assert decode_from_actor(later) == Up("sess_1", 0.5)


def test_a_message_that_is_too_large_is_refused_before_it_is_sent() -> None:
    with pytest.raises(WireError, match="Adopt") as caught:
        encode(Adopt("sess_1", "openai", bytes(MAX_MESSAGE), "peer", 0.0))
    assert caught.value.wire_code == "message_too_large"


def test_a_report_survives() -> None:
    snapshot = GatewaySnapshot(
        node="n",
        incarnation=1,
        sequence=2,
        pid=3,
        host="127.0.0.1",
        port=8080,
        ready=True,
        draining=False,
        max_sessions=4,
        handshakes=0,
        pending_heads=0,
        starts=1,
        ends=0,
        refusals=2,
        sessions=(SessionSnapshot("sess_1", "twilio", "a1", "live", 1.5),),
        actors=(ActorSnapshot("a1", 42, 1, 1),),
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot), type=GatewaySnapshot) == snapshot
