"""Group commit as a pure machine: entries come in from many calls, batches go out, acknowledgements come back.

One write is under way at a time; what comes meanwhile is the next batch, so the slower the store, the larger the batches. When
the store does not answer, the machine turns to the spool on the node's own disk and acknowledges from there, probes the store
with growing pauses, writes the spool to it in order when it is back, and then goes on as before. The order of one call's
entries never changes: what comes while the spool is being emptied goes to its end.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.errors import IllegalTransitionError
from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import SNAPSHOT, Verdict

__all__ = [
    "Acknowledge",
    "CommitCommand",
    "CommitLimits",
    "CommitState",
    "Confirm",
    "GroupCommit",
    "Lose",
    "ReadSpool",
    "Refuse",
    "Resume",
    "Spool",
    "Write",
]


_TAKEN = (Verdict.WRITE, Verdict.KNOWN)
# Bytes of an entry in memory beside its body, about.
_ENVELOPE = 256


class CommitState(enum.Enum):
    """Where entries go."""

    STORE = "store"
    # The store does not answer: to the spool.
    SPOOLING = "spooling"
    # It answers again: the spool is being emptied, and new entries still go to its end.
    CATCHING_UP = "catching_up"


@dataclass(frozen=True, slots=True)
class Write:
    """Write this batch to the store; report by `written`, `failed` or `refused`."""

    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Spool:
    """Append this batch to the spool; report by `kept` or `spool_full`."""

    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class ReadSpool:
    """Read the oldest entries of the spool that are not confirmed, so many at most; report by `read`."""

    most: int


@dataclass(frozen=True, slots=True)
class Confirm:
    """So many of the oldest entries of the spool are in the store: drop them."""

    entries: int


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """All entries of the call up to `seq` are kept: in the store if `durable`, else on this node's disk.

    What was kept on disk is told once more when it is in the store: only then can no other owner have come between.
    """

    session_id: str
    writer: str
    seq: int
    durable: bool


@dataclass(frozen=True, slots=True)
class Refuse:
    """The writer does not own the call: stop it."""

    session_id: str
    writer: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Lose:
    """Neither store nor spool can take these entries, or the store lacks what comes before them.

    Their calls go on without a net, and somebody must be told.
    """

    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Resume:
    """Entries of this call were lost and there is room again: its writer may go on with a snapshot."""

    session_id: str
    writer: str


CommitCommand: TypeAlias = Write | Spool | ReadSpool | Confirm | Acknowledge | Refuse | Lose | Resume


@dataclass(frozen=True, slots=True)
class CommitLimits:
    """How much goes into one batch, how much may wait, and how long to pause (seconds) before the store is tried again."""

    waiting_bytes: int = 64 * 1024 * 1024
    batch_entries: int = 512
    batch_bytes: int = 1024 * 1024
    first_pause: float = 0.2
    longest_pause: float = 5.0


class GroupCommit:
    """The machine. Methods return what to do now, in order; `due` says when `tick` must be called, if at all.

    `spooled` is how many entries a predecessor left in the spool; None means that this is still being found out, and `opened`
    will tell.
    """

    def __init__(self, limits: CommitLimits | None = None, *, spooled: int | None = 0) -> None:
        self._limits = limits or CommitLimits()
        self._waiting: deque[Entry] = deque()
        self._waiting_bytes = 0
        # The batch that the store or the spool is busy with.
        self._under_way: Sequence[Entry] | None = () if spooled is None else None
        # What is left of a batch that the store refused, in parts: one of them holds what it cannot take.
        self._parts: deque[Sequence[Entry]] = deque()
        self._spooled = spooled or 0
        # Under a steady load something always waits, so spooling and catching up take turns.
        self._spooled_last = False
        # Writers (by session and name) that were refused, and by session those that have lost entries: as long as there is one,
        # an owner that comes after it has to tell everything, too, or its entries would follow a hole.
        self._fenced: set[tuple[str, str]] = set()
        self._torn: dict[str, set[str]] = {}
        # Writers whose snapshot was refused for what is in it: nothing of theirs can be mended.
        self._hopeless: set[tuple[str, str]] = set()
        self._pause = self._limits.first_pause
        self.state = CommitState.STORE if spooled == 0 else CommitState.CATCHING_UP
        # When the store is tried again.
        self._probe_at: float | None = None

    @property
    def due(self) -> float | None:
        """When `tick` must be called; None while something is under way, whose end goes on by itself."""
        return self._probe_at if self._under_way is None else None

    @property
    def waiting(self) -> int:
        """Entries that came and are in neither store nor spool."""
        if self.state is CommitState.CATCHING_UP:
            return len(self._waiting)
        return len(self._waiting) + sum(map(len, self._parts)) + len(self._under_way or ())

    @property
    def spooled(self) -> int:
        """Entries that are in the spool and not confirmed by the store."""
        return self._spooled

    def start(self, now: float) -> list[CommitCommand]:
        """Begin, with what a predecessor left in the spool."""
        return self._next(now)

    def opened(self, spooled: int, now: float) -> list[CommitCommand]:
        """It is known what a predecessor left in the spool."""
        self._done()
        self._spooled = spooled
        self.state = CommitState.CATCHING_UP if spooled else CommitState.STORE
        return self._next(now)

    def submit(self, entries: Sequence[Entry], now: float) -> list[CommitCommand]:
        """Take in entries, in order. Those of a writer that was refused are refused again."""
        commands: list[CommitCommand] = []
        lost: list[Entry] = []
        newly_torn = set[tuple[str, str]]()
        for entry in entries:
            writer = (entry.session_id, entry.writer)
            if writer in self._fenced:
                commands.append(Refuse(*writer, Verdict.STALE))
            elif writer in self._hopeless:
                lost.append(entry)
            elif self._waiting_bytes > self._limits.waiting_bytes or (
                entry.session_id in self._torn and entry.kind != SNAPSHOT
            ):
                # A store that hangs holds up what comes behind it; that must not grow without end.
                torn = self._torn.setdefault(entry.session_id, set())
                if entry.writer not in torn:
                    torn.add(entry.writer)
                    newly_torn.add(writer)
                lost.append(entry)
            else:
                self._torn.pop(entry.session_id, None)
                self._waiting.append(entry)
                self._waiting_bytes += _size([entry])
        if lost:
            commands.append(Lose(lost))
        commands += self._next(now)
        if newly_torn and self._under_way is None and self.state is CommitState.STORE:
            # There is room, and no write whose end would say so.
            commands += [Resume(session_id, writer) for session_id, writer in sorted(newly_torn)]
        return commands

    def tick(self, now: float) -> list[CommitCommand]:
        """The pause before the store is tried again may be over."""
        return self._next(now)

    def written(self, verdicts: Sequence[Verdict], now: float) -> list[CommitCommand]:
        """The store took the batch, with one verdict per entry."""
        batch = self._done()
        self._pause = self._limits.first_pause
        commands = self._refusals(batch, verdicts)
        gaps = self._gaps(batch, verdicts)
        taken = [entry for entry, verdict in zip(batch, verdicts, strict=True) if verdict in _TAKEN]
        if self.state is CommitState.CATCHING_UP:
            self._spooled -= len(batch)
            commands.append(Confirm(len(batch)))
            if not self._spooled:
                self.state = CommitState.STORE
        commands += _acknowledgements(taken, durable=True)
        commands += gaps
        if self.state is CommitState.STORE:
            commands += self._resumptions()
        return commands + self._next(now)

    def failed(self, now: float) -> list[CommitCommand]:
        """The store did not take the batch, or nobody knows whether it did: it is safe to write it again."""
        batch = self._done()
        if self.state is CommitState.STORE:
            whole = [*batch, *(entry for part in self._parts for entry in part)]
            self._waiting.extendleft(reversed(whole))
            self._waiting_bytes += _size(whole)
        # Those of the spool are still in it.
        self._parts.clear()
        self.state = CommitState.SPOOLING
        self._probe_at = now + self._pause
        self._pause = min(self._pause * 2, self._limits.longest_pause)
        return self._next(now)

    def refused(self, now: float) -> list[CommitCommand]:
        """The store will never take this batch, for something in it: find that by halves and give it up alone."""
        batch = self._done()
        if len(batch) > 1:
            middle = len(batch) // 2
            self._parts.extendleft((batch[middle:], batch[:middle]))
            return self._next(now)
        commands: list[CommitCommand] = []
        self._hopeless |= {(entry.session_id, entry.writer) for entry in batch if entry.kind == SNAPSHOT}
        if self.state is CommitState.CATCHING_UP:
            self._spooled -= len(batch)
            commands.append(Confirm(len(batch)))
            if not self._spooled:
                self.state = CommitState.STORE
        commands += self._lose(batch)
        if self.state is CommitState.STORE:
            commands += self._resumptions()
        return commands + self._next(now)

    def kept(self, now: float) -> list[CommitCommand]:
        """The spool has the batch on disk."""
        batch = self._done()
        self._spooled += len(batch)
        self._spooled_last = True
        return [*_acknowledgements(batch, durable=False), *self._next(now)]

    def spool_full(self, now: float) -> list[CommitCommand]:
        """The spool cannot take the batch: its entries are given up, and all that follows of the same calls."""
        batch = self._done()
        self._spooled_last = True
        return [*self._lose(batch), *self._next(now)]

    def read(self, entries: Sequence[Entry], now: float) -> list[CommitCommand]:
        """The spool gave its oldest entries. None, though there should be some, means that the rest of it is damaged."""
        if not entries:
            self._done()
            dropped, self._spooled = self._spooled, 0
            self.state = CommitState.STORE
            return [Confirm(dropped), *self._resumptions(), *self._next(now)]
        self._under_way = entries
        return [Write(entries)]

    def forget(self, session_id: str, writer: str | None = None) -> None:
        """The call is over, or this one of its writers is gone: what is known of it need not be kept."""
        if writer is None:
            self._fenced = {known for known in self._fenced if known[0] != session_id}
            self._hopeless = {known for known in self._hopeless if known[0] != session_id}
            self._torn.pop(session_id, None)
            return
        self._fenced.discard((session_id, writer))
        self._hopeless.discard((session_id, writer))
        torn = self._torn.get(session_id, set())
        torn.discard(writer)
        if not torn:
            self._torn.pop(session_id, None)

    def _next(self, now: float) -> list[CommitCommand]:
        if self._under_way is not None:
            return []
        if self._probe_at is not None and now >= self._probe_at:
            self._probe_at = None
            self.state = CommitState.CATCHING_UP if self._spooled else CommitState.STORE
            if self.state is CommitState.STORE and not self._waiting:
                # Nothing is left to try the store with but what was given up.
                return self._resumptions()
        if self._parts:
            self._under_way = self._parts.popleft()
            return [Write(self._under_way)]
        # While the spool is not empty new entries go to its end, or the order of a call's entries would be lost.
        turn = self.state is CommitState.CATCHING_UP and self._spooled_last
        if self._waiting and not turn:
            return self._begin(Write if self.state is CommitState.STORE else Spool)
        if self.state is CommitState.CATCHING_UP:
            self._spooled_last = False
            self._under_way = ()
            return [ReadSpool(self._limits.batch_entries)]
        return []

    def _resumptions(self) -> list[CommitCommand]:
        torn = ((session_id, writer) for session_id in sorted(self._torn) for writer in sorted(self._torn[session_id]))
        return [Resume(*writer) for writer in torn if writer not in self._hopeless]

    def _begin(self, command: type[Write | Spool]) -> list[CommitCommand]:
        batch: list[Entry] = []
        size = 0
        while self._waiting and len(batch) < self._limits.batch_entries and size < self._limits.batch_bytes:
            entry = self._waiting.popleft()
            batch.append(entry)
            size += _size([entry])
        self._waiting_bytes -= size
        self._under_way = batch
        return [command(batch)]

    def _done(self) -> Sequence[Entry]:
        if self._under_way is None:
            raise IllegalTransitionError("nothing is being written")
        batch, self._under_way = self._under_way, None
        return batch

    def _refusals(self, batch: Sequence[Entry], verdicts: Sequence[Verdict]) -> list[CommitCommand]:
        commands: list[CommitCommand] = []
        for entry, verdict in zip(batch, verdicts, strict=True):
            writer = (entry.session_id, entry.writer)
            if verdict is Verdict.STALE and writer not in self._fenced:
                self._fenced.add(writer)
                commands.append(Refuse(*writer, verdict))
        return commands

    def _gaps(self, batch: Sequence[Entry], verdicts: Sequence[Verdict]) -> list[CommitCommand]:
        """Give up what the store lacks the beginning of. That is nobody else's call: its writer mends it by a snapshot."""
        gaps: dict[tuple[str, str], list[Entry]] = {}
        for entry, verdict in zip(batch, verdicts, strict=True):
            writer = (entry.session_id, entry.writer)
            if verdict is Verdict.GAP:
                gaps.setdefault(writer, []).append(entry)
            elif entry.kind == SNAPSHOT:
                gaps.pop(writer, None)
        return self._lose([entry for missing in gaps.values() for entry in missing]) if gaps else []

    def _lose(self, entries: Sequence[Entry]) -> list[CommitCommand]:
        """Give up these entries and all that waits of the same calls."""
        torn = {entry.session_id for entry in entries}
        behind = [entry for entry in self._waiting if entry.session_id in torn]
        self._waiting = deque(entry for entry in self._waiting if entry.session_id not in torn)
        self._waiting_bytes -= _size(behind)
        lost = [*entries, *behind]
        for entry in lost:
            self._torn.setdefault(entry.session_id, set()).add(entry.writer)
        return [Lose(lost)]


def _acknowledgements(entries: Sequence[Entry], *, durable: bool) -> list[CommitCommand]:
    """One acknowledgement per call: its last entry speaks for those before it."""
    latest = {(entry.session_id, entry.writer): entry.seq for entry in entries}
    return [Acknowledge(session_id, writer, seq, durable) for (session_id, writer), seq in latest.items()]


def _size(entries: Sequence[Entry]) -> int:
    return sum(len(entry.body) + _ENVELOPE for entry in entries)
