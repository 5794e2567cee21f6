"""The receive buffer in a session page: whatever was received and not handled is there for the next owner.

Where the unread bytes start is committed with the message that was handled last; where they end, the kernel's count of the
bytes that were taken says. So receiving itself writes nothing but the bytes.
"""

from __future__ import annotations

from orchestrator.errors import PageError
from orchestrator.transports.receive_buffer import KEEP, MIN_ROOM, READ_SIZE, ReceiveBuffer
from orchestrator.transports.session_page import SessionPage

__all__ = ["SurvivingReceiveBuffer"]


class SurvivingReceiveBuffer(ReceiveBuffer):
    """A `ReceiveBuffer` over a page. `taken` is the kernel's count of bytes taken from the connection so far.

    Raises PageError if that does not fit the page.
    """

    __slots__ = ("_page",)

    def __init__(self, page: SessionPage, taken: int) -> None:
        end = taken - page.in_base
        if not page.in_start <= end <= page.layout.receive_size:
            raise PageError("what was received from this connection does not fit the session page; is it another's?")
        super().__init__(page.receive_area, pending=end)
        self.start = page.in_start
        self._page = page
        self._high = self.capacity  # an earlier owner may have touched all of it

    def room(self) -> memoryview:
        """See `ReceiveBuffer.room`. What is received into it stands where the committed slot says."""
        end = self.end
        if not end:
            if self._high > KEEP:
                self._page.give_back(self._page.layout.receive_at, self._high)
                self._high = 0
        elif self.start and (self.capacity - end < MIN_ROOM or (end > KEEP and self.start > 4 * (end - self.start))):
            # There is no more room, or a peer that never pauses would lead us through all of the area.
            self._copy_without(end, end)
            end = self.end
        return self.view[end : end + READ_SIZE]

    def consume(self, stop: int) -> None:
        """See `ReceiveBuffer.consume`. Staged: the leg commits when the message is handled."""
        page = self._page
        if stop == self.end:
            page.in_base += stop
            page.in_start = self.start = self.end = 0
        else:
            page.in_start = self.start = stop
        page.dirty = True

    def remove(self, start: int, stop: int) -> None:
        """See `ReceiveBuffer.remove`. Staged, too."""
        if start == self.start:
            self.consume(stop)
        elif stop == self.end:
            self._page.in_base += stop - start
            self.end = start
            self._page.dirty = True
        else:
            self._copy_without(start, stop)

    def clear(self) -> None:
        """See `ReceiveBuffer.clear`."""
        if self.end:
            self._page.in_base += self.end
            self._page.in_start = self.start = self.end = 0
            self._page.changed()

    def _copy_without(self, start: int, stop: int) -> None:
        """Go on with a copy of the unread bytes without `view[start:stop]`, in memory that is free on one of their sides.

        Moving them would overlap what the committed slot says is there, and a crash halfway would leave neither.
        """
        view, old_start, old_end = self.view, self.start, self.end
        front, behind = start - old_start, old_end - stop
        size = front + behind
        to = 0 if size <= old_start else old_end
        if to + size > self.capacity:
            raise AssertionError("the receive area is three times what can be unread, so one side has room")
        view[to : to + front] = view[old_start:start]
        view[to + front : to + size] = view[stop:old_end]
        self.start, self.end = to, to + size
        self._high = max(self._high, self.end)
        self._page.in_start = to
        self._page.in_base += old_end - self.end
        self._page.changed()
