"""What may be written down as a fault, what may not, and what a distribution draws."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
import yaml

from orchestrator.simulator.endpoint import fault_types
from orchestrator.simulator.endpoint.fault_types import AnyFault, Drop, Lognormal, Refuse, RegionDown, Spread, draw


def read(text: str) -> AnyFault:
    return msgspec.convert(yaml.safe_load(text), AnyFault)  # type: ignore[no-any-return]


def test_the_examples_of_the_documentation_are_faults() -> None:
    example = (fault_types.__doc__ or "").split("::", 1)[1].split("Every kind")[0]
    document: dict[str, Any] = yaml.safe_load(example)
    faults = msgspec.convert(document["faults"], list[AnyFault])
    kinds = [entry["do"] for entry in document["faults"]]
    assert [msgspec.json.decode(msgspec.json.encode(fault))["do"] for fault in faults] == kinds
    assert len(set(kinds)) == 9


@pytest.mark.parametrize(
    "text",
    [
        "{do: explode}",
        "{at: now}",
        "{do: drop, when: now}",
        "{do: drop, at: later}",
        "{do: drop, at: connect}",
        "{do: drop, n: 0}",
        "{do: drop, n: often}",
        "{do: drop, code: 1006}",
        "{do: drop, code: 1005}",
        "{do: drop, code: 99}",
        "{do: drop, code: 1011, reason: " + 124 * "x" + "}",
        "{do: drop, nth_session: 0}",
        "{do: drop, probability: 1.5}",
        "{do: drop, times: 0}",
        "{do: drop, after_seconds: -1}",
        "{do: drop, for_seconds: .inf}",
        "{do: stall, seconds: .nan}",
        "{do: stall, direction: up}",
        "{do: delay}",
        "{do: delay, seconds: -1}",
        "{do: delay, seconds: {}}",
        "{do: delay, seconds: {uniform: [2, 1]}}",
        "{do: delay, seconds: {uniform: [1, 2], lognormal: {median: 1}}}",
        "{do: delay, seconds: {lognormal: {median: 1, sigma: 9}}}",
        "{do: transcription, copies: 0}",
        "{do: transcription, copies: 17}",
        "{do: refuse, status: 200}",
        "{do: refuse, retry_after: 1}",
        "{do: region_down, times: 1}",
        "{do: region_down, probability: 0.5}",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        read(text)


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 1013, 3000, 4999])
def test_every_code_that_may_be_sent_may_be_named(code: int) -> None:
    assert read(f"{{do: drop, code: {code}}}") == Drop(code=code)


def test_a_region_that_is_down_is_a_refusal_of_its_own_kind() -> None:
    assert isinstance(read("{do: region_down, status: 503, retry_after: 2}"), RegionDown)
    assert not isinstance(read("{do: refuse, status: 503}"), RegionDown)


def test_a_key_is_not_shown() -> None:
    assert "sk-secret" not in repr(Refuse(key="sk-secret"))


def test_a_constant_is_what_it_is() -> None:
    assert draw(0.25, random.Random(1)) == 0.25


def test_uniform_stays_between_its_bounds() -> None:
    source = random.Random(1)
    values = [draw(Spread(uniform=(0.1, 0.3)), source) for _ in range(1000)]
    assert all(0.1 <= value <= 0.3 for value in values)
    assert sum(values) / len(values) == pytest.approx(0.2, abs=0.01)


def test_lognormal_has_its_median_and_a_long_tail() -> None:
    source = random.Random(1)
    values = sorted(draw(Spread(lognormal=Lognormal(0.1, 1.0)), source) for _ in range(2001))
    assert values[1000] == pytest.approx(0.1, rel=0.1)
    assert values[-1] > 1.0


def test_the_same_source_draws_the_same() -> None:
    spread = Spread(lognormal=Lognormal(0.1))
    assert draw(spread, random.Random("a")) == draw(spread, random.Random("a"))
