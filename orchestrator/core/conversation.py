"""The history of a conversation: the items in order, kept equal to what the model remembers and the caller heard.

Items are frozen; each change puts a new one in place of the old, so a list handed out never changes. An item that was cut by
an interruption keeps only the words up to where the caller heard it, however late the rest of its transcript arrives.
"""

from __future__ import annotations

from enum import Enum
from typing import cast

import msgspec

from orchestrator.core.items import (
    AssistantAudio,
    AssistantMessageItem,
    AssistantText,
    InputAudio,
    InputImage,
    InputText,
    RealtimeItem,
    RealtimeMessageItem,
    RealtimeToolCallItem,
    UserMessageItem,
)

__all__ = ["Change", "Conversation", "heard_text"]

# Parts of one message; more come from nobody who means well.
MAX_PARTS = 64


class Change(Enum):
    """What an operation did to the history."""

    NONE = "none"
    ADDED = "added"
    UPDATED = "updated"


class _Speech:
    """What is known of one spoken part beyond its item: all its words, all its audio, and where it was cut."""

    __slots__ = ("audio_ms", "heard_ms", "words")

    def __init__(self) -> None:
        self.words = ""
        self.audio_ms = 0.0
        self.heard_ms: float | None = None


def heard_text(words: str, audio_ms: float, heard_ms: float) -> str:
    """Return the part of a transcript that was heard, cut at a word.

    The share of the audio stands for the share of the letters: the model sends no alignment, so this is an estimate, right to
    about a word.
    """
    if audio_ms <= 0 or heard_ms >= audio_ms:
        return words if audio_ms > 0 else ""
    end = round(len(words) * heard_ms / audio_ms)
    if end >= len(words):
        return words
    cut = words[:end]
    if not words[end].isspace() and not cut[-1:].isspace():
        cut = cut.rpartition(" ")[0]
    return cut.rstrip()


