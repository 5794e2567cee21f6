"""A session actor: the real tails and journals, calls that write and run tools, and whatever can happen to their process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.channels.journalling import CallJournal, Journals
from orchestrator.cluster.link_messages import (
    Ended,
    HeldSession,
    Hello,
    JournalAcknowledged,
    JournalEntries,
    JournalLost,
    JournalRefused,
    Up,
)
from orchestrator.errors import EndReason
from orchestrator.gateway.recovery_commands import Claim, Hold
from orchestrator.journal.entries import (
    AgentChanged,
    Body,
    CallEnded,
    CallStarted,
    Entry,
    ItemWritten,
    LegChanged,
    ResponseEnded,
    ResponseStarted,
    ToolAnswered,
    ToolRequested,
    ToolStarted,
    UsageCounted,
)
from orchestrator.journal.items import history_digest
from orchestrator.journal.parcels import parcels
from orchestrator.journal.state import CallState, OpenToolCall, ToolStage
from orchestrator.journal.tail import JournalTail
from orchestrator.journal.writers import WriterName
from tests.simulation.messages import (
    Adopted,
    Drop,
    HoldChanged,
    HoldsOn,
    Reattach,
    Recover,
    Recovered,
    Released,
    Returned,
)
from tests.simulation.store import STORE
from tests.simulation.world import Link, Process, Sock, Violation

if TYPE_CHECKING:
    from tests.simulation.cluster import Cluster, Node

__all__ = ["ActorTwin", "CallTwin"]

DETACH_AFTER = 0.6
TOOL_PATIENCE = 3.0
RESUME_GRACE = 6.0
_NOT_OWNER = EndReason("not_the_owner", by="infrastructure")


class CallTwin:
    """One call of an actor."""

    def __init__(self, session_id: str, channel: str, tail: JournalTail, sock: Sock | None) -> None:
        self.session_id = session_id
        self.channel = channel
        self.tail = tail
        self.sock = sock
        self.serving = False
        self.served_at = 0.0
        self.over = False
        # The claim that has to be acknowledged before it serves, and whether the node's disk is enough for that.
        self.claim_seq = 0
        self.durable = False
        self.durable_seq = 0
        self.absences = 0
        # Tools that wait until their start is in the store: call id and entry.
        self.starting: dict[str, int] = {}

    @property
    def hold(self) -> Hold:
        if self.channel == "sip":
            return Hold.OUTSIDE
        return Hold.NOTHING if self.sock is None else Hold.SOCKET


class _Journal(CallJournal):
    """A journal whose facts come from a twin, not from a session."""

    def finish(self, reason: EndReason) -> None:
        self._end = CallEnded(reason, history_digest(self.tail.state.history))
        self._write(self._end)


class _Journals(Journals):
    """The journals of a process that takes calls over, too: each tenure of a call has a writer's name of its own."""

    def add(self, journal: CallJournal) -> None:
        self._journals[journal.tail.session_id] = journal

    def of(self, session_id: str) -> _Journal | None:
        journal = self._journals.get(session_id)
        return journal if isinstance(journal, _Journal) else None

    def drop(self, session_id: str) -> None:
        self._journals.pop(session_id, None)

    def _of(self, session_id: str, writer: str) -> CallJournal | None:
        journal = self._journals.get(session_id)
        return journal if journal is not None and journal.tail.writer == writer else None


