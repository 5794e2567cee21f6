"""What a call writes into its journal, and the journals of all calls of a process.

A call's facts are taken from what its session says: each item of the history as it stands, each tool call before it runs and
when it is answered, who speaks, what it used, why it ended. They are sent to the node's gateway in the callback that brings
them, so they are with another process before anything follows from them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from orchestrator.core.items import RealtimeItem, RealtimeToolCallItem
from orchestrator.errors import EndReason
from orchestrator.journal.entries import (
    AgentChanged,
    ApprovalAsked,
    Body,
    CallEnded,
    CallStarted,
    Entry,
    ItemDeleted,
    ItemWritten,
    ResponseEnded,
    ResponseStarted,
    ToolAnswered,
    ToolRequested,
    ToolStarted,
    UsageCounted,
    encode_legibly,
)
from orchestrator.journal.items import history_digest, record_of
from orchestrator.journal.tail import JournalTail
from orchestrator.realtime.events import (
    RealtimeAgentEndEvent,
    RealtimeAgentStartEvent,
    RealtimeHandoffEvent,
    RealtimeSessionEvent,
    RealtimeToolApprovalRequired,
    RealtimeToolEnd,
    RealtimeToolStart,
)
from orchestrator.realtime.session import RealtimeSession
from orchestrator.telemetry.logs import get_logger
from orchestrator.usage import Usage

__all__ = ["CallJournal", "Journals"]

_NOT_THE_OWNER = EndReason("not_the_owner", "another owner serves this call", "journal_refused", "infrastructure")

# Bytes of entries that a new link is given at once; it queues about twice as much.
MOST_AT_ONCE = 32 * 1024 * 1024
# Calls that are over and wait for room to say so. Their states are in memory until then.
MOST_TORN = 100

_log = get_logger()


class CallJournal:
    """One call's facts on their way into its tail. `send` gets each entry at once.

    No method raises: a fact that cannot be written is logged and left out, since a record must not end what it records.
    """

    def __init__(
        self, tail: JournalTail, send: Callable[[Sequence[Entry]], None], clock: Callable[[], float] = time.time
    ) -> None:
        self.tail = tail
        self._send = send
        self._clock = clock
        # The items as they were written last. They are frozen, so the same object is the same item.
        self._written: dict[str, RealtimeItem] = {}
        self._usage = Usage()
        self._end: CallEnded | None = None

    @property
    def over(self) -> bool:
        """Whether the call has ended."""
        return self._end is not None

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

    def event(self, event: RealtimeSessionEvent, session: RealtimeSession) -> None:
        """Take in an event of the session, and what has changed in the history by then."""
        self.history(session.history)
        with self._harmless():
            self._event(event, session)

    def history(self, items: Sequence[RealtimeItem]) -> None:
        """Write what is new, changed or gone since the last time."""
        with self._harmless():
            self._history(items)

    def ended(self, reason: EndReason, items: Sequence[RealtimeItem]) -> None:
        """The call is over."""
        self.history(items)
        self._end = CallEnded(reason)
        with self._harmless():
            self._end = CallEnded(reason, history_digest(items))
        with self._harmless():
            self._write(self._end)

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
                self._write(AgentChanged(event.to_agent.name))
            case RealtimeToolApprovalRequired():
                self._requested(event.call_id, event.tool.name, event.arguments)
                self._write(ApprovalAsked(event.call_id))
            case RealtimeToolStart():
                self._requested(event.call_id, event.tool.name, event.arguments)
                self._write(ToolStarted(event.call_id, idempotent=event.tool.idempotent))
            case RealtimeToolEnd() if event.call_id in self.tail.state.tool_calls:
                # The text that the model was given; the event has what the tool returned, which may be anything.
                item = self._item_of(event.call_id)
                output = event.output if item is None or item.output is None else item.output
                self._write(ToolAnswered(event.call_id, str(output), event.error_code))
            case _:
                pass

    def _history(self, items: Sequence[RealtimeItem]) -> None:
        before: str | None = None
        for item in items:
            if self._written.get(item.item_id) is not item:
                self._written[item.item_id] = item
                self._write(ItemWritten(record_of(item), before))
            before = item.item_id
        if len(self._written) > len(items):
            present = {item.item_id for item in items}
            for item_id in [known for known in self._written if known not in present]:
                del self._written[item_id]
                self._write(ItemDeleted(item_id))

    def _requested(self, call_id: str, name: str, arguments: str) -> None:
        if call_id in self.tail.state.tool_calls:
            return
        item = self._item_of(call_id)
        item_id = call_id if item is None else item.item_id
        self._write(ToolRequested(call_id, item_id, name, arguments, self.tail.state.response_id))

    def _item_of(self, call_id: str) -> RealtimeToolCallItem | None:
        """Return the item of a tool call, as it was written last."""
        items = (item for item in self._written.values() if isinstance(item, RealtimeToolCallItem) and item.call_id == call_id)
        return next(items, None)

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
        torn = self.tail.torn
        entry = self.tail.write(body, self._clock())
        if entry is not None:
            self._send([entry])
        elif self.tail.torn and not torn and self.tail.way_is_free:
            # It was too large by itself. Nothing is under way whose arrival would tell that it is time for a snapshot.
            self.resume()


class Journals:
    """The journals of a process. `send` gives entries to the gateway; without a link it may do nothing, see `open_entries`.

    A journal is kept until the call is over and its last entry acknowledged.
    """

    def __init__(self, writer: str, send: Callable[[Sequence[Entry]], None], end: Callable[[str, EndReason], object]) -> None:
        self._writer = writer
        self._send = send
        self._end = end
        self._journals: dict[str, CallJournal] = {}
        # Calls whose entries are more than a new link takes at once, until it has taken others.
        self._postponed: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._journals)

    def open(self, session_id: str) -> CallJournal:
        """Begin the journal of a call."""
        journal = self._journals[session_id] = CallJournal(JournalTail(session_id, self._writer), self._send)
        return journal

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
        journal.tail.acknowledged(seq)
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
        journal.tail.refused = True
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
