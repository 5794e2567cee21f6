"""Ids in the form of the live API."""

from __future__ import annotations

import re

from orchestrator.simulator.ids import ALPHABET, EPOCH, IdSource

NOW = 1_800_000_000.5


def test_ids_have_the_prefix_and_length_of_the_live_ones() -> None:
    ids = IdSource(lambda: NOW)
    for make, prefix in (
        (ids.event, "event"),
        (ids.session, "sess"),
        (ids.conversation, "conv"),
        (ids.response, "resp"),
        (ids.item, "item"),
    ):
        assert re.fullmatch(prefix + "_[0-9A-Za-z]{21}", make())
    assert re.fullmatch("call_[0-9A-Za-z]{16}", ids.call())
    # A client may choose ids of up to 32 characters; ours must fit where theirs do.
    assert max(len(ids.item()), len(ids.call())) <= 32


def test_the_first_five_characters_count_seconds() -> None:
    stamp = IdSource(lambda: NOW).item()[5:10]
    seconds = 0
    for character in stamp:
        seconds = seconds * 62 + ALPHABET.index(character)
    assert seconds == int(NOW) - EPOCH


def test_the_time_prefix_moves_with_the_clock() -> None:
    now = NOW
    ids = IdSource(lambda: now)
    first = ids.item()
    now += 1
    assert ids.item()[5:10] > first[5:10]


def test_ids_do_not_repeat_and_a_seed_makes_them_repeat() -> None:
    ids, same, other = IdSource(lambda: NOW, 7), IdSource(lambda: NOW, 7), IdSource(lambda: NOW, 8)
    made = [ids.event() for _ in range(1000)]
    assert len(set(made)) == 1000
    assert made[:10] == [same.event() for _ in range(10)]
    assert made[0] != other.event()


def test_obfuscation_has_11_to_14_characters() -> None:
    ids = IdSource(lambda: NOW, 1)
    assert {len(ids.obfuscation()) for _ in range(200)} == {11, 12, 13, 14}
