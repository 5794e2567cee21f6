"""Tokens of a response, from the wire to the event."""

import msgspec
import pytest

from orchestrator.core.commands import Emit
from orchestrator.core.events import (
    CachedTokensDetails,
    InputTokensDetails,
    OutputTokensDetails,
    RealtimeModelUsageEvent,
)
from orchestrator.core.model_session import ModelSession
from orchestrator.core.playback import PlaybackCursor
from orchestrator.usage import Usage
from orchestrator.wire import realtime as wire

TOTALS = {"total_tokens": 253, "input_tokens": 132, "output_tokens": 121}
INPUT = {"text_tokens": 119, "audio_tokens": 13, "image_tokens": 0, "cached_tokens": 64}
CACHED = {"text_tokens": 60, "audio_tokens": 4, "image_tokens": 0}
OUTPUT = {"text_tokens": 30, "audio_tokens": 91}


@pytest.mark.parametrize(
    ("details", "read", "written"),
    [
        ({}, None, None),
        ({"input_token_details": None, "output_token_details": None}, None, None),
        (
            {"input_token_details": INPUT, "output_token_details": OUTPUT},
            InputTokensDetails(119, 13, 0, 64),
            OutputTokensDetails(30, 91),
        ),
        (
            {"input_token_details": INPUT | {"cached_tokens_details": CACHED}},
            InputTokensDetails(119, 13, 0, 64, CachedTokensDetails(60, 4, 0)),
            None,
        ),
    ],
)
def test_usage_carries_the_details_that_the_server_gives(
    details: dict[str, object], read: InputTokensDetails | None, written: OutputTokensDetails | None
) -> None:
    response = {"id": "r1", "status": "completed", "conversation_id": "c1", "usage": TOTALS | details}
    event = wire.decode_server_event(msgspec.json.encode({"type": "response.done", "event_id": "e1", "response": response}))
    assert not isinstance(event, wire.UnknownEvent)
    emitted = [command.event for command in ModelSession(PlaybackCursor()).receive(event, 0.0) if isinstance(command, Emit)]
    assert emitted[0] == RealtimeModelUsageEvent(Usage(1, 132, 121, 253), read, written, "r1")
