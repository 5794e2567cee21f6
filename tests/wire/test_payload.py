"""The length of base64 audio."""

from __future__ import annotations

import base64

import pytest

from orchestrator.wire.payload import base64_length


@pytest.mark.parametrize("size", [*range(20), 160, 960, 4800])
def test_the_length_is_that_of_the_decoded_bytes(size: int) -> None:
    padded = base64.b64encode(bytes(size)).decode()
    assert base64_length(padded) == size
    assert base64_length(padded.rstrip("=")) == size
