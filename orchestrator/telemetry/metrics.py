"""Counting in many processes, exposing in one.

A session or tool actor counts into `DeltaMetrics` and now and then drains it into a `MetricsDelta`, which crosses the node
link; the gateway merges deltas into `RegistryMetrics`, which serves the Prometheus text. What was merged stays, so a counter
never goes backwards when an actor dies. Everything here belongs to one thread.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import accumulate, product
from typing import Protocol

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from orchestrator.errors import InternalFault
from orchestrator.telemetry.names import CATALOGUE, TELEMETRY_REJECTED_TOTAL, Kind, Spec

__all__ = [
    "CONTENT_TYPE",
    "CounterDelta",
    "DeltaMetrics",
    "GaugeValue",
    "HistogramDelta",
    "Metrics",
    "MetricsDelta",
    "NullMetrics",
    "RegistryMetrics",
]

CONTENT_TYPE = CONTENT_TYPE_LATEST

# A label value that comes from elsewhere (a tool's name, an error code) must not grow the exposition without end.
_SERIES_PER_METRIC = 300
_LABEL_LENGTH = 100
_OVERFLOW = "other"


class Metrics(Protocol):
    """What code that counts is given. Names are those of `names.py`; a wrong name or label raises InternalFault."""

    def inc(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put one measurement into a histogram."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""


class CounterDelta(msgspec.Struct, frozen=True, array_like=True):
    """What was added to one counter; `labels` are values in the catalogue's order."""

    name: str
    labels: tuple[str, ...]
    value: float


class GaugeValue(msgspec.Struct, frozen=True, array_like=True):
    """The present value of one gauge."""

    name: str
    labels: tuple[str, ...]
    value: float


class HistogramDelta(msgspec.Struct, frozen=True, array_like=True):
    """What was added to one histogram: how many per bucket (the infinite one last, not cumulative) and their sum."""

    name: str
    labels: tuple[str, ...]
    counts: tuple[int, ...]
    sum: float


class MetricsDelta(msgspec.Struct, frozen=True, array_like=True):
    """What changed since the last drain. Its size is bounded by the number of series, not by the number of events."""

    counters: tuple[CounterDelta, ...] = ()
    gauges: tuple[GaugeValue, ...] = ()
    histograms: tuple[HistogramDelta, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.counters or self.gauges or self.histograms)


class _Series:
    """One metric with one set of label values."""

    __slots__ = ("counts", "dirty", "labels", "spec", "value")

    def __init__(self, spec: Spec, labels: tuple[str, ...]) -> None:
        self.spec = spec
        self.labels = labels
        self.value = 0.0  # a histogram's sum
        self.counts = [0] * (len(spec.buckets) + 1) if spec.kind is Kind.HISTOGRAM else []
        self.dirty = False


