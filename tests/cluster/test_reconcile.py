from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.reconcile import (
    Create,
    Forget,
    Kind,
    Plan,
    Reconciler,
    Replace,
    desired,
    gateway_name,
    session_name,
    tool_name,
)

NODE_A, NODE_B = "a" * 56, "b" * 56
PLAN = Plan(session_actors=2, tool_actors=1)


def names(*nodes: str, plan: Plan = PLAN) -> set[str]:
    return {spec.name for spec in desired(nodes, plan)}


def test_a_node_has_a_gateway_and_its_session_actors_and_tool_actors_belong_to_no_node() -> None:
    specs = {spec.name: spec for spec in desired([NODE_A], Plan(2, 2, ("default", "slow")))}
    assert set(specs) == {
        gateway_name(NODE_A),
        session_name(NODE_A, 0),
        session_name(NODE_A, 1),
        tool_name("default", 0),
        tool_name("default", 1),
        tool_name("slow", 0),
        tool_name("slow", 1),
    }
    assert specs[gateway_name(NODE_A)].node == specs[session_name(NODE_A, 1)].node == NODE_A
    assert specs[tool_name("slow", 0)].node is None


def test_what_the_first_call_needs_is_started_first() -> None:
    specs = desired([NODE_A, NODE_B], Plan(3, 2))
    assert {spec.kind for spec in specs[:2]} == {Kind.GATEWAY}
    assert [spec.name for spec in specs[2:5]] == [session_name(NODE_A, 0), session_name(NODE_B, 0), tool_name("default", 0)]


def test_everything_that_is_missing_is_created_and_then_nothing_is_left_to_do() -> None:
    reconciler = Reconciler(PLAN)
    actions = reconciler.step(0.0, {NODE_A}, set())
    assert [action.spec for action in actions] == list(desired([NODE_A], PLAN))
    assert all(isinstance(action, Create) for action in actions)
    assert reconciler.step(0.5, {NODE_A}, names(NODE_A)) == ()


def test_actors_that_exist_already_are_left_alone() -> None:
    assert Reconciler(PLAN).step(0.0, {NODE_A}, names(NODE_A)) == ()


def test_an_actor_that_does_not_stay_is_tried_again_ever_more_rarely() -> None:
    reconciler = Reconciler(PLAN, max_backoff=4.0)
    missing = session_name(NODE_A, 0)
    existing = names(NODE_A) - {missing}
    tried = [
        tick / 2
        for tick in range(40)
        if any(action.spec.name == missing for action in reconciler.step(tick / 2, {NODE_A}, existing))
    ]
    assert tried == [0.0, 1.0, 3.0, 7.0, 11.0, 15.0, 19.0]


def test_an_actor_that_stayed_for_long_is_tried_again_at_once_when_it_dies() -> None:
    reconciler = Reconciler(PLAN, settled_after=30.0)
    everyone = names(NODE_A)
    one = session_name(NODE_A, 0)
    reconciler.step(0.0, {NODE_A}, everyone - {one})
    reconciler.step(1.0, {NODE_A}, everyone - {one})
    reconciler.step(40.0, {NODE_A}, everyone)
    assert [action.spec.name for action in reconciler.step(40.5, {NODE_A}, everyone - {one})] == [one]
    assert [action.spec.name for action in reconciler.step(41.5, {NODE_A}, everyone - {one})] == [one]


def test_a_node_that_joins_gets_its_actors_and_one_that_leaves_is_forgotten() -> None:
    reconciler = Reconciler(PLAN)
    reconciler.step(0.0, {NODE_A}, names(NODE_A))
    joined = reconciler.step(1.0, {NODE_A, NODE_B}, names(NODE_A))
    assert {action.spec.name for action in joined} == names(NODE_A, NODE_B) - names(NODE_A)
    left = reconciler.step(2.0, {NODE_B}, names(NODE_A, NODE_B))
    assert {action.spec.name for action in left if isinstance(action, Forget)} == names(NODE_A, NODE_B) - names(NODE_B)
    assert reconciler.step(3.0, {NODE_B}, names(NODE_B)) == ()


