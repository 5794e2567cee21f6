"""The faults of one session: pure. Told of every event that was sent, and of the time, it says what goes wrong now.

Under a seed, each fault draws for each session from a source of its own. So what happens to a session does not depend on what
other sessions did meanwhile.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, assert_never

from orchestrator.simulator.endpoint.fault_effects import Cut, End, FailResponse, Hold, Release, Report, Shut
from orchestrator.simulator.endpoint.fault_types import (
    Delay,
    Drop,
    ErrorFault,
    Expire,
    Fail,
    Refuse,
    RegionDown,
    Stall,
    TranscriptionFault,
    draw,
)

if TYPE_CHECKING:
    from random import Random

    from orchestrator.simulator.endpoint.fault_effects import Effect, Visitor
    from orchestrator.simulator.endpoint.fault_types import AnyFault

__all__ = ["FaultEntry", "SessionFaults", "Watch"]

# What the faults of a moment wait for, by how the frame begins.
_COUNTED = {
    "session_created": b'{"type":"session.created"',
    "nth_response": b'{"type":"response.created"',
    "nth_audio_delta": b'{"type":"response.output_audio.delta"',
    "nth_event": b"",
}
_TRANSCRIPTION = b'{"type":"conversation.item.input_audio_transcription.'
_TRANSCRIBED = _TRANSCRIPTION + b'completed"'


class FaultEntry:
    """One fault of a plan, with what is counted over all sessions. `begins` and `ends` are on the clock of the plan."""

    def __init__(self, fault_id: str, number: int, fault: AnyFault, now: float) -> None:
        self.id = fault_id
        self.number = number
        self.fault = fault
        self.at: str = "now" if isinstance(fault, RegionDown) else getattr(fault, "at", "")
        self.begins = now + fault.after_seconds
        self.ends = math.inf if fault.for_seconds is None else self.begins + fault.for_seconds
        self.fired = 0
        self.removed = False
        # Only what happens "now" has a beginning of its own; the other moments come up in the sessions.
        self.began = self.at != "now"
        self._sessions = 0

    @property
    def spent(self) -> bool:
        """Whether it has happened as often as it may."""
        return self.fault.times is not None and self.fired >= self.fault.times

    def in_time(self, now: float) -> bool:
        """Whether its time has come and is not over."""
        return not self.removed and self.begins <= now < self.ends

    def concerns(self, visitor: Visitor) -> bool:
        """Whether it is for this client."""
        fault = self.fault
        return fault.model in (None, visitor.model) and fault.key in (None, visitor.key)

    def picks(self, visitor: Visitor) -> bool:
        """Count a new session, if it is one of those concerned; whether it is the right one of them."""
        if not self.concerns(visitor):
            return False
        self._sessions += 1
        return self.fault.nth_session in (None, self._sessions)


class Watch:
    """One fault in one session: counts what the fault waits for, from `since` on, and draws."""

    def __init__(self, entry: FaultEntry, random: Random, since: float) -> None:
        self.entry = entry
        self.random = random
        self._since = since
        self._n: int | str = getattr(entry.fault, "n", 1)
        self._head = _COUNTED.get(entry.at)
        self._counted = 0
        self._decided: bool | None = None

    @property
    def due(self) -> float:
        """When the next second that counts is over (infinity: never), for a fault that waits for those."""
        if self.entry.at != "nth_second" or self.entry.spent:
            return math.inf
        if isinstance(self._n, str):
            due = self._since + self._counted + 1
        else:
            due = math.inf if self._counted else self._since + self._n
        return due if due < self.entry.ends else math.inf

    def falls(self, now: float) -> bool:
        """Whether the fault happens now that it can; counted if so."""
        entry = self.entry
        if not entry.in_time(now) or entry.spent:
            return False
        if entry.fault.probability < 1 and self.random.random() >= entry.fault.probability:
            return False
        entry.fired += 1
        return True

    def falls_after(self, frame: bytes, now: float) -> bool:
        """Whether the fault happens because this frame was sent."""
        if self._head is None or not frame.startswith(self._head) or not self.entry.in_time(now):
            return False
        self._counted += 1
        return self._n in ("each", self._counted) and self.falls(now)

    def falls_at(self, now: float) -> bool:
        """Whether the fault happens because the time of `due` has come."""
        self._counted += 1
        return self.falls(now)

    def in_force(self, now: float) -> bool:
        """Whether a fault that is decided once per session, and then lasts, lasts now."""
        if not self.entry.in_time(now):
            return False
        if self._decided is None:
            self._decided = self.falls(now)
        return self._decided


class SessionFaults:
    """The faults of one session. Made by `FaultPlan.join`; over with `FaultPlan.leave`."""

    def __init__(self, visitor: Visitor) -> None:
        self.visitor = visitor
        self._moments: list[Watch] = []
        self._delays: list[tuple[Delay, Watch]] = []
        self._transcriptions: list[tuple[TranscriptionFault, Watch]] = []
        self._held: dict[str, float] = {}

    @property
    def idle(self) -> bool:
        """Whether nothing can happen here, so that nobody needs to ask."""
        return not (self._moments or self._delays or self._transcriptions)

    @property
    def due(self) -> float | None:
        """When `advance` must be called, or None."""
        due = min((*self._held.values(), *(watch.due for watch in self._moments)), default=math.inf)
        return None if due == math.inf else due

    def watch(self, watch: Watch) -> None:
        """Add a fault."""
        fault = watch.entry.fault
        if isinstance(fault, Delay):
            self._delays.append((fault, watch))
        elif isinstance(fault, TranscriptionFault):
            self._transcriptions.append((fault, watch))
        else:
            self._moments.append(watch)

    def forget(self, entry: FaultEntry) -> list[Effect]:
        """A fault was removed: what follows."""
        self._moments = [watch for watch in self._moments if watch.entry is not entry]
        self._delays = [(fault, watch) for fault, watch in self._delays if watch.entry is not entry]
        self._transcriptions = [(fault, watch) for fault, watch in self._transcriptions if watch.entry is not entry]
        return [Release(entry.id)] if self._held.pop(entry.id, None) is not None else []

    def begin(self, entry: FaultEntry, now: float) -> list[Effect]:
        """The time of a fault that happens "now" has come."""
        return [self._effect(watch.entry, now) for watch in self._moments if watch.entry is entry and watch.falls(now)]

    def advance(self, now: float) -> list[Effect]:
        """Time has passed: what follows."""
        effects: list[Effect] = [Release(fault_id) for fault_id, until in self._held.items() if until <= now]
        self._held = {fault_id: until for fault_id, until in self._held.items() if until > now}
        for watch in self._moments:
            while (due := watch.due) <= now:
                if watch.falls_at(due):
                    effects.append(self._effect(watch.entry, now))
        return effects

    def sent(self, frame: bytes, now: float) -> list[Effect]:
        """An event was sent: what happens right after it."""
        return [self._effect(watch.entry, now) for watch in self._moments if watch.falls_after(frame, now)]

    def delay(self, now: float) -> float:
        """How many seconds later a frame that would be sent now is to be sent."""
        return sum(draw(fault.seconds, watch.random) for fault, watch in self._delays if watch.in_force(now))

    def lag(self, frame: bytes, now: float) -> float:
        """The same for a transcription, which others may overtake meanwhile; 0 for every other frame."""
        if not self._transcriptions or not frame.startswith(_TRANSCRIPTION):
            return 0.0
        return sum(draw(fault.seconds, watch.random) for fault, watch in self._transcriptions if watch.in_force(now))

    def copies(self, frame: bytes, now: float) -> int:
        """How many times a frame is to be sent."""
        if not self._transcriptions or not frame.startswith(_TRANSCRIBED):
            return 1
        return max((fault.copies for fault, watch in self._transcriptions if watch.in_force(now)), default=1)

    def _effect(self, entry: FaultEntry, now: float) -> Effect:
        fault = entry.fault
        match fault:
            case Drop():
                return Cut() if fault.code is None else Shut(fault.code, fault.reason)
            case RegionDown():
                return Cut()
            case Stall():
                seconds = math.inf if fault.seconds is None else fault.seconds
                self._held[entry.id] = min(now + seconds, entry.ends)
                return Hold(entry.id, sending=fault.direction != "receive", receiving=fault.direction != "send")
            case Fail():
                return FailResponse(fault.type, fault.code, fault.message)
            case ErrorFault():
                return Report(fault.type, fault.code, fault.message)
            case Expire():
                return End()
            case Delay() | TranscriptionFault() | Refuse():
                raise AssertionError("these have no moment in a session")
            case _:
                assert_never(fault)
