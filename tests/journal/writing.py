"""Entries for tests: short to write, in order, of one writer or several."""

from __future__ import annotations

from orchestrator.core.items import AssistantAudio, AssistantMessageItem, InputAudio, RealtimeToolCallItem, UserMessageItem
from orchestrator.errors import EndReason
from orchestrator.journal.entries import (
    AgentChanged,
    ApprovalAsked,
    ApprovalGiven,
    Body,
    CallEnded,
    CallStarted,
    Entry,
    ItemWritten,
    LegChanged,
    ResponseEnded,
    ResponseStarted,
    TakenOver,
    ToolAnswered,
    ToolRequested,
    ToolStarted,
    UsageCounted,
    encode_body,
)
from orchestrator.journal.items import history_digest, record_of

UNIX_TIME = 1_800_000_000.0

ASKED = UserMessageItem(item_id="item_1", content=(InputAudio(transcript="where is my parcel?"),))
ANSWERED = AssistantMessageItem(
    item_id="item_2",
    previous_item_id="item_1",
    status="incomplete",
    content=(AssistantAudio(transcript="It is on", audio_ms=2000.0, heard_ms=700.0),),
)
CALLED = RealtimeToolCallItem(item_id="item_3", call_id="call_1", name="track", arguments='{"parcel": 7}', output="on its way")

CALL: tuple[Body, ...] = (
    CallStarted("twilio", "Reception", peer="192.0.2.7"),
    ItemWritten(record_of(ASKED)),
    ResponseStarted("resp_1"),
    ToolRequested("call_1", "item_3", "track", '{"parcel": 7}', "resp_1"),
    ApprovalAsked("call_1"),
    ApprovalGiven("call_1", approved=True, always=True),
    ToolStarted("call_1", idempotent=True),
    ResponseEnded("resp_1", "completed"),
    ToolAnswered("call_1", "on its way"),
    ItemWritten(record_of(CALLED), after="item_1"),
    UsageCounted(10, 20, 30),
    AgentChanged("Parcels"),
    ResponseStarted("resp_2"),
    ItemWritten(record_of(ANSWERED), after="item_3"),
    LegChanged("caller", "lost", reference="CA1"),
    TakenOver("actor_died", node="node-2"),
    LegChanged("caller", "back"),
    ResponseEnded("resp_2", "cancelled"),
    CallEnded(EndReason("caller_hung_up", "the carrier stopped the stream", by="caller")),
)

HISTORY = (ASKED, CALLED, ANSWERED)
# The same call, as an owner ends it that has its session.
FINISHED: tuple[Body, ...] = (
    *CALL[:-1],
    CallEnded(EndReason("caller_hung_up", "the carrier stopped the stream", by="caller"), history_digest(HISTORY)),
)


def entry(body: Body, seq: int, session_id: str = "s1", epoch: int = 1, writer: str = "a") -> Entry:
    kind, data = encode_body(body)
    return Entry(session_id, seq, epoch, writer, UNIX_TIME + seq, kind, data)


def entries(*bodies: Body, session_id: str = "s1", writer: str = "a") -> list[Entry]:
    """The bodies as one call: each takeover begins an epoch, with a writer of its own."""
    made: list[Entry] = []
    epoch = 1
    for seq, body in enumerate(bodies, 1):
        if isinstance(body, TakenOver):
            epoch += 1
        made.append(entry(body, seq, session_id, epoch, writer if epoch == 1 else f"{writer}{epoch}"))
    return made
