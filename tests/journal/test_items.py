"""Items of every kind come back from the journal as they were."""

from __future__ import annotations

import hashlib

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.items import (
    AssistantAudio,
    AssistantMessageItem,
    AssistantText,
    InputAudio,
    InputImage,
    InputText,
    RealtimeItem,
    RealtimeToolCallItem,
    SystemMessageItem,
    UserMessageItem,
)
from orchestrator.journal.entries import Entry, ItemWritten, decode_body, encode_body
from orchestrator.journal.items import history_digest, item_of, record_of

TEXT = st.none() | st.text(max_size=20)
IDS = st.text("abc", min_size=1, max_size=5)
NUMBERS = st.floats(0, 1e6)
STATUS = st.sampled_from(["in_progress", "completed", "incomplete"])
PREVIOUS = st.none() | IDS
INPUTS = (
    st.builds(InputText, text=TEXT)
    | st.builds(InputAudio, transcript=TEXT)
    | st.builds(InputImage, image_url=TEXT, detail=TEXT)
)
OUTPUTS = st.builds(AssistantText, text=TEXT) | st.builds(
    AssistantAudio, transcript=TEXT, audio_ms=NUMBERS, heard_ms=st.none() | NUMBERS
)


def parts(one: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(one, max_size=3).map(tuple)


ITEMS: st.SearchStrategy[RealtimeItem] = (
    st.builds(SystemMessageItem, item_id=IDS, previous_item_id=PREVIOUS, content=parts(st.builds(InputText, text=TEXT)))
    | st.builds(UserMessageItem, item_id=IDS, previous_item_id=PREVIOUS, content=parts(INPUTS))
    | st.builds(AssistantMessageItem, item_id=IDS, previous_item_id=PREVIOUS, status=st.none() | STATUS, content=parts(OUTPUTS))
    | st.builds(
        RealtimeToolCallItem,
        item_id=IDS,
        previous_item_id=PREVIOUS,
        call_id=TEXT,
        status=STATUS,
        arguments=st.text(max_size=9),
        name=st.text(max_size=9),
        output=TEXT,
    )
)


@given(ITEMS)
def test_an_item_comes_back_as_it_was(item: RealtimeItem) -> None:
    written = msgspec.json.decode(msgspec.json.encode(record_of(item)))
    assert written == record_of(item)
    assert item_of(written) == item


@given(ITEMS)
def test_what_newer_code_has_added_to_an_item_is_passed_over(item: RealtimeItem) -> None:
    newer = record_of(item) | {"mood": "glad", "tags": ["a"]}
    if "content" in newer:
        newer["content"] = [part | {"mood": "glad"} for part in newer["content"]] + [{"type": "hologram", "depth": 3}]
    elif not isinstance(item, RealtimeToolCallItem):
        newer["content"] = [{"type": "hologram", "depth": 3}]
    assert item_of(newer) == item


def journalled(item: RealtimeItem) -> RealtimeItem:
    kind, body = encode_body(ItemWritten(record_of(item)))
    written = decode_body(Entry("s1", 1, 1, "a", 0.0, kind, body))
    assert isinstance(written, ItemWritten)
    return item_of(written.item)


@given(st.lists(ITEMS, max_size=4))
def test_a_history_has_the_digest_of_its_replay(items: list[RealtimeItem]) -> None:
    assert history_digest(map(journalled, items)) == history_digest(items)


@given(st.lists(ITEMS, max_size=3), st.lists(ITEMS, max_size=3))
def test_histories_with_one_digest_are_the_same(one: list[RealtimeItem], other: list[RealtimeItem]) -> None:
    assert (history_digest(one) == history_digest(other)) == (one == other)


def test_the_digest_is_the_same_in_every_release() -> None:
    # An earlier release wrote it, and this one compares with it: a change of this figure makes sound journals look broken.
    item = AssistantMessageItem(item_id="i", status="completed", content=(AssistantAudio(transcript="Grüße", audio_ms=20.5),))
    record = (
        '{"content":[{"audio_ms":20.5,"transcript":"Grüße","type":"audio"}],"item_id":"i",'
        '"role":"assistant","status":"completed","type":"message"}\n'
    )
    assert history_digest([item]) == hashlib.sha256(record.encode()).hexdigest()
    assert history_digest([]) == hashlib.sha256().hexdigest()


def test_whole_numbers_of_a_live_item_count_as_its_replay_has_them() -> None:
    item = AssistantMessageItem(item_id="i", content=(AssistantAudio(audio_ms=2000, heard_ms=700),))
    assert history_digest([journalled(item)]) == history_digest([item])


def test_half_surrogates_count_as_they_are_written() -> None:
    item = RealtimeToolCallItem(item_id="i", output="broken \ud83d letter")
    assert history_digest([journalled(item)]) == history_digest([item])
