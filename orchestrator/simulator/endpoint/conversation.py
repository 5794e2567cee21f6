"""What the model remembers: the ordered items of one conversation, with the audio that belongs to them.

Pure. The rules and the error messages are those of the Realtime API. Audio of the assistant is shared with the utterance that
it comes from; of it, an item remembers only how much was generated or, after a truncation, how much was heard.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET

from orchestrator.errors import WireError
from orchestrator.simulator.audio import duration_ms
from orchestrator.wire.realtime_types import (
    FunctionCallItem,
    FunctionCallOutputItem,
    InputAudioPart,
    McpApprovalRequestItem,
    McpApprovalResponseItem,
    MessageItem,
    OutputAudioPart,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from orchestrator.simulator.audio import Encoding
    from orchestrator.wire.realtime_types import ContentPart, Item

__all__ = ["ROOT", "Conversation", "ItemAudio", "Memory"]

ROOT = "root"
"""What stands for "before all items" in the place of the previous item's id."""
ITEM_OBJECT = "realtime.item"


@dataclass(frozen=True)
class ItemAudio:
    """Audio of one item: the first `size` bytes of `data`. `cut` says that the client has truncated it."""

    data: bytes
    encoding: Encoding
    size: int
    cut: bool = False

    @property
    def milliseconds(self) -> float:
        """How much of it is remembered."""
        return duration_ms(self.size, self.encoding)

    def base64(self) -> str:
        """What is remembered, as it goes over the wire."""
        return base64.b64encode(self.data[: self.size]).decode("ascii")


@dataclass(frozen=True)
class Memory:
    """One item. `item` has no audio bytes in it: only `conversation.item.retrieved` shows them.

    `forgotten` says that the conversation has grown too long, and no response is based on the item any more.
    """

    id: str
    item: Item
    audio: ItemAudio | None = None
    forgotten: bool = False


