"""The response that a caller at the front door is being told, so that it can be told its end if the model cannot any more.

The end is that of a response which was cancelled: each part, item and the response itself are closed in the API's own order.
Source: the order of events of an interruption in the GA Realtime protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from orchestrator.wire import realtime_server as server
from orchestrator.wire import realtime_types as types

__all__ = ["OpenResponse", "ToldResponse"]

_DETAILS = types.ResponseStatusDetails(type="cancelled", reason="client_cancelled")
# Nobody knows what it has cost; clients want the members.
_NO_USAGE = types.Usage(
    input_token_details=types.InputTokenDetails(cached_tokens_details=types.CachedTokensDetails()),
    output_token_details=types.OutputTokenDetails(),
)


class _Part(msgspec.Struct):
    spoken: bool
    words: str = ""
    audio_over: bool = False
    words_over: bool = False
    over: bool = False


class _Item(msgspec.Struct):
    item: types.MessageItem
    index: int
    parts: dict[int, _Part] = {}
    # Was it announced as an item of the conversation, after which one, and was it reported as final there?
    added: bool = False
    previous: str | None = None
    reported: bool = False
    over: bool = False


class ToldResponse(msgspec.Struct):
    """What a caller was told of a response, as another process can go on with it."""

    response: types.Response
    items: dict[str, _Item]


class OpenResponse:
    """At most one response at a time, as in the conversation. `note` what the caller is shown."""

    def __init__(self) -> None:
        self._response: types.Response | None = None
        self._items: dict[str, _Item] = {}

    def state(self) -> ToldResponse | None:
        """Return what another process needs to tell the end; None where no response is under way."""
        return None if self._response is None else ToldResponse(self._response, self._items)

    def restore(self, told: ToldResponse | None) -> None:
        """Go on where another process was."""
        if told is not None:
            self._response, self._items = told.response, told.items

    def note(self, event: Any) -> None:
        """Take note of an event that the caller is sent."""
        handler = _NOTES.get(type(event))
        if handler is not None and (self._response is not None or type(event) is server.ResponseCreated):
            handler(self, event)

    def end(self) -> list[server.ServerEvent]:
        """Return what tells the caller that the response is over; nothing where none is under way."""
        response = self._response
        if response is None:
            return []
        events = [event for item in self._items.values() if not item.over for event in _end_of(item, response.id)]
        output = [_final(item) for item in self._items.values()]
        done = msgspec.structs.replace(
            response, status="cancelled", status_details=_DETAILS, output=output, usage=response.usage or _NO_USAGE
        )
        self._forget()
        return [*events, server.ResponseDone(response=done)]

    def _forget(self) -> None:
        self._response = None
        self._items = {}

    def _part(self, event: Any, *, spoken: bool) -> _Part:
        """Return the part that an event speaks of; one of an item that nobody announced is of no consequence."""
        item = self._items.get(event.item_id)
        if item is None:
            return _Part(spoken=spoken)
        return item.parts.setdefault(event.content_index, _Part(spoken=spoken))

    def _on_created(self, event: server.ResponseCreated) -> None:
        self._forget()
        self._response = event.response

    def _on_done(self, event: server.ResponseDone) -> None:
        if self._response is not None and event.response.id == self._response.id:
            self._forget()

    def _on_output_item(self, event: server.ResponseOutputItemAdded) -> None:
        if isinstance(event.item, types.MessageItem) and isinstance(event.item.id, str):
            self._items[event.item.id] = _Item(event.item, event.output_index)

    def _on_output_item_done(self, event: server.ResponseOutputItemDone) -> None:
        item = self._items.get(getattr(event.item, "id", ""))
        if item is not None and isinstance(event.item, types.MessageItem):
            item.item, item.over = event.item, True

    def _on_item_added(self, event: server.ConversationItemAdded) -> None:
        item = self._items.get(getattr(event.item, "id", ""))
        if item is not None:
            item.added, item.previous = True, event.previous_item_id if isinstance(event.previous_item_id, str) else None

    def _on_item_done(self, event: server.ConversationItemDone) -> None:
        item = self._items.get(getattr(event.item, "id", ""))
        if item is not None:
            item.reported = True

    def _on_part_added(self, event: server.ResponseContentPartAdded) -> None:
        self._part(event, spoken=isinstance(event.part, types.AudioPart | types.OutputAudioPart))

    def _on_part_done(self, event: server.ResponseContentPartDone) -> None:
        self._part(event, spoken=True).over = True

    def _on_transcript(self, event: server.ResponseOutputAudioTranscriptDelta) -> None:
        self._part(event, spoken=True).words += event.delta

    def _on_text(self, event: server.ResponseOutputTextDelta) -> None:
        self._part(event, spoken=False).words += event.delta

    def _on_audio_done(self, event: server.ResponseOutputAudioDone) -> None:
        self._part(event, spoken=True).audio_over = True

    def _on_words_done(self, event: server.ResponseOutputAudioTranscriptDone | server.ResponseOutputTextDone) -> None:
        spoken = isinstance(event, server.ResponseOutputAudioTranscriptDone)
        self._part(event, spoken=spoken).words_over = True


def _end_of(item: _Item, response_id: str) -> Iterator[server.ServerEvent]:
    for index, part in item.parts.items():
        place: dict[str, Any] = {
            "response_id": response_id,
            "item_id": item.item.id,
            "output_index": item.index,
            "content_index": index,
        }
        if part.over:
            continue
        if part.spoken and not part.audio_over:
            yield server.ResponseOutputAudioDone(**place)
        if not part.words_over:
            if part.spoken:
                yield server.ResponseOutputAudioTranscriptDone(transcript=part.words, **place)
            else:
                yield server.ResponseOutputTextDone(text=part.words, **place)
        short = types.AudioPart(transcript=part.words) if part.spoken else types.TextPart(text=part.words)
        yield server.ResponseContentPartDone(part=short, **place)
    final = _final(item)
    if item.added and not item.reported:
        yield server.ConversationItemDone(previous_item_id=item.previous, item=final)
    yield server.ResponseOutputItemDone(response_id=response_id, output_index=item.index, item=final)


def _final(item: _Item) -> types.MessageItem:
    if item.over:
        return item.item
    content: list[types.ContentPart] = [
        types.OutputAudioPart(transcript=part.words) if part.spoken else types.OutputTextPart(text=part.words)
        for part in item.parts.values()
    ]
    return msgspec.structs.replace(item.item, status="incomplete", content=content)


_NOTES: dict[type, Any] = {
    server.ConversationItemAdded: OpenResponse._on_item_added,
    server.ConversationItemDone: OpenResponse._on_item_done,
    server.ResponseContentPartAdded: OpenResponse._on_part_added,
    server.ResponseContentPartDone: OpenResponse._on_part_done,
    server.ResponseCreated: OpenResponse._on_created,
    server.ResponseDone: OpenResponse._on_done,
    server.ResponseOutputAudioDone: OpenResponse._on_audio_done,
    server.ResponseOutputAudioTranscriptDelta: OpenResponse._on_transcript,
    server.ResponseOutputAudioTranscriptDone: OpenResponse._on_words_done,
    server.ResponseOutputItemAdded: OpenResponse._on_output_item,
    server.ResponseOutputItemDone: OpenResponse._on_output_item_done,
    server.ResponseOutputTextDelta: OpenResponse._on_text,
    server.ResponseOutputTextDone: OpenResponse._on_words_done,
}
