"""Conversation items that a client sends: made whole, their audio set apart, their words found."""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from orchestrator.errors import WireError
from orchestrator.simulator.endpoint.conversation import ItemAudio, Memory
from orchestrator.simulator.endpoint.input_audio import decode_audio
from orchestrator.wire.realtime_types import (
    FunctionCallItem,
    FunctionCallOutputItem,
    InputAudioPart,
    InputImagePart,
    InputTextPart,
    McpApprovalResponseItem,
    MessageItem,
)
from orchestrator.wire.validation import missing_parameter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from orchestrator.simulator.audio import Encoding
    from orchestrator.simulator.endpoint.director import Director
    from orchestrator.simulator.ids import IdSource
    from orchestrator.wire.realtime_types import ContentPart, Item, ItemReference

__all__ = ["asked_text", "take_item", "tell"]

FROM_CLIENTS = ("message", "function_call", "function_call_output", "mcp_approval_response")
_IMAGE = re.compile(r"data:image/(?:png|jpe?g);base64,")


def take_item(item: Item, ids: IdSource, encoding: Encoding, param: str = "item") -> Memory:
    """Make an item of a client complete. Raises WireError for a kind that only the server makes, bad audio and bad images."""
    if not isinstance(item, MessageItem | FunctionCallItem | FunctionCallOutputItem | McpApprovalResponseItem):
        known = ", ".join(f"'{name}'" for name in FROM_CLIENTS[:-1])
        kind = item.__struct_config__.tag
        message = f"Invalid value: '{kind}'. Supported values are: {known}, and '{FROM_CLIENTS[-1]}'."
        raise WireError("invalid_value", message, f"{param}.type")
    item_id = item.id if isinstance(item.id, str) and item.id else ids.item()
    # The official type of a decision about an MCP call has no status.
    status = UNSET if isinstance(item, McpApprovalResponseItem) else "completed"
    item = msgspec.structs.replace(item, id=item_id, object=UNSET, status=status)
    if isinstance(item, FunctionCallItem) and not isinstance(item.call_id, str):
        item = msgspec.structs.replace(item, call_id=ids.call())
    if not isinstance(item, MessageItem):
        return Memory(item_id, item)
    content: list[ContentPart] = []
    recorded = b""
    for index, part in enumerate(item.content):
        if isinstance(part, InputAudioPart):
            path = f"{param}.content[{index}].audio"
            # A transcript alone is not enough: the API takes it for a note about the audio.
            if not isinstance(part.audio, str):
                raise missing_parameter(path)
            recorded += decode_audio(part.audio, encoding, path)
            # The API never sends a caller's audio back, except when it is asked to.
            part = InputAudioPart(transcript=part.transcript if isinstance(part.transcript, str) else None)
        elif isinstance(part, InputImagePart):
            _check_image(part, f"{param}.content[{index}].image_url")
        content.append(part)
    audio = ItemAudio(recorded, encoding, len(recorded)) if recorded else None
    return Memory(item_id, msgspec.structs.replace(item, content=content), audio)


def tell(director: Director, memory: Memory) -> None:
    """Let the director know of an item that a client added, except for what the caller says in it aloud."""
    item = memory.item
    if isinstance(item, FunctionCallOutputItem):
        director.hear_output(item.call_id, item.output)
    elif isinstance(item, FunctionCallItem):
        director.recall_call(str(item.call_id), item.name, item.arguments)
    elif isinstance(item, McpApprovalResponseItem):
        director.hear_approval(item.approval_request_id, approve=item.approve)
    elif isinstance(item, MessageItem) and item.role == "assistant":
        director.recall_answer()
    elif isinstance(item, MessageItem) and item.role == "user" and memory.audio is None:
        director.hear_text(_text_of(item))


def asked_text(items: Iterable[Item | ItemReference]) -> str:
    """What the user says last in the input of a response."""
    texts = [_text_of(item) for item in items if isinstance(item, MessageItem) and item.role == "user"]
    return texts[-1] if texts else ""


def _check_image(part: InputImagePart, param: str) -> None:
    """The API fetches nothing: an image comes in its message."""
    if not isinstance(part.image_url, str):
        raise missing_parameter(param)
    head = _IMAGE.match(part.image_url)
    try:
        image = binascii.a2b_base64(part.image_url[head.end() :], strict_mode=True) if head is not None else b""
    except (binascii.Error, ValueError):
        image = b""
    if not image:
        message = f"Invalid '{param}'. Expected a base64-encoded data URI of an image/png or image/jpeg."
        raise WireError("invalid_value", message, param)


def _text_of(item: MessageItem) -> str:
    words = []
    for part in item.content:
        if isinstance(part, InputTextPart):
            words.append(part.text)
        elif isinstance(part, InputAudioPart) and isinstance(part.transcript, str):
            words.append(part.transcript)
    return " ".join(words)
