"""Both cores together, against a server that follows the protocol but chooses its own moments.

Whatever the interleaving of server events, user actions and tool results: no machine is asked for an illegal step, never are
two responses active, every tool call is answered exactly once, a replay of the same events gives the same history, the history
holds what the model remembers, in its order, and a conversation that is seeded with it begins with the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.commands import AnswerTool, Emit, ModelCommand, Send, SessionCommand, StartTool
from orchestrator.core.events import RealtimeModelAudioEvent, RealtimeModelEvent
from orchestrator.core.inputs import RealtimeModelSendInterrupt
from orchestrator.core.items import (
    AssistantAudio,
    AssistantMessageItem,
    InputAudio,
    InputText,
    RealtimeItem,
    RealtimeToolCallItem,
    SystemMessageItem,
    UserMessageItem,
)
from orchestrator.core.model_session import ModelSession
from orchestrator.core.playback import PlaybackCursor
from orchestrator.core.response import ALREADY_ACTIVE
from orchestrator.core.session import SessionCore
from orchestrator.realtime.seeding import plan_seed
from orchestrator.wire import realtime as wire
from orchestrator.wire import realtime_client as client
from orchestrator.wire import realtime_types as types

ACTIONS = [
    "message",
    "speech",
    "speech_end",
    "item",
    "word",
    "audio",
    "tool",
    "tool_done",
    "end",
    "finish_tool",
    "interrupt",
    "deliver",
    "wait",
    "cancel",
    "beside",
    "delete",
    "refuse",
    "ask_person",
    "approve",
    "reject",
    "insert",
    "inject_call",
    "forget_call",
]
SEEDS: list[RealtimeItem] = [
    SystemMessageItem(item_id="s_system", content=(InputText(text="Be kind."),)),
    UserMessageItem(item_id="s_user", content=(InputAudio(transcript="is it paid?"),)),
    RealtimeToolCallItem(item_id="s_call", call_id="s_call_id", name="t", arguments="{}", output="yes", status="completed"),
    RealtimeToolCallItem(item_id="s_lost", call_id="s_lost_id", name="t", arguments="{}"),
    AssistantMessageItem(item_id="s_agent", content=(AssistantAudio(transcript="It", audio_ms=900.0, heard_ms=300.0),)),
]


class Server:
    """The model's side: one response at a time; what it sends waits until it is delivered."""

    def __init__(self) -> None:
        self.outbox: list[bytes] = []
        self.active: str | None = None
        self.count = 0
        self.open_item: str | None = None
        self.open_call: dict[str, Any] | None = None
        self.outputs: list[str] = []
        self.calls: list[str] = []
        # What the model remembers, in order: the type of each item by its id, and the call that it makes or answers.
        self.memory: dict[str, tuple[str, str | None]] = {}
        # Is the next request for a response refused?
        self.refusing = False

    def send(self, kind: str, **fields: Any) -> None:
        self.outbox.append(msgspec.json.encode({"type": kind, "event_id": f"event_{len(self.outbox)}", **fields}))

    def take(self, event: Any) -> None:
        match event:
            case client.ResponseCreate(event_id=event_id):
                if self.refusing:
                    self.refusing = False
                    error = {"type": "invalid_request_error", "code": "invalid_value", "message": "", "param": None}
                    self.send("error", error=error | {"event_id": event_id or None})
                elif self.active is None:
                    self.begin()
                else:
                    error = {"type": "invalid_request_error", "code": ALREADY_ACTIVE, "message": "", "param": None}
                    self.send("error", error=error | {"event_id": event_id or None})
            case client.ResponseCancel(event_id=event_id):
                if self.active is not None:
                    self.end("cancelled")
                else:
                    error = {
                        "type": "invalid_request_error",
                        "code": "response_cancel_not_active",
                        "message": "",
                        "param": None,
                    }
                    self.send("error", error=error | {"event_id": event_id or None})
            case client.ConversationItemCreate(item=item, previous_item_id=previous):
                body = {"id": f"u{self.count}", "status": "completed"} | msgspec.to_builtins(item)
                self.count += 1
                if isinstance(item, types.FunctionCallOutputItem):
                    assert ("function_call", item.call_id) in self.memory.values()
                    self.outputs.append(item.call_id)
                self.add(body, previous or None)
                self.send("conversation.item.done", previous_item_id=None, item=body)
            case client.ConversationItemDelete(item_id=item_id):
                self.delete(item_id)

    def add(self, item: dict[str, Any], previous: str | None = None) -> None:
        """Put an item into the memory, at the end or after another one, and say so."""
        previous = previous or next(reversed(self.memory), None)
        assert item["id"] not in self.memory
        entries = list(self.memory.items())
        index = 0 if previous is None else 1 + list(self.memory).index(previous)
        entries.insert(index, (item["id"], (item["type"], item.get("call_id"))))
        self.memory = dict(entries)
        self.send("conversation.item.added", previous_item_id=previous, item=item)

    def delete(self, item_id: str) -> None:
        del self.memory[item_id]
        self.send("conversation.item.deleted", item_id=item_id)

    def begin(self) -> None:
        self.count += 1
        self.active = f"resp_{self.count}"
        self.send("response.created", response=self.response("in_progress"))

    def end(self, status: str = "completed") -> None:
        if self.open_call is not None and status == "completed":
            self.call_done()
        elif self.open_call is not None:
            # What is interrupted while it is written is never carried out; the memory keeps what there is of it.
            self.memory[self.open_call["id"]] = ("incomplete", None)
            self.call_report("incomplete")
        self.send("response.done", response=self.response(status))
        self.active = self.open_item = None

    def response(self, status: str) -> dict[str, Any]:
        return {"object": "realtime.response", "id": self.active, "status": status, "output": [], "conversation_id": "conv"}

    def item(self) -> None:
        self.count += 1
        self.open_item = f"a{self.count}"
        item = {"id": self.open_item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        self.send("response.output_item.added", response_id=self.active, output_index=0, item=item)
        self.add(item)

    def beside(self) -> None:
        """Make a whole response out of band."""
        self.count += 1
        response: dict[str, Any] = {
            "object": "realtime.response",
            "id": f"beside_{self.count}",
            "output": [],
            "conversation_id": None,
        }
        item = {"id": f"b{self.count}", "type": "message", "role": "assistant", "status": "completed", "content": []}
        place = {"response_id": response["id"], "output_index": 0}
        self.send("response.created", response=response | {"status": "in_progress"})
        self.send("response.output_item.added", item=item, **place)
        self.send("response.output_text.delta", delta="word", item_id=item["id"], content_index=0, **place)
        self.send("response.output_item.done", item=item, **place)
        self.send("response.done", response=response | {"status": "completed"})

    def call(self) -> None:
        """Begin to write a call."""
        self.count += 1
        item = {"id": f"f{self.count}", "type": "function_call", "name": "t", "call_id": f"call_{self.count}", "arguments": ""}
        self.open_call = item | {"status": "in_progress"}
        self.send("response.output_item.added", item=self.open_call, response_id=self.active, output_index=0)
        self.add(self.open_call)

    def call_done(self) -> None:
        if self.open_call is not None:
            self.calls.append(self.open_call["call_id"])
            self.call_report("completed")

    def call_report(self, status: str) -> None:
        assert self.open_call is not None
        item = self.open_call | {"status": status, "arguments": "{}"}
        self.open_call = None
        self.send("conversation.item.done", previous_item_id=None, item=item)
        self.send("response.output_item.done", item=item, response_id=self.active, output_index=0)


class World:
    """A model session, a session and their server under one clock."""

    def __init__(self, seed: Iterable[RealtimeItem] = (), *, hold_answers: bool = False) -> None:
        self.now = 0.0
        self.model = ModelSession(PlaybackCursor(), response_timeout=1e6)
        self.core = SessionCore("agent", hold_answers=hold_answers)
        self.server = Server()
        self.seed = plan_seed(seed)
        self.running: list[str] = []
        # Calls that wait for a person, and whether the next one does.
        self.waiting: list[str] = []
        self.asking = False
        self.journal: list[tuple[str, Any, float]] = []
        self.core.conversation.seed(self.seed.items)
        for message in self.seed.messages:
            self.say(message.message)
        # These were answered in another conversation.
        self.server.outputs.clear()

    def say(self, message: dict[str, Any]) -> None:
        """Send a raw client event, as a program may."""
        event = wire.decode_client_event(msgspec.json.encode(message))
        assert not isinstance(event, wire.UnknownEvent)
        self.on_model(self.model.send_client_event(event, self.now))

    def on_model(self, commands: list[ModelCommand]) -> None:
        for command in commands:
            if isinstance(command, Emit):
                self.receive(command.event)
            elif isinstance(command, Send):
                self.server.take(command.event)

    def receive(self, event: RealtimeModelEvent) -> None:
        self.journal.append(("event", event, self.now))
        if isinstance(event, RealtimeModelAudioEvent):
            self.core.audio(event, self.now)
        else:
            self.on_session(self.core.receive(event, self.now))

    def on_session(self, commands: list[SessionCommand]) -> None:
        for command in commands:
            if isinstance(command, StartTool) and self.asking:
                self.asking = False
                self.core.tool_calls.ask(command.call)
                self.waiting.append(command.call.call_id)
            elif isinstance(command, StartTool):
                self.core.tool_started(command.call.call_id)
                self.running.append(command.call.call_id)
            elif isinstance(command, AnswerTool):
                call = command.answer.call
                item = types.FunctionCallOutputItem(call_id=call.call_id, output="x")
                respond = command.answer.start_response
                self.on_model(self.model.send_item(item, self.now, respond=respond, after=call.response_id))

    def decide(self, *, approved: bool) -> None:
        if self.waiting and approved:
            self.core.tool_started(self.waiting[0])
            self.running.append(self.waiting.pop(0))
        elif self.waiting:
            self.answer(self.waiting.pop(0))

    def finish_tool(self) -> None:
        self.answer(self.running.pop(0))

    def answer(self, call_id: str) -> None:
        self.journal.append(("tool", call_id, self.now))
        self.on_session(self.core.tool_finished(call_id, "x"))

    def deliver(self) -> None:
        event = wire.decode_server_event(self.server.outbox.pop(0))
        assert not isinstance(event, wire.UnknownEvent)
        self.on_model(self.model.receive(event, self.now))

    def act(self, action: str) -> None:
        server = self.server
        place = {"response_id": server.active, "item_id": server.open_item, "output_index": 0, "content_index": 0}
        if action == "message":
            item = types.MessageItem(role="user", content=[types.InputTextPart(text="hi")])
            self.on_model(self.model.send_item(item, self.now, respond=True))
        elif action == "speech":
            server.send("input_audio_buffer.speech_started", audio_start_ms=0, item_id="u")
            if server.active is not None:
                server.end("cancelled")
        elif action == "speech_end":
            server.send("input_audio_buffer.speech_stopped", audio_end_ms=0, item_id="u")
            if server.active is None:
                server.begin()
        elif action == "interrupt":
            self.on_model(self.model.interrupt(RealtimeModelSendInterrupt(), self.now))
        elif action == "finish_tool" and self.running:
            self.finish_tool()
        elif action == "deliver" and server.outbox:
            self.deliver()
        elif action == "wait":
            self.now += 0.3
        elif action in PLAIN_ACTIONS:
            PLAIN_ACTIONS[action](self)
        elif server.active is not None:
            if action == "item":
                server.item()
            elif action == "tool" and server.open_call is None:
                server.call()
            elif action == "tool_done":
                server.call_done()
            elif action == "end":
                server.end()
            elif server.open_item is not None and action == "word":
                server.send("response.output_audio_transcript.delta", delta="word ", **place)
            elif server.open_item is not None and action == "audio":
                server.send("response.output_audio.delta", delta="AAAA" * 1600, **place)


def delete(world: World) -> None:
    """Another client of the same conversation deletes a message."""
    messages = [item_id for item_id, (kind, _) in world.server.memory.items() if kind == "message"]
    if messages:
        world.server.delete(messages[-1])


def insert(world: World) -> None:
    """The program writes a message into the middle: behind the output of a call that stands there."""
    outputs = [item_id for item_id, (kind, _) in world.server.memory.items() if kind == "function_call_output"]
    if outputs:
        content = [{"type": "input_text", "text": "by the way"}]
        item = {"type": "message", "role": "user", "content": content, "id": f"m{world.server.count}"}
        world.say({"type": "conversation.item.create", "previous_item_id": outputs[0], "item": item})


def inject_call(world: World) -> None:
    """The program writes a call and its output into the conversation, as if the model had made it."""
    number = world.server.count
    call = {"type": "function_call", "id": f"p{number}", "call_id": f"p_call_{number}", "name": "t", "arguments": "{}"}
    world.say({"type": "conversation.item.create", "item": call})
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "injected"}
    world.say({"type": "conversation.item.create", "item": output})
    world.server.outputs.remove(call["call_id"])


