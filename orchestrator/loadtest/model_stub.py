"""The model endpoint of a load test: speaks just enough of the Realtime API, in labelled audio, and measures what it hears.

Run as a process of its own, so that its work is not counted as the service's: `python -m orchestrator.loadtest.model_stub`.
It prints one JSON line with its port, then answers one-word commands on standard input with one JSON line each (see
`ModelStub.command`) until that is closed. Unlike the offline endpoint it neither listens to the audio nor keeps a
conversation: every session talks half of the time, in real time, whatever is said to it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import signal
import sys
import time
from typing import Any

import msgspec
import uvloop
from websockets.http11 import Request

from orchestrator.errors import EndReason
from orchestrator.loadtest.histogram import Histogram
from orchestrator.loadtest.tag import TAG_BYTES, Tag, make_tag, read_tag
from orchestrator.simulator.carrier.playout import BYTES_PER_MS, FRAME_BYTES
from orchestrator.transports.base import Leg, LegListener, LegOptions
from orchestrator.transports.leg_server import serve
from orchestrator.transports.server_leg import Accept

__all__ = ["ModelStub", "StubCounts", "main"]

MAX_LEGS = 4096
DELTA_MS = 110
DELTA_BYTES = DELTA_MS * BYTES_PER_MS
DELTAS_PER_RESPONSE = 50
PAUSE_SECONDS = DELTAS_PER_RESPONSE * DELTA_MS / 1000
_FIRST_WORD_SECONDS = 0.2
_GOLDEN_RATIO = 0.618034
_FILLER = base64.b64encode(b"\xd0" * (DELTA_BYTES - TAG_BYTES))
_FORMAT = {"type": "audio/pcmu"}
_AUDIO_KEY = b'"audio":"'


class StubCounts(msgspec.Struct, kw_only=True):
    """What the stub has seen so far, over all sessions. Frames and deltas are counted by their labels."""

    sessions: int = 0
    open_sessions: int = 0
    frames_received: int = 0
    deltas_sent: int = 0
    delta_bytes_sent: int = 0
    deltas_unsent: int = 0
    unlabelled: int = 0
    latency: list[tuple[int, int]] = []


class ModelStub:
    """All sessions of one stub, and their sums."""

    def __init__(self) -> None:
        self.counts = StubCounts()
        self.latency = Histogram()
        self.measure_from_ns: int | None = None
        self.quiet = False
        self._sessions: set[_Session] = set()

    def accept(self, request: Request) -> Accept:
        """Take every connection."""
        del request
        self.counts.sessions += 1
        return Accept(_Session(self, self.counts.sessions))

    def command(self, word: str) -> StubCounts:
        """Perform a command and return the counts.

        `measure` starts to note latencies, `hold` stops noting them, `quiet` ends all responses and starts no more, and
        `count` does nothing else.
        """
        if word == "measure":
            self.measure_from_ns = time.monotonic_ns()
        elif word == "hold":
            self.measure_from_ns = None
        elif word == "quiet":
            self.quiet = True
            for session in list(self._sessions):
                session.fall_silent()
        elif word != "count":
            raise ValueError(f"no such command: {word!r}")
        self.counts.open_sessions = len(self._sessions)
        self.counts.latency = self.latency.pairs()
        return self.counts

    def opened(self, session: _Session) -> None:
        """Note a session whose leg is open."""
        self._sessions.add(session)

    def closed(self, session: _Session, unsent: int) -> None:
        """Note the end of a session, and how many messages its leg threw away."""
        self._sessions.discard(session)
        self.counts.deltas_unsent += unsent

    def heard(self, audio: bytes) -> None:
        """Note one appended payload: a frame, or several that the service put together."""
        now = time.monotonic_ns()
        for start in range(0, len(audio), FRAME_BYTES):
            tag = read_tag(audio[start : start + TAG_BYTES])
            if tag is None:
                self.counts.unlabelled += 1
                continue
            self.counts.frames_received += 1
            if self.measure_from_ns is not None and tag.sent_ns >= self.measure_from_ns:
                self.latency.add((now - tag.sent_ns) // 1000)


class _Session(LegListener):
    """One model session. It greets nobody: it starts to talk at a moment of its own, then talks and pauses in turn."""

    def __init__(self, stub: ModelStub, number: int) -> None:
        self._stub = stub
        self._number = number
        self._leg: Leg | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._events = self._responses = self._deltas = 0
        self._config: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": f"sess_{number}",
            "model": "load-test",
            "output_modalities": ["audio"],
            "instructions": "",
            "tools": [],
            "tool_choice": "auto",
            "audio": {
                "input": {"format": {"type": "audio/pcmu"}},
                "output": {"format": {"type": "audio/pcmu"}, "voice": "alloy"},
            },
        }
        self._response_id = self._item_id = ""
        self._began_at = 0.0
        self._left = 0

    def on_open(self, leg: Leg) -> None:
        self._leg = leg
        self._stub.opened(self)
        self._send("session.created", session=self._config)
        # Spread evenly over one turn of talking and pausing, however many sessions there are; the first one starts at once.
        self._plan(_FIRST_WORD_SECONDS + (self._number - 1) * _GOLDEN_RATIO % 1 * 2 * PAUSE_SECONDS)

    def on_text(self, data: bytes) -> None:
        data = bytes(data)
        if data.startswith(b'{"type":"input_audio_buffer.append"'):
            start = data.find(_AUDIO_KEY) + len(_AUDIO_KEY)
            self._stub.heard(base64.b64decode(data[start : data.find(b'"', start)]))
            return
        event: dict[str, Any] = msgspec.json.decode(data)
        kind = event.get("type")
        if kind == "session.update":
            _merge(self._config, event["session"])
            self._send("session.updated", session=self._config)
        elif kind == "response.create" and not self._left:
            self._begin()
        elif kind == "response.cancel" and self._left:
            self._finish("cancelled")
        elif kind == "conversation.item.truncate":
            fields = {name: event[name] for name in ("item_id", "content_index", "audio_end_ms")}
            self._send("conversation.item.truncated", **fields)

    def on_binary(self, data: bytes) -> None:
        del data

    def on_closed(self, reason: EndReason) -> None:
        del reason
        if self._timer is not None:
            self._timer.cancel()
        assert self._leg is not None  # noqa: S101 - a leg that was never open closes nothing
        self._stub.closed(self, self._leg.statistics().messages_dropped)

    def fall_silent(self) -> None:
        """End the response, if one is active, and start no other."""
        if self._left:
            self._finish("completed")

    def _plan(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, self._begin)

    def _begin(self) -> None:
        if self._stub.quiet or self._left:
            return
        self._responses += 1
        self._response_id, self._item_id = f"resp_{self._number}_{self._responses}", f"item_{self._number}_{self._responses}"
        self._left = DELTAS_PER_RESPONSE
        self._began_at = asyncio.get_running_loop().time()
        item = self._item("in_progress", [])
        self._send("response.created", response=self._response("in_progress", []))
        self._send("response.output_item.added", response_id=self._response_id, output_index=0, item=item)
        self._send("conversation.item.added", previous_item_id=None, item=item)
        self._send_part("response.content_part.added", part={"type": "audio", "transcript": ""})
        self._send_part("response.output_audio_transcript.delta", delta="Load.")
        self._speak()

    def _speak(self) -> None:
        assert self._leg is not None  # noqa: S101 - the timer runs only while the leg is open
        self._deltas += 1
        self._events += 1
        tag = base64.b64encode(make_tag(Tag(self._number, self._deltas, time.monotonic_ns())))
        head = (
            f'{{"type":"response.output_audio.delta","event_id":"event_{self._number}_{self._events}",'
            f'"response_id":"{self._response_id}","item_id":"{self._item_id}","output_index":0,"content_index":0,"delta":"'
        )
        self._leg.send_audio(b"".join((head.encode(), tag, _FILLER, b'"}')))
        self._stub.counts.deltas_sent += 1
        self._stub.counts.delta_bytes_sent += DELTA_BYTES
        self._left -= 1
        if not self._left:
            self._finish("completed")
            return
        due = self._began_at + (DELTAS_PER_RESPONSE - self._left) * DELTA_MS / 1000
        self._timer = asyncio.get_running_loop().call_at(due, self._speak)

    def _finish(self, status: str) -> None:
        self._left = 0
        content = [{"type": "output_audio", "transcript": "Load."}]
        item = self._item("completed" if status == "completed" else "incomplete", content)
        self._send_part("response.output_audio.done")
        self._send_part("response.output_audio_transcript.done", transcript="Load.")
        self._send_part("response.content_part.done", part={"type": "audio", "transcript": "Load."})
        self._send("conversation.item.done", previous_item_id=None, item=item)
        self._send("response.output_item.done", response_id=self._response_id, output_index=0, item=item)
        self._send("response.done", response=self._response(status, [item]))
        self._plan(PAUSE_SECONDS)

    def _item(self, status: str, content: list[dict[str, str]]) -> dict[str, Any]:
        return {"id": self._item_id, "type": "message", "status": status, "role": "assistant", "content": content}

    def _response(self, status: str, output: list[dict[str, Any]]) -> dict[str, Any]:
        details = {"type": "cancelled", "reason": "client_cancelled"} if status == "cancelled" else None
        return {
            "object": "realtime.response",
            "id": self._response_id,
            "status": status,
            "status_details": details,
            "output": output,
            "conversation_id": f"conv_{self._number}",
            "output_modalities": ["audio"],
            "usage": None,
            "metadata": None,
        }

    def _send_part(self, kind: str, **fields: Any) -> None:
        ids = {"response_id": self._response_id, "item_id": self._item_id, "output_index": 0, "content_index": 0}
        self._send(kind, **ids, **fields)

    def _send(self, kind: str, **fields: Any) -> None:
        assert self._leg is not None  # noqa: S101 - nothing is sent before on_open
        self._events += 1
        self._leg.send_text(msgspec.json.encode({"type": kind, "event_id": f"event_{self._number}_{self._events}", **fields}))


def _merge(target: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


async def _run(port: int) -> None:
    stub = ModelStub()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with serve(stub.accept, "127.0.0.1", port, LegOptions(), max_legs=MAX_LEGS) as server:
        _write({"port": server.port})
        while word := (await reader.readline()).decode().strip():
            _write(stub.command(word))


def _write(answer: Any) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Run the stub until standard input is closed."""
    parser = argparse.ArgumentParser(description="The model endpoint of a load test. Started by `orchestrator loadtest`.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1, 0 for any free one")
    # Ctrl-C reaches all processes of the terminal, and the parent ends this one in good order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvloop.run(_run(parser.parse_args().port))


if __name__ == "__main__":
    main()
