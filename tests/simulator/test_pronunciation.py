"""Words that no dictionary has are pronounced, in the letters that the recogniser knows."""

from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pocketsphinx import Decoder

from orchestrator.simulator.pronunciation import pronounce

PHONES = set(
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH".split()  # noqa: SIM905
)


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("zalando", "Z AE L AE N D OW"),
        ("judge", "JH AH JH"),
        ("thing", "TH IH NG"),
        ("father", "F AA DH ER"),
        ("boy", "B OY"),
        ("leisure", "L IY ZH ER"),
        ("wizz", "W IH Z"),
    ],
)
def test_words_are_pronounced_as_they_are_spoken(word: str, phones: str) -> None:
    assert pronounce(word) == phones


def test_it_agrees_with_the_dictionary_on_most_sounds_of_words_that_it_has() -> None:
    decoder = Decoder(samprate=16_000, lm=None, loglevel="FATAL")
    words = "order refund invoice appointment lighthouse insurance window contract password countries neighbor calendar".split()  # noqa: SIM905
    agreed = total = 0
    for word in words:
        ours, theirs = pronounce(word).split(), decoder.lookup_word(word).split()
        blocks = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
        agreed += sum(block.size for block in blocks)
        total += max(len(ours), len(theirs))
    assert agreed / total > 0.8


@given(st.text("abcdefghijklmnopqrstuvwxyz'", min_size=1, max_size=20))
def test_any_word_becomes_phones_that_exist(word: str) -> None:
    assert set(pronounce(word).split()) <= PHONES
