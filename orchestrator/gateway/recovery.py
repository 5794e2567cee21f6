"""What a gateway does about its node's sessions when a session actor dies, stands still, refuses or is to be replaced.

Pure: events in, commands out; time is an argument. Two rules keep a session from having two owners on one node:

- Nobody is offered a session before its last owner's process is known to be dead (`gone`) and everything that it sent has been
  read (`link_lost`, for each link that was `connected`), or before it has let go by itself (`released`). The end of a link
  alone proves neither.
- Of two actors that claim a session the one with the higher epoch is right; the other is told to drop it.

Between nodes the journal decides (`cluster.resume`), never this machine.

A session whose owner died is offered to the least loaded actor that is left, and to another one if that does not take it, until
`recover_within` is over. One that has taken `crashes` owners with it is ended: it would take the others, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from orchestrator.errors import EndReason, IllegalTransitionError
from orchestrator.gateway.placement import ActorLoad, choose_actor
from orchestrator.gateway.recovery_commands import (
    Claim,
    EndCaller,
    Forget,
    Hold,
    Kill,
    Offer,
    RecoveryCommand,
    RecoveryLimits,
    Release,
)
from orchestrator.journal.writers import WriterName

__all__ = ["FINAL_REFUSALS", "RECOVERY_FAILED", "Recovery", "Stage", "is_elsewhere"]

RECOVERY_FAILED = "recovery_failed"
# Refusals that no other actor would answer differently.
FINAL_REFUSALS = frozenset({"not_the_owner", "session_ended", "session_not_found"})

_NO_ACTOR = EndReason(RECOVERY_FAILED, "no session actor took the call over in time; come back", by="infrastructure")
_POISON = EndReason(RECOVERY_FAILED, "the call has ended the processes of too many owners", by="us")


class Stage(Enum):
    """How far a session's ownership is."""

    OWNED = "owned"
    # Its owner, or whoever was offered it and is too slow, was asked to let go of it, so that another one can have it.
    RELEASING = "releasing"
    ORPHANED = "orphaned"
    OFFERED = "offered"


_NEXT = {
    Stage.OWNED: {Stage.RELEASING, Stage.ORPHANED},
    Stage.RELEASING: {Stage.ORPHANED},
    Stage.ORPHANED: {Stage.OFFERED},
    Stage.OFFERED: {Stage.OWNED, Stage.RELEASING, Stage.ORPHANED},
}


@dataclass(slots=True, eq=False)
class _Call:
    session_id: str
    hold: Hold
    stage: Stage
    epoch: int = 0
    actor: _Actor | None = None
    # Where a session that is being released is to go: a seat is kept there.
    target: _Actor | None = None
    begun: bool = False
    # It came from another node, and no actor of this one has claimed it in the journal yet.
    foreign: bool = False
    cause: str = ""
    # None while its owner serves it.
    recover_by: float | None = None
    answer_by: float | None = None
    # When an orphan may be offered at the earliest.
    not_before: float = 0.0
    crashes: list[float] = field(default_factory=list)
    # Until when an actor that refused is not asked again.
    refused: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Actor:
    actor_id: str
    pid: int
    seats: int
    calls: dict[str, _Call] = field(default_factory=dict)
    # Sessions that are not its own any more, until it has said so: what it says of them before that is of old.
    letting_go: set[str] = field(default_factory=set)
    reserved: int = 0
    last_given: int = 0
    linked: bool = True
    dead: bool = False
    suspect: bool = False
    leaving: bool = False
    # When a process whose end is wanted, or whose link is gone, is killed (again).
    kill_at: float | None = None
    doomed: bool = False

    @property
    def takes_calls(self) -> bool:
        return self.linked and not (self.dead or self.suspect or self.doomed)


def is_elsewhere(writer: str, node: str) -> bool:
    """Whether a call that an actor of this node had is another node's by now, as the journal names its writer.

    Ask it of what was read from the store for an offer that is not `durable`, and refuse that with "not_the_owner": to take the
    call back from an owner that lives would be allowed by the journal, and serve nobody.
    """
    home = WriterName.parse(writer).node
    return home not in ("", node)


