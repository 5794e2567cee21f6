"""A few live calls while everything beneath them is broken once. `make chaos` does the same for longer, see docs/tasks.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.chaos.deployment import Deployment, Shape, deployed
from tests.chaos.faults import SQLITE_KINDS
from tests.chaos.run import Orders, run

if TYPE_CHECKING:
    from actors.local_ray import RayConnection

pytestmark = pytest.mark.cluster

SHAPE = Shape(sessions=3, spare_actors=3)


@pytest.fixture
def deployment(_ray_connection: RayConnection) -> Iterator[Deployment]:
    with deployed(SHAPE) as one:
        yield one


async def test_nobody_falls_out_of_the_conversation_whatever_is_killed_beneath_it(deployment: Deployment) -> None:
    outcome = await run(deployment, Orders(seed=1, shape=SHAPE, kinds=SQLITE_KINDS, rest=0.2, once=True))
    assert outcome.harms == []
    assert outcome.impossible == []
    assert {blow.kind for blow in outcome.blows} == set(SQLITE_KINDS)
    assert {(story.kind, story.path) for story in outcome.stories} > {("conversation", "direct"), ("conversation", "chopped")}
    # Each of them was in the middle of a conversation.
    assert all(len(story.turns) > 3 for story in outcome.stories)
