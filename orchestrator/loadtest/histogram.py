"""Latencies in bounded memory: a histogram whose buckets are 3 % wide, that can be sent as JSON and added to another."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["Histogram"]

_PRECISION = 5  # 2**5 buckets per power of two


class Histogram:
    """Counts durations in whole microseconds; quantiles are right to 3 %. Anything above 18 minutes counts as 18 minutes."""

    _TOP = 1 << 30

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self.count = 0

    def add(self, microseconds: int, times: int = 1) -> None:
        """Count one duration; a negative one, which only a broken clock gives, counts as zero."""
        index = _bucket(min(max(microseconds, 0), self._TOP))
        self._counts[index] = self._counts.get(index, 0) + times
        self.count += times

    def merge(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Add what another histogram's `pairs` gave."""
        for index, times in pairs:
            self._counts[index] = self._counts.get(index, 0) + times
            self.count += times

    def pairs(self) -> list[tuple[int, int]]:
        """The content as (bucket, count), for JSON."""
        return sorted(self._counts.items())

    def quantile_ms(self, share: float) -> float | None:
        """The duration below which that share of all lies, in milliseconds, or None while empty."""
        if not self.count:
            return None
        rank = share * self.count
        seen = 0
        for index, times in self.pairs():
            seen += times
            if seen >= rank:
                return _middle(index) / 1000
        raise AssertionError("the buckets hold as many as were counted")


def _bucket(value: int) -> int:
    shift = max(0, value.bit_length() - _PRECISION - 1)
    return (shift << _PRECISION) + (value >> shift)


def _middle(index: int) -> float:
    if index < 2 << _PRECISION:
        return index
    shift = (index >> _PRECISION) - 1
    low = (index - (shift << _PRECISION)) << shift
    return low + (1 << shift) / 2