class Recovery:
    """The machine of one gateway. `due` says when `tick` must be called, if at all."""

    def __init__(self, limits: RecoveryLimits | None = None) -> None:
        self._limits = limits or RecoveryLimits()
        self._calls: dict[str, _Call] = {}
        self._actors: dict[str, _Actor] = {}
        # Processes that have a successor of the same name, until all that they sent was read.
        self._replaced: dict[tuple[str, int], _Actor] = {}
        self._orphans: dict[str, _Call] = {}
        # How many links each process has here, also such over which it has not said who it is.
        self._links: Counter[int] = Counter()
        self._given = 0

    # What is known.

    @property
    def due(self) -> float | None:
        """When `tick` must be called next."""
        times = [actor.kill_at for actor in self._everyone() if actor.kill_at is not None]
        for call in self._calls.values():
            if call.stage is not Stage.OWNED:
                times += [time for time in (call.recover_by, call.answer_by) if time is not None]
            if call.stage is Stage.ORPHANED:
                times += call.refused.values()
                times += [call.not_before] if call.not_before else []
        return min(times, default=None)

    def stage(self, session_id: str) -> Stage | None:
        """Return how far a session's ownership is, or None for one that is not here."""
        call = self._calls.get(session_id)
        return None if call is None else call.stage

    def hold(self, session_id: str) -> Hold | None:
        """Return what keeps a session's caller, or None for a session that is not here."""
        call = self._calls.get(session_id)
        return None if call is None else call.hold

    def owner(self, session_id: str) -> str | None:
        """Return the actor that owns a session or is offered it."""
        call = self._calls.get(session_id)
        return None if call is None or call.actor is None else call.actor.actor_id

    def epoch(self, session_id: str) -> int:
        """Return a session's epoch as its last owner told it; 0 where it has not."""
        call = self._calls.get(session_id)
        return 0 if call is None else call.epoch

    def load(self, actor_id: str) -> int:
        """Return how many sessions an actor has: one that hands over may be replaced when it is 0."""
        actor = self._actors.get(actor_id)
        return 0 if actor is None else len(actor.calls)

    def sessions(self) -> tuple[str, ...]:
        """Return all sessions of this gateway."""
        return tuple(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    # Sessions.

    def given(self, session_id: str, actor_id: str, hold: Hold, now: float) -> list[RecoveryCommand]:
        """A new caller was given to an actor. One that does not answer it is `gateway.hand_over`'s matter."""
        del now
        actor = self._actors[actor_id]
        call = _Call(session_id, hold, Stage.OWNED, epoch=1)
        self._calls[session_id] = call
        self._give(call, actor)
        return []

    def take(self, session_id: str, hold: Hold, epoch: int, cause: str, now: float) -> list[RecoveryCommand]:
        """A session that is not here comes from another node, or from the journal alone: give it to an actor.

        `epoch` is the one that the journal has it in.
        """
        call = _Call(session_id, hold, Stage.ORPHANED, epoch, begun=True, foreign=True)
        self._calls[session_id] = call
        self._set_adrift(call, cause, now)
        return self._pump(now)

    def up(self, session_id: str, actor_id: str) -> None:
        """The caller was answered: by whom it was given to at first, or by whom it was offered to after that one died."""
        call = self._of(session_id, actor_id)
        if call is not None and call.stage is Stage.OFFERED:
            self._settle(call, 1)
        elif call is not None:
            call.begun = True

    def hold_changed(self, session_id: str, actor_id: str, hold: Hold, now: float) -> list[RecoveryCommand]:
        """The caller went away, or is back, as its owner says."""
        call = self._of(session_id, actor_id)
        return [] if call is None else self.set_hold(session_id, hold, now)

    def set_hold(self, session_id: str, hold: Hold, now: float) -> list[RecoveryCommand]:
        """The gateway itself has found its caller gone, or has it back."""
        call = self._calls.get(session_id)
        if call is None:
            return []
        call.hold = hold
        if hold is Hold.NOTHING and call.stage is Stage.ORPHANED:
            return [*self._drop(call), *self._pump(now)]
        return []

    def ended(self, session_id: str, actor_id: str, now: float) -> list[RecoveryCommand]:
        """Its owner says that the session is over. What anybody else says of it is ignored."""
        call = self._of(session_id, actor_id)
        return [] if call is None else [*self._drop(call), *self._pump(now)]

    def recovered(self, session_id: str, actor_id: str, epoch: int, now: float) -> list[RecoveryCommand]:
        """The actor has taken the session that it was offered, and serves it under this epoch."""
        del now
        call = self._of(session_id, actor_id)
        if call is None or call.stage is not Stage.OFFERED:
            # The offer was withdrawn meanwhile, or the session given up.
            return [] if call is not None else self._release(self._actors.get(actor_id), session_id)
        self._settle(call, epoch)
        return []

    def refused(self, session_id: str, actor_id: str, reason: EndReason, now: float) -> list[RecoveryCommand]:
        """The actor does not take the session, and has closed what it was given."""
        call = self._of(session_id, actor_id)
        if call is None:
            return []
        if reason.code in FINAL_REFUSALS:
            return [*self._end(call, reason, final=False), *self._pump(now)]
        call.refused[actor_id] = now + self._limits.retry_after
        return [*self._orphan(call, call.cause or reason.code, now), *self._pump(now)]

    def released(self, session_id: str, actor_id: str, now: float) -> list[RecoveryCommand]:
        """The actor has let go, as it was asked to."""
        actor = self._actors.get(actor_id)
        if actor is not None:
            actor.letting_go.discard(session_id)
        call = self._of(session_id, actor_id)
        if call is None or call.stage is not Stage.RELEASING:
            return self._pump(now)
        return [*self._orphan(call, call.cause or "handed_over", now), *self._pump(now)]

    # Actors.

    def connected(self, pid: int) -> None:
        """A process has opened a link. Which one the kernel says (`SO_PEERCRED`); what it has to say comes later."""
        self._links[pid] += 1

    def hello(self, actor_id: str, pid: int, seats: int, held: Iterable[Claim], now: float) -> list[RecoveryCommand]:
        """An actor has linked, with all the sessions that it holds.

        The same process may link again; another one of the same name means that the first is dead.
        """
        commands: list[RecoveryCommand] = []
        self._links[pid] = max(1, self._links[pid])
        actor = self._actors.get(actor_id)
        if actor is not None and actor.pid != pid:
            del self._actors[actor_id]
            self._replaced[actor_id, actor.pid] = actor
            actor.dead, actor.kill_at = True, None
            commands += self._if_over(actor, now)
            actor = None
        if actor is None:
            actor = self._actors[actor_id] = _Actor(actor_id, pid, seats)
        actor.linked, actor.seats = True, seats
        actor.letting_go.clear()
        if actor.doomed:
            # It is being killed; what it claims does not count any more.
            return commands
        actor.kill_at = None
        claims = {claim.session_id: claim for claim in held}
        for call in [call for name, call in actor.calls.items() if name not in claims]:
            # It ended, or the offer went with the old link. What the actor has to say of it to the journal comes right after
            # this, and tells whoever is offered the session next; who did not know of it would have another past.
            call.not_before = now + self._limits.relink_within
            commands += self._orphan(call, "not_held", now)
        for claim in claims.values():
            commands += self._settle_claim(actor, claim)
        return commands + self._pump(now)

    def link_lost(self, actor_id: str, pid: int, now: float) -> list[RecoveryCommand]:
        """A link has ended, and everything that came over it was handled."""
        self._links[pid] -= 1
        if self._links[pid] <= 0:
            del self._links[pid]
        actor = self._process(actor_id, pid)
        if actor is None:
            return []
        actor.linked = False
        if not actor.dead and actor.kill_at is None:
            # A link may break without its process. It has a moment to come back before that is made sure of.
            actor.kill_at = now + self._limits.relink_within
        return [*self._if_over(actor, now), *self._pump(now)]

    def gone(self, actor_id: str, pid: int, now: float) -> list[RecoveryCommand]:
        """The process is dead: it will never run again."""
        actor = self._process(actor_id, pid)
        if actor is None:
            return []
        actor.dead, actor.kill_at = True, None
        return [*self._if_over(actor, now), *self._pump(now)]

    def suspect(self, actor_id: str, *, suspected: bool, now: float) -> list[RecoveryCommand]:
        """The actor is late with its heartbeat, or no longer."""
        actor = self._actors.get(actor_id)
        if actor is None:
            return []
        actor.suspect = suspected
        return [] if suspected else self._pump(now)

    def frozen(self, actor_id: str, now: float) -> list[RecoveryCommand]:
        """The actor stands still: it is killed, and its sessions go to others as soon as it is dead."""
        actor = self._actors.get(actor_id)
        return [] if actor is None else self._kill(actor, now)

    def hand_over(self, actor_id: str, now: float) -> list[RecoveryCommand]:
        """Move all sessions of a healthy actor to others, as far as there are seats. Idempotent.

        It gets none any more that others can take; once `load` says that it has none, it may be replaced.
        """
        actor = self._actors.get(actor_id)
        if actor is None:
            return []
        actor.leaving = True
        return self._pump(now)

    def tick(self, now: float) -> list[RecoveryCommand]:
        """Time has passed."""
        commands: list[RecoveryCommand] = []
        for actor in list(self._everyone()):
            if actor.kill_at is not None and now >= actor.kill_at:
                commands += self._kill(actor, now)
        for call in [call for call in self._calls.values() if call.stage is not Stage.OWNED]:
            call.refused = {name: until for name, until in call.refused.items() if now < until}
            if now >= call.not_before:
                call.not_before = 0.0
            if call.recover_by is not None and now >= call.recover_by:
                commands += self._give_up(call)
            elif call.answer_by is not None and now >= call.answer_by and call.actor is not None:
                commands += self._overdue(call, call.actor, now)
        return commands + self._pump(now)

    # Inside.

    def _everyone(self) -> Iterable[_Actor]:
        return (*self._actors.values(), *self._replaced.values())

    def _process(self, actor_id: str, pid: int) -> _Actor | None:
        actor = self._actors.get(actor_id)
        return actor if actor is not None and actor.pid == pid else self._replaced.get((actor_id, pid))

    def _of(self, session_id: str, actor_id: str) -> _Call | None:
        call = self._calls.get(session_id)
        return call if call is not None and call.actor is not None and call.actor.actor_id == actor_id else None

    def _move(self, call: _Call, stage: Stage) -> None:
        if stage not in _NEXT[call.stage]:
            raise IllegalTransitionError(f"a session cannot go from {call.stage.value} to {stage.value}")
        call.stage = stage

    def _give(self, call: _Call, actor: _Actor) -> None:
        self._given += 1
        actor.last_given = self._given
        call.actor = actor
        actor.calls[call.session_id] = call

    def _leave(self, call: _Call) -> None:
        """Take the session from its actor, and from the seat that is kept for it."""
        if call.target is not None:
            call.target.reserved -= 1
            call.target = None
        if call.actor is not None:
            call.actor.calls.pop(call.session_id, None)
            call.actor = None
        call.answer_by = None

    def _drop(self, call: _Call) -> list[RecoveryCommand]:
        self._leave(call)
        self._orphans.pop(call.session_id, None)
        del self._calls[call.session_id]
        return [Forget(call.session_id)]

    def _release(self, actor: _Actor | None, session_id: str) -> list[RecoveryCommand]:
        """Tell an actor that the session is not its own any more."""
        if actor is None:
            return []
        actor.letting_go.add(session_id)
        return [Release(actor.actor_id, session_id)]

    def _end(self, call: _Call, reason: EndReason, *, final: bool) -> list[RecoveryCommand]:
        return [EndCaller(call.session_id, reason, final), *self._drop(call)]

    def _give_up(self, call: _Call) -> list[RecoveryCommand]:
        """Nobody took it in time. An actor that is still busy taking it is to drop it."""
        return [*self._release(call.actor, call.session_id), *self._end(call, _NO_ACTOR, final=False)]

    def _overdue(self, call: _Call, actor: _Actor, now: float) -> list[RecoveryCommand]:
        if call.stage is Stage.RELEASING:
            call.answer_by = None
            return self._kill(actor, now)
        # It may wait for the journal, and others speak with callers there. It is asked to let go before it is made to.
        self._move(call, Stage.RELEASING)
        call.answer_by = now + self._limits.release_within
        call.refused[actor.actor_id] = call.answer_by + self._limits.retry_after
        return [Release(actor.actor_id, call.session_id)]

    def _settle(self, call: _Call, epoch: int) -> None:
        """An actor serves it."""
        call.stage = Stage.OWNED
        call.begun, call.foreign, call.epoch = True, False, max(epoch, call.epoch)
        call.answer_by = call.recover_by = None
        call.cause = ""
        call.refused.clear()

    def _kill(self, actor: _Actor, now: float) -> list[RecoveryCommand]:
        if actor.dead:
            return []
        actor.doomed = True
        actor.kill_at = now + self._limits.retry_after
        return [Kill(actor.actor_id, actor.pid)]

    def _if_over(self, actor: _Actor, now: float) -> list[RecoveryCommand]:
        """Once a process is dead and all that it sent was read, its sessions are nobody's."""
        if self._links[actor.pid] or not actor.dead:
            return []
        if self._actors.get(actor.actor_id) is actor:
            del self._actors[actor.actor_id]
        self._replaced.pop((actor.actor_id, actor.pid), None)
        commands: list[RecoveryCommand] = []
        for call in list(actor.calls.values()):
            call.crashes = [at for at in call.crashes if now - at < self._limits.crash_window] + [now]
            commands += self._orphan(call, "actor_died", now)
        return commands

    def _orphan(self, call: _Call, cause: str, now: float) -> list[RecoveryCommand]:
        self._leave(call)
        if len(call.crashes) >= self._limits.crashes:
            return self._end(call, _POISON, final=True)
        if call.hold is Hold.NOTHING:
            # The journal has it. Whichever gateway its caller comes back to takes it from there.
            return self._drop(call)
        self._set_adrift(call, cause, now)
        return []

    def _set_adrift(self, call: _Call, cause: str, now: float) -> None:
        if call.recover_by is None:
            call.recover_by = now + self._limits.recover_within
        if call.stage is not Stage.ORPHANED:
            self._move(call, Stage.ORPHANED)
        call.cause = cause
        self._orphans[call.session_id] = call

    def _settle_claim(self, actor: _Actor, claim: Claim) -> list[RecoveryCommand]:
        call = self._calls.get(claim.session_id)
        if call is None:
            # This gateway is new: what it knows, it knows from its actors.
            call = _Call(claim.session_id, claim.hold, Stage.OWNED, claim.epoch, begun=True)
            self._calls[claim.session_id] = call
            self._give(call, actor)
            return []
        if call.actor is actor:
            call.hold = claim.hold
            if call.stage is Stage.RELEASING:
                # What it was asked may have gone with the old link.
                return [Release(actor.actor_id, claim.session_id)]
            self._settle(call, claim.epoch)
            return []
        lower = claim.epoch < call.epoch
        if lower or (claim.epoch == call.epoch and (call.foreign or call.stage is not Stage.ORPHANED)):
            return self._release(actor, claim.session_id)
        other = call.actor
        self._leave(call)
        self._orphans.pop(call.session_id, None)
        call.hold = claim.hold
        self._settle(call, claim.epoch)
        self._give(call, actor)
        return self._release(other, claim.session_id)

    def _pump(self, now: float) -> list[RecoveryCommand]:
        """Offer what is nobody's to whoever has a free seat, the longest adrift first, and move what is to be moved."""
        commands: list[RecoveryCommand] = []
        for call in [call for call in self._orphans.values() if now >= call.not_before]:
            # One that is to be replaced is better than none.
            actor = self._choose(call, now) or self._choose(call, now, leaving=True)
            if actor is None:
                continue
            del self._orphans[call.session_id]
            self._move(call, Stage.OFFERED)
            self._give(call, actor)
            call.answer_by = now + self._limits.offer_within
            commands.append(Offer(call.session_id, actor.actor_id, call.cause, call.begun, call.foreign))
        if not self._orphans:
            for actor in [actor for actor in self._actors.values() if actor.leaving and actor.linked]:
                commands += self._empty(actor, now)
        return commands

    def _empty(self, actor: _Actor, now: float) -> list[RecoveryCommand]:
        commands: list[RecoveryCommand] = []
        for call in list(actor.calls.values()):
            # One whose caller is being answered is left alone for that moment, one whose caller is away until it is back.
            if call.stage is not Stage.OWNED or not call.begun or call.hold is Hold.NOTHING:
                continue
            target = self._choose(call, now)
            if target is None:
                break
            self._move(call, Stage.RELEASING)
            call.target = target
            target.reserved += 1
            call.answer_by = now + self._limits.release_within
            commands.append(Release(actor.actor_id, call.session_id))
        return commands

    def _choose(self, call: _Call, now: float, *, leaving: bool = False) -> _Actor | None:
        def may_have_it(actor: _Actor) -> bool:
            waits = now < call.refused.get(actor.actor_id, now) or call.session_id in actor.letting_go
            return actor.takes_calls and actor.leaving is leaving and not waits

        loads = (
            ActorLoad(actor.actor_id, actor.seats, len(actor.calls) + actor.reserved, actor.last_given)
            for actor in self._actors.values()
            if may_have_it(actor)
        )
        chosen = choose_actor(loads)
        return None if chosen is None else self._actors[chosen]
