"""What a caller has said that the model could not repeat: the audio that a new connection must be told of.

A turn whose words are known is told as text. What remains is the turn that is being spoken, and turns whose words are not known
yet. Frames lie in a store, numbered since the call began; this says which of them are still needed. While nobody speaks about
the last second is, since the model puts some of it before the speech that follows.

Positions in the model's own events are milliseconds of audio since its connection began; a checkpoint, a frame number and the
milliseconds before it, turns one into the other.
"""

from __future__ import annotations

import binascii
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from orchestrator.wire.payload import base64_length

__all__ = ["AudioStore", "CallerAudio", "MemoryAudioStore", "joined"]

# Kept while nobody speaks: prefix padding, and what is on its way when speech begins.
KEEP_MS = 1000.0
# How many frames come between two looks at what may go.
TRIM_EVERY = 100
# Letters of base64: two minutes at 24 kHz PCM16, twelve of telephone audio.
MOST_LETTERS = 8 * 1024 * 1024
# Turns whose words never came, the latest ones.
MOST_TURNS = 64


class AudioStore(Protocol):
    """Frames as base64 payloads. Numbers are counts of payloads since the call began."""

    @property
    def first(self) -> int:
        """Number of the oldest payload that is still there."""

    @property
    def end(self) -> int:
        """Number that the next payload will get."""

    def push(self, payload: str) -> None:
        """Add a payload; when there is no room, the oldest go."""

    def drop_before(self, number: int) -> None:
        """Forget the payloads before this one."""

    def payloads(self, start: int) -> Iterator[str]:
        """Return the payloads from this number on, or from the oldest that is there."""


class MemoryAudioStore:
    """A store in the memory of the process. `limit` bounds it, in letters of base64."""

    __slots__ = ("_letters", "_limit", "_payloads", "end", "first")

    def __init__(self, limit: int = MOST_LETTERS) -> None:
        self._payloads: deque[str] = deque()
        self._limit = limit
        self._letters = 0
        self.first = 0
        self.end = 0

    def push(self, payload: str) -> None:
        """Add a payload; when there is no room, the oldest go."""
        self._payloads.append(payload)
        self.end += 1
        self._letters += len(payload)
        if self._letters > self._limit:
            self._make_room()

    def drop_before(self, number: int) -> None:
        """Forget the payloads before this one."""
        count = min(number, self.end) - self.first
        if count > 0:
            take = self._payloads.popleft
            self._letters -= sum([len(take()) for _ in range(count)])
            self.first += count

    def payloads(self, start: int) -> Iterator[str]:
        """Return the payloads from this number on, or from the oldest that is there."""
        return itertools.islice(self._payloads, max(0, start - self.first), None)

    def _make_room(self) -> None:
        while self._letters > self._limit:
            self._letters -= len(self._payloads.popleft())
            self.first += 1