def forget_call(world: World) -> None:
    """The program, or the filter of a handoff, deletes a call that was answered."""
    remembered = world.server.memory
    for item in world.core.conversation.items:
        if isinstance(item, RealtimeToolCallItem) and item.output is not None and item.item_id in remembered:
            world.say({"type": "conversation.item.delete", "item_id": item.item_id})
            return


PLAIN_ACTIONS: dict[str, Callable[[World], Any]] = {
    "cancel": lambda world: world.on_model(world.model.send_client_event(client.ResponseCancel(), world.now)),
    "beside": lambda world: world.server.beside(),
    "delete": delete,
    "refuse": lambda world: setattr(world.server, "refusing", True),
    "ask_person": lambda world: setattr(world, "asking", True),
    "approve": lambda world: world.decide(approved=True),
    "reject": lambda world: world.decide(approved=False),
    "insert": insert,
    "inject_call": inject_call,
    "forget_call": forget_call,
}


def finish(world: World) -> None:
    """Let everything come to its end."""
    for _ in range(2000):
        if world.server.outbox:
            world.deliver()
        elif world.running:
            world.finish_tool()
        elif world.waiting:
            world.decide(approved=True)
        elif world.server.active is not None:
            world.server.end()
        else:
            break


def check_memory(world: World) -> None:
    """The history is what the model remembers, and the model remembers no output without its call."""
    memory = world.server.memory
    answered = [call_id for kind, call_id in memory.values() if kind == "function_call_output"]
    known = [call_id for kind, call_id in memory.values() if kind == "function_call"]
    assert sorted(answered, key=str) == sorted(known, key=str)
    shown = world.core.conversation.items
    hidden = ("function_call_output", "incomplete")
    assert [item.item_id for item in shown] == [item_id for item_id, (kind, _) in memory.items() if kind not in hidden]
    assert all(item.output is not None for item in shown if isinstance(item, RealtimeToolCallItem))


