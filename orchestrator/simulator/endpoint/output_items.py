"""The output items of a response while they are generated, and the events by which each begins, grows and ends.

Pure. An item that is cut short ends with the same events as a whole one, but marked incomplete; only the events that would
make a call look as if it could be run are left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from orchestrator.simulator.endpoint.conversation import ItemAudio, Memory
from orchestrator.simulator.endpoint.mcp_servers import Outcome
from orchestrator.wire.realtime_server import (
    ConversationItemAdded,
    ConversationItemDone,
    ResponseContentPartAdded,
    ResponseContentPartDone,
    ResponseFunctionCallArgumentsDelta,
    ResponseFunctionCallArgumentsDone,
    ResponseMcpCallArgumentsDelta,
    ResponseMcpCallArgumentsDone,
    ResponseMcpCallCompleted,
    ResponseMcpCallFailed,
    ResponseMcpCallInProgress,
    ResponseOutputAudioDelta,
    ResponseOutputAudioDone,
    ResponseOutputAudioTranscriptDelta,
    ResponseOutputAudioTranscriptDone,
    ResponseOutputItemAdded,
    ResponseOutputItemDone,
    ResponseOutputTextDelta,
    ResponseOutputTextDone,
)
from orchestrator.wire.realtime_types import (
    AudioPart,
    FunctionCallItem,
    McpApprovalRequestItem,
    McpCallItem,
    McpError,
    MessageItem,
    OutputAudioPart,
    OutputTextPart,
    TextPart,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.simulator.endpoint.conversation import Conversation
    from orchestrator.simulator.endpoint.director import Call, Director
    from orchestrator.simulator.endpoint.mcp_servers import McpServers
    from orchestrator.simulator.endpoint.options import ModelOptions
    from orchestrator.simulator.ids import IdSource
    from orchestrator.wire.realtime_server import ServerEvent
    from orchestrator.wire.realtime_types import ContentPart, Item

__all__ = [
    "ApprovalRequest",
    "FunctionCall",
    "McpCall",
    "OutputItem",
    "Place",
    "SpokenMessage",
    "Stage",
    "WrittenMessage",
]

CANCELLED = -32800
"""What JSON-RPC peers answer to a request that was called off."""


@dataclass(frozen=True)
class Stage:
    """What a response acts upon. `conversation` and `director` are None out of band: nothing leaves a trace there.

    `played` is told of audio before it goes out, by response, item and milliseconds, and may hold it back (False).
    """

    ids: IdSource
    send: Callable[[ServerEvent], None]
    options: ModelOptions
    conversation: Conversation | None
    director: Director | None
    servers: McpServers
    played: Callable[[str, str, float], bool]

    def padding(self) -> Any:
        """What hides the length of a text delta, if that is wanted."""
        return self.ids.obfuscation() if self.options.obfuscation else UNSET


@dataclass(frozen=True)
class Place:
    """Where an output item is: every event of it says so."""

    response_id: str
    item_id: str
    output_index: int

    @property
    def members(self) -> dict[str, Any]:
        """The place as members of an event."""
        return {"response_id": self.response_id, "item_id": self.item_id, "output_index": self.output_index}


class OutputItem(ABC):
    """One output item. `text` is what was generated of it so far: words, a transcript or arguments."""

    def __init__(self, stage: Stage, place: Place) -> None:
        self.stage = stage
        self.place = place
        self.text = ""
        self.audio: ItemAudio | None = None
        self._previous: str | None = None

    @abstractmethod
    def item(self, status: str) -> Item:
        """The item as it is now."""

    def begin(self) -> None:
        """Announce it."""
        stage, place, item = self.stage, self.place, self.item("in_progress")
        stage.send(ResponseOutputItemAdded(response_id=place.response_id, output_index=place.output_index, item=item))
        if stage.conversation is not None:
            self._previous = stage.conversation.insert(Memory(place.item_id, item))
            stage.send(ConversationItemAdded(previous_item_id=self._previous, item=item))

    def add(self, text: str) -> None:
        """More of its text."""
        self.text += text
        self._delta(text)

    def end(self, status: str) -> Item:
        """Close it, whole ("completed") or not ("incomplete")."""
        self._close(whole=status == "completed")
        stage, place, item = self.stage, self.place, self.item(status)
        conversation, done = stage.conversation, self._done_event(item)
        if conversation is not None and place.item_id in conversation:
            conversation.update(place.item_id, item, self.audio)
            self._previous = conversation.previous(place.item_id)
        if not stage.options.item_done_first:
            stage.send(done)
        if conversation is not None:
            stage.send(ConversationItemDone(previous_item_id=self._previous, item=item))
        if stage.options.item_done_first:
            stage.send(done)
        return item

    def _done_event(self, item: Item) -> ResponseOutputItemDone:
        return ResponseOutputItemDone(response_id=self.place.response_id, output_index=self.place.output_index, item=item)

    def _delta(self, text: str) -> None:
        """Send a piece of the text."""
        raise AssertionError("this kind of item does not grow")

    @abstractmethod
    def _close(self, *, whole: bool) -> None:
        """What comes before the item is done."""


class _Message(OutputItem):
    """One message of the assistant, with one part."""

    def item(self, status: str) -> Item:
        """The message as it is now; it has no part before it is done."""
        content: list[ContentPart] = [] if status == "in_progress" else [self._content()]
        return MessageItem(id=self.place.item_id, status=status, role="assistant", content=content)

    @abstractmethod
    def _content(self) -> ContentPart: ...

    @abstractmethod
    def _part(self) -> ContentPart: ...

    @abstractmethod
    def _close_part(self) -> None: ...

    def begin(self) -> None:
        """Announce it and its part."""
        super().begin()
        self.stage.send(ResponseContentPartAdded(**self.place.members, part=self._part()))

    def _close(self, *, whole: bool) -> None:
        self._close_part()
        self.stage.send(ResponseContentPartDone(**self.place.members, part=self._part()))


class WrittenMessage(_Message):
    """A message in text."""

    def _content(self) -> ContentPart:
        return OutputTextPart(text=self.text)

    def _part(self) -> ContentPart:
        return TextPart(text=self.text)

    def _delta(self, text: str) -> None:
        self.stage.send(ResponseOutputTextDelta(**self.place.members, delta=text, obfuscation=self.stage.padding()))

    def _close_part(self) -> None:
        self.stage.send(ResponseOutputTextDone(**self.place.members, text=self.text))


class SpokenMessage(_Message):
    """A message in audio; its text is the transcript."""

    def sound(self, delta: str, audio: ItemAudio) -> float:
        """More audio. `audio` is all of it so far, `delta` what is new of it; returns how many milliseconds that is."""
        stage, place = self.stage, self.place
        new_ms = audio.milliseconds - (self.audio.milliseconds if self.audio is not None else 0.0)
        self.audio = audio
        if stage.conversation is not None:
            stage.conversation.update(place.item_id, self.item("in_progress"), audio)
        if stage.played(place.response_id, place.item_id, new_ms):
            stage.send(ResponseOutputAudioDelta(**place.members, delta=delta))
        return new_ms

    def _content(self) -> ContentPart:
        return OutputAudioPart(transcript=self.text)

    def _part(self) -> ContentPart:
        return AudioPart(transcript=self.text)

    def _delta(self, text: str) -> None:
        padding = self.stage.padding()
        self.stage.send(ResponseOutputAudioTranscriptDelta(**self.place.members, delta=text, obfuscation=padding))

    def _close_part(self) -> None:
        self.stage.send(ResponseOutputAudioDone(**self.place.members))
        self.stage.send(ResponseOutputAudioTranscriptDone(**self.place.members, transcript=self.text))


class FunctionCall(OutputItem):
    """A call of a function of the client."""

    def __init__(self, stage: Stage, place: Place, call: Call) -> None:
        super().__init__(stage, place)
        self._call = call
        self._call_id = stage.ids.call()

    def item(self, status: str) -> Item:
        """The call as it is now."""
        return FunctionCallItem(
            id=self.place.item_id, status=status, name=self._call.name, call_id=self._call_id, arguments=self.text
        )

    def end(self, status: str) -> Item:
        """Close it; a whole call is one that the client owes an output for."""
        item = super().end(status)
        if status == "completed" and self.stage.director is not None:
            self.stage.director.called(self._call_id, self._call)
        return item

    def _delta(self, text: str) -> None:
        # Unlike words and the arguments of MCP calls, these come without padding.
        self.stage.send(ResponseFunctionCallArgumentsDelta(**self.place.members, call_id=self._call_id, delta=text))

    def _close(self, *, whole: bool) -> None:
        if whole:
            name, arguments = self._call.name, self.text
            self.stage.send(
                ResponseFunctionCallArgumentsDone(**self.place.members, call_id=self._call_id, name=name, arguments=arguments)
            )


class McpCall(OutputItem):
    """A call that the endpoint makes by itself. `run` begins it once its arguments are there; its end has the outcome."""

    def __init__(self, stage: Stage, place: Place, call: Call) -> None:
        super().__init__(stage, place)
        self._call = call
        self._outcome: Outcome | None = None
        self._running = False

    def item(self, status: str) -> Item:
        """The call as it is now."""
        outcome = self._outcome if status != "in_progress" else None
        return McpCallItem(
            id=self.place.item_id,
            server_label=self._call.server,
            name=self._call.name,
            arguments=self.text,
            approval_request_id=self._call.approved or None,
            output=outcome.output if outcome is not None else None,
            error=outcome.error if outcome is not None else None,
        )

    def run(self, outcome: Outcome) -> None:
        """Make the call; it takes as long as the outcome says."""
        place = self.place
        self.stage.send(ResponseMcpCallArgumentsDone(**place.members, arguments=self.text))
        if self.stage.conversation is not None:
            self.stage.conversation.update(place.item_id, self.item("in_progress"))
        self._outcome, self._running = outcome, True
        self.stage.send(ResponseMcpCallInProgress(output_index=place.output_index, item_id=place.item_id))

    def end(self, status: str) -> Item:
        """Close it; the conversation goes on from what it gave."""
        item = super().end(status)
        director, outcome = self.stage.director, self._outcome
        if status == "completed" and director is not None and outcome is not None:
            director.called(self.place.item_id, self._call)
            director.hear_output(self.place.item_id, "null" if outcome.output is None else outcome.output)
        return item

    def _delta(self, text: str) -> None:
        padding = self.stage.padding()
        self.stage.send(ResponseMcpCallArgumentsDelta(**self.place.members, delta=text, obfuscation=padding))

    def _close(self, *, whole: bool) -> None:
        if not self._running or self._outcome is None:
            return
        if not whole:
            self._outcome = Outcome(0.0, error=McpError(type="protocol_error", code=CANCELLED, message="Request cancelled"))
        ended = ResponseMcpCallCompleted if self._outcome.error is None else ResponseMcpCallFailed
        self.stage.send(ended(output_index=self.place.output_index, item_id=self.place.item_id))


class ApprovalRequest(OutputItem):
    """A call that the client is asked about first."""

    def __init__(self, stage: Stage, place: Place, call: Call) -> None:
        super().__init__(stage, place)
        self._call = call
        self.text = call.arguments

    def item(self, status: str) -> Item:
        """The call as it is now."""
        call = self._call
        return McpApprovalRequestItem(id=self.place.item_id, server_label=call.server, name=call.name, arguments=call.arguments)

    def end(self, status: str) -> Item:
        """Close it; from now on an answer is awaited."""
        item = super().end(status)
        if self.stage.director is not None:
            self.stage.director.asked(self.place.item_id, self._call)
        return item

    def _close(self, *, whole: bool) -> None:
        """It never was open: nothing grows in it."""
