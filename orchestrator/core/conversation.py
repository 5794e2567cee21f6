"""The history of a conversation: the items in order, kept equal to what the model remembers and the caller heard.

Items are frozen; each change puts a new one in place of the old, so a list handed out never changes. An item that was cut by
an interruption keeps only the words up to where the caller heard it, however late the rest of its transcript arrives.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import cast

import msgspec

from orchestrator.core.call_items import output_item_id
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
from orchestrator.core.playback import Cut

__all__ = ["Change", "Conversation", "cut_item", "heard_text"]

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
    """The items, oldest first.

    The order is that of the model's conversation, which also holds items that have nothing to show, or not yet: the output of a
    call, which is part of the call's item here, or a call that is being written. These have their place and no item.
    """

    __slots__ = ("_absent", "_call_items", "_items", "_order", "_outputs", "_seeded", "_speech", "_tripped")

    def __init__(self) -> None:
        self._items: dict[str, RealtimeItem] = {}
        # All ids in the model's order, also of those that are not shown.
        self._order: dict[str, None] = {}
        self._speech: dict[tuple[str, int], _Speech] = {}
        # Items of an earlier conversation: what they hold is known already, and better than a replay can tell.
        self._seeded: set[str] = set()
        # The item of a call, by call id, and the calls by the item of their output.
        self._call_items: dict[str, str] = {}
        self._outputs: dict[str, str] = {}
        # Items that the model's present connection was not told of, since there is nothing in them.
        self._absent: frozenset[str] = frozenset()
        # The guardrails that a message of the agent tripped, by its item.
        self._tripped: dict[str, tuple[str, ...]] = {}

    @property
    def items(self) -> list[RealtimeItem]:
        """A snapshot of the history."""
        return [self._items[item_id] for item_id in self._order if item_id in self._items]

    def get(self, item_id: str) -> RealtimeItem | None:
        """Return one item, or None."""
        return self._items.get(item_id)

    def seed(self, items: Iterable[RealtimeItem]) -> None:
        """Begin with the items of an earlier conversation, in this order; that the model confirms them changes nothing."""
        for item in items:
            # Its place is this one, whatever it once stood behind.
            self._order[item.item_id] = None
            self._insert(item)
            self._seeded.add(item.item_id)

    def message(self, item: RealtimeMessageItem) -> Change:
        """Take in a message as the model reports it; what it leaves out of a known one is kept."""
        if item.item_id in self._seeded:
            return Change.NONE
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
        if item.item_id in self._seeded:
            return Change.NONE
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

    def place(self, item_id: str, previous_item_id: str | None) -> None:
        """Note where an item stands: after another one, or at the end where that is not known. It keeps its first place."""
        if item_id in self._order:
            return
        if previous_item_id not in self._order or previous_item_id == next(reversed(self._order)):
            self._order[item_id] = None
            return
        order = list(self._order)
        index = order.index(previous_item_id) + 1
        while index < len(order) and order[index] in self._absent:
            # The model does not know of it, or it would have named this one.
            index += 1
        order.insert(index, item_id)
        self._order = dict.fromkeys(order)

    def output_item(self, call_id: str, output: str, item_id: str, previous_item_id: str | None) -> Change:
        """Take in the item that answers a call; it shows as part of the call."""
        self.place(item_id, previous_item_id)
        call_item = self._call_items.get(call_id)
        if call_item is None:
            return Change.NONE
        self._outputs[item_id] = call_item
        known = self._items[call_item]
        if isinstance(known, RealtimeToolCallItem) and known.output is None:
            return self.tool_output(call_item, output)
        return Change.NONE

    def renewed(self, present: Iterable[str]) -> None:
        """The model's memory was made anew and holds these items, in our order; all others have no place in it."""
        known = dict.fromkeys(present)
        order: list[str] = []
        for item_id in self._order:
            item = self._items.get(item_id)
            if item is None:
                continue  # What was being written, and outputs, which are told of under ids of their own.
            order.append(item_id)
            if isinstance(item, RealtimeToolCallItem) and item.call_id is not None:
                output = output_item_id(item.call_id)
                if output in known:
                    order.append(output)
                    self._outputs[output] = item_id
        self._order = dict.fromkeys(order)
        self._absent = frozenset(item_id for item_id in order if item_id not in known)

    def lost(self, item_id: str, text: str) -> Change:
        """The response that made this message is gone. What the caller has of it stays; with nothing, the item goes.

        `text` is what it had written, for a message that is not spoken.
        """
        known = self._items.get(item_id)
        if not isinstance(known, AssistantMessageItem):
            return Change.NONE
        if text and not any(key[0] == item_id for key in self._speech):
            return self._replace(
                known, msgspec.structs.replace(known, content=(AssistantText(text=text),), status="incomplete")
            )
        if not any((part.text if isinstance(part, AssistantText) else part.transcript) for part in known.content):
            return self.delete(item_id)
        if known.status == "completed":
            return Change.NONE
        return self._replace(known, msgspec.structs.replace(known, status="incomplete"))

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
        known = self._items.get(item_id)
        if not isinstance(known, AssistantMessageItem) or item_id in self._seeded or not 0 <= content_index < MAX_PARTS:
            return Change.NONE
        if content_index < len(known.content) and isinstance(known.content[content_index], AssistantText):
            return Change.NONE  # It was written, so nobody heard it.
        part = self._part(item_id, content_index)
        part.heard_ms = heard_ms if part.heard_ms is None else min(part.heard_ms, heard_ms)
        return self._refresh(item_id)

    def tripped(self, item_id: str, guardrails: Iterable[str]) -> Change:
        """Mark a message of the agent with the guardrails that it tripped, also one that is still to come."""
        self._tripped[item_id] = tuple(dict.fromkeys((*self._tripped.get(item_id, ()), *guardrails)))
        known = self._items.get(item_id)
        if not isinstance(known, AssistantMessageItem):
            return Change.NONE
        return self._replace(known, msgspec.structs.replace(known, guardrails=self._tripped[item_id]))

    def was_heard_to_its_end(self, item_id: str) -> bool:
        """Tell whether the caller heard all audio that the model sent of a message, as far as that is known."""
        parts = [part for key, part in self._speech.items() if key[0] == item_id and part.audio_ms > 0]
        return bool(parts) and all(part.heard_ms is None or part.heard_ms >= part.audio_ms for part in parts)

    def delete(self, item_id: str) -> Change:
        """Remove an item, or the output of a call from its item."""
        self._order.pop(item_id, None)
        item = self._items.pop(item_id, None)
        if item is None:
            return self._delete_output(item_id)
        self._seeded.discard(item_id)
        self._tripped.pop(item_id, None)
        if isinstance(item, RealtimeToolCallItem) and item.call_id is not None:
            self._call_items.pop(item.call_id, None)
        for key in [key for key in self._speech if key[0] == item_id]:
            del self._speech[key]
        return Change.UPDATED

    def _delete_output(self, item_id: str) -> Change:
        call_item = self._outputs.pop(item_id, "")
        known = self._items.get(call_item)
        if not isinstance(known, RealtimeToolCallItem):
            return Change.NONE
        return self._replace(known, msgspec.structs.replace(known, output=None))

    def _insert(self, item: RealtimeItem) -> Change:
        if isinstance(item, AssistantMessageItem) and item.item_id in self._tripped:
            item = msgspec.structs.replace(item, guardrails=self._tripped[item.item_id])
        self._items[item.item_id] = item
        if isinstance(item, RealtimeToolCallItem) and item.call_id is not None:
            self._call_items[item.call_id] = item.item_id
        self.place(item.item_id, item.previous_item_id)
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
        guardrails = self._tripped.get(item.item_id, item.guardrails)
        return msgspec.structs.replace(item, content=tuple(parts), status=status, guardrails=guardrails)


def cut_item(item: AssistantMessageItem, cut: Cut) -> AssistantMessageItem:
    """Cut a message of the agent, of which nothing but the item is left, at what the caller heard of it."""
    parts: list[AssistantText | AssistantAudio] = list(item.content)
    if not 0 <= cut.content_index < len(parts):
        return item
    part = parts[cut.content_index]
    if not isinstance(part, AssistantAudio):
        return item
    words = heard_text(part.transcript or "", max(part.audio_ms, cut.sent_ms), cut.heard_ms)
    parts[cut.content_index] = msgspec.structs.replace(part, transcript=words, heard_ms=cut.heard_ms)
    return msgspec.structs.replace(item, content=tuple(parts), status="incomplete")


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
