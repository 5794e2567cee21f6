"""Audio read out of an append as text is the audio that a decoder of JSON finds, and anything doubtful is left to that."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.realtime import InputAudioBufferAppendEvent

from orchestrator.errors import WireError
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.append_text import FORMS, AppendReader
from orchestrator.simulator.endpoint.input_audio import decode_audio
from orchestrator.wire.realtime import InputAudioBufferAppend, append_frame, decode_client_event

AUDIO = bytes(range(256))
PAYLOAD = base64.b64encode(AUDIO).decode()
EVENT: Any = {"type": "input_audio_buffer.append", "audio": PAYLOAD}

forms = st.sampled_from(FORMS)
payloads = st.one_of(
    st.binary(max_size=200).map(base64.b64encode),
    st.text('AZaz09+/= \\"n,:{}-_é\n', max_size=24).map(str.encode),
    st.binary(max_size=24),
)
whole = st.builds(lambda form, payload: form[0] + payload + form[1], forms, payloads)


def damaged(message: bytes, at: int, piece: bytes, length: int) -> bytes:
    at %= len(message) + 1
    return message[:at] + piece + message[at + length :]


messages = st.one_of(
    whole,
    st.builds(damaged, whole, st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3)),
    st.builds(lambda head, payload, tail: head[0] + payload + tail[1], forms, payloads, forms),
    st.binary(max_size=60),
)


def decoded(message: bytes) -> bytes:
    """The audio of an append as the ordinary way finds it; empty if it is none, or is refused."""
    try:
        event = decode_client_event(message, forbid_unknown=False)
        return decode_audio(event.audio, Encoding.MULAW) if isinstance(event, InputAudioBufferAppend) else b""
    except (WireError, UnicodeDecodeError):
        return b""


@given(st.lists(messages, min_size=1, max_size=6))
def test_what_is_read_is_what_a_decoder_finds(sent: list[bytes]) -> None:
    reader = AppendReader()
    for message in sent:
        for _ in range(2):
            audio = reader.audio(message)
            assert audio == b"" or audio == decoded(message)


@given(forms, st.binary(min_size=1, max_size=400))
def test_every_append_in_a_known_form_is_read(form: tuple[bytes, bytes], audio: bytes) -> None:
    message = form[0] + base64.b64encode(audio) + form[1]
    assert AppendReader().audio(message) == audio == decoded(message)


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(json.dumps(EVENT, separators=(",", ":")).encode(), id="as JSON.stringify does"),
        pytest.param(json.dumps(EVENT).encode(), id="a dictionary, by the official client"),
        pytest.param(
            InputAudioBufferAppendEvent(**EVENT).to_json(use_api_names=True, exclude_unset=True).encode(), id="a model"
        ),
        pytest.param(InputAudioBufferAppendEvent(**EVENT).model_dump_json(exclude_unset=True).encode(), id="in one line"),
        pytest.param(append_frame(PAYLOAD), id="by this project"),
    ],
)
def test_the_known_clients_write_known_forms(message: bytes) -> None:
    assert AppendReader().audio(message) == AUDIO


def test_a_client_may_change_its_form() -> None:
    reader = AppendReader()
    for head, tail in (*FORMS, *FORMS):
        assert reader.audio(head + PAYLOAD.encode() + tail) == AUDIO


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b'{"type":"input_audio_buffer.append","audio":""}',
        b'{"type":"input_audio_buffer.append","audio":"',
        b'{"type":"input_audio_buffer.append","audio":"AAAA","event_id":"mine"}',
        b'{"type":"input_audio_buffer.append","audio":"AAAA","audio":"AAAA"}',
        b'{"type":"input_audio_buffer.append","audio":"AA\\/A"}',
        b'{"type":"input_audio_buffer.append","audio":"AA=A"}',
        b'{"audio":"","type":"input_audio_buffer.append"}',
        b'{"type":"input_audio_buffer.commit"}',
    ],
)
def test_anything_else_is_left(message: bytes) -> None:
    assert AppendReader().audio(message) == b""