class Conversation:
    """The items, oldest first."""

    __slots__ = ("_items", "_order", "_speech")

    def __init__(self) -> None:
        self._items: dict[str, RealtimeItem] = {}
        self._order: list[str] = []
        self._speech: dict[tuple[str, int], _Speech] = {}

    @property
    def items(self) -> list[RealtimeItem]:
        """A snapshot of the history."""
        return [self._items[item_id] for item_id in self._order]

    def get(self, item_id: str) -> RealtimeItem | None:
        """Return one item, or None."""
        return self._items.get(item_id)

    def message(self, item: RealtimeMessageItem) -> Change:
        """Take in a message as the model reports it; what it leaves out of a known one is kept."""
        known = self._items.get(item.item_id)
        if known is None:
            return self._insert(item)
        if type(known) is not type(item):
            self._items[item.item_id] = item
            return Change.UPDATED
        merged: RealtimeItem
        if isinstance(item, AssistantMessageItem):
            merged = self._merge_assistant(cast(AssistantMessageItem, known), item)
        elif isinstance(item, UserMessageItem):
            merged = _merge_user(cast(UserMessageItem, known), item)
        else:
            merged = item if item.content else known
        return self._replace(known, merged)

    def tool_call(self, item: RealtimeToolCallItem) -> Change:
        """Take in a tool call; an output that is already known stays."""
        known = self._items.get(item.item_id)
        if known is None:
            return self._insert(item)
        if isinstance(known, RealtimeToolCallItem) and known.output is not None and item.output is None:
            item = msgspec.structs.replace(item, output=known.output, status=known.status)
        return self._replace(known, item)

    def tool_output(self, item_id: str, output: str) -> Change:
        """Note the output of a tool call."""
        known = self._items.get(item_id)
        if not isinstance(known, RealtimeToolCallItem):
            return Change.NONE
        return self._replace(known, msgspec.structs.replace(known, output=output, status="completed"))

    def user_transcript(self, item_id: str, transcript: str) -> Change:
        """Note what the user said in an audio message; it may come long after the message."""
        known = self._items.get(item_id)
        if known is None:
            return self._insert(UserMessageItem(item_id=item_id, content=(InputAudio(transcript=transcript),)))
        if not isinstance(known, UserMessageItem):
            return Change.NONE
        content = tuple(
            msgspec.structs.replace(part, transcript=transcript) if isinstance(part, InputAudio) else part
            for part in known.content
        )
        return self._replace(known, msgspec.structs.replace(known, content=content or (InputAudio(transcript=transcript),)))

    def spoken(self, item_id: str, content_index: int, delta: str) -> Change:
        """Add words to what the agent says."""
        if not 0 <= content_index < MAX_PARTS:
            return Change.NONE
        self._part(item_id, content_index).words += delta
        return self._refresh(item_id)

    def audio(self, item_id: str, content_index: int, duration_ms: float) -> None:
        """Count audio of the agent. Shows in the items with the next change."""
        if not 0 <= content_index < MAX_PARTS:
            return
        self._part(item_id, content_index).audio_ms += duration_ms

    def cut(self, item_id: str, content_index: int, heard_ms: float) -> Change:
        """Cut a message of the agent at what the caller heard of it; one that is not known changes nothing."""
        if item_id not in self._items or not 0 <= content_index < MAX_PARTS:
            return Change.NONE
        part = self._part(item_id, content_index)
        part.heard_ms = heard_ms if part.heard_ms is None else min(part.heard_ms, heard_ms)
        return self._refresh(item_id)

    def delete(self, item_id: str) -> Change:
        """Remove an item."""
        if self._items.pop(item_id, None) is None:
            return Change.NONE
        self._order.remove(item_id)
        for key in [key for key in self._speech if key[0] == item_id]:
            del self._speech[key]
        return Change.UPDATED

    def _insert(self, item: RealtimeItem) -> Change:
        after = item.previous_item_id
        self._items[item.item_id] = item
        if after is not None and after in self._items and after != item.item_id:
            self._order.insert(self._order.index(after) + 1, item.item_id)
        else:
            self._order.append(item.item_id)
        return Change.ADDED

    def _replace(self, known: RealtimeItem, item: RealtimeItem) -> Change:
        if item.previous_item_id is None and known.previous_item_id is not None:
            item = msgspec.structs.replace(item, previous_item_id=known.previous_item_id)
        if item == known:
            return Change.NONE
        self._items[item.item_id] = item
        return Change.UPDATED

    def _part(self, item_id: str, content_index: int) -> _Speech:
        key = (item_id, content_index)
        part = self._speech.get(key)
        if part is None:
            part = self._speech[key] = _Speech()
        return part

    def _refresh(self, item_id: str) -> Change:
        """Bring a message of the agent up to date with what is known of its speech."""
        known = self._items.get(item_id)
        if known is None:
            known = AssistantMessageItem(item_id=item_id, status="in_progress")
            self._insert(known)
            self._replace(known, self._merge_assistant(known, known))
            return Change.ADDED
        if not isinstance(known, AssistantMessageItem):
            return Change.NONE
        return self._replace(known, self._merge_assistant(known, known))

    def _merge_assistant(self, known: AssistantMessageItem, item: AssistantMessageItem) -> AssistantMessageItem:
        parts: list[AssistantText | AssistantAudio] = []
        count = max([len(known.content), len(item.content), *(key[1] + 1 for key in self._speech if key[0] == item.item_id)])
        status = item.status or known.status
        for index in range(count):
            old = known.content[index] if index < len(known.content) else None
            new = item.content[index] if index < len(item.content) else old
            speech = self._speech.get((item.item_id, index))
            if speech is None:
                parts.append(_keep_text(old, new))
                continue
            if (
                isinstance(new, AssistantAudio)
                and new is not old
                and new.transcript
                and len(new.transcript) > len(speech.words)
            ):
                speech.words = new.transcript
            words = speech.words
            if speech.heard_ms is not None:
                words = heard_text(words, speech.audio_ms, speech.heard_ms)
                status = "incomplete"
            parts.append(AssistantAudio(transcript=words, audio_ms=speech.audio_ms, heard_ms=speech.heard_ms))
        return msgspec.structs.replace(item, content=tuple(parts), status=status)


def _keep_text(
    old: AssistantText | AssistantAudio | None, new: AssistantText | AssistantAudio | None
) -> AssistantText | AssistantAudio:
    """Keep the text that is known where the report leaves it out."""
    if new is None:
        return AssistantText(text="")
    if isinstance(new, AssistantText) and not new.text and isinstance(old, AssistantText):
        return old
    if isinstance(new, AssistantAudio) and not new.transcript and isinstance(old, AssistantAudio):
        return old
    return new


def _merge_user(known: UserMessageItem, item: UserMessageItem) -> UserMessageItem:
    """Keep transcripts, texts and images that are known where the report leaves them out."""
    parts: list[InputText | InputAudio | InputImage] = []
    for index, new in enumerate(item.content):
        old = known.content[index] if index < len(known.content) else None
        untold = (isinstance(new, InputAudio) and new.transcript is None) or (isinstance(new, InputText) and not new.text)
        parts.append(old if untold and type(old) is type(new) and old is not None else new)
    kept = [part for part in known.content if isinstance(part, InputImage) and part not in parts]
    return msgspec.structs.replace(item, content=(*kept, *parts) if item.content else known.content)
