"""A Realtime API endpoint in memory that says exactly what a test tells it to.

It joins the product's own leg over `transports.memory`, so everything but the network is real. Give `dial` to
`OpenAIRealtimeWebSocketModel(dial=endpoint.dial)`.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from typing import Any

import msgspec

from orchestrator.errors import EndReason
from orchestrator.transports.base import LegListener, LegOptions
from orchestrator.transports.client_leg import ClientLeg
from orchestrator.transports.memory import MemoryPair, memory_pair

__all__ = ["ScriptedEndpoint"]


class ScriptedEndpoint:
    """The server's end of one model session. `received` holds every client event, oldest first."""

    def __init__(self, *, output_format: str = "audio/pcm") -> None:
        self.received: list[dict[str, Any]] = []
        self.url = ""
        self.headers: dict[str, str] = {}
        self.closed: EndReason | None = None
        # The message of the error with which updates of the session are refused, None to confirm them.
        self.refuse_settings: str | None = None
        self._output_format = output_format
        self._pair: MemoryPair | None = None
        self._ids = 0

    async def dial(
        self, url: str, listener: LegListener, *, headers: Mapping[str, str] | None = None, options: LegOptions
    ) -> ClientLeg:
        """Open the session, as `transports.opening.connect` would, and greet."""
        self.url = url
        self.headers = dict(headers or {})
        self._pair = memory_pair(listener, self, options=options)
        self.send("session.created", session=self._session())
        return self._pair.client

    def types(self) -> list[str]:
        """Return the types of what was received, without the caller's audio."""
        return [event["type"] for event in self.received if event["type"] != "input_audio_buffer.append"]

    def last(self, event_type: str) -> dict[str, Any]:
        """Return the latest event of a type."""
        return next(event for event in reversed(self.received) if event["type"] == event_type)

    def send(self, event_type: str, **fields: Any) -> None:
        """Send a server event."""
        self._ids += 1
        self.send_raw(msgspec.json.encode({"type": event_type, "event_id": f"event_{self._ids}", **fields}))

    def send_raw(self, data: bytes) -> None:
        """Send a text message as it is."""
        if self._pair is None:
            raise RuntimeError("nobody has dialled yet")
        self._pair.server.send_text(data)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close in good order."""
        if self._pair is not None:
            self._pair.server.close(code, reason)

    def cut(self) -> None:
        """Cut the line without a close frame."""
        if self._pair is not None:
            self._pair.server_line.cut()

    async def settle(self) -> None:
        """Let everything that is under way arrive, on both sides, without time passing."""
        for _ in range(20):
            await asyncio.sleep(0)

    def start_response(self, response_id: str = "resp_1") -> None:
        """Begin a response of the conversation."""
        self.send("response.created", response=self._response(response_id, "in_progress"))

    def speak(self, words: str, duration_ms: int, *, response_id: str = "resp_1", item_id: str = "item_a") -> None:
        """Add an audio message to the response: its words and so much silent audio, left unfinished."""
        item = {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        self.send("response.output_item.added", response_id=response_id, output_index=0, item=item)
        place = {"response_id": response_id, "item_id": item_id, "output_index": 0, "content_index": 0}
        self.send("response.output_audio_transcript.delta", delta=words, **place)
        self.send("response.output_audio.delta", delta=self.audio(duration_ms), **place)

    def audio(self, duration_ms: int) -> str:
        """Return silent audio in the output format as base64."""
        if self._output_format == "audio/pcm":
            return base64.b64encode(bytes(48 * duration_ms)).decode()
        return base64.b64encode(b"\xff" * (8 * duration_ms)).decode()

    def call_tools(self, *calls: tuple[str, str, str], response_id: str = "resp_1") -> None:
        """Make a whole response of tool calls: (call id, name, arguments)."""
        self.start_response(response_id)
        for index, (call_id, name, arguments) in enumerate(calls):
            item = {
                "id": f"item_{call_id}",
                "type": "function_call",
                "status": "completed",
                "name": name,
                "call_id": call_id,
                "arguments": arguments,
            }
            self.send("response.output_item.done", response_id=response_id, output_index=index, item=item)
        self.end_response(response_id)

    def end_response(self, response_id: str = "resp_1", status: str = "completed") -> None:
        """End a response."""
        usage = {"total_tokens": 30, "input_tokens": 10, "output_tokens": 20}
        self.send("response.done", response=self._response(response_id, status) | {"usage": usage})

    def on_text(self, data: bytes) -> None:
        """Take in a client event; an update of the session is confirmed at once."""
        event = msgspec.json.decode(data)
        self.received.append(event)
        if event["type"] == "session.update" and self.refuse_settings is not None:
            error = {"type": "invalid_request_error", "code": "invalid_value", "message": self.refuse_settings, "param": None}
            self.send("error", error=error | {"event_id": event.get("event_id")})
        elif event["type"] == "session.update":
            self.send("session.updated", session=self._session() | event["session"])

    def on_binary(self, data: bytes) -> None:
        """Fail: the product never sends binary messages to a model."""
        raise AssertionError(f"a binary message of {len(data)} bytes")

    def on_closed(self, reason: EndReason) -> None:
        """Note the end."""
        self.closed = reason

    def _session(self) -> dict[str, Any]:
        form: dict[str, Any] = {"type": self._output_format}
        if self._output_format == "audio/pcm":
            form["rate"] = 24000
        detection = {"type": "server_vad", "create_response": True, "interrupt_response": True}
        return {
            "type": "realtime",
            "object": "realtime.session",
            "id": "sess_scripted",
            "model": "scripted",
            "audio": {"input": {"format": form, "turn_detection": detection}, "output": {"format": form, "voice": "ash"}},
        }

    def _response(self, response_id: str, status: str) -> dict[str, Any]:
        return {
            "object": "realtime.response",
            "id": response_id,
            "status": status,
            "status_details": None,
            "output": [],
            "conversation_id": "conv_1",
            "usage": None,
            "metadata": None,
        }
