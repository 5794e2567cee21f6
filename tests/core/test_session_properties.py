"""Both cores together, against a server that follows the protocol but chooses its own moments.

Whatever the interleaving of server events, user actions and tool results: no machine is asked for an illegal step, never are
two responses active, every tool call is answered exactly once, and a replay of the same events gives the same history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.commands import AnswerTool, Emit, ModelCommand, Send, SessionCommand, StartTool
from orchestrator.core.events import RealtimeModelAudioEvent, RealtimeModelEvent
from orchestrator.core.inputs import RealtimeModelSendInterrupt
from orchestrator.core.model_session import ModelSession
from orchestrator.core.playback import PlaybackCursor
from orchestrator.core.response import ALREADY_ACTIVE
from orchestrator.core.session import SessionCore
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
]


class Server:
    """The model's side: one response at a time; what it sends waits until it is delivered."""

    def __init__(self) -> None:
        self.outbox: list[bytes] = []
        self.active: str | None = None
        self.count = 0
        self.open_item: str | None = None
        self.outputs: list[str] = []
        self.calls: list[str] = []
        self.items: list[str] = []
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
            case client.ConversationItemCreate(item=types.FunctionCallOutputItem(call_id=call_id)):
                self.outputs.append(call_id)
            case client.ConversationItemCreate(item=item):
                self.count += 1
                self.items.append(f"u{self.count}")
                self.send(
                    "conversation.item.added", previous_item_id=None, item=msgspec.to_builtins(item) | {"id": f"u{self.count}"}
                )

    def begin(self) -> None:
        self.count += 1
        self.active = f"resp_{self.count}"
        self.send("response.created", response=self.response("in_progress"))

    def end(self, status: str = "completed") -> None:
        self.send("response.done", response=self.response(status))
        self.active = self.open_item = None

    def response(self, status: str) -> dict[str, Any]:
        return {"object": "realtime.response", "id": self.active, "status": status, "output": [], "conversation_id": "conv"}

    def item(self) -> None:
        self.count += 1
        self.open_item = f"a{self.count}"
        self.items.append(self.open_item)
        item = {"id": self.open_item, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        self.send("response.output_item.added", response_id=self.active, output_index=0, item=item)

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
        self.count += 1
        self.calls.append(f"call_{self.count}")
        item = {"id": f"f{self.count}", "type": "function_call", "status": "completed", "name": "t", "call_id": self.calls[-1]}
        self.send("response.output_item.done", response_id=self.active, output_index=0, item=item | {"arguments": "{}"})


class World:
    """A model session, a session and their server under one clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.model = ModelSession(PlaybackCursor(), response_timeout=1e6)
        self.core = SessionCore("agent")
        self.server = Server()
        self.running: list[str] = []
        # Calls that wait for a person, and whether the next one does.
        self.waiting: list[str] = []
        self.asking = False
        self.journal: list[tuple[str, Any, float]] = []

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
            elif action == "tool":
                server.call()
            elif action == "end":
                server.end()
            elif server.open_item is not None and action == "word":
                server.send("response.output_audio_transcript.delta", delta="word ", **place)
            elif server.open_item is not None and action == "audio":
                server.send("response.output_audio.delta", delta="AAAA" * 1600, **place)


def delete(world: World) -> None:
    if world.server.items:
        world.server.send("conversation.item.deleted", item_id=world.server.items.pop())


PLAIN_ACTIONS: dict[str, Callable[[World], Any]] = {
    "cancel": lambda world: world.on_model(world.model.send_client_event(client.ResponseCancel(), world.now)),
    "beside": lambda world: world.server.beside(),
    "delete": delete,
    "refuse": lambda world: setattr(world.server, "refusing", True),
    "ask_person": lambda world: setattr(world, "asking", True),
    "approve": lambda world: world.decide(approved=True),
    "reject": lambda world: world.decide(approved=False),
}


@given(st.lists(st.sampled_from(ACTIONS), max_size=120))
def test_any_interleaving_leaves_both_machines_legal_and_the_history_replayable(actions: list[str]) -> None:
    world = World()
    for action in actions:
        world.now += 0.01
        world.act(action)
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
    # Every call that reached us was answered once, and nothing waits for a response any more.
    assert sorted(world.server.outputs) == sorted(world.server.calls)
    assert world.core.tool_calls.open == []
    assert world.model.responses.waiting == 0
    assert world.core.active_response is None
    # What was said out of band is no part of the conversation.
    assert not any(item.item_id.startswith("b") for item in world.core.conversation.items)
    replayed = SessionCore("agent")
    for kind, what, now in world.journal:
        if kind == "tool":
            replayed.tool_started(what)
            replayed.tool_finished(what, "x")
        elif isinstance(what, RealtimeModelAudioEvent):
            replayed.audio(what, now)
        else:
            replayed.receive(what, now)
    assert replayed.conversation.items == world.core.conversation.items
