"""Labels in audio payloads."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.loadtest.tag import TAG_BYTES, Tag, make_tag, read_tag, read_tag_base64

TAGS = st.builds(Tag, st.integers(0, 2**16 - 1), st.integers(0, 2**24 - 1), st.integers(0, 2**63))


@given(TAGS, st.binary(max_size=900))
def test_comes_back_from_a_payload_and_from_its_base64(tag: Tag, rest: bytes) -> None:
    payload = make_tag(tag) + rest
    assert len(make_tag(tag)) == TAG_BYTES
    assert read_tag(payload) == tag
    assert read_tag_base64(base64.b64encode(payload)) == tag


@given(TAGS)
def test_holds_no_byte_that_a_mulaw_codec_could_change(tag: Tag) -> None:
    assert not set(make_tag(tag)) & {0x7F, 0xFF}


@pytest.mark.parametrize("payload", [b"", b"\xff" * 160, b"otag", b"otag" + b"x" * 26, b"otag" + b"0" * 25])
def test_other_audio_has_no_label(payload: bytes) -> None:
    assert read_tag(payload) is None
    assert read_tag_base64(base64.b64encode(payload)) is None


def test_broken_base64_has_no_label() -> None:
    assert read_tag_base64(b"abc") is None
