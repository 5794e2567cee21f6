"""What a key of a telephone is."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.simulator.dtmf import KEYS, KEYS_PATTERN, are_keys


def test_the_keys_are_those_of_a_telephone() -> None:
    assert len(KEYS) == len(set(KEYS)) == 16
    assert are_keys(KEYS)
    assert not are_keys("")
    assert not are_keys("e")
    assert not are_keys("1\n")


@given(st.text("0129*#ADEad-^]\\ \n", max_size=6))
def test_the_pattern_says_the_same(pressed: str) -> None:
    assert bool(re.search(KEYS_PATTERN, pressed)) is are_keys(pressed)
