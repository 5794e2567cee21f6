"""One WebSocket of the carrier: the messages of Media Streams, as types."""

from __future__ import annotations

from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from orchestrator.errors import WireError
from orchestrator.wire import twilio as wire

__all__ = ["MediaStream"]


class MediaStream:
    """A stream that was accepted. Sending to a carrier that is gone raises WebSocketDisconnect."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._stream_sid = ""

    async def receive(self) -> wire.Inbound | wire.UnknownEvent | None:
        """Return the next message, or None when the carrier is gone. Raises WireError for what is none. Safe to cancel."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            return None
        text: str | None = message.get("text")
        if text is None:
            raise WireError("binary_frame", "messages of Media Streams are text")
        return wire.decode_inbound(text.encode())

    async def wait_for_start(self) -> wire.StartDetails | None:
        """Return what the carrier says of the call before its audio, or None when it leaves first. Raises WireError."""
        while True:
            match await self.receive():
                case wire.Start(start=start, stream_sid=stream_sid):
                    form = start.media_format
                    if (form.encoding, form.sample_rate, form.channels) != ("audio/x-mulaw", 8000, 1):
                        raise WireError("media_format", "only audio/x-mulaw at 8000 Hz with one channel is spoken here")
                    self._stream_sid = stream_sid
                    return start
                case None | wire.Stop():
                    return None
                case wire.Media() | wire.Mark():
                    raise WireError("no_start", "a stream begins with `start`")
                case _:
                    pass  # `connected` comes first, and others may follow with time.

    async def play(self, payload: str) -> None:
        """Send audio, which is base64 already; the carrier plays it after all that it has."""
        await self._send(wire.media_frame(self._stream_sid, payload))

    async def mark(self, name: str | None) -> None:
        """Ask to hear when all that was sent so far was played. Does nothing without a name."""
        if name is not None:
            await self._send(wire.encode(wire.OutMark(stream_sid=self._stream_sid, mark=wire.MarkDetails(name=name))))

    async def clear(self) -> None:
        """Let the carrier drop what it has not played."""
        await self._send(wire.encode(wire.OutClear(stream_sid=self._stream_sid)))

    async def close(self, code: int) -> None:
        """Close the stream, which ends the call; harmless when the carrier is gone."""
        if self._socket.client_state is WebSocketState.CONNECTED and self._socket.application_state is WebSocketState.CONNECTED:
            with suppress(WebSocketDisconnect):
                await self._socket.close(code)

    async def _send(self, data: bytes) -> None:
        await self._socket.send_text(data.decode())