class _SeriesTable:
    """The series of one process, found by name and labels, each metric bounded in number."""

    def __init__(self) -> None:
        self._series: dict[str, dict[tuple[str, ...], _Series]] = {name: {} for name in CATALOGUE}
        # Counting happens per audio frame: the labels as given lead to the series without validating them again.
        self._seen: dict[tuple[object, ...], _Series] = {}

    def find(self, kind: Kind, name: str, labels: dict[str, str]) -> _Series:
        key = (name, *labels.items())
        series = self._seen.get(key)
        if series is None:
            spec = CATALOGUE.get(name)
            if spec is None:
                raise InternalFault(f"no metric is called {name!r}: add it to orchestrator/telemetry/names.py")
            if labels.keys() != set(spec.label_names):
                raise InternalFault(f"{name} has the labels {spec.label_names}, not {tuple(labels)}")
            series, exact = self.place(spec, tuple(labels[label] for label in spec.label_names))
            if exact:
                self._seen[key] = series
        if series.spec.kind is not kind:
            raise InternalFault(f"{name} is a {series.spec.kind.value}, not a {kind.value}")
        return series

    def place(self, spec: Spec, values: tuple[str, ...]) -> tuple[_Series, bool]:
        """Return the series for checked label values, and whether it is theirs alone rather than the overflow's."""
        for label, value in zip(spec.labels, values, strict=True):
            if label.closed and value not in label.values:
                raise InternalFault(f"{spec.name}: {label.name} is one of {label.values}, not {value!r}")
        clipped = tuple(_plain(value) for value in values)
        series = self._series[spec.name].get(clipped)
        exact = clipped == values
        if series is None:
            if len(self._series[spec.name]) >= _SERIES_PER_METRIC:
                clipped = tuple(value if label.closed else _OVERFLOW for label, value in zip(spec.labels, clipped, strict=True))
                exact = False
            series = self._series[spec.name].setdefault(clipped, _Series(spec, clipped))
        return series, exact

    def seed(self) -> None:
        """Create the series whose label values are known beforehand."""
        for spec in CATALOGUE.values():
            for values in product(*(label.values for label in spec.labels)):
                self.place(spec, values)

    def of(self, spec: Spec) -> Iterable[_Series]:
        return self._series[spec.name].values()


def _plain(value: str) -> str:
    # ASCII, so that the length in characters is the length on the node link.
    return value[:_LABEL_LENGTH].encode("ascii", "replace").decode()


def _add(series: _Series, value: float) -> None:
    if not value >= 0:
        raise InternalFault(f"{series.spec.name} is a counter: it cannot take {value}")
    series.value += value


def _observe(series: _Series, value: float) -> None:
    # Two clocks read by two processes may differ by a little; a negative duration, or none at all, counts as zero.
    value = value if value > 0 else 0.0
    series.value += value
    series.counts[bisect_left(series.spec.buckets, value)] += 1


