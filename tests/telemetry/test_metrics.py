"""Counting in one process, merging in another, and a text that Prometheus reads."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.errors import InternalFault
from orchestrator.telemetry import names
from orchestrator.telemetry.metrics import (
    CounterDelta,
    DeltaMetrics,
    GaugeValue,
    HistogramDelta,
    Metrics,
    MetricsDelta,
    NullMetrics,
    RegistryMetrics,
)

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: RegistryMetrics) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def value(metrics: RegistryMetrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def test_every_metric_of_the_catalogue_is_exposed_with_its_type() -> None:
    families = {family.name: family for family in text_string_to_metric_families(RegistryMetrics().render().decode())}
    for spec in names.CATALOGUE.values():
        family = families[spec.name.removesuffix("_total")]
        assert family.type == spec.kind.value
        assert family.documentation == spec.help


def test_names_follow_the_conventions() -> None:
    for spec in names.CATALOGUE.values():
        assert spec.name.startswith("orchestrator_")
        assert spec.name.endswith("_total") is (spec.kind is names.Kind.COUNTER)
        assert bool(spec.buckets) is (spec.kind is names.Kind.HISTOGRAM)
        assert list(spec.buckets) == sorted(set(spec.buckets))
        assert not any("session_id" in label or "caller" in label for label in spec.label_names)


def test_known_label_values_are_exposed_at_zero_from_the_start() -> None:
    metrics = RegistryMetrics()
    assert value(metrics, names.AUDIO_FRAMES_TOTAL, direction="in") == 0
    assert value(metrics, names.SESSIONS, state="live") == 0
    assert value(metrics, names.SESSION_STARTS_TOTAL, channel="twilio") == 0
    assert value(metrics, names.FIRST_AUDIO_SECONDS + "_count") == 0


def count_something(metrics: Metrics) -> None:
    metrics.inc(names.INTERRUPTIONS_TOTAL)
    metrics.inc(names.AUDIO_FRAMES_TOTAL, 50, direction="in")
    metrics.observe(names.TOOL_SECONDS, 0.2, tool="weather", outcome="ok")
    metrics.observe(names.TOOL_SECONDS, 99.0, outcome="ok", tool="weather")
    metrics.set(names.SESSIONS, 3, state="live")


def test_a_merged_delta_equals_counting_in_place() -> None:
    there, here, together = DeltaMetrics(), RegistryMetrics(), RegistryMetrics()
    for _ in range(3):
        count_something(there)
        count_something(here)
        wire = msgspec.msgpack.encode(there.drain())
        together.merge(msgspec.msgpack.decode(wire, type=MetricsDelta))
    assert samples(together) == samples(here)


def test_a_drained_delta_is_empty_until_something_happens() -> None:
    metrics = DeltaMetrics()
    assert not metrics.drain()
    count_something(metrics)
    assert metrics.drain()
    assert not metrics.drain()


@given(st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=40))
def test_nothing_is_lost_or_doubled_however_it_is_drained(events: list[tuple[float, bool]]) -> None:
    there, here, direct = DeltaMetrics(), RegistryMetrics(), RegistryMetrics()
    for seconds, drain in events:
        for metrics in (there, direct):
            metrics.observe(names.FIRST_AUDIO_SECONDS, seconds)
            metrics.inc(names.AUDIO_FRAMES_TOTAL, direction="in" if seconds > 1 else "out")
        if drain:
            here.merge(there.drain(max_series=1))
    while delta := there.drain(max_series=1):
        here.merge(delta)
    ours, theirs = samples(here), samples(direct)
    assert ours.keys() == theirs.keys()
    assert all(math.isclose(ours[key], theirs[key], abs_tol=1e-9) for key in ours)


def test_a_delta_holds_counts_per_bucket_and_not_measurements() -> None:
    metrics = DeltaMetrics()
    for _ in range(10_000):
        metrics.observe(names.BARGE_IN_SECONDS, 0.004)
    delta = metrics.drain()
    (histogram,) = delta.histograms
    assert sum(histogram.counts) == 10_000
    assert len(histogram.counts) == len(names.CATALOGUE[names.BARGE_IN_SECONDS].buckets) + 1
    assert len(msgspec.msgpack.encode(delta)) < 200


def test_the_largest_delta_fits_into_a_message_of_the_link() -> None:
    metrics = DeltaMetrics()
    for number in range(400):
        for _ in range(3):
            metrics.observe(names.TOOL_SECONDS, 1e15, tool=f"\N{GRINNING FACE}{number:0200}", outcome="o" * 200)
            metrics.observe(names.TOOL_SECONDS, 1e15, tool=f"{number:0100}", outcome="o" * 100)
    while delta := metrics.drain():
        assert len(msgspec.msgpack.encode(delta)) < 60_000


def test_a_measurement_on_a_bound_belongs_to_its_bucket() -> None:
    metrics = RegistryMetrics()
    metrics.observe(names.FIRST_AUDIO_SECONDS, 0.5)
    assert value(metrics, names.FIRST_AUDIO_SECONDS + "_bucket", le="0.5") == 1
    assert value(metrics, names.FIRST_AUDIO_SECONDS + "_bucket", le="0.3") == 0
    assert value(metrics, names.FIRST_AUDIO_SECONDS + "_bucket", le="+Inf") == 1


def test_a_duration_that_two_clocks_made_negative_counts_as_none() -> None:
    metrics = RegistryMetrics()
    metrics.observe(names.ACCEPT_SECONDS, -0.001)
    metrics.observe(names.ACCEPT_SECONDS, math.nan)
    assert value(metrics, names.ACCEPT_SECONDS + "_sum") == 0
    assert value(metrics, names.ACCEPT_SECONDS + "_count") == 2


@pytest.mark.parametrize("make", [DeltaMetrics, RegistryMetrics])
@pytest.mark.parametrize(
    ("method", "name", "labels"),
    [
        ("inc", "orchestrator_unknown_total", {}),
        ("inc", "interruptions_total", {}),
        ("inc", names.INTERRUPTIONS_TOTAL, {"reason": "x"}),
        ("inc", names.AUDIO_FRAMES_TOTAL, {}),
        ("inc", names.AUDIO_FRAMES_TOTAL, {"direction": "sideways"}),
        ("inc", names.SESSIONS, {"state": "live"}),
        ("set", names.INTERRUPTIONS_TOTAL, {}),
        ("observe", names.INTERRUPTIONS_TOTAL, {}),
    ],
)
def test_a_name_or_label_outside_the_catalogue_is_a_bug(
    make: type[DeltaMetrics] | type[RegistryMetrics], method: str, name: str, labels: dict[str, str]
) -> None:
    with pytest.raises(InternalFault):
        getattr(make(), method)(name, 1.0, **labels)


@pytest.mark.parametrize("amount", [-1.0, math.nan])
def test_a_counter_takes_no_negative(amount: float) -> None:
    with pytest.raises(InternalFault):
        DeltaMetrics().inc(names.INTERRUPTIONS_TOTAL, amount)


def test_what_an_actor_counted_stays_when_it_dies_and_its_gauges_go() -> None:
    metrics = RegistryMetrics()
    for source in ("a", "b"):
        actor = DeltaMetrics()
        count_something(actor)
        metrics.merge(actor.drain(), source=source)
    assert value(metrics, names.SESSIONS, state="live") == 6
    metrics.forget("a")
    metrics.forget("a")
    assert value(metrics, names.SESSIONS, state="live") == 3
    assert value(metrics, names.AUDIO_FRAMES_TOTAL, direction="in") == 100


def test_a_delta_that_does_not_fit_is_counted_and_does_no_harm() -> None:
    metrics = RegistryMetrics()
    before = samples(metrics)
    bad = MetricsDelta(
        counters=(
            CounterDelta("orchestrator_of_a_later_version_total", (), 1.0),
            CounterDelta(names.INTERRUPTIONS_TOTAL, ("label",), 1.0),
            CounterDelta(names.INTERRUPTIONS_TOTAL, (), -1.0),
            CounterDelta(names.INTERRUPTIONS_TOTAL, (), math.inf),
            CounterDelta(names.AUDIO_FRAMES_TOTAL, ("sideways",), 1.0),
        ),
        gauges=(GaugeValue(names.INTERRUPTIONS_TOTAL, (), 1.0),),
        histograms=(
            HistogramDelta(names.BARGE_IN_SECONDS, (), (1, 2), 1.0),
            HistogramDelta(names.BARGE_IN_SECONDS, (), (), 1.0),
            HistogramDelta(names.BARGE_IN_SECONDS, (), (-1,) * 12, 1.0),
        ),
    )
    metrics.merge(bad, source="a")
    rejected = (names.TELEMETRY_REJECTED_TOTAL, ())
    assert samples(metrics) == {**before, rejected: 9.0}


def test_label_values_without_end_share_one_series() -> None:
    metrics = RegistryMetrics()
    for number in range(1000):
        metrics.inc(names.WIRE_ERRORS_TOTAL, side="caller", code=f"code-{number}")
    found = {labels: count for (name, labels), count in samples(metrics).items() if name == names.WIRE_ERRORS_TOTAL}
    assert len(found) < 400
    assert sum(found.values()) == 1000
    assert found[("code", "other"), ("side", "caller")] > 600


def test_labels_may_be_given_in_any_order_and_may_hold_anything() -> None:
    metrics = RegistryMetrics()
    metrics.inc(names.WIRE_ERRORS_TOTAL, code='a"b\\c\nd', side="model")
    metrics.inc(names.WIRE_ERRORS_TOTAL, side="model", code='a"b\\c\nd')
    assert value(metrics, names.WIRE_ERRORS_TOTAL, side="model", code='a"b\\c\nd') == 2


def test_counting_nothing_takes_anything() -> None:
    count_something(NullMetrics())