class ActorTwin(Process):
    """A session actor's process."""

    def __init__(self, cluster: Cluster, node: Node, actor_id: str, seats: int) -> None:
        super().__init__(cluster.world, actor_id, cluster.world.new_pid())
        self.cluster = cluster
        self.node = node
        self.actor_id = actor_id
        self.seats = seats
        self.calls: dict[str, CallTwin] = {}
        self.link: Link | None = None
        self._tenures: dict[str, int] = {}
        self._journals = _Journals("", self._send_entries, self._end_refused)

    # The link.

    def connect(self) -> None:
        """Link to the node's gateway, as soon as there is one."""
        gateway = self.node.gateway
        if (self.link is not None and not self.link.broken) or gateway is None or not gateway.alive:
            return
        self.link = Link(self.world, self, gateway)
        gateway.links.add(self.link)
        gateway.recovery.connected(self.pid)
        claims = tuple(Claim(call.session_id, call.tail.epoch, call.hold) for call in self.calls.values() if call.serving)
        held = tuple(HeldSession(claim.session_id, "", "live") for claim in claims)
        socks = {call.session_id: call.sock for call in self.calls.values() if call.sock is not None}
        self.link.up(HoldsOn(Hello(self.actor_id, self.pid, self.seats, held), claims, socks))
        for call in list(self.calls.values()):
            if not call.serving:
                # What it was offered went with the last link, or will be offered again.
                self._let_go(call)
        self._journals.send_open()
        for call in self.calls.values():
            for call_id in list(call.starting):
                # What the last gateway had on disk is acknowledged to nobody now; what comes after it speaks for it.
                entry = self._write(call, ToolStarted(call_id, idempotent=False))
                call.starting[call_id] = call.tail.state.last_seq if entry is None else entry.seq

    def on_link_lost(self, link: Link) -> None:
        if self.link is link:
            self.link = None
            self.world.at(self.world.between(0.01, 0.08), self, self.connect)

    def on_message(self, link: Link, message: Any) -> None:
        if link is not self.link:
            return
        match message:
            case JournalAcknowledged():
                self._on_acknowledged(message)
            case JournalRefused():
                self._journals.refused(message.session_id, message.writer)
            case JournalLost():
                self._on_lost(message)
            case Adopted():
                self._on_adopted(message)
            case Recover():
                self._on_recover(message)
            case Drop():
                self._on_drop(message)
            case Reattach():
                self._on_reattach(message)
            case _:
                raise AssertionError(message)

    def tell(self, message: Any) -> None:
        if self.link is not None:
            self.link.up(message)

    # Taking calls.

    def _on_adopted(self, message: Adopted) -> None:
        if message.session_id in self.calls or len(self.calls) >= self.seats:
            self.tell(Returned(message.session_id, EndReason("no_seat")))
            return
        call = self._open(message.session_id, message.channel, message.sock, None)
        self.tell(Up(message.session_id, 0.001))
        self.world.at(self.world.short(), self, self._begin, call, message.call_id)

    def _begin(self, call: CallTwin, call_id: str | None) -> None:
        if call.over:
            return
        self._write(call, CallStarted(call.channel, "A"))
        if call_id is not None:
            self._write(call, LegChanged("caller", "attached", reference=call_id))
        self._serve(call)

    def _on_recover(self, message: Recover) -> None:
        if message.session_id in self.calls or len(self.calls) >= self.seats:
            self.tell(Returned(message.session_id, EndReason("no_seat")))
            return
        call = self._open(message.session_id, message.channel, message.sock, message.state)
        call.durable = message.durable
        self.cluster.parents[call.session_id, call.tail.writer] = message.state.writer
        if message.durable:
            self.cluster.strangers.add((call.session_id, call.tail.writer))
        claim = call.tail.take_over(message.cause, self.node.name, self.wall())
        assert claim is not None
        call.claim_seq = claim.seq
        key = (call.session_id, call.tail.epoch, call.tail.writer)
        self.cluster.store.claims[key] = call.tail.state.to_json()
        self._send_entries([claim])

    def _open(self, session_id: str, channel: str, sock: Sock | None, state: CallState | None) -> CallTwin:
        epoch = 1 if state is None else state.epoch + 1
        tail = JournalTail(session_id, self._writer_of(session_id), epoch=epoch, state=state)
        call = self.calls[session_id] = CallTwin(session_id, channel, tail, sock)
        self._journals.add(_Journal(tail, self._send_entries, self.wall))
        if sock is not None:
            sock.hold(self)
        return call

    def _writer_of(self, session_id: str) -> str:
        tenure = self._tenures[session_id] = self._tenures.get(session_id, 0) + 1
        actor = self.actor_id if tenure == 1 else f"{self.actor_id}+{tenure}"
        return str(WriterName(self.node.name, actor, self.pid))

    def _serve(self, call: CallTwin) -> None:
        call.serving = True
        call.served_at = self.world.now
        self.world.note("actor: serves", session=call.session_id, writer=call.tail.writer, epoch=call.tail.epoch)
        if call.claim_seq:
            self.tell(Recovered(call.session_id, call.tail.epoch))
        if call.session_id in self.cluster.poison:
            self.world.at(self.world.between(0.0, 0.2), self, self.cluster.kill, self)
        if call.channel == "sip":
            self.cluster.attach_sip(call.session_id, self)
        self._look_at_caller(call)
        if call.over:
            return
        for tool in list(call.tail.state.tool_calls.values()):
            self._go_on_with(call, tool)
        self.world.at(self.cluster.pause(), self, self._talk, call)

    # Letting go.

    def _on_drop(self, message: Drop) -> None:
        call = self.calls.get(message.session_id)
        if call is not None:
            self._let_go(call)
        self.tell(Released(message.session_id))

    def _let_go(self, call: CallTwin) -> None:
        call.over = True
        self.calls.pop(call.session_id, None)
        self._journals.drop(call.session_id)
        if call.sock is not None:
            call.sock.release(self)

    def _end_refused(self, session_id: str, reason: EndReason) -> None:
        """The journal says that another one owns it."""
        call = self.calls.get(session_id)
        if call is None:
            return
        self.world.note("actor: refused", session=session_id, writer=call.tail.writer)
        self.cluster.refused.add((session_id, call.tail.writer))
        self._let_go(call)
        if call.serving:
            if call.sock is not None:
                call.sock.shut()
            self.tell(Ended(session_id, reason))
        else:
            self.tell(Returned(session_id, _NOT_OWNER))

    def end(self, call: CallTwin, code: str) -> None:
        """The call is over."""
        if call.over:
            return
        call.over = True
        self.calls.pop(call.session_id, None)
        reason = EndReason(code)
        journal = self._journals.of(call.session_id)
        if journal is not None:
            journal.finish(reason)
        if call.sock is not None:
            call.sock.shut()
        self.world.note("actor: ended", session=call.session_id, code=code)
        self.tell(Ended(call.session_id, reason))

    # The caller.

    def _look_at_caller(self, call: CallTwin) -> None:
        """See what the socket, or the provider, says."""
        if call.over:
            return
        if call.channel == "sip":
            if self.cluster.sip_is_over(call.session_id):
                self.end(call, "caller_hung_up")
            return
        if call.sock is None:
            self._detach(call)
        elif call.sock.caller_left:
            self.end(call, "caller_hung_up")
        elif not call.sock.open or not call.sock.reachable:
            self.world.at(DETACH_AFTER, self, self._detach, call, call.sock)

    def caller_changed(self, sock: Sock) -> None:
        """The kernel, or a keepalive, tells something about a caller's socket."""
        for call in list(self.calls.values()):
            if call.sock is sock and call.serving:
                self._look_at_caller(call)

    def hung_up(self, session_id: str) -> None:
        """The provider says that the call is over."""
        call = self.calls.get(session_id)
        if call is not None and call.serving:
            self._look_at_caller(call)

    def _detach(self, call: CallTwin, sock: Sock | None = None) -> None:
        if call.over or call.sock is not sock or not call.serving:
            return
        if sock is not None:
            sock.shut()
        call.sock = None
        self._write(call, LegChanged("caller", "lost"))
        self.tell(HoldChanged(call.session_id, Hold.NOTHING, None))
        self.world.note("actor: caller away", session=call.session_id)
        call.absences += 1
        self.world.at(RESUME_GRACE, self, self._grace_over, call, call.absences)

    def _grace_over(self, call: CallTwin, absence: int) -> None:
        if call.sock is None and absence == call.absences:
            self.end(call, "caller_did_not_return")

    def _on_reattach(self, message: Reattach) -> None:
        call = self.calls.get(message.session_id)
        if call is None or call.over or not call.serving or call.sock is not None:
            message.sock.shut()
            return
        message.sock.hold(self)
        call.sock = message.sock
        self._write(call, LegChanged("caller", "back"))
        self.tell(HoldChanged(call.session_id, Hold.SOCKET, message.sock))
        self.world.note("actor: caller back", session=call.session_id)
        self._look_at_caller(call)

    # The journal.

    def wall(self) -> float:
        return self.node.wall()

    def _send_entries(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.cluster.sent[entry.session_id, entry.writer, entry.seq] = entry
        if self.link is not None:
            for data, more in parcels(entries):
                self.link.up(JournalEntries(data, more))

    def _write(self, call: CallTwin, body: Body) -> Entry | None:
        if call.tail.refused:
            raise Violation("refused_is_silent", f"{call.tail.writer} goes on with {call.session_id}")
        entry = call.tail.write(body, self.wall())
        if entry is not None:
            self._send_entries([entry])
        return entry

    def _on_acknowledged(self, message: JournalAcknowledged) -> None:
        self._journals.acknowledged(message.session_id, message.writer, message.seq)
        call = self.calls.get(message.session_id)
        if call is None or call.tail.writer != message.writer:
            return
        if message.durable:
            call.durable_seq = max(call.durable_seq, message.seq)
            self._start_tools(call)
        if not call.serving and (call.durable_seq if call.durable else call.tail.kept_seq) >= call.claim_seq:
            self._serve(call)

    def _on_lost(self, message: JournalLost) -> None:
        self._journals.lost(message.session_id, message.writer, room=message.room)
        call = self.calls.get(message.session_id)
        if call is not None and call.tail.writer == message.writer and not (call.serving or call.durable or message.room):
            # Nothing can keep the claim now. The last owner is dead, so the call goes on without a net.
            self._serve(call)

    # Talking.

    def _talk(self, call: CallTwin) -> None:
        if call.over or not call.serving:
            return
        if (call.session_id, call.tail.writer) in self.cluster.refused:
            raise Violation("refused_is_silent", f"{call.tail.writer} serves {call.session_id}")
        self.world.at(self.cluster.pause(), self, self._talk, call)
        if self.cluster.silent:
            return
        dice = self.world.random.random()
        state = call.tail.state
        mark = f"{call.tail.epoch}.{state.last_seq}"
        if dice < 0.35:
            item = {"item_id": f"i{mark}", "type": "message", "role": "user"}
            self._write(call, ItemWritten(item, state.order[-1] if state.order else None))
        elif dice < 0.5:
            self._write(call, ResponseStarted(f"r{mark}") if state.response_id is None else ResponseEnded(state.response_id))
        elif dice < 0.6:
            self._write(call, UsageCounted(1, 2, 3))
        elif dice < 0.65:
            self._write(call, AgentChanged(f"A{mark}"))
        elif len(state.tool_calls) < 2:
            call_id = f"c{mark}"
            idempotent = dice > 0.9
            self._write(call, ToolRequested(call_id, f"i{mark}", "book" if not idempotent else "look_up", "{}"))
            if dice < 0.97:
                self._go_on_with(call, state.tool_calls[call_id])

    def _go_on_with(self, call: CallTwin, tool: OpenToolCall) -> None:
        """Do with a tool call what its stage asks for; after a takeover it may have any."""
        if tool.stage is ToolStage.RUNNING:
            if tool.idempotent:
                self.world.note("tool: runs again", session=call.session_id, call=tool.call_id)
                self._run(call, tool.call_id, idempotent=True)
            else:
                self.world.note("tool: outcome unknown", session=call.session_id, call=tool.call_id)
                self._write(call, ToolAnswered(tool.call_id, "outcome unknown", "tool_outcome_unknown"))
            return
        idempotent = tool.name == "look_up"
        entry = self._write(call, ToolStarted(tool.call_id, idempotent))
        if idempotent:
            self._run(call, tool.call_id, idempotent=True)
            return
        # Who else might own the call by now can only be known from the store.
        call.starting[tool.call_id] = call.tail.state.last_seq if entry is None else entry.seq
        self.world.at(TOOL_PATIENCE, self, self._give_tool_up, call, tool.call_id)

    def _start_tools(self, call: CallTwin) -> None:
        for call_id, seq in list(call.starting.items()):
            if seq <= call.durable_seq:
                del call.starting[call_id]
                self._run(call, call_id, idempotent=False)

    def _give_tool_up(self, call: CallTwin, call_id: str) -> None:
        if not call.over and (seq := call.starting.pop(call_id, None)) is not None:
            written_at = self.cluster.store.written_at.get((call.session_id, call.tail.writer, seq), self.world.now)
            store = self.cluster.store
            gateway = self.node.gateway
            reachable = not store.down and self.world.connected(self.node.name, STORE)
            reachable = reachable and gateway is not None and gateway.alive and not gateway.frozen
            if reachable and self.world.now - max(written_at, self.cluster.disturbed_at) > 1.0:
                raise Violation("acknowledgement_arrives", f"{call.tail.writer} was not told that {seq} is in the store")
            self.world.note("tool: not started", session=call.session_id, call=call_id)
            self._write(call, ToolAnswered(call_id, "not started", "tool_not_started"))

    def _run(self, call: CallTwin, call_id: str, *, idempotent: bool) -> None:
        if call.over:
            return
        self.cluster.ran(call.session_id, call_id, idempotent=idempotent)
        self.world.note("tool: runs", session=call.session_id, call=call_id, writer=call.tail.writer)
        self.world.at(self.world.between(0.02, 0.8), self, self._tool_done, call, call_id)

    def _tool_done(self, call: CallTwin, call_id: str) -> None:
        if not call.over and call_id in call.tail.state.tool_calls:
            self._write(call, ToolAnswered(call_id, "done"))
