"""What a new connection is told, and how that is brought up to date."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.replica import Replica


def body(item_id: str, text: str = "x") -> dict[str, Any]:
    return {"id": item_id, "type": "message", "text": text}


class Memory:
    """An endpoint's memory."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    def take(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            ids = [item["id"] for item in self.items]
            if event["type"] == "conversation.item.delete":
                del self.items[ids.index(event["item_id"])]
                continue
            assert event["item"]["id"] not in ids
            previous = event.get("previous_item_id")
            index = len(ids) if previous is None else 0 if previous == "root" else ids.index(previous) + 1
            self.items.insert(index, event["item"])


def test_a_new_connection_is_told_of_everything_in_order() -> None:
    replica = Replica()
    events = replica.bring_to([body("a"), body("b")])
    assert events == [{"type": "conversation.item.create", "item": body(name)} for name in "ab"]
    assert "a" in replica
    assert replica.bring_to([body("a"), body("b")]) == []


def test_an_item_that_has_changed_is_made_anew_in_its_place_and_nobody_hears_of_its_deletion() -> None:
    replica, memory = Replica(), Memory()
    memory.take(replica.bring_to([body("a"), body("b"), body("c")]))
    memory.take(replica.rewrite("b", body("b", "y")))
    assert memory.items == [body("a"), body("b", "y"), body("c")]
    assert replica.is_deleting("b")
    assert replica.deleted("b")
    assert not replica.is_deleting("b")
    assert "b" in replica
    # The next one is the caller's own.
    assert not replica.deleted("b")
    assert "b" not in replica


def test_an_item_with_nothing_left_in_it_goes() -> None:
    replica, memory = Replica(), Memory()
    memory.take(replica.bring_to([body("a"), body("b")]))
    memory.take(replica.rewrite("a", None))
    assert memory.items == [body("b")]


STATES = st.lists(st.dictionaries(st.integers(0, 12), st.sampled_from("xyz"), max_size=13), min_size=1, max_size=6)


@given(STATES)
def test_whatever_changes_the_memory_follows(states: list[dict[int, str]]) -> None:
    replica, memory = Replica(), Memory()
    for state in states:
        # Items may come and go and change, but never change places.
        wanted = [body(f"i{number}", text) for number, text in sorted(state.items())]
        memory.take(replica.bring_to(wanted))
        assert memory.items == wanted
        assert replica.ids == [item["id"] for item in wanted]
