"""The history: in order, complete, and cut at what was heard."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.conversation import Change, Conversation, heard_text
from orchestrator.core.items import (
    AssistantAudio,
    AssistantMessageItem,
    AssistantText,
    InputAudio,
    InputImage,
    InputText,
    RealtimeToolCallItem,
    UserMessageItem,
)


def user(item_id: str, previous: str | None = None, transcript: str | None = None) -> UserMessageItem:
    return UserMessageItem(item_id=item_id, previous_item_id=previous, content=(InputAudio(transcript=transcript),))


def spoken_item(conversation: Conversation) -> AssistantAudio:
    item = conversation.get("item_a")
    assert isinstance(item, AssistantMessageItem)
    part = item.content[0]
    assert isinstance(part, AssistantAudio)
    return part


def test_items_stand_where_the_model_put_them() -> None:
    conversation = Conversation()
    assert conversation.message(user("u1")) is Change.ADDED
    assert conversation.message(user("u3", "u1")) is Change.ADDED
    assert conversation.message(user("u2", "u1")) is Change.ADDED
    assert [item.item_id for item in conversation.items] == ["u1", "u2", "u3"]


def test_a_snapshot_never_changes() -> None:
    conversation = Conversation()
    conversation.message(user("u1"))
    before = conversation.items
    conversation.user_transcript("u1", "hello")
    assert before[0] == user("u1")
    assert conversation.items[0] == user("u1", transcript="hello")


def test_a_transcript_that_is_known_outlives_a_report_without_it() -> None:
    conversation = Conversation()
    conversation.message(user("u1"))
    conversation.user_transcript("u1", "hello")
    assert conversation.message(user("u1")) is Change.NONE


def test_a_transcript_may_come_before_its_message() -> None:
    conversation = Conversation()
    assert conversation.user_transcript("u1", "hello") is Change.ADDED
    assert conversation.items == [user("u1", transcript="hello")]


def test_images_and_texts_of_the_user_are_kept() -> None:
    conversation = Conversation()
    image = InputImage(image_url="data:image/png;base64,AA==")
    conversation.message(UserMessageItem(item_id="u1", content=(image, InputText(text="what is this?"))))
    conversation.message(UserMessageItem(item_id="u1", content=(InputText(text="what is this?"),)))
    item = conversation.get("u1")
    assert isinstance(item, UserMessageItem)
    assert image in item.content


def test_what_the_agent_says_grows_word_by_word_and_is_cut_where_it_was_interrupted() -> None:
    conversation = Conversation()
    conversation.message(AssistantMessageItem(item_id="item_a", status="in_progress"))
    for word in ("one ", "two ", "three ", "four"):
        conversation.spoken("item_a", 0, word)
        conversation.audio("item_a", 0, 250.0)
    assert spoken_item(conversation).transcript == "one two three four"
    assert conversation.cut("item_a", 0, 500.0) is Change.UPDATED
    assert spoken_item(conversation) == AssistantAudio(transcript="one two", audio_ms=1000.0, heard_ms=500.0)


def test_words_that_arrive_after_the_cut_do_not_come_back() -> None:
    conversation = Conversation()
    conversation.spoken("item_a", 0, "one two")
    conversation.audio("item_a", 0, 1000.0)
    conversation.cut("item_a", 0, 500.0)
    full = AssistantMessageItem(
        item_id="item_a", status="completed", content=(AssistantAudio(transcript="one two three four"),)
    )
    conversation.message(full)
    part = spoken_item(conversation)
    assert part.transcript == "one two"
    assert part.heard_ms == 500.0
    item = conversation.get("item_a")
    assert isinstance(item, AssistantMessageItem)
    assert item.status == "incomplete"


def test_a_second_cut_never_lengthens_what_was_heard() -> None:
    conversation = Conversation()
    conversation.spoken("item_a", 0, "one two three four")
    conversation.audio("item_a", 0, 1000.0)
    conversation.cut("item_a", 0, 300.0)
    conversation.cut("item_a", 0, 900.0)
    assert spoken_item(conversation).heard_ms == 300.0


def test_written_text_is_kept_as_it_was() -> None:
    conversation = Conversation()
    conversation.message(AssistantMessageItem(item_id="a", content=(AssistantText(text="hi"),)))
    conversation.message(AssistantMessageItem(item_id="a", status="completed", content=(AssistantText(text=""),)))
    assert conversation.items == [AssistantMessageItem(item_id="a", status="completed", content=(AssistantText(text="hi"),))]


def test_the_output_of_a_tool_call_stays() -> None:
    conversation = Conversation()
    call = RealtimeToolCallItem(item_id="f1", call_id="call_1", name="lookup", arguments="{}")
    assert conversation.tool_call(call) is Change.ADDED
    assert conversation.tool_output("f1", "42") is Change.UPDATED
    assert conversation.tool_call(call) is Change.NONE
    item = conversation.get("f1")
    assert isinstance(item, RealtimeToolCallItem)
    assert (item.status, item.output) == ("completed", "42")


def test_a_deleted_item_is_gone() -> None:
    conversation = Conversation()
    conversation.message(user("u1"))
    assert conversation.delete("u1") is Change.UPDATED
    assert conversation.delete("u1") is Change.NONE
    assert conversation.items == []


@pytest.mark.parametrize(
    ("heard", "text"),
    [(0.0, ""), (300.0, "one"), (390.0, "one two"), (1000.0, "one two three four"), (2000.0, "one two three four")],
)
def test_heard_text_ends_at_a_word(heard: float, text: str) -> None:
    assert heard_text("one two three four", 1000.0, heard) == text


@given(st.text(max_size=80), st.floats(0, 10_000), st.floats(0, 10_000))
def test_heard_text_is_always_a_beginning_of_the_words(words: str, audio_ms: float, heard_ms: float) -> None:
    assert words.startswith(heard_text(words, audio_ms, heard_ms))


def test_positions_from_outside_cost_nothing_and_invent_nothing() -> None:
    conversation = Conversation()
    assert conversation.cut("nobody", 0, 10.0) is Change.NONE
    conversation.message(AssistantMessageItem(item_id="item_a"))
    for index in (3_000_000, -1):
        assert conversation.cut("item_a", index, 10.0) is Change.NONE
        assert conversation.spoken("item_a", index, "word") is Change.NONE
        conversation.audio("item_a", index, 20.0)
    assert conversation.items == [AssistantMessageItem(item_id="item_a")]


def test_a_report_that_only_leaves_the_place_out_changes_nothing() -> None:
    conversation = Conversation()
    item = UserMessageItem(item_id="u2", previous_item_id="u1", content=(InputText(text="hello"),))
    assert conversation.message(item) is Change.ADDED
    assert conversation.message(msgspec.structs.replace(item, previous_item_id=None)) is Change.NONE


def test_an_item_without_anything_to_show_keeps_its_place() -> None:
    conversation = Conversation()
    conversation.message(user("u1"))
    conversation.place("f1", "u1")
    conversation.message(user("u2", "f1"))
    assert [item.item_id for item in conversation.items] == ["u1", "u2"]
    conversation.tool_call(RealtimeToolCallItem(item_id="f1", call_id="call_1"))
    assert [item.item_id for item in conversation.items] == ["u1", "f1", "u2"]


def test_written_text_is_cut_by_nobody() -> None:
    conversation = Conversation()
    conversation.message(AssistantMessageItem(item_id="a", content=(AssistantText(text="hi"),)))
    assert conversation.cut("a", 0, 10.0) is Change.NONE
    conversation.tool_call(RealtimeToolCallItem(item_id="f1", call_id="call_1"))
    assert conversation.cut("f1", 0, 10.0) is Change.NONE
    assert conversation.cut("a", 1, 10.0) is Change.UPDATED


def test_a_mark_of_a_guardrail_outlives_reports_and_waits_for_its_message() -> None:
    conversation = Conversation()
    assert conversation.tripped("a", ["one"]) is Change.NONE
    conversation.message(AssistantMessageItem(item_id="a", status="in_progress"))
    assert conversation.tripped("a", ["one", "two"]) is Change.UPDATED
    conversation.message(AssistantMessageItem(item_id="a", status="completed", content=(AssistantText(text="x"),)))
    assert conversation.items == [
        AssistantMessageItem(item_id="a", status="completed", content=(AssistantText(text="x"),), guardrails=("one", "two"))
    ]


def test_what_was_heard_to_its_end_is_known() -> None:
    conversation = Conversation()
    assert not conversation.was_heard_to_its_end("a")
    conversation.spoken("a", 0, "one two")
    assert not conversation.was_heard_to_its_end("a")
    conversation.audio("a", 0, 1000.0)
    assert conversation.was_heard_to_its_end("a")
    conversation.cut("a", 0, 400.0)
    assert not conversation.was_heard_to_its_end("a")
