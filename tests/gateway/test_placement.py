"""The least loaded actor with a free seat, and every one in its turn."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.gateway.placement import ActorLoad, choose_actor

LOADS = st.lists(
    st.builds(
        ActorLoad,
        actor_id=st.text("abcdef", min_size=1, max_size=3),
        seats=st.integers(0, 4),
        used=st.integers(0, 4),
        last_given=st.integers(0, 9),
    ),
    unique_by=lambda load: load.actor_id,
    max_size=8,
)


@given(LOADS)
def test_the_chosen_one_has_a_free_seat_and_nobody_with_one_has_less(loads: list[ActorLoad]) -> None:
    chosen = choose_actor(loads)
    free = {load.actor_id: load for load in loads if load.used < load.seats}
    if chosen is None:
        assert not free
    else:
        assert free[chosen].used == min(load.used for load in free.values())


def test_a_second_session_goes_to_an_actor_only_when_none_is_empty() -> None:
    used: Counter[str] = Counter()
    order = []
    for number in range(1, 7):
        chosen = choose_actor(ActorLoad(name, 2, used[name]) for name in "abc")
        assert chosen is not None
        used[chosen] += 1
        order.append(used[chosen])
        assert number == sum(used.values())
    assert order == [1, 1, 1, 2, 2, 2]
    assert choose_actor(ActorLoad(name, 2, used[name]) for name in "abc") is None


def test_of_equal_actors_the_one_that_has_waited_longest_is_next() -> None:
    assert choose_actor([ActorLoad("a", 1, 0, 7), ActorLoad("b", 1, 0, 3), ActorLoad("c", 1, 0, 5)]) == "b"


def test_nobody_is_chosen_from_nobody() -> None:
    assert choose_actor([]) is None
