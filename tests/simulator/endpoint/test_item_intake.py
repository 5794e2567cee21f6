"""Items of a client: made whole, their audio set apart, their words found."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import UNSET

from orchestrator.errors import WireError
from orchestrator.simulator.audio import Encoding
from orchestrator.simulator.endpoint.item_intake import asked_text, take_item
from orchestrator.simulator.ids import IdSource
from orchestrator.wire.realtime import (
    ContentPart,
    FunctionCallItem,
    InputAudioPart,
    InputImagePart,
    InputTextPart,
    McpCallItem,
    MessageItem,
)
from tests.simulator.support import UNIX_TIME, as_base64

PARTS: list[ContentPart] = [
    InputTextPart(text="look"),
    InputAudioPart(audio=as_base64(b"\x01" * 80), transcript="at this"),
    InputAudioPart(audio=as_base64(b"\x02" * 80)),
]


@pytest.fixture
def ids() -> IdSource:
    return IdSource(lambda: UNIX_TIME, 1)


def test_an_item_gets_what_it_lacks_and_loses_its_audio(ids: IdSource) -> None:
    memory = take_item(MessageItem(role="user", content=PARTS, object="x"), ids, Encoding.MULAW)
    content = [PARTS[0], InputAudioPart(transcript="at this"), InputAudioPart(transcript=None)]
    assert memory.item == MessageItem(id=memory.id, status="completed", role="user", content=content)
    assert memory.audio is not None
    assert memory.audio.data == b"\x01" * 80 + b"\x02" * 80
    assert memory.audio.milliseconds == 20


def test_a_call_gets_an_id_to_answer_to(ids: IdSource) -> None:
    item = take_item(FunctionCallItem(name="f", arguments="{}"), ids, Encoding.PCM16).item
    assert isinstance(item, FunctionCallItem)
    assert str(item.call_id).startswith("call_")
    kept = take_item(FunctionCallItem(name="f", arguments="{}", call_id="mine"), ids, Encoding.PCM16).item
    assert isinstance(kept, FunctionCallItem)
    assert kept.call_id == "mine"


def test_what_only_a_server_makes_is_refused(ids: IdSource) -> None:
    with pytest.raises(WireError, match="'mcp_call'") as caught:
        take_item(McpCallItem(server_label="x", name="f", arguments="{}"), ids, Encoding.PCM16)
    assert (caught.value.wire_code, caught.value.param) == ("invalid_value", "item.type")


@pytest.mark.parametrize("url", ["data:image/png;base64,AAAA", "data:image/jpeg;base64,AAAA", "data:image/jpg;base64,AA=="])
def test_an_image_comes_in_its_message(ids: IdSource, url: str) -> None:
    item = MessageItem(role="user", content=[InputImagePart(image_url=url, detail="high")])
    taken = take_item(item, ids, Encoding.PCM16).item
    assert isinstance(taken, MessageItem)
    assert taken.content == item.content


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("https://example.com/a.png", "invalid_value"),
        ("data:image/gif;base64,AAAA", "invalid_value"),
        ("data:image/png;base64,", "invalid_value"),
        ("data:image/png;base64,?", "invalid_value"),
        ("", "invalid_value"),
        (None, "missing_required_parameter"),
        (UNSET, "missing_required_parameter"),
    ],
)
def test_an_image_that_is_none_is_refused(ids: IdSource, url: Any, code: str) -> None:
    item = MessageItem(role="user", content=[InputTextPart(text="look"), InputImagePart(image_url=url)])
    with pytest.raises(WireError) as caught:
        take_item(item, ids, Encoding.PCM16, "response.input[2]")
    assert (caught.value.wire_code, caught.value.param) == (code, "response.input[2].content[1].image_url")


def test_the_words_of_the_last_user_message_are_what_is_asked() -> None:
    first = MessageItem(role="user", content=[InputTextPart(text="no")])
    system = MessageItem(role="system", content=[InputTextPart(text="be brief")])
    assert asked_text([first, MessageItem(role="user", content=PARTS), system]) == "look at this"
    assert asked_text([]) == ""
