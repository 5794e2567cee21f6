"""The 11 events that a client of the OpenAI Realtime API sends.

`event_id` is the client's own and optional; the server names it in an error that the event caused, nowhere else.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from orchestrator.wire.realtime_types import Item, ResponseCreateParams, SessionConfig

__all__ = [
    "ClientEvent",
    "ConversationItemCreate",
    "ConversationItemDelete",
    "ConversationItemRetrieve",
    "ConversationItemTruncate",
    "InputAudioBufferAppend",
    "InputAudioBufferClear",
    "InputAudioBufferCommit",
    "OutputAudioBufferClear",
    "ResponseCancel",
    "ResponseCreate",
    "SessionUpdate",
]

# The longest that the API accepts.
EventId: TypeAlias = Annotated[str, msgspec.Meta(max_length=512)]


class ClientStruct(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What all client events have."""

    event_id: EventId | UnsetType | None = UNSET


class ConversationItemCreate(ClientStruct, frozen=True, kw_only=True, tag="conversation.item.create"):
    """`previous_item_id`: absent or null appends, "root" puts the item first, an id puts it after that item."""

    previous_item_id: str | UnsetType | None = UNSET
    item: Item


class ConversationItemDelete(ClientStruct, frozen=True, kw_only=True, tag="conversation.item.delete"):
    item_id: str


class ConversationItemRetrieve(ClientStruct, frozen=True, kw_only=True, tag="conversation.item.retrieve"):
    item_id: str


class ConversationItemTruncate(ClientStruct, frozen=True, kw_only=True, tag="conversation.item.truncate"):
    """`audio_end_ms` is how much of the item's audio was heard."""

    item_id: str
    content_index: int
    audio_end_ms: int


# Without the collector's header: it holds only text, and 50 of these are made per second and session.
class InputAudioBufferAppend(ClientStruct, frozen=True, kw_only=True, gc=False, tag="input_audio_buffer.append"):
    """`audio` is base64 in the session's input format. The server answers only if it is at fault."""

    audio: str


class InputAudioBufferClear(ClientStruct, frozen=True, kw_only=True, tag="input_audio_buffer.clear"):
    pass


class InputAudioBufferCommit(ClientStruct, frozen=True, kw_only=True, tag="input_audio_buffer.commit"):
    pass


class OutputAudioBufferClear(ClientStruct, frozen=True, kw_only=True, tag="output_audio_buffer.clear"):
    """Only for calls over WebRTC or SIP: over a WebSocket the server does not know this type."""


class ResponseCancel(ClientStruct, frozen=True, kw_only=True, tag="response.cancel"):
    """`response_id` is needed for a response out of band."""

    response_id: str | UnsetType | None = UNSET


class ResponseCreate(ClientStruct, frozen=True, kw_only=True, tag="response.create"):
    response: ResponseCreateParams | UnsetType | None = UNSET


class SessionUpdate(ClientStruct, frozen=True, kw_only=True, tag="session.update"):
    """Only the members that are present change."""

    session: SessionConfig


ClientEvent: TypeAlias = (
    ConversationItemCreate
    | ConversationItemDelete
    | ConversationItemRetrieve
    | ConversationItemTruncate
    | InputAudioBufferAppend
    | InputAudioBufferClear
    | InputAudioBufferCommit
    | OutputAudioBufferClear
    | ResponseCancel
    | ResponseCreate
    | SessionUpdate
)