class DeltaMetrics:
    """Accumulates what happens in an actor until it is drained."""

    def __init__(self) -> None:
        self._table = _SeriesTable()
        self._dirty: list[_Series] = []

    def inc(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        _add(self._touched(Kind.COUNTER, name, labels), value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put one measurement into a histogram."""
        _observe(self._touched(Kind.HISTOGRAM, name, labels), value)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._touched(Kind.GAUGE, name, labels).value = value

    def _touched(self, kind: Kind, name: str, labels: dict[str, str]) -> _Series:
        series = self._table.find(kind, name, labels)
        if not series.dirty:
            series.dirty = True
            self._dirty.append(series)
        return series

    def drain(self, max_series: int = 128) -> MetricsDelta:
        """Take what changed since the last drain, at most `max_series` series; the rest stays for the next one.

        128 series encode to less than 64 KiB whatever their labels are, so a delta fits into one message of the node link.
        """
        taken, self._dirty = self._dirty[:max_series], self._dirty[max_series:]
        counters, gauges, histograms = [], [], []
        for series in taken:
            series.dirty = False
            name = series.spec.name
            if series.spec.kind is Kind.GAUGE:
                gauges.append(GaugeValue(name, series.labels, series.value))
                continue
            if series.spec.kind is Kind.COUNTER:
                counters.append(CounterDelta(name, series.labels, series.value))
            else:
                histograms.append(HistogramDelta(name, series.labels, tuple(series.counts), series.value))
                series.counts = [0] * len(series.counts)
            series.value = 0.0
        return MetricsDelta(tuple(counters), tuple(gauges), tuple(histograms))


class RegistryMetrics(Collector):
    """The node's metrics: counts by itself, merges deltas, renders the Prometheus text.

    A gauge that several sources report is exposed as their sum.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = CollectorRegistry() if registry is None else registry
        self._table = _SeriesTable()
        self._table.seed()
        self._reported: dict[str, dict[_Series, float]] = {}
        self.registry.register(self)

    def inc(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Add to a counter."""
        _add(self._table.find(Kind.COUNTER, name, labels), value)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Put one measurement into a histogram."""
        _observe(self._table.find(Kind.HISTOGRAM, name, labels), value)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge of this process."""
        self._table.find(Kind.GAUGE, name, labels).value = value

    def merge(self, delta: MetricsDelta, source: str = "") -> None:
        """Add what an actor counted. Never raises: a series that does not fit the catalogue is counted and left out."""
        rejected = 0
        for counter in delta.counters:
            series = self._fitting(Kind.COUNTER, counter.name, counter.labels)
            if series is None or not 0 <= counter.value < math.inf:
                rejected += 1
            else:
                series.value += counter.value
        for gauge in delta.gauges:
            series = self._fitting(Kind.GAUGE, gauge.name, gauge.labels)
            if series is None:
                rejected += 1
            else:
                self._reported.setdefault(source, {})[series] = gauge.value
        for histogram in delta.histograms:
            series = self._fitting(Kind.HISTOGRAM, histogram.name, histogram.labels)
            if series is None or not self._add_histogram(series, histogram):
                rejected += 1
        if rejected:
            self.inc(TELEMETRY_REJECTED_TOTAL, rejected)

    @staticmethod
    def _add_histogram(series: _Series, delta: HistogramDelta) -> bool:
        if len(delta.counts) != len(series.counts) or min(delta.counts) < 0 or not 0 <= delta.sum < math.inf:
            return False
        series.counts = [have + more for have, more in zip(series.counts, delta.counts, strict=True)]
        series.value += delta.sum
        return True

    def _fitting(self, kind: Kind, name: str, values: tuple[str, ...]) -> _Series | None:
        spec = CATALOGUE.get(name)
        if spec is None or spec.kind is not kind or len(values) != len(spec.labels):
            return None
        try:
            return self._table.place(spec, values)[0]
        except InternalFault:
            return None

    def forget(self, source: str) -> None:
        """Drop the gauges that a source reported, since it is gone; what it counted stays."""
        self._reported.pop(source, None)

    def describe(self) -> Iterator[Metric]:
        """Name the families without collecting them."""
        for spec in CATALOGUE.values():
            yield Metric(spec.name.removesuffix("_total"), spec.help, spec.kind.value)

    def collect(self) -> Iterator[Metric]:
        """Yield every family of the catalogue, in its order."""
        for spec in CATALOGUE.values():
            if spec.kind is Kind.COUNTER:
                yield self._counter(spec)
            elif spec.kind is Kind.GAUGE:
                yield self._gauge(spec)
            else:
                yield self._histogram(spec)

    def _counter(self, spec: Spec) -> Metric:
        family = CounterMetricFamily(spec.name, spec.help, labels=spec.label_names)
        for series in self._table.of(spec):
            family.add_metric(series.labels, series.value)
        return family

    def _gauge(self, spec: Spec) -> Metric:
        family = GaugeMetricFamily(spec.name, spec.help, labels=spec.label_names)
        for series in self._table.of(spec):
            reported = sum(values.get(series, 0.0) for values in self._reported.values())
            family.add_metric(series.labels, series.value + reported)
        return family

    def _histogram(self, spec: Spec) -> Metric:
        family = HistogramMetricFamily(spec.name, spec.help, labels=spec.label_names)
        bounds = [*(repr(bound) for bound in spec.buckets), "+Inf"]
        for series in self._table.of(spec):
            buckets = list(zip(bounds, accumulate(series.counts), strict=True))
            family.add_metric(series.labels, buckets, series.value)
        return family

    def render(self) -> bytes:
        """Return the registry in the Prometheus text format; its media type is `CONTENT_TYPE`."""
        return generate_latest(self.registry)


class NullMetrics:
    """Counts nothing: for programs that run one session without a service around it."""

    def inc(self, name: str, value: float = 1.0, **labels: str) -> None:
        """Do nothing."""

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Do nothing."""

    def set(self, name: str, value: float, **labels: str) -> None:
        """Do nothing."""
