"""Entries on the node's own disk while the store does not answer: one file, appended to, emptied from the front.

A record is its length, its checksum and one entry in MessagePack. A record torn by a crash ends the file: it was never
acknowledged. What is confirmed is dropped when all is; a crash before that writes some entries to the store twice, which it
notices. All methods block, the first one that asks for the contents the longest, since it reads them all: they belong in a
thread, one at a time. Opening alone does not.
"""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import msgspec

from orchestrator.errors import JournalUnavailableError
from orchestrator.journal.entries import Entry
from orchestrator.telemetry.logs import get_logger

__all__ = ["SpoolFile"]

_HEAD = struct.Struct(">II")
# A length beyond this is damage, not an entry.
_LONGEST = 64 * 1024 * 1024
_ADOPTED_AT_ONCE = 512

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Entry)
_log = get_logger()


class SpoolFile:
    """The spool in `path`, of `limit` bytes at most, with what a predecessor left in it: `entries` says how many.

    `orphans` are spools that nobody may come back to: what is in them goes to the end of this one, as far as there is room and
    nobody has them open. Only the owner of the process may read it: it holds what was said. Raises OSError where the file
    cannot be opened, or is another process's.
    """

    def __init__(self, path: Path, limit: int, *, orphans: Sequence[Path] = ()) -> None:
        self._limit = limit
        self._orphans = orphans
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file: BinaryIO = _open_locked(path, os.O_CREAT)
        try:
            # A new file has to be found after a power cut, too.
            directory = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError:
            self._file.close()
            raise
        self._recovered = False
        self._confirmed_at = 0
        self._end = 0
        self._entries = 0

    @property
    def entries(self) -> int:
        """How many entries are not confirmed. Raises OSError where the disk fails."""
        self._recover()
        return self._entries

    @property
    def size(self) -> int:
        """Bytes that are not confirmed. Raises OSError where the disk fails."""
        self._recover()
        return self._end - self._confirmed_at

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries and wait until they are on disk.

        Raises JournalUnavailableError, writing nothing, where they exceed the limit or the disk fails.
        """
        self._recover()
        data = b"".join(map(_record, entries))
        if self._end + len(data) > self._limit:
            raise JournalUnavailableError(f"the spool is full ({self._limit} bytes): bring the journal's store back")
        try:
            self._write(data)
            os.fdatasync(self._file.fileno())
        except OSError as error:
            # Half a write must not be found by a successor.
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self._end)
            raise JournalUnavailableError(f"the spool cannot be written: {error.strerror}") from error
        self._end += len(data)
        self._entries += len(entries)

    def read(self, most: int) -> list[Entry]:
        """Return the oldest entries that are not confirmed, in order, `most` at most."""
        self._recover()
        found: list[Entry] = []
        at = self._confirmed_at
        while len(found) < most and (size := self._record_size(at)) is not None:
            body = os.pread(self._file.fileno(), size - _HEAD.size, at + _HEAD.size)
            found.append(_decoder.decode(body))
            at += size
        return found

    def confirm(self, entries: int) -> None:
        """Drop so many of the oldest entries. What cannot be read hides all that is behind it, and goes with that."""
        self._recover()
        for _ in range(entries):
            size = self._record_size(self._confirmed_at)
            if size is None:
                self._confirmed_at = self._end
                break
            self._confirmed_at += size
            self._entries -= 1
        if self._confirmed_at >= self._end:
            os.ftruncate(self._file.fileno(), 0)
            self._confirmed_at = self._end = self._entries = 0

    def skip(self, entries: int) -> None:
        """Take so many of the oldest entries as confirmed, and leave them in the file."""
        self._recover()
        for _ in range(entries):
            size = self._record_size(self._confirmed_at)
            if size is None:
                return
            self._confirmed_at += size

    def close(self) -> None:
        """Close the file; what is in it stays."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _recover(self) -> None:
        if self._recovered:
            return
        self._end = self._entries = 0
        while (size := self._record_size(self._end)) is not None:
            self._end += size
            self._entries += 1
        os.ftruncate(self._file.fileno(), self._end)
        self._recovered = True
        for path in self._orphans:
            # Another process may be faster, or at work on it after all.
            with suppress(OSError, JournalUnavailableError, msgspec.MsgspecError):
                self._adopt(path)

    def _adopt(self, path: Path) -> None:
        """Take over what is in another spool, then remove it. Twice, if a crash comes between; the store notices that."""
        if not path.exists():
            return
        with SpoolFile(path, self._limit) as orphan:
            entries = orphan.entries
            for _ in range(0, entries, _ADOPTED_AT_ONCE):
                found = orphan.read(_ADOPTED_AT_ONCE)
                self.append(found)
                orphan.skip(len(found))
            # Locked until it is gone, so that nobody opens it and writes to what has no name any more.
            path.unlink()
        if entries:
            _log.warning("journal_spool_adopted", name=path.name, entries=entries)

    def _write(self, data: bytes) -> None:
        # A disk that is nearly full takes a part and says so; only the next call fails.
        done = 0
        while done < len(data):
            done += os.pwrite(self._file.fileno(), memoryview(data)[done:], self._end + done)

    def _record_size(self, at: int) -> int | None:
        """Return the size of the whole and sound record at this place, or None."""
        head = os.pread(self._file.fileno(), _HEAD.size, at)
        if len(head) < _HEAD.size:
            return None
        length, checksum = _HEAD.unpack(head)
        if length > _LONGEST:
            return None
        body = os.pread(self._file.fileno(), length, at + _HEAD.size)
        return _HEAD.size + length if len(body) == length and zlib.crc32(body) == checksum else None


def _open_locked(path: Path, flags: int) -> BinaryIO:
    """Open a spool for this process alone. Raises OSError where another one has it."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | flags, 0o600), "r+b", buffering=0)
        try:
            # Two writers in one file would tear each other's records. The kernel lets go when a process dies.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    return file
            # Somebody has adopted it in between: this one is no file of anybody's any more.
            file.close()
        except OSError:
            file.close()
            raise


def _record(entry: Entry) -> bytes:
    body = _encoder.encode(entry)
    return _HEAD.pack(len(body), zlib.crc32(body)) + body
