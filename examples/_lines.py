"""What is typed on standard input, line by line, without ever holding up the event loop."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from contextlib import suppress

__all__ = ["Lines"]


class Lines:
    """The lines of standard input, whatever it is: a terminal, a pipe or a file. Make it inside the event loop.

    A daemon thread reads them. A thread of asyncio's own pool would be waited for at the end, that is until somebody presses
    Enter; and the loop itself can watch neither a file nor, without making our output non-blocking too, a terminal.
    """

    def __init__(self) -> None:
        # There may be no standard input at all, as in `<&-`.
        self.interactive = bool(sys.stdin and sys.stdin.isatty())
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
        self._ended = not sys.stdin
        if not self._ended:
            threading.Thread(target=self._read, name="stdin", daemon=True).start()

    async def next(self) -> str | None:
        """Return the next line without its end, or None at the end of the input."""
        if self._ended:
            return None
        line = await self._queue.get()
        self._ended = line is None
        return line

    def _read(self) -> None:
        # Unbuffered, and not sys.stdin itself: a thread that waits inside its buffer makes the interpreter abort at exit.
        for line in io.FileIO(sys.stdin.fileno(), closefd=False):
            self._deliver(line.decode(errors="replace").rstrip("\r\n"))
        self._deliver(None)

    def _deliver(self, line: str | None) -> None:
        # The loop may be closed by the time that a line comes; then nobody wants it.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, line)