def test_a_cluster_that_cannot_be_seen_is_not_an_empty_one() -> None:
    reconciler = Reconciler(PLAN)
    reconciler.step(0.0, {NODE_A}, names(NODE_A))
    assert reconciler.step(1.0, set(), set()) == ()
    assert reconciler.step(2.0, {NODE_A}, names(NODE_A)) == ()


def test_an_unfit_tool_actor_is_replaced_once_and_then_given_time() -> None:
    reconciler = Reconciler(PLAN)
    tool = tool_name("default", 0)
    (action,) = reconciler.step(0.0, {NODE_A}, names(NODE_A), {tool: "silent"})
    assert isinstance(action, Replace)
    assert (action.spec.name, action.cause) == (tool, "silent")
    assert reconciler.step(14.5, {NODE_A}, names(NODE_A), {tool: "silent"}) == ()
    assert len(reconciler.step(15.0, {NODE_A}, names(NODE_A), {tool: "silent"})) == 1


def test_a_session_actor_is_never_replaced() -> None:
    everyone = names(NODE_A)
    actions = Reconciler(PLAN).step(0.0, {NODE_A}, everyone, dict.fromkeys(everyone, "silent"))
    assert {action.spec.kind for action in actions} == {Kind.GATEWAY, Kind.TOOL}


@dataclass
class World:
    """A cluster that does as it is told, except for the actors that are broken."""

    nodes: set[str] = field(default_factory=set)
    existing: set[str] = field(default_factory=set)
    creates: list[tuple[float, str]] = field(default_factory=list)

    def perform(self, now: float, reconciler: Reconciler, broken: set[str]) -> int:
        actions = reconciler.step(now, self.nodes, self.existing)
        for action in actions:
            if isinstance(action, Create):
                assert action.spec.name not in self.existing
                assert action.spec.node is None or action.spec.node in self.nodes
                self.creates.append((now, action.spec.name))
                if action.spec.name not in broken:
                    self.existing.add(action.spec.name)
        return len(actions)


all_nodes = st.sets(st.sampled_from([NODE_A, NODE_B, "c" * 56]), min_size=1)
plans = st.builds(Plan, st.integers(1, 3), st.integers(1, 3), st.sampled_from([(), ("default",), ("default", "slow")]))
steps = st.lists(st.tuples(all_nodes, st.lists(st.integers(0, 40), max_size=4)), min_size=1, max_size=15)


@given(plans, steps)
def test_whatever_dies_joins_or_leaves_the_actors_end_up_as_planned(
    plan: Plan, history: list[tuple[set[str], list[int]]]
) -> None:
    reconciler = Reconciler(plan)
    world = World()
    now = 0.0
    for nodes, deaths in history:
        now += 0.5
        world.nodes = nodes
        placed = {spec.name for spec in desired(nodes, plan)}
        world.existing &= placed
        for death in deaths:
            candidates = sorted(world.existing)
            if candidates:
                world.existing.discard(candidates[death % len(candidates)])
        world.perform(now, reconciler, broken=set())
    now += 61.0
    world.perform(now, reconciler, broken=set())
    assert world.existing == {spec.name for spec in desired(world.nodes, plan)}
    assert world.perform(now + 0.5, reconciler, broken=set()) == 0


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=60))
def test_a_broken_actor_is_never_tried_twice_within_its_back_off(pauses: list[float]) -> None:
    reconciler = Reconciler(PLAN, max_backoff=8.0)
    broken = session_name(NODE_A, 1)
    world = World(nodes={NODE_A})
    now = 0.0
    for pause in pauses:
        now += pause
        world.perform(now, reconciler, broken={broken})
    times = [at for at, name in world.creates if name == broken]
    for index, (earlier, later) in enumerate(pairwise(times)):
        assert later >= earlier + min(8.0, 2.0**index)
