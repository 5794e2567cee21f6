"""Names of writers come back as they were, and any text is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.journal.writers import WriterName

PLAIN = st.text(max_size=9)


@given(PLAIN.map(lambda text: text.replace("/", "")), PLAIN, st.integers(0, 2**32))
def test_a_name_comes_back_as_it_was(node: str, actor: str, pid: int) -> None:
    name = WriterName(node, actor, pid)
    assert WriterName.parse(str(name)) == name


@given(st.text("a/07", max_size=9) | st.text())
def test_any_text_is_a_name_and_stays_itself(text: str) -> None:
    assert str(WriterName.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("n1/session-3/4711", WriterName("n1", "session-3", 4711)),
        ("n1/pool/session/4711", WriterName("n1", "pool/session", 4711)),
        ("", WriterName("", "", None)),
        ("a2", WriterName("", "a2", None)),
        ("n1/session-3/", WriterName("", "n1/session-3/", None)),
        ("n1/session-3/٣", WriterName("", "n1/session-3/٣", None)),
        ("n1/session-3/" + "9" * 5000, WriterName("", "n1/session-3/" + "9" * 5000, None)),
    ],
)
def test_what_is_no_such_name_is_an_actor_by_that_name(text: str, name: WriterName) -> None:
    assert WriterName.parse(text) == name
