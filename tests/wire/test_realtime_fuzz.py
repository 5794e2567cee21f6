"""Whatever a peer sends, decoding gives an event or a WireError, and what decodes can be encoded again."""

from __future__ import annotations

import base64
import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import WireError
from orchestrator.wire import realtime as wire
from orchestrator.wire import twilio

HERE = Path(__file__).parent
SAMPLES = [
    json.loads(line)
    for name in ("canonical_frames", "client_events", "server_events")
    for line in (HERE / f"{name}.jsonl").read_bytes().splitlines()
]
# Words of the protocol, so that a random document has a chance to mean something.
WORDS = sorted(
    {
        "type",
        "event",
        "event_id",
        "item",
        "content",
        "session",
        "response",
        "media",
        "~unknown",
        "body",
        "message",
        "input_text",
    }
    | set(wire.CLIENT_EVENTS)
    | set(wire.SERVER_EVENTS)
    | set(twilio.INBOUND_EVENTS)
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(WORDS)
DOCUMENTS: st.SearchStrategy[Any] = st.recursive(
    SCALARS | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=20,
)


def try_all(data: bytes) -> None:
    for decode in (wire.decode_server_event, wire.decode_client_event):
        with suppress(WireError):
            event = decode(data)
            encoded = wire.encode(event)
            again = decode(encoded)
            assert wire.event_type(again) == wire.event_type(event)
            assert wire.encode(again) == encoded
    with suppress(WireError):
        wire.decode_client_event(data, forbid_unknown=True)
    with suppress(WireError):
        twilio.decode_inbound(data)


def places(node: Any) -> list[tuple[Any, Any]]:
    """List every (container, key) of a document."""
    pairs = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [(node, key) for key, _ in pairs] + [place for _, child in pairs for place in places(child)]


@settings(deadline=None)
@given(st.binary())
def test_any_bytes(data: bytes) -> None:
    try_all(data)


@settings(deadline=None)
@given(DOCUMENTS)
def test_any_document(document: Any) -> None:
    try_all(json.dumps(document).encode())


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(SAMPLES), st.data())
def test_any_event_with_some_members_changed(sample: Any, data: st.DataObject) -> None:
    document = copy.deepcopy(sample)
    for _ in range(data.draw(st.integers(1, 3))):
        found = places(document)
        if not found:
            break
        holder, key = data.draw(st.sampled_from(found))
        if data.draw(st.booleans()):
            holder[key] = data.draw(DOCUMENTS)
        else:
            del holder[key]
    try_all(json.dumps(document).encode())


@settings(deadline=None)
@given(st.sampled_from(SAMPLES), st.data())
def test_any_event_with_some_bytes_changed(sample: Any, data: st.DataObject) -> None:
    frame = bytearray(json.dumps(sample, separators=(",", ":")).encode())
    start = data.draw(st.integers(0, len(frame) - 1))
    frame[start : start + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
    try_all(bytes(frame))


@settings(deadline=None)
@given(st.binary(max_size=4000))
def test_any_audio(audio: bytes) -> None:
    payload = base64.b64encode(audio).decode()
    frame = wire.append_frame(payload)
    assert frame == wire.encode(wire.InputAudioBufferAppend(audio=payload))
    assert wire.decode_client_event(frame, forbid_unknown=True) == wire.InputAudioBufferAppend(audio=payload)
    assert wire.base64_length(payload) == len(audio)
