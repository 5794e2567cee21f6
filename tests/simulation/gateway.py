"""A gateway: the real desk, group commit, copies, recovery, freeze detector and resumptions, on twins of all around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from orchestrator.cluster.link_messages import (
    Ended,
    FromActor,
    GatewaySnapshot,
    JournalEntries,
    SessionSnapshot,
    Up,
)
from orchestrator.cluster.resume import (
    Answer,
    Ask,
    JournalView,
    Local,
    ReadJournal,
    Refuse,
    Relay,
    Resumption,
    ResumptionCommand,
    ResumptionLimits,
    ServeHere,
    TakeOver,
)
from orchestrator.errors import EndReason
from orchestrator.gateway.freezing import FreezeDetector, FreezeLimits, KillFrozen, Suspect, Trust
from orchestrator.gateway.journal_desk import JournalDesk
from orchestrator.gateway.recovery import Recovery, Stage, is_elsewhere
from orchestrator.gateway.recovery_commands import (
    EndCaller,
    Forget,
    Hold,
    Kill,
    Offer,
    RecoveryCommand,
    RecoveryLimits,
    Release,
)
from orchestrator.gateway.roster import Actor, Roster
from orchestrator.journal.closing import closing_entries
from orchestrator.journal.copies import CallCopies
from orchestrator.journal.entries import Entry
from orchestrator.journal.heads import Head, Verdict
from orchestrator.journal.state import CallState, replay
from orchestrator.journal.writers import WriterName
from tests.simulation.messages import Adopted, Drop, HoldChanged, HoldsOn, Reattach, Recover, Recovered, Released, Returned
from tests.simulation.world import Link, Process, Sock
from tests.simulation.writer import WriterTwin

if TYPE_CHECKING:
    from orchestrator.journal.writer import JournalListener, JournalWriter
    from orchestrator.telemetry.metrics import Metrics
    from tests.simulation.cluster import Caller, Cluster, Node

__all__ = ["GatewayTwin"]

HOUSEKEEPING = 0.5
# Until a new gateway knows its node's sessions.
SETTLE = 0.5
RECOVERY = RecoveryLimits(
    recover_within=4.0,
    offer_within=0.8,
    release_within=0.6,
    relink_within=0.3,
    retry_after=0.3,
    crashes=5,
    crash_window=20.0,
)
FREEZES = FreezeLimits(suspect_after=0.9, dump_after=1.4, kill_after=1.9, stall=0.8)
RESUMPTIONS = ResumptionLimits(ask_within=0.4, within=5.0)
_NOT_TAKEN = EndReason("journal_unavailable", by="infrastructure")


class _Counts:
    """Metrics that nobody reads."""

    def inc(self, *_: object, **__: object) -> None: ...

    def set(self, *_: object, **__: object) -> None: ...


class _Desk(JournalDesk):
    """The real desk, and what else hears of entries."""

    gateway: GatewayTwin

    def on_acknowledged(self, session_id: str, writer: str, seq: int, *, durable: bool) -> None:
        self.gateway.cluster.acknowledged(self.gateway.node, session_id, writer, seq, durable=durable)
        super().on_acknowledged(session_id, writer, seq, durable=durable)

    def on_refused(self, session_id: str, writer: str, verdict: Verdict) -> None:
        self.gateway.closings.discard(session_id)
        self.gateway.copies.forget(session_id)
        super().on_refused(session_id, writer, verdict)

    def on_lost(self, entries: Sequence[Entry]) -> None:
        self.gateway.world.note("journal: entries lost", entries=len(entries))
        self.gateway.cluster.lost.update((entry.session_id, entry.writer, entry.seq) for entry in entries)
        self.gateway.copies.lost(entries)
        super().on_lost(entries)


class _Attempt:
    """One attempt of a caller to come back, or of the supervisor to have a call restarted."""

    def __init__(self, session_id: str, machine: Resumption, sock: Sock | None, caller: Caller | None) -> None:
        self.session_id = session_id
        self.machine = machine
        self.sock = sock
        self.caller = caller


class GatewayTwin(Process):
    """A gateway's process."""

    def __init__(self, cluster: Cluster, node: Node) -> None:
        super().__init__(cluster.world, f"gateway of {node.name}", cluster.world.new_pid())
        self.cluster = cluster
        self.node = node
        self.incarnation = self.pid
        self.links: set[Link] = set()
        self.copies = CallCopies()
        self.recovery = Recovery(RECOVERY)
        self.roster = Roster()
        self.freezes = FreezeDetector(FREEZES)
        self.held: dict[str, Sock] = {}
        self.channels: dict[str, str] = {}
        self.closings: set[str] = set()
        self._desk = self._open_desk()
        self._reports = 0
        self._started_at = self.world.now
        self._armed = float("inf")
        self._leaving: set[str] = set()
        self._closed = 0
        # Attempts that have a session taken over here, and those that wait for another gateway.
        self._taking: dict[str, _Attempt] = {}
        self._asking: dict[int, _Attempt] = {}
        self._asked = 0
        self.world.at(self.world.between(0.0, HOUSEKEEPING), self, self._keep_house)

    def _open_desk(self) -> _Desk:
        writers: list[WriterTwin] = []

        def open_writer(desk: JournalListener) -> JournalWriter:
            cast("_Desk", desk).gateway = self
            writers.append(WriterTwin(self, desk))
            return cast("JournalWriter", writers[0])

        desk = _Desk(open_writer, cast("Metrics", _Counts()))
        self.writer = writers[0]
        return desk

    @property
    def settled(self) -> bool:
        return self.world.now >= self._started_at + SETTLE

    # Callers.

    def accept(self, caller: Caller, session_id: str, channel: str) -> None:
        """A new caller."""
        actor = self.roster.choose()
        if actor is None or self.recovery.stage(session_id) is not None:
            caller.refused("capacity", None)
            return
        sock = None if channel == "sip" else Sock(caller.on_close)
        if sock is not None:
            sock.hold(self)
            self.held[session_id] = sock
            caller.sock = sock
        self.channels[session_id] = channel
        self.roster.give(session_id, channel, actor, "", self.node.wall())
        hold = Hold.OUTSIDE if sock is None else Hold.SOCKET
        self._perform(self.recovery.given(session_id, actor.actor_id, hold, self.world.now))
        actor.link.send(Adopted(session_id, channel, sock, f"call-{session_id}" if sock is None else None))  # type: ignore[arg-type]
        self.world.note("caller: given", session=session_id, actor=actor.actor_id)

    def resume(self, caller: Caller, session_id: str, token: str) -> None:
        """A caller is back."""
        if not self.cluster.tokens.verify(token, session_id, self.node.wall()):
            caller.refused("bad_token", None)
            return
        sock = Sock(caller.on_close)
        sock.hold(self)
        caller.sock = sock
        self._attempt(session_id, sock, caller, attach=False)

    def restart(self, session_id: str) -> None:
        """The supervisor wants somebody here to serve the call."""
        if not any(attempt.session_id == session_id for attempt in self._taking.values()):
            self._attempt(session_id, None, None, attach=True)

    def _attempt(self, session_id: str, sock: Sock | None, caller: Caller | None, *, attach: bool) -> None:
        machine = Resumption(self.node.name, RESUMPTIONS, attach=attach, settled_at=self._started_at + SETTLE)
        attempt = _Attempt(session_id, machine, sock, caller)
        self.world.note("resume: attempt", session=session_id, node=self.node.name, attach=attach)
        self._resume(attempt, machine.start(self._local(session_id), self.cluster.looked_up(session_id), self.world.now))

    def _local(self, session_id: str) -> Local:
        stage = self.recovery.stage(session_id)
        if stage is None:
            return Local.NOT_HERE
        if stage is not Stage.OWNED:
            return Local.RECOVERING
        return Local.DETACHED if self.recovery.hold(session_id) is Hold.NOTHING else Local.ATTACHED

    def _resume(self, attempt: _Attempt, commands: Sequence[ResumptionCommand]) -> None:
        for command in commands:
            self.world.note(f"resume: {type(command).__name__}", session=attempt.session_id, node=self.node.name)
            match command:
                case ReadJournal():
                    operation = partial(self.cluster.store.memory.head, attempt.session_id)
                    done = partial(self._journal_read, attempt)
                    self.cluster.store.request(self, self.node.name, operation, done, partial(self._journal_unread, attempt))
                case Ask(node):
                    self._asked += 1
                    self._asking[self._asked] = attempt
                    self.cluster.ask(self, node, attempt.session_id, self._asked)
                case ServeHere():
                    self._reattach(attempt.session_id, attempt.sock)
                case Relay(node):
                    self.cluster.relay(self, node, attempt.session_id, attempt.sock)
                case TakeOver(epoch):
                    self._take(attempt, epoch)
                case Refuse(reason, retry_after):
                    self.world.note(f"resume: refused {reason.code}", session=attempt.session_id)
                    if reason.code == "session_owned":
                        self.cluster.served(self, attempt.session_id)
                    self._turn_away(attempt, reason, retry_after)
        due = attempt.machine.due
        if due is not None:
            self.world.at_time(max(due, self.world.now + 0.01), self, self._tick_attempt, attempt)

    def _tick_attempt(self, attempt: _Attempt) -> None:
        if not attempt.machine.over and attempt.machine.due is not None and self.world.now >= attempt.machine.due:
            self._resume(attempt, attempt.machine.tick(self.world.now))

    def _journal_read(self, attempt: _Attempt, head: Head | None) -> None:
        view = None if head is None else JournalView(head.epoch, WriterName.parse(head.writer).node, head.ended)
        self._resume(attempt, attempt.machine.journal(view, self._local(attempt.session_id), self.world.now))

    def _journal_unread(self, attempt: _Attempt) -> None:
        self._resume(attempt, attempt.machine.journal_unavailable(self.world.now))

    def answer(self, session_id: str) -> Answer:
        """Say to another gateway what is known of a session."""
        local = self._local(session_id)
        if local is Local.NOT_HERE and not self.settled:
            return Answer.RECOVERING
        return Answer(local.value)

    def answered(self, number: int, node: str, answer: Answer) -> None:
        attempt = self._asking.pop(number, None)
        if attempt is not None:
            self._resume(attempt, attempt.machine.answered(node, answer, self.world.now))

    def relayed(self, session_id: str, sock: Sock) -> None:
        """Another gateway passes a caller on."""
        if self._local(session_id) is Local.DETACHED:
            self._reattach(session_id, sock)
        else:
            sock.shut()

    def _reattach(self, session_id: str, sock: Sock | None) -> None:
        actor = self._actor(self.recovery.owner(session_id))
        if sock is not None and actor is not None:
            # Before the owner has it: should it die first, another one gets it.
            sock.hold(self)
            self.held[session_id] = sock
            self._perform(self.recovery.set_hold(session_id, Hold.SOCKET, self.world.now))
            actor.link.send(Reattach(session_id, sock))  # type: ignore[arg-type]
        elif sock is not None:
            sock.shut()

    def _take(self, attempt: _Attempt, epoch: int) -> None:
        session_id = attempt.session_id
        if self.recovery.stage(session_id) is not None:
            self._resume(attempt, attempt.machine.taken(accepted=False, now=self.world.now))
            return
        self._taking[session_id] = attempt
        if attempt.sock is not None:
            self.held[session_id] = attempt.sock
        self.channels[session_id] = "openai" if attempt.sock is not None else "sip"
        hold = Hold.OUTSIDE if attempt.sock is None else Hold.SOCKET
        self._perform(self.recovery.take(session_id, hold, epoch, "resumed", self.world.now))

    def _turn_away(self, attempt: _Attempt, reason: EndReason, retry_after: int | None) -> None:
        if self._taking.get(attempt.session_id) is attempt:
            del self._taking[attempt.session_id]
            if attempt.sock is not None and self.held.get(attempt.session_id) is attempt.sock:
                del self.held[attempt.session_id]
                self._perform(self.recovery.set_hold(attempt.session_id, Hold.NOTHING, self.world.now))
        if attempt.caller is not None:
            attempt.caller.refused(reason.code, retry_after)
        if attempt.sock is not None:
            attempt.sock.shut()

    # The links.

    def on_message(self, link: Link, message: Any) -> None:
        now = self.world.now
        if isinstance(message, HoldsOn):
            self._on_hello(link, message)
            return
        if isinstance(message, JournalEntries):
            self._desk.take(link, message)
            return
        actor_id = link.actor.actor_id
        match message:
            case Up(session_id, _):
                self.recovery.up(session_id, actor_id)
                self.cluster.up(session_id, self.node)
            case Ended(session_id, _):
                self._perform(self.recovery.ended(session_id, actor_id, now))
            case Returned(session_id, reason):
                self._leave_roster(session_id, link)
                self._perform(self.recovery.refused(session_id, actor_id, reason, now))
            case Recovered(session_id, epoch):
                self._perform(self.recovery.recovered(session_id, actor_id, epoch, now))
                attempt = self._taking.pop(session_id, None)
                if attempt is not None:
                    self._resume(attempt, attempt.machine.taken(accepted=True, now=now))
            case Released(session_id):
                self._leave_roster(session_id, link)
                self._perform(self.recovery.released(session_id, actor_id, now))
            case HoldChanged(session_id, hold, sock):
                self._on_hold(session_id, actor_id, hold, sock)
            case _:
                raise AssertionError(message)

    def _on_hello(self, link: Link, message: HoldsOn) -> None:
        hello = message.hello
        for session_id, sock in message.socks.items():
            if self.recovery.stage(session_id) is None and sock.open:
                sock.hold(self)
                self.held[session_id] = sock
        self.roster.join(link, hello, self.node.wall())
        self.freezes.watch(hello.actor_id, self.world.now)
        self._perform(self.recovery.hello(hello.actor_id, hello.pid, hello.seats, message.claims, self.world.now))

    def _on_hold(self, session_id: str, actor_id: str, hold: Hold, sock: Sock | None) -> None:
        if self.recovery.owner(session_id) != actor_id:
            return
        if sock is not None and sock.open:
            sock.hold(self)
            self.held[session_id] = sock
        elif hold is Hold.NOTHING:
            self.held.pop(session_id, None)
        self._perform(self.recovery.hold_changed(session_id, actor_id, hold, self.world.now))

    def on_link_lost(self, link: Link) -> None:
        self.links.discard(link)
        self._desk.link_lost(link)
        if self.roster.leave(link) is not None:
            self.freezes.forget(link.actor.actor_id)
        self._perform(self.recovery.link_lost(link.actor.actor_id, link.actor.pid, self.world.now))

    def on_gone(self, actor_id: str, pid: int) -> None:
        self._perform(self.recovery.gone(actor_id, pid, self.world.now))

    def _actor(self, actor_id: str | None) -> Actor | None:
        return next((actor for actor in self.roster.actors if actor.actor_id == actor_id), None)

    def _leave_roster(self, session_id: str, link: Link | None) -> None:
        session = self.roster.session(session_id)
        if session is not None and (link is None or session.actor.link is link):
            self.roster.end(session)

    # Recovery.

    def hand_over(self, actor_id: str) -> None:
        self._perform(self.recovery.hand_over(actor_id, self.world.now))
        self._leaving.add(actor_id)

    def _perform(self, commands: Sequence[RecoveryCommand]) -> None:
        for command in commands:
            self._perform_one(command)
        due = self.recovery.due
        if due is not None and due < self._armed:
            self._armed = due
            self.world.at_time(max(due, self.world.now + 0.001), self, self._tick)

    def _tick(self) -> None:
        self._armed = float("inf")
        self._perform(self.recovery.tick(self.world.now))

    def _perform_one(self, command: RecoveryCommand) -> None:
        self.world.note(f"recovery: {type(command).__name__}", node=self.node.name, command=command)
        match command:
            case Offer():
                self._offer(command)
            case Kill(actor_id, pid):
                self.world.at(0.0005, None, self.cluster.kill_pid, self.node, actor_id, pid)
            case Release(actor_id, session_id):
                actor = self._actor(actor_id)
                if actor is not None:
                    self._leave_roster(session_id, cast("Link", actor.link))
                    actor.link.send(Drop(session_id))  # type: ignore[arg-type]
            case EndCaller(session_id, reason, final):
                self._end_caller(session_id, reason, final=final)
            case Forget(session_id):
                self._forget(session_id)

    def _offer(self, offer: Offer) -> None:
        actor = self._actor(offer.actor_id)
        if actor is None:
            return
        self.world.note(f"offer: {offer.cause}")
        self._leave_roster(offer.session_id, None)
        channel = self.channels.get(offer.session_id, "openai")
        self.roster.give(offer.session_id, channel, actor, "", self.node.wall())
        state = None if offer.durable else self.copies.state(offer.session_id)
        if state is not None:
            self._hand(offer, state)
        elif not offer.begun:
            sock = self.held.get(offer.session_id)
            call_id = f"call-{offer.session_id}" if channel == "sip" else None
            actor.link.send(Adopted(offer.session_id, channel, sock, call_id))  # type: ignore[arg-type]
        else:
            self._read(offer.session_id, partial(self._hand, offer), partial(self._not_read, offer))

    def _read(self, session_id: str, done: Callable[[CallState], None], failed: Callable[[], None]) -> None:
        """Read a call from the store, if all is there that this node has of it."""
        self.world.note("offer: read from the store", session=session_id)

        def read(entries: Sequence[Entry]) -> None:
            state = replay(session_id, entries)
            if self.writer.spooled or state.last_seq < self.copies.last_seq(session_id):
                self.world.note("offer: not all is in the store yet", session=session_id)
                failed()
            else:
                done(state)

        self.cluster.store.request(self, self.node.name, partial(self.cluster.store.memory.read, session_id), read, failed)

    def _not_read(self, offer: Offer) -> None:
        self._leave_roster(offer.session_id, None)
        self._perform(self.recovery.refused(offer.session_id, offer.actor_id, _NOT_TAKEN, self.world.now))

    def _hand(self, offer: Offer, state: CallState) -> None:
        actor = self._actor(offer.actor_id)
        if actor is None or self.recovery.owner(offer.session_id) != offer.actor_id:
            return
        if not state.last_seq:
            # It was answered, and then its owner died before it wrote a word.
            self.world.note("offer: begins anew", session=offer.session_id)
            channel = self.channels.get(offer.session_id, "openai")
            call_id = f"call-{offer.session_id}" if channel == "sip" else None
            sock = self.held.get(offer.session_id)
            actor.link.send(Adopted(offer.session_id, channel, sock, call_id))  # type: ignore[arg-type]
            return
        if state.end is not None or (not offer.durable and is_elsewhere(state.writer, self.node.name)):
            reason = EndReason("not_the_owner" if state.end is None else "session_ended")
            self._perform(self.recovery.refused(offer.session_id, offer.actor_id, reason, self.world.now))
            return
        self.channels[offer.session_id] = state.channel or "openai"
        self.copies.adopt(state)
        sock = self.held.get(offer.session_id)
        message = Recover(offer.session_id, state.channel or "openai", state, offer.durable, offer.cause, sock)
        actor.link.send(message)  # type: ignore[arg-type]

    def _end_caller(self, session_id: str, reason: EndReason, *, final: bool) -> None:
        self.world.note(f"caller: ended {reason.code}", session=session_id, final=final)
        attempt = self._taking.pop(session_id, None)
        if attempt is not None:
            self.held.pop(session_id, None)
            if reason.code == "not_the_owner":
                self.world.at(0.0, self, self._resume, attempt, attempt.machine.taken(accepted=False, now=self.world.now))
            else:
                self._turn_away(attempt, reason, 1)
        sock = self.held.pop(session_id, None)
        if sock is not None:
            sock.shut()
        if final:
            self.closings.add(session_id)
            state = self.copies.state(session_id)
            if state is not None:
                self._close(reason, state)
            else:
                self._close_later(session_id, reason)

    def _close_later(self, session_id: str, reason: EndReason) -> None:
        if session_id in self.closings:
            later = partial(self.world.at, 0.5, self, self._close_later, session_id, reason)
            self._read(session_id, partial(self._close, reason), later)

    def _close(self, reason: EndReason, state: CallState) -> None:
        if state.end is None and state.last_seq:
            head = Head(state.session_id, state.epoch, state.writer, state.last_seq)
            self._closed += 1
            writer = str(WriterName(self.node.name, f"gateway+{self._closed}", self.pid))
            self.writer.submit(closing_entries(head, writer, self.node.name, reason, self.node.wall()))

    def _forget(self, session_id: str) -> None:
        sock = self.held.pop(session_id, None)
        if sock is not None:
            sock.release(self)
        self._leave_roster(session_id, None)
        self.copies.forget(session_id)

    # Housekeeping.

    def _keep_house(self) -> None:
        now = self.world.now
        for actor in self.node.actors.values():
            if actor.alive and not actor.frozen:
                self.freezes.beat(actor.actor_id, now)
        for command in self.freezes.look(now):
            self.world.note(f"freeze: {type(command).__name__}", actor=command.actor_id)
            match command:
                case Suspect(actor_id) | Trust(actor_id):
                    known = self._actor(actor_id)
                    if known is not None:
                        known.silent = isinstance(command, Suspect)
                    self._perform(self.recovery.suspect(actor_id, suspected=isinstance(command, Suspect), now=now))
                case KillFrozen(actor_id):
                    self._perform(self.recovery.frozen(actor_id, now))
                case _:
                    pass
        for actor_id in [name for name in self._leaving if not self.recovery.load(name)]:
            self._leaving.discard(actor_id)
            if (leaver := self._actor(actor_id)) is not None:
                self.cluster.kill_pid(self.node, actor_id, leaver.pid)
        self._reports += 1
        self.cluster.report(self, self.snapshot())
        self.world.at(HOUSEKEEPING, self, self._keep_house)

    def snapshot(self) -> GatewaySnapshot:
        recovery = self.recovery
        sessions = tuple(
            SessionSnapshot(
                session_id,
                self.channels.get(session_id, ""),
                recovery.owner(session_id) or "",
                stage.value if (stage := recovery.stage(session_id)) else "",
                0.0,
                recovery.epoch(session_id),
            )
            for session_id in recovery.sessions()
        )
        return GatewaySnapshot(
            node=self.node.name,
            incarnation=self.incarnation,
            sequence=self._reports,
            pid=self.pid,
            host="",
            port=0,
            ready=any(not actor.silent for actor in self.roster.actors),
            draining=False,
            max_sessions=100,
            handshakes=0,
            pending_heads=0,
            starts=0,
            ends=0,
            refusals=0,
            sessions=sessions,
            actors=self.roster.actor_snapshots(),
        )


_ = FromActor
