"""The WebSocket leg: websockets' Sans-I/O protocol on an asyncio transport, driven by callbacks only.

Rules for editors of this file:

1. The protocol object is only ever fed whole messages, single control frames, or the upgrade. So it never holds a part of
   anything, and the leg can be resumed elsewhere from its socket and its receive buffer. A message in a single frame, which
   the scanner has judged and nothing is remembered of, is not fed at all: this is the path of every frame of audio.
2. Bytes are consumed from the buffer before the listener hears of them, and no state is read across a call to the listener.
3. The first reason for the end wins. `on_closed` is called in `connection_lost` and nowhere else, so never from inside a
   method of the leg.
4. No extension is ever offered or accepted: the window of a compressed stream could not be handed over.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from websockets.client import ClientProtocol
from websockets.frames import EXTERNAL_CLOSE_CODES, Frame, Opcode
from websockets.protocol import SEND_EOF, Side, State
from websockets.server import ServerProtocol

from orchestrator.errors import EndReason, LegClosedError, OrchestratorError, UserError
from orchestrator.transports.base import (
    ABNORMAL_CLOSURE,
    LegListener,
    LegOptions,
    LegState,
    LegStatistics,
    OpenListener,
    RunListener,
    advance,
    reason_for_close,
)
from orchestrator.transports.frame_scanner import Cut, FrameScanner
from orchestrator.transports.keepalive import ControlBudget, Keepalive
from orchestrator.transports.outbound import FrameWriter, Kind
from orchestrator.transports.receive_buffer import ReceiveBuffer, anonymous_buffer, capacity_for
from orchestrator.transports.shared_reader import read_from
from orchestrator.transports.text_run import cut_texts

try:
    from websockets.speedups import apply_mask
except ImportError:  # no wheel with C for this platform
    from websockets.utils import apply_mask

__all__ = ["MESSAGES_PER_TURN", "PROTOCOL_LOGGER", "WebSocketLeg"]

# Messages handed over before the loop gets a turn: one read can hold ten thousand tiny ones, and other legs must not wait.
MESSAGES_PER_TURN: Final = 64

# 125 bytes of payload, of which the code takes 2 (RFC 6455 §5.5.1).
_MAX_CLOSE_TEXT: Final = 123

# At debug level websockets logs headers and messages, that is keys and what callers say: never let it.
PROTOCOL_LOGGER: Final = logging.getLogger("orchestrator.transports.protocol")
PROTOCOL_LOGGER.setLevel(logging.CRITICAL + 1)
PROTOCOL_LOGGER.propagate = False

# Read for every message, and an attribute of an enum costs a look-up each time.
_OPEN: Final = LegState.OPEN
_CONNECTING: Final = LegState.CONNECTING
_CUT_MESSAGE: Final = Cut.MESSAGE
_CUT_WAIT: Final = Cut.WAIT
_PONG: Final = Opcode.PONG
_TEXT: Final = int(Opcode.TEXT)


class WebSocketLeg(asyncio.BufferedProtocol, abc.ABC):
    """One end of a WebSocket connection; implements `Leg`. Made by `connect`, `accept`, `resume` and `serve`.

    `opened` is done when the upgrade is; if it fails, it carries the error, after the connection is gone.
    """

    def __init__(
        self,
        protocol: ClientProtocol | ServerProtocol,
        listener: LegListener,
        *,
        options: LegOptions,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket | None,
        buffer: ReceiveBuffer | None,
        writer: FrameWriter | None = None,
    ) -> None:
        if buffer is not None and buffer.capacity < capacity_for(options.max_message):
            raise UserError(
                f"messages of {options.max_message} bytes need a buffer of {capacity_for(options.max_message)} bytes; "
                f"this one has {buffer.capacity}"
            )
        self.opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[EndReason] = loop.create_future()
        self._loop = loop
        self._protocol = protocol
        self._listener = listener
        self._options = options
        self._reader = options.reader
        self._socket = sock
        self._on_texts: Callable[[list[bytes]], None] | None = None
        self._buffer = anonymous_buffer(options.max_message) if buffer is None else buffer
        # None once nothing more is to be understood: what still arrives is thrown away.
        self._masked = protocol.side is Side.SERVER  # what the peer sends
        self._scanner: FrameScanner | None = FrameScanner(masked=self._masked, max_message=options.max_message)
        self._writer = FrameWriter(options.queue_limit, sock) if writer is None else writer
        self._keepalive = Keepalive(
            loop,
            options.ping_interval,
            options.ping_timeout,
            send_ping=self._send_ping,
            expire=self._keepalive_expired,
        )
        self._control_budget = ControlBudget()
        self._state = LegState.CONNECTING
        self._reason: EndReason | None = None  # why the leg ends, from when that is known
        self._failure: OrchestratorError | None = None  # why the upgrade failed
        self._deadline: asyncio.TimerHandle | None = None  # of the upgrade, then of the end
        self._turn: asyncio.Handle | None = None  # set while received messages wait for the next turn of the loop
        self._messages_in = 0
        self._deaf = False  # while a stall keeps us from reading

    # What the owner of a leg calls.

    @property
    def state(self) -> LegState:
        """Where the leg is in its life."""
        return self._state

    @property
    def close_code(self) -> int | None:
        """See `Leg.close_code`."""
        return self._close_frame()[0] if self._state is LegState.CLOSED else None

    @property
    def close_reason(self) -> str:
        """See `Leg.close_reason`."""
        return self._close_frame()[1] if self._state is LegState.CLOSED else ""

    @property
    def subprotocol(self) -> str | None:
        """The subprotocol that was agreed on, if any; None on a resumed leg."""
        return self._protocol.subprotocol

    def send_text(self, data: bytes) -> None:
        """See `Leg.send_text`."""
        if self._state is _OPEN:
            self._send(data, Kind.MESSAGE)

    def send_texts(self, messages: Sequence[bytes]) -> None:
        """See `Leg.send_texts`."""
        if self._state is not _OPEN:
            return
        for data in messages:
            self._protocol.send_text(data)
        if not self._writer.write_run(self._protocol.data_to_send()):
            self._overflow()

    def send_audio(self, data: bytes) -> None:
        """See `Leg.send_audio`."""
        if self._state is _OPEN:
            self._send(data, Kind.AUDIO)

    def clear_audio(self) -> int:
        """See `Leg.clear_audio`."""
        return self._writer.clear_audio()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """See `Leg.close`."""
        if code not in EXTERNAL_CLOSE_CODES and not 3000 <= code < 5000:
            raise ValueError(f"{code} may not be sent in a close frame; use 1000 to 1014 as defined, or 3000 to 4999")
        if self._state is not LegState.OPEN:
            return
        reason = reason.encode()[:_MAX_CLOSE_TEXT].decode(errors="ignore")
        self._protocol.send_close(code, reason)
        self._begin_closing(reason_for_close(code, reason, "us"))
        self._flush()

    def abort(self, reason: EndReason) -> None:
        """See `Leg.abort`."""
        if self._state is not LegState.CLOSED:
            self._reason = self._reason or reason
            self._kill()

    async def wait_closed(self) -> EndReason:
        """See `Leg.wait_closed`."""
        return await asyncio.shield(self._closed)

    def when_closed(self, callback: Callable[[], object]) -> None:
        """Call `callback` after the leg has ended, in whichever way, also if it was never open."""
        self._closed.add_done_callback(lambda _: callback())

    def statistics(self) -> LegStatistics:
        """See `Leg.statistics`."""
        writer = self._writer
        return LegStatistics(
            messages_in=self._messages_in,
            messages_out=writer.messages_out,
            bytes_in=self._buffer.received_total,
            bytes_out=writer.bytes_out,
            messages_dropped=writer.dropped,
            queued_bytes=writer.queued_bytes,
        )

    def stall(self, *, sending: bool, receiving: bool) -> None:
        """Stand still as a process that hangs, in one direction or both; with neither, go on.

        Replaces an earlier stall. What is sent meanwhile waits, within `queue_limit`, and what the peer sends stays in the
        kernel, its pings and its close frame included. So the keepalive rests; only the end of the connection on this side
        ends the leg. For the endpoint that misbehaves on demand.
        """
        if self._state is not LegState.OPEN:
            return
        self._writer.hold(held=sending)
        self._deaf = receiving
        self._keepalive.stop()
        if not (sending or receiving):
            self._keepalive.start()
        self._read_or_not()

    def as_one(self) -> contextlib.AbstractContextManager[None]:
        """Commit as one what the block sends, saves and pushes, if there is a session page; no `await` in the block."""
        return contextlib.nullcontext()

    def detach(self) -> ReceiveBuffer:
        """Let go of an open connection without ending it, so that `resume` can go on with it here or elsewhere.

        Returns the receive buffer with what was received and not handled yet. Take a duplicate of the socket first: the
        leg closes its own. The listener hears `on_closed` with the code `detached`. Raises UserError if the leg is not
        open, or if something it sent is not yet with the kernel (`statistics().queued_bytes`).
        """
        if self._state is not LegState.OPEN or not self._writer.settled:
            raise UserError("only an open leg with nothing left to write can be detached; wait until queued_bytes is 0")
        if self._writer.encrypted:
            raise UserError("a TLS connection lives in this process's memory and cannot be detached; reconnect instead")
        self._scanner = None
        self._reason = EndReason("detached", "the connection goes on with another owner")
        self._stop_timers()
        self._state = advance(self._state, LegState.CLOSING)
        self._writer.release()
        return self._drop_buffer()

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the upgrade, or go on where an earlier owner stopped."""
        # uvloop's transports have the interface, but not the class.
        self._writer.attach(cast("asyncio.Transport", transport), self._options.write_high)
        if self._state is not LegState.CONNECTING:
            self._writer.abort()  # aborted before it was connected
            return
        if self._protocol.state is State.OPEN:
            self._open()
        else:
            self._start_upgrade()
        # In one go: uvloop starts reading after this in any case, so pausing here would have no effect.
        while self._buffer and self._receive_one():
            pass

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where the next bytes go."""
        return self._buffer.room()

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was received."""
        self._buffer.received(nbytes)
        if self._turn is None:
            self._receive()
        if self._reader is not None and self._state is _OPEN:
            self._writer.pause_reading()

    def read(self) -> bool:
        """Read what has come, when the shared reader says so; return whether there may be more. Not for anybody else."""
        if self._deaf or self._turn is not None:
            return False
        if self._socket is None:
            # Only the transport can read: once, since `buffer_updated` ends it.
            self._writer.resume_reading()
            return False
        room = self._buffer.room()
        count = read_from(self._socket, room)
        if count is None:
            return False
        if not count:
            # The transport sees the same, and knows how a connection ends.
            self._leave_reader()
            self._writer.resume_reading()
            return False
        self._buffer.received(count)
        self._receive()
        return count == len(room)

    def eof_received(self) -> bool:
        """Take the end of the peer's stream: without a close frame before it, the connection broke.

        Messages that wait for their turn are not overtaken: nothing is read meanwhile, the end of the stream included.
        """
        self._protocol.receive_eof()
        if self._state is LegState.CONNECTING:
            self._upgrade_eof()
        else:
            rest = "inside a message" if self._buffer else "without a close frame"
            self._begin_closing(EndReason("connection_lost", f"the peer ended the connection {rest}", None, "network"))
        return False

    def pause_writing(self) -> None:
        """Write no more for now: the peer does not read."""
        self._writer.pause()

    def resume_writing(self) -> None:
        """Write again."""
        self._writer.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the leg: the only place where that happens."""
        self._stop_timers()
        self._scanner = None
        self._drop_buffer()
        self._writer.lost()
        if self._reason is None:
            text = "the connection broke" if exc is None or isinstance(exc, OSError) else "the transport failed"
            self._reason = EndReason("connection_lost", text, None if exc is None else type(exc).__name__, "network")
        was_open = self.opened.done() and not self.opened.cancelled() and self.opened.exception() is None
        self._state = advance(self._state, LegState.CLOSED)
        if was_open:
            self._call(self._listener.on_closed, self._reason)
        elif not self.opened.done():
            self.opened.set_exception(self._failure or LegClosedError(self._reason))
            self.opened.exception()  # whoever opened the leg may have gone; then it is nobody's to retrieve
        self._closed.set_result(self._reason)

    # The upgrade: what the two sides do differently.

    @abc.abstractmethod
    def _start_upgrade(self) -> None:
        """Begin the upgrade; the transport is connected."""

    @abc.abstractmethod
    def _receive_upgrade(self) -> bool:
        """Take upgrade bytes from the buffer; return whether it makes sense to look at the rest at once."""

    @abc.abstractmethod
    def _upgrade_eof(self) -> None:
        """Hear that the peer's stream ended before the upgrade was done."""

    def _fail_upgrade(self, failure: OrchestratorError) -> None:
        """Give up the upgrade. What was written is still sent; `opened` gets the error when the connection is gone."""
        self._failure = failure
        self._scanner = None
        self._buffer.clear()
        self._begin_closing(EndReason("upgrade_failed", failure.message, failure.code))

    # Receiving.

    def _receive(self) -> None:
        if self._on_texts is not None:
            self._receive_texts(self._on_texts)
            if not self._buffer.end:
                return
        for _ in range(MESSAGES_PER_TURN):
            if not self._receive_one() or not self._buffer.end:
                return
        self._writer.pause_reading()
        self._turn = self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._turn = None
        self._receive()
        self._read_or_not()

    def _read_or_not(self) -> None:
        if self._deaf or self._turn is not None or (self._reader is not None and self._state is _OPEN):
            self._writer.pause_reading()
        else:
            self._writer.resume_reading()

    def _receive_texts(self, on_texts: Callable[[list[bytes]], None]) -> None:
        """Hand over what is there of plain text messages in one call; anything else takes the ordinary way."""
        buffer, scanner = self._buffer, self._scanner
        if scanner is None or not scanner.at_message or self._state is not _OPEN:
            return
        messages, stop = cut_texts(
            buffer.view, buffer.start, buffer.end, max_message=self._options.max_message, most=MESSAGES_PER_TURN
        )
        if messages:
            buffer.consume(stop)
            self._messages_in += len(messages)
            self._call(on_texts, messages)

    def _leave_reader(self) -> None:
        if self._reader is not None:
            self._reader.remove(self)
            self._reader = None

    def _receive_one(self) -> bool:
        """Handle one message or control frame; return False if there is none, or if nothing more is to be understood."""
        buffer, scanner = self._buffer, self._scanner
        if scanner is None:
            buffer.clear()
            return False
        if self._state is _CONNECTING:
            return self._receive_upgrade()
        cut = scanner.next(buffer.view, buffer.start, buffer.end)
        if cut is _CUT_WAIT:
            return False
        if cut is _CUT_MESSAGE:
            view, begin, stop = buffer.view, scanner.payload, scanner.stop
            is_text = view[scanner.start] & 0x0F == _TEXT
            if not begin:
                data = view[scanner.start : stop].tobytes()
            elif self._masked:
                data = apply_mask(view[begin:stop], view[begin - 4 : begin].tobytes())
            else:
                data = view[begin:stop].tobytes()
            buffer.consume(stop)
            # After our close frame only the peer's matters.
            if self._state is _OPEN:
                if begin:
                    self._hand_over(data, is_text=is_text)
                else:
                    self._take_fragments(data, is_text=is_text)
        elif cut is Cut.CONTROL:
            data = buffer.view[scanner.start : scanner.stop].tobytes()
            buffer.remove(scanner.start, scanner.stop)
            self._take_control_frame(data)
        elif scanner.violation is not None:
            self._fail(scanner.violation.code, scanner.violation.text)
        return True

    def _take_fragments(self, data: bytes, *, is_text: bool) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        if protocol.parser_exc is not None:
            self._follow_protocol()
            return
        # The upgrade is done, so an event is a frame; here, the frames of one message.
        frames = cast("list[Frame]", protocol.events_received())
        self._hand_over(b"".join([frame.data for frame in frames]), is_text=is_text)

    def _hand_over(self, payload: bytes, *, is_text: bool) -> None:
        if not is_text:
            self._messages_in += 1
            self._call(self._listener.on_binary, payload)
        elif payload.isascii() or _is_utf8(payload):
            self._messages_in += 1
            self._call(self._listener.on_text, payload)
        else:
            # The Sans-I/O layer leaves this check to its user (RFC 6455 §8.1).
            self._fail(1007, "a text message is not valid UTF-8")

    def _take_control_frame(self, data: bytes) -> None:
        if not self._control_budget.spend(self._loop.time()):
            self._fail(1008, "too many control frames")
            return
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame) and event.opcode is _PONG:
                self._keepalive.pong(bytes(event.data))
        if protocol.state is not State.OPEN:
            self._follow_protocol()
        else:
            self._flush()

    # Sending.

    def _send(self, data: bytes, kind: Kind) -> None:
        protocol = self._protocol
        protocol.send_text(data)
        for frame in protocol.data_to_send():
            if not self._writer.write(frame, kind):
                self._overflow()
                return

    def _send_ping(self, payload: bytes) -> None:
        if self._state is LegState.OPEN:
            self._protocol.send_ping(payload)
            self._flush()

    def _flush(self) -> None:
        """Write what the protocol itself has to say."""
        for frame in self._protocol.data_to_send():
            if frame == SEND_EOF:
                self._writer.finish()
            elif not self._writer.write(frame, Kind.CONTROL_FRAME):
                self._overflow()
                return

    def _overflow(self) -> None:
        # A close frame would only join the queue that is full.
        self.abort(EndReason("leg_overflow", "the peer does not read what must not be dropped", None, "network"))

    # The end.

    def _open(self) -> None:
        self._state = advance(self._state, LegState.OPEN)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if not self.opened.done():
            self.opened.set_result(None)
        self._keepalive.start()
        if self._masked and isinstance(self._listener, RunListener):
            self._on_texts = self._listener.on_texts
        if self._reader is not None:
            if self._writer.encrypted:
                self._socket = None
            self._reader.add(self)
        self._announce()

    def _announce(self) -> None:
        if isinstance(self._listener, OpenListener):
            self._call(self._listener.on_open, self)

    def _follow_protocol(self) -> None:
        """Do what follows from a close frame of the peer, or from a fault that the protocol found."""
        protocol = self._protocol
        reason = reason_for_close(*self._close_frame(), "us" if protocol.close_rcvd is None else "peer")
        if protocol.close_rcvd is not None or protocol.parser_exc is not None:
            self._scanner = None
        self._begin_closing(reason)
        self._flush()

    def _fail(self, code: int, text: str, reason: EndReason | None = None) -> None:
        """End the leg for a fault: our close frame, then nothing more is understood until the peer has gone.

        Reading on matters: closing a socket with unread data resets the connection, and the peer may lose our frame.
        """
        self._scanner = None
        self._buffer.clear()
        self._protocol.fail(code, text)
        self._begin_closing(reason or reason_for_close(code, text, "us"))
        self._flush()

    def _begin_closing(self, reason: EndReason) -> None:
        self._reason = self._reason or reason
        if self._state in (LegState.CONNECTING, LegState.OPEN):
            self._state = advance(self._state, LegState.CLOSING)
            self._stop_timers(keep_turn=True)
            self._read_or_not()
            self._deadline = self._loop.call_later(self._options.close_timeout, self._kill)

    def _kill(self) -> None:
        if self._state in (LegState.CONNECTING, LegState.OPEN):
            self._state = advance(self._state, LegState.CLOSING)
        self._scanner = None
        self._stop_timers()
        self._writer.abort()

    def _keepalive_expired(self) -> None:
        self._fail(
            1011,
            "keepalive timeout",
            EndReason("keepalive_timeout", f"no pong in {self._options.ping_timeout} s", None, "network"),
        )
        # Nobody is there to finish a close handshake with.
        self._writer.close()

    def _stop_timers(self, *, keep_turn: bool = False) -> None:
        self._keepalive.stop()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._turn is not None and not keep_turn:
            self._turn.cancel()
            self._turn = None
        self._leave_reader()

    def _drop_buffer(self) -> ReceiveBuffer:
        """Let go of the receive memory, which may be shared or large; only its count stays."""
        dropped, self._buffer = self._buffer, ReceiveBuffer(memoryview(bytearray(1)))
        self._buffer.received_total = dropped.received_total
        return dropped

    def _close_frame(self) -> tuple[int, str]:
        """Return code and text of the close frame that was there first."""
        protocol = self._protocol
        frame = protocol.close_sent if protocol.close_rcvd_then_sent is False else protocol.close_rcvd or protocol.close_sent
        return (ABNORMAL_CLOSURE, "") if frame is None else (int(frame.code), frame.reason)

    def _call(self, callback: Callable[..., None], *arguments: Any) -> None:
        """Call the listener, whose faults end this leg and nothing else."""
        try:
            callback(*arguments)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the loop and the other legs must not feel it
            self._loop.call_exception_handler({"message": "the listener of a leg raised", "exception": exc, "protocol": self})
            if self._state is LegState.OPEN:
                self._fail(1011, "internal error", EndReason("listener_error", "", type(exc).__name__))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
