"""Owners of caller legs are killed, and no caller notices: a bounded run of what `python -m tests.survival` does at length."""

from __future__ import annotations

import pytest

from tests.survival.run import Result, run


def judge(result: Result, kills: int) -> None:
    assert result.clean, "\n".join(result.notes)
    assert result.kills >= kills
    assert result.held > result.kills, "owners died with callers in their hands"
    for tally in (result.direct, result.chopped, result.short):
        assert tally.connections > 0
        assert tally.echoes > 0
    assert result.direct.produced > 0


async def test_no_caller_notices_owners_that_are_killed_at_random_moments() -> None:
    judge(await run(kills=40, injected=False, seed=1), 40)


@pytest.mark.timeout(240)
async def test_no_caller_notices_owners_that_are_killed_at_lines_of_the_code() -> None:
    result = await run(kills=300, injected=True, seed=2)
    judge(result, 300)
    # Which lines they are is left to chance and to the machine, but they are many, in most of the code.
    assert sum(result.places.values()) >= 290
    assert len(result.places) > 100
