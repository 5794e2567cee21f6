"""The items that the model remembers, and the rules by which a client may change them."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from orchestrator.errors import WireError
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.conversation import Conversation, ItemAudio, Memory
from orchestrator.wire.realtime import (
    FunctionCallItem,
    FunctionCallOutputItem,
    InputAudioPart,
    InputTextPart,
    Item,
    MessageItem,
    OutputAudioPart,
    OutputTextPart,
)

MULAW = Encoding.MULAW


def text_item(item_id: str, text: str = "hi") -> Memory:
    return Memory(item_id, MessageItem(id=item_id, status="completed", role="user", content=[InputTextPart(text=text)]))


def spoken_by_caller(item_id: str, size: int = 800) -> Memory:
    item = MessageItem(id=item_id, status="completed", role="user", content=[InputAudioPart(transcript=None)])
    return Memory(item_id, item, ItemAudio(b"\x01" * size, MULAW, size))


def spoken_by_assistant(item_id: str, milliseconds: int, of: int | None = None) -> Memory:
    item = MessageItem(id=item_id, status="completed", role="assistant", content=[OutputAudioPart(transcript="Hello")])
    data = bytes(index % 251 for index in range((of or milliseconds) * 8))
    return Memory(item_id, item, ItemAudio(data, MULAW, milliseconds * 8))


def refusal(action: Callable[[], object]) -> tuple[str, str, str | None]:
    with pytest.raises(WireError) as caught:
        action()
    return caught.value.wire_code, caught.value.message, caught.value.param


@pytest.fixture
def conversation() -> Conversation:
    return Conversation(audio_limit=100_000)


def ids(conversation: Conversation) -> list[str]:
    return [memory.id for memory in conversation]


def test_items_go_to_the_end_the_head_or_after_another(conversation: Conversation) -> None:
    assert conversation.insert(text_item("a")) is None
    assert conversation.insert(text_item("b")) == "a"
    assert conversation.insert(text_item("c"), "root") is None
    assert conversation.insert(text_item("d"), "a") == "a"
    assert ids(conversation) == ["c", "a", "d", "b"]
    assert conversation.tail == "b"
    assert conversation.previous("d") == "a"
    assert conversation.previous("c") is None


def test_what_cannot_be_inserted_changes_nothing(conversation: Conversation) -> None:
    conversation.insert(text_item("a"))
    assert refusal(lambda: conversation.insert(text_item("a"))) == (
        "item_create_duplicate_item_id",
        "Error adding item: an item with id 'a' already exists.",
        None,
    )
    assert refusal(lambda: conversation.insert(text_item("b"), "nowhere")) == (
        "item_create_invalid_previous_item_id",
        "Error adding item: the previous item with id 'nowhere' does not exist.",
        None,
    )
    output = Memory("o", FunctionCallOutputItem(id="o", call_id="call_x", output=""))
    assert refusal(lambda: conversation.insert(output)) == (
        "invalid_tool_call_id",
        "Tool call ID 'call_x' not found in conversation.",
        None,
    )
    assert ids(conversation) == ["a"]


def test_an_output_needs_its_call(conversation: Conversation) -> None:
    conversation.insert(Memory("f", FunctionCallItem(id="f", name="lookup", call_id="call_x", arguments="{}")))
    assert conversation.insert(Memory("o", FunctionCallOutputItem(id="o", call_id="call_x", output="1"))) == "f"


def test_delete_relinks_the_chain(conversation: Conversation) -> None:
    for name in "abc":
        conversation.insert(text_item(name))
    conversation.delete("b")
    assert conversation.previous("c") == "a"
    conversation.delete("c")
    assert conversation.insert(text_item("d")) == "a"


@pytest.mark.parametrize(
    ("action", "code", "doing"),
    [
        (lambda conversation: conversation.delete("x"), "item_delete_invalid_item_id", "deleting"),
        (lambda conversation: conversation.retrieve("x"), "item_retrieve_invalid_item_id", "retrieving"),
        (lambda conversation: conversation.truncate("x", 0, 0), "item_truncate_invalid_item_id", "truncating"),
    ],
)
def test_an_unknown_id_is_refused(
    conversation: Conversation, action: Callable[[Conversation], object], code: str, doing: str
) -> None:
    expected = (code, f"Error {doing} item: the item with id 'x' does not exist.", None)
    assert refusal(lambda: action(conversation)) == expected


def content_of(item: Item) -> object:
    assert isinstance(item, MessageItem)
    (part,) = item.content
    return part


def test_truncation_cuts_the_audio_and_drops_the_transcript(conversation: Conversation) -> None:
    memory = spoken_by_assistant("a", 3700)
    conversation.insert(memory)
    assert memory.audio is not None
    conversation.truncate("a", 0, 1500)
    part = content_of(conversation.retrieve("a"))
    assert isinstance(part, OutputAudioPart)
    assert part.transcript is UNSET
    assert base64.b64decode(str(part.audio)) == memory.audio.data[: 1500 * 8]


def test_truncation_may_be_repeated_but_never_undone(conversation: Conversation) -> None:
    conversation.insert(spoken_by_assistant("a", 3700))
    conversation.truncate("a", 0, 3700)
    conversation.truncate("a", 0, 1000)
    assert refusal(lambda: conversation.truncate("a", 0, 1001)) == (
        "invalid_value",
        "Audio content of 1000ms is already shorter than 1001ms",
        None,
    )
    conversation.truncate("a", 0, 0)


def test_only_spoken_messages_of_the_assistant_can_be_truncated(conversation: Conversation) -> None:
    conversation.insert(text_item("text"))
    conversation.insert(spoken_by_caller("caller"))
    written = MessageItem(id="written", status="completed", role="assistant", content=[OutputTextPart(text="hi")])
    conversation.insert(Memory("written", written))
    conversation.insert(Memory("f", FunctionCallItem(id="f", name="lookup", call_id="c", arguments="")))
    conversation.insert(spoken_by_assistant("silent", 0, of=1000))
    for item_id in ("text", "caller", "written", "f", "silent"):
        assert refusal(lambda item_id=item_id: conversation.truncate(item_id, 0, 0)) == (  # type: ignore[misc]
            "unsupported_content_type",
            "Only model output audio messages can be truncated",
            None,
        )


def test_a_wrong_index_or_time_is_refused(conversation: Conversation) -> None:
    conversation.insert(spoken_by_assistant("a", 1000))
    assert refusal(lambda: conversation.truncate("a", 1, 500))[::2] == ("invalid_value", "content_index")
    assert refusal(lambda: conversation.truncate("a", 0, -1))[::2] == ("integer_below_min_value", "audio_end_ms")
    assert refusal(lambda: conversation.truncate("a", 0, 3760))[1] == "Audio content of 1000ms is already shorter than 3760ms"


def test_what_is_generated_after_a_truncation_is_not_remembered(conversation: Conversation) -> None:
    memory = spoken_by_assistant("a", 1000, of=5000)
    conversation.insert(memory)
    conversation.truncate("a", 0, 600)
    assert memory.audio is not None
    longer = ItemAudio(memory.audio.data, MULAW, 5000 * 8)
    conversation.update("a", memory.item, longer)
    known = conversation.find("a")
    assert known is not None
    assert known.audio is not None
    assert known.audio.milliseconds == 600
    part = content_of(known.item)
    assert isinstance(part, OutputAudioPart)
    assert part.transcript is UNSET


def test_an_update_of_a_deleted_item_is_forgotten(conversation: Conversation) -> None:
    memory = spoken_by_assistant("a", 1000)
    conversation.insert(memory)
    conversation.delete("a")
    conversation.update("a", memory.item, memory.audio)
    assert "a" not in conversation


def test_retrieve_shows_what_a_caller_said_and_its_transcript_when_there_is_one(conversation: Conversation) -> None:
    conversation.insert(spoken_by_caller("a", 80))
    part = content_of(conversation.retrieve("a"))
    assert part == InputAudioPart(audio=base64.b64encode(b"\x01" * 80).decode(), transcript=None)
    conversation.set_transcript("a", "hello there")
    item = conversation.retrieve("a")
    assert content_of(item) == InputAudioPart(audio=base64.b64encode(b"\x01" * 80).decode(), transcript="hello there")
    assert item.object == "realtime.item"


def test_callers_audio_is_kept_up_to_the_limit_and_the_oldest_goes_first() -> None:
    conversation = Conversation(audio_limit=2000)
    conversation.insert(spoken_by_assistant("said", 1000))
    for name in "abc":
        conversation.insert(spoken_by_caller(name, 800))
    held = {memory.id for memory in conversation if memory.audio is not None}
    assert held == {"said", "b", "c"}
    assert content_of(conversation.retrieve("a")) == InputAudioPart(transcript=None)
    conversation.delete("b")
    conversation.insert(spoken_by_caller("d", 800))
    assert {memory.id for memory in conversation if memory.audio is not None} == {"said", "c", "d"}


def test_assistant_audio_is_what_settles_the_voice(conversation: Conversation) -> None:
    conversation.insert(spoken_by_caller("a"))
    assert not conversation.has_assistant_audio
    conversation.insert(spoken_by_assistant("b", 100))
    assert conversation.has_assistant_audio


@given(st.lists(st.tuples(st.sampled_from(["add", "head", "after", "delete"]), st.integers(0, 9)), max_size=40))
def test_the_chain_is_always_whole(steps: list[tuple[str, int]]) -> None:
    conversation = Conversation(1000)
    expected: list[str] = []
    for number, (step, pick) in enumerate(steps):
        name = f"item{number}"
        if step == "delete" and expected:
            conversation.delete(expected.pop(pick % len(expected)))
        elif step == "after" and expected:
            index = pick % len(expected)
            assert conversation.insert(text_item(name), expected[index]) == expected[index]
            expected.insert(index + 1, name)
        elif step == "head":
            conversation.insert(text_item(name), "root")
            expected.insert(0, name)
        else:
            conversation.insert(text_item(name))
            expected.append(name)
        assert ids(conversation) == expected
        assert conversation.tail == (expected[-1] if expected else None)
        assert len(conversation) == len(expected)
