"""Writes down every frame that an endpoint sends: one line of JSON each, exactly as sent but for the audio, which is left out.

For looking at what was said on the wire afterwards. Several endpoints may write to one file, in several processes too: a line
is one write to the file's end.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from orchestrator.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["RECORD_VARIABLE", "FrameRecord", "record_path"]

RECORD_VARIABLE = "SIMULATOR_RECORD"
"""Names a file: every endpoint of the process, and of the processes that it starts, writes to it."""

# Where the audio is: the beginning of a frame, and the member with the audio in it.
_AUDIO = (
    (b'{"type":"response.output_audio.delta"', b'"delta":"'),
    (b'{"type":"conversation.item.retrieved"', b'"audio":"'),
)

_log = logging.getLogger(__name__)


def record_path() -> Path | None:
    """The file that the environment names, or None."""
    named = os.environ.get(RECORD_VARIABLE)
    return Path(named) if named else None


def without_audio(frame: bytes) -> bytes:
    """The frame with empty audio in place of what it has."""
    for beginning, member in _AUDIO:
        if frame.startswith(beginning):
            # A quotation mark inside a JSON text has a backslash before it: this is found only where a member begins.
            head, *rest = frame.split(member)
            return member.join([head, *(after[after.index(b'"') :] for after in rest)])
    return frame


class FrameRecord:
    """Call it with each frame. `also` hears the frames too. A context manager that closes the file; entering raises UserError.

    The file is written at once, on the caller's thread: what this costs is for diagnosis, not for load. It is made readable for
    its owner only, since it holds what was said.
    """

    def __init__(self, path: Path, also: Callable[[bytes], None] | None = None) -> None:
        self._path = path
        self._also = also
        self._file = -1

    def __enter__(self) -> Self:
        try:
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(f"cannot record frames in {self._path}: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def __call__(self, frame: bytes) -> None:
        """Write a frame down. A file that cannot be written ends the recording, and no session."""
        if self._file >= 0:
            try:
                os.write(self._file, without_audio(frame) + b"\n")
            except OSError as error:
                _log.error("frames are no longer recorded: %s", error.strerror)
                self._close()
        if self._also is not None:
            self._also(frame)

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
