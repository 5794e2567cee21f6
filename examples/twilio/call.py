"""One telephone call: the carrier's stream on one side, a session on the other. Read this one."""

from __future__ import annotations

import base64
import binascii

from starlette.websockets import WebSocketDisconnect

from examples._talk import until_first
from examples._transcript import Transcript
from examples.twilio.stream import MediaStream
from orchestrator.errors import WireError
from orchestrator.realtime import RealtimeModelSendRawMessage, RealtimeSession
from orchestrator.realtime.events import RealtimeAudio, RealtimeAudioEnd, RealtimeAudioInterrupted
from orchestrator.realtime.mark_playback import MarkPlaybackTracker
from orchestrator.wire import twilio as wire

__all__ = ["PhoneCall"]


class PhoneCall:
    """Carries audio both ways until one side ends. `tracker` is the session's own: it knows what the phone has played."""

    def __init__(
        self, stream: MediaStream, session: RealtimeSession, tracker: MarkPlaybackTracker, transcript: Transcript
    ) -> None:
        self._stream = stream
        self._session = session
        self._tracker = tracker
        self._transcript = transcript

    async def run(self) -> str:
        """Hold the call; return who ended it.

        Raises WireError for a message of the carrier that is none, and what the session raises when its model is lost.
        """
        # The agent speaks first.
        await self._session.model.send_event(RealtimeModelSendRawMessage({"type": "response.create"}))
        try:
            ended_by: str = await until_first(self._listen(), self._speak())
        except WebSocketDisconnect:
            return "the caller"
        return ended_by

    async def _listen(self) -> str:
        """Pass on what comes from the phone."""
        while True:
            match await self._stream.receive():
                case wire.Media(media=media):
                    await self._session.send_audio(_decoded(media.payload))
                case wire.Mark(mark=mark):
                    self._tracker.on_mark(mark.name)
                case wire.Dtmf(dtmf=dtmf):
                    self._transcript.note(f"  [key {dtmf.digit}]")
                case None | wire.Stop():
                    return "the caller"
                case _:
                    pass

    async def _speak(self) -> str:
        """Pass on what comes from the agent."""
        async for event in self._session:
            match event:
                case RealtimeAudio(audio=audio, item_id=item_id, content_index=index):
                    await self._stream.play(audio.payload)
                    await self._stream.mark(self._tracker.on_sent(item_id, index, audio.duration_ms))
                case RealtimeAudioEnd():
                    await self._stream.mark(self._tracker.on_audio_end())
                case RealtimeAudioInterrupted():
                    # In this order: the carrier answers by echoing the marks of what it drops.
                    self._tracker.on_clear()
                    await self._stream.clear()
                case _:
                    pass
            self._transcript.take(self._session, event)
        return "the model"


def _decoded(payload: str) -> bytes:
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error:
        raise WireError("invalid_audio", "the payload of a media message is not base64") from None
