"""What a call leaves in its journal: enough to rebuild it, in the order in which it became true."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from orchestrator.channels.journalling import CallJournal, Journals
from orchestrator.core.items import InputText, UserMessageItem
from orchestrator.errors import EndReason
from orchestrator.journal.entries import AgentChanged, Entry, TakenOver, ToolAnswered, decode_body
from orchestrator.journal.heads import Verdict
from orchestrator.journal.items import history_digest
from orchestrator.journal.state import CallState, replay
from orchestrator.journal.stores import MemoryStore
from orchestrator.journal.tail import LARGEST
from orchestrator.realtime import RealtimeAgent
from orchestrator.realtime.events import RealtimeEventInfo, RealtimeToolEnd
from orchestrator.run_context import RunContextWrapper
from tests.channels.conftest import lookup_order
from tests.channels.test_twilio import CALL_SID, dial
from tests.journal.writing import entry


def journal_of(world: Any, session_id: str) -> CallState:
    return replay(session_id, world.store.read(session_id))


def kinds(world: Any, session_id: str) -> list[str]:
    return [one.kind for one in world.store.read(session_id)]


async def talk(world: Any) -> None:
    """The agent greets, calls a tool, and tells of it."""
    world.endpoint.start_response()
    world.endpoint.speak("Good morning.", 400)
    world.endpoint.end_response()
    await world.settle()
    world.endpoint.call_tools(("call_1", "lookup_order", '{"order_id":"4711"}'), response_id="resp_2")
    await world.settle()


async def test_a_whole_call_is_rebuilt_as_it_was(world: Any) -> None:
    session_id, caller = await dial(world)
    await talk(world)
    call, _ = world.host._calls[session_id]
    history = call._session.history
    assert len(history) >= 2
    live = journal_of(world, session_id)
    assert live.history == history
    assert (live.channel, live.agent, live.peer, live.epoch) == ("twilio", "Desk", "127.0.0.1:1", 1)
    assert live.end is None
    caller.send({"event": "stop", "streamSid": caller_stream(caller), "stop": {"accountSid": "AC1", "callSid": CALL_SID}})
    reason = await world.over(session_id)
    over = journal_of(world, session_id)
    assert over.end == reason
    assert over.history == history
    assert over.tool_calls == {}
    assert over.requests == 2


def caller_stream(caller: Any) -> str:
    return str(next(message["streamSid"] for message in caller.received if "streamSid" in message))


async def test_a_tool_call_is_written_before_it_runs_and_when_it_is_answered(world: Any) -> None:
    session_id, _ = await dial(world)
    await talk(world)
    written = kinds(world, session_id)
    assert [kind for kind in written if kind.startswith("tool_")] == ["tool_requested", "tool_started", "tool_answered"]
    assert written[0] == "started"
    assert b"4711" in next(one.body for one in world.store.read(session_id) if one.kind == "tool_requested")
    assert b"on its way" in next(one.body for one in world.store.read(session_id) if one.kind == "tool_answered")


async def test_the_output_that_is_written_is_the_one_that_the_model_was_given(world: Any) -> None:
    session_id, _ = await dial(world)
    world.endpoint.call_tools(("call_1", "order_facts", "{}"))
    await world.settle()
    given = world.endpoint.last("conversation.item.create")["item"]["output"]
    answered = next(one for one in world.store.read(session_id) if one.kind == "tool_answered")
    body = decode_body(answered)
    assert isinstance(body, ToolAnswered)
    assert body.output == given


async def test_what_no_encoder_takes_is_written_legibly(world: Any) -> None:
    session_id, _ = await dial(world)
    world.endpoint.call_tools(("call_1", "broken_text", "{}"))
    await world.settle()
    assert journal_of(world, session_id).tool_calls == {}
    assert kinds(world, session_id)[-1] != "started"
    assert session_id not in world.reporter.ends


async def test_an_interruption_is_kept_as_it_was_heard(world: Any) -> None:
    session_id, _ = await dial(world)
    world.endpoint.start_response()
    world.endpoint.speak("a long story that nobody wants to hear to its end", 3000)
    await world.settle()
    await asyncio.sleep(1.0)
    world.endpoint.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="item_u")
    await world.settle()
    call, _ = world.host._calls[session_id]
    assert journal_of(world, session_id).history == call._session.history
    assert call._session.history[0].status == "incomplete"


async def test_the_end_records_what_the_owner_had(world: Any) -> None:
    session_id, _ = await dial(world)
    await talk(world)
    world.host.end(session_id, EndReason("shutdown", "the service is being shut down"))
    await world.over(session_id)
    rebuilt = journal_of(world, session_id)
    assert history_digest(rebuilt.history).encode() in world.store.read(session_id)[-1].body


async def test_without_a_gateway_a_call_goes_on_and_its_journal_is_sent_to_the_next_one(world: Any) -> None:
    session_id, _ = await dial(world)
    world.hold = True
    await talk(world)
    before = len(world.store.read(session_id))
    open_entries = world.journals.open_entries()
    assert open_entries[0].seq == before + 1
    world.hold = False
    world._keep(open_entries)
    await world.settle()
    assert world.journals.open_entries() == []
    call, _ = world.host._calls[session_id]
    assert journal_of(world, session_id).history == call._session.history


async def test_a_call_that_another_owner_serves_is_let_go(world: Any) -> None:
    session_id, caller = await dial(world)
    last = len(world.store.read(session_id))
    claim = entry(TakenOver("node_lost"), last + 1, session_id, epoch=2, writer="other/actor/2")
    assert world.store.append([claim]) == [Verdict.WRITE]
    world.journals.refused(session_id, "node/actor/1")
    reason = await world.over(session_id)
    assert (reason.code, reason.by) == ("not_the_owner", "infrastructure")
    await world.settle()
    assert caller.closed is not None
    assert world.store.read(session_id)[-1] == claim


async def test_what_was_given_up_on_its_way_is_mended_by_a_snapshot(world: Any) -> None:
    session_id, _ = await dial(world)
    world.hold = True
    await talk(world)
    world.journals.lost(session_id, "node/actor/1", room=False)
    world.hold = False
    assert world.journals.open_entries() == []
    world.journals.lost(session_id, "node/actor/1", room=True)
    await world.settle()
    call, _ = world.host._calls[session_id]
    assert journal_of(world, session_id).history == call._session.history
    # The tool has waited until it was known that it would begin, and then did.
    written = kinds(world, session_id)
    assert written.index("snapshot") < written.index("tool_answered")


async def test_words_for_another_writer_are_not_for_us(world: Any) -> None:
    session_id, _ = await dial(world)
    for tell in (world.journals.refused, lambda *words: world.journals.lost(*words, room=False)):
        tell(session_id, "node/actor/0")
        tell("sess_unknown", "node/actor/1")
    assert session_id not in world.reporter.ends
    assert world.store.append([entry(AgentChanged("x"), 99, session_id, writer="node/actor/0")]) == [Verdict.STALE]


@pytest.mark.parametrize("started", [True, False])
async def test_nothing_is_kept_in_memory_of_a_call_that_is_over(world: Any, started: bool) -> None:
    session_id, _ = await dial(world, started=started)
    assert len(world.journals) == 1
    world.host.end(session_id, EndReason("shutdown"))
    await world.over(session_id)
    await world.settle()
    assert len(world.journals) == 0
    assert isinstance(world.store, MemoryStore)
    assert bool(world.store.read(session_id)) is started


class Wire:
    """The way to a gateway that acknowledges only when it is told to."""

    def __init__(self) -> None:
        self.sent: list[Entry] = []
        self.journals = Journals("w", self.sent.extend, lambda *_: None)

    def acknowledge(self) -> None:
        for one in list(self.sent):
            self.journals.acknowledged(one.session_id, "w", one.seq)

    def begin(self, session_id: str = "s1") -> CallJournal:
        journal = self.journals.open(session_id)
        journal.started(channel="openai", agent="A", context={}, peer="p")
        return journal


def item(number: int, text: str) -> UserMessageItem:
    return UserMessageItem(item_id=f"item_{number}", content=(InputText(text=text),))


def test_a_gateway_that_dies_after_it_lost_entries_leaves_a_journal_that_goes_on() -> None:
    wire = Wire()
    journal = wire.begin()
    wire.journals.lost("s1", "w", room=False)
    journal.history([item(1, "hello")])
    assert [one.kind for one in wire.sent] == ["started"]
    wire.sent.clear()
    wire.journals.send_open()
    assert [one.kind for one in wire.sent] == ["snapshot"]
    assert replay("s1", wire.sent).history == [item(1, "hello")]


def test_a_loss_that_is_told_after_the_snapshot_was_sent_is_mended_too() -> None:
    wire = Wire()
    journal = wire.begin()
    wire.journals.lost("s1", "w", room=False)
    wire.journals.lost("s1", "w", room=True)
    wire.journals.lost("s1", "w", room=False)
    journal.history([item(1, "hello")])
    wire.acknowledge()
    assert [one.kind for one in wire.sent] == ["started", "snapshot", "snapshot"]
    assert not journal.tail.torn


def test_an_end_that_was_lost_is_told_when_there_is_room() -> None:
    wire = Wire()
    journal = wire.begin()
    journal.ended(EndReason("caller_hung_up"), [])
    wire.journals.lost("s1", "w", room=False)
    wire.sent.clear()
    wire.journals.lost("s1", "w", room=True)
    assert [one.kind for one in wire.sent] == ["snapshot", "ended"]
    wire.acknowledge()
    assert len(wire.journals) == 0


def test_calls_that_wait_to_tell_their_end_are_bounded() -> None:
    wire = Wire()
    for number in range(150):
        wire.begin(f"s{number}").ended(EndReason("caller_hung_up"), [])
    for number in range(150):
        wire.journals.lost(f"s{number}", "w", room=False)
    assert len(wire.journals) == 100


def test_what_is_too_large_for_the_way_is_left_to_a_snapshot_or_left_out() -> None:
    wire = Wire()
    journal = wire.begin()
    wire.acknowledge()
    wire.sent.clear()
    journal.history([item(1, "x" * (LARGEST + 1))])
    assert wire.sent == []
    assert journal.tail.torn
    journal.history([])
    wire.journals.send_open()
    assert [one.kind for one in wire.sent] == ["snapshot"]


def test_a_new_link_is_given_no_more_than_it_takes_at_once() -> None:
    wire = Wire()
    for number in range(5):
        wire.begin(f"s{number}").history([item(1, "x" * (10 * 1024 * 1024))])
    wire.sent.clear()
    wire.journals.send_open()
    assert sum(len(one.body) for one in wire.sent) < 45 * 1024 * 1024
    wire.acknowledge()
    assert {one.session_id for one in wire.sent} == {f"s{number}" for number in range(5)}


def nested(depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("context", [{"a": "\udc80"}, {"a": 2**80}, {"a": object()}, {"a": nested(100_000)}, {1j: 1}])
def test_a_context_that_no_encoder_takes_ends_no_call(context: Any) -> None:
    wire = Wire()
    wire.journals.open("s1").started(channel="openai", agent="A\udc80", context=context, peer="p\udc80")
    assert replay("s1", wire.sent).agent == "A?"


def tool_end(context: Any) -> RealtimeToolEnd:
    info = RealtimeEventInfo(RunContextWrapper(context))
    return RealtimeToolEnd(RealtimeAgent[Any](name="A"), lookup_order, "{}", "done", info, "call_1")


def test_a_context_that_a_tool_has_made_untellable_ends_no_call() -> None:
    wire = Wire()
    journal = wire.begin()
    journal.event(tool_end(object()), cast("Any", SimpleNamespace(history=[])))
    journal.history([item(1, "on we go")])
    assert [one.kind for one in wire.sent] == ["started", "item"]


def test_what_a_tool_has_changed_of_the_context_is_written_once() -> None:
    wire = Wire()
    journal = wire.begin()
    for context in ({}, {"basket": 1}, {"basket": 1}):
        journal.event(tool_end(context), cast("Any", SimpleNamespace(history=[])))
    assert [one.kind for one in wire.sent] == ["started", "context"]
    assert msgspec.json.decode(replay("s1", wire.sent).context) == {"basket": 1}


def test_a_snapshot_of_what_no_encoder_takes_is_legible() -> None:
    wire = Wire()
    journal = wire.begin()
    journal.history([item(1, "half \udc80")])
    wire.journals.lost("s1", "w", room=False)
    wire.journals.lost("s1", "w", room=True)
    assert replay("s1", wire.sent[-1:]).history == [item(1, "half ?")]
