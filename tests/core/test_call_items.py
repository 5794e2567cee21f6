"""The items of a tool call belong together."""

from orchestrator.core.call_items import MAX_ID, MAX_REMEMBERED, CallItems, output_item_id, short_id


def test_an_output_belongs_to_its_call() -> None:
    items = CallItems()
    items.made("f1", "call_1")
    items.answered("call_1", "o1")
    items.answered("call_1", "o1")
    items.answered("unknown", "o2")
    assert items.outputs("f1") == ["o1"]
    assert items.outputs("o1") == []
    items.deleted("o1")
    assert items.outputs("f1") == []


def test_a_call_that_is_deleted_is_forgotten() -> None:
    items = CallItems()
    items.made("f1", "call_1")
    items.deleted("f1")
    items.answered("call_1", "o1")
    assert items.outputs("f1") == []


def test_a_call_is_known_by_who_made_it() -> None:
    items = CallItems()
    items.made("f1", "call_1")
    assert not items.created("f1", "call_1")
    assert items.created("f2", "call_2")
    assert items.created("f2", "call_2")


def test_memory_is_bounded() -> None:
    items = CallItems()
    for number in range(MAX_REMEMBERED + 10):
        items.made(f"f{number}", f"call_{number}")
        items.answered(f"call_{number}", f"o{number}")
    assert items.outputs("f0") == []
    assert items.outputs(f"f{MAX_REMEMBERED + 9}") == [f"o{MAX_REMEMBERED + 9}"]
    assert len(items._calls) == len(items._item_of) == MAX_REMEMBERED


def test_ids_fit_the_api_and_follow_from_the_call() -> None:
    long = "call_" + "x" * 100
    assert short_id("item_1") == "item_1"
    assert len(short_id(long)) == len(output_item_id(long)) == MAX_ID
    assert output_item_id(long) != output_item_id(long + "y")
    assert output_item_id("call_1") == "out_call_1"