def of_length(length: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(ACTIONS), min_size=length, max_size=length)


# Long ones as often as short ones: what goes wrong takes many steps to come about.
@given(st.integers(0, 150).flatmap(of_length), st.booleans(), st.booleans())
def test_any_interleaving_leaves_both_machines_legal_and_the_history_replayable(
    actions: list[str], seeded: bool, hold_answers: bool
) -> None:
    world = World(SEEDS if seeded else (), hold_answers=hold_answers)
    for action in actions:
        world.now += 0.01
        world.act(action)
    finish(world)
    check_memory(world)
    # Every call that reached us was answered once, and nothing waits for a response any more.
    assert sorted(world.server.outputs) == sorted(world.server.calls)
    assert world.core.tool_calls.open == []
    assert world.model.responses.waiting == 0
    assert world.core.active_response is None
    # What was said out of band is no part of the conversation.
    assert not any(item.item_id.startswith("b") for item in world.core.conversation.items)
    replayed = SessionCore("agent", hold_answers=hold_answers)
    replayed.conversation.seed(world.seed.items)
    for kind, what, now in world.journal:
        if kind == "tool":
            replayed.tool_started(what)
            replayed.tool_finished(what, "x")
        elif isinstance(what, RealtimeModelAudioEvent):
            replayed.audio(what, now)
        else:
            replayed.receive(what, now)
    assert replayed.conversation.items == world.core.conversation.items
    # The next conversation begins with what this one ends with, and so does the one after it.
    following = World(world.core.conversation.items)
    finish(following)
    check_memory(following)
    assert following.core.conversation.items == following.seed.items
    assert plan_seed(following.core.conversation.items).messages == following.seed.messages
