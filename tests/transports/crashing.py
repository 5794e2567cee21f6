"""Dies in the middle of things: code that is left at one of its lines, as by a kill, with nothing cleaned up behind it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any, Final

from orchestrator.transports import outbound, page_audio, page_layout, session_page, surviving_buffer, surviving_writer
from orchestrator.transports.session_page import SessionPage

__all__ = ["Crash", "dying_after", "new_page", "reopened"]

_FILES: Final = {
    module.__file__ for module in (outbound, page_audio, page_layout, session_page, surviving_buffer, surviving_writer)
}


class Crash(BaseException):
    """The process would be dead now."""


@contextlib.contextmanager
def dying_after(lines: int | None) -> Iterator[list[bool]]:
    """Leave the block by a Crash before that line of the page's code is run, if it gets so far; None never does.

    The value's only element says in the end whether it died. The code in question has no `finally` and no broad `except`, so an
    exception leaves its memory as a kill would.
    """
    died = [False]
    left = lines

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in _FILES:
            return None
        if event == "line" and left is not None:
            left -= 1
            if left < 0:
                raise Crash
        return trace

    before = sys.gettrace()
    sys.settrace(trace if lines is not None else before)
    try:
        yield died
    except Crash:
        died[0] = True
    finally:
        sys.settrace(before)


def new_page(
    *, max_message: int = 1000, outbound_bytes: int = 4096, audio_bytes: int = 400, snapshot_bytes: int = 100
) -> SessionPage:
    """A small page, where everything gets full."""
    return SessionPage.create(
        max_message=max_message, outbound_bytes=outbound_bytes, audio_bytes=audio_bytes, snapshot_bytes=snapshot_bytes
    )


def reopened(page: SessionPage) -> SessionPage:
    """The page as another process gets it."""
    fd = os.dup(page.fileno())
    page.close()
    return SessionPage.open(fd)
