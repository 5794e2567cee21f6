"""A caller leg that the death of its process does not end: buffer and writer are in a session page.

What one message leads to is committed when its listener has returned: that it was consumed, what was sent, what was saved and
pushed. So the next owner either sees the message again and nothing of what followed from it, or not again and all of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

from websockets.http11 import Response

from orchestrator.errors import EndReason, LegClosedError, PageError, UserError
from orchestrator.transports.base import LegListener, LegOptions, LegState, reason_for_close
from orchestrator.transports.server_leg import Accept, ServerLeg
from orchestrator.transports.session_page import SessionPage
from orchestrator.transports.surviving_buffer import SurvivingReceiveBuffer
from orchestrator.transports.surviving_writer import SurvivingWriter
from orchestrator.transports.tcp_counters import read_counters

__all__ = ["SurvivingLeg"]

# A close frame without a code (RFC 6455 §7.1.5).
_NO_CODE = 1005


class SurvivingLeg(ServerLeg):
    """A leg that a client opened, over a page: to us if the page is not `opened`, else to an earlier owner.

    `head` is what was read from the socket before the page had it; if the page has had it already, it is not looked at.
    Raises LegClosedError if the connection is over, UserError if the page does not suit, and PageError if it belongs to
    another connection, is damaged, or is one that the kernel does not count bytes for.
    """

    def __init__(
        self,
        page: SessionPage,
        decision: Accept,
        *,
        options: LegOptions,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        head: bytes = b"",
    ) -> None:
        if options.max_message > page.layout.max_message:
            raise UserError(
                f"messages of {options.max_message} bytes need a page made for them; this one takes {page.layout.max_message}"
            )
        counters = read_counters(sock)
        if counters.closed:
            raise LegClosedError(EndReason("connection_lost", "the connection ended while nobody had it", None, "network"))
        # An urgent byte would be left out of what is read, but not out of what is counted.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        if not page.bound:
            page.bind(sock, counters, head)
        elif not page.is_of(sock):
            raise PageError("the session page belongs to another connection")
        listener: LegListener | None = decision.listener if page.opened else None
        self._page = page
        self._surviving_writer = SurvivingWriter(page, counters.written, options.queue_limit, sock, loop)
        super().__init__(
            lambda _: decision,
            options=options,
            loop=loop,
            sock=sock,
            buffer=SurvivingReceiveBuffer(page, counters.taken),
            writer=self._surviving_writer,
            resumed=page.opened,
            listener=listener,
        )

    def _receive_one(self) -> bool:
        page = self._page
        page.staging = True
        try:
            return super()._receive_one()
        finally:
            page.staging = False
            if page.dirty:
                page.commit()
                self._surviving_writer.settle()

    @contextlib.contextmanager
    def as_one(self) -> Iterator[None]:
        """See `WebSocketLeg.as_one`. A message of the caller is handled like this anyway."""
        page = self._page
        staging, page.staging = page.staging, True
        try:
            yield
        finally:
            page.staging = staging
            page.changed()
            if not staging:
                self._surviving_writer.settle()

    def _start_upgrade(self) -> None:
        if self._page.finished:
            # The last owner refused the upgrade; what is left of its answer is on its way.
            reason = EndReason("upgrade_failed", "the upgrade was refused by an earlier owner")
            self._fail_upgrade(LegClosedError(reason))
        else:
            super()._start_upgrade()

    def _write_and_finish(self, response: Response) -> None:
        # A new owner must find the answer with its end, or neither, in which case it answers itself.
        with self.as_one():
            super()._write_and_finish(response)

    def _fail(self, code: int, text: str, reason: EndReason | None = None) -> None:
        # What is thrown away and the close frame belong together.
        with self.as_one():
            super()._fail(code, text, reason)

    def _open(self) -> None:
        self._page.mark_opened()
        super()._open()

    def _announce(self) -> None:
        if self._page.close_code:
            self._close_again()
        super()._announce()

    def _close_again(self) -> None:
        """Go on with the end that an earlier owner had begun: nothing more is heard or sent."""
        page, code = self._page, self._page.close_code
        # So that the peer's answer is known for one; the frame itself is in the page.
        self._protocol.send_close(None if code == _NO_CODE else code)
        self._protocol.data_to_send()
        if page.finished:
            self._scanner = None
        self._begin_closing(reason_for_close(code, "", "peer" if page.closed_by_peer else "us"))

    def _begin_closing(self, reason: EndReason) -> None:
        # Before the frame that is about to be written, and committed with it.
        protocol = self._protocol
        if self._state is LegState.OPEN and not self._page.close_code and (protocol.close_sent or protocol.close_rcvd):
            self._page.mark_closing(self._close_frame()[0], by_peer=protocol.close_rcvd is not None)
        super()._begin_closing(reason)
