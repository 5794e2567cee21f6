"""When a text is due for a check."""

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.guardrail_windows import Check, GuardrailWindows


def test_a_text_is_due_at_every_multiple_of_the_threshold() -> None:
    windows = GuardrailWindows(10)
    assert windows.add("r", "i", "x" * 9, spoken=True) is None
    assert windows.add("r", "i", "x" * 2, spoken=True) == Check("r", "i", "x" * 11, spoken=True)
    assert windows.add("r", "i", "x" * 8, spoken=True) is None
    assert windows.add("r", "i", "x" * 30, spoken=True) == Check("r", "i", "x" * 49, spoken=True)


def test_a_response_that_tripped_is_checked_no_more() -> None:
    windows = GuardrailWindows(1)
    windows.add("r", "i", "abc", spoken=False)
    assert windows.trip("r")
    assert not windows.trip("r")
    assert windows.add("r", "i", "def", spoken=False) is None
    assert windows.end("r") == []
    assert windows.add("r2", "i2", "def", spoken=False) is not None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.text(max_size=30)), max_size=30), st.integers(0, 40))
def test_every_word_is_checked_by_the_end(deltas: list[tuple[str, str]], threshold: int) -> None:
    windows = GuardrailWindows(threshold)
    checked = {"a": "", "b": ""}
    said = {"a": "", "b": ""}
    for item, delta in deltas:
        said[item] += delta
        due = windows.add("r", item, delta, spoken=True)
        if due is not None:
            checked[item] = due.text
    for due in windows.end("r"):
        assert len(due.text) > len(checked[due.item_id])
        checked[due.item_id] = due.text
    assert checked == said
    assert windows.end("r") == []
