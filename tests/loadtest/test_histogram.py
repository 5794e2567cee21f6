"""The latency histogram."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.loadtest.histogram import Histogram

DURATIONS = st.lists(st.integers(0, 1 << 30), min_size=1, max_size=200)


def filled(durations: list[int]) -> Histogram:
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


@given(DURATIONS, st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_quantiles_are_right_to_three_percent(durations: list[int], share: float) -> None:
    exact = sorted(durations)[max(0, math.ceil(share * len(durations)) - 1)]
    found = filled(durations).quantile_ms(share)
    assert found is not None
    assert abs(found * 1000 - exact) <= max(1, exact * 0.032)


@given(DURATIONS, DURATIONS)
def test_merging_is_counting_together(one: list[int], other: list[int]) -> None:
    merged = filled(one)
    merged.merge((index, times) for index, times in json.loads(json.dumps(filled(other).pairs())))
    assert merged.pairs() == filled(one + other).pairs()
    assert merged.count == len(one) + len(other)


def test_an_empty_one_has_no_quantiles() -> None:
    assert Histogram().quantile_ms(0.5) is None


def test_bounds_what_a_broken_clock_gives() -> None:
    histogram = filled([-5, 1 << 60])
    assert histogram.quantile_ms(0.0) == 0
    assert histogram.quantile_ms(1.0) is not None
