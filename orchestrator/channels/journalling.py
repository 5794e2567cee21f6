"""What a call writes into its journal, and the journals of all calls of a process.

A call's facts are taken from what its session says: each item of the history as it stands, each tool call before it runs and
when it is answered, who speaks, what it used, why it ended. They are sent to the node's gateway in the callback that brings
them, so they are with another process before anything follows from them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec

from orchestrator.core.call_items import short_id
from orchestrator.core.items import RealtimeItem, RealtimeToolCallItem
from orchestrator.core.tool_calls import ToolCall
from orchestrator.errors import EndReason
from orchestrator.journal.entries import (
    AgentChanged,
    ApprovalAsked,
    ApprovalGiven,
    Body,
    CallEnded,
    CallStarted,
    ContextChanged,
    Entry,
    ItemDeleted,
    ItemWritten,
    LegChanged,
    ResponseEnded,
    ResponseStarted,
    ToolAnswered,
    ToolRequested,
    ToolStarted,
    UsageCounted,
    encode_legibly,
)
from orchestrator.journal.items import history_digest, item_of, record_of
from orchestrator.journal.state import CallState, OpenToolCall, ToolStage
from orchestrator.journal.tail import JournalTail
from orchestrator.journal.writers import WriterName
from orchestrator.realtime.events import (
    RealtimeAgentEndEvent,
    RealtimeAgentStartEvent,
    RealtimeHandoffEvent,
    RealtimeSessionEvent,
    RealtimeToolApprovalRequired,
    RealtimeToolEnd,
)
from orchestrator.realtime.handing_off import handoff_output
from orchestrator.realtime.session import RealtimeSession
from orchestrator.telemetry import names
from orchestrator.telemetry.logs import get_logger
from orchestrator.telemetry.metrics import Metrics, NullMetrics
from orchestrator.usage import Usage

__all__ = ["CallJournal", "Journals"]

_NOT_THE_OWNER = EndReason("not_the_owner", "another owner serves this call", "journal_refused", "infrastructure")

# Bytes of entries that a new link is given at once; it queues about twice as much.
MOST_AT_ONCE = 32 * 1024 * 1024
# Seconds that a side effect waits for the word that it is known of: by then the gateway has at least been given it. While there
# is no gateway it waits longer, and does not happen when none comes.
CONFIRMED_WITHIN = 2.0
GATEWAY_WITHIN = 5.0
LOOK_AGAIN = 0.25
# Calls that are over and wait for room to say so. Their states are in memory until then.
MOST_TORN = 100

_log = get_logger()


class CallJournal:
    """One call's facts on their way into its tail, which may know of earlier owners. `send` gets each entry at once.

    It is the ledger of the session's tool calls. `sent` tells whether all that was sent so far is with a gateway. No method
    raises: a fact that cannot be written is logged and left out, since a record must not end what it records.
    """

    def __init__(
        self,
        tail: JournalTail,
        send: Callable[[Sequence[Entry]], None],
        clock: Callable[[], float] = time.time,
        *,
        sent: Callable[[], bool] = lambda: True,
        metrics: Metrics | None = None,
    ) -> None:
        self.tail = tail
        self._send = send
        self._clock = clock
        self._sent = sent
        self._metrics = metrics or NullMetrics()
        # The items as they were written last.
        self._written = _items_of(tail.state)
        # Outputs that were written and that the history does not show yet, by call.
        self._answers: dict[str, str] = {}
        state = tail.state
        self._usage = Usage(state.requests, state.input_tokens, state.output_tokens, state.total_tokens)
        self._end: CallEnded | None = None
        self._left = False
        # Side effects that wait until the entry of this number is kept.
        self._waiting: list[tuple[int, asyncio.Future[bool]]] = []

    @property
    def over(self) -> bool:
        """Whether the call has ended, or was left to another owner."""
        return self._end is not None or self._left

    def leave(self) -> None:
        """The call goes on with another owner: write no more of it."""
        self._left = True

    @property
    def settled(self) -> bool:
        """Whether nothing of the call needs to be kept here any longer."""
        return self.over and not self.tail.open and not self.tail.torn

    def started(self, *, channel: str, agent: str, context: Any, peer: str) -> None:
        """The caller is known and the conversation begins. `context` is what the tools are given, JSON."""
        try:
            given = encode_legibly(context)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            _log.error("journal_context_left_out", session_id=self.tail.session_id, error=type(error).__name__)
            given = b"null"
        with self._harmless():
            self._write(CallStarted(channel, agent, msgspec.Raw(given), peer))

    def taken_over(self, cause: str, node: str) -> None:
        """This process owns the call from here on. To be called first, on a tail that knows what was before."""
        with self._harmless():
            # By the tail, which names the owner before: should that one's last entries be lost, this one is asked for them.
            entry = self.tail.take_over(cause, node, self._clock())
            if entry is not None:
                self._send([entry])
            state = self.tail.state
            for call in list(state.tool_calls.values()):
                output = state.items.get(call.item_id, {}).get("output")
                if output is not None:
                    # Somebody else has answered it, or older code, which noted that later than in the history.
                    self._write(ToolAnswered(call.call_id, output))

    def event(self, event: RealtimeSessionEvent, session: RealtimeSession) -> None:
        """Take in an event of the session, and what has changed in the history by then."""
        self.history(session.history)
        with self._harmless():
            self._event(event, session)

    def leg(self, leg: str, state: str, cause: str | None = None) -> None:
        """A leg, "caller" or "model", was lost or is back."""
        with self._harmless():
            self._write(LegChanged(leg, state, cause=cause))

    def history(self, items: Sequence[RealtimeItem]) -> None:
        """Write what is new, changed or gone since the last time."""
        with self._harmless():
            self._history(items)

    def ended(self, reason: EndReason, items: Sequence[RealtimeItem]) -> None:
        """The call is over."""
        self._answers.clear()
        # What was told ahead of the history is set right, if it never came to that.
        self._written = _items_of(self.tail.state)
        self.history(items)
        self._end = CallEnded(reason)
        with self._harmless():
            self._end = CallEnded(reason, history_digest(items))
        with self._harmless():
            self._write(self._end)

    # What happens to tool calls: ToolLedger.

    def requested(self, call: ToolCall, agent: str) -> None:
        """Write that the model asked for a call."""
        with self._harmless():
            if self._open(call) is None:
                response_id = self.tail.state.response_id if call.response_id is None else call.response_id
                name = short_id(call.call_id)
                self._write(ToolRequested(name, call.item_id, call.name, call.arguments, response_id, agent))

    def decided(self, call: ToolCall, *, approved: bool, always: bool, message: str | None) -> None:
        """Write what a person decided."""
        with self._harmless():
            self._write(ApprovalGiven(short_id(call.call_id), approved, always, message))

    async def may_start(self, call: ToolCall, *, idempotent: bool, wait: bool) -> bool:
        """Write that a call begins and, with `wait`, wait until that survives this process; see `ToolLedger`."""
        written = False
        with self._harmless():
            known = self._open(call)
            if known is None or known.stage is not ToolStage.RUNNING:
                self._write(ToolStarted(short_id(call.call_id), idempotent=idempotent))
            written = known is not None
        if not wait:
            return not self.tail.refused
        return written and await self._kept(call)

    def answered(self, call: ToolCall, output: str, error_code: str | None) -> None:
        """Write what a call is answered with."""
        with self._harmless():
            known = self._open(call)
            if known is not None:
                self._answers[known.call_id] = output
                self._write(ToolAnswered(known.call_id, output, error_code))

    def acknowledged(self, seq: int) -> None:
        """All entries up to `seq` are kept."""
        self.tail.acknowledged(seq)
        for wanted, waiter in self._waiting:
            if wanted <= self.tail.kept_seq and not waiter.done():
                waiter.set_result(True)

    def refused(self) -> None:
        """Another owner serves the call: write no more, and begin nothing."""
        self.tail.refused = True
        for _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(False)

    async def _kept(self, call: ToolCall) -> bool:
        """Wait until all that was written is kept; tells whether the call may run."""
        tail = self.tail
        seq = tail.state.last_seq
        if tail.refused or tail.kept_seq >= seq:
            return not tail.refused
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting.append((seq, waiter))
        now, patience = loop.time(), CONFIRMED_WITHIN
        give_up_at = now + GATEWAY_WITHIN
        try:
            while now < give_up_at:
                await asyncio.wait({waiter}, timeout=patience)
                if waiter.done():
                    return waiter.result()
                if self._sent() and not tail.torn:
                    # It is in the hands of another process, so it outlives this one.
                    return self._unconfirmed(call, runs=True)
                now, patience = loop.time(), LOOK_AGAIN
            return self._unconfirmed(call, runs=False)
        finally:
            self._waiting.remove((seq, waiter))

    def _unconfirmed(self, call: ToolCall, *, runs: bool) -> bool:
        outcome = "run" if runs else "refused"
        self._metrics.inc(names.TOOLS_UNCONFIRMED_TOTAL, outcome=outcome)
        _log.error("tool_unconfirmed", session_id=self.tail.session_id, call_id=call.call_id, tool=call.name, outcome=outcome)
        return runs

    def _open(self, call: ToolCall) -> OpenToolCall | None:
        return self.tail.state.tool_calls.get(short_id(call.call_id))

    def resume(self) -> None:
        """Write a snapshot, now that there is room for it again."""
        with self._harmless():
            entry = self.tail.resume(self._clock())
            if entry is None:
                return
            self._send([entry])
            if self._end is not None:
                # A snapshot does not end a journal.
                self._write(self._end)

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever a tool, a caller or the model gave us
            _log.error("journal_fact_left_out", session_id=self.tail.session_id, error=type(error).__name__)

    def _event(self, event: RealtimeSessionEvent, session: RealtimeSession) -> None:
        match event:
            case RealtimeAgentStartEvent():
                self._write(ResponseStarted(session.active_response or ""))
            case RealtimeAgentEndEvent():
                if self.tail.state.response_id is not None:
                    self._write(ResponseEnded(self.tail.state.response_id))
                self._count(session.usage)
            case RealtimeHandoffEvent():
                # In one entry, so that no crash can come between the switch and the answer.
                output = handoff_output(event.to_agent.name)
                self._write(AgentChanged(event.to_agent.name, short_id(event.call_id) or None, output))
                self._context(event.info.context.context)
            case RealtimeToolApprovalRequired():
                known = self.tail.state.tool_calls.get(short_id(event.call_id))
                if known is not None and known.stage is not ToolStage.AWAITING_APPROVAL:
                    self._write(ApprovalAsked(known.call_id))
            case RealtimeToolEnd():
                self._context(event.info.context.context)
            case _:
                pass

    def _history(self, items: Sequence[RealtimeItem]) -> None:
        before: str | None = None
        for item in items:
            known = self._written.get(item.item_id)
            # They are frozen, so the same object is the same item; one that came from the journal may be equal.
            if known is not item:
                self._written[item.item_id] = item
                if known != item:
                    self._write(ItemWritten(record_of(self._with_answer(item)), before))
            before = item.item_id
        if len(self._written) > len(items):
            present = {item.item_id for item in items}
            for item_id in [known for known in self._written if known not in present]:
                del self._written[item_id]
                self._write(ItemDeleted(item_id))

    def _with_answer(self, item: RealtimeItem) -> RealtimeItem:
        """An answer is written before the history shows it, and what is written of its call meanwhile must not take it back."""
        if not isinstance(item, RealtimeToolCallItem) or item.call_id is None or not self._answers:
            return item
        output = self._answers.get(short_id(item.call_id))
        if item.output is None and output is not None:
            return msgspec.structs.replace(item, output=output, status="completed")
        self._answers.pop(short_id(item.call_id), None)
        return item

    def _context(self, context: Any) -> None:
        """Write what the tools are given, if one of them has changed it."""
        given = encode_legibly(context)
        if given != bytes(self.tail.state.context):
            self._write(ContextChanged(msgspec.Raw(given)))

    def _count(self, usage: Usage) -> None:
        known = self._usage
        if usage.requests == known.requests:
            return
        self._write(
            UsageCounted(
                input_tokens=usage.input_tokens - known.input_tokens,
                output_tokens=usage.output_tokens - known.output_tokens,
                total_tokens=usage.total_tokens - known.total_tokens,
                requests=usage.requests - known.requests,
            )
        )
        self._usage = Usage(usage.requests, usage.input_tokens, usage.output_tokens, usage.total_tokens)

    def _write(self, body: Body) -> None:
        if self._left:
            return
        torn = self.tail.torn
        entry = self.tail.write(body, self._clock())
        if entry is not None:
            self._send([entry])
        elif self.tail.torn and not torn and self.tail.way_is_free:
            # It was too large by itself. Nothing is under way whose arrival would tell that it is time for a snapshot.
            self.resume()


def _items_of(state: CallState) -> dict[str, RealtimeItem]:
    """Return the items of a state that make sense; others are written anew."""
    found: dict[str, RealtimeItem] = {}
    for item_id, record in state.items.items():
        with suppress(msgspec.MsgspecError, KeyError, TypeError):
            found[item_id] = item_of(record)
    return found


class Journals:
    """The journals of a process. `send` gives entries to the gateway; without a link it may do nothing, see `open_entries`.

    `sent` tells whether all that was given to `send` is with a gateway now. A journal is kept until the call is over and its
    last entry acknowledged.
    """

    def __init__(
        self,
        writer: str,
        send: Callable[[Sequence[Entry]], None],
        end: Callable[[str, EndReason], object],
        *,
        sent: Callable[[], bool] = lambda: True,
        metrics: Metrics | None = None,
    ) -> None:
        self._writer = writer
        self._send = send
        self._end = end
        self._sent = sent
        self._metrics = metrics
        self._journals: dict[str, CallJournal] = {}
        # Calls whose entries are more than a new link takes at once, until it has taken others.
        self._postponed: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._journals)

    def open(self, session_id: str) -> CallJournal:
        """Begin the journal of a call."""
        return self._add(JournalTail(session_id, self._writer))

    def resume(self, session_id: str, state: CallState, cause: str) -> CallJournal:
        """Go on with the journal of a call that an earlier owner has left, which is claimed by its first entry.

        `state` is what all entries so far lead to, and belongs to the journal from here on. That somebody else was faster is
        learnt later: the call is then ended with the reason "not_the_owner".
        """
        journal = self._add(JournalTail(session_id, self._writer, epoch=state.epoch + 1, state=state))
        journal.taken_over(cause, WriterName.parse(self._writer).node)
        return journal

    def _add(self, tail: JournalTail) -> CallJournal:
        journal = CallJournal(tail, self._send, sent=self._sent, metrics=self._metrics)
        self._journals[tail.session_id] = journal
        return journal

    def states(self) -> Iterator[tuple[str, bytes]]:
        """Yield the state of each call that goes on, as JSON: a new gateway keeps it for the call's next owner."""
        for session_id, journal in self._journals.items():
            if not journal.over:
                yield session_id, journal.tail.state.to_json()

    def open_entries(self) -> list[Entry]:
        """Return all entries that nobody has acknowledged, in order."""
        return [entry for journal in self._journals.values() for entry in journal.tail.open]

    def send_open(self) -> None:
        """There is a new gateway: give it all that is open, and snapshots for what the last one could not keep."""
        self._postponed.clear()
        size = 0
        for session_id, journal in list(self._journals.items()):
            if size > MOST_AT_ONCE:
                journal.tail.lost()
                self._postponed.append(session_id)
                continue
            journal.resume() if journal.tail.torn else self._send(journal.tail.open)
            size += journal.tail.open_bytes

    def abandon(self, session_id: str) -> None:
        """The call ended before it began: there is nothing to keep."""
        journal = self._journals.get(session_id)
        if journal is not None and journal.tail.state.last_seq == 0:
            del self._journals[session_id]

    def acknowledged(self, session_id: str, writer: str, seq: int) -> None:
        """All entries of the call up to `seq` are kept."""
        journal = self._of(session_id, writer)
        if journal is None:
            return
        journal.acknowledged(seq)
        if journal.tail.torn and journal.tail.way_is_free:
            journal.resume()
        if journal.settled:
            del self._journals[session_id]
        if self._postponed and (postponed := self._journals.get(self._postponed.popleft())) is not None:
            postponed.resume()

    def refused(self, session_id: str, writer: str) -> None:
        """Another owner serves the call: stop serving it here."""
        journal = self._of(session_id, writer)
        if journal is None:
            return
        journal.refused()
        del self._journals[session_id]
        _log.error("call_owned_elsewhere", session_id=session_id)
        self._end(session_id, _NOT_THE_OWNER)

    def lost(self, session_id: str, writer: str, *, room: bool) -> None:
        """Entries of the call could not be kept; with `room` there is place again."""
        journal = self._of(session_id, writer)
        if journal is None:
            return
        if room:
            journal.resume()
            return
        journal.tail.lost()
        over = [known for known, one in self._journals.items() if one.over and one.tail.torn]
        for known in over[:-MOST_TORN]:
            _log.error("journal_end_given_up", session_id=known)
            del self._journals[known]

    def _of(self, session_id: str, writer: str) -> CallJournal | None:
        return self._journals.get(session_id) if writer == self._writer else None