class CallerAudio:
    """Which frames of a store are still needed. Use `push` for each frame; everything else is rare.

    Without turn detection (`detects` False) turns end where the client commits.
    """

    __slots__ = (
        "_bytes_per_ms",
        "_checkpoint",
        "_commits",
        "_detects",
        "_gap",
        "_speaking",
        "_stopped",
        "_store",
        "_store_push",
        "_trim_at",
        "_turn_from",
        "_turns",
        "frames_lost",
    )

    def __init__(self, store: AudioStore, *, detects: bool = True, bytes_per_ms: float = 48.0) -> None:
        self._store = store
        self._store_push = store.push
        self._detects = detects
        self._bytes_per_ms = bytes_per_ms
        # A frame, and the milliseconds of this connection's audio before it.
        self._checkpoint = (store.end, 0.0)
        # Where the turn in progress begins; while nobody speaks, the oldest frame that could belong to the next one.
        self._turn_from = store.end
        self._speaking = False
        # Turns that are items without words: first frame, and the one after the last.
        self._turns: dict[str, tuple[int, int]] = {}
        # Ends of the model's own turns that it has not made items of yet.
        self._stopped: dict[str, int] = {}
        # Turns that the client has committed, oldest first, until the model confirms them.
        self._commits: deque[tuple[int, int]] = deque()
        self._gap = False
        self._trim_at = store.end + TRIM_EVERY
        # Frames that were needed and for which there was no room.
        self.frames_lost = 0

    @property
    def end(self) -> int:
        """Number of the frame that comes next."""
        return self._store.end

    @property
    def speaking(self) -> bool:
        """Is there a turn in progress? Without turn detection: has anything come since the last commit?"""
        return self._speaking if self._detects else self._turn_from < self._store.end

    @property
    def unheard(self) -> bool:
        """Has the client committed a turn that the model has not confirmed?"""
        return bool(self._commits)

    @property
    def waiting(self) -> int:
        """How many turns wait for their words."""
        return len(self._turns)

    @property
    def position_ms(self) -> float:
        """Where the audio lies, on this connection's line, that a new connection would be told first."""
        return self._ms_at(self._oldest())

    def push(self, payload: str) -> None:
        """Take a frame of the caller. The audio path: no more than this happens for each."""
        self._store_push(payload)
        if self._store.end >= self._trim_at:
            self._trim()

    def configure(self, *, detects: bool, bytes_per_ms: float) -> None:
        """The session's settings are these from here on. Audio of another format is void, as it is at the model."""
        if bytes_per_ms != self._bytes_per_ms:
            self._checkpoint = (self._store.end, self._ms_at(self._store.end))
            self._bytes_per_ms = bytes_per_ms
            self._commits.clear()
            self._turns.clear()
            self._turn_from = self._store.end
            self._speaking = False
        if detects != self._detects:
            self._detects = detects
            self._speaking = False

    def speech_started(self, start_ms: float) -> None:
        """The model heard somebody begin, at this position of the connection's audio."""
        self._speaking = True
        self._turn_from = max(self._turn_from, self._frame_at(start_ms))

    def speech_stopped(self, item_id: str, end_ms: float) -> None:
        """The model heard the end of the turn that will be this item."""
        self._stopped[item_id] = min(max(self._frame_at(end_ms), self._turn_from), self._store.end)

    def commit_sent(self) -> None:
        """The client ends the turn by hand, after all that was pushed."""
        self._commits.append((self._turn_from, self._store.end))
        self._turn_from = self._store.end

    def commit_refused(self) -> None:
        """The model found too little to commit: what there is belongs to the turn that comes next."""
        if not self._commits:
            return
        start, end = self._commits.popleft()
        if self._commits and self._commits[0][0] == end:
            self._commits[0] = (start, self._commits[0][1])
        elif self._turn_from == end:
            self._turn_from = start

    def cleared(self) -> None:
        """The client throws away what was pushed and not committed."""
        self._turn_from = self._store.end
        self._speaking = False

    def committed(self, item_id: str) -> None:
        """A turn has become this item; its audio is kept until its words are known."""
        end = self._stopped.pop(item_id, None)
        if end is None and self._commits:
            start, end = self._commits.popleft()
        else:
            start, end = self._turn_from, self._store.end if end is None else end
            self._turn_from = max(start, end)
        if end > start:
            self._turns[item_id] = (start, end)
            while len(self._turns) > MOST_TURNS:
                del self._turns[next(iter(self._turns))]
        self._speaking = False
        self._stopped.clear()

    def settled(self, item_id: str) -> None:
        """The words of an item are known, or it is gone."""
        if self._turns.pop(item_id, None) is not None:
            self._trim()

    def audio_of(self, item_id: str) -> str | None:
        """Return the audio of an item whose words are not known, as one payload; None when there is none."""
        turn = self._turns.get(item_id)
        if turn is None:
            return None
        return joined(self.between(*turn)) or None

    def lost(self) -> None:
        """The connection is gone: everything is kept until there is another one."""
        self._gap = True
        self._speaking = False
        self._stopped.clear()

    def replayed(self) -> list[tuple[int, int, bool]]:
        """Return what the new connection is to be told, in order: first frame, the one after the last, and whether the client
        committed them. From here on positions count from the first of these frames.
        """
        store = self._store
        self.frames_lost += max(0, store.first - self._oldest())
        self._turn_from = max(self._turn_from, store.first)
        pieces = [(start, end, True) for start, end in self._commits]
        before = sum(base64_length(payload) for start, end, _ in pieces for payload in self.between(start, end))
        pieces.append((self._turn_from, store.end, False))
        self._checkpoint = (self._turn_from, before / self._bytes_per_ms)
        self._gap = False
        self._trim_at = store.end + TRIM_EVERY
        return pieces

    def between(self, start: int, end: int) -> Iterator[str]:
        """Return the frames from `start` up to `end`, as far as they are there."""
        start = max(start, self._store.first)
        return itertools.islice(self._store.payloads(start), max(0, end - start))

    def state(self) -> dict[str, Any]:
        """Return all of this but the frames, as JSON can hold it."""
        return {
            "turn_from": self._turn_from,
            "speaking": self._speaking,
            "detects": self._detects,
            "bytes_per_ms": self._bytes_per_ms,
            "turns": {item_id: list(turn) for item_id, turn in self._turns.items()},
            "commits": [list(turn) for turn in self._commits],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with a store that another process filled, from what its `state` was; the connection is gone."""
        # Since then some may have gone that nobody needed.
        self._turn_from = max(int(state["turn_from"]), self._store.first)
        self._detects = bool(state["detects"])
        self._bytes_per_ms = float(state["bytes_per_ms"])
        self._turns = {item_id: (int(start), int(end)) for item_id, (start, end) in state["turns"].items()}
        self._commits = deque((int(start), int(end)) for start, end in state["commits"])
        self._checkpoint = (self._turn_from, 0.0)
        self.lost()

    def _trim(self) -> None:
        """Let go of what nobody needs."""
        store = self._store
        self._trim_at = store.end + TRIM_EVERY
        if self._detects and not (self._gap or self._speaking or self._commits or self._stopped):
            self._follow_silence()
        elif self._turn_from > self._checkpoint[0] and not self._gap:
            self._checkpoint = (self._turn_from, self._ms_at(self._turn_from))
        for item_id in [known for known, turn in self._turns.items() if turn[1] <= store.first]:
            del self._turns[item_id]
        needed = self._oldest()
        if self._turns:
            needed = min(needed, *(turn[0] for turn in self._turns.values()))
        store.drop_before(needed)

    def _follow_silence(self) -> None:
        """Nobody speaks: let the next turn begin no earlier than about a second ago. One look at each frame."""
        number, ms = self._checkpoint
        lengths = [base64_length(payload) for payload in self._store.payloads(number)]
        number = self._store.end - len(lengths)
        # Of what there is, so many bytes may go: whole frames of them, and none that belongs to a turn before.
        spare = sum(lengths) - KEEP_MS * self._bytes_per_ms
        gone = 0
        for length in lengths:
            if gone + length > spare and number >= self._turn_from:
                break
            gone += length
            number += 1
        self._turn_from = max(self._turn_from, number)
        self._checkpoint = (number, ms + gone / self._bytes_per_ms)

    def _oldest(self) -> int:
        """Return the oldest frame that is not part of an item."""
        return self._commits[0][0] if self._commits else self._turn_from

    def _ms_at(self, number: int) -> float:
        """Return the position of a frame at or after the checkpoint."""
        start, ms = self._checkpoint
        payloads = itertools.islice(self._store.payloads(start), max(0, number - max(start, self._store.first)))
        return ms + sum(map(base64_length, payloads)) / self._bytes_per_ms

    def _frame_at(self, wanted_ms: float) -> int:
        """Return the frame in which a position lies; the checkpoint for one before it, the end for one to come."""
        start, ms = self._checkpoint
        number = max(start, self._store.first)
        for payload in self._store.payloads(number):
            ms += base64_length(payload) / self._bytes_per_ms
            # Half a sample of tolerance: positions are whole milliseconds.
            if ms > wanted_ms + 0.5:
                return number
            number += 1
        return number


def joined(payloads: Iterable[str]) -> str:
    """Join base64 payloads to one. Each may end with padding, so they are decoded first; one that is no base64 is left out."""
    data = bytearray()
    for payload in payloads:
        try:
            data += binascii.a2b_base64(payload)
        except binascii.Error:
            continue
    return binascii.b2a_base64(data, newline=False).decode("ascii")