class Conversation:
    """The items of one conversation, in order. Faults of a request raise WireError and change nothing.

    `audio_limit` bounds the bytes of callers' audio that are kept: beyond it the oldest go, and `retrieve` then shows such
    an item without audio, as it would show one without a recording.
    """

    def __init__(self, audio_limit: int) -> None:
        self._memories: dict[str, Memory] = {}
        self._order: list[str] = []
        self._call_ids: set[str] = set()
        self._audio_limit = audio_limit
        self._audio_held = 0

    def __iter__(self) -> Iterator[Memory]:
        return (self._memories[item_id] for item_id in self._order)

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._memories

    @property
    def tail(self) -> str | None:
        """Id of the last item."""
        return self._order[-1] if self._order else None

    @property
    def has_assistant_audio(self) -> bool:
        """Whether the voice of the session is settled by what was said."""
        return any(memory.audio is not None and _is_assistant(memory.item) for memory in self)

    def remembered(self) -> Iterator[Memory]:
        """What a response is based on."""
        return (memory for memory in self if not memory.forgotten)

    def forget(self, item_ids: Iterable[str]) -> None:
        """Base no response on these any more. They stay where they are, for a client to retrieve."""
        for item_id in item_ids:
            if (known := self._memories.get(item_id)) is not None:
                self._memories[item_id] = replace(known, forgotten=True)

    def find(self, item_id: str) -> Memory | None:
        """The item, if the conversation has it."""
        return self._memories.get(item_id)

    def previous(self, item_id: str) -> str | None:
        """Id of the item before this one."""
        index = self._order.index(item_id)
        return self._order[index - 1] if index else None

    def check_insert(self, item_id: str, item: Item, previous_item_id: str | None) -> None:
        """Raise WireError if `insert` would."""
        if item_id in self._memories:
            raise WireError("item_create_duplicate_item_id", f"Error adding item: an item with id '{item_id}' already exists.")
        if previous_item_id not in (None, ROOT) and previous_item_id not in self._memories:
            raise WireError(
                "item_create_invalid_previous_item_id",
                f"Error adding item: the previous item with id '{previous_item_id}' does not exist.",
            )
        if isinstance(item, FunctionCallOutputItem) and item.call_id not in self._call_ids:
            raise WireError("invalid_tool_call_id", f"Tool call ID '{item.call_id}' not found in conversation.")
        if isinstance(item, McpApprovalResponseItem) and not self._asks_approval(item.approval_request_id):
            raise WireError(
                "invalid_value",
                f"Approval request ID '{item.approval_request_id}' not found in conversation.",
                "item.approval_request_id",
            )

    def insert(self, memory: Memory, previous_item_id: str | None = None) -> str | None:
        """Add an item at the end, at the head ("root") or after another one. Returns the id of the item before it."""
        self.check_insert(memory.id, memory.item, previous_item_id)
        if previous_item_id is None:
            index = len(self._order)
        elif previous_item_id == ROOT:
            index = 0
        else:
            index = self._order.index(previous_item_id) + 1
        self._order.insert(index, memory.id)
        self._memories[memory.id] = memory
        if isinstance(memory.item, FunctionCallItem) and isinstance(memory.item.call_id, str):
            self._call_ids.add(memory.item.call_id)
        if memory.audio is not None and not _is_assistant(memory.item):
            self._audio_held += len(memory.audio.data)
            self._shed_audio()
        return self._order[index - 1] if index else None

    def update(self, item_id: str, item: Item, audio: ItemAudio | None = None) -> None:
        """Store a newer state of an item. Does nothing if it was deleted meanwhile, and never undoes a truncation."""
        known = self._memories.get(item_id)
        if known is None:
            return
        if known.audio is not None and known.audio.cut:
            item, audio = _without_transcript(item), known.audio
        self._memories[item_id] = replace(known, item=item, audio=audio if audio is not None else known.audio)

    def set_transcript(self, item_id: str, transcript: str) -> None:
        """Store what a spoken item of the caller says, once that is known."""
        known = self._memories.get(item_id)
        if known is None or not isinstance(known.item, MessageItem):
            return
        content: list[ContentPart] = [
            InputAudioPart(transcript=transcript) if isinstance(part, InputAudioPart) else part for part in known.item.content
        ]
        self._memories[item_id] = replace(known, item=msgspec.structs.replace(known.item, content=content))

    def delete(self, item_id: str) -> None:
        """Forget an item."""
        known = self._require(item_id, "item_delete_invalid_item_id", "deleting")
        del self._memories[item_id]
        self._order.remove(item_id)
        if isinstance(known.item, FunctionCallItem) and isinstance(known.item.call_id, str):
            self._call_ids.discard(known.item.call_id)
        if known.audio is not None and not _is_assistant(known.item):
            self._audio_held -= len(known.audio.data)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """Forget what was not heard: cut the audio, and drop the transcript, which would give away the rest.

        The transcript is gone as a whole, as with the live API: the item has no such member any more.
        """
        known = self._require(item_id, "item_truncate_invalid_item_id", "truncating")
        audio = known.audio
        if audio is None or audio.size == 0 or not _is_assistant(known.item):
            raise WireError("unsupported_content_type", "Only model output audio messages can be truncated")
        if content_index != 0:
            raise WireError("invalid_value", f"Item '{item_id}' has no content at index {content_index}.", "content_index")
        if audio_end_ms < 0:
            raise WireError(
                "integer_below_min_value",
                f"Invalid 'audio_end_ms': integer below minimum value. Expected a value >= 0, but got {audio_end_ms} instead.",
                "audio_end_ms",
            )
        if audio_end_ms > audio.milliseconds:
            raise WireError(
                "invalid_value", f"Audio content of {int(audio.milliseconds)}ms is already shorter than {audio_end_ms}ms"
            )
        cut = replace(audio, size=audio_end_ms * audio.encoding.bytes_per_ms, cut=True)
        self._memories[item_id] = replace(known, item=_without_transcript(known.item), audio=cut)

    def retrieve(self, item_id: str) -> Item:
        """The item with all that is remembered of it, audio included."""
        known = self._require(item_id, "item_retrieve_invalid_item_id", "retrieving")
        item = known.item
        # The official types of MCP items have no such member.
        if isinstance(item, MessageItem | FunctionCallItem | FunctionCallOutputItem):
            item = msgspec.structs.replace(item, object=ITEM_OBJECT)
        if known.audio is None or not isinstance(item, MessageItem):
            return item
        payload = known.audio.base64()
        content = [
            msgspec.structs.replace(part, audio=payload) if isinstance(part, InputAudioPart | OutputAudioPart) else part
            for part in item.content
        ]
        return msgspec.structs.replace(item, content=content)

    def _require(self, item_id: str, code: str, doing: str) -> Memory:
        known = self._memories.get(item_id)
        if known is None:
            raise WireError(code, f"Error {doing} item: the item with id '{item_id}' does not exist.")
        return known

    def _asks_approval(self, item_id: str) -> bool:
        known = self._memories.get(item_id)
        return known is not None and isinstance(known.item, McpApprovalRequestItem)

    def _shed_audio(self) -> None:
        for item_id in self._order:
            if self._audio_held <= self._audio_limit:
                return
            known = self._memories[item_id]
            if known.audio is not None and not _is_assistant(known.item):
                self._audio_held -= len(known.audio.data)
                self._memories[item_id] = replace(known, audio=None)


def _is_assistant(item: Item) -> bool:
    return isinstance(item, MessageItem) and item.role == "assistant"


def _without_transcript(item: Item) -> Item:
    if not isinstance(item, MessageItem):
        return item
    content: list[ContentPart] = [
        msgspec.structs.replace(part, transcript=UNSET) if isinstance(part, OutputAudioPart) else part for part in item.content
    ]
    return msgspec.structs.replace(item, content=content)
