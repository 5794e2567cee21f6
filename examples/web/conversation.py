"""One page and one session: what the page sends goes to the session, every event of the session goes to the page."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping
from typing import Any, assert_never

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from examples._talk import until_first
from examples.web import protocol
from examples.web.pictures import Picture, Uploads
from examples.web.protocol import BadMessage, client_info
from orchestrator.errors import OrchestratorError
from orchestrator.realtime import (
    RealtimeModelSendRawMessage,
    RealtimePlaybackTracker,
    RealtimeSession,
    RealtimeSessionEvent,
)
from orchestrator.realtime.events import RealtimeHandoffEvent

__all__ = ["Conversation", "PagePlayback"]

# A picture may come in a thousand chunks; a confirmation now and then shows that it moves.
CONFIRM_EVERY = 10
# The model refuses a shorter turn, 100 ms in bytes; then nothing must be asked for either.
SHORTEST_TURN = 4800
# The code of RFC 6455 for a connection that ended without one.
GONE = 1006
REFUSED = "The user has looked at this and does not want it."


class PagePlayback(RealtimePlaybackTracker):
    """What the page says that it has played, so that an interruption cuts the conversation at what was really heard."""

    def reached(self, item_id: str, content_index: int, ms: float) -> None:
        """Take in the position of playback, from the beginning of the item."""
        state = self.get_state()
        same = (state["current_item_id"], state["current_item_content_index"]) == (item_id, content_index)
        before = (state["elapsed_ms"] or 0.0) if same else 0.0
        # The base class adds up what was played; a page counts better itself, since it knows what it has dropped.
        self.on_play_ms(item_id, content_index, max(0.0, ms - before))


class Conversation:
    """What is between one WebSocket, which is accepted, and one session, which is entered. Neither is closed here.

    `turn_detection` is what the page comes back to after it has said for a while itself when the user's turn ends.
    """

    def __init__(
        self, websocket: WebSocket, session: RealtimeSession, playback: PagePlayback, turn_detection: Mapping[str, Any]
    ) -> None:
        self._websocket = websocket
        self._session = session
        self._playback = playback
        self._turn_detection = turn_detection
        self._uploads = Uploads()
        self._manual = False
        # Audio since the last commit, in bytes.
        self._uncommitted = 0

    async def run(self) -> bool:
        """Carry messages both ways until one side ends. Tells whether the page is still there.

        Raises OrchestratorError when the session fails. Cancelling it leaves both sides as they are.
        """
        page_is_there: bool = await until_first(self._listen(), self._report())
        return page_is_there

    async def _report(self) -> bool:
        """Send the session's events to the page, until there are no more or the page is gone.

        A page that reads too slowly holds up nothing but this: the session keeps a bounded number of events for us, drops
        audio first, and at last ends this loop with an error.
        """
        async for event in self._session:
            try:
                await self._send(protocol.event_message(event))
            except WebSocketDisconnect:
                return False
            await self._after(event)
        return True

    async def _after(self, event: RealtimeSessionEvent) -> None:
        if isinstance(event, RealtimeHandoffEvent) and self._manual:
            # The next agent comes with the settings of the run, turn detection among them.
            await self._detect_turns()

    async def _listen(self) -> bool:
        """Do what the page asks, until it is gone. What it gets wrong is answered, and harms nobody else."""
        try:
            while True:
                try:
                    await self._take(await self._receive())
                except OrchestratorError as error:
                    await self._send(protocol.error_message(error))
        except WebSocketDisconnect:
            return False

    async def _receive(self) -> protocol.ClientMessage | bytes:
        frame = await self._websocket.receive()
        if frame["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(frame.get("code", 1005))
        if frame.get("text") is not None:
            return protocol.decode(frame["text"])
        return protocol.audio_of(frame.get("bytes") or b"")

    async def _take(self, message: protocol.ClientMessage | bytes) -> None:
        session = self._session
        match message:
            case bytes():
                await self._hear(message)
            case protocol.Audio():
                await self._hear(_pcm(message.data))
            case protocol.CommitAudio():
                await self._commit(respond=message.respond)
            case protocol.TurnDetection():
                self._manual = message.mode == "manual"
                await self._detect_turns()
                # What was heard until now belongs to no turn of the new kind.
                await self._raw({"type": "input_audio_buffer.clear"})
            case protocol.Interrupt():
                await session.interrupt()
            case protocol.Message():
                await session.send_message(message.text)
            case protocol.Playback():
                self._playback.reached(message.item_id, message.content_index, message.ms)
            case protocol.ToolApprovalDecision():
                await self._decide(message)
            case _:
                await self._take_picture(message)

    async def _take_picture(
        self, message: protocol.Image | protocol.ImageStart | protocol.ImageChunk | protocol.ImageEnd
    ) -> None:
        match message:
            case protocol.Image():
                await self._show(self._uploads.whole(message.data_url, message.text))
            case protocol.ImageStart():
                self._uploads.start(message.id, message.text)
                await self._send(client_info("image_start_ack", id=message.id))
            case protocol.ImageChunk():
                count = self._uploads.chunk(message.id, message.chunk)
                if count % CONFIRM_EVERY == 0:
                    await self._send(client_info("image_chunk_ack", id=message.id, count=count))
            case protocol.ImageEnd():
                await self._show(self._uploads.end(message.id), id=message.id)
            case _:
                assert_never(message)

    async def _show(self, picture: Picture, **names: str) -> None:
        """Let the agent see a picture."""
        image = {"type": "input_image", "image_url": picture.data_url, "detail": "high"}
        text = {"type": "input_text", "text": picture.text}
        await self._session.send_message({"type": "message", "role": "user", "content": [image, text]})
        await self._send(client_info("image_enqueued", **names, size=len(picture.data_url)))

    async def _decide(self, decision: protocol.ToolApprovalDecision) -> None:
        if decision.approve:
            await self._session.approve_tool_call(decision.call_id, always=decision.always)
        else:
            await self._session.reject_tool_call(decision.call_id, always=decision.always, rejection_message=REFUSED)

    async def _hear(self, audio: bytes) -> None:
        self._uncommitted += len(audio)
        await self._session.send_audio(audio)

    async def _commit(self, *, respond: bool) -> None:
        spoken, self._uncommitted = self._uncommitted, 0
        if respond and spoken < SHORTEST_TURN:
            raise BadMessage("a turn needs at least 100 ms of audio", "commit_audio")
        await self._raw({"type": "input_audio_buffer.commit"})
        if respond:
            await self._raw({"type": "response.create"})

    async def _detect_turns(self) -> None:
        audio = {"input": {"turn_detection": None if self._manual else dict(self._turn_detection)}}
        await self._raw({"type": "session.update", "session": {"type": "realtime", "audio": audio}})

    async def _raw(self, message: dict[str, Any]) -> None:
        await self._session.model.send_event(RealtimeModelSendRawMessage(message))

    async def _send(self, message: dict[str, Any]) -> None:
        if self._websocket.application_state is not WebSocketState.CONNECTED:
            # The other loop has just found out that the page is gone; Starlette would take this for a mistake of ours.
            raise WebSocketDisconnect(GONE)
        await self._websocket.send_text(protocol.encode(message))


def _pcm(samples: list[int]) -> bytes:
    """Return samples as the model wants them."""
    data = array("h", samples)
    if sys.byteorder == "big":
        data.byteswap()
    return data.tobytes()
